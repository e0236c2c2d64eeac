"""A purchase or a withdrawal's sale as a plan: the whole if the pools take it, else the same
fraction of every asset, so that no part is one-sided.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.layers import sales
from agent.model import Goal, LegPlace, Plan, Portfolio, Rebalance, StepInput
from agent.planning import planner
from agent.planning.partial_plans import (
    MAX_PLANS,
    REQUEST_MARGIN,
    daily_loss_left,
    daily_loss_left_for_exits,
    fits_daily_loss,
    partial_plan_reason,
    plan_before_approvals,
    plan_within_daily_loss,
    worst_case_gas,
    worst_case_loss,
)
from agent.policy.decision import DecisionResult
from agent.policy.drift import corrections
from agent.policy.one_sided import partial_goal
from agent.units import Value

REACHED_FRACTION = Fraction(97, 100)
"""Fraction of an asset's shortfall that counts as filled, because fees and impact take the rest."""
MIN_USEFUL_SHARE = Fraction(1, 4)
"""Fraction of limits.daily_loss below which a part waits until more of it is left, unless
it is the last.
"""


def plan_proportional_part(
    step: StepInput, decision_result: DecisionResult, decision: Rebalance, whole_plan: Plan
) -> tuple[Plan, Fraction]:
    """Return the plan and the fraction of the goal that it reaches: 1 if it is `whole_plan`, or if
    an asset cannot move at all. If no fraction fits the remainder of limits.daily_loss, the plan
    may exceed it.
    """
    min_value = step.limits.smallest_trade
    move_values = {
        token: correction_value
        for token, correction_value in corrections(decision_result.drifts, decision.goal).items()
        if abs(correction_value) >= min_value
    }
    reached_fraction = min(
        _reached_fractions(step.portfolio, decision_result, whole_plan, move_values).values(),
        default=Fraction(1),
    )
    fitting_fraction = _fitting_fraction(step, whole_plan)
    if fitting_fraction == 1 and reached_fraction >= REACHED_FRACTION:
        return whole_plan, Fraction(1)
    if fitting_fraction < 1 and not _has_useful_room(step, whole_plan):
        return whole_plan, Fraction(1)
    goal_fraction = Fraction(1)
    for _ in range(MAX_PLANS if move_values else 0):
        if reached_fraction < REACHED_FRACTION:
            goal_fraction *= min(
                fitting_fraction, max(reached_fraction * Fraction(99, 100), Fraction(1, 2))
            )
        else:
            goal_fraction *= fitting_fraction
        goal_fraction = goal_fraction.limit_denominator(1_000)
        if (
            goal_fraction * min(abs(correction_value) for correction_value in move_values.values())
            < min_value
        ):
            break
        goal = partial_goal(decision_result.drifts, decision.goal, goal_fraction)
        try:
            plan = sales.plan_sales(step, replace(decision, goal=goal))
        except planner.NothingPlanned:
            break
        part_values = {
            token: correction_value * goal_fraction
            for token, correction_value in move_values.items()
        }
        reached_fraction = min(
            _reached_fractions(step.portfolio, decision_result, plan, part_values).values(),
            default=Fraction(1),
        )
        fitting_fraction = _fitting_fraction(step, plan)
        if fitting_fraction == 1 and reached_fraction >= REACHED_FRACTION:
            return replace(plan, decision=decision), goal_fraction
    if fits_daily_loss(step, whole_plan):
        return whole_plan, Fraction(
            1
        )  # the plan lists assets that cannot move and trades the others
    plan = replace(plan_within_daily_loss(step, decision, whole_plan), decision=decision)
    if not whole_plan.turnover:
        return plan, Fraction(1)
    return plan, min(Fraction(1), plan.turnover / whole_plan.turnover)


def _fitting_fraction(step: StepInput, plan: Plan) -> Fraction:
    """Return the fraction of a plan that fits limits.daily_loss, with all of its gas and its other
    cost in proportion.
    """
    if fits_daily_loss(step, plan):
        return Fraction(1)
    if plan.is_exit:
        loss_left = daily_loss_left_for_exits(step) or Fraction(0)
        gas_value = plan.cost.gas + plan.cost.approval_gas
        loss_value = plan.cost.total
    else:
        loss_left = daily_loss_left(step) or Fraction(0)
        gas_value = worst_case_gas(step, plan)
        loss_value = worst_case_loss(step, plan)
    if loss_left <= gas_value:
        return Fraction(0)
    return (loss_left - gas_value) / (loss_value - gas_value) * REQUEST_MARGIN


def _has_useful_room(step: StepInput, whole_plan: Plan) -> bool:
    """True if enough of limits.daily_loss remains for a part of the plan."""
    loss_left_of = daily_loss_left_for_exits if whole_plan.is_exit else daily_loss_left
    budgets = replace(step.history.budgets, loss_24h=Fraction(0))
    daily_loss_limit = loss_left_of(replace(step, history=replace(step.history, budgets=budgets)))
    return (
        daily_loss_limit is None
        or (loss_left_of(step) or Fraction(0)) >= daily_loss_limit * MIN_USEFUL_SHARE
    )


def daily_loss_reason(step: StepInput, decision: Rebalance, whole_plan: Plan) -> str:
    """Return the note that a plan is partial because of limits.daily_loss; empty otherwise. The
    approvals of this step do not count.
    """
    if daily_loss_left(step) is None:
        return ""
    whole_plan = plan_before_approvals(step, decision, whole_plan)
    if fits_daily_loss(step, whole_plan):
        return ""
    return f"; {partial_plan_reason(step, worst_case_loss(step, whole_plan))}"


def _reached_fractions(
    portfolio: Portfolio, decision_result: DecisionResult, plan: Plan, move_values: dict[str, Value]
) -> dict[str, Fraction]:
    """Return the fraction of its correction that the plan moves, by token; without the numeraire,
    which pays the costs.
    """
    price_by_token = {drift.token: drift.price for drift in decision_result.drifts}
    moved_values = dict.fromkeys(price_by_token, Fraction(0))
    for leg in plan.legs:
        for token, delta_raw, is_wallet_leg in (
            (leg.token_in, -leg.amount_in_raw, leg.source is LegPlace.WALLET),
            (leg.token_out, leg.amount_out_raw, leg.sink is LegPlace.WALLET),
        ):
            asset_token = portfolio.pricing_token(token)
            if is_wallet_leg and asset_token in moved_values:
                moved_values[asset_token] += delta_raw * price_by_token[asset_token]
    numeraire = portfolio.numeraire.address
    return {
        token: max(Fraction(0), moved_values[token] / correction_value)
        for token, correction_value in move_values.items()
        if token != numeraire
    }


def goal_value_to_move(decision_result: DecisionResult, goal: Goal) -> Value:
    """Return the value to sell, or to buy if that is more, until the goal is reached."""
    move_values = corrections(decision_result.drifts, goal).values()
    return max(
        sum((correction for correction in move_values if correction > 0), Fraction(0)),
        -sum((correction for correction in move_values if correction < 0), Fraction(0)),
    )
