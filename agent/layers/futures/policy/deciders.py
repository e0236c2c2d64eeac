"""Futures in a step's decision: reductions and the closing of hedges, with and without prices of
the spot portfolio, and orders towards the targets in place of a hold.
"""

from __future__ import annotations

from dataclasses import replace

from agent.layers.futures.policy.hedge_closing import hedge_closing_decision
from agent.layers.futures.policy.needs import (
    ORDER_GAS,
    due_futures_adjustment,
    emergency_adjustment,
)
from agent.layers.futures.state import futures_policy, futures_progress
from agent.layers.questions import FAULTS
from agent.model import AdjustFutures, HaltCode, Hold, StepInput
from agent.policy import failures, native_coin
from agent.policy.decision import FAULTS_OF_SOME_ASSETS, DecisionContext, DecisionResult

FAULTS_OF_SPOT = FAULTS_OF_SOME_ASSETS | {
    HaltCode.REFERENCE_PRICE,
    HaltCode.QUARANTINE,
    HaltCode.BALANCE,
    HaltCode.ZONE,
    *(layer.code for layer in FAULTS if layer.code is not HaltCode.FUTURES),
}
"""Faults of the spot portfolio, which do not affect futures reductions."""


def reduce_without_prices(context: DecisionContext) -> DecisionResult | None:
    """Reduce futures by the venue's own figures alone, without prices of the spot portfolio:
    futures that breach a limit despite FAULTS_OF_SPOT, futures near liquidation despite any fault.
    """
    step = context.step
    if context.stop_fault:
        return None
    due_adjustment = emergency_adjustment(
        step.snapshot, futures_policy(step), futures_progress(step)
    )
    if due_adjustment is None and {fault.code for fault in context.faults} <= FAULTS_OF_SPOT:
        due_adjustment = due_futures_adjustment(step, ())
    if due_adjustment is None or not due_adjustment.is_reducing:
        return None
    return DecisionResult(due_adjustment, (), context.references)


def escape_liquidation(context: DecisionContext) -> DecisionResult | None:
    """Close futures positions near liquidation, before the spot portfolio; only stops block it
    (during faults halt_on_faults does it). Gas is topped up first only if it is not enough for one
    order.
    """
    step = context.step
    if (
        context.stop_fault
        or (
            due_adjustment := emergency_adjustment(
                step.snapshot, futures_policy(step), futures_progress(step)
            )
        )
        is None
    ):
        return None
    lacks_gas = step.snapshot.native_wei < native_coin.gas_cost_with_margin_wei(
        step.snapshot, ORDER_GAS
    )
    return context.result(
        (native_coin.top_up(step, due_adjustment) if lacks_gas else None) or due_adjustment
    )


def reduce_positions(context: DecisionContext) -> DecisionResult | None:
    """Reduce futures positions that breach a limit; only stops block it, and faults other than
    FAULTS_OF_SPOT.
    """
    if context.stop_fault or futures_policy(context.step) is None:
        return None
    due_adjustment = due_futures_adjustment(context.step, context.drifts)
    return (
        None
        if due_adjustment is None or not due_adjustment.is_reducing
        else _after_top_up(context, due_adjustment)
    )


def close_hedges(context: DecisionContext) -> DecisionResult | None:
    """Close a hedge for which a closing rule holds; only faults and stops block it."""
    if context.stop_fault or futures_policy(context.step) is None:
        return None
    closing_decision = hedge_closing_decision(context.step, context.drifts)
    return None if closing_decision is None else _after_top_up(context, closing_decision)


def _after_top_up(context: DecisionContext, due_adjustment: AdjustFutures) -> DecisionResult:
    return context.result(native_coin.top_up(context.step, due_adjustment) or due_adjustment)


def open_positions(step: StepInput, decision_result: DecisionResult) -> DecisionResult:
    """Replace a hold of the spot portfolio with orders towards the futures targets, unless
    failures, withdrawals or unexplained changes block them.
    """
    if futures_policy(step) is None or not isinstance(decision_result.decision, Hold):
        return decision_result
    context = DecisionContext(step, decision_result.references)
    if (
        context.exits_only_faults
        or failures.is_stopped(step.history)
        or step.exclusions.exits_only_reason
    ):
        return decision_result
    due_adjustment = due_futures_adjustment(step, context.drifts)
    if due_adjustment is None or due_adjustment.is_reducing:
        return decision_result
    next_decision = native_coin.top_up(step, due_adjustment) or due_adjustment
    combined_reason = f"{next_decision.reason}; spot: {decision_result.decision.reason}"
    return replace(decision_result, decision=replace(next_decision, reason=combined_reason))
