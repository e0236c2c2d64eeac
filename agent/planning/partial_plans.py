"""Partial plans: parts whose worst case fits the remainder of limits.daily_loss, and proportional
parts of a purchase.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.layers import sales
from agent.model import Leg, LegFunding, Plan, Portfolio, Rebalance, StepInput
from agent.planning import planner
from agent.planning.approval_gas import worst_gas_wei
from agent.planning.gas import NATIVE_VENUE, balance_deltas
from agent.policy.drift import compute_drifts, investable_total
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
