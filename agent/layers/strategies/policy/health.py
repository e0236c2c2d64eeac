"""Health: the Sharpe ratio of a strategy's health index pauses the strategy and restores its
capital. The Sharpe ratio is the mean of the returns between daily values over their standard
deviation (n - 1), times the root of their number a year, √365 if no day is missing, with a
risk-free rate of zero (Sharpe, The Sharpe Ratio, Journal of Portfolio Management 21, 1994). A day's
value is the last one recorded in it (UTC). The ratio is computed in whole numbers: returns in
10^-12, the ratio in thousandths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import isqrt

from agent.floats import dispersion_floor
from agent.layers.strategies.state import (
    NavPoint,
    Strategy,
    StrategyHealth,
    StrategyHealthRule,
    StrategyState,
)
from agent.units import BPS, DAY_S, Price, decimal_text, floor_int, format_duration, format_time

DAYS_A_YEAR = 365
FIXED_POINT_ONE = 10**12
"""A unit value or return of one."""
MIN_DAY_SHARE = (2, 3)
"""Share of a window's days that must have a value; with fewer the ratio is unknown."""


def sharpe_milli(nav_points: Sequence[NavPoint], window_s: int, now_s: int) -> int | None:
    """Return the annual Sharpe ratio over the window that ends now, in thousandths, rounded down;
    None if the values do not reach back to the beginning of the window, too many days are missing,
    fewer than three days have a value, or all daily returns are equal but for rounding.
    """
    index_by_day = {
        point.at_s // DAY_S: point.index
        for point in sorted(nav_points, key=lambda nav_point: nav_point.at_s)
        if point.at_s <= now_s
    }
    first_day = (now_s - window_s) // DAY_S
    days_in_window = [day_number for day_number in sorted(index_by_day) if day_number >= first_day]
    daily_indexes = [index_by_day[day_number] for day_number in days_in_window]
    window_days = window_s // DAY_S
    reaches_start = any(day_number <= first_day for day_number in index_by_day)
    if (
        not reaches_start
        or len(daily_indexes) * MIN_DAY_SHARE[1] < window_days * MIN_DAY_SHARE[0]
        or len(daily_indexes) < 3
        or min(daily_indexes) <= 0
    ):
        return None
    daily_returns = [
        (next_index * FIXED_POINT_ONE) // previous_index - FIXED_POINT_ONE
        for previous_index, next_index in pairwise(daily_indexes)
    ]
    return_count = len(daily_returns)
    return_sum = sum(daily_returns)
    scaled_variance = (
        return_count * sum(daily_return * daily_return for daily_return in daily_returns)
        - return_sum * return_sum
    )  # n·Σr² - (Σr)² = n·(n - 1)·variance
    largest_return = max(map(abs, daily_returns))
    # an index is rounded to a unit, and so is the return between two
    rounding_error = Fraction(FIXED_POINT_ONE, min(daily_indexes)) + 1
    deviation_floor = dispersion_floor(Fraction(largest_return), rounding_error)
    if scaled_variance <= return_count * (return_count - 1) * deviation_floor**2:
        return None
    spanned_days = days_in_window[-1] - days_in_window[0]
    # mean / deviation = Σr / n · sqrt(n·(n - 1) / scaled_variance);
    # squared, times 365·n / spanned_days, in thousandths
    scaled_squared_ratio = return_sum * return_sum * (return_count - 1) * DAYS_A_YEAR * 10**6
    abs_sharpe_milli = isqrt(scaled_squared_ratio // (spanned_days * scaled_variance))
    if return_sum >= 0:
        return abs_sharpe_milli
    return -abs_sharpe_milli - (
        abs_sharpe_milli * abs_sharpe_milli * spanned_days * scaled_variance != scaled_squared_ratio
    )


def update_health(
    state: StrategyState, rule: StrategyHealthRule, ratio_milli: int | None, now_s: int
) -> StrategyState:
    """Return the state after a cycle: paused after a period below the limit, restored after a
    period at the recovery level.

    An unknown ratio restarts both periods, so too little history neither pauses nor restores.
    """
    if state.health is StrategyHealth.ACTIVE:
        limit_milli = rule.limit_milli
        period_s = rule.period_s
        side_text = "below"
        next_health = StrategyHealth.PAUSED
        calls_for_change = ratio_milli is not None and ratio_milli < limit_milli
    else:
        limit_milli = rule.recover_milli
        period_s = rule.recover_s
        side_text = "at or above"
        next_health = StrategyHealth.ACTIVE
        calls_for_change = ratio_milli is not None and ratio_milli >= limit_milli
    if ratio_milli is None or not calls_for_change:
        return replace(state, sharpe_milli=ratio_milli, opposite_since_s=None)
    since_s = now_s if state.opposite_since_s is None else state.opposite_since_s
    if now_s - since_s < period_s:
        return replace(state, sharpe_milli=ratio_milli, opposite_since_s=since_s)
    reason = (
        f"the Sharpe ratio over {format_duration(rule.window_s)} has been {side_text}"
        f" {decimal_text(limit_milli, 3)} since {format_time(since_s)}, now"
        f" {decimal_text(ratio_milli, 3)}"
    )
    return replace(
        state,
        health=next_health,
        since_s=now_s,
        reason=reason,
        sharpe_milli=ratio_milli,
        opposite_since_s=None,
    )


def update_unit_index(
    state: StrategyState,
    strategy: Strategy,
    nav_per_unit: int | None,
    prices: Mapping[str, Price],
    now_s: int,
) -> StrategyState:
    """Return the state with its index updated, and its unit value if the strategy has units.

    The index follows the unit value; while the strategy is paused it follows its weights at
    reference prices, without costs.
    """
    if nav_per_unit is None:
        nav_per_unit = state.unit_nav
    current_prices = tuple(
        (token, prices[token]) for token, _ in strategy.weights_bps if token in prices
    )
    last_prices = dict(state.last_prices)
    index = state.index
    if state.health is StrategyHealth.ACTIVE:
        if state.unit_nav > 0:
            index = state.index * nav_per_unit // state.unit_nav
    elif all(
        last_prices.get(token, 0) > 0 for token, weight_bps in strategy.weights_bps if weight_bps
    ):
        growth_factor = sum(
            (
                Fraction(weight_bps, BPS) * prices[token] / last_prices[token]
                for token, weight_bps in strategy.weights_bps
                if weight_bps
            ),
            Fraction(0),
        )
        index = floor_int(state.index * growth_factor)
    return replace(
        state,
        recorded_s=now_s,
        unit_nav=nav_per_unit,
        index=max(0, index),
        last_prices=current_prices,
    )
