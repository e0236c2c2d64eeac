"""Money-weighted return: the one rate at which all that came and went grew to what is there (internal rate of return)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, timedelta
from fractions import Fraction

from agent.units import YEAR_S

_DAYS = 36_500
"""Days that a period is stretched or shrunk to: pyxirr counts in whole days, and this keeps a 36,500th of any period apart."""
_ORIGIN = date(1970, 1, 1)
_CLOSE = 1e-6
"""How far from nothing all amounts may be together at the found rate, as a share of the largest of them, all at the period's end."""


def money_weighted(start_s: int, end_s: int, start: Fraction, end: Fraction, crossed: Sequence[tuple[int, Fraction]]) -> float | None:
    """Return over the whole period, not a year's: `crossed` are (chain time, value) of what came (above zero) and went.

    None where there is none: nothing was there, no time passed, no rate answers, or money was there for so small a part of the
    period that its return over all of it is no number. Sources: internal rate of return; pyxirr's xirr solves
    sum of amount / (1 + rate)^(days / 365).
    """
    span_s = end_s - start_s
    amounts = [(0, -start), *((_day(at_s, start_s, span_s), -value) for at_s, value in crossed), (_DAYS, end)]
    if span_s <= 0 or not any(value < 0 for _, value in amounts) or end < 0:
        return None
    import pyxirr

    most = max(abs(value) for _, value in amounts)
    told = [(day, float(value / most)) for day, value in amounts if value]  # from an amount of nothing on pyxirr finds no true rate
    try:
        rate = pyxirr.xirr([_ORIGIN + timedelta(days=day) for day, _ in told], [value for _, value in told])
    except pyxirr.InvalidPaymentsError:
        return None
    if rate is None or not math.isfinite(rate) or rate <= -1:
        return None
    growth = math.log1p(rate) / 365
    try:  # discounted by much everything is near nothing, which pyxirr takes for an answer
        ends = [value * math.exp(growth * (_DAYS - day)) for day, value in told]
        whole = math.expm1(growth * _DAYS)
    except OverflowError:
        return None
    return whole if whole > -1 and abs(math.fsum(ends)) <= _CLOSE * max(map(abs, ends)) else None


def a_year(whole: float, span_s: int) -> float | None:
    """The same as a yearly rate; None for less than 30 days, of which a year says nothing, and where it is no number."""
    if span_s < 30 * 86_400 or whole <= -1:
        return None
    try:
        return math.expm1(math.log1p(whole) * YEAR_S / span_s)
    except OverflowError:
        return None


def _day(at_s: int, start_s: int, span_s: int) -> int:
    return 0 if span_s <= 0 else min(_DAYS, max(0, round((at_s - start_s) * _DAYS / span_s)))
