"""Read CSV and Parquet inputs: prices (long or wide), gas prices, owner transfers, funding
rates.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.backtest.settings import BacktestSpec
from agent.errors import ConfigError
from agent.units import Token, safe_label

MIN_BARS = 2


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices over time: `closes[i, j]` is the price of one whole `symbols[j]` at `times_s[i]` (Unix
    seconds, ascending), NaN if missing.

    All closes are in the unit of the file. `notes` describe missing data.
    """

    symbols: tuple[str, ...]
    times_s: NDArray[np.int64]
    closes: NDArray[np.float64]
    notes: tuple[str, ...] = ()

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
        return hasher.hexdigest()

    def renaming_remedy(
        self, missing_symbols: Sequence[str], required_symbols: Sequence[str]
    ) -> str:
        """Return the table's symbols, and --as for those that a missing symbol ends with, as WBTC
        with BTC, unless they are among the required `required_symbols`.
        """
        free_symbols = [symbol for symbol in self.symbols if symbol not in required_symbols]
        missing_name_by_symbol = {
            max(matching_symbols, key=len): missing_symbol
            for missing_symbol in missing_symbols
            if (
                matching_symbols := [
                    symbol for symbol in free_symbols if missing_symbol.endswith(symbol)
                ]
            )
        }
        renames_text = ",".join(
            f"{symbol}={new_symbol}" for symbol, new_symbol in missing_name_by_symbol.items()
        )
        return f"its symbols are {', '.join(self.symbols)}" + (
            f"; add --as {renames_text}" if missing_name_by_symbol else ""
        )

    def select(self, symbols: Sequence[str]) -> PriceTable:
        """Return the table of these symbols from the first bar at which each has a price. Raises
        ConfigError if there is none.
        """
        missing_symbols = [symbol for symbol in symbols if symbol not in self.symbols]
        if missing_symbols:
            raise ConfigError(
                f"--prices: no symbol {missing_symbols[0]}",
                self.renaming_remedy(missing_symbols, symbols),
            )
        closes = self.closes[:, [self.symbols.index(symbol) for symbol in symbols]]
        has_begun = np.logical_or.accumulate(~np.isnan(closes), axis=0).all(axis=1)
        first_bar = int(np.argmax(has_begun))
        if not has_begun.any() or self.bar_count - first_bar < MIN_BARS:
            raise ConfigError(
                f"--prices: {', '.join(symbols)} never have prices at the same time",
                "omit symbols that start too late",
            )
        filled_closes = forward_fill(closes)[first_bar:].copy()
        closes_from_start = np.where(
            np.arange(len(filled_closes))[:, None] == 0, filled_closes, closes[first_bar:]
        )
        notes = price_gap_notes(symbols, self.times_s, closes, first_bar)
        return replace(
            self,
            symbols=tuple(symbols),
            times_s=self.times_s[first_bar:],
            closes=closes_from_start,
            notes=(*self.notes, *notes),
        )


def make_price_table(
    times_s: Sequence[int], closes_by_symbol: Mapping[str, Sequence[float]]
) -> PriceTable:
    """Build a table from plain numbers. Raises ConfigError as validate_prices does."""
    close_columns = np.column_stack(
        [np.asarray(symbol_closes, dtype=np.float64) for symbol_closes in closes_by_symbol.values()]
    )
    return validate_prices(
        PriceTable(tuple(closes_by_symbol), np.asarray(times_s, dtype=np.int64), close_columns)
    )


def validate_prices(table: PriceTable) -> PriceTable:
    """Return the table. Raises ConfigError for too few bars, unordered times, and invalid names or
    closes.
    """
    if table.bar_count < MIN_BARS or not table.symbols:
        size_problem = f"--prices: {table.bar_count} bars of {len(table.symbols)} symbols"
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
            "sort the file by time, without duplicates",
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


