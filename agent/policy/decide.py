"""Decision at a block: hold, halt, rebalance, act in a layer or move liquidity, always with the
reason.
"""

from __future__ import annotations

from dataclasses import replace

from agent.layers import policy as layer_policy
from agent.model import AssetDrift, Halt, StepInput
from agent.policy import quarantine
from agent.policy.cash_flows import balance_changes, cash_limit
from agent.policy.deciders import exits, faults, money_flows, trigger
from agent.policy.decision import (
    Decider,
    DecisionContext,
    DecisionResult,
    halt_with,
    spares_exits,
)
from agent.policy.orders import blocked_exits
from agent.policy.orders.exits import unconfirmed_notes
from agent.policy.step_faults import decision_faults
from agent.reference import reference_prices


def decide(step: StepInput) -> DecisionResult:
    """Decide from the step input alone; equal inputs give equal decisions.

    Raises ConfigError for an invalid schedule. The reason always names tokens in quarantine,
    blocked exits, and increases accepted as deposits.
    """
    decision_result = replace(_run_deciders(step), blocked_exits=step.blocked_exits)
    for amend_result in layer_policy.RESULT_AMENDERS:
        decision_result = amend_result(step, decision_result)
    notes = (
        quarantine.format_quarantine(step.portfolio, step.targets.quarantined_tokens),
        blocked_exits.format_blocked_exits(step),
        step.exclusions.reason,
        cash_limit.unused_cash_text(step.portfolio, step.history.cash_flows),
        balance_changes.format_accepted_deposits(
            step.portfolio, step.history.cash_flows.accepted_deposits
        ),
        *(note_of(step, decision_result.drifts) for note_of in layer_policy.REASON_NOTES),
    )
    reason = "; ".join(
        reason_part for reason_part in (decision_result.decision.reason, *notes) if reason_part
    )
    return replace(decision_result, decision=replace(decision_result.decision, reason=reason))


def is_exit_due(step: StepInput) -> bool:
    """True if a triggered exit has something left to sell or to free, if need be beside assets
    without a price, or would be triggered if the preceding blocks confirmed this one.
    """
    if unconfirmed_notes(step, exits_only=True):
        return True
    return _sells_exits(step) or _sells_exits(quarantine.exclude_unpriced_assets(step))


def _sells_exits(step: StepInput) -> bool:
    context = DecisionContext(step, reference_prices(step))
    step_faults = decision_faults(step, context.references)
    if step_faults and not spares_exits(halt_with(step_faults)):
        return False
    return exits.sell_triggered_exits(context) is not None


DECIDERS: tuple[Decider, ...] = (
    faults.halt_on_faults,
    *layer_policy.ESCAPE_DECIDERS,
    faults.sell_only_exits,
    exits.sell_triggered_exits,
    *layer_policy.REDUCTION_DECIDERS,
    *layer_policy.CLOSING_DECIDERS,
    faults.halt_when_stopped,
    faults.stop_below_minimum,
    *layer_policy.LIMIT_DECIDERS,
    money_flows.wait_for_money_flows,
    money_flows.continue_purchase,
    *layer_policy.DECIDERS_BEFORE_TRIGGERS,
    trigger.rebalance_on_trigger,
)
"""The deciders in order; the first result is the decision. Only stops block an escape of a
layer; only stops and faults, with the exceptions in faults.halt_on_faults, block an exit and a reduction
of a layer.
"""


def _run_deciders(step: StepInput) -> DecisionResult:
    context = DecisionContext(step, reference_prices(step))
    decision_result = next(
        decision_result for decider in DECIDERS if (decision_result := decider(context)) is not None
    )
    decision_result = exits.hold_beside_exit(step, decision_result)
    for replace_hold in layer_policy.HOLD_REPLACERS:
        decision_result = replace_hold(context, decision_result)
    return decision_result


def current_drifts(step: StepInput) -> tuple[AssetDrift, ...]:
    """Return weight and target of each asset, for reports; empty if balances or prices are
    unknown.
    """
    return halt_for(step, "").drifts


def halt_for(step: StepInput, reason: str) -> DecisionResult:
    """Return a halt for a reason outside of the step, with drifts and prices for its report."""
    context = DecisionContext(step, reference_prices(step))
    drifts = () if decision_faults(step, context.references) else context.drifts
    return DecisionResult(
        Halt(reason), drifts, context.references, blocked_exits=step.blocked_exits
    )
