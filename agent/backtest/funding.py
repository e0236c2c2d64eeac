"""What a short perpetual as large as each holding would have got or paid as funding. No position is simulated: it is arithmetic.

Funding of one interval is the position's nominal value times the rate; a rate above zero goes from longs to shorts (Binance,
"Introduction to Binance Futures Funding Rates"; dYdX help, "Funding": −1 · rate · position · index price).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from agent.errors import ConfigError
from agent.units import YEAR_S, Value, floor_int

DEAR = 1.0
"""A usual rate that comes to more than the whole notional a year is more likely written in percent."""
GAP = 1.5
"""Of the usual distance: times of venues miss it by moments."""
Times = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FundingSeries:
    """`rates[i]` is what longs paid shorts at `times_s[i]` (Unix seconds, rising), as a share of notional for the interval before."""

    symbol: str
    times_s: Times
    rates: NDArray[np.float64]

    @property
    def usual_s(self) -> int:
        """The usual distance of two times, seconds; 0 where there is one alone."""
        return int(np.median(np.diff(self.times_s))) if len(self.times_s) > 1 else 0


@dataclass(frozen=True, slots=True)
class Carry:
    """What a short as large as what was held of `symbol` got (below zero: paid) at each of `times_s`, which lie within the simulation.

    `payments` are numeraire base units, each rounded down, which is against the holder; `notionals` what was held, rounded down too.
    `lengths_s` is the time that each rate is for.
    """

    symbol: str
    times_s: Times
    payments: tuple[int, ...]
    notionals: tuple[int, ...]
    lengths_s: tuple[int, ...]

    @property
    def total(self) -> Value:
        """All payments, numeraire base units."""
        return Fraction(sum(self.payments))

    @property
    def notional(self) -> Value:
        """The mean of what was held at these times, numeraire base units."""
        return Fraction(sum(self.notionals), len(self.notionals))

    @property
    def held_for(self) -> int:
        """What was held times how long, base units and seconds."""
        return sum(notional * length for notional, length in zip(self.notionals, self.lengths_s, strict=True))

    @property
    def yearly(self) -> float | None:
        """Per year of 365 days, as a share of what it was held against; None where nothing was held or its time is not known."""
        return _yearly([self])


@dataclass(frozen=True, slots=True)
class Funding:
    """The carry of each symbol that the file has rates of; `digest` is SHA-256 of those rates."""

    carries: tuple[Carry, ...]
    digest: str

    @property
    def total(self) -> Value:
        """Over all symbols, numeraire base units."""
        return sum((one.total for one in self.carries), Fraction(0))

    @property
    def yearly(self) -> float | None:
        """Of all symbols together; see Carry."""
        return _yearly(self.carries)


def _yearly(carries: Sequence[Carry]) -> float | None:
    held = sum(one.held_for for one in carries)
    return float(Fraction(sum(sum(one.payments) for one in carries) * YEAR_S, held)) if held else None


def renamed(series: Sequence[FundingSeries], names: Mapping[str, str]) -> tuple[FundingSeries, ...]:
    """The series under other symbols: `names` are ours by those of the file. Raises ConfigError where two become one."""
    found = tuple(replace(one, symbol=names.get(one.symbol, one.symbol)) for one in series)
    if len({one.symbol for one in found}) < len(found):
        raise ConfigError("--as: two symbols of the file of funding get one name", "give each of them a name of its own")
    return found


def require_prices(series: Sequence[FundingSeries], symbols: Sequence[str], bars_s: Times) -> None:
    """Raises ConfigError for rates of what the prices (`symbols`) lack, and for rates that all lie outside the bars of the simulation."""
    for one in series:
        if one.symbol not in symbols:
            raise ConfigError(
                f"--funding: {one.symbol} has rates and no prices",
                f"give its prices, take its rows out, or name it as the prices do with --as; they have {', '.join(symbols)}",
            )
        if not within(one, bars_s).any():
            rates, bars = (f"from {_when(times[0])} to {_when(times[-1])}" for times in (one.times_s, bars_s))
            raise ConfigError(
                f"--funding: the rates of {one.symbol}, {rates}, lie outside the simulation, {bars}",
                "give prices and rates of the same time, or take its rows out",
            )


def carry(series: FundingSeries, bars_s: Times, held: Callable[[int], Value]) -> Carry:
    """Payments at the times of the series within the bars. `held` is what was held after a bar, at its price, numeraire base units.

    Asked is the newest bar until each time: no later price or trade changes a payment.
    """
    inside, usual = within(series, bars_s), series.usual_s
    times_s = series.times_s[inside]
    bars = np.searchsorted(bars_s, times_s, side="right") - 1
    worth = [held(bar) for bar in bars.tolist()]
    lengths = np.minimum(np.diff(series.times_s, prepend=series.times_s[0] - usual), usual)[inside]
    rates = [Fraction(str(rate)) for rate in series.rates[inside].tolist()]
    payments = tuple(floor_int(value * rate) for value, rate in zip(worth, rates, strict=True))
    return Carry(series.symbol, times_s, payments, tuple(floor_int(value) for value in worth), tuple(lengths.tolist()))


def told(series: FundingSeries, bars_s: Times) -> list[str]:
    """In words: rates that start late, end early, lie outside the bars, follow at other distances, or look like percent."""
    times_s, usual, found = series.times_s, series.usual_s, []
    name, inside = f"funding: {series.symbol}", within(series, bars_s)
    if times_s[0] - bars_s[0] > usual:
        found.append(f"{name} starts at {_when(times_s[0])}, after the simulation does")
    if bars_s[-1] - times_s[-1] > usual:
        found.append(f"{name} ends at {_when(times_s[-1])}, before the simulation does")
    if outside := int((~inside).sum()):
        found.append(f"{name} has {outside} rates outside the simulation, they do not count")
    steps = np.diff(times_s)
    if wide := int((steps > GAP * usual).sum()):
        found.append(f"{name} has {wide} times that follow later than usual, at most {int(steps.max())} s; what is missing counts zero")
    if close := int((steps * GAP < usual).sum()):
        found.append(f"{name} has {close} times that follow sooner than usual, at least {int(steps.min())} s")
    a_year = float(np.median(np.abs(series.rates))) * YEAR_S / usual if usual else 0.0
    if a_year > DEAR:
        found.append(f"{name} has rates that come to {100 * a_year:,.0f}% a year: are they written in percent?")
    return found


def digest(series: Sequence[FundingSeries]) -> str:
    """SHA-256 of symbols, times and rates."""
    found = hashlib.sha256("\n".join(one.symbol for one in series).encode())
    for one in series:
        found.update(np.ascontiguousarray(one.times_s, dtype="<i8").tobytes())
        found.update(np.ascontiguousarray(one.rates, dtype="<f8").tobytes())
    return found.hexdigest()


def within(series: FundingSeries, bars_s: Times) -> NDArray[np.bool_]:
    """Which times of the series lie from the first bar to the last."""
    found: NDArray[np.bool_] = (series.times_s >= bars_s[0]) & (series.times_s <= bars_s[-1])
    return found


def _when(time_s: int) -> str:
    return f"{datetime.fromtimestamp(int(time_s), UTC):%Y-%m-%d %H:%M}"
