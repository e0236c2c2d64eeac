"""Decision of the policy's trigger for the whole portfolio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from agent.layers.questions import sale_taxes
from agent.model import (
    AssetDrift,
    Decision,
    Hold,
    LayerDecision,
    Limits,
    NoTradeZone,
    Policy,
    Portfolio,
    Rebalance,
    StepInput,
)
from agent.policy import native_coin
from agent.policy import rebalance as rebalances
from agent.policy.decision import DecisionContext, DecisionResult
from agent.policy.drift import corrections
from agent.policy.triggers import bands, no_trade_zone
from agent.policy.triggers.bands import TriggerResult
from agent.policy.triggers.exchange_costs import PricedMarket
from agent.policy.triggers.no_trade_zone import ZoneView
from agent.policy.triggers.rules import evaluate_trigger
from agent.units import Price, format_time


def rebalance_on_trigger(
    context: DecisionContext,
    *,
    decide_without_swaps: Callable[[StepInput, Mapping[str, Price], Hold], LayerDecision | Hold],
    decide_before_swaps: Callable[[StepInput, Mapping[str, Price]], LayerDecision | Hold | None]
    | None = None,
) -> DecisionResult:
    """Rebalance if the trigger fires and a trade is large enough; else let layers act, or hold.
    `decide_without_swaps` decides what is done in place of a hold; `decide_before_swaps` what
    precedes the rebalance, because its swaps spend what that frees.
    """
    step = context.step
    prices = context.prices
    trigger_result, zone, drifts = _evaluate_portfolio_trigger(context)
    if zone is not None:
        # confirmation by past blocks and the goal weigh by the same risk
        step = replace(step, policy=replace(step.policy, trigger=NoTradeZone(zone.risk)))
    trigger_result = bands.apply_max_weight(step.policy, drifts, trigger_result)
    if (reason := step.progress.continue_reason) and zone is None:
        # The preceding blocks already confirmed the rebalance of which this is the rest.
        trigger_result = replace(
            trigger_result, fired=True, reason=reason, needs_no_confirmation=True
        )
    decision: Decision
    if trigger_result.fired:
        decision, is_reviewed = rebalances.rebalance_or_hold(
            step, drifts, context.references, trigger_result
        )
        if isinstance(decision, Hold) and decision.limiting_rule not in rebalances.WAITING_RULES:
            decision = decide_without_swaps(step, prices, decision)
        elif isinstance(decision, Rebalance):
            decision, is_reviewed = rebalances.confirm_rebalance(
                step,
                prices,
                decision,
                review_done=is_reviewed,
                needs_no_confirmation=trigger_result.needs_no_confirmation,
            )
        if (
            isinstance(decision, Rebalance)
            and decide_before_swaps is not None
            and (decision_before_swaps := decide_before_swaps(step, prices))
        ):
            decision = decision_before_swaps
            is_reviewed = False
    else:
        decision = decide_without_swaps(
            step,
            prices,
            rebalances.review_hold(
                _with_forecast(step.portfolio, step.policy, step.limits, drifts, trigger_result)
            ),
        )
        is_reviewed = trigger_result.is_review_due
    if (refill := native_coin.top_up(step, decision)) is not None:
        decision = refill
        is_reviewed = False
    return DecisionResult(
        decision,
        drifts,
        context.references,
        is_reviewed,
        zone,
        trigger_result.due_schedules if is_reviewed else (),
        trigger_result.next_s,
    )


def _evaluate_portfolio_trigger(
    context: DecisionContext,
) -> tuple[TriggerResult, ZoneView | None, tuple[AssetDrift, ...]]:
    """Return the trigger's result, the zone if the trigger is one, and the drifts with its
    bands.
    """
    step = context.step
    drifts = context.drifts
    trigger = context.step.policy.trigger
    if not isinstance(trigger, NoTradeZone):
        trigger_result = evaluate_trigger(
            trigger,
            drifts,
            step.snapshot.head.timestamp_s,
            step.history,
            step.policy.jitter_bps,
            step.portfolio.numeraire.address,
        )
        return trigger_result, None, drifts
    zone, drifts = no_trade_zone.evaluate_zone(
        PricedMarket.of_step(step, context.prices),
        trigger.risk,
        drifts,
        sale_taxes(step, context.prices),
        counts_pairs=step.policy.trade_side is None,
    )
    trigger_result = no_trade_zone.zone_result(zone, drifts)
    if bands.must_reduce_weight(step.policy, drifts):
        trigger_result = replace(trigger_result, fired=False)
    return trigger_result, zone, drifts


def _with_forecast(
    portfolio: Portfolio,
    policy: Policy,
    limits: Limits,
    drifts: tuple[AssetDrift, ...],
    trigger_result: TriggerResult,
) -> TriggerResult:
    """Return the result of a review that executes later, with the trades it would make now."""
    if trigger_result.executes_at_s is None:
        return trigger_result
    min_value = limits.smallest_trade
    correction_values = corrections(
        drifts, rebalances.current_goal(portfolio, policy, drifts)
    ).values()
    trade_texts = [
        f"{'sell' if correction_value < 0 else 'buy'} {portfolio.numeraire.money_text(abs(correction_value))} of {drift.symbol}"
        for drift, correction_value in zip(drifts, correction_values, strict=True)
        if drift.token != portfolio.numeraire.address and abs(correction_value) >= min_value
    ]
    trades_text = "nothing large enough for a trade"
    if trade_texts:
        trades_text = f"a rebalance would {', '.join(trade_texts)}"
    reason = (
        f"{trigger_result.reason}; {trades_text}; executed from {format_time(trigger_result.executes_at_s)} on, at"
        " the prices then"
    )
    return replace(trigger_result, reason=reason)
