"""A purchase as a plan: the whole if the pools take it, else the same fraction of every asset,
so that no part is one-sided.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.layers import sales
from agent.model import Goal, LegFunding, Limits, Plan, Portfolio, Rebalance, StepInput
from agent.planning import planner
from agent.planning.partial_plans import (
    MARGIN,
    TRIES,
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

WHOLE = Fraction(97, 100)
"""Fraction of an asset's shortfall that counts as filled, because fees and impact take the rest."""
USEFUL = Fraction(1, 4)
"""Fraction of limits.daily_loss below which a part waits for the next day, unless it is the
last.
"""


def plan_proportional_part(
    step: StepInput, decided: DecisionResult, decision: Rebalance, whole: Plan
) -> tuple[Plan, Fraction]:
    """Return the plan and the fraction of the goal that it reaches: 1 if it is `whole`, or if an
    asset cannot move at all. If no fraction fits the remainder of limits.daily_loss, the plan may
    exceed it.
    """
    least = _least_trade(step.limits)
    lacks = {
        token: value
        for token, value in corrections(decided.drifts, decision.goal).items()
        if abs(value) >= least
    }
    reached = min(_reached(step.portfolio, decided, whole, lacks).values(), default=Fraction(1))
    fits = _part_that_fits(step, whole)
    if fits == 1 and reached >= WHOLE:
        return whole, Fraction(1)
    if fits < 1 and not _useful(step):
        return whole, Fraction(1)
    part = Fraction(1)
    for _ in range(TRIES if lacks else 0):
        if reached < WHOLE:
            part *= min(fits, max(reached * Fraction(99, 100), Fraction(1, 2)))
        else:
            part *= min(fits, Fraction(1))
        part = part.limit_denominator(1_000)
        if part * min(abs(value) for value in lacks.values()) < least:
            break
        goal = partial_goal(decided.drifts, decision.goal, part)
        try:
            plan = sales.plan_sales(step, replace(decision, goal=goal))
        except planner.NothingPlanned:
            break
        part_values = {token: value * part for token, value in lacks.items()}
        reached = min(
            _reached(step.portfolio, decided, plan, part_values).values(), default=Fraction(1)
        )
        fits = _part_that_fits(step, plan)
        if fits == 1 and reached >= WHOLE:
            return replace(plan, decision=decision), part
    if fits_daily_loss(step, whole):
        return whole, Fraction(1)  # the plan lists assets that cannot move and trades the others
    plan = replace(plan_within_daily_loss(step, decision, whole), decision=decision)
    if not whole.turnover:
        return plan, Fraction(1)
    return plan, min(Fraction(1), plan.turnover / whole.turnover)


def _part_that_fits(step: StepInput, plan: Plan) -> Fraction:
    """Return the fraction of a plan that fits limits.daily_loss, with all of its gas and its other
    cost in proportion.
    """
    if fits_daily_loss(step, plan):
        return Fraction(1)
    if plan.exits:
        room = daily_loss_left_for_exits(step) or Fraction(0)
        gas = plan.cost.gas + plan.cost.approvals
        loss = plan.cost.total
    else:
        room = daily_loss_left(step) or Fraction(0)
        gas = worst_case_gas(step, plan)
        loss = worst_case_loss(step, plan)
    if room <= gas:
        return Fraction(0)
    return (room - gas) / (loss - gas) * MARGIN


def _useful(step: StepInput) -> bool:
    """True if enough of limits.daily_loss remains for a part."""
    whole = daily_loss_left(
        replace(
            step,
            history=replace(
                step.history, budgets=replace(step.history.budgets, loss_24h=Fraction(0))
            ),
        )
    )
    return whole is None or (daily_loss_left(step) or Fraction(0)) >= whole * USEFUL


def daily_loss_reason(step: StepInput, decision: Rebalance, whole: Plan) -> str:
    """Return the note that a plan is partial because of limits.daily_loss; empty otherwise. The
    approvals of this step do not count.
    """
    if daily_loss_left(step) is None:
        return ""
    whole = plan_before_approvals(step, decision, whole)
    if fits_daily_loss(step, whole):
        return ""
    return f"; {partial_plan_reason(step, worst_case_loss(step, whole))}"


def _reached(
    portfolio: Portfolio, decided: DecisionResult, plan: Plan, lacks: dict[str, Value]
) -> dict[str, Fraction]:
    """Return the fraction of its correction that the plan moves, by token; without the numeraire,
    which pays the costs.
    """
    prices = {drift.token: drift.price for drift in decided.drifts}
    moved = dict.fromkeys(prices, Fraction(0))
    for leg in plan.legs:
        for token, raw, outside in (
            (leg.token_in, -leg.amount_in_raw, leg.source is LegFunding.WALLET),
            (leg.token_out, leg.amount_out_raw, leg.sink is LegFunding.WALLET),
        ):
            known = portfolio.held_as(token)
            if outside and known in moved:
                moved[known] += raw * prices[known]
    home = portfolio.numeraire.address
    return {
        token: max(Fraction(0), moved[token] / value)
        for token, value in lacks.items()
        if token != home
    }


def move_value(decided: DecisionResult, goal: Goal) -> Value:
    """Return the value to sell, or to buy if that is more, until the goal is reached."""
    lacks = corrections(decided.drifts, goal).values()
    return max(
        sum((lack for lack in lacks if lack > 0), Fraction(0)),
        -sum((lack for lack in lacks if lack < 0), Fraction(0)),
    )


def _least_trade(limits: Limits) -> Value:
    return max(limits.min_trade or Fraction(0), Fraction(1))
