"""Decision at a block: hold, halt, rebalance, act in a layer or move liquidity, always with the
reason.
"""

from __future__ import annotations

from dataclasses import replace

from agent.layers.policy import DECIDERS, EXIT_DECIDERS, RESULT_AMENDERS
from agent.model import AssetDrift, Decision, Halt, HaltCode, StepInput
from agent.policy import quarantine
from agent.policy.decision import (
    DecisionContext,
    DecisionResult,
    decider_results,
    first_result,
    halt_with,
    spares_exits,
)
from agent.policy.drift import drifts_if_known
from agent.policy.orders.exits import unconfirmed_notes
from agent.reference import reference_prices


def decide(step: StepInput) -> DecisionResult:
    """Decide from the step input alone; equal inputs give equal decisions.

    Raises ConfigError for an invalid schedule. The reason always names tokens in quarantine,
    blocked exits, and increases accepted as deposits.
    """
    context = DecisionContext(step, reference_prices(step))
    decision_result = next(decider_results(DECIDERS, context))
    decision_result = replace(decision_result, blocked_exits=step.blocked_exits)
    for amend_result in RESULT_AMENDERS:
        decision_result = amend_result(step, decision_result)
    return decision_result


def is_exit_due(step: StepInput) -> bool:
    """True if a triggered exit has something left to sell or to free, if need be beside assets
    without a price, or would be triggered if the preceding blocks confirmed this one.
    """
    if unconfirmed_notes(step, exits_only=True):
        return True
    return _sells_exits(step) or _sells_exits(quarantine.exclude_unpriced_assets(step))


def _sells_exits(step: StepInput) -> bool:
    context = DecisionContext(step, reference_prices(step))
    if context.faults and not spares_exits(halt_with(context.faults)):
        return False
    return first_result(EXIT_DECIDERS, context) is not None


def current_drifts(step: StepInput) -> tuple[AssetDrift, ...]:
    """Return weight and target of each asset, for reports and signals; empty if balances or prices
    are unknown. Signals ask before the risk of a tracking rule or a zone is known.
    """
    context = DecisionContext(step, reference_prices(step))
    if any(fault.code is not HaltCode.ZONE for fault in context.faults):
        return ()
    return drifts_if_known(step, context.references.price_by_token)


def hard_pause_result(step: StepInput, reason: str) -> DecisionResult:
    """Return the halt of a hard pause, with drifts and prices for its report."""
    return reported_result(step, Halt(reason, (HaltCode.HARD_PAUSE,)))


def reported_result(step: StepInput, decision: Decision) -> DecisionResult:
    """Return a decision that the step's policy did not make, with drifts and prices for its
    report.
    """
    context = DecisionContext(step, reference_prices(step))
    drifts = () if context.faults else context.drifts
    return DecisionResult(decision, drifts, context.references, blocked_exits=step.blocked_exits)
