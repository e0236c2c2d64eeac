"""Health: the Sharpe ratio of a strategy's unit values pauses the strategy and restores its
capital. The Sharpe ratio is the mean of daily returns over their standard deviation (n - 1),
times √365, with a risk-free rate of zero (Sharpe, The Sharpe Ratio, Journal of Portfolio
Management 21, 1994). A day's value is the last one recorded in it (UTC). Whole numbers
throughout: returns in 10^-12, the ratio in thousandths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import isqrt

from agent.layers.strategies.state import (
    NavPoint,
    Strategy,
    StrategyHealth,
    StrategyHealthRule,
    StrategyState,
)
from agent.units import (
    BPS,
    Price,
    decimal_text,
    floor_int,
    format_duration,
    format_time,
)

DAY_S = 86_400
DAYS_A_YEAR = 365
ONE = 10**12
"""A unit value or return of one."""
ENOUGH = (2, 3)
"""Share of a window's days that must have a value; with fewer the ratio is unknown."""


def sharpe_milli(points: Sequence[NavPoint], window_s: int, now_s: int) -> int | None:
    """Return the annual Sharpe ratio over the window that ends now, in thousandths, rounded down;
    None if the values do not reach back to the beginning of the window, too many days are missing,
    or the value never changed.
    """
    day = {
        point.at_s // DAY_S: point.index
        for point in sorted(points, key=lambda one: one.at_s)
        if point.at_s <= now_s
    }
    first = (now_s - window_s) // DAY_S
    closes = [index for number, index in sorted(day.items()) if number >= first]
    days = window_s // DAY_S
    reaches = any(number <= first for number in day)
    if (
        not reaches
        or len(closes) * ENOUGH[1] < days * ENOUGH[0]
        or len(closes) < 3
        or min(closes) <= 0
    ):
        return None
    returns = [(now * ONE) // before - ONE for before, now in pairwise(closes)]
    count, total = len(returns), sum(returns)
    spread = (
        count * sum(part * part for part in returns) - total * total
    )  # n·Σr² - (Σr)² = n·(n - 1)·variance
    if spread <= 0:
        return None
    # mean / deviation = Σr / n · sqrt(n·(n - 1) / spread); squared, times 365, in thousandths
    squared = total * total * (count - 1) * DAYS_A_YEAR * 10**6
    root = isqrt(squared // (count * spread))
    if total >= 0:
        return root
    return -root - (root * root * count * spread != squared)


def update_health(
    state: StrategyState, rule: StrategyHealthRule, sharpe: int | None, now_s: int
) -> StrategyState:
    """Return the state after a cycle: paused after a period below the limit, restored after a
    period at the recovery level.

    An unknown ratio restarts both periods, so too little history neither pauses nor restores.
    """
    if state.health is StrategyHealth.ACTIVE:
        limit, period_s = rule.limit_milli, rule.period_s
        side, health = "below", StrategyHealth.PAUSED
        turning = sharpe is not None and sharpe < limit
    else:
        limit, period_s = rule.recover_milli, rule.recover_s
        side, health = "at or above", StrategyHealth.ACTIVE
        turning = sharpe is not None and sharpe >= limit
    if sharpe is None or not turning:
        return replace(state, sharpe_milli=sharpe, turning_s=None)
    since_s = now_s if state.turning_s is None else state.turning_s
    if now_s - since_s < period_s:
        return replace(state, sharpe_milli=sharpe, turning_s=since_s)
    reason = (
        f"the Sharpe ratio over {format_duration(rule.window_s)} has been {side}"
        f" {decimal_text(limit, 3)} since {format_time(since_s)}, now"
        f" {decimal_text(sharpe, 3)}"
    )
    return replace(
        state,
        health=health,
        since_s=now_s,
        reason=reason,
        sharpe_milli=sharpe,
        turning_s=None,
    )


def update_unit_index(
    state: StrategyState,
    strategy: Strategy,
    unit: int | None,
    prices: Mapping[str, Price],
    now_s: int,
) -> StrategyState:
    """Return the state with its index updated, and its unit value if the strategy has units.

    The index follows the unit value; while the strategy is paused it follows its weights at
    reference prices, without costs.
    """
    if unit is None:
        unit = state.unit
    marks = tuple((token, prices[token]) for token, _ in strategy.weights_bps if token in prices)
    before = dict(state.marks)
    index = state.index
    if state.health is StrategyHealth.ACTIVE:
        if state.unit > 0:
            index = state.index * unit // state.unit
    elif all(before.get(token, 0) > 0 for token, bps in strategy.weights_bps if bps):
        grown = sum(
            (
                Fraction(bps, BPS) * prices[token] / before[token]
                for token, bps in strategy.weights_bps
                if bps
            ),
            Fraction(0),
        )
        index = floor_int(state.index * grown)
    return replace(state, noted_s=now_s, unit=unit, index=max(0, index), marks=marks)
