"""Price tables: what is read from files, and every mistake in one is named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("polars")

from agent.app.research.backtests import numeraire_of
from agent.backtest.data import read_table
from agent.errors import ConfigError
from tests.support.backtests import make_price_table
from tests.support.constants import DAY_S
from tests.support.studies.price_files import lines, price_file, save
from tests.support.text import raises_field

FIRST_S = 1_609_459_200
ROWS = "time,symbol,close"


@pytest.mark.parametrize("name", ["[a]*.csv", "[a]*.parquet"])
def test_a_file_is_read_by_its_name_whatever_signs_are_in_it(tmp_path: Path, name: str) -> None:
    import polars

    save(tmp_path, "ab.csv", "no table")
    frame = polars.DataFrame({"time": ["2021-01-01", "2021-01-02"], "A": [10.0, 11.0]})
    (frame.write_csv if name.endswith("csv") else frame.write_parquet)(tmp_path / name)
    assert read_table(tmp_path / name).closes.tolist() == [[10], [11]]


def test_rows_and_columns_say_the_same(tmp_path: Path) -> None:
    first = read_table(price_file(tmp_path, "2021-01-01,A,10", "2021-01-01,B,1", "2021-01-02,A,11", "2021-01-02,B,2"))
    second = read_table(price_file(tmp_path, "2021-01-01,10,1", "2021-01-02,11,2", header="time,A,B", name="wide.csv"))
    assert first.symbols == second.symbols == ("A", "B")
    assert first.times_s.tolist() == [FIRST_S, FIRST_S + DAY_S]
    assert first.closes.tolist() == [[10, 1], [11, 2]]
    assert first.digest == second.digest


def test_a_parquet_file_says_the_same_as_its_csv(tmp_path: Path) -> None:
    import polars

    path = price_file(tmp_path, "2021-01-01T05:00:00Z,A,10", "2021-01-01T06:00:00Z,A,11")
    polars.read_csv(path, try_parse_dates=True).write_parquet(tmp_path / "prices.parquet")
    assert read_table(tmp_path / "prices.parquet").digest == read_table(path).digest


@pytest.mark.parametrize(
    ("first", "seconds"),
    [
        ("2021-01-01", 0),
        ("2021-01-01 00:00", 0),
        ("2021-01-01T00:00:30", 30),
        ("2021-01-01T02:00:00+02:00", 0),
        ("2020-12-31T19:00:00-0500", 0),
        (str(FIRST_S), 0),
    ],
)
def test_times_are_utc_whatever_their_form(tmp_path: Path, first: str, seconds: int) -> None:
    later = first.replace("2021-01-01", "2021-01-03").replace("2020-12-31", "2021-01-03").replace(str(FIRST_S), str(FIRST_S + 1))
    table = read_table(price_file(tmp_path, f"{first},A,10", f"{later},A,11"))
    assert table.times_s[0] == FIRST_S + seconds


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (lines(ROWS, ["2021-01-01,A,10", "2021-01-01,A,11"]), "row 2: A has a repeated time"),
        (lines(ROWS, ["2021-01-01,A,10", "2021-01-03,A,11", "2021-01-02,A,11"]), "row 3: A has an unordered time"),
        (lines(ROWS, ["2021-01-01,A,10", "2021-01-02,A,0"]), "row 2, 2021-01-02 00:00:00 UTC: '0' is not a price of A"),
        (lines(ROWS, ["2021-01-01,A,10", "2021-01-02,A,-1"]), "row 2, 2021-01-02 00:00:00 UTC: '-1' is not a price of A"),
        (lines(ROWS, ["2021-01-01,A,10", "2021-01-02,A,NaN"]), "row 2, 2021-01-02 00:00:00 UTC: 'NaN' is not a price of A"),
        (lines(ROWS, ["2021-01-01,A,10", "2021-01-02,A,-"]), "row 2, 2021-01-02 00:00:00 UTC: '-' is not a price of A"),
        (lines(ROWS, ["2021-01-01T00:00:00Z,A,10", "2021-01-02T00:00:00+02:00,A,11"]), "times in several time zones"),
        (lines(ROWS, ["2021-01-01T00:00:00Z,A,10", "2021-01-02T00:00:00,A,11"]), "times in several time zones: Z, none"),
        (lines(ROWS, ["2021-01-01,A,10", "yesterday,A,11"]), "row 2: 'yesterday' is not a time"),
        (lines(ROWS, ["2021-01-01,A,10", "2021-01-02,A,ten"]), "row 2, 2021-01-02 00:00:00 UTC: 'ten' is not a price of A"),
        (lines(ROWS, ["2021-01-01,A,10"]), "1 bar of 1 symbol"),
        (lines(ROWS, ["44197,A,10", "44198,A,11"]), "row 1: '44197' is not a time: it may be a spreadsheet's count of days"),
        ("time,symbol,close,volume\n2021-01-01,A,10,1\n2021-01-02,A,10,-1\n", "row 2: a negative volume"),
        ("when,symbol,close\n1,A,10\n", "no column time"),
        ("time,symbol,cost\n2021-01-01,A,10\n", "has a column of symbols but no column close; its header is: time, symbol, cost"),
        ("time,open\n2021-01-01,10\n", "has a column 'open' but neither close nor symbol"),
        ("time,A\n2021-01-01,10\n2021-01-01,11\n", "row 2: A has a repeated time"),
        ("time,A\n2021-01-01,9\n2021-01-03,10\n2021-01-02,11\n", "row 3: A has an unordered time"),
        ("time,A\n2021-01-01,10\n2021-01-02,0\n", "row 2, 2021-01-02 00:00:00 UTC: '0' is not a price of A"),
        ("time,A B\n2021-01-01,10\n2021-01-02,11\n", "not a plain name"),
        ("time,symbol,close\n", "is empty"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason.replace("(", r"\(")):
        read_table(save(tmp_path, "prices.csv", text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_table(tmp_path / "prices.csv")


@pytest.mark.parametrize(
    ("name", "reason"), [("prices.txt", "neither .csv nor .parquet"), ("bad.parquet", "is not a Parquet file")], ids=["text", "Parquet"]
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        read_table(save(tmp_path, name, "nothing"))


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        pytest.param("a.csv", b"time,A\n2021-01-01,1,2\n", "a.csv has 3 cells in row 1, but 2 columns", id="cells beyond columns"),
        pytest.param("b.csv", b"time,A\n2021-01-01,\xff\n", "b.csv is not UTF-8 text: byte 18 is 0xff", id="not UTF-8"),
        pytest.param("c.csv", b" \n", "c.csv is empty", id="empty"),
        pytest.param("d.parquet", b"PAR1....PAR1", "d.parquet is damaged", id="damaged parquet"),
        pytest.param("e.csv", b"time,A\n1.5,1\n", "e.csv, row 1: '1.5' is not a time", id="fraction as a time"),
    ],
)
def test_a_broken_file_is_told_in_our_words(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_table(tmp_path / name)
    assert reason in caught.value.message
    assert not re.search("Error|polars|dtype|Float|String", str(caught.value))


def test_missing_price__is_reported_and_the_one_before_stands_in() -> None:
    none = float("nan")
    times = [0, 10, 20, 30, 50, 60]
    table = make_price_table(times, {"A": [none, 1, none, 3, 4, 5], "B": [1, none, 2, 3, none, none]}).select(["A", "B"])
    assert table.times_s.tolist() == [10, 20, 30, 50, 60]
    assert table.closes[0].tolist() == [1, 1]
    assert np.isnan(table.closes[1, 0])
    assert table.notes == (
        "A starts 1 bar after the first, at 1970-01-01 00:00:10 UTC",
        "A has 1 missing price, at 1970-01-01 00:00 UTC",
        "B ends 2 bars before the data, at 1970-01-01 00:00:30 UTC",
        "B has 1 missing price, at 1970-01-01 00:00 UTC",
        "the simulation begins at bar 1, 1970-01-01 00:00:10 UTC, the first at which every asset has a price",
        "1 interval is longer than usual: 20 s from 1970-01-01 00:00 UTC",
    )


def test_symbols_without_a_common_time_are_refused() -> None:
    none = float("nan")
    for ended, later in (([1, 1, none], [none, none, 1]), ([1, 1, none, none], [none, none, 1, 1]), ([1, 1, none, none], [none, 1, 1, 1])):
        with raises_field("--prices", "same time"):
            make_price_table(range(0, 10 * len(ended), 10), {"A": ended, "B": later}).select(["A", "B"])
    with raises_field("--prices", "no symbol C"):
        make_price_table([0, 10], {"A": [1, 1]}).select(["C"])


@pytest.mark.parametrize(
    ("symbols", "remedy"),
    [
        (["WBTC", "wstETH", "USDC"], "its symbols are BTC, ETH, USD; add --as BTC=WBTC"),
        (["ETH", "wstETH"], "its symbols are BTC, ETH, USD"),
        (["DOGE"], "its symbols are BTC, ETH, USD"),
    ],
)
def test_missing_wrapped_asset__gets_the_fitting_symbol_of_the_file(symbols: list[str], remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_price_table([0, 10], {"BTC": [1, 1], "ETH": [1, 1], "USD": [1, 1]}).select(symbols)
    assert caught.value.remedy == remedy


def test_coin_under_another_name__is_no_numeraire_unless_given() -> None:
    table = make_price_table([0, 10], {"BTC": [1, 1], "USDC": [1, 1]})
    with pytest.raises(ConfigError) as caught:
        numeraire_of(table, {"WBTC": 5_000, "USDC": 5_000}, "")
    assert "--as BTC=WBTC" in caught.value.remedy
    assert numeraire_of(table, {"WBTC": 5_000, "USDC": 5_000}, "WBTC") == "WBTC"
    assert numeraire_of(table, {"USDC": 5_000, "EUR": 5_000}, "") == "EUR"
    assert numeraire_of(table, {"BTC": 5_000, "USDC": 5_000}, "") == "USD"
