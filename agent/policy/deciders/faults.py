"""Faults, stops, and a portfolio too small to rebalance, with what may be traded despite them."""

from __future__ import annotations

from dataclasses import replace

from agent.layers import policy as layer_policy
from agent.model import HaltCode, Hold
from agent.policy import minimum, target_changes
from agent.policy.deciders import exits
from agent.policy.decision import (
    DecisionContext,
    DecisionResult,
    first_fault,
    first_result,
    halt_with,
    spares_exits,
)
from agent.policy.drift import investable_total
from agent.policy.step_faults import Fault, decision_faults


def halt_on_faults(context: DecisionContext) -> DecisionResult | None:
    """Halt while an input of the decision is unknown, stale or contradictory.

    If only the prices or orders of some assets are at fault, exits that do not depend on these
    prices are sold; layers reduce what needs no prices of the spot portfolio.
    """
    faults = decision_faults(context.step, context.references)
    if not faults:
        return None
    halt = halt_with(faults)
    decision_result = None
    if spares_exits(halt):
        decision_result = first_result(
            layer_policy.ESCAPE_DECIDERS, context
        ) or exits.sell_triggered_exits(context)
    for reduce_without_prices in layer_policy.DECIDERS_WITHOUT_PRICES:
        decision_result = decision_result or reduce_without_prices(context, halt)
    if decision_result is None:
        return DecisionResult(halt, (), context.references)
    reason = f"{decision_result.decision.reason}; nothing else is traded: {halt.reason}"
    return replace(decision_result, decision=replace(decision_result.decision, reason=reason))


def sell_only_exits(context: DecisionContext) -> DecisionResult | None:
    """Only sell triggered exits and reduce what layers hold while an asset without a price is
    excluded.
    """
    if not (exits_only_reason := context.step.exclusions.exits_only_reason):
        return None
    if (
        exit_result := exits.sell_triggered_exits(context)
        or first_result(layer_policy.REDUCTION_DECIDERS, context)
    ) is None:
        halt = halt_with([Fault(HaltCode.REFERENCE_PRICE, exits_only_reason)])
        return DecisionResult(halt, (), context.references)
    reason = f"{exit_result.decision.reason}; nothing else is traded: {exits_only_reason}"
    return replace(exit_result, decision=replace(exit_result.decision, reason=reason))


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
