"""Partial plans: parts whose worst case fits the remainder of limits.daily_loss, and proportional
parts of a purchase.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.layers import sales
from agent.model import Goal, Leg, LegFunding, Limits, Plan, Portfolio, Rebalance, StepInput
from agent.planning import planner
from agent.planning.gas import NATIVE_VENUE, balance_deltas, worst_gas_wei
from agent.policy.decision import DecisionResult
from agent.policy.drift import compute_drifts, corrections, investable_total, partial_goal
from agent.reference import disagreement_loss, reference_prices
from agent.units import BPS, NATIVE, Price, Value, ceil_int, value_text

DAILY_LOSS = "limits.daily_loss"
TRIES = 8
"""Maximum number of plans tried."""
MARGIN = Fraction(99, 100)
"""Fraction of the estimate to request, because unit costs of a smaller plan differ slightly."""
SHOWN_BPS = 10
"""Step to which suggested settings are rounded up: a tenth of a percent."""


def plan_within_daily_loss(step: StepInput, decision: Rebalance, whole: Plan | None = None) -> Plan:
    """Return a plan whose worst case fits the remainder of limits.daily_loss: the whole plan, or a
    part with the cheapest moves first. Exits are never reduced. If no part is worth a trade, the
    whole plan is returned, and the guard refuses it. `whole` is the result of
    sales.plan_sales if known. Raises Refused as the planner does.
    """
    whole = whole or sales.plan_sales(step, decision)
    if decision.exit or (room := daily_loss_left(step)) is None:
        return whole
    if fits_daily_loss(step, whole):
        if not step.progress.spend_caps:
            return whole
        return _name_part(step, decision, whole, whole)
    part, loss = whole, worst_case_loss(step, whole)
    for _ in range(TRIES):
        gas = worst_case_gas(step, part)
        if room <= gas or loss <= gas:
            return whole
        turnover = part.turnover * (room - gas) / (loss - gas) * MARGIN
        try:
            part = sales.plan_sales(step, decision, (turnover, DAILY_LOSS))
        except planner.NothingPlanned:
            return whole
        if (loss := worst_case_loss(step, part)) <= room:
            return _name_part(step, decision, part, whole)
    return whole


def fits_daily_loss(step: StepInput, found: Plan) -> bool:
    """True if the plan's worst case fits the remainder of limits.daily_loss; for an exit its
    predicted cost, as in the guard.
    """
    room = daily_loss_left_for_exits(step) if found.exits else daily_loss_left(step)
    if room is None:
        return True
    loss = found.cost.total if found.exits else worst_case_loss(step, found)
    return max(loss, Fraction(0)) <= room


def _name_part(step: StepInput, decision: Rebalance, found: Plan, whole: Plan) -> Plan:
    """Mark the plan as a part if limits.daily_loss is the reason, and not this step's approvals."""
    whole = plan_before_approvals(step, decision, whole)
    if fits_daily_loss(step, whole) or not found.turnover:
        return found
    parts = max(2, ceil_int(whole.turnover / found.turnover))
    message = (
        f"{decision.reason}; part 1 of about {parts}:"
        f" {partial_plan_reason(step, worst_case_loss(step, whole))}"
    )
    return replace(found, decision=replace(decision, reason=message))


def plan_before_approvals(step: StepInput, decision: Rebalance, whole: Plan) -> Plan:
    """Return `whole`, the step's plan, as it would be without approvals."""
    if step.progress.spend_caps:
        return sales.plan_sales(
            replace(step, progress=replace(step.progress, spend_caps=())), decision
        )
    return whole


def daily_loss_left(step: StepInput) -> Value | None:
    """Return the remainder of limits.daily_loss, numeraire base units; None without a limit, or if
    the day's loss is unknown, which the guard refuses.
    """
    return None if step.history.budgets.unknown else _daily_loss_left(step)


def _daily_loss_left(step: StepInput) -> Value | None:
    """Return the remainder of limits.daily_loss after the known losses; None without a limit."""
    limit_bps = step.limits.daily_loss_bps
    if limit_bps is None:
        return None
    return _total(step) * Fraction(limit_bps, BPS) - step.history.budgets.loss_24h


