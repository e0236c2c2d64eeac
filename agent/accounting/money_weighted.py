"""The money-weighted return of a period: the internal rate of return."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, timedelta
from fractions import Fraction

from agent.units import DAY_S, YEAR_S

_SCALED_DAYS = 36_500
"""Days to which every period is scaled, since pyxirr counts whole days."""
_ORIGIN = date(1970, 1, 1)
MIN_ANNUALIZED_S = 30 * DAY_S
"""Shortest time whose figures are stated a year."""
_NEWTON_STEPS = 3
"""Steps from the rate at whole days to the rate at the times of the flows."""
_RESIDUAL_TOLERANCE = 1e-6
"""Largest residual at the rate of return, as a fraction of the largest amount at the end of the
period.
"""


def money_weighted_return(
    start_s: int,
    end_s: int,
    start_value: Fraction,
    end_value: Fraction,
    cash_flows: Sequence[tuple[int, Fraction]],
) -> float | None:
    """Return the internal rate of return over the whole period, not annualised.

    `cash_flows` are (chain time, value), deposits positive. None without flows, time or solution,
    or if the return is not finite because the money was invested too briefly. pyxirr's xirr solves
    sum of amount / (1 + rate)^(days / 365) = 0 at whole days, Newton's method at the exact times.
    """
    span_s = end_s - start_s
    time_and_value = [
        (start_s, -start_value),
        *((at_s, -value) for at_s, value in cash_flows),
        (end_s, end_value),
    ]
    if span_s <= 0 or not any(value < 0 for _, value in time_and_value) or end_value < 0:
        return None
    import pyxirr

    largest_amount = max(abs(value) for _, value in time_and_value)
    # With an amount of zero pyxirr returns a wrong rate.
    time_and_amount = [
        (Fraction(at_s - start_s, span_s), float(value / largest_amount))
        for at_s, value in time_and_value
        if value
    ]
    try:
        annual_rate = pyxirr.xirr(
            [_ORIGIN + timedelta(days=_scaled_day(time)) for time, _ in time_and_amount],
            [amount for _, amount in time_and_amount],
        )
    except pyxirr.InvalidPaymentsError:
        return None
    if annual_rate is None or not math.isfinite(annual_rate) or annual_rate <= -1:
        return None
    time_left_and_amount = [(float(1 - time), amount) for time, amount in time_and_amount]
    log_rate = math.log1p(annual_rate) / 365 * _SCALED_DAYS
    try:  # pyxirr may return a rate so high that every discounted amount is near zero
        for _ in range(_NEWTON_STEPS):
            log_rate -= _newton_step(time_left_and_amount, log_rate)
        end_amounts = [
            amount * math.exp(log_rate * time_left) for time_left, amount in time_left_and_amount
        ]
        period_rate = math.expm1(log_rate)
    except (OverflowError, ZeroDivisionError):
        return None
    is_solved = abs(math.fsum(end_amounts)) <= _RESIDUAL_TOLERANCE * max(map(abs, end_amounts))
    return period_rate if period_rate > -1 and is_solved else None


def _newton_step(time_left_and_amount: Sequence[tuple[float, float]], log_rate: float) -> float:
    """Return how far `log_rate` is from the root of the amounts' value at the end of the period, by
    Newton's method. Times left are shares of the period.
    """
    end_amounts = [
        amount * math.exp(log_rate * time_left) for time_left, amount in time_left_and_amount
    ]
    slope = math.fsum(
        end_amount * time_left
        for end_amount, (time_left, _) in zip(end_amounts, time_left_and_amount, strict=True)
    )
    return math.fsum(end_amounts) / slope


def _scaled_day(time: Fraction) -> int:
    return min(_SCALED_DAYS, max(0, round(time * _SCALED_DAYS)))


def annualize(period_rate: float, span_s: int) -> float | None:
    """Return the annualised rate; None for less than 30 days, or if it is not finite."""
    if span_s < MIN_ANNUALIZED_S or period_rate <= -1:
        return None
    try:
        return math.expm1(math.log1p(period_rate) * YEAR_S / span_s)
    except OverflowError:
        return None
