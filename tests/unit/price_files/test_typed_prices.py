"""Frames whose columns are times and numbers: read as arrays, with the same prices as cell by cell."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from agent.backtest.data import price_table, read_table, table_of_frame
from agent.errors import ConfigError
from agent.price_files.read import closes_of_frame, typed_prices

START = datetime(2021, 3, 1)
TIMES = [START + timedelta(minutes=minute) for minute in range(12)]
UNIX = [int(time.replace(tzinfo=UTC).timestamp()) for time in TIMES]
BTC = [48_000.1 + minute / 3 for minute in range(12)]
ETH = [None, None, *range(1_500, 1_509), None]
WIDE = pl.DataFrame({"time": TIMES, "BTC": BTC, "ETH": ETH})


def texts(form: str) -> list[str]:
    return [time.strftime(form) for time in TIMES]


FRAMES = {
    "times": WIDE,
    "times of UTC": WIDE.with_columns(pl.col("time").dt.replace_time_zone("UTC")),
    "times of a zone": WIDE.with_columns(pl.col("time").dt.replace_time_zone("Asia/Tokyo")),
    "nanoseconds": WIDE.with_columns(pl.col("time").dt.cast_time_unit("ns")),
    "days": pl.DataFrame({"Date": [date(2021, 3, 1) + timedelta(day) for day in range(12)], "BTC": BTC}),
    "texts of seconds": WIDE.with_columns(pl.Series("time", texts("%Y-%m-%d %H:%M:%S"))),
    "texts of minutes": WIDE.with_columns(pl.Series("time", texts("%Y-%m-%d %H:%M"))),
    "texts of UTC": WIDE.with_columns(pl.Series("time", texts("%Y-%m-%dT%H:%M:%SZ"))),
    "Unix seconds": WIDE.with_columns(pl.Series("time", UNIX)),
    "Unix nanoseconds": WIDE.with_columns(pl.Series("time", [seconds * 10**9 + 7 for seconds in UNIX])),
    "columns that are not used": pl.DataFrame({"Unnamed: 0": range(12), "opentime": UNIX, "closetime": UNIX, "BTC": BTC}),
    "a pair": pl.DataFrame({"time": TIMES, "BTC/EUR": BTC}),
    "a symbol without prices": WIDE.with_columns(pl.lit(None, pl.Float64).alias("ETH")),
    "floats of 32 bits": WIDE.cast({"BTC": pl.Float32, "ETH": pl.UInt16}),
    "closes alone": pl.DataFrame({"time": TIMES, "close": BTC}),
    "closes in dollars": pl.DataFrame({"time": TIMES, "close (usd)": BTC}),
    "rows": WIDE.unpivot(index="time", variable_name="symbol", value_name="close").sort("time"),
    "rows of a symbol after another": WIDE.unpivot(index="time", variable_name="symbol", value_name="close"),
    "rows of categories": WIDE.unpivot(index="time", variable_name="symbol", value_name="close").cast({"symbol": pl.Categorical}),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_prices_are_those_of_the_cells(frame: pl.DataFrame) -> None:
    typed = typed_prices(frame, "prices")
    assert typed is not None
    table = price_table(typed)
    by_cells = price_table(closes_of_frame(frame, "prices"))
    assert table.digest == by_cells.digest
    assert (table.symbols, table.notes, table.currency) == (by_cells.symbols, by_cells.notes, by_cells.currency)


def changed(column: str, row: int, cell: Any) -> pl.DataFrame:
    cells = [*WIDE[column].to_list()]
    cells[row] = cell
    return WIDE.with_columns(pl.Series(column, cells, strict=False))


LONG = FRAMES["rows"]
BY_CELLS = {
    "newest first": WIDE.reverse(),
    "a repeated time": changed("time", 9, TIMES[8]),
    "an unordered time": changed("time", 9, TIMES[3]),
    "no time": changed("time", 9, None),
    "a time before all": changed("time", 0, datetime(1969, 12, 31)),
    "a text that is no time": WIDE.with_columns(pl.Series("time", [*texts("%Y-%m-%d %H:%M")[:11], "2021-03-01 0:11 "])),
    "texts of two forms": WIDE.with_columns(pl.Series("time", [*texts("%Y-%m-%d %H:%M:%S")[:11], "2021-03-01 00:11"])),
    "Unix times of two units": WIDE.with_columns(pl.Series("time", [*UNIX[:11], UNIX[11] * 1_000])),
    "a price of zero": changed("BTC", 9, 0.0),
    "a price below zero": changed("BTC", 9, -1.0),
    "an infinite price": changed("BTC", 9, float("inf")),
    "a price that is no number": changed("BTC", 9, float("nan")),
    "a price too large": changed("BTC", 9, 1e31),
    "prices in texts": WIDE.cast({"BTC": pl.String}),
    "decimals": WIDE.cast({"BTC": pl.Decimal(20, 4)}),
    "truths": WIDE.with_columns(pl.Series("ETH", [True] * 12)),
    "no price of a single symbol": pl.DataFrame({"time": TIMES, "close": ETH}),
    "candles": pl.DataFrame({"time": TIMES, "open": BTC, "high": BTC, "low": BTC, "close": BTC}),
    "a volume below zero": pl.DataFrame({"time": TIMES, "close": BTC, "volume": [-1.0, *BTC[1:]]}),
    "a row without a symbol": LONG.with_columns(pl.Series("symbol", [None, *LONG["symbol"][1:]])),
    "a symbol that is no name": LONG.with_columns(pl.Series("symbol", ["a symbol of many words", *LONG["symbol"][1:]])),
    "symbols of one name": pl.DataFrame({"time": TIMES, "BTC/USD": BTC, "BTC-USD": BTC}),
    "two currencies": pl.DataFrame({"time": TIMES, "BTC-EUR": BTC, "ETH-USD": BTC}),
    "no rows": WIDE.head(0),
    "no times": WIDE.drop("time"),
}


def answer(read: Any) -> Any:
    try:
        table = read()
    except ConfigError as error:
        return str(error)
    return table.digest, table.symbols, table.notes, table.currency


@pytest.mark.parametrize("frame", BY_CELLS.values(), ids=BY_CELLS)
def test_other_frame_is_answered_as_cell_by_cell(frame: pl.DataFrame) -> None:
    by_cells = answer(lambda: price_table(closes_of_frame(frame, "prices")))
    assert answer(lambda: table_of_frame(frame, "prices")) == by_cells


def test_frame_of_a_file_is_read_as_one_from_python(tmp_path: Path) -> None:
    for suffix, write in (("parquet", WIDE.write_parquet), ("feather", WIDE.write_ipc)):
        path = tmp_path / f"prices.{suffix}"
        write(path)
        assert read_table(path).digest == table_of_frame(WIDE, "prices").digest
