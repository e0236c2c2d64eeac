"""Guards of futures orders: bounds and age of the index, basis, the whole state after the orders, and
the daily budget of reductions.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from agent.guards.case import (
    Guard,
    GuardCase,
    GuardMeasurement,
    MissingData,
    always,
    format_seconds,
)
from agent.margin import account as margin
from agent.margin.account import index_bound_raw
from agent.margin.state import after_fill_at_bound, breaches, is_reduction, margin_state
from agent.model.futures import FuturesPlan, FuturesPolicy, MarginAccount
from agent.policy.futures.decide import quote_per_numeraire
from agent.policy.futures.targets import emergency_orders
from agent.units import BPS, Value, decimal_text


def _layer(case: GuardCase) -> tuple[FuturesPlan, FuturesPolicy, MarginAccount]:
    """Return orders, policy and account. Raises MissingData."""
    plan, policy, account = case.plan.futures, case.step.futures, case.step.snapshot.futures
    if plan is None or policy is None or account is None:
        raise MissingData(case.step.snapshot.futures_unknown or "no margin account is configured")
    known = {market.market for market in account.markets}
    if strange := [order.market for order in plan.orders if order.market not in known]:
        raise MissingData(f"market {strange[0]} is not in the snapshot")
    return plan, policy, account


def index_age(case: GuardCase) -> GuardMeasurement:
    """Return the oldest index, by block time, among the markets of the orders and positions."""
    plan, policy, account = _layer(case)
    wanted = {order.market for order in plan.orders}
    wanted |= {position.market for position in account.positions}
    now_s = case.step.snapshot.head.timestamp_s
    ages = [
        (now_s - market.index_s, market.symbol)
        for market in account.markets
        if market.market in wanted
    ]
    if any(age_s < 0 for age_s, _ in ages):
        return GuardMeasurement("an index from the future", False)
    age_s, symbol = max(ages)
    most_s = policy.limits.index_age_s
    return GuardMeasurement(
        f"{format_seconds(age_s)} ({symbol})", age_s <= most_s, format_seconds(most_s)
    )


def order_bound(case: GuardCase) -> GuardMeasurement:
    """Require each order's bound within the slippage of the index. The wider bound of emergencies
    needs positions that are near their liquidation now (T12).
    """
    plan, policy, account = _layer(case)
    limits, escaping = policy.limits, emergency_orders(account, policy)
    for order in plan.orders:
        market, slippage = account.market(order.market), limits.slippage_bps
        if plan.is_emergency:
            if order.market not in escaping or not is_reduction(account, order):
                return GuardMeasurement(f"no emergency in {market.symbol}", False)
            slippage = limits.emergency_slippage_bps
        bound = index_bound_raw(market, order.size_raw, slippage)
        worse = order.bound_raw - bound if order.size_raw > 0 else bound - order.bound_raw
        if worse > 0 or order.bound_raw <= 0:
            amount = decimal_text(max(worse, 0), account.quote.decimals)
            return GuardMeasurement(f"{market.symbol} is {amount} beyond it", False)
    return GuardMeasurement("every order within it", True)


def basis(case: GuardCase) -> GuardMeasurement:
    """Return the largest distance of mark and index among markets that an order opens in."""
    plan, policy, account = _layer(case)
    most = Fraction(policy.limits.max_basis_bps, BPS)
    found = [
        (abs(market.mark / market.index - 1), market.symbol)
        for order in plan.orders
        if not is_reduction(account, order)
        for market in [account.market(order.market)]
    ]
    if not found:
        return GuardMeasurement("nothing is opened", True)
    worst, symbol = max(found)
    return GuardMeasurement(f"{_percent(worst)} ({symbol})", worst <= most, _percent(most))


def futures_state(case: GuardCase) -> GuardMeasurement:
    """Require that the account after all orders, each filled at its bound, keeps every limit, or
    that every order reduces a position.
    """
    plan, policy, account = _layer(case)
    if not plan.orders:
        return GuardMeasurement("no order", False)
    if case.reduces_futures():
        return GuardMeasurement("every order reduces", True)
    after = account
    for order in plan.orders:
        if order.is_reduce_only and not is_reduction(after, order):
            return GuardMeasurement("a reduction that opens", False)
        after = after_fill_at_bound(after, order)
    spot_value = case.total() * quote_per_numeraire(case.step)
    broken = breaches(margin_state(after, policy.limits), policy.limits, spot_value)
    if broken:
        text = "; ".join(f"{one.limit} {one.measured} of {one.allowed}" for one in broken)
        return GuardMeasurement(text, False)
    leverage = margin.leverage(after)
    return GuardMeasurement(
        f"{'unknown' if leverage is None else f'{float(leverage):.2f}x'} after the orders", True
    )


def reduction_budget(case: GuardCase) -> GuardMeasurement:
    """Return the notional that reductions close in 24 h, with this plan, per account value: a mark
    that is pushed again and again must not bleed the account (T12). Emergencies are apart.
    """
    plan, policy, account = _layer(case)
    most = Fraction(policy.limits.reduction_per_day_bps, BPS)
    closes = [order for order in plan.orders if order.is_reduce_only]
    if plan.is_emergency or not closes or not most:
        return GuardMeasurement("not measured", True, "off" if not most else _times(most))
    case.require_known_day()
    value = margin.account_value_raw(account)
    closed = case.step.history.reduced_24h * quote_per_numeraire(case.step)
    closed += sum(
        (abs(order.size_raw) * account.market(order.market).index for order in closes), Fraction(0)
    )
    if value <= 0:
        return GuardMeasurement("an account worth nothing", True, _times(most))
    return GuardMeasurement(_times(closed / value), closed <= most * value, _times(most))


def futures_cost(case: GuardCase, *, at_bound: bool) -> tuple[Value, Value]:
    """Return fee and distance from the index of the orders, filled at the mark or `at_bound`, and
    their notional, in numeraire base units. Raises MissingData.
    """
    plan, _, account = _layer(case)
    cost, notional = Fraction(0), Fraction(0)
    for order in plan.orders:
        market = account.market(order.market)
        fair = abs(order.size_raw) * market.index
        filled = Fraction(order.bound_raw) if at_bound else abs(order.size_raw) * market.mark
        worse = filled - fair if order.size_raw > 0 else fair - filled
        cost += max(Fraction(0), worse) + filled * market.fee_ppm / margin.PPM
        notional += fair
    unit = quote_per_numeraire(case.step)
    return cost / unit, notional / unit


def _percent(share: Fraction) -> str:
    return f"{float(share) * 100:.2f} %"


def _times(share: Fraction) -> str:
    return f"{float(share):.2f}x"


FUTURES_GUARDS: tuple[Guard[Any], ...] = (
    always(
        "index_age",
        "futures.limits.index_age",
        index_age,
        "wait for a fresh round of the index, or raise futures.limits.index_age",
    ),
    always(
        "order_bound",
        "the slippage from the index",
        order_bound,
        "plan again at a new block",
    ),
    always(
        "basis",
        "futures.limits.max_basis",
        basis,
        "wait until the mark is back at its index, or raise futures.limits.max_basis",
    ),
    always(
        "futures_state",
        "every futures limit kept, or only reductions",
        futures_state,
        "lower the leverage, deposit margin, or raise the limit named",
    ),
    always(
        "reduction_per_day",
        "futures.limits.max_reduction_per_day",
        reduction_budget,
        "find who moves the mark; deposit margin, reduce by hand, or raise"
        " futures.limits.max_reduction_per_day",
    ),
)
"""Guards of plans with futures orders, after all others."""
