"""Partial plans: parts whose worst case fits the remainder of limits.daily_loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.layers import sales
from agent.model import NATIVE_VENUE, Leg, LegPlace, Plan, Portfolio, Rebalance, StepInput
from agent.planning import planner
from agent.planning.approval_gas import worst_gas_wei
from agent.policy.cash_flows.automatic_deposits import automatic_deposits_value
from agent.policy.drift import compute_drifts, investable_total
from agent.reference import disagreement_loss, reference_prices
from agent.units import BPS, NATIVE, Price, Value, ceil_int, cents_text, format_bps

DAILY_LOSS_LIMIT = "limits.daily_loss"
MAX_PLANS = 8
"""Maximum number of plans tried."""
REQUEST_MARGIN = Fraction(99, 100)
"""Fraction of the estimate to request, because unit costs of a smaller plan differ slightly."""
SUGGESTION_STEP_BPS = 10
"""Step to which suggested settings are rounded up: a tenth of a percent."""


def plan_within_daily_loss(
    step: StepInput, decision: Rebalance, whole_plan: Plan | None = None
) -> Plan:
    """Return a plan whose worst case fits the remainder of limits.daily_loss: the whole plan, or a
    part with the cheapest moves first. Exits are never reduced. If no part is worth a trade, the
    whole plan is returned, and the guard refuses it. `whole_plan` is the result of
    sales.plan_sales if known. Raises Refused as the planner does.
    """
    whole_plan = whole_plan or sales.plan_sales(step, decision)
    if decision.is_exit or (loss_left := daily_loss_left(step)) is None:
        return whole_plan
    if fits_daily_loss(step, whole_plan):
        if not step.progress.spend_caps:
            return whole_plan
        # this cycle's approvals are of a part if the trade without them did not fit
        return _with_part_in_reason(step, decision, whole_plan, whole_plan)
    partial_plan = whole_plan
    partial_loss = worst_case_loss(step, whole_plan)
    for _ in range(MAX_PLANS):
        gas_value = worst_case_gas(step, partial_plan)
        if loss_left <= gas_value or partial_loss <= gas_value:
            return whole_plan
        turnover = (
            partial_plan.turnover
            * (loss_left - gas_value)
            / (partial_loss - gas_value)
            * REQUEST_MARGIN
        )
        try:
            partial_plan = sales.plan_sales(step, decision, (turnover, DAILY_LOSS_LIMIT))
        except planner.NothingPlanned:
            return whole_plan
        if (partial_loss := worst_case_loss(step, partial_plan)) <= loss_left:
            return _with_part_in_reason(step, decision, partial_plan, whole_plan)
    return whole_plan


def fits_daily_loss(step: StepInput, plan: Plan) -> bool:
    """True if the plan's worst case fits the remainder of limits.daily_loss; for an exit its
    predicted cost, as in the guard.
    """
    loss_left = daily_loss_left_for_exits(step) if plan.is_exit else daily_loss_left(step)
    if loss_left is None:
        return True
    loss = plan.cost.total if plan.is_exit else worst_case_loss(step, plan)
    return max(loss, Fraction(0)) <= loss_left


def _with_part_in_reason(
    step: StepInput, decision: Rebalance, plan: Plan, whole_plan: Plan
) -> Plan:
    """Mark the plan as a part if limits.daily_loss is the reason, and not this step's approvals."""
    whole_plan = plan_before_approvals(step, decision, whole_plan)
    if fits_daily_loss(step, whole_plan) or not plan.turnover:
        return plan
    part_count = max(2, ceil_int(whole_plan.turnover / plan.turnover))
    part_reason = (
        f"{decision.reason}; part 1 of about {part_count}:"
        f" {partial_plan_reason(step, worst_case_loss(step, whole_plan))}"
    )
    return replace(plan, decision=replace(decision, reason=part_reason))


def plan_before_approvals(step: StepInput, decision: Rebalance, whole_plan: Plan) -> Plan:
    """Return `whole_plan`, the step's plan, as it would be without approvals."""
    if step.progress.spend_caps:
        return sales.plan_sales(
            replace(step, progress=replace(step.progress, spend_caps=())), decision
        )
    return whole_plan


def daily_loss_left(step: StepInput) -> Value | None:
    """Return the remainder of limits.daily_loss, numeraire base units; None without a limit, or if
    the day's loss is unknown, which the guard refuses.
    """
    if step.history.budgets.unknown_reason:
        return None
    return _loss_left_beside_deposits(step, automatic_deposits_value(step.history.cash_flows))


def _loss_left_beside_deposits(step: StepInput, new_deposits_value: Value) -> Value | None:
    """Return the remainder of limits.daily_loss, of the portfolio without new deposits, after the
    known losses; None without a limit.
    """
    limit_bps = step.limits.daily_loss_bps
    if limit_bps is None:
        return None
    base_value = _value_beside_deposits(step, new_deposits_value)
    return base_value * Fraction(limit_bps, BPS) - step.history.budgets.loss_24h


