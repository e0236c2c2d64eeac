"""Frames whose columns are times and numbers: read as arrays, with the same prices as cell by cell."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from agent.backtest import data
from agent.backtest.data import price_table, read_table, table_of_frame, validate_prices
from agent.errors import ConfigError
from agent.price_files.read import closes_of_frame, read_closes, typed_prices

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
    "a symbol without a name": WIDE.rename({"ETH": ""}),
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


def csv_of(frame: pl.DataFrame) -> str:
    return frame.write_csv(datetime_format="%Y-%m-%d %H:%M:%S")


CSV = csv_of(WIDE)
LINES = CSV.splitlines()
FILES = {name: csv_of(frame) for name, frame in (FRAMES | BY_CELLS).items()} | {
    "line ends of Windows": CSV.replace("\n", "\r\n"),
    "line ends of old Macs": CSV.replace("\n", "\r"),
    "a byte order mark": f"\ufeff{CSV}",
    "semicolons": CSV.replace(",", ";"),
    "semicolons and points before three digits": "time;BTC\n2021-03-01;1.234\n2021-03-02;1.235\n",
    "blank lines": CSV.replace("\n", "\n\n"),
    "a line of commas": f"{CSV},,\n",
    "spaces beside commas": CSV.replace(",", ", "),
    "spaces in the header": CSV.replace("BTC", " BTC "),
    "quotes": "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in LINES),
    "an open quote": CSV.replace("2021-03-01 00:05:00", '"2021-03-01 00:05:00'),
    "thousands in quotes": CSV.replace("48000.1", '"48,000.1"'),
    "a short row": CSV.replace(",1500\n", "\n"),
    "a long row": CSV.replace(",1500\n", ",1500,1\n"),
    "a short and a long row": CSV.replace(",1500\n", "\n").replace(",1501\n", ",1501,1\n"),
    "a row that ends early": CSV[: CSV.rindex(",")],
    "no newline at the end": CSV.rstrip("\n"),
    "a banner": f"https://www.example.com\n{CSV}",
    "a remark above": f"# closes\n{CSV}",
    "a remark as the header": f"#{CSV}",
    "a separator above": f"sep=,\n{CSV}",
    "no header": "\n".join(LINES[1:]),
    "Unix times without a header": "\n".join(f"{second},{close}" for second, close in zip(UNIX, BTC, strict=True)),
    "two columns of a name": CSV.replace("ETH", "BTC"),
    "a column without a name": CSV.replace("ETH", ""),
    "rounded numbers": "time,BTC\n2021-03-01,5.\n2021-03-02,.5\n2021-03-03,+5\n2021-03-04,5e-1\n2021-03-05,05\n",
    "many digits": "time,BTC\n2021-03-01,0.1000000000000000055511151231257827\n2021-03-02,123456789012345678901234567890\n",
    "words for no price": CSV.replace(",,", ",nan,").replace(",\n", ",null\n"),
    "days and months": "time,BTC\n01/03/2021,5\n13/03/2021,6\n",
    "days or months": "time,BTC\n01/03/2021,5\n02/03/2021,6\n",
    "a header alone": LINES[0],
    "nothing": "",
    "letters of another language": CSV.replace("BTC", "BÄC"),
}


@pytest.mark.parametrize(
    "file", [*FILES.values(), CSV.replace("BTC", "BÄC").encode("latin-1")], ids=[*FILES, "letters of another encoding"]
)
def test_text_file_is_answered_as_cell_by_cell(tmp_path: Path, file: str | bytes) -> None:
    path = tmp_path / "prices.csv"
    path.write_bytes(file.encode() if isinstance(file, str) else file)
    assert answer(lambda: read_table(path)) == answer(lambda: validate_prices(price_table(read_closes(path))))


def test_text_file_of_times_and_closes_is_read_as_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(CSV)
    monkeypatch.setattr(data, "read_closes", None)
    assert read_table(path).digest == table_of_frame(WIDE, "prices").digest
