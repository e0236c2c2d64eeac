"""Prices of a backtest: frames of polars and pandas, files and addresses of files."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

import numpy as np

from agent.app.records.published import MAX_BYTES, download
from agent.backtest.data import MIN_BARS, PriceTable, read_table, table_of_frame
from agent.calls import described
from agent.errors import ConfigError
from agent.hosts import LOOPBACK_HOSTS
from agent.price_files.frames import load_polars
from agent.price_files.layout import TIME_NAMES, normalized_name
from agent.units import pluralize

Moment = str | date | datetime
"""A time; UTC without a zone."""
FRAME_NAME = "prices"
MIDNIGHT = time(0)


def read_prices(prices: object) -> PriceTable:
    """Return the closes of a frame of polars or pandas, of a file, or of one at an https address, as
    a table.

    A frame has a column of times, or an index of them, and either one column for each symbol or the
    columns symbol and close; NaN is no price. A Series of pandas is a column. Times in a zone become
    UTC, but closes at its midnight, and daily closes of a zone with daylight saving, keep its clock;
    a note says which. Raises ConfigError as for price files, with the change to make, and Retryable
    if a server does not answer.
    """
    if isinstance(prices, PriceTable):
        return prices
    if isinstance(prices, str) and "://" in prices:
        return _read_address(prices)
    if isinstance(prices, str | Path):
        return read_table(Path(prices))
    frame, zone = _calendar_days(_polars_frame(prices))
    table = table_of_frame(frame, FRAME_NAME)
    if not zone:
        return table
    note = f"times are the clock of {zone}, shown as UTC, so that each close keeps its day, of 24 hours"
    return replace(table, zone=zone, notes=(*table.notes, note))


def _read_address(url: str) -> PriceTable:
    url_parts = urlsplit(url)
    is_local = url_parts.scheme == "http" and url_parts.hostname in LOOPBACK_HOSTS
    if not (url_parts.scheme == "https" or is_local):
        raise ConfigError(
            f"prices: {url_parts.scheme}:// is not https", "give an https address, or a file"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (Path(url_parts.path).name or "prices")
        path.write_bytes(download(url, "prices", MAX_BYTES, "name a CSV or Parquet file"))
        return read_table(path)


def _polars_frame(prices: Any) -> Any:
    polars = load_polars()
    module_name = type(prices).__module__.partition(".")[0]
    if isinstance(prices, polars.LazyFrame):
        prices = prices.collect()
    if module_name == "pandas" and hasattr(prices, "to_frame"):
        prices = prices.to_frame("close" if prices.name is None else prices.name)
    if module_name == "pandas" and hasattr(prices, "columns"):
        prices = _from_pandas(polars, prices)
    if isinstance(prices, polars.DataFrame):
        return prices.fill_nan(None)
    raise ConfigError(
        f"prices: {type(prices).__name__} is no frame",
        "give a polars or pandas DataFrame, the path of a file, or its https address",
    )


def _calendar_days(frame: Any) -> tuple[Any, str]:
    """Return the frame, and the zone whose clock its times show as if it were UTC: that of a column
    with one time of day, which is midnight or whose offset from UTC varies; empty for any other
    frame.
    """
    for name in frame.columns:
        zone = getattr(frame[name].dtype, "time_zone", None)
        if zone is None:
            continue
        clocks = frame[name].dt.replace_time_zone(None)
        instants = frame[name].dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        offsets = (clocks - instants).drop_nulls().unique()
        times_of_day = clocks.drop_nulls().dt.time().unique().to_list()
        is_shifted_midnight = times_of_day == [MIDNIGHT] and offsets.to_list() != [timedelta(0)]
        if is_shifted_midnight or (len(times_of_day) == 1 and len(offsets) > 1):
            return frame.with_columns(clocks), zone
    return frame, ""


def _from_pandas(polars: Any, frame: Any) -> Any:
    """Return a frame of pandas, with an index of times, or of times and symbols, as columns."""
    if frame.columns.nlevels > 1:
        frame = _closes_of_levels(frame)
    if hasattr(frame.index, "to_timestamp"):
        frame = frame.to_timestamp()
    if _has_times_as_index(frame):
        if frame.index.nlevels == 1:
            frame = frame.rename_axis(index="time")
        frame = frame.reset_index()
    names = [str(name) for name in frame.columns]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ConfigError(
            f"prices: two columns are {repeated[0]!r}", "drop one of them, or rename it"
        )
    return polars.DataFrame(
        {str(name): _column(polars, frame[name]) for name in frame.columns}, strict=False
    )


def _closes_of_levels(frame: Any) -> Any:
    """Return the closes of columns in levels, fields and symbols in either order (yfinance). Raises
    ConfigError without closes.
    """
    for level in range(frame.columns.nlevels):
        for name in frame.columns.unique(level):
            if normalized_name(str(name)) == "close":
                return frame.xs(name, axis="columns", level=level)
    raise ConfigError(
        f"prices: its columns have {frame.columns.nlevels} levels, none of them with Close",
        "give a frame with one column for each symbol",
    )


def _has_times_as_index(frame: Any) -> bool:
    """Return whether the index is more than row numbers, and no column is of times."""
    names = {normalized_name(str(name)) for name in frame.columns}
    counts_rows = type(frame.index).__name__ == "RangeIndex"
    return frame.index.dtype.kind == "M" or not (counts_rows or names & {*TIME_NAMES})


def _column(polars: Any, column: Any) -> Any:
    zone = getattr(column.dtype, "tz", None)
    if zone is not None:
        clocks = column
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        is_named = str(zone) in available_timezones()
        if not is_named and (clocks.dt.tz_localize(None) - column).nunique() == 1:
            return polars.Series([str(cell) for cell in clocks])  # a constant offset
    if column.dtype.kind == "M":
        instants = polars.Series(column.to_numpy().astype("datetime64[us]"))
        if zone is None or not is_named:
            return instants
        return instants.dt.replace_time_zone("UTC").dt.convert_time_zone(str(zone))
    try:
        cells = column.astype(object).where(column.notna(), None).tolist()
        return polars.Series(cells, strict=False)
    except polars.exceptions.PolarsError:  # times in several zones
        return polars.Series([str(cell) for cell in column])


def between(table: PriceTable, start: Moment | None, end: Moment | None) -> PriceTable:
    """Return the bars from `start` to `end`, both included, with a note if the prices begin after
    `start`. Raises ConfigError for fewer than two.
    """
    start_s = None if start is None else time_s(start, "start", table.zone)
    end_s = None if end is None else time_s(end, "end", table.zone)
    if start_s is not None and end_s is not None and end_s < start_s:
        raise ConfigError(
            f"start, end: {_day(end_s)} is before {_day(start_s)}", "write the earlier one as start"
        )
    is_kept = np.full(table.bar_count, True)
    if start_s is not None:
        is_kept &= table.times_s >= start_s
    if end_s is not None:
        is_kept &= table.times_s <= end_s
    first, last = (_day(table.times_s[index]) for index in (0, -1))
    if is_kept.sum() < MIN_BARS:
        limits = {"from": start_s, "to": end_s}
        chosen = " ".join(
            f"{word} {_day(at_s)}" for word, at_s in limits.items() if at_s is not None
        )
        raise ConfigError(
            f"start, end: {chosen} the prices, of {first} to {last}, have"
            f" {pluralize(int(is_kept.sum()), 'bar')}",
            "choose times within the prices",
        )
    notes = table.notes
    if start_s is not None and start_s + table.interval_s <= table.times_s[0]:
        notes += (f"start: prices begin on {first}, after {_day(start_s)}",)
    return replace(table, times_s=table.times_s[is_kept], closes=table.closes[is_kept], notes=notes)


def time_s(moment: Moment, name: str, zone: str) -> int:
    """Return a time in Unix seconds, by the clock of `zone` if prices show it (`PriceTable.zone`).
    Raises ConfigError naming the argument.
    """
    try:
        parsed = datetime.fromisoformat(moment if isinstance(moment, str) else moment.isoformat())
    except (AttributeError, TypeError, ValueError):
        raise ConfigError(
            f"{name}: {described(moment)} is no time", 'write for example "2021-03-01"'
        ) from None
    if parsed.tzinfo is not None:
        parsed = parsed.astimezone(ZoneInfo(zone or "UTC"))
    return int(parsed.replace(tzinfo=UTC).timestamp())


def _day(moment_s: int) -> str:
    return f"{datetime.fromtimestamp(int(moment_s), UTC):%Y-%m-%d}"


def times(times_s: Any) -> Any:
    """Return Unix seconds as a column of polars with UTC times."""
    polars = load_polars()
    column = polars.Series("time", times_s, dtype=polars.Int64)
    return polars.from_epoch(column, time_unit="s").dt.replace_time_zone("UTC")