def forward_fill(closes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace each missing close by the newest one before it; NaN before the first."""
    priced_rows = np.where(np.isnan(closes), -1, np.arange(len(closes))[:, None])
    newest_rows = np.maximum.accumulate(priced_rows, axis=0)
    filled_closes: NDArray[np.float64] = np.where(
        newest_rows >= 0, np.take_along_axis(closes, np.maximum(newest_rows, 0), axis=0), np.nan
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
        start_row, end_row = int(priced_rows[0]), int(priced_rows[-1])
        if start_row > 0:
            notes.append(f"{symbol} starts {start_row} bars after the first")
        if end_row < len(closes) - 1:
            notes.append(
                f"{symbol} ends {len(closes) - 1 - end_row} bars before the data, at"
                f" {int(times_s[end_row])}"
            )
        missing_count = end_row - start_row + 1 - len(priced_rows)
        if missing_count:
            notes.append(
                f"{symbol} has {missing_count} missing prices, at most {int(np.diff(priced_rows).max()) - 1}"
                " in a row"
            )
    if first_bar > 0:
        notes.append(
            f"the simulation begins at bar {first_bar}, the first at which every asset has a price"
        )
    intervals_s = np.diff(times_s[first_bar:])
    long_interval_count = int((intervals_s > np.median(intervals_s)).sum())
    if long_interval_count:
        notes.append(
            f"{long_interval_count} intervals are longer than usual, at most {int(intervals_s.max())} s"
        )
    return tuple(notes)


PARQUET_MAGIC = b"PAR1"


def unreadable_reason(path: Path) -> str:
    """Return the reason why a file cannot be read as a table: encoding, quotes, or the first row
    with too many cells.
    """
    try:
        file_bytes = path.read_bytes()
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    if not file_bytes.strip():
        return "is empty"
    if path.suffix.lower() in (".parquet", ".pq"):
        if file_bytes.startswith(PARQUET_MAGIC) and file_bytes.endswith(PARQUET_MAGIC):
            return "is damaged"
        return "is not a Parquet file"
    try:
        csv_text = file_bytes.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"is not UTF-8 text: byte {error.start} is 0x{file_bytes[error.start]:02x}"
    try:
        csv_rows = csv.reader(csv_text.splitlines())
        header = next(csv_rows, [])
        for row_number, row in enumerate(csv_rows, 1):
            if len(row) > len(header):
                return f"has {len(row)} cells in row {row_number}, but {len(header)} columns"
    except csv.Error:
        return "is not comma-separated"
    return "has rows that do not match its header"


TIME_COLUMNS = ("time", "date", "timestamp")
OHLCV_COLUMNS = {"open", "high", "low", "close", "volume"}
FORMAT_HINT = "give a header with the names of the columns, and a row for each time"
_ZONE_PATTERN = r"(Z|[+-]\d{2}:?\d{2})$"
_EARLIEST_S = 1_230_768_000
"""2009-01-01, before the first coin price. Earlier times are spreadsheet dates, and those beyond
_LATEST_S are milliseconds, not Unix seconds.
"""
_LATEST_S = 4_102_444_800


def read_table(path: Path) -> PriceTable:
    """Read the file's prices; times without a zone are UTC.

    Raises ConfigError for a missing package or column, mixed time zones, unordered or repeated
    times, closes that are not positive numbers, and negative volumes.
    """
    polars = load_polars()
    frame = read_frame(polars, path)
    time_column = next((name for name in TIME_COLUMNS if name in frame.columns), None)
    if time_column is None:
        raise ConfigError(
            f"{path.name}: no column {' or '.join(TIME_COLUMNS)}; it has"
            f" {', '.join(frame.columns)[:200]}",
            FORMAT_HINT,
        )
    frame = frame.with_columns(unix_seconds(polars, frame[time_column], path).alias(time_column))
    require_unix_seconds(frame[time_column], path)
    is_long_format = "symbol" in frame.columns
    if is_long_format and "close" not in frame.columns:
        raise ConfigError(
            f"{path.name}: has a column symbol but no column close",
            "name the column of prices close",
        )
    if not is_long_format and (ohlcv_columns := OHLCV_COLUMNS & set(frame.columns)):
        raise ConfigError(
            f"{path.name}: has a column {sorted(ohlcv_columns)[0]} but no column symbol",
            "add a column symbol",
        )
    read_prices = _from_long_format if is_long_format else _from_wide_format
    return validate_prices(read_prices(polars, frame, time_column, path))


def read_gas_prices(path: Path, times_s: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the gas price in wei at each time: the newest entry so far of the file's columns
    `time` and `gas_price_wei`. Raises ConfigError as read_table does, and if the file begins after
    the first time.
    """
    polars, option = load_polars(), "--gas-prices"
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
    row_times_s, gas_prices_wei = (
        unix_seconds(polars, frame["time"], path).to_numpy(),
        frame["gas_price_wei"].to_list(),
    )
    if (np.diff(row_times_s) <= 0).any():
        row = int(np.argmax(np.diff(row_times_s) <= 0)) + 2
        raise ConfigError(
            f"{option}: {path.name}, row {row}: its time is not later than the previous row's",
            "sort the file by time, without duplicates",
        )
    newest_rows = np.searchsorted(row_times_s, times_s, side="right") - 1
    if newest_rows[0] < 0:
        raise ConfigError(
            f"{option}: {path.name} begins at {int(row_times_s[0])}, after the first price",
            "add earlier gas prices, or omit earlier prices",
        )
    return tuple(int(gas_prices_wei[row]) for row in newest_rows)


def require_unix_seconds(times_s: Any, path: Path) -> None:
    """Raise ConfigError if the times cannot be Unix seconds."""
    earliest_s, latest_s = times_s.min(), times_s.max()
    if earliest_s is not None and not _EARLIEST_S <= int(earliest_s) <= int(latest_s) <= _LATEST_S:
        raise ConfigError(
            f"{path.name}: times from {earliest_s} to {latest_s} are not Unix seconds",
            "write times such as 2021-04-04T21:00:00Z",
        )


def load_polars() -> Any:
    """Import polars. Raises ConfigError if it is not installed."""
    try:
        return import_module("polars")
    except ImportError:
        raise ConfigError(
            "price files need the package polars", "pip install 'trimtab[analysis]'"
        ) from None


def read_frame(polars: Any, path: Path, option: str = "--prices") -> Any:
    """Read a CSV or Parquet file as a frame with at least one row. Raises ConfigError."""
    if not path.is_file():
        raise ConfigError(
            f"{option}: {str(path)!r} is not a file", "name an existing .csv or .parquet file"
        )
    reader = {".csv": polars.read_csv, ".parquet": polars.read_parquet}.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"{option}: {path.name} is neither .csv nor .parquet",
            "convert it to CSV or Parquet",
        )
    try:
        if reader is polars.read_csv:
            # infer types from all rows: the first hundred may be whole numbers by chance
            frame = polars.read_csv(path, infer_schema_length=None, glob=False)
        else:
            frame = reader(path, glob=False)
    # a broken file may raise any error of the library
    except (Exception, polars.exceptions.PanicException):
        raise ConfigError(f"{option}: {path.name} {unreadable_reason(path)}", FORMAT_HINT) from None
    if frame.height == 0:
        raise ConfigError(f"{option}: {path.name} is empty", FORMAT_HINT)
    return frame