def _value_beside_deposits(step: StepInput, new_deposits_value: Value) -> Value:
    """Return the value of the portfolio without new deposits, of which limits.daily_loss is a
    share.
    """
    return max(Fraction(0), _investable_value(step) - new_deposits_value)


def daily_loss_left_for_exits(step: StepInput) -> Value | None:
    """Return the remainder of limits.daily_loss for an exit; only losses from trades count against
    it.
    """
    history = step.history
    loss_left = _loss_left_beside_deposits(step, Fraction(0))
    if loss_left is None or history.budgets.unknown_reason != history.budgets.unpriced_falls_reason:
        return None
    losses_beside_trades = history.budgets.decrease_24h + history.budgets.non_trade_loss_24h
    return loss_left + min(losses_beside_trades, max(Fraction(0), history.budgets.loss_24h))


def worst_case_loss(
    step: StepInput, plan: Plan, prices: Mapping[str, Price] | None = None
) -> Value:
    """Return the largest possible loss of a plan: every leg at its minimum, gas and approvals at
    their highest price. In numeraire base units, by default at the worse of the current prices that
    agree.
    """
    disagreement_value = Fraction(0)
    if prices is None:
        prices = reference_prices(step).price_by_token
        disagreement_value = disagreement_loss(step, plan.wallet_changes())
    all_prices = with_native(step.portfolio, prices)
    min_received_values = (
        leg.min_out_raw * all_prices.get(leg.token_out, Fraction(0))
        for leg in swap_legs(plan)
        if leg.sink is LegPlace.WALLET
    )
    sold_value = value_sold(plan, all_prices)
    gas_value = worst_case_gas(step, plan, all_prices)
    return sold_value - sum(min_received_values, Fraction(0)) + gas_value + disagreement_value


def worst_case_gas(step: StepInput, plan: Plan, prices: Mapping[str, Price] | None = None) -> Value:
    """Return the gas part of the worst case."""
    if prices is None:
        prices = reference_prices(step).price_by_token
    return worst_gas_wei(step, plan) * with_native(step.portfolio, prices)[NATIVE]


def partial_plan_reason(step: StepInput, worst_case_value: Value) -> str:
    """Return why only a part is traded now, when the rest follows, and the setting that would allow
    the whole trade.
    """
    limit_bps = step.limits.daily_loss_bps or 0
    base_value = _value_beside_deposits(step, automatic_deposits_value(step.history.cash_flows))
    needed_limit_bps = 0
    if base_value:
        day_loss_value = max(step.history.budgets.loss_24h, Fraction(0)) + worst_case_value
        needed_limit_bps = (
            ceil_int(day_loss_value * BPS / base_value / SUGGESTION_STEP_BPS) * SUGGESTION_STEP_BPS
        )
    return (
        f"the worst case of the whole trade exceeds the remainder of {DAILY_LOSS_LIMIT} "
        f"({format_bps(limit_bps)}); the rest follows as the day's losses "
        f'age, and {DAILY_LOSS_LIMIT} = "{needed_limit_bps / 100:g}%" would allow it in one trade'
    )


def daily_loss_wait_reason(step: StepInput) -> str:
    """Return why no part is traded now."""
    numeraire = step.portfolio.numeraire
    loss_24h_value = step.history.budgets.loss_24h
    amount_texts = (
        cents_text(loss_value, numeraire.decimals)
        for loss_value in (loss_24h_value, (daily_loss_left(step) or Fraction(0)) + loss_24h_value)
    )
    return (
        f"waiting for {DAILY_LOSS_LIMIT}: {' of '.join(amount_texts)} {numeraire.label} were lost in 24 h; the"
        " next part follows as those losses age"
    )


def value_sold(plan: Plan, prices: Mapping[str, Price]) -> Value:
    """Return the value that a plan takes from the wallet, at these prices."""
    sold_values = (
        leg.amount_in_raw * prices.get(leg.token_in, Fraction(0))
        for leg in swap_legs(plan)
        if leg.source is LegPlace.WALLET
    )
    return sum(sold_values, Fraction(0))


def swap_legs(plan: Plan) -> list[Leg]:
    """Return the legs that exchange tokens, without wrapping and unwrapping of the wallet's native
    coin.
    """
    return [leg for leg in plan.legs if leg.venue != NATIVE_VENUE or leg.source is not leg.sink]


def with_native(portfolio: Portfolio, prices: Mapping[str, Price]) -> dict[str, Price]:
    """Return the prices with the native coin at its wrapped token's price."""
    return {**prices, NATIVE: prices.get(portfolio.wrapped_native, Fraction(0))}


def _investable_value(step: StepInput) -> Value:
    return investable_total(compute_drifts(step, reference_prices(step).price_by_token))
