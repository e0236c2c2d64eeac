"""Frames as quants have them: each is read as the plain one is, or refused with the change to make."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from agent import research
from agent.errors import ConfigError
from agent.research.prices import read_prices

INDEX = pd.date_range("2024-01-01", periods=6, freq="D")
SECONDS = INDEX.as_unit("s").astype("int64")
BTC = np.array([100.0, 101.0, 102.0, 103.0, 104.0, 105.0])
WIDE = pd.DataFrame({"BTC": BTC, "ETH": BTC / 2}, index=INDEX)
LONG = WIDE.rename_axis("time").reset_index().melt("time", var_name="symbol", value_name="close")
MISSING = WIDE.where(WIDE != 102)
DAYS = [moment.date() for moment in INDEX]


def in_levels(*fields: str) -> pd.DataFrame:
    """Fields above symbols, as yfinance has them."""
    closes = WIDE.rename_axis("Date")
    return pd.concat({field: closes if field.lower() == "close" else closes + 7 for field in fields}, axis=1, names=["Price", "Ticker"])


def by_rows(**columns: Any) -> pd.DataFrame:
    """The closes with row numbers as their index."""
    return WIDE.assign(**columns).reset_index(drop=True)


READ: dict[str, Callable[[], object]] = {
    "index in UTC": lambda: WIDE.tz_localize("UTC"),
    "index in New York": lambda: WIDE.tz_localize("UTC").tz_convert("America/New_York"),
    "column in Tokyo": lambda: WIDE.tz_localize("UTC").tz_convert("Asia/Tokyo").rename_axis("date").reset_index(),
    "index of milliseconds": lambda: WIDE.set_axis(SECONDS * 1000),
    "index of seconds with a name": lambda: WIDE.set_axis(pd.Index(SECONDS, name="timestamp")),
    "column of nanoseconds": lambda: by_rows(time=SECONDS * 10**9),
    "index of dates": lambda: WIDE.set_axis(DAYS),
    "index of texts": lambda: WIDE.set_axis([str(day) for day in DAYS]),
    "index of periods": lambda: WIDE.to_period("D"),
    "column of dates": lambda: by_rows(date=DAYS),
    "column of times as objects": lambda: by_rows().assign(date=pd.Series(list(INDEX), dtype=object)),
    "column of texts": lambda: by_rows(Date=[str(day) for day in DAYS]),
    "prices as texts": lambda: WIDE.astype(str),
    "prices as decimals": lambda: WIDE.map(lambda close: Decimal(str(close))),
    "prices of an extension type": lambda: WIDE.astype("Float64"),
    "newest first": lambda: WIDE[::-1],
    "newest first in a column": lambda: by_rows(time=DAYS)[::-1],
    "newest first in polars": lambda: pl.DataFrame(by_rows(time=DAYS).to_dict("list")).reverse(),
    "closes beside other fields": lambda: in_levels("Close", "Open", "Volume"),
    "symbols above fields": lambda: in_levels("Open", "Close").swaplevel(axis=1),
    "closes alone in levels": lambda: in_levels("close"),
    "rows of times and symbols": lambda: LONG.set_index(["time", "symbol"]),
    "a series of times and symbols": lambda: LONG.set_index(["time", "symbol"])["close"],
    "long with an index of times": lambda: LONG.set_index("time"),
    "long with other names": lambda: LONG.rename(columns={"time": "Date", "symbol": "Ticker", "close": "Close"}),
    "long with categories": lambda: LONG.astype({"symbol": "category"}),
    "rows left of more": lambda: by_rows(time=DAYS).set_axis([3, 5, 8, 13, 21, 34]),
    "polars dates": lambda: pl.DataFrame({"time": DAYS, "BTC": BTC, "ETH": BTC / 2}),
    "polars dates named dt": lambda: pl.DataFrame({"dt": DAYS, "BTC": BTC, "ETH": BTC / 2}),
    "polars milliseconds": lambda: pl.DataFrame({"BTC": BTC, "ETH": BTC / 2, "time": list(SECONDS * 1000)}),
    "polars texts": lambda: pl.DataFrame({"date": [str(day) for day in DAYS], "BTC": BTC, "ETH": BTC / 2}),
}


@pytest.mark.parametrize("make", READ.values(), ids=READ)
def test_frame_is_read_as_the_plain_one_is(make: Callable[[], object]) -> None:
    table = read_prices(make())
    assert table.symbols == ("BTC", "ETH")
    assert table.times_s.tolist() == list(SECONDS)
    assert table.closes.tolist() == WIDE.to_numpy().tolist()


@pytest.mark.parametrize(
    "make",
    [
        lambda: MISSING,
        lambda: MISSING.astype(object).where(MISSING.notna(), None),
        lambda: pl.DataFrame({"time": DAYS, **{symbol: MISSING[symbol].to_numpy() for symbol in MISSING}}),
        lambda: LONG.where(LONG != 102),
        lambda: LONG.astype(object).where(LONG != 102, None),
        lambda: pl.DataFrame(LONG.to_dict("list")).with_columns(pl.col("close").replace(102.0, float("nan"))),
        MISSING.convert_dtypes,
        lambda: MISSING.astype("Float64"),
        lambda: MISSING.astype(object).where(MISSING.notna(), pd.NA),
        lambda: MISSING.astype("string"),
        lambda: MISSING.astype("category"),
        lambda: LONG.where(LONG != 102).convert_dtypes(),
    ],
    ids=[
        "pandas",
        "None of pandas",
        "NaN of polars",
        "long in pandas",
        "None in long",
        "long in polars",
        "NA of integers",
        "NA of floats",
        "NA of objects",
        "NA of texts",
        "categories",
        "NA in long",
    ],
)
def test_missing_price_is_a_gap(make: Callable[[], object]) -> None:
    closes = read_prices(make()).closes
    assert np.isnan(closes[2, 0])
    assert np.isnan(closes).sum() == 1


def at_midnight(zone: Any) -> Any:
    return WIDE.set_axis(INDEX.tz_localize(zone))


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "Asia/Kolkata", "America/Lima", "Europe/Berlin"])
@pytest.mark.parametrize("in_polars", [False, True], ids=["pandas", "polars"])
def test_closes_at_midnight_of_a_zone__keep_their_day(zone: str, in_polars: bool) -> None:
    frame = at_midnight(zone)
    times = pl.Series("time", INDEX.to_list()).dt.replace_time_zone(zone)
    table = read_prices(pl.DataFrame({"time": times, "BTC": BTC}) if in_polars else frame)
    assert table.times_s.tolist() == read_prices(WIDE).times_s.tolist()
    assert table.notes == (f"times are the clock of {zone}, shown as UTC, so that each close keeps its day, of 24 hours",)


@pytest.mark.parametrize("zone", ["UTC", "Etc/UTC", "Africa/Abidjan"])
def test_closes_at_midnight_of_utc__need_no_note(zone: str) -> None:
    assert read_prices(at_midnight(zone)).notes == ()


@pytest.mark.parametrize(
    ("make", "zone", "clock"),
    [
        pytest.param(lambda _: at_midnight(timezone(timedelta(hours=9))), "+09:00", "00:00", id="constant offset in pandas"),
        pytest.param(lambda _: WIDE.set_axis([f"{day}T00:00:00+09:00" for day in DAYS]), "+09:00", "00:00", id="texts"),
        pytest.param(
            lambda _: WIDE.set_axis(INDEX.tz_localize("Asia/Tokyo") + pd.Timedelta("2h")), "Asia/Tokyo", "02:00", id="two o'clock"
        ),
        pytest.param(lambda folder: saved_at_midnight(folder, "Asia/Tokyo"), "Asia/Tokyo", "00:00", id="file"),
    ],
)
def test_daily_closes_that_move_to_utc__are_noted_once(make: Callable[[Path], object], zone: str, clock: str, tmp_path: Path) -> None:
    utc = "2023-12-31 17:00" if clock == "02:00" else "2023-12-31 15:00"
    (note,) = read_prices(make(tmp_path)).notes
    assert note == f"times of {zone} are read as UTC: the first, 2024-01-01 {clock}, is {utc} UTC"


def saved_at_midnight(folder: Path, zone: str) -> Path:
    path = folder / "prices.parquet"
    times = pl.Series("time", INDEX.to_list()).dt.replace_time_zone(zone)
    pl.DataFrame({"time": times, "BTC": BTC}).write_parquet(path)
    return path


def test_price_that_begins_later_or_never_is_missing() -> None:
    later = WIDE.assign(ETH=[np.nan, np.nan, *BTC[2:]], SOL=np.nan)
    closes = read_prices(later).closes
    assert np.isnan(closes).sum(axis=0).tolist() == [0, 2, 6]
    result = research.backtest(later, {"BTC": 0.5, "ETH": 0.5, "USD": 0})
    assert result.summary.start == datetime.fromisoformat("2024-01-03T00:00+00:00")


@pytest.mark.parametrize(
    ("series", "symbol"), [(WIDE["BTC"], "BTC"), (WIDE["BTC"].rename("btc"), "btc"), (WIDE["ETH"].tz_localize("UTC"), "ETH")]
)
def test_series_is_a_column(series: Any, symbol: str) -> None:
    assert read_prices(series).symbols == (symbol,)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: pd.concat([WIDE, WIDE.tail(1)]),
            "row 7: BTC has a repeated time, 2024-01-06 00:00:00 UTC: 105.0 and 105.0 (sort the rows by time, without duplicates)",
        ),
        (
            lambda: pd.concat([LONG, LONG.head(1)]),
            "BTC has an unordered time, 2024-01-01 00:00:00 UTC after 2024-01-06 00:00:00 UTC (sort the rows",
        ),
        (
            lambda: WIDE.iloc[[0, 2, 1, 3, 4, 5]],
            "row 3: BTC has an unordered time, 2024-01-02 00:00:00 UTC after 2024-01-03 00:00:00 UTC (sort the rows",
        ),
        (lambda: WIDE.set_axis(pd.DatetimeIndex([*INDEX[:5], pd.NaT])), "row 6 has no time (remove rows without a time"),
        (lambda: WIDE.set_axis(pd.DatetimeIndex([*INDEX[:3], *[pd.NaT] * 3])), "3 rows have no time, the first is row 4 (remove rows"),
        (
            lambda: pl.DataFrame({"time": DAYS}),
            "has no prices; its header is: time (name the columns time,symbol,close, or time and one for each symbol",
        ),
        (lambda: WIDE.head(1), "prices: 1 bar of 2 symbols (give at least 2 bars"),
        (lambda: WIDE[["BTC"]].head(1), "prices: 1 bar of 1 symbol (give at least 2 bars"),
        (lambda: by_rows().iloc[[0, 2, 3]], "row 1: '0' is not a time"),
        (by_rows, "no column time; its header is: BTC, ETH (name the columns time,symbol,close, or time and one for each symbol"),
        (lambda: WIDE.assign(BTC="$5"), "'$5' is not a price of BTC (write 5, without '$')"),
        (lambda: WIDE.replace(103, np.inf), "row 4, 2024-01-04 00:00:00 UTC: 'inf' is not a price of BTC (prices must be finite"),
        (
            lambda: WIDE.replace(103, -0.0304),
            "row 4, 2024-01-04 00:00:00 UTC: '-0.0304' is not a price of BTC (prices must be above zero; if these are returns",
        ),
        (
            lambda: WIDE.assign(score=range(6)),
            "'0' is not a price of score (prices must be above zero: leave it out, or write a plain decimal such as 1850.25;"
            " if score is no asset, drop it)",
        ),
        (lambda: WIDE.assign(regime="a"), "'a' is not a price of regime (prices must be above zero"),
        (lambda: WIDE.assign(momentum=-0.1), "if these are returns, give the prices they are of; if momentum is no asset, drop it)"),
        (lambda: WIDE.replace(103, 0), "row 4, 2024-01-04 00:00:00 UTC: '0.0' is not a price of BTC"),
        (lambda: WIDE.set_axis(["BTC", "BTC"], axis="columns"), "prices: two columns are 'BTC' (drop one of them, or rename it)"),
        (lambda: WIDE.set_axis([5, "5"], axis="columns"), "prices: two columns are '5' (drop one of them"),
        (lambda: pd.concat([LONG, LONG["close"]], axis="columns"), "prices: two columns are 'close' (drop one of them"),
        (
            lambda: WIDE.set_axis(pd.Index([day.tz_localize(f"Etc/GMT-{number}") for number, day in enumerate(INDEX)], dtype=object)),
            "times in several time zones: +00:00, +01:00, +02:00, +03:00, +04:00, +05:00",
        ),
        (lambda: WIDE.assign(btc=BTC), "has columns 'BTC' and 'btc', which are one name"),
        (lambda: in_levels("Open", "High"), "its columns have 2 levels, none of them with Close (give a frame with one column"),
        (lambda: pl.Series("BTC", BTC), "Series is no frame (give a polars or pandas DataFrame"),
        (lambda: {"time": DAYS, "BTC": BTC}, "dict is no frame (give a polars or pandas DataFrame"),
        (WIDE.to_numpy, "ndarray is no frame (give a polars or pandas DataFrame"),
    ],
)
def test_frame_is_refused_with_the_change_to_make(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_prices(make())
    assert words in f"{caught.value.message} ({caught.value.remedy})"


@pytest.mark.parametrize(
    ("prices", "targets", "words"),
    [
        (
            WIDE.rename(columns=str.lower),
            {"BTC": 0.5, "USD": 0.5},
            "BTC has no prices (did you mean btc? the prices have btc, eth",
        ),
        (WIDE, {"btc": 0.5, "USD": 0.5}, "btc has no prices (did you mean BTC? the prices have BTC, ETH"),
        (WIDE.add_suffix("USD"), {"BTC": 0.5, "USD": 0.5}, "BTC has no prices (if BTCUSD is its price, name it BTC)"),
        (WIDE.add_suffix("/USDT"), {"BTC/USDT": 0.5, "USD": 0.5}, 'targets: BTC/USDT is no symbol of an asset (write "BTC")'),
        (
            WIDE.assign(**{"BTC-USDC": BTC}).rename(columns={"BTC": "BTC/USDT"}),
            {"BTC": 0.5, "USD": 0.5},
            "targets: BTC has the prices of BTC-USDT and BTC-USDC (keep one of them, and name it BTC)",
        ),
        (
            pd.DataFrame({"Close": BTC, "Open": BTC}, index=INDEX),
            {"BTC": 0.5, "USD": 0.5},
            'name no symbol; name their column "BTC", or add a column symbol with "BTC"',
        ),
        (WIDE["BTC"].rename(None), {"BTC": 0.5, "USD": 0.5}, 'the closes name no symbol; name their column "BTC"'),
        (WIDE["BTC"].to_frame("close"), {"BTC": 0.5, "USD": 0.5}, 'the closes name no symbol; name their column "BTC"'),
        (WIDE, ["BTC", "USD"], "targets: ['BTC', 'USD'] is no mapping of symbols to shares"),
        (
            by_rows(),
            {"BTC": 0.5, "USD": 0.5},
            "prices: no column time, and no index of times as pandas has it; its header is: BTC, ETH (name the columns time,",
        ),
    ],
    ids=[
        "small letters",
        "small letters in targets",
        "joined",
        "a market as target",
        "two markets",
        "bars of one symbol",
        "a Series without a name",
        "closes alone",
        "a list",
        "rows without times",
    ],
)
def test_targets_without_prices__are_named_with_the_change(prices: Any, targets: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        research.backtest(prices, targets, research.band(0.1))
    assert words in f"{caught.value.message} ({caught.value.remedy})"


def test_column_that_is_no_target_changes_nothing() -> None:
    targets = {"BTC": 0.5, "USD": 0.5}
    results = [research.backtest(prices, targets, research.band(0.1)) for prices in (WIDE, WIDE.assign(fear_greed=50))]
    assert results[0].frame().equals(results[1].frame())
    assert results[0].notes == results[1].notes


@pytest.mark.parametrize("share", [10, "10%", 0])
def test_band_that_is_no_share_is_refused(share: Any) -> None:
    with pytest.raises(ConfigError, match=f"band: relative {share!r} is no share"):
        research.band(share)


@pytest.mark.parametrize("name", ["close_eur", "Close (EUR)", "Price €"])
def test_closes_in_euros_are_refused_beside_a_dollar(name: str) -> None:
    frame = LONG.rename(columns={"close": name})
    with pytest.raises(ConfigError, match="the closes are in EUR, not in USD"):
        research.backtest(frame, {"BTC": 0.5, "USD": 0.5}, research.band(0.1))
    assert research.backtest(frame, {"BTC": 0.5, "EUR": 0.5}, research.band(0.1)).summary.numeraire == "EUR"


def long_of(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename_axis("time").reset_index().melt("time", var_name="symbol", value_name="close")


@pytest.mark.parametrize("form", [lambda frame: frame, long_of], ids=["wide", "long"])
@pytest.mark.parametrize("quote", ["/USDT", "-USD", "_USDC", ":USD"])
def test_a_market_in_the_numeraire_is_its_asset(form: Callable[[pd.DataFrame], pd.DataFrame], quote: str) -> None:
    targets = {"BTC": 0.4, "OP": 0.3, "USD": 0.3}
    closes = WIDE.rename(columns={"ETH": "OP"})
    result = research.backtest(form(closes.add_suffix(quote)), targets, research.band(0.1))
    assert result.weights.equals(research.backtest(closes, targets, research.band(0.1)).weights)


@pytest.mark.parametrize("form", [lambda frame: frame, long_of], ids=["wide", "long"])
@pytest.mark.parametrize("symbol", ["OP", "OP-EUR"])
def test_a_market_in_another_currency_is_refused(form: Callable[[pd.DataFrame], pd.DataFrame], symbol: str) -> None:
    frame = form(WIDE.rename(columns={"ETH": "OP-EUR"}))
    with pytest.raises(ConfigError, match=r"the closes are in EUR, not in USD \(name EUR in place of USD\)"):
        research.backtest(frame, {symbol: 0.5, "USD": 0.5}, research.band(0.1))
    assert research.backtest(frame, {symbol: 0.5, "EUR": 0.5}, research.band(0.1)).summary.numeraire == "EUR"


@pytest.mark.parametrize("market", ["ETH/BTC", "ETH_BTC"])
@pytest.mark.parametrize("symbol", ["ETH", ""])
def test_a_market_in_a_coin_is_refused(market: str, symbol: str) -> None:
    frame = WIDE.rename(columns={"ETH": market})
    with pytest.raises(ConfigError, match=r"ETH[-_]BTC are in BTC, not in a currency \(give closes of ETH in the numeraire, named ETH\)"):
        research.backtest(frame, {symbol or market: 0.5, "USD": 0.5}, research.band(0.1))


def test_a_rate_of_the_numeraire_does_not_change_it() -> None:
    with pytest.raises(ConfigError, match="the closes are in EUR, not in USD"):
        research.backtest(WIDE.rename(columns={"ETH": "USD-EUR"}), {"BTC": 0.5, "USD": 0.5}, research.band(0.1))


@pytest.mark.parametrize(("symbols", "words"), [(["ETH"], "ETH has no prices"), (["BTC", "ETH"], "BTC, ETH have no prices")])
def test_symbol_whose_closes_are_all_missing_is_named(symbols: list[str], words: str) -> None:
    prices = WIDE.assign(**dict.fromkeys(symbols, np.nan), SOL=BTC)
    with pytest.raises(ConfigError) as caught:
        research.backtest(prices, {"BTC": 0.4, "ETH": 0.3, "USD": 0.3}, research.band(0.1))
    assert str(caught.value) == f"prices: {words} (give closes, or omit the asset)"


def test_symbols_that_never_meet_are_named() -> None:
    prices = WIDE.assign(ETH=[np.nan] * 5 + [50.0])
    with pytest.raises(ConfigError, match="BTC, ETH have prices at the same time in fewer than 2 bars"):
        research.backtest(prices, {"BTC": 0.4, "ETH": 0.3, "USD": 0.3}, research.band(0.1))


RETURNS = np.random.default_rng(7).normal(0.001, 0.03, 90)
WOBBLES = np.random.default_rng(8).normal(0, 0.001, 90)


@pytest.mark.parametrize(
    ("symbol", "closes", "is_noted"),
    [
        ("BTC", 1 + RETURNS, True),
        ("BTC", np.exp(RETURNS), True),
        ("BTC", np.where(RETURNS > 0.03, np.nan, 1 + RETURNS), True),
        ("BTC", np.cumprod(1 + RETURNS), False),
        ("BTC", 40_000 * np.cumprod(1 + RETURNS), False),
        ("BTC", (1 + RETURNS)[:19], False),
        ("DAI", 1 + RETURNS, False),
        ("NEWUSD", 1 + WOBBLES, False),
        ("EURX", 1.08 + WOBBLES * 5, False),
    ],
    ids=["factors", "of logs", "with gaps", "their product", "prices", "too few", "cash", "a stable coin", "a rate beside 1"],
)
def test_growth_factors_are_noted(symbol: str, closes: Any, is_noted: bool) -> None:
    index = pd.date_range("2024-01-01", periods=len(closes), freq="D")
    prices = pd.DataFrame({symbol: closes, "ETH": 2_000 + np.arange(len(closes))}, index=index)
    result = research.backtest(prices, {symbol: 0.4, "ETH": 0.3, "USD": 0.3}, research.band(0.1))
    note = f"{symbol} is near 1 at each time; if these are growth factors, give prices: their product up to each time"
    assert (note in result.notes) is is_noted
    assert any("growth factors" in text for text in result.notes) is is_noted
