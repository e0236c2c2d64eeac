"""Tables of prices over time, from files, and gas prices."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.backtest.settings import BacktestSpec
from agent.errors import ConfigError
from agent.price_files.frames import FORMAT_HINT, load_polars, read_frame
from agent.price_files.read import (
    ClosingPrices,
    SymbolCloses,
    TypedCloses,
    TypedPrices,
    closes_of_frame,
    is_unit_of,
    read_closes,
    symbol_pairs,
    typed_prices,
)
from agent.price_files.table import plain_frame
from agent.price_files.times import gaps_text, parse_times
from agent.units import DAY_S, Token, format_time, minute_text, pluralize, safe_label
from agent.weights.asset_classes import is_cash

MIN_BARS = 2
MIN_FACTORS = 20
"""Fewest closes by which growth factors are recognised."""
LEAST_FACTOR_DEVIATION = 0.002
"""Least standard deviation of the logs of growth factors; coins of a fixed value have less."""


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices over time: `closes[i, j]` is the price of one whole `symbols[j]` at `times_s[i]` (Unix
    seconds, ascending), NaN if missing.

    All closes are in the unit of the file; `currency` is its name, if the file says it, empty if not.
    `notes` describe missing data. `first_ages_s` are the ages in seconds of the closes at the first
    time, in the order of the symbols; empty if all are of that time. `zone` is the one whose clock
    the times show as if it were UTC; empty for UTC.
    """

    symbols: tuple[str, ...]
    times_s: NDArray[np.int64]
    closes: NDArray[np.float64]
    notes: tuple[str, ...] = ()
    currency: str = ""
    first_ages_s: tuple[int, ...] = ()
    zone: str = ""

    @property
    def bar_count(self) -> int:
        """Number of times."""
        return len(self.times_s)

    @property
    def interval_s(self) -> int:
        """Median interval between bars, seconds."""
        return int(np.median(np.diff(self.times_s)))

    @property
    def digest(self) -> str:
        """SHA-256 of symbols, times and closes."""
        hasher = hashlib.sha256("\n".join(self.symbols).encode())
        hasher.update(np.ascontiguousarray(self.times_s, dtype="<i8").tobytes())
        hasher.update(np.ascontiguousarray(self.closes, dtype="<f8").tobytes())
        if any(self.first_ages_s):
            hasher.update(repr(self.first_ages_s).encode())
        return hasher.hexdigest()

    def close_times_s(self, close_bars: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the times of closes, from their bars in an array whose last axis is the symbols."""
        first_ages_s = np.asarray(self.first_ages_s or 0, dtype=np.int64)
        return self.times_s[close_bars] - np.where(close_bars == 0, first_ages_s, 0)

    def bars(self, start: int, end: int) -> PriceTable:
        """Return the bars from `start` to before `end`, without notes. Closes missing at the first
        are the newest before it, at their age.
        """
        close_bars = np.maximum(newest_close_bars(self.closes[: start + 1])[-1], 0)
        closes = self.closes[start:end].copy()
        closes[0] = self.closes[close_bars, np.arange(len(self.symbols))]
        ages_s = self.times_s[start] - self.close_times_s(close_bars)
        first_ages_s = tuple(ages_s.tolist()) if ages_s.any() else ()
        return replace(
            self,
            times_s=self.times_s[start:end],
            closes=closes,
            notes=(),
            first_ages_s=first_ages_s,
        )

    def renaming_remedy(
        self, missing_symbols: Sequence[str], required_symbols: Sequence[str]
    ) -> str:
        """Return the table's symbols, and --as for those that price a missing symbol, as BTC or
        BTCUSDT price WBTC, unless they are among the required `required_symbols`; a single symbol
        may price the only missing one.
        """
        free_symbols = [symbol for symbol in self.symbols if symbol not in required_symbols]
        pairs = symbol_pairs(free_symbols, missing_symbols)
        if not pairs and len(self.symbols) == 1 and free_symbols:
            pairs = {free_symbols[0]: missing_symbols[0]}
        pairs_text = ",".join(f"{name}={symbol}" for name, symbol in pairs.items())
        return f"its symbols are {', '.join(self.symbols)}" + (
            f"; add --as {pairs_text}" if pairs else ""
        )

    def select(self, symbols: Sequence[str]) -> PriceTable:
        """Return the table of these symbols from the first bar by which each has had a price. Raises
        ConfigError if one has ended by then.
        """
        missing_symbols = [symbol for symbol in symbols if symbol not in self.symbols]
        if missing_symbols:
            raise ConfigError(
                f"--prices: no symbol {missing_symbols[0]}",
                self.renaming_remedy(missing_symbols, symbols),
            )
        columns = [self.symbols.index(symbol) for symbol in symbols]
        closes = self.closes[:, columns]
        has_price = ~np.isnan(closes)
        empty_symbols = [
            symbol for column, symbol in enumerate(symbols) if not has_price[:, column].any()
        ]
        if empty_symbols:
            verb = "has" if len(empty_symbols) == 1 else "have"
            raise ConfigError(
                f"--prices: {', '.join(empty_symbols)} {verb} no prices",
                "give closes, or omit the asset",
            )
        first_bar = int(np.argmax(has_price, axis=0).max())
        last_common_bar = self.bar_count - 1 - int(np.argmax(has_price[::-1], axis=0).max())
        if last_common_bar - first_bar + 1 < MIN_BARS:
            raise ConfigError(
                f"--prices: {', '.join(symbols)} have prices at the same time in fewer than {MIN_BARS} bars",
                "omit symbols that start too late, or end too early",
            )
        notes = (
            *price_gap_notes(symbols, self.times_s, closes, first_bar),
            *growth_factor_notes(symbols, closes),
        )
        first_ages_s = tuple(self.first_ages_s[column] for column in columns if self.first_ages_s)
        return replace(
            replace(self, symbols=tuple(symbols), closes=closes, first_ages_s=first_ages_s).bars(
                first_bar, self.bar_count
            ),
            notes=(*self.notes, *notes),
        )


def validate_prices(table: PriceTable) -> PriceTable:
    """Return the table. Raises ConfigError for too few bars, unordered times, and invalid names or
    closes.
    """
    if table.bar_count < MIN_BARS or not table.symbols:
        size_problem = f"--prices: {pluralize(table.bar_count, 'bar')} of {pluralize(len(table.symbols), 'symbol')}"
        raise ConfigError(size_problem, f"give at least {MIN_BARS} bars of one symbol")
    for symbol in table.symbols:
        if safe_label(symbol, "") != symbol:
            raise ConfigError(
                "--prices: a symbol is not a plain name",
                "use at most 16 letters, digits and ._- characters",
            )
    intervals_s = np.diff(table.times_s)
    if (intervals_s <= 0).any():
        row = int(np.argmax(intervals_s <= 0))
        order_problem = "is repeated" if intervals_s[row] == 0 else "is out of order"
        raise ConfigError(
            f"--prices: time {int(table.times_s[row + 1])} {order_problem}",
            "sort the rows by time, without duplicates",
        )
    is_invalid = ~np.isnan(table.closes) & ~((table.closes > 0) & np.isfinite(table.closes))
    if is_invalid.any():
        row, column = (int(indices[0]) for indices in np.nonzero(is_invalid))
        raise ConfigError(
            f"--prices: {table.symbols[column]} costs {table.closes[row, column]} at time"
            f" {int(table.times_s[row])}",
            "prices must be above zero; remove rows without a price",
        )
    return table


def newest_close_bars(closes: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bar of the newest close at or before each, by symbol; -1 before the first."""
    priced_bars = np.where(np.isnan(closes), -1, np.arange(len(closes))[:, None])
    return np.maximum.accumulate(priced_bars, axis=0)


def forward_fill(closes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace each missing close by the newest one before it; NaN before the first."""
    close_bars = newest_close_bars(closes)
    filled_closes: NDArray[np.float64] = np.where(
        close_bars >= 0, np.take_along_axis(closes, np.maximum(close_bars, 0), axis=0), np.nan
    )
    return filled_closes


def price_gap_notes(
    symbols: Sequence[str], times_s: NDArray[np.int64], closes: NDArray[np.float64], first_bar: int
) -> tuple[str, ...]:
    """Return notes on symbols that start late or end early, and on gaps; a gap uses the last
    price.
    """
    notes = []
    has_price = ~np.isnan(closes)
    for column, symbol in enumerate(symbols):
        priced_rows = np.nonzero(has_price[:, column])[0]
        start_row = int(priced_rows[0])
        end_row = int(priced_rows[-1])
        if start_row > 0:
            notes.append(
                f"{symbol} starts {pluralize(start_row, 'bar')} after the first, at"
                f" {format_time(int(times_s[start_row]))}"
            )
        if end_row < len(closes) - 1:
            notes.append(
                f"{symbol} ends {pluralize(len(closes) - 1 - end_row, 'bar')} before the data, at"
                f" {format_time(int(times_s[end_row]))}"
            )
        if len(priced_rows) <= end_row - start_row:
            notes.append(missing_prices_text(symbol, priced_rows, times_s))
    if first_bar > 0:
        notes.append(
            f"the simulation begins at bar {first_bar}, {format_time(int(times_s[first_bar]))}, the"
            " first at which every asset has a price"
        )
    intervals_s = np.diff(times_s[first_bar:])
    gaps = [
        (int(times_s[first_bar + row]), int(intervals_s[row]))
        for row in np.nonzero(intervals_s > np.median(intervals_s))[0]
    ]
    if gaps:
        are_text = "interval is" if len(gaps) == 1 else "intervals are"
        notes.append(f"{len(gaps):,} {are_text} longer than usual: {gaps_text(gaps)}")
    return tuple(notes)


def growth_factor_notes(symbols: Sequence[str], closes: NDArray[np.float64]) -> tuple[str, ...]:
    """Return a note for each symbol but cash whose closes are probably growth factors."""
    return tuple(
        f"{symbol} is near 1 at each time; if these are growth factors, give prices: their product up"
        " to each time"
        for symbol, column in zip(symbols, closes.T, strict=True)
        if not is_cash(symbol) and are_growth_factors(column[~np.isnan(column)])
    )


def are_growth_factors(closes: NDArray[np.float64]) -> bool:
    """Return whether closes vary around 1 and keep nothing of the close before; prices that vary as
    much drift away.
    """
    if len(closes) < MIN_FACTORS:
        return False
    logs = np.log(closes)
    deviation = float(logs.std())
    is_around_one = abs(float(logs.mean())) < deviation > LEAST_FACTOR_DEVIATION
    return is_around_one and float(np.mean(np.diff(logs) ** 2)) > deviation**2


def missing_prices_text(
    symbol: str, priced_rows: NDArray[np.int64], times_s: NDArray[np.int64]
) -> str:
    """Describe the missing prices between the first and the last of these rows with prices."""
    missing_counts = np.diff(priced_rows) - 1
    total = int(missing_counts.sum())
    gaps = np.nonzero(missing_counts)[0]
    first_text = minute_text(int(times_s[priced_rows[gaps[0]] + 1]))
    last_text = minute_text(int(times_s[priced_rows[gaps[-1] + 1] - 1]))
    when_text = f", at {last_text} UTC"
    if total > 1:
        when_text = f", {first_text} to {last_text} UTC, at most {missing_counts.max():,} in a row"
    return f"{symbol} has {pluralize(total, 'missing price')}{when_text}"


TIME_COLUMNS = ("time", "date", "timestamp")


def read_table(path: Path) -> PriceTable:
    """Read the file's prices; times without a zone are UTC. Raises ConfigError as read_closes and
    validate_prices do.
    """
    frame = plain_frame(path, "--prices")
    prices = None if frame is None else typed_prices(frame, path.name)
    return validate_prices(price_table(prices or read_closes(path)))


def table_of_frame(frame: Any, name: str) -> PriceTable:
    """Return the prices of a frame of polars; `name` is what errors call it. Raises ConfigError as
    read_table.
    """
    return validate_prices(price_table(typed_prices(frame, name) or closes_of_frame(frame, name)))


def price_table(prices: ClosingPrices | TypedPrices) -> PriceTable:
    """Return closes as a table of all their times, with the remarks as notes."""
    all_series: Sequence[SymbolCloses | TypedCloses] = prices.series
    all_times_s = np.sort(
        np.concatenate([np.asarray(series.times_s, dtype=np.int64) for series in all_series]),
        kind="stable",  # far quicker than np.unique, as the times of each symbol are in order
    )
    times_s = all_times_s[np.diff(all_times_s, prepend=all_times_s[:1] - 1) != 0]
    closes = np.full((len(times_s), len(all_series)), np.nan)
    for column, series in enumerate(all_series):
        rows = np.searchsorted(times_s, np.asarray(series.times_s, dtype=np.int64))
        closes[rows, column] = np.asarray(series.closes, dtype=np.float64)
    return PriceTable(
        tuple(series.symbol for series in all_series),
        times_s,
        closes,
        tuple(remark.text for remark in prices.remarks),
        max((series.currency for series in all_series), default=""),
    )


def daily_closes(table: PriceTable) -> PriceTable:
    """Return the newest close of each symbol at or before one time of every day (UTC), which is that
    of the symbol with the fewest, at which the others are least old. A last day that ends before
    this time is left out.
    """
    day_times_by_symbol = [
        np.unique(table.times_s[is_priced] % DAY_S)
        for is_priced in ~np.isnan(table.closes.T)
        if is_priced.any()
    ]
    fewest_times = min(len(day_times_s) for day_times_s in day_times_by_symbol)

    def max_age_s(day_time_s: int) -> int:
        return max(int(((day_time_s - times_s) % DAY_S).min()) for times_s in day_times_by_symbol)

    day_time_s = min(
        (
            day_time_s
            for day_times_s in day_times_by_symbol
            if len(day_times_s) == fewest_times
            for day_time_s in day_times_s.tolist()
        ),
        key=lambda day_time_s: (max_age_s(day_time_s), -day_time_s),
    )
    bar_days = -((day_time_s - table.times_s) // DAY_S)
    days, first_bars = np.unique(bar_days, return_index=True)
    last_bars = np.append(first_bars[1:], table.bar_count) - 1
    close_bars = newest_close_bars(table.closes)[last_bars]
    closes = np.where(
        close_bars >= first_bars[:, None],
        np.take_along_axis(table.closes, np.maximum(close_bars, 0), axis=0),
        np.nan,
    )
    times_s = days * DAY_S + day_time_s
    is_complete = times_s <= table.times_s[-1]
    return replace(table, times_s=times_s[is_complete], closes=closes[is_complete])


def require_currency(table: PriceTable, numeraire: str, remedy: str) -> None:
    """Raise ConfigError with the remedy if the numeraire is a currency that the file does not price,
    and the file says that its closes are in another.
    """
    is_priced = numeraire in table.symbols
    if not is_priced and is_cash(numeraire) and not is_unit_of(numeraire, table.currency):
        raise ConfigError(f"the closes are in {table.currency}, not in {numeraire}", remedy)


def read_gas_prices(path: Path, times_s: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the gas price in wei at each time: the newest entry so far of the file's columns
    `time` and `gas_price_wei`. Raises ConfigError as read_table does, and if the file begins after
    the first time.
    """
    polars = load_polars()
    option = "--market gas-prices"
    frame = read_frame(polars, path, option)
    if not {"time", "gas_price_wei"} <= set(frame.columns):
        raise ConfigError(
            f"{option}: {path.name} needs columns time and gas_price_wei; it has"
            f" {', '.join(frame.columns)[:200]}",
            FORMAT_HINT,
        )
    dtype = frame["gas_price_wei"].dtype
    if (
        not dtype.is_integer()
        or frame["gas_price_wei"].null_count()
        or frame["gas_price_wei"].min() < 0
    ):
        raise ConfigError(
            f"{option}: a gas price of {path.name} is not a whole number of wei, 0 or more",
            "write for example 20000000000",
        )
    row_times_s = unix_seconds(frame["time"], path)
    gas_prices_wei = frame["gas_price_wei"].to_list()
    if (np.diff(row_times_s) <= 0).any():
        row = int(np.argmax(np.diff(row_times_s) <= 0)) + 2
        raise ConfigError(
            f"{option}: {path.name}, row {row}: its time is not later than the previous row's",
            "sort the rows by time, without duplicates",
        )
    newest_rows = np.searchsorted(row_times_s, times_s, side="right") - 1
    if newest_rows[0] < 0:
        raise ConfigError(
            f"{option}: {path.name} begins at {format_time(int(row_times_s[0]))}, after the first price",
            "add earlier gas prices, or omit earlier prices",
        )
    return tuple(int(gas_prices_wei[row]) for row in newest_rows)


def unix_seconds(times: Any, path: Path) -> NDArray[np.int64]:
    """Return a column of times as Unix seconds, read as those of price files. Raises ConfigError."""
    if times.null_count():
        rows_text = pluralize(times.null_count(), "row")
        raise ConfigError(f"{path.name}: {rows_text} without a time", "remove them")
    column_times = parse_times(times.to_list(), range(1, len(times) + 1), path.name)
    return np.asarray(column_times.times_s, dtype=np.int64)


def columns_by_token(spec: BacktestSpec, table: PriceTable) -> dict[str, int]:
    """Return the table's column of each token, by address; a numeraire that is the unit of the
    closes has no column.
    """
    return {
        address: table.symbols.index(symbol)
        for address, symbol in spec.tokens_and_symbols
        if symbol in table.symbols
    }


def select_spec_symbols(spec: BacktestSpec, table: PriceTable) -> PriceTable:
    """Return the table restricted to the portfolio's symbols, as PriceTable.select. The numeraire
    may be missing. Raises ConfigError.
    """
    numeraire_address = spec.portfolio.numeraire.address
    return table.select(
        [
            symbol
            for address, symbol in spec.tokens_and_symbols
            if symbol in table.symbols or address != numeraire_address
        ]
    )


def prices_in_numeraire(
    spec: BacktestSpec, table: PriceTable, closes: NDArray[np.float64], tokens: Sequence[Token]
) -> NDArray[np.float64]:
    """Return a column of prices for each token, in whole coins of the numeraire, from closes in the
    table's order; NaN if missing.
    """
    column_by_token = columns_by_token(spec, table)
    ones = np.ones(len(closes))
    closes_by_token = {address: closes[:, column] for address, column in column_by_token.items()}
    prices: NDArray[np.float64] = np.column_stack(
        [closes_by_token.get(token.address, ones) for token in tokens]
    )
    return prices / closes_by_token.get(spec.portfolio.numeraire.address, ones)[:, None]


def require_unit_of_prices(symbol: str, remedy: str) -> None:
    """Raise ConfigError for a numeraire without prices that is no cash: its price is unknown, not
    one.
    """
    if not is_cash(symbol):
        raise ConfigError(
            f"numeraire: the file has no prices of {symbol}, and {symbol} is no known currency or"
            " stablecoin",
            remedy,
        )


def require_known_unit(table: PriceTable, numeraire: str, remedy: str) -> None:
    """Raise ConfigError with the remedy unless the table prices the numeraire, or its closes are in
    it.
    """
    if numeraire not in table.symbols:
        require_unit_of_prices(numeraire, remedy)
        require_currency(table, numeraire, remedy)


def has_gas_price(spec: BacktestSpec, table: PriceTable) -> bool:
    """Return True if the native coin was named and is an asset or hub with prices."""
    return spec.has_gas_price and spec.portfolio.wrapped_native in columns_by_token(spec, table)