def unix_seconds(polars: Any, times: Any, path: Path) -> Any:
    """Return a column of times as Unix seconds."""
    if times.null_count():
        raise ConfigError(
            f"{path.name}: {times.null_count()} rows have no time", "remove rows without a time"
        )
    dtype = times.dtype
    if dtype.is_integer():
        return times.cast(polars.Int64)
    if dtype == polars.String:
        times = _parse_times(times, path)
    elif dtype == polars.Date:
        times = times.cast(polars.Datetime("us"))
    elif not isinstance(dtype, polars.Datetime):
        raise ConfigError(
            f"{path.name}: its times are neither text nor whole seconds",
            "write times such as 2021-04-04T21:00:00Z",
        )
    return times.dt.epoch("s")


def _parse_times(times: Any, path: Path) -> Any:
    zone_texts = times.str.extract(_ZONE_PATTERN).fill_null("").unique().to_list()
    if len(zone_texts) > 1:
        raise ConfigError(
            f"{path.name}: times in several time zones: {', '.join(sorted(zone_text or 'none' for zone_text in zone_texts))}",
            "write all of them in UTC",
        )
    local_times = (
        times.str.replace(_ZONE_PATTERN, "").str.replace("T", " ", literal=True).str.strip_chars()
    )
    text_lengths = local_times.str.len_chars()
    full_times = local_times.zip_with(text_lengths != len("2021-04-04"), local_times + " 00:00:00")
    full_times = full_times.zip_with(text_lengths != len("2021-04-04 21:00"), full_times + ":00")
    parsed_times = full_times.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False)
    if parsed_times.null_count():
        row = int(parsed_times.is_null().arg_true()[0])
        raise ConfigError(
            f"{path.name}, row {row + 1}: its time cannot be parsed",
            "write times such as 2021-04-04T21:00:00Z",
        )
    return parsed_times - _zone_offset(zone_texts[0])


def _zone_offset(zone: str) -> timedelta:
    """Return the UTC offset of a zone such as "Z" or "+02:00"."""
    if zone in ("", "Z"):
        return timedelta(0)
    offset_digits = zone[1:].replace(":", "")
    offset = timedelta(hours=int(offset_digits[:2]), minutes=int(offset_digits[2:]))
    return -offset if zone[0] == "-" else offset


