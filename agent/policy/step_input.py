"""Step input from snapshot, config and the store's memory, built identically live, on paper and in
a backtest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from agent.layers import inputs as layer_inputs
from agent.model import (
    ExpectedBalances,
    LayerState,
    LedgerBalance,
    Portfolio,
    StepInput,
    StepMemory,
)
from agent.policy import quarantine
from agent.policy.cash_flows import balance_changes, cash_limit, transfers
from agent.policy.orders.exits import apply_orders
from agent.policy.risk_estimates import complete_risk
from agent.policy.target_changes import apply_allocation
from agent.units import NATIVE, decimal_text

InputTransform = Callable[[StepInput], StepInput]
TARGET_ADJUSTMENTS: tuple[InputTransform, ...] = (
    apply_allocation,
    *layer_inputs.TARGET_ADJUSTMENTS,
    apply_orders,
    complete_risk,
)
"""Target adjustments in order: allocator, layers, orders, and the risk of a zone. Each
reads `step.history` and returns the step with its targets and the reason in `targets.reasons`.
"""


def apply_effective_targets(step: StepInput) -> StepInput:
    """Return the step with its effective targets. Applied before quarantine, so that quarantined
    tokens never get a target.
    """
    for adjust_targets in TARGET_ADJUSTMENTS:
        step = adjust_targets(step)
    return step


def input_transforms(memory: StepMemory) -> tuple[InputTransform, ...]:
    """Return the steps from a snapshot with its config and budgets to the complete input, in
    order.
    """
    return (
        apply_min_tip,
        *layer_inputs.SNAPSHOT_ADJUSTMENTS,
        partial(add_memory, memory=memory),
        partial(
            reconcile_ledger,
            expected_balances=memory.balances,
            ledger_balances=memory.ledger_balances,
        ),
        partial(balance_changes.apply_balance_changes, expected_balances=memory.balances),
        balance_changes.bound_limits,
        partial(
            cash_limit.reserve_unused_cash,
            cash_memory=memory.cash,
            expected_balances=memory.balances,
        ),
        transfers.reserve_withdrawals,
        # before the layers, because no part of the wallet owns an unexplained increase
        cash_limit.exclude_unexplained_increases,
        *(partial(add_from_memory, memory) for add_from_memory in layer_inputs.MEMORY_ADJUSTMENTS),
        apply_effective_targets,
        # after targets, so that a quarantined token gets no weight
        quarantine.quarantine_unreadable_assets,
        partial(quarantine.quarantine_tokens, screened_tokens=memory.untradable_tokens),
        *layer_inputs.FINAL_ADJUSTMENTS,
    )


def assemble_input(initial_step: StepInput, memory: StepMemory) -> StepInput:
    """Return the complete input of a step: `initial_step`, which has snapshot, config and budgets,
    after each of `input_transforms`.
    """
    step = initial_step
    for transform in input_transforms(memory):
        step = transform(step)
    return step


def apply_min_tip(step: StepInput) -> StepInput:
    """Return the step with at least the tip that nodes take, which every cost then includes: of the
    config, and as they demanded when they refused a lower one. Without a base fee the gas price is
    the tip.
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
