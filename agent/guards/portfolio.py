"""Guards of the portfolio: cost, turnover, loss, size, gas and weight."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.guards.case import GuardCase, GuardMeasurement, MissingData
from agent.guards.guard import (
    Guard,
    GuardScope,
    format_bps,
    format_money,
    format_ratio,
    limit_guard,
)
from agent.guards.max_weight import max_weight
from agent.layers.questions import unknown_value_reason
from agent.model import StepInput, TopUp
from agent.policy.cash_flows import purchases
from agent.policy.cash_flows.automatic_deposits import automatic_deposits_value
from agent.policy.cash_flows.cash_limit import MAX_LIVE_VALUE_REMEDY
from agent.units import BPS, DAY_S


def plan_cost(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return fees, impact, skew and gas, recomputed, per unit of value moved.

    A plan that moves no value may have no cost, except for the gas of a gas money refill, which
    limits.gas_price and limits.gas_per_day bound.

    If feed and TWAP differ, the cost at the worse of both for the wallet may exceed the limit by
    limits.slippage, so that a feed that lags within limits.oracle_deviation does not hide a skewed
    pool (T29). Exits are not held to it.
    """
    moved_value = case.turnover()
    cost = case.cost()
    if isinstance(case.plan.decision, TopUp):
        return GuardMeasurement(
            f"{format_money(cost, case.numeraire)} of gas, no value moved", moved_value == 0
        )
    if moved_value == 0:
        return GuardMeasurement(format_money(cost, case.numeraire), cost <= 0)
    cost_text = f"{format_ratio(cost / moved_value)} ({format_money(cost, case.numeraire)})"
    worse_price_limit_bps = limit_bps + (case.step.limits.slippage_bps or 0)
    worse_price_cost = cost if case.plan.is_exit else cost + case.disagreement_loss()
    if worse_price_cost > cost and worse_price_cost * BPS > worse_price_limit_bps * moved_value:
        ratio_text = format_ratio(worse_price_cost / moved_value)
        return GuardMeasurement(f"{cost_text}; {ratio_text} at the worse of feed and TWAP", False)
    return GuardMeasurement(cost_text, cost * BPS <= limit_bps * moved_value)


