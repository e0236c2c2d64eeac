"""A table of exchange rates over time, for reporting in another currency than the numeraire."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from agent.errors import ConfigError

LONGEST = 1_000_000
"""Lines of a table, at most."""
FIRST_S = 1_000_000_000
"""Fewer Unix seconds are from before any chain: 20260131 is the day, not a second of 1970."""


@dataclass(frozen=True, slots=True)
class RateTable:
    """Reporting units per numeraire unit, each from its time on; `name` is what errors call it."""

    name: str
    times: tuple[int, ...]
    rates: tuple[Fraction, ...]

    def at(self, at_s: int) -> Fraction:
        """The last rate at or before a chain time. Raises ConfigError before the first."""
        number = bisect_right(self.times, at_s)
        if number == 0:
            day = datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")
            raise ConfigError(f"{self.name}: no rate at or before {day}", "add earlier lines: time,rate")
        return self.rates[number - 1]

    def age_s(self, at_s: int) -> int:
        """Seconds since the time of the rate that counts at a chain time. Raises ConfigError as `at`."""
        self.at(at_s)
        return at_s - self.times[bisect_right(self.times, at_s) - 1]


def parse_rates(name: str, lines: Iterable[str]) -> RateTable:
    """Lines of `time,rate` after just that header; the time is a UTC date, an ISO time or Unix seconds.

    Raises ConfigError naming the line.
    """
    found: list[tuple[int, Fraction]] = []
    for number, line in enumerate(lines, 1):
        cells = [cell.strip().strip('"') for cell in line.strip().lstrip("\ufeff").split(",")]
        if (number == 1 and cells == ["time", "rate"]) or not any(cells):
            continue
        if number == 1 or len(cells) != 2 or number > LONGEST:
            raise ConfigError(
                f"{name}: line {number} is not time,rate", "write a header line time,rate and then lines such as 2026-01-31,0.92"
            )
        found.append((_time(name, number, cells[0]), _rate(name, number, cells[1])))
        if len(found) > 1 and found[-1][0] <= found[-2][0]:
            raise ConfigError(f"{name}: line {number} is not after the line before it", "sort the table by time, one line per time")
    if not found:
        raise ConfigError(f"{name}: the table is empty", "write lines such as 2026-01-31,0.92 after the header time,rate")
    return RateTable(name, tuple(at_s for at_s, _ in found), tuple(rate for _, rate in found))


def _time(name: str, number: int, text: str) -> int:
    if text.isdecimal() and len(text) <= 11 and int(text) >= FIRST_S:
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{name}: line {number}: {text[:40]!r} is not a time", "write 2026-01-31, 2026-01-31T12:00:00Z or Unix seconds"
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def _rate(name: str, number: int, text: str) -> Fraction:
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal(0)
    if not found.is_finite() or found <= 0 or len(text) > 40 or abs(found.adjusted()) > 30:
        raise ConfigError(
            f"{name}: line {number}: {text[:40]!r} is not a rate above zero", "write reporting units per numeraire coin, such as 0.92"
        )
    return Fraction(found)