def _from_long_format(polars: Any, frame: Any, time_column: str, path: Path) -> PriceTable:
    """Read a table with one row for each time and symbol. The times of each symbol ascend."""
    for column in ("symbol", "close"):
        if frame[column].null_count():
            raise ConfigError(
                f"{path.name}: {frame[column].null_count()} rows have no {column}",
                f"remove rows without a {column}",
            )
    frame = _with_float_columns(polars, frame, ["close", *({"volume"} & set(frame.columns))], path)
    _require_positive_prices(polars, frame, "close", path)
    if (
        "volume" in frame.columns
        and (invalid_rows := frame.with_row_index("row").filter(polars.col("volume") < 0)).height
    ):
        raise ConfigError(
            f"{path.name}, row {invalid_rows['row'][0] + 1}: a negative volume",
            "check the file: its rows may be damaged",
        )
    time_step = polars.col(time_column).diff().over("symbol")
    unordered_rows = (
        frame.with_row_index("row")
        .with_columns(time_step.alias("step"))
        .filter(polars.col("step") <= 0)
    )
    if unordered_rows.height:
        order_problem = "a repeated" if unordered_rows["step"][0] == 0 else "an unordered"
        raise ConfigError(
            f"{path.name}, row {unordered_rows['row'][0] + 1}: {str(unordered_rows['symbol'][0])[:16]!r} has"
            f" {order_problem} time",
            "sort the file by time, without duplicates",
        )
    symbols = frame["symbol"].cast(polars.String).unique(maintain_order=True).to_list()
    wide_frame = (
        frame.select(time_column, polars.col("symbol").cast(polars.String), "close")
        .pivot(on="symbol", index=time_column, values="close")
        .sort(time_column)
    )
    return PriceTable(
        tuple(symbols),
        wide_frame[time_column].to_numpy(),
        wide_frame.select(symbols).to_numpy().astype(np.float64),
    )


def _from_wide_format(polars: Any, frame: Any, time_column: str, path: Path) -> PriceTable:
    """Read a table with one row for each time. An empty cell is a missing price."""
    symbols = [name for name in frame.columns if name != time_column]
    frame = _with_float_columns(polars, frame, symbols, path)
    for symbol in symbols:
        _require_positive_prices(
            polars, frame.filter(polars.col(symbol).is_not_null()), symbol, path
        )
    closes = frame.select(polars.col(symbols).fill_null(float("nan"))).to_numpy().astype(np.float64)
    return PriceTable(
        tuple(symbols), frame[time_column].to_numpy(), closes.reshape(frame.height, len(symbols))
    )


def _with_float_columns(polars: Any, frame: Any, columns: list[str], path: Path) -> Any:
    for column in columns:
        if not frame[column].dtype.is_numeric() and frame[column].dtype != polars.Null:
            raise ConfigError(
                f"{path.name}: column {column[:16]!r} holds no numbers",
                "write plain decimals such as 1850.25",
            )
    return frame.with_columns([polars.col(column).cast(polars.Float64) for column in columns])


def _require_positive_prices(polars: Any, frame: Any, price_column: str, path: Path) -> None:
    close_column = polars.col(price_column)
    invalid_rows = frame.with_row_index("row").filter(
        close_column.is_nan() | close_column.is_infinite() | (close_column <= 0)
    )
    if invalid_rows.height:
        symbol = invalid_rows["symbol"][0] if "symbol" in invalid_rows.columns else price_column
        raise ConfigError(
            f"{path.name}, row {invalid_rows['row'][0] + 1}: {str(symbol)[:16]!r} has a close of"
            f" {invalid_rows[price_column][0]}",
            "prices must be above zero; remove rows without a price",
        )


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
    column_by_token, ones = columns_by_token(spec, table), np.ones(len(closes))
    closes_by_token = {address: closes[:, column] for address, column in column_by_token.items()}
    prices: NDArray[np.float64] = np.column_stack(
        [closes_by_token.get(token.address, ones) for token in tokens]
    )
    return prices / closes_by_token.get(spec.portfolio.numeraire.address, ones)[:, None]


def has_gas_price(spec: BacktestSpec, table: PriceTable) -> bool:
    """Return True if the native coin was named and is an asset or hub with prices."""
    return spec.has_gas_price and spec.portfolio.wrapped_native in columns_by_token(spec, table)
