"""Decision at a block: hold, halt, rebalance, act in a layer or move liquidity, always with the
reason.
"""

from __future__ import annotations

from dataclasses import replace

from agent.layers import policy as layer_policy
from agent.model import (
    AssetDrift,
    Halt,
    HaltCode,
    Hold,
    StepInput,
)
from agent.policy import minimum, quarantine, target_changes
from agent.policy.cash_flows import balance_changes, cash_limit
from agent.policy.deciders import exits, money_flows, trigger
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
from agent.policy.orders import blocked_exits
from agent.policy.orders.exits import unconfirmed_notes
from agent.policy.step_faults import Fault, decision_faults
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


def _halt_on_faults(context: DecisionContext) -> DecisionResult | None:
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


def _sell_only_exits(context: DecisionContext) -> DecisionResult | None:
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


def _halt_when_stopped(context: DecisionContext) -> DecisionResult | None:
    """Halt after failures, if ledger and chain differ, with unconfirmed positions, or without
    target weights.
    """
    stop_fault = context.stop_fault or first_fault(
        (HaltCode.WEIGHTS, target_changes.missing_weights_reason(context.step.history))
    )
    if stop_fault is None:
        return None
    return context.result(halt_with((*context.exits_only_faults, stop_fault)))


def _stop_below_minimum(context: DecisionContext) -> DecisionResult | None:
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


def is_exit_due(step: StepInput) -> bool:
    """True if a triggered exit has something left to sell or to free, if need be beside assets
    without a price, or would be triggered if the preceding blocks confirmed this one.
    """
    if unconfirmed_notes(step, exits_only=True):
        return True
    return _sells_exits(step) or _sells_exits(quarantine.exclude_unpriced_assets(step))


def _sells_exits(step: StepInput) -> bool:
    context = DecisionContext(step, reference_prices(step))
    faults = decision_faults(step, context.references)
    if faults and not spares_exits(halt_with(faults)):
        return False
    return exits.sell_triggered_exits(context) is not None


DECIDERS: tuple[Decider, ...] = (
    _halt_on_faults,
    *layer_policy.ESCAPE_DECIDERS,
    _sell_only_exits,
    exits.sell_triggered_exits,
    *layer_policy.REDUCTION_DECIDERS,
    *layer_policy.CLOSING_DECIDERS,
    _halt_when_stopped,
    _stop_below_minimum,
    *layer_policy.LIMIT_DECIDERS,
    money_flows.wait_for_money_flows,
    money_flows.continue_purchase,
    *layer_policy.DECIDERS_BEFORE_TRIGGERS,
    trigger.rebalance_on_trigger,
)
"""The deciders in order; the first result is the decision. Only stops block an escape of a
layer; only stops and faults, with the exceptions in _halt_on_faults, block an exit and a reduction
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
