"""Prices over time as a plain table: closes of symbols at rising times, with what is missing named."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent.errors import ConfigError
from agent.units import safe_label

FEWEST_BARS = 2


@dataclass(frozen=True, slots=True)
class PriceTable:
    """`closes[i, j]` is what one whole `symbols[j]` costs at `times_s[i]` (Unix seconds, rising), NaN where the data have no price.

    All closes are in one unit, that of the file. `notes` say in words what is missing.
    """

    symbols: tuple[str, ...]
    times_s: NDArray[np.int64]
    closes: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @property
    def bars(self) -> int:
        """Number of times."""
        return len(self.times_s)

    @property
    def interval_s(self) -> int:
        """The usual distance of two bars, seconds."""
        return int(np.median(np.diff(self.times_s)))

    @property
    def digest(self) -> str:
        """SHA-256 of symbols, times and closes."""
        found = hashlib.sha256("\n".join(self.symbols).encode())
        found.update(np.ascontiguousarray(self.times_s, dtype="<i8").tobytes())
        found.update(np.ascontiguousarray(self.closes, dtype="<f8").tobytes())
        return found.hexdigest()

    def only(self, symbols: Sequence[str]) -> PriceTable:
        """The table of these symbols from the first bar on at which each has a price. Raises ConfigError where there is none."""
        missing = [symbol for symbol in symbols if symbol not in self.symbols]
        if missing:
            raise ConfigError(f"--prices: has no {missing[0]}", f"its symbols are {', '.join(self.symbols)}")
        closes = self.closes[:, [self.symbols.index(symbol) for symbol in symbols]]
        known = np.logical_or.accumulate(~np.isnan(closes), axis=0).all(axis=1)
        first = int(np.argmax(known))
        if not known.any() or self.bars - first < FEWEST_BARS:
            raise ConfigError(f"--prices: {', '.join(symbols)} never have prices at the same time", "leave out what starts too late")
        filled = carried(closes)[first:].copy()
        rows = np.where(np.arange(len(filled))[:, None] == 0, filled, closes[first:])
        told = missing_data(symbols, self.times_s, closes, first)
        return replace(self, symbols=tuple(symbols), times_s=self.times_s[first:], closes=rows, notes=(*self.notes, *told))


def table_of(times_s: Sequence[int], closes: Mapping[str, Sequence[float]]) -> PriceTable:
    """A table from plain numbers. Raises ConfigError for what `checked` refuses."""
    array = np.column_stack([np.asarray(column, dtype=np.float64) for column in closes.values()])
    return checked(PriceTable(tuple(closes), np.asarray(times_s, dtype=np.int64), array))


def checked(table: PriceTable) -> PriceTable:
    """The table itself. Raises ConfigError for too few bars, times that do not rise, names and closes that are none."""
    if table.bars < FEWEST_BARS or not table.symbols:
        what = f"--prices: {table.bars} bars of {len(table.symbols)} symbols"
        raise ConfigError(what, f"give {FEWEST_BARS} bars or more, and the prices of a symbol at least")
    for symbol in table.symbols:
        if safe_label(symbol, "") != symbol:
            raise ConfigError("--prices: a symbol is no plain name", "use letters, digits and ._- alone, at most 16")
    steps = np.diff(table.times_s)
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0))
        word = "comes twice" if steps[row] == 0 else "comes after a later one"
        raise ConfigError(f"--prices: time {int(table.times_s[row + 1])} {word}", "sort the file by time, each time once")
    bad = ~np.isnan(table.closes) & ~((table.closes > 0) & np.isfinite(table.closes))
    if bad.any():
        row, column = (int(found[0]) for found in np.nonzero(bad))
        raise ConfigError(
            f"--prices: {table.symbols[column]} costs {table.closes[row, column]} at time {int(table.times_s[row])}",
            "a price is above zero; remove the row if there was none",
        )
    return table


def carried(closes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each missing close replaced by the newest one before it; NaN where there is none yet."""
    rows = np.where(np.isnan(closes), -1, np.arange(len(closes))[:, None])
    newest = np.maximum.accumulate(rows, axis=0)
    found: NDArray[np.float64] = np.where(newest >= 0, np.take_along_axis(closes, np.maximum(newest, 0), axis=0), np.nan)
    return found


def missing_data(symbols: Sequence[str], times_s: NDArray[np.int64], closes: NDArray[np.float64], first: int) -> tuple[str, ...]:
    """In words: symbols that start late or end early, and gaps; a symbol's last price stands until its next one."""
    told = []
    known = ~np.isnan(closes)
    for column, symbol in enumerate(symbols):
        rows = np.nonzero(known[:, column])[0]
        start, end = int(rows[0]), int(rows[-1])
        if start > 0:
            told.append(f"{symbol} starts {start} bars after the data do")
        if end < len(closes) - 1:
            told.append(f"{symbol} ends {len(closes) - 1 - end} bars before the data do, at {int(times_s[end])}")
        holes = end - start + 1 - len(rows)
        if holes:
            told.append(f"{symbol} lacks {holes} prices in between, at most {int(np.diff(rows).max()) - 1} in a row")
    if first > 0:
        told.append(f"the simulation begins at bar {first}, the first at which every asset has a price")
    steps = np.diff(times_s[first:])
    wide = int((steps > np.median(steps)).sum())
    if wide:
        told.append(f"{wide} times follow later than usual, at most {int(steps.max())} s")
    return tuple(told)
