"""Faults, stops, and a portfolio too small to rebalance, with what may be traded despite them."""

from __future__ import annotations

from collections.abc import Sequence

from agent.model import HaltCode, Hold
from agent.policy import minimum, target_changes
from agent.policy.decision import (
    Decider,
    DecisionContext,
    DecisionResult,
    first_fault,
    first_result,
    halt_with,
    spares_exits,
)
from agent.policy.drift import investable_total
from agent.policy.step_faults import Fault


def halt_on_faults(
    context: DecisionContext,
    *,
    spared_deciders: Sequence[Decider],
    deciders_without_prices: Sequence[Decider],
) -> DecisionResult | None:
    """Halt while an input of the decision is unknown, stale or contradictory.

    If only the prices or orders of some assets are at fault, `spared_deciders` decide first, which
    do not depend on these; `deciders_without_prices` need no prices of the spot portfolio.
    """
    if not context.faults:
        return None
    halt = halt_with(context.faults)
    decision_result = first_result(spared_deciders, context) if spares_exits(halt) else None
    decision_result = decision_result or first_result(deciders_without_prices, context)
    if decision_result is None:
        return DecisionResult(halt, (), context.references)
    return decision_result.with_notes(f"nothing else is traded: {halt.reason}")


def sell_only_exits(
    context: DecisionContext, *, spared_deciders: Sequence[Decider]
) -> DecisionResult | None:
    """Let only `spared_deciders` decide while an asset without a price is excluded: exits, and
    reductions of what layers hold.
    """
    if not (exits_only_reason := context.step.exclusions.exits_only_reason):
        return None
    decision_result = first_result(spared_deciders, context)
    if decision_result is None:
        halt = halt_with([Fault(HaltCode.REFERENCE_PRICE, exits_only_reason)])
        return DecisionResult(halt, (), context.references)
    return decision_result.with_notes(f"nothing else is traded: {exits_only_reason}")


def halt_when_stopped(context: DecisionContext) -> DecisionResult | None:
    """Halt after failures, if ledger and chain differ, with unconfirmed positions, or without
    target weights.
    """
    stop_fault = context.stop_fault or first_fault(
        (HaltCode.WEIGHTS, target_changes.missing_weights_reason(context.step.history))
    )
    if stop_fault is None:
        return None
    return context.result(halt_with((*context.exits_only_faults, stop_fault)))


def stop_below_minimum(context: DecisionContext) -> DecisionResult | None:
    """Halt, or hold with blocked exits, if the total is too small to rebalance."""
    # money_flows.wait_for_money_flows, a later decider, halts on these faults
    if context.exits_only_faults or not (
        reason := minimum.too_small_reason(
            context.step.portfolio,
            context.step.limits,
            context.step.effective_assets,
            context.drifts,
        )
    ):
        return None
    if context.step.blocked_exits:
        return context.result(Hold(f"nothing else is traded: {reason}"))
    code = HaltCode.MIN_TRADE
    if investable_total(context.drifts) == 0:
        code = HaltCode.EMPTY
    return context.result(halt_with([Fault(code, reason)]))
