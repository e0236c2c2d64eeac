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
    change: SettledTransaction,
    prices: EntryPrices,
    counted: Collection[str],
    basis: StepInput,
    receipt: Receipt,
    principal: Callable[[str], Mapping[str, int]],
) -> Entry:
    """Return the entry of a successful liquidity action; `principal` returns the net amounts
    provided to a position.
    """
    match grant.action:
        case Collect() as action:
            return entries.withdrawal_entry(
                change, prices, counted, action.name, {}, Fraction(0), dict(change.moved)
            )
        case Withdraw() as action:
            share = Fraction(action.liquidity, action.held) if action.held > 0 else Fraction(1)
            fees = dict(zip((action.token0, action.token1), action.fees_raw, strict=True))
            provided = principal(action.name)
            return entries.withdrawal_entry(
                change, prices, counted, action.name, provided, min(share, Fraction(1)), fees
            )
        case Provide() as action:
            done = own_changes.position_change(action, receipt, basis.snapshot.owner)
            name = action.name if done is None else done.name
            return entries.provision_entry(change, prices, counted, name)
    return entries.trade_entry(change, prices, counted, {}, EntryKind.TRADE)
