"""Prices as the fast kernel takes them: checked, with what is missing decided bar by bar from the past alone, and said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agent.errors import ConfigError
from agent.policy import words

Floats = NDArray[np.float64]
SAME, CHANGED, CLOSED = 0, 1, 2
"""As in agent/backtest/fast_kernel.py, which is not imported before it is needed."""
FEWEST_BARS = 2


@dataclass(frozen=True, slots=True)
class Bars:
    """A price table, ready to run: a row of prices in one numeraire for each asset, with a column for each bar.

    `traded` is zero where an asset has no price, `shown` the newest price so far (zero before the first). `state` says which bars
    trade, and `breaks` are those where that changes, and the end. An asset counts from its first price on. While one that had a
    price has none, nothing trades at all, as the live agent does nothing while it does not know what it holds; after `patience_bars`
    of that the others trade on without it, their targets scaled to one, and it counts at its newest price until it has one again.
    None waits without end. `notes` say what was missing.
    """

    symbols: tuple[str, ...]
    times_s: NDArray[np.int64]
    traded: Floats
    shown: Floats
    state: NDArray[np.int8]
    breaks: NDArray[np.int64]
    notes: tuple[str, ...]


def bars_of(
    symbols: Sequence[str],
    times_s: ArrayLike,
    prices: ArrayLike,
    patience_bars: int | None = None,
) -> Bars:
    """The table checked: `prices[bar, asset]`, NaN where there is none, at rising unix seconds `times_s`.

    Raises ConfigError for times that repeat or fall, for prices that are zero, negative or infinite, and for an asset without any.
    """
    times, table = _shaped(symbols, times_s, prices)
    if patience_bars is not None and patience_bars < 0:
        raise ConfigError(f"patience_bars: {patience_bars} is negative", "write how many bars to wait for a price, or None")
    _check_times(times)
    _check_prices(symbols, times, table)
    known = ~np.isnan(table)
    prices_or_zero = np.where(known, table, 0.0)
    traded = np.ascontiguousarray(prices_or_zero.T)
    shown = traded if known.all() else np.ascontiguousarray(_newest(prices_or_zero, known).T)
    state = _states(known, patience_bars)
    breaks = np.append(np.nonzero(state != SAME)[0], len(times))
    return Bars(tuple(symbols), times, traded, shown, state, breaks, _notes(symbols, times, known, patience_bars))


def _shaped(symbols: Sequence[str], times_s: ArrayLike, prices: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
    given: NDArray[Any] = np.asarray(times_s)
    if given.dtype.kind not in "iu":
        raise ConfigError(f"times: {given.dtype} are no unix seconds", "give whole seconds, UTC")
    table = np.array(prices, dtype=np.float64, order="C")
    if table.ndim != 2 or table.shape != (len(given), len(symbols)):
        raise ConfigError(f"prices: a table of {table.shape} for {len(given)} times and {len(symbols)} assets", "one row per time")
    if len(given) < FEWEST_BARS or not symbols:
        raise ConfigError(f"prices: {len(given)} bars of {len(symbols)} assets", f"at least {FEWEST_BARS} bars of one asset are needed")
    if len(set(symbols)) != len(symbols):
        raise ConfigError(f"prices: {max(symbols, key=list(symbols).count)} has two columns", "one column per asset")
    return np.ascontiguousarray(given, dtype=np.int64), table


def _check_times(times: NDArray[np.int64]) -> None:
    steps = np.diff(times)
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0)) + 1
        what = "is there twice" if steps[row - 1] == 0 else f"comes after {words.moment(int(times[row - 1]))}"
        raise ConfigError(f"times: {words.moment(int(times[row]))} (row {row}) {what}", "sort the table by time, one row per time")


def _check_prices(symbols: Sequence[str], times: NDArray[np.int64], table: Floats) -> None:
    bad = ~np.isnan(table) & ~((table > 0) & np.isfinite(table))
    if bad.any():
        row, column = (int(part[0]) for part in np.nonzero(bad))
        price = float(table[row, column])
        what = "zero" if price == 0 else "negative" if price < 0 and np.isfinite(price) else "infinite"
        raise ConfigError(
            f"prices: {symbols[column]} is {what} ({price:g}) at {words.moment(int(times[row]))} (row {row})",
            "leave a price out where there is none",
        )
    empty = np.isnan(table).all(axis=0)
    if empty.any():
        raise ConfigError(f"prices: {symbols[int(np.argmax(empty))]} has none (NaN in every bar)", "leave the asset out")


def _newest(traded: Floats, known: NDArray[np.bool_]) -> Floats:
    """Each missing price replaced by the newest before it, zero where there is none yet."""
    rows = np.maximum.accumulate(np.where(known, np.arange(len(known))[:, None], 0), axis=0)
    newest: Floats = np.take_along_axis(traded, rows, axis=0)
    return newest


def _missing_for(known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For how many bars, this one included, each asset that had a price has had none; zero where it has one, or never had."""
    rows = np.arange(len(known))[:, None]
    last = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    found: NDArray[np.int64] = np.where(last >= 0, rows - last, 0)
    return found


def _states(known: NDArray[np.bool_], patience_bars: int | None) -> NDArray[np.int8]:
    state = np.zeros(len(known), dtype=np.int8)
    state[0] = CHANGED
    if known.all():
        return state
    missing = _missing_for(known)
    waits = (missing > 0) if patience_bars is None else (missing > 0) & (missing <= patience_bars)
    closed = waits.any(axis=1)
    state[closed] = CLOSED
    open_rows = np.nonzero(~closed)[0]
    sets = known[open_rows]
    changed = np.ones(len(open_rows), dtype=bool)
    changed[1:] = (sets[1:] != sets[:-1]).any(axis=1)
    state[open_rows] = np.where(changed, CHANGED, SAME)
    return state


def _notes(symbols: Sequence[str], times: NDArray[np.int64], known: NDArray[np.bool_], patience_bars: int | None) -> tuple[str, ...]:
    told = []
    waiting = "nothing trades" if patience_bars is None else f"nothing trades for {patience_bars} bars, then the others without it"
    for column, symbol in enumerate(symbols):
        rows = np.nonzero(known[:, column])[0]
        first, last = int(rows[0]), int(rows[-1])
        if first > 0:
            told.append(f"{symbol} has no price before {words.moment(int(times[first]))}: until then the others take its weight")
        if holes := last - first + 1 - len(rows):
            told.append(f"{symbol} lacks {holes} prices in between, {int(np.diff(rows).max()) - 1} in a row at most: {waiting}")
        if last < len(known) - 1:
            told.append(f"{symbol} has no price after {words.moment(int(times[last]))}: it counts at its last one; {waiting}")
    steps = np.diff(times)
    usual = int(np.median(steps))
    if wide := int((steps > usual).sum()):
        row = int(np.argmax(steps))
        longest = f"the longest of {words.span(int(steps[row]))} after {words.moment(int(times[row]))}"
        told.append(f"{wide} times bars are further apart than the usual {words.span(usual)}, {longest}")
    return tuple(told)
