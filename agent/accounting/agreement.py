"""Whether the returns of a period agree with each other where two of them give the same value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from agent.accounting.performance import Performance
from agent.errors import Refused, Verdict

TOLERANCE = 1e-6
"""Largest relative difference of two returns that have to be equal. Floats differ by less."""


def require_agreement(performance: Performance, daily_returns: Sequence[float]) -> None:
    """Raise Refused if the time-weighted return of a period contradicts the growth between its
    valuations, the returns of its days, or its profit.
    """
    if performance.twr is None:
        return
    twr = float(performance.twr)
    verdicts = [
        Verdict(name, f"{other_return:.9g}", f"{twr:.9g}", passed=False)
        for name, other_return in _equal_returns(performance, daily_returns)
        if not abs(other_return - twr) <= TOLERANCE * max(1, abs(twr))
    ]
    if verdicts:
        differences = "; ".join(
            f"{verdict.guard} {verdict.measured_text}, time-weighted {verdict.limit}"
            for verdict in verdicts
        )
        raise Refused(
            f"the returns of this period contradict each other: {differences}",
            verdicts,
            "do not use them; run trimtab books check, and report a defect of trimtab if it is sound",
        )


def _equal_returns(
    performance: Performance, daily_returns: Sequence[float]
) -> Iterator[tuple[str, float]]:
    """Yield the name and value of each return that has to equal the time-weighted one."""
    growth_factors = [
        float(period.growth_factor)
        for period in performance.periods
        if period.growth_factor is not None
    ]
    yield "return of the valuations", _growth(growth_factors) - 1
    yield "return of the days", _growth(1 + daily_return for daily_return in daily_returns) - 1
    start_value = performance.start.managed_value
    if start_value > 0 and not any(period.net_inflow for period in performance.periods):
        yield "profit over the start value", float(performance.profit / start_value)


def _growth(factors: Iterable[float]) -> float:
    growth = 1.0
    for factor in factors:
        growth *= factor
    return growth
