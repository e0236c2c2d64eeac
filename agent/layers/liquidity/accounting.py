"""Ledger entries of liquidity actions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from fractions import Fraction

from agent.accounting import entries
from agent.accounting.entries import EntryPrices, SettledTransaction
from agent.amm.lp import own_changes
from agent.model import Collect, Entry, EntryKind, Provide, Receipt, StepInput, Withdraw
from agent.ports import Grant


def settled_entry(
    grant: Grant,
    transaction: SettledTransaction,
    prices: EntryPrices,
    ledger_tokens: Collection[str],
    step: StepInput,
    receipt: Receipt,
    net_amounts_of: Callable[[str], Mapping[str, int]],
) -> Entry:
    """Return the entry of a successful liquidity action; `net_amounts_of` returns the net amounts
    provided to a position.
    """
    match grant.layer_action:
        case Collect() as action:
            return entries.withdrawal_entry(
                transaction,
                prices,
                ledger_tokens,
                action.name,
                {},
                Fraction(0),
                dict(transaction.change_raw_by_token),
            )
        case Withdraw() as action:
            withdrawn_share = (
                Fraction(action.liquidity, action.position_liquidity)
                if action.position_liquidity > 0
                else Fraction(1)
            )
            fee_raw_by_token = dict(
                zip((action.token0, action.token1), action.fees_raw, strict=True)
            )
            provided_raw_by_token = net_amounts_of(action.name)
            return entries.withdrawal_entry(
                transaction,
                prices,
                ledger_tokens,
                action.name,
                provided_raw_by_token,
                min(withdrawn_share, Fraction(1)),
                fee_raw_by_token,
            )
        case Provide() as action:
            position_change = own_changes.position_change(action, receipt, step.snapshot.owner)
            position_name = action.name if position_change is None else position_change.name
            return entries.provision_entry(transaction, prices, ledger_tokens, position_name)
    return entries.trade_entry(transaction, prices, ledger_tokens, {}, EntryKind.TRADE)
