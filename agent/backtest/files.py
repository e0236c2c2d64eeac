"""Reads CSV and Parquet: prices as time, symbol, close or one column of closes for each symbol; gas prices, flows, funding rates."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.backtest.flows import OwnerFlow
from agent.backtest.funding import FundingSeries
from agent.backtest.table import PriceTable, checked
from agent.backtest.unreadable import why_unreadable
from agent.errors import ConfigError
from agent.units import safe_label

TIMES = ("time", "date", "timestamp")
BARS = {"open", "high", "low", "close", "volume"}
READABLE = "give a header with the names of the columns, and a row for each time"
_ZONE = r"(Z|[+-]\d{2}:?\d{2})$"
_EPOCH_S = 1_230_768_000
"""2009-01-01: no price of any coin is older, so that times in milliseconds, or of spreadsheets, are noticed."""
_LATEST_S = 4_102_444_800


def read_table(path: Path) -> PriceTable:
    """The file's prices. Times without a zone are taken for UTC.

    Raises ConfigError for a missing package or column, mixed time zones, times that go back or come twice, closes that are zero,
    negative or no number, and a negative volume.
    """
    polars = _polars()
    frame = _frame(polars, path)
    column = next((name for name in TIMES if name in frame.columns), None)
    if column is None:
        raise ConfigError(f"{path.name}: no column {' or '.join(TIMES)}; it has {', '.join(frame.columns)[:200]}", READABLE)
    frame = frame.with_columns(_seconds(polars, frame[column], path).alias(column))
    _require_unix(frame[column], path)
    long = "symbol" in frame.columns
    if long and "close" not in frame.columns:
        raise ConfigError(f"{path.name}: has symbol and no close", "name the column of prices close")
    if not long and (found := BARS & set(frame.columns)):
        raise ConfigError(f"{path.name}: has {sorted(found)[0]} and no symbol", "add a column symbol")
    return checked(_of_rows(polars, frame, column, path) if long else _of_columns(polars, frame, column, path))


def read_gas(path: Path, times_s: NDArray[np.int64]) -> tuple[int, ...]:
    """What a unit of gas costs at each of these times, wei: the newest row of the file's `time` and `gas_price_wei` until then.

    Raises ConfigError as read_table does, and where the first row comes after the first time.
    """
    polars, option = _polars(), "--gas-prices"
    frame = _frame(polars, path, option)
    if not {"time", "gas_price_wei"} <= set(frame.columns):
        raise ConfigError(f"{option}: {path.name} needs columns time and gas_price_wei; it has {', '.join(frame.columns)[:200]}", READABLE)
    kind = frame["gas_price_wei"].dtype
    if not kind.is_integer() or frame["gas_price_wei"].null_count() or frame["gas_price_wei"].min() < 0:
        raise ConfigError(f"{option}: a gas price of {path.name} is no whole number of wei, 0 or more", "write for example 20000000000")
    rows, prices = _seconds(polars, frame["time"], path).to_numpy(), frame["gas_price_wei"].to_list()
    if (np.diff(rows) <= 0).any():
        row = int(np.argmax(np.diff(rows) <= 0)) + 2
        raise ConfigError(f"{option}: {path.name}, row {row}: its time is not later than that before", "sort the file, each time once")
    newest = np.searchsorted(rows, times_s, side="right") - 1
    if newest[0] < 0:
        raise ConfigError(f"{option}: {path.name} begins at {int(rows[0])}, after the prices do", "leave out earlier prices")
    return tuple(int(prices[row]) for row in newest)


def read_flows(path: Path) -> tuple[OwnerFlow, ...]:
    """Deposits and withdrawals of a file: columns time and amount, in whole coins of the numeraire. Raises ConfigError."""
    polars, option = _polars(), "--flows"
    frame = _frame(polars, path, option)
    if not {"time", "amount"} <= set(frame.columns):
        raise ConfigError(f"{option}: {path.name} needs columns time and amount; it has {', '.join(frame.columns)[:200]}", READABLE)
    amounts = frame["amount"]
    if not amounts.dtype.is_numeric() or amounts.null_count() or not np.isfinite(amounts.to_numpy()).all() or (amounts == 0).any():
        raise ConfigError(f"{option}: an amount of {path.name} is no number, or zero", "write plain decimals such as -250.5")
    times = _seconds(polars, frame["time"], path).to_list()
    return tuple(OwnerFlow(int(at_s), Fraction(str(amount))) for at_s, amount in zip(times, amounts.to_list(), strict=True))


def read_funding(path: Path) -> tuple[FundingSeries, ...]:
    """Funding rates of a file, by symbol in its order: columns time, symbol, rate, a share of notional per interval, above zero where
    longs pay shorts. Raises ConfigError as read_table does, and for rates that are no number or beyond the whole notional.
    """
    polars, option = _polars(), "--funding"
    frame = _frame(polars, path, option)
    column = next((name for name in TIMES if name in frame.columns), None)
    if column is None or not {"symbol", "rate"} <= set(frame.columns):
        raise ConfigError(
            f"{option}: {path.name} needs columns time, symbol and rate; it has {', '.join(frame.columns)[:200]}",
            "rate is the share of notional that longs pay shorts in an interval, such as 0.0001",
        )
    frame = frame.with_columns(_seconds(polars, frame[column], path).alias(column), polars.col("symbol").cast(polars.String))
    _require_unix(frame[column], path)
    for name in ("symbol", "rate"):
        if frame[name].null_count():
            row = int(frame[name].is_null().arg_true()[0])
            raise ConfigError(f"{option}: {path.name}, row {row + 1}: it has no {name}", "remove rows that say nothing")
    if not frame["rate"].dtype.is_numeric():
        raise ConfigError(f"{option}: {path.name}: column 'rate' holds no numbers", "write plain decimals such as 0.0001")
    frame = frame.with_columns(polars.col("rate").cast(polars.Float64)).with_row_index("row")
    _require_rates(polars, frame, f"{option}: {path.name}")
    later = frame.with_columns(polars.col(column).diff().over("symbol").alias("step")).filter(polars.col("step") <= 0)
    if later.height:
        word = "twice" if later["step"][0] == 0 else "after a later one"
        raise ConfigError(
            f"{option}: {path.name}, row {later['row'][0] + 1}: {later['symbol'][0]!r} has that time {word}",
            "sort the file by time, each time once",
        )
    symbols = frame["symbol"].unique(maintain_order=True).to_list()
    parts = [frame.filter(polars.col("symbol") == symbol) for symbol in symbols]
    return tuple(FundingSeries(str(name), one[column].to_numpy(), one["rate"].to_numpy()) for name, one in zip(symbols, parts, strict=True))


def _require_rates(polars: Any, frame: Any, where: str) -> None:
    if any(safe_label(symbol, "") != symbol for symbol in frame["symbol"].unique().to_list()):
        raise ConfigError(f"{where}: a symbol is no plain name", "use letters, digits and ._- alone, at most 16")
    bad = frame.filter(~(polars.col("rate").abs() <= 1))  # NaN is neither
    if bad.height:
        found = bad["rate"][0]
        said = f"{where}, row {bad['row'][0] + 1}: {bad['symbol'][0]!r} has a rate of {found}"
        if np.isfinite(found):
            raise ConfigError(f"{said}, more than the whole notional: it looks like percent", "write a share: 0.0001 for 0.01%")
        raise ConfigError(said, "write a share of notional such as 0.0001; leave the row out if there was none")


def _require_unix(times: Any, path: Path) -> None:
    low, high = times.min(), times.max()
    if low is not None and not _EPOCH_S <= int(low) <= int(high) <= _LATEST_S:
        raise ConfigError(f"{path.name}: times from {low} to {high} are no Unix seconds", "write times such as 2021-04-04T21:00:00Z")


def _polars() -> Any:
    try:
        return import_module("polars")
    except ImportError:
        raise ConfigError("price files need the package polars", "pip install 'trimtab[analysis]'") from None


def _frame(polars: Any, path: Path, option: str = "--prices") -> Any:
    if not path.is_file():
        raise ConfigError(f"{option}: {str(path)!r} is no file", "name a .csv or .parquet file that is there")
    reader = {".csv": polars.read_csv, ".parquet": polars.read_parquet}.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{option}: {path.name} is neither .csv nor .parquet", "write it as one of them, and name it so")
    try:
        # all rows say what a column holds: whole numbers in the first hundred do not make it one of whole numbers
        frame = polars.read_csv(path, infer_schema_length=None) if reader is polars.read_csv else reader(path)
    except (Exception, polars.exceptions.PanicException):  # whatever a broken file makes the library say
        raise ConfigError(f"{option}: {path.name} {why_unreadable(path)}", READABLE) from None
    if frame.height == 0:
        raise ConfigError(f"{option}: {path.name} is empty", READABLE)
    return frame


def _seconds(polars: Any, times: Any, path: Path) -> Any:
    """Unix seconds of a column of times."""
    if times.null_count():
        raise ConfigError(f"{path.name}: {times.null_count()} rows have no time", "remove rows that say nothing")
    kind = times.dtype
    if kind.is_integer():
        return times.cast(polars.Int64)
    if kind == polars.String:
        times = _parsed(times, path)
    elif kind == polars.Date:
        times = times.cast(polars.Datetime("us"))
    elif not isinstance(kind, polars.Datetime):
        raise ConfigError(f"{path.name}: its times are neither text nor whole seconds", "write times such as 2021-04-04T21:00:00Z")
    return times.dt.epoch("s")


def _parsed(times: Any, path: Path) -> Any:
    zones = times.str.extract(_ZONE).fill_null("").unique().to_list()
    if len(zones) > 1:
        raise ConfigError(
            f"{path.name}: times of several zones: {', '.join(sorted(z or 'none' for z in zones))}", "write all of them in UTC"
        )
    plain = times.str.replace(_ZONE, "").str.replace("T", " ", literal=True).str.strip_chars()
    letters = plain.str.len_chars()
    whole = plain.zip_with(letters != len("2021-04-04"), plain + " 00:00:00")
    whole = whole.zip_with(letters != len("2021-04-04 21:00"), whole + ":00")
    found = whole.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False)
    if found.null_count():
        row = int(found.is_null().arg_true()[0])
        raise ConfigError(f"{path.name}, row {row + 1}: its time is none", "write times such as 2021-04-04T21:00:00Z")
    return found - _offset(zones[0])


def _offset(zone: str) -> timedelta:
    """How far clocks of that zone are ahead of UTC."""
    if zone in ("", "Z"):
        return timedelta(0)
    digits = zone[1:].replace(":", "")
    ahead = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -ahead if zone[0] == "-" else ahead


def _of_rows(polars: Any, frame: Any, time: str, path: Path) -> PriceTable:
    """One row for each time and symbol; the rows of each symbol go forward in time."""
    for name in ("symbol", "close"):
        if frame[name].null_count():
            raise ConfigError(f"{path.name}: {frame[name].null_count()} rows have no {name}", "remove rows that say nothing")
    frame = _numbers(polars, frame, ["close", *({"volume"} & set(frame.columns))], path)
    _require_prices(polars, frame, "close", path)
    if "volume" in frame.columns and (bad := frame.with_row_index("row").filter(polars.col("volume") < 0)).height:
        raise ConfigError(f"{path.name}, row {bad['row'][0] + 1}: a volume below zero", "the rows of this file cannot be believed")
    later = polars.col(time).diff().over("symbol")
    wrong = frame.with_row_index("row").with_columns(later.alias("step")).filter(polars.col("step") <= 0)
    if wrong.height:
        word = "twice" if wrong["step"][0] == 0 else "after a later one"
        raise ConfigError(
            f"{path.name}, row {wrong['row'][0] + 1}: {str(wrong['symbol'][0])[:16]!r} has that time {word}",
            "sort the file by time, each time once",
        )
    symbols = frame["symbol"].cast(polars.String).unique(maintain_order=True).to_list()
    wide = frame.select(time, polars.col("symbol").cast(polars.String), "close").pivot(on="symbol", index=time, values="close").sort(time)
    return PriceTable(tuple(symbols), wide[time].to_numpy(), wide.select(symbols).to_numpy().astype(np.float64))


def _of_columns(polars: Any, frame: Any, time: str, path: Path) -> PriceTable:
    """One row for each time; an empty cell is a price that is missing."""
    symbols = [name for name in frame.columns if name != time]
    frame = _numbers(polars, frame, symbols, path)
    for symbol in symbols:
        _require_prices(polars, frame.filter(polars.col(symbol).is_not_null()), symbol, path)
    closes = frame.select(polars.col(symbols).fill_null(float("nan"))).to_numpy().astype(np.float64)
    return PriceTable(tuple(symbols), frame[time].to_numpy(), closes.reshape(frame.height, len(symbols)))


def _numbers(polars: Any, frame: Any, names: list[str], path: Path) -> Any:
    for name in names:
        if not frame[name].dtype.is_numeric() and frame[name].dtype != polars.Null:
            raise ConfigError(f"{path.name}: column {name[:16]!r} holds no numbers", "write plain decimals such as 1850.25")
    return frame.with_columns([polars.col(name).cast(polars.Float64) for name in names])


def _require_prices(polars: Any, frame: Any, name: str, path: Path) -> None:
    close = polars.col(name)
    bad = frame.with_row_index("row").filter(close.is_nan() | close.is_infinite() | (close <= 0))
    if bad.height:
        what = bad["symbol"][0] if "symbol" in bad.columns else name
        raise ConfigError(
            f"{path.name}, row {bad['row'][0] + 1}: {str(what)[:16]!r} has a close of {bad[name][0]}",
            "a price is above zero; leave the row out if there was none",
        )