def daily_loss_left_for_exits(step: StepInput) -> Value | None:
    """Return the remainder of limits.daily_loss for an exit; only losses from trades count against
    it.
    """
    history, room = step.history, _daily_loss_left(step)
    if room is None or history.budgets.unknown != history.budgets.unpriced_falls:
        return None
    native = reference_prices(step).by_token.get(step.portfolio.wrapped_native, Fraction(0))
    other_losses = history.budgets.fell_24h + history.budgets.wasted_24h_wei * native
    return room + min(other_losses, max(Fraction(0), history.budgets.loss_24h))


def worst_case_loss(
    step: StepInput, found: Plan, prices: Mapping[str, Price] | None = None
) -> Value:
    """Return the largest possible loss of a plan: every leg at its minimum, gas and approvals at
    their highest price. In numeraire base units, by default at the worse of the current prices that
    agree.
    """
    off = Fraction(0)
    if prices is None:
        prices = reference_prices(step).by_token
        off = disagreement_loss(step, balance_deltas(found.legs))
    known = with_native(step.portfolio, prices)
    received = (
        leg.min_out_raw * known.get(leg.token_out, Fraction(0))
        for leg in swap_legs(found)
        if leg.sink is LegFunding.WALLET
    )
    sold, gas = value_sold(found, known), worst_case_gas(step, found, known)
    return sold - sum(received, Fraction(0)) + gas + off


def worst_case_gas(
    step: StepInput, found: Plan, prices: Mapping[str, Price] | None = None
) -> Value:
    """Return the gas part of the worst case."""
    if prices is None:
        prices = reference_prices(step).by_token
    return worst_gas_wei(step, found) * with_native(step.portfolio, prices)[NATIVE]


def partial_plan_reason(step: StepInput, worst: Value) -> str:
    """Return why only a part is traded now, when the rest follows, and the setting that would allow
    the whole trade.
    """
    limit_bps, whole = step.limits.daily_loss_bps or 0, _total(step)
    wanted_bps = 0
    if whole:
        loss = max(step.history.budgets.loss_24h, Fraction(0)) + worst
        wanted_bps = ceil_int(loss * BPS / whole / SHOWN_BPS) * SHOWN_BPS
    return (
        f"the worst case of the whole trade exceeds the remainder of {DAILY_LOSS} "
        f"({limit_bps / 100:g}%); the rest follows as the day's losses "
        f'age, and {DAILY_LOSS} = "{wanted_bps / 100:g}%" would allow it in one trade'
    )


def daily_loss_wait_reason(step: StepInput) -> str:
    """Return why no part is traded now."""
    numeraire, lost = step.portfolio.numeraire, step.history.budgets.loss_24h
    amounts = (
        value_text(value, numeraire.decimals, 2)
        for value in (lost, (daily_loss_left(step) or Fraction(0)) + lost)
    )
    return (
        f"waiting for {DAILY_LOSS}: {' of '.join(amounts)} {numeraire.label} were lost in 24 h; the"
        " next part follows as those losses age"
    )


def value_sold(found: Plan, prices: Mapping[str, Price]) -> Value:
    """Return the value that a plan takes from the wallet, at these prices."""
    sold = (
        leg.amount_in_raw * prices.get(leg.token_in, Fraction(0))
        for leg in swap_legs(found)
        if leg.source is LegFunding.WALLET
    )
    return sum(sold, Fraction(0))


def swap_legs(found: Plan) -> list[Leg]:
    """Return the legs that exchange tokens, without wrapping and unwrapping of the wallet's native
    coin.
    """
    return [leg for leg in found.legs if leg.venue != NATIVE_VENUE or leg.source is not leg.sink]


def with_native(portfolio: Portfolio, prices: Mapping[str, Price]) -> dict[str, Price]:
    """Return the prices with the native coin at its wrapped token's price."""
    return {**prices, NATIVE: prices.get(portfolio.wrapped_native, Fraction(0))}


def _total(step: StepInput) -> Value:
    return investable_total(compute_drifts(step, reference_prices(step).by_token))


# --- A purchase as a plan: the whole if the pools take it, else the same fraction of every asset,
# so that no part is one-sided.


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
