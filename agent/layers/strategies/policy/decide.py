"""Decision of several strategies on one wallet, and its part in other decisions."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.layers.strategies.policy import netting
from agent.layers.strategies.policy.netting import NettingResult
from agent.layers.strategies.state import CapitalSplit
from agent.model import Decision, Goal, Hold, LayerResult, Rebalance
from agent.policy import native_coin
from agent.policy import rebalance as rebalances
from agent.policy.decision import DecisionContext, DecisionResult
from agent.policy.triggers import bands


@dataclass(frozen=True, slots=True)
class StrategiesResult(LayerResult):
    """The netting of several strategies; `is_netting_only` if they trade only with each other and
    not on the market.
    """

    netting: NettingResult | None = None
    is_netting_only: bool = False

    @property
    def internal_goal(self) -> Goal | None:
        """See LayerResult."""
        return self.netting.goal if self.is_netting_only and self.netting is not None else None

    def when_postponed(self) -> LayerResult:
        """See LayerResult."""
        return replace(self, is_netting_only=False)


def netting_for_purchase(context: DecisionContext) -> LayerResult:
    """Return the netting of the strategies whose purchase is decided; nothing without
    strategies.
    """
    if not context.step.config(CapitalSplit).strategies:
        return StrategiesResult()
    return StrategiesResult(netting.net_strategies(context.step, context.prices))


def rebalance_strategies(context: DecisionContext) -> DecisionResult | None:
    """Rebalance each strategy by its own trigger and cooldown, all towards one goal, in which no
    weight stays above its limit; the remainder after internal netting must be worth a trade.
    """
    step = context.step
    drifts = context.drifts
    prices = context.prices
    if not step.config(CapitalSplit).strategies:
        return None
    netting_result = netting.net_strategies(step, prices)
    trigger = bands.apply_max_weight(step.policy, drifts, netting_result.trigger_result)
    goal = netting_result.goal
    is_reduction = not netting_result.trigger_result.fired
    if is_reduction:
        goal = bands.reduction_goal(drifts)
    elif bands.must_reduce_weight(step.policy, drifts):
        goal = bands.cap_goal(drifts, goal)
        is_reduction = goal != netting_result.goal
        if is_reduction:
            trigger = replace(trigger, reason=f"{trigger.reason}; {bands.overweight_text(drifts)}")
    decision: Decision = rebalances.review_hold(trigger)
    is_review = trigger.is_review_due
    if trigger.fired:
        decision, is_review = rebalances.rebalance_or_hold(
            step, drifts, context.references, trigger, goal
        )
    if isinstance(decision, Rebalance) and is_reduction:
        decision, is_review = rebalances.confirm_rebalance(
            step, prices, decision, review_done=is_review, needs_no_confirmation=False
        )
    is_netting_only = (
        netting_result.trigger_result.fired
        and isinstance(decision, Hold)
        and not rebalances.is_worth_a_trade(
            step.limits, drifts, rebalances.largest_correction(drifts, netting_result.goal)
        )
    )
    if (top_up := native_coin.top_up(step, decision)) is not None:
        decision_result = replace(context.result(top_up), next_s=trigger.next_s)
        return decision_result.with_layer(StrategiesResult(netting_result))
    decision_result = replace(
        context.result(decision),
        is_reviewed=is_review,
        due_schedules=trigger.due_schedules if is_review else (),
        next_s=trigger.next_s,
    )
    return decision_result.with_layer(StrategiesResult(netting_result, is_netting_only))
