"""Parts of a step's input from the config and the store's memory: smallest tip, recorded states, and
differences between ledger and chain.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agent.model import (
    ExpectedBalances,
    LayerState,
    LedgerBalance,
    Portfolio,
    StepInput,
    StepMemory,
)
from agent.policy.cash_flows import balance_changes
from agent.units import NATIVE, decimal_text


def apply_min_tip(step: StepInput) -> StepInput:
    """Return the step with a tip of at least execution.min_tip and the tip that nodes demanded when
    they refused a lower one; every cost then includes it. Without a base fee the gas price is the
    tip.
    """
    min_tip_wei = max(step.execution.min_tip_wei, step.history.demanded_tip_wei)
    snapshot = step.snapshot
    if snapshot.head.base_fee_wei is None:
        snapshot = replace(snapshot, gas_price_wei=max(snapshot.gas_price_wei, min_tip_wei))
    else:
        snapshot = replace(snapshot, priority_fee_wei=max(snapshot.priority_fee_wei, min_tip_wei))
    return replace(step, snapshot=snapshot)


def add_memory(step: StepInput, memory: StepMemory) -> StepInput:
    """Return the step with recorded prices, the last chosen weights, and the states that the layers
    read.
    """
    for layer_state in memory.layers:
        if isinstance(layer_state, LayerState):
            step = step.with_layer(layer_state)
    history = replace(step.history, prices=memory.prices, allocation=memory.allocation)
    return replace(step, history=history)


# --- Differences between ledger and chain, by token.


LEDGER_REMEDY = (
    "find the entry with trimtab books check, or restart from the chain's balances with trimtab"
    " books open"
)


def reconcile_ledger(
    step: StepInput, expected_balances: ExpectedBalances, ledger_balances: Iterable[LedgerBalance]
) -> StepInput:
    """Return the step with ledger differences in its history.

    An unexplained change without a record is a flow, not a difference. A snapshot that cannot be
    compared with expected balances is not compared with the ledger either.
    """
    if not balance_changes.is_comparable(step.snapshot, expected_balances):
        return step
    unrecorded_raw_by_token = {
        token: delta_raw
        for token, (delta_raw, _) in balance_changes.balance_differences(
            step.snapshot, expected_balances
        ).items()
    }
    chain_raw_by_token = balance_changes.balances_of(step.snapshot)
    portfolio_tokens = {asset.token.address for asset in step.portfolio.assets} | {NATIVE}
    disagreements = []
    for ledger_balance in ledger_balances:
        expected_raw = ledger_balance.raw + unrecorded_raw_by_token.get(ledger_balance.token, 0)
        if (
            ledger_balance.token in portfolio_tokens
            and ledger_balance.token in chain_raw_by_token
            and chain_raw_by_token[ledger_balance.token] != expected_raw
        ):
            expected_text, chain_text = (
                _amount_text(step.portfolio, ledger_balance.token, raw)
                for raw in (expected_raw, chain_raw_by_token[ledger_balance.token])
            )
            disagreements.append(
                f"{balance_changes.token_label(step.portfolio, ledger_balance.token)}: {expected_text} by the ledger,"
                f" {chain_text} on the chain"
            )
    if not disagreements:
        return step
    mismatch_message = (
        f"ledger and chain disagree at block {step.snapshot.head.number}: {'; '.join(disagreements)};"
        f" {LEDGER_REMEDY}"
    )
    return replace(step, history=replace(step.history, ledger_mismatch=mismatch_message))


def _amount_text(portfolio: Portfolio, token: str, raw: int) -> str:
    decimals = 18 if token == NATIVE else portfolio.token(token).decimals
    return decimal_text(raw, decimals)
