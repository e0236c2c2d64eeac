"""Price files as sites hand them out: each is read exactly, or refused with the change to make, and none is read wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from agent.app.records.price_history import read_prices
from agent.app.research.backtests import PortfolioOptions
from agent.errors import ConfigError
from agent.price_files.read import ClosingPrices, asset_of_pair, is_unit_of, read_closes, symbol_pairs
from tests.support.builders import step_input, token, unit_price
from tests.support.studies.price_files import (
    DAY_S,
    FIRST_S,
    LAYOUTS,
    Bar,
    binance,
    candles,
    column_lists,
    letters_of,
    lines,
    ohlc,
    save,
    texts_of,
)

IDS = [site for site, *_ in LAYOUTS]


def expected_times(site: str, bars: list[Bar]) -> list[int]:
    later_s = DAY_S - 1 if site == "Kaggle, coins" else 0
    return [bar.start_s + later_s for bar in bars]


@pytest.mark.parametrize(("site", "name", "symbol", "write"), LAYOUTS, ids=IDS)
def test_ten_files_of_each_layout_are_read_exactly(
    site: str, name: str, symbol: str, write: Callable[[list[Bar]], str], tmp_path: Path
) -> None:
    for seed in range(10):
        bars = candles(seed, 30 + seed)
        (series,) = read_closes(save(tmp_path, name, write(bars))).series
        assert series.symbol == symbol
        assert list(series.times_s) == expected_times(site, bars)
        assert list(series.closes) == [bar.close for bar in bars]


def test_bars_are_told_from_moments(tmp_path: Path) -> None:
    has_starts = {site: read_closes(save(tmp_path, name, write(candles(1)))).has_bar_starts for site, name, _, write in LAYOUTS}
    moments = {site for site, is_start in has_starts.items() if not is_start}
    assert {"CoinGecko", "CoinGecko, service", "trimtab, a row each", "trimtab, a column each"} <= moments
    assert not moments & {"Kraken OHLCVT", "Yahoo", "Bitfinex candles", "CoinMarketCap", "KuCoin, service"}
    assert not moments & {"Alpha Vantage, dollars", "Bybit, header", "Hyperliquid, service", "Deribit, service", "Nasdaq", "Gate"}


def test_tickers_and_files_of_many_assets__keep_their_columns(tmp_path: Path) -> None:
    btc = candles(1, 20)
    eth = candles(2, 20, Decimal(700))
    rows = [f"{b.at()},{b.close},{e.close},{b.high},{e.high}" for b, e in zip(btc, eth, strict=True)]
    header = "Price,Close,Close,High,High\nTicker,BTC-USD,ETH-USD,BTC-USD,ETH-USD\nDate,,,,"
    prices = read_closes(save(tmp_path, "two.csv", lines(header, rows)))
    assert [(series.symbol, list(series.closes)) for series in prices.series] == [
        ("BTC-USD", [bar.close for bar in btc]),
        ("ETH-USD", [bar.close for bar in eth]),
    ]
    assert "columns not used: High of BTC-USD, High of ETH-USD" in texts(prices)


def texts(prices: ClosingPrices) -> list[str]:
    return [remark.text for remark in prices.remarks]


def test_what_was_left_out_is_said_with_its_count(tmp_path: Path) -> None:
    bars = candles(3, 6)
    rows = [f"{b.at()},{ohlc(b)},{b.close},{b.volume}" for b in bars]
    rows[2] = f"{bars[2].at()},null,null,null,null,null,null"
    rows[4] = f"{bars[4].at()},,,,,,"
    header = "https://example.org/prices\n\nDate,Open,High,Low,Close,Adj Close,Volume"
    prices = read_closes(save(tmp_path, "BTC-USD.csv", lines(header, rows[::-1])))
    assert [(remark.count, remark.text) for remark in prices.remarks] == [
        (1, "line 1 above the header is not data: 'https://example.org/prices'"),
        (1, "columns not used: Adj Close"),
        (2, "2 bars without prices left out"),
        (4, "BTC-USD was newest first: reversed"),
    ]
    assert list(prices.series[0].closes) == [bar.close for index, bar in enumerate(bars) if index not in (2, 4)]


def dated(*days: str) -> str:
    return lines("date,close", [f"{day},{100 + index}" for index, day in enumerate(days)])


@pytest.mark.parametrize(
    ("name", "content", "problem", "change"),
    [
        pytest.param(
            "a.csv",
            dated("03/04/2024", "04/04/2024"),
            "03/04/2024 may be 2024-03-04 or 2024-04-03",
            "write dates as 2024-03-04",
            id="ambiguous date",
        ),
        pytest.param(
            "a.csv", dated("13/04/2024", "04/14/2024"), "fit neither month/day nor day/month", "write dates as", id="neither order"
        ),
        pytest.param("a.csv", dated("01.02.2024", "02.02.2024"), "01/02/2024 may be", "2024-01-02", id="ambiguous date with dots"),
        pytest.param("a.csv", dated("1/31/21", "2/1/21"), "'1/31/21' is not a time", "four digits", id="two-digit year"),
        pytest.param("a.csv", dated("45292", "45293"), "spreadsheet's count of days", "2021-04-04", id="days of a spreadsheet"),
        pytest.param("a.csv", dated("2024-01-01 00:00 EST", "2024-01-02 00:00 EST"), "zone EST", "-05:00", id="zone by letters"),
        pytest.param(
            "a.csv",
            dated("01.01.2024 00:00:00.000 GMT+0100", "13.01.2024 00:00:00.000 GMT+0100"),
            "zone GMT+0100",
            "offset",
            id="zone by GMT",
        ),
        pytest.param(
            "a.csv", dated("2024-01-01 00:00:00-05:00", "2024-07-01 00:00:00-04:00"), "-04:00, -05:00", "UTC", id="several offsets"
        ),
        pytest.param(
            "a.csv",
            lines("date;close", ["2024-01-01;42280,1", "2024-01-02;42290,5"]),
            "'42280,1' has a decimal comma",
            "write 42280.1",
            id="decimal comma",
        ),
        pytest.param(
            "a.csv", lines("date;close", ["2024-01-01;42.280,10"]), "has a decimal comma", "write 42280.10", id="decimal comma and dots"
        ),
        pytest.param(
            "a.csv",
            lines("date;close", ["2024-01-01;42.280", "2024-01-02;43.105"]),
            "'42.280' may be 42280 or 42.2800",
            "write 42280",
            id="three decimals",
        ),
        pytest.param(
            "a.csv",
            lines("date,close", ['2024-01-01,"1,234"', '2024-01-02,"1,250"']),
            "'1,234' may be 1234 or 1.234",
            "without commas",
            id="thousands or decimals",
        ),
        pytest.param(
            "a.csv",
            lines("date,close", ['2024-01-01,"1,234"', "2024-01-02,987"]),
            "'1,234' may be 1234 or 1.234",
            "without commas",
            id="thousands beside none",
        ),
        pytest.param(
            "a.csv",
            lines("date,close", ["2024-01-01,$42280.10"]),
            "'$42280.10' is not a price",
            "write 42280.10, without '$'",
            id="dollar sign",
        ),
        *(
            pytest.param("a.csv", lines("date,close", ["2024-01-01,1.5", f'2024-01-02,"{text}"']), problem, change, id=text)
            for text, problem, change in (
                ("0,950", "'0,950' has a decimal comma", "write 0.950"),
                ("00,950", "'00,950' has a decimal comma", "write 00.950"),
                ("0,950.5", "'0,950.5' is not a price", "write plain decimals"),
                ("$1,850.25", "'$1,850.25' is not a price", "write 1850.25, without '$'"),
                ("1,234,850 EUR", "'1,234,850 EUR' is not a price", "write 1234850, without 'EUR'"),
                ("1.850,25 €", "'1.850,25 €' is not a price", "write 1850.25, without '€'"),
                ("$1,850", "'$1,850' is not a price", "write 1850 or 1.850, without '$'"),
                ("$1,85,0", "'$1,85,0' is not a price", "write plain decimals"),
            )
        ),
        pytest.param("a.csv", lines("date,close", ["2024-01-01,1.2K"]), "'1.2K' is not a price", "without 'K'", id="thousands by letter"),
        pytest.param(
            "a.csv",
            lines("time,close,Close", ["2024-01-01,1,2"]),
            "columns 'close' and 'Close', which are one name",
            "rename all but one",
            id="names that differ in case",
        ),
        pytest.param("a.csv", lines("time,BTC,BTC", ["2024-01-01,1,2"]), "2 columns named 'BTC'", "rename all but one", id="repeated name"),
        pytest.param(
            "a.csv",
            lines("time,close_usd,close_eur", ["2024-01-01,1,2"]),
            "the closes close_usd and close_eur",
            "remove all but one",
            id="two currencies",
        ),
        pytest.param(
            "a.csv",
            lines("date,BTC,ETH,volume", ["2024-01-01,1,2,3"]),
            "has a column 'volume'",
            "remove 'volume', if the other columns are",
            id="volume beside prices",
        ),
        pytest.param(
            "a.csv",
            lines("unix,date,close", ["1704067200,2023-01-01,1"]),
            "'unix' and 'date' have other times in row 1",
            "remove the wrong",
            id="two times that differ",
        ),
        pytest.param(
            "a.csv",
            lines("opentime,closetime,close", ["1704067200,1604067200000,1"]),
            "have other times in row 1",
            "remove the wrong",
            id="open and close times that differ",
        ),
        pytest.param(
            "a.csv", lines("when,price", ["2024-01-01,1"]), "no column time; its header is: when, price", "time,symbol,close", id="no time"
        ),
        pytest.param(
            "a.csv",
            lines("date,open,high,low", ["2024-01-01,1,2,1"]),
            "its header is: date, open, high, low",
            "time,symbol,close",
            id="no close",
        ),
        pytest.param(
            "a.csv",
            lines("timestamp,symbol,side,size,price", ["1704067200.1,BTCUSDT,Buy,1,42000"]),
            "these are trades",
            "candles",
            id="trades",
        ),
        pytest.param(
            "a.csv",
            lines("", ["1704067200,42000,1.5", "1704067260,42001,2"]),
            "has no header, and 3 columns",
            "write a first line",
            id="three columns without header",
        ),
        pytest.param(
            "a.csv",
            lines("", ["1704067200,5,5,5,5,9", "1704153600,6,6,6,6,9"]),
            "more than one order",
            "such as time,open,high",
            id="six equal columns",
        ),
        pytest.param(
            "a.csv",
            lines("", ["1704067200,7,9,5,6,1", "1704153600,8,9,5,7,1"]),
            "no known order",
            "names the columns in the file's order",
            id="close before high",
        ),
        pytest.param(
            "a.csv",
            lines("", ["1704153600,8,9,5,7", "1704067200,7,9,5,6"]),
            "no known order",
            "names the columns in the file's order",
            id="falling times",
        ),
        pytest.param(
            "a.csv",
            lines("", ["2024-01-01,00:00,6,9,5,7", "2024-01-02,00:00,7,9,5,8"]),
            "no known order",
            "names the columns",
            id="date and time apart",
        ),
        pytest.param(
            "a.csv",
            lines("", ["1704067200,5,9,1,7,9", "1704153600,6,7,8,9,9"]),
            "no known order",
            "time,open,high,low,close,volume",
            id="rows of several orders",
        ),
        pytest.param(
            "a.csv",
            lines("time,open,high,low,close", ["1704067200,5,1,9,7", "1704153600,5,1,9,7"]),
            "2 of 2 rows",
            "correct the names",
            id="high below low",
        ),
        pytest.param(
            "a.csv",
            lines("date,close", ["2024-01-01,5", "Source: a site"]),
            "has 1 cells in row 2, but 2 columns",
            "notes below",
            id="note after the rows",
        ),
        pytest.param("a.csv", lines("date,close", ['2024-01-01,"5', "2024-01-02,6"]), "wrong quote", "close the quotes", id="open quote"),
        pytest.param("a.csv", lines("date,close", ["2024-01-01,5"]).encode("utf-16"), "is UTF-16", "CSV UTF-8", id="UTF-16"),
        pytest.param("a.csv", "date,close\n2024-01-01,5\xe9".encode("latin-1"), "byte 23 is 0xe9", "CSV UTF-8", id="Latin-1"),
        pytest.param("a.xlsx", "x", "neither .csv nor .parquet nor .json", "CSV UTF-8", id="spreadsheet"),
        pytest.param("a.zip", "x", "neither .csv nor .parquet nor .json", "unpack it", id="archive"),
        pytest.param("a.json", '{"a": 1}', "not a list of candles", "[[time, open", id="object"),
        pytest.param(
            "a.json",
            '[{"time": 1704067200, "close": 1, "close": 2}]',
            "key 'close' appears twice",
            "one value for each key",
            id="repeated key in a row",
        ),
        pytest.param(
            "a.json",
            '{"data": [[1704067200, 1]], "data": [[1704067200, 2]]}',
            "key 'data' appears twice",
            "one value for each key",
            id="repeated data",
        ),
        pytest.param(
            "a.json",
            '{"t": [1704067200], "c": [1], "t": [1704153600]}',
            "key 't' appears twice",
            "one value for each key",
            id="repeated times",
        ),
        pytest.param("a.json", "[" * 100_000, "nested more than 32 deep", "at most 32 levels", id="nested too deep"),
        pytest.param(
            "a.json",
            '{"coins": {"a": {"prices": []}, "b": {"prices": []}}}',
            "not a list of candles of one symbol",
            "[[time, open",
            id="several coins",
        ),
        pytest.param(
            "a.json", '{"t": [1704067200, 1704153600], "c": [1]}', "not a list of candles", "[[time, open", id="lists of other lengths"
        ),
        pytest.param(
            "a.csv",
            lines("Time,Latest,%Change", ["2024-01-01,5,1%", "Downloaded from a site"]),
            "has 1 cells in row 2",
            "notes below",
            id="note after site rows",
        ),
        pytest.param(
            "a.csv",
            lines("Date,Close/Last", ["01/13/2024,$5.50"]),
            "'$5.50' is not a price",
            "write 5.50, without '$'",
            id="dollars of a site",
        ),
        pytest.param(
            "a.csv",
            lines("time,close,latest,Latest", ["2024-01-01,5,5,6"]),
            "columns 'latest' and 'Latest'",
            "rename all but one",
            id="names of a site that differ in case",
        ),
        pytest.param("a.json", "[[1704067200, 1], [1704153600]]", "has 1 cells in row 2", "one cell for each column", id="short row"),
        pytest.param(
            "a.csv", dated("2024-01-01", "2024-01-03", "2024-01-02"), "row 3: a has an unordered time", "sort the rows", id="unordered time"
        ),
        pytest.param(
            "a.csv",
            dated("2024-01-01", "2024-01-01"),
            "row 2: a has a repeated time, 2024-01-01 00:00:00 UTC: 100 and 101",
            "without duplicates",
            id="repeated time",
        ),
        pytest.param("a.csv", "time,close\n", "is empty: it has a header", "add prices", id="header alone"),
        pytest.param(
            "a.csv",
            "Price,Close,Close\nTicker,BTC-USD,ETH-USD\nDate,,\n",
            "is empty: it has a header",
            "add prices",
            id="header in three lines alone",
        ),
        pytest.param("a.csv", "Date,Close\nDate,BTC-USD\nDate,\n", "is empty: it has a header", "add prices", id="header of a date alone"),
        pytest.param("a.csv", ",\n", "is empty", "give a header", id="blank cells alone"),
        pytest.param("a.csv", '"",""\n"",""\n', "is empty", "give a header", id="blank quotes alone"),
    ],
)
def test_two_readings_or_none__are_refused_with_the_change(
    name: str, content: str | bytes, problem: str, change: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_closes(save(tmp_path, name, content))
    assert problem in caught.value.message
    assert change in caught.value.remedy


Change = Callable[[str, random.Random], str | bytes]


def upper_names(text: str, _: random.Random) -> str:
    rows = text.split("\n")
    header = 1 if "ryptodatadownload" in rows[0].lower() else 0
    rows[header] = rows[header].upper().replace(",", " , ")
    return "\n".join(rows)


def without_a_row_of_cells(text: str, chance: random.Random) -> str:
    rows = text.rstrip("\n").split("\n")
    index = chance.randrange(len(rows) // 2, len(rows))
    rows[index] = rows[index][: len(rows[index]) // 2]
    return "\n".join(rows) + "\n"


def two_rows_swapped(text: str, chance: random.Random) -> str:
    rows = text.rstrip("\n").split("\n")
    index = chance.randrange(len(rows) // 2, len(rows) - 1)
    rows[index], rows[index + 1] = rows[index + 1], rows[index]
    return "\n".join(rows) + "\n"


def header_removed(text: str, _: random.Random) -> str:
    rows = text.split("\n")
    return "\n".join(row for row in rows if any(character.isdigit() for character in row[:12]))


def decimal_commas(text: str, _: random.Random) -> str:
    return text.replace(",", ";").replace(".", ",")


CHANGES: dict[str, Change] = {
    "as it is": lambda text, _: text,
    "byte order mark": lambda text, _: text if text.startswith("\ufeff") else "\ufeff" + text,
    "CR": lambda text, _: text.replace("\n", "\r"),
    "CR LF": lambda text, _: text.replace("\n", "\r\n"),
    "semicolons": lambda text, _: text if '"' in text else text.replace(",", ";"),
    "blank lines": lambda text, _: text.replace("\n", "\n\n"),
    "upper case and spaces": upper_names,
    "banner": lambda text, _: "# prices of a site\n" + text,
    "UTF-16": lambda text, _: text.encode("utf-16"),
    "decimal commas": decimal_commas,
    "half a row": without_a_row_of_cells,
    "two rows swapped": two_rows_swapped,
    "no header": header_removed,
    "a row twice": lambda text, _: text + text.rstrip("\n").rsplit("\n", 1)[1] + "\n",
    "a note at the end": lambda text, _: text + "Source: a site\n",
}
HARMLESS = {"as it is", "byte order mark", "CR", "CR LF", "semicolons", "blank lines", "banner"}


def test_none_of_500_variants_is_read_wrong(tmp_path: Path) -> None:
    chance = random.Random(20_240_601)
    read_count = 0
    refused_count = 0
    texts_of_csv = [layout for layout in LAYOUTS if layout[1].endswith(".csv")]
    for number in range(500):
        site, name, _, write = chance.choice(texts_of_csv)
        change_name = chance.choice(list(CHANGES))
        bars = candles(number, chance.randint(3, 60), Decimal(chance.choice(["0.52", "3.70", "740.00", "29000.00"])))
        first_day = chance.randint(0, 1_500)
        bars = [Bar(b.start_s + first_day * DAY_S, b.open, b.high, b.low, b.close, b.volume) for b in bars]
        path = save(tmp_path, name, CHANGES[change_name](write(bars), chance))
        variant = f"{number}: {site}, {change_name}"
        try:
            (series,) = read_closes(path).series
        except ConfigError as refusal:
            assert refusal.remedy, variant
            refused_count += 1
            may_be_ambiguous = site in ("Investing.com", "Nasdaq", "a sheet saved in the United States", "Dukascopy") and len(bars) < 13
            assert change_name not in HARMLESS or may_be_ambiguous, f"{variant}: {refusal}"
            continue
        assert list(series.times_s) == expected_times(site, bars), variant
        assert list(series.closes) == [bar.close for bar in bars], variant
        read_count += 1
    assert read_count > 200
    assert refused_count > 100


JUNK = [*',;"\n\r.-0+/:% $()TZ', "\x00", "\ufeff", "\u00b2", "\u0661", "null", "NaN", "inf", "1e5", "1_0"]


def test_a_damaged_file_is_read_or_refused_in_our_words(tmp_path: Path) -> None:
    """Characters are added, changed and lost anywhere: no error of Python or of a library ends a command."""
    chance = random.Random(7)
    refused_count = 0
    for number in range(600):
        _, name, _, write = chance.choice(LAYOUTS)
        text = write(candles(number, chance.randint(2, 20)))
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(min(len(text), chance.choice([120, len(text)])))
            text = text[:place] + chance.choice([*JUNK, ""]) + text[place + chance.randint(0, 1) :]
        try:
            read_closes(save(tmp_path, name, text))
        except ConfigError as refusal:
            assert refusal.remedy, f"{number}: {refusal}"
            refused_count += 1
    assert 150 < refused_count < 600


@pytest.mark.parametrize("header", ["\u00b2,date,BTC", ",date,BTC", "Unnamed: 0,date,BTC", "index,date,BTC"])
def test_a_column_that_does_not_count_rows_is_no_index(header: str, tmp_path: Path) -> None:
    rows = [f"{number},{bar.at()},{bar.close}" for number, bar in zip(("\u00b2", "7", "x"), candles(1, 3), strict=True)]
    with pytest.raises(ConfigError, match=r"not a plain name|is not a price"):
        read_closes(save(tmp_path, "a.csv", lines(header, rows)))


@pytest.mark.parametrize("name", ["close of ETH", "Volume of BTC", "ETH of Kraken"])
def test_column_whose_name_holds_of__one_header_line_is_refused(name: str, tmp_path: Path) -> None:
    rows = [f"{bar.at()},{bar.close},{bar.close}" for bar in candles(1, 3)]
    with pytest.raises(ConfigError, match="not a plain name"):
        read_closes(save(tmp_path, "a.csv", lines(f"time,BTC,{name}", rows)))


def test_a_variant_that_is_read_wrong_would_be_noticed(tmp_path: Path) -> None:
    """The comparison above fails for a file with one other close."""
    bars = candles(1)
    changed = [*bars[:5], bars[6], *bars[6:]]
    path = save(tmp_path, "BTC-USD.csv", lines("Date,Close", [f"{b.at()},{c.close}" for b, c in zip(bars, changed, strict=True)]))
    assert list(read_closes(path).series[0].closes) != [bar.close for bar in bars]


def test_times_are_exact_whatever_the_unit(tmp_path: Path) -> None:
    for unit in (1, 10**3, 10**6, 10**9):
        rows = [f"{(FIRST_S + 60 * minute) * unit},{100 + minute}" for minute in range(5)]
        (series,) = read_closes(save(tmp_path, "a.csv", lines("ts,close", rows))).series
        assert list(series.times_s) == [FIRST_S + 60 * minute for minute in range(5)]
    mixed = [f"{FIRST_S},1", f"{(FIRST_S + 60) * 1000},2", f"{(FIRST_S + 120) * 10**6},3"]
    prices = read_closes(save(tmp_path, "a.csv", lines("ts,close", mixed)))
    assert list(prices.series[0].times_s) == [FIRST_S, FIRST_S + 60, FIRST_S + 120]
    assert "Unix times in several units: s, ms, us" in texts(prices)


@pytest.mark.parametrize(
    "form", ["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y/%m/%d", "%d-%b-%Y", "%d %B %Y", "%b %d, %Y", "%Y%m%d"]
)
def test_dates_are_read_in_the_order_that_the_file_proves(form: str, tmp_path: Path) -> None:
    days = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=index) for index in range(40)]
    rows = [f'"{day.strftime(form)}",{100 + index}' for index, day in enumerate(days)]
    (series,) = read_closes(save(tmp_path, "a.csv", lines("Date,Close", rows))).series
    assert list(series.times_s) == [int(day.timestamp()) for day in days]


def test_backtest_and_import_read_the_same_closes(tmp_path: Path) -> None:
    """Both commands take their closes from the one reader, whatever the site."""
    portfolio = step_input(targets_bps={"WBTC": 5_000, "USDC": 5_000}).portfolio
    wbtc = token("WBTC")
    usdc = token("USDC")
    for site, name, symbol, write in LAYOUTS:
        path = save(tmp_path, name, write(candles(7)))
        table = PortfolioOptions(symbol_by_file_symbol={symbol: "WBTC"}).load_prices(path)
        (series,) = read_prices(path, portfolio, {symbol: "WBTC"}, 0, FIRST_S + 10**9).series
        assert [point.price for point in series.points] == [unit_price(wbtc, str(bar.close), usdc) for bar in candles(7)], site
        assert table.closes[:, 0].tolist() == [float(bar.close) for bar in candles(7)], site
        assert table.times_s.tolist() == [point.at_s for point in series.points], site


def test_import_dates_closes_of_bars_at_their_end(tmp_path: Path) -> None:
    portfolio = step_input(targets_bps={"WBTC": 5_000, "USDC": 5_000}).portfolio
    bars = candles(7, 15)
    for site, name, symbol, write in LAYOUTS:
        path = save(tmp_path, name, write(bars))
        prices = read_prices(path, portfolio, {symbol: "WBTC"}, None, FIRST_S + 10**9)
        later_s = DAY_S if read_closes(path).has_bar_starts else 0
        assert [point.at_s for point in prices.series[0].points] == [time_s + later_s for time_s in expected_times(site, bars)]
        assert any("closes count at their end" in remark.text for remark in prices.remarks) == bool(later_s)
    path = save(tmp_path, "XBTUSD_1440.csv", lines("", [f"{b.start_s},{ohlc(b)},1" for b in bars]))
    open_bar = read_prices(path, portfolio, {"XBTUSD": "WBTC"}, None, bars[-1].start_s + 60)
    assert len(open_bar.series[0].points) == len(bars) - 1
    assert "the last bar of WBTC has not ended: left out" in [remark.text for remark in open_bar.remarks]


def test_a_folder_of_files_is_read_as_one(tmp_path: Path) -> None:
    """The months of data.binance.vision, and a file for each asset."""
    btc = candles(1, 60)
    eth = candles(2, 60, Decimal(700))
    for name, bars in (("BTCUSDT-1d-01.csv", btc[:30]), ("BTCUSDT-1d-02.csv", btc[30:]), ("ETHUSDT-1d.csv", eth)):
        save(tmp_path, name, binance(bars, 1000))
    save(tmp_path, "notes.txt", "not a price file")
    prices = read_closes(tmp_path)
    assert [series.symbol for series in prices.series] == ["BTCUSDT", "ETHUSDT"]
    assert [list(series.closes) for series in prices.series] == [[bar.close for bar in bars] for bars in (btc, eth)]
    assert all(text.startswith(("BTCUSDT-1d-0", "ETHUSDT-1d.csv")) for text in texts(prices))
    table = PortfolioOptions(symbol_by_file_symbol={"BTCUSDT": "BTC", "ETHUSDT": "ETH"}).load_prices(tmp_path)
    assert table.closes.tolist() == [[float(b.close), float(e.close)] for b, e in zip(btc, eth, strict=True)]


CONTRADICTION = (
    f"has two closes of BTCUSDT at 2021-01-01 00:00:00 UTC: {candles(1, 1)[0].close} in BTCUSDT-1d.csv,"
    f" {candles(3, 1)[0].close} in BTCUSDT-copy.csv"
)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        pytest.param("BTCUSDT-copy.csv", binance(candles(3, 5), 1), CONTRADICTION, id="two closes of a day"),
        pytest.param(
            "eth.csv",
            lines("date,close", ["2021-01-01,1", "2021-01-02,1"]),
            "mixes bars (BTCUSDT-1d.csv) and prices of moments (eth.csv)",
            id="bars and moments",
        ),
        pytest.param(
            "ETHEUR-1d.csv",
            binance(candles(2, 5), 1),
            "closes in several currencies: ETHEUR in EUR, BTCUSDT in USD",
            id="several currencies",
        ),
        pytest.param("ETH.csv", "time,close\n1,2,3\n", "ETH.csv has 3 cells in row 1, but 2 columns", id="broken file"),
    ],
)
def test_a_folder_that_contradicts_itself_is_refused(name: str, content: str, problem: str, tmp_path: Path) -> None:
    save(tmp_path, "BTCUSDT-1d.csv", binance(candles(1, 5), 1))
    save(tmp_path, name, content)
    with pytest.raises(ConfigError) as caught:
        read_closes(tmp_path)
    assert problem in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("symbol", ["BTC-EUR", "BTCGBP", "XBT/JPY"])
def test_import_in_another_currency__is_refused_unless_converted(symbol: str, tmp_path: Path) -> None:
    portfolio = step_input(targets_bps={"WBTC": 5_000, "USDC": 5_000}).portfolio
    rows = [f"{b.at()},{symbol},{b.close}" for b in candles(1, 10)]
    path = save(tmp_path, "closes.csv", lines("time,symbol,close", rows))
    with pytest.raises(ConfigError, match=r"has closes in (EUR|GBP|JPY), but prices are recorded in USDC"):
        read_prices(path, portfolio, {symbol: "WBTC"}, None, FIRST_S + 10**9)
    rates = [f"{b.at()},USDC{symbol[-3:]},0.5" for b in candles(1, 10)]
    path = save(tmp_path, "closes.csv", lines("time,symbol,close", [*rows, *rates]))
    converted = read_prices(path, portfolio, {symbol: "WBTC", f"USDC{symbol[-3:]}": "USDC"}, None, FIRST_S + 10**9)
    assert converted.series[0].points[0].price == unit_price(token("WBTC"), str(2 * candles(1, 10)[0].close), token("USDC"))


CURRENCY_BY_COLUMN = {
    **dict.fromkeys(["close_eur", "Closing Price (EUR)", "close (EUR)", "Price €"], "EUR"),
    "last_jpy": "JPY",
    "Close CHF": "CHF",
    "Price £": "GBP",
    "Latest [INR]": "INR",
}


@pytest.mark.parametrize(("column", "currency"), CURRENCY_BY_COLUMN.items())
def test_a_currency_in_the_name_of_closes_is_kept(column: str, currency: str, tmp_path: Path) -> None:
    portfolio = step_input(targets_bps={"WBTC": 5_000, "USDC": 5_000}).portfolio
    bars = candles(1, 10)
    path = save(tmp_path, "BTC.csv", lines(f"time,{column}", [f"{b.at()},{b.close}" for b in bars]))
    with pytest.raises(ConfigError, match=f"BTC has closes in {currency}, but prices are recorded in USDC"):
        read_prices(path, portfolio, {"BTC": "WBTC"}, None, FIRST_S + 10**9)
    rows = [f"{b.at()},{symbol},{close}" for b in bars for symbol, close in (("BTC", b.close), ("USDC", "0.5"))]
    path = save(tmp_path, "closes.csv", lines(f"time,symbol,{column}", rows))
    converted = read_prices(path, portfolio, {"BTC": "WBTC"}, None, FIRST_S + 10**9)
    assert converted.series[0].points[0].price == unit_price(token("WBTC"), str(2 * bars[0].close), token("USDC"))


def candle_lists() -> list[list[str]]:
    return [texts_of(bar) for bar in candles(1, 5)]


CURRENCY_BESIDE_ROWS = {
    "key of Kraken": ("BTC.json", json.dumps({"error": [], "result": {"XXBTZEUR": candle_lists(), "last": 1}})),
    "symbol of Bybit": ("BTC.json", json.dumps({"result": {"symbol": "BTCEUR", "list": candle_lists()}})),
    "small letters": ("BTC.json", json.dumps({"symbol": "btceur", "data": candle_lists()})),
    "pair of Bitfinex": ("BTC.json", json.dumps({"symbol": "tBTCEUR", "data": candle_lists()})),
    "channel of Huobi": ("BTC.json", json.dumps({"ch": "market.btceur.kline.1day", "data": candle_lists()})),
    "ticker of Polygon": ("BTC.json", json.dumps({"ticker": "X:BTCEUR", "results": [letters_of(bar) for bar in candles(1, 5)]})),
    "currency of Yahoo": (
        "BTC.json",
        json.dumps(
            {
                "chart": {
                    "result": [
                        {
                            "meta": {"currency": "EUR"},
                            "timestamp": [bar.start_s for bar in candles(1, 5)],
                            "indicators": {"quote": [column_lists(candles(1, 5))]},
                        }
                    ]
                }
            }
        ),
    ),
    "line above a header": ("BTC.csv", lines("# closes of BTC/EUR\ntime,close", [f"{b.at()},{b.close}" for b in candles(1, 5)])),
}


@pytest.mark.parametrize("place", CURRENCY_BESIDE_ROWS)
def test_a_currency_beside_the_rows_is_that_of_the_closes(place: str, tmp_path: Path) -> None:
    (series,) = read_closes(save(tmp_path, *CURRENCY_BESIDE_ROWS[place])).series
    assert (series.symbol, series.currency) == ("BTC", "EUR")


@pytest.mark.parametrize("word", ["Industry", "country", "industry", "Ministry of Finance", "total"])
def test_label__word_that_ends_like_a_currency__is_no_pair(word: str, tmp_path: Path) -> None:
    path = save(tmp_path, "BTC.json", json.dumps({word: "Blockchain", "sector": word, "data": candle_lists()}))
    assert read_closes(path).series[0].currency == ""


@pytest.mark.parametrize("name", ["BTC-USD.csv", "BTC_USDT-1d.csv", "BTC-GBP.csv"])
@pytest.mark.parametrize("column", ["close_eur", "Price €", "Close (CHF)"])
def test_a_pair_and_a_column_in_other_currencies_are_refused(name: str, column: str, tmp_path: Path) -> None:
    path = save(tmp_path, name, lines(f"time,{column}", [f"{b.at()},{b.close}" for b in candles(1, 5)]))
    with pytest.raises(ConfigError, match="closes in several currencies"):
        read_closes(path)


@pytest.mark.parametrize(
    ("symbol", "asset"),
    [
        ("crvUSD", "CRVUSD"),
        ("agEUR", "AGEUR"),
        ("BTCUSDT", "BTC"),
        ("XBTUSD", "BTC"),
        ("DOTUSD", "DOT"),
        ("btc-usd", "BTC"),
        ("OP_USDT", "OP"),
        ("LINK", "LINK"),
        ("btcusdt", "BTC"),
        ("industry", "INDUSTRY"),
    ],
)
def test_asset_of_pair__coin_that_ends_in_a_currency__is_no_pair(symbol: str, asset: str) -> None:
    assert asset_of_pair(symbol) == asset


@pytest.mark.parametrize(
    ("file_symbols", "symbols", "pairs"),
    [
        pytest.param(["crvUSD", "CRV"], ["CRV", "crvUSD"], {"CRV": "CRV", "crvUSD": "crvUSD"}, id="equal but for case"),
        pytest.param(["BTC", "BTCUSDT"], ["WBTC", "BTC"], {"BTC": "BTC", "BTCUSDT": "WBTC"}, id="equal name first"),
        pytest.param(["ETHUSDT", "BTC"], ["WETH", "WBTC"], {"ETHUSDT": "WETH", "BTC": "WBTC"}, id="wrapped names"),
        pytest.param(["ethusdt", "btc"], ["WETH", "WBTC"], {"ethusdt": "WETH", "btc": "WBTC"}, id="wrapped names in lower case"),
        pytest.param(["ETHUSDT", "BTC"], ["rETH", "wstETH", "cbBTC"], {}, id="tokens with a rate of their own"),
        pytest.param(["DAI", "USDM"], ["sDAI", "wUSDM"], {}, id="savings coins"),
        pytest.param(["WETHUSDT", "ETHUSDT"], ["WETH"], {"WETHUSDT": "WETH"}, id="its own name before that of what it wraps"),
        pytest.param(["crvusd"], ["CRV", "crvUSD"], {"crvusd": "crvUSD"}, id="nearest case"),
    ],
)
def test_symbol_pairs__equal_names__go_first(file_symbols: list[str], symbols: list[str], pairs: dict[str, str]) -> None:
    assert symbol_pairs(file_symbols, symbols) == pairs


@pytest.mark.parametrize(
    ("symbol", "currency", "is_unit"),
    [
        *[(symbol, "USD", True) for symbol in ("USD", "USDC", "USDC.e", "DAI", "crvUSD", "GHO", "FRAX", "MIM")],
        *[("EURC", "EUR", True), ("agEUR", "EUR", True), ("EURC", "USD", False), ("USDC", "EUR", False), ("WETH", "", True)],
        *[(symbol, "USD", False) for symbol in ("sDAI", "sUSDe", "scrvUSD", "aUSDC", "wUSDM", "WETH")],
    ],
)
def test_unit__savings_or_wrapped_coin__is_none_of_its_currency(symbol: str, currency: str, is_unit: bool) -> None:
    assert is_unit_of(symbol, currency) is is_unit


def test_import__dollar_file__is_refused_for_a_savings_coin(tmp_path: Path) -> None:
    portfolio = step_input(targets_bps={"WETH": 5_000, "sDAI": 5_000}, prices={"WETH": 2_000, "sDAI": 1}, numeraire="sDAI").portfolio
    path = save(tmp_path, "ETH-USDT.csv", lines("time,close", [f"{b.at()},{b.close}" for b in candles(1, 5)]))
    with pytest.raises(ConfigError, match="closes in USD, but prices are recorded in sDAI"):
        read_prices(path, portfolio, {"ETH-USDT": "WETH"}, None, FIRST_S + 10**9)


@pytest.mark.parametrize("names", [("BTC-1.csv", "BTC-2.csv"), ("BTC.csv", "ETH.csv")])
def test_a_folder_with_columns_in_other_currencies_is_refused(names: tuple[str, str], tmp_path: Path) -> None:
    for name, column, bars in zip(names, ("close_usd", "close_eur"), (candles(1, 10)[:5], candles(1, 10)[5:]), strict=True):
        save(tmp_path, name, lines(f"time,{column}", [f"{b.at()},{b.close}" for b in bars]))
    with pytest.raises(ConfigError, match="closes in several currencies"):
        read_closes(tmp_path)


@pytest.mark.parametrize("symbol", ["BTC-CHF", "ETHTRY", "LINK/INR", "DOTUSD", "superOETHb"])
def test_a_pair_in_any_currency_names_it(symbol: str, tmp_path: Path) -> None:
    rows = [f"{b.at()},{symbol},{b.close}" for b in candles(1, 3)]
    (series,) = read_closes(save(tmp_path, "a.csv", lines("time,symbol,close", rows))).series
    assert series.currency == {"superOETHb": ""}.get(symbol, symbol[-3:])