def turnover(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the value moved by this plan over the investable total. An exit's sales for the
    numeraire do not count.
    """
    if case.layer_answers.needs_no_spot_price():
        return GuardMeasurement(case.layer_answers.exemption_text, True)
    counted_turnover = case.counted_turnover()
    if counted_turnover == 0 and case.plan.is_exit and not case.largest_exempt_turnover():
        return GuardMeasurement("an exit into the numeraire", True)
    return _with_exempt_turnover(case, _measure_share(case, counted_turnover, limit_bps), limit_bps)


def daily_turnover(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the turnover of the last 24 h of chain time and of this plan, over the investable
    total.

    An exit that buys only the numeraire always passes, even if the last 24 h are unknown. If these
    exceed the limit by themselves, purchases that it exempts and plans that reduce risk pass too.
    """
    counted_turnover = case.counted_turnover()
    if counted_turnover == 0 and case.plan.is_exit:
        return _with_exempt_turnover(
            case, GuardMeasurement("an exit into the numeraire", True), limit_bps
        )
    if case.layer_answers.only_reduces():
        return GuardMeasurement(case.layer_answers.exemption_text, True)
    case.require_known_day()
    total_turnover = case.step.history.budgets.turnover_24h + counted_turnover
    measurement = _measure_share(case, total_turnover, limit_bps)
    if counted_turnover == 0 and (case.exempt_turnover() or case.is_risk_reducing()):
        measurement = replace(measurement, passed=True)
    return _with_exempt_turnover(case, measurement, limit_bps)


def _with_exempt_turnover(
    case: GuardCase, measurement: GuardMeasurement, limit_bps: int
) -> GuardMeasurement:
    """Return the measurement with the exempt turnover of a purchase or withdrawal and its limit."""
    exempt_limit = case.largest_exempt_turnover()
    if exempt_limit == 0:
        return measurement
    exempt_kind = "purchase"
    if case.plan.is_exit:
        exempt_kind = "withdrawal"
    elif purchases.is_first_purchase(case.step.limits, case.step.history):
        exempt_kind = "first rebalance"
    exempt_text = format_money(case.exempt_turnover(), case.numeraire)
    return replace(
        measurement,
        text=f"{exempt_text} for the {exempt_kind}, plus {measurement.text}",
        limit_text=f"{format_money(exempt_limit, case.numeraire)}, plus {format_bps(limit_bps)}",
    )


def daily_loss(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the loss of the last 24 h of chain time plus the worst case of this plan, over the
    investable total (T6, T21).

    In the worst case every swap pays only its minimum, valued at the worse of feed and TWAP for the
    wallet (T29), and all gas is burned. An exit counts at its
    predicted cost, because it must not wait for an improbable worst case, and with past losses from
    trades only: unexplained decreases do not count, nor does the gas of reverts, approvals and
    cancels (limits.gas_per_day bounds it). A predicted gain does not offset losses. Raises MissingData if
    the last 24 h are unknown.
    """
    if case.layer_answers.only_reduces():
        return GuardMeasurement(case.layer_answers.exemption_text, True)
    case.require_known_day()
    history = case.step.history
    counts_predicted_cost = case.is_sell_only() or case.is_required_by_layer()
    past_loss = _counted_loss(
        case,
        history.budgets.loss_24h,
        history.budgets.decrease_24h,
        history.budgets.non_trade_loss_24h,
    )
    plan_loss = case.cost() if counts_predicted_cost else case.worst_cost()
    plan_text = _PREDICTED if counts_predicted_cost else "with each swap at its minimum"
    return _measure_loss(case, past_loss + max(plan_loss, Fraction(0)), limit_bps, plan_text)


def total_loss(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the loss since the store was created plus the cost of this plan, over the investable
    total. For an exit unexplained decreases and the gas of reverts do not count; that of approvals
    and cancels does, unlike in daily_loss.
    """
    if case.layer_answers.only_reduces():
        return GuardMeasurement(case.layer_answers.exemption_text, True)
    history = case.step.history
    past_loss = _counted_loss(
        case,
        history.budgets.loss_total,
        history.budgets.decrease_total,
        history.budgets.reverted_loss_total,
    )
    return _measure_loss(case, past_loss + max(case.cost(), Fraction(0)), limit_bps, _PREDICTED)


def _counted_loss(
    case: GuardCase, loss_value: Fraction, decreases_value: Fraction, wasted_gas_value: Fraction
) -> Fraction:
    """Return the part of a loss that counts for this plan: for an exit not that of decreases and of
    wasted gas, at the values at which they were booked. Raises MissingData.
    """
    if not case.is_risk_reducing():
        return loss_value
    return max(Fraction(0), loss_value - decreases_value - wasted_gas_value)


def balance_jump(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return unexplained balance changes of the last 24 h of chain time, over the investable total.

    A change above the limit refuses plans until the owner explains it or, for an increase, until it
    is accepted. An increase without a price counts once it has one. Exits always pass.
    """
    if case.is_risk_reducing():
        return GuardMeasurement("exits always pass", True)
    day_start_s = case.step.snapshot.head.timestamp_s - DAY_S
    counted_changes = [
        change
        for change in case.step.history.cash_flows.unexplained_transfers
        if change.exceeds_jump_limit or change.chain_s > day_start_s
    ]
    if not counted_changes:
        return GuardMeasurement("every balance is explained", True)
    if any(change.value is None and change.delta_raw < 0 for change in counted_changes):
        raise MissingData("a balance decreased and its token has no reference price")
    measurement = _measure_share(
        case,
        sum(
            (abs(change.value) for change in counted_changes if change.value is not None),
            Fraction(0),
        ),
        limit_bps,
    )
    return replace(
        measurement,
        passed=measurement.passed
        and not any(change.exceeds_jump_limit for change in counted_changes),
    )


def min_trade(case: GuardCase, limit: Fraction) -> GuardMeasurement:
    """Return the smallest net sale or purchase of one token, in value at reference prices."""
    case.require_complete_replay()
    values_and_tokens = [
        (traded_raw * case.price(token), token)
        for traded_raw_by_token in (case.replay.sold_raw_by_token, case.replay.bought_raw_by_token)
        for token, traded_raw in traded_raw_by_token.items()
    ]
    if not values_and_tokens:
        return GuardMeasurement("no trade", True)
    smallest_value, token = min(values_and_tokens)
    return GuardMeasurement(
        f"{format_money(smallest_value, case.numeraire)} of {case.label(token)}",
        smallest_value >= limit,
    )


def max_live_value(case: GuardCase, limit: Fraction) -> GuardMeasurement:
    """Return the managed value. An exit passes, because it lowers the value at risk and an
    unsolicited deposit must not block it.
    """
    if case.layer_answers.needs_no_spot_price():
        return GuardMeasurement(case.layer_answers.exemption_text, True)
    managed_value = case.portfolio_value()
    if case.is_risk_reducing():
        return GuardMeasurement(f"{format_money(managed_value, case.numeraire)}, an exit", True)
    if unknown_reason := unknown_value_reason(case.step):
        raise MissingData(unknown_reason)
    return GuardMeasurement(format_money(managed_value, case.numeraire), managed_value <= limit)


_PREDICTED = "at the predicted cost"


def _measure_loss(
    case: GuardCase, loss_value: Fraction, limit_bps: int, plan_text: str
) -> GuardMeasurement:
    """Return a loss over the investable total; `plan_text` says at which cost the plan counts in
    it, in which the two limits differ. For an exit the total includes the holdings of
    blocked exits, so that they do not tighten its limit; for other plans it lacks the automatic
    deposits of the last day, so that a gift does not loosen it.
    """
    extra_base_value = (
        case.blocked_value()
        if case.is_risk_reducing()
        else -automatic_deposits_value(case.step.history.cash_flows)
    )
    measurement = _measure_share(case, loss_value, limit_bps, extra_base_value)
    return replace(measurement, text=f"{measurement.text}, {plan_text}")


def _measure_share(
    case: GuardCase,
    measured_value: Fraction,
    limit_bps: int,
    extra_base_value: Fraction = Fraction(0),
) -> GuardMeasurement:
    base_value = case.portfolio_value() + extra_base_value
    if base_value <= 0:
        return GuardMeasurement(
            f"{format_money(measured_value, case.numeraire)} of an empty portfolio",
            measured_value == 0,
        )
    return GuardMeasurement(
        f"{format_ratio(measured_value / base_value)} ({format_money(measured_value, case.numeraire)})",
        measured_value * BPS <= limit_bps * base_value,
    )


def _max_weights(step: StepInput) -> dict[str, int] | None:
    """Return the maximum weights in bps by token; None if no asset has one."""
    return {
        asset.token.address: asset.max_bps
        for asset in step.portfolio.assets
        if asset.max_bps is not None
    } or None


def _max_weights_text(max_bps_by_token: dict[str, int], step: StepInput) -> str:
    return ", ".join(
        f"{step.portfolio.token(token).label} {format_bps(max_bps)}"
        for token, max_bps in max_bps_by_token.items()
    )


PLAN_COST = limit_guard(
    "plan_cost",
    lambda limits: limits.plan_cost_bps,
    plan_cost,
    "wait for cheaper gas or deeper pools, trade less, or raise limits.plan_cost",
    scope=GuardScope.MARKET,
)
TURNOVER = limit_guard(
    "turnover",
    lambda limits: limits.turnover_bps,
    turnover,
    "trade in slices with destination = 'halfway', or raise limits.turnover",
)
DAILY_TURNOVER = limit_guard(
    "daily_turnover",
    lambda limits: limits.daily_turnover_bps,
    daily_turnover,
    "wait until older trades are 24 h old, or raise limits.daily_turnover",
)
DAILY_LOSS = limit_guard(
    "daily_loss",
    lambda limits: limits.daily_loss_bps,
    daily_loss,
    "wait until losses (trimtab history) are 24 h old, trade less, lower limits.slippage, or"
    " raise limits.daily_loss",
    scope=GuardScope.WALLET,
)
TOTAL_LOSS = limit_guard(
    "total_loss",
    lambda limits: limits.total_loss_bps,
    total_loss,
    "find the cause of the losses (trimtab pnl, trimtab history), then raise limits.total_loss or"
    " stop",
    scope=GuardScope.WALLET,
)
BALANCE_JUMP = limit_guard(
    "balance_jump",
    lambda limits: limits.balance_jump_bps,
    balance_jump,
    "explain the change: trimtab flows, then trimtab flows confirm NUMBER; an increase is"
    " accepted after limits.balance_jump_wait",
)
MAX_WEIGHT = Guard(
    "max_weight",
    _max_weights,
    _max_weights_text,
    max_weight,
    "buy less of it, or raise limits.max_weight",
)
MIN_TRADE = limit_guard(
    "min_trade",
    lambda limits: limits.min_trade,
    min_trade,
    "wait for more drift, or lower limits.min_trade",
    scope=GuardScope.MARKET,
)
MAX_LIVE_VALUE = Guard(
    "max_live_value",
    lambda step: step.limits.max_live_value,
    lambda limit, step: format_money(limit, step.portfolio.numeraire),
    max_live_value,
    MAX_LIVE_VALUE_REMEDY,
)
