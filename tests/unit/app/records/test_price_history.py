"""Closing prices from CSV and Parquet: what is taken, in which unit and hour, and every mistake with its row."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent.app.records.price_checks import JumpCheck
from agent.app.records.price_history import PriceFile, read_prices
from agent.errors import ConfigError
from agent.units import format_time
from tests.support.builders import step_input, unit_price
from tests.support.constants import HOUR_S
from tests.support.planning_worlds import REAL_PRICES
from tests.support.studies.price_files import price_file
from tests.support.text import mentions
from tests.support.tokens import USDC, WBTC, WETH

polars: Any = pytest.importorskip("polars")
PORTFOLIO = step_input(targets_bps={"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}).portfolio
START_S = 1_760_000_400
NOW_S = START_S + 10**7
REAL = REAL_PRICES / "hourly_2021-04_2022-12.parquet"


def read(path: Path, names: dict[str, str] | None = None, bar_s: int | None = None, now_s: int = NOW_S) -> PriceFile:
    return read_prices(path, PORTFOLIO, names or {}, bar_s, now_s)


def refusal(folder: Path, *rows: str, header: str = "time,symbol,close", **how: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(price_file(folder, *rows, header=header), **how)
    return str(caught.value)


def test_a_csv_becomes_exact_prices_in_base_units(tmp_path: Path) -> None:
    prices = read(price_file(tmp_path, f"{START_S},WETH,2000.1", f"{START_S},WBTC,60000", f"{START_S + HOUR_S},WETH,2001"))
    weth, wbtc = prices.series
    assert [point.price for point in weth.points] == [unit_price(WETH, "2000.1", USDC), unit_price(WETH, 2_001, USDC)]
    assert [(point.token, point.at_s) for point in wbtc.points] == [(WBTC.address, START_S)]
    assert mentions(prices.unit, "USDC", "the file")
    assert (weth.row_count, weth.interval_s, weth.gaps) == (2, HOUR_S, ())


@pytest.mark.parametrize(
    "when",
    ["2025-10-09T09:00:00Z", "2025-10-09T09:00:00", "2025-10-09 11:00:00+02:00", "1760000400", "1760000400.0", "2025-10-09T23:00+14:00",
     "2025-10-08T21:00-12:00"],
)  # fmt: skip
def test_times_are_read_in_the_ways_that_files_write_them(tmp_path: Path, when: str) -> None:
    """The last two have the largest offsets of a zone."""
    (series,) = read(price_file(tmp_path, f"{when},WETH,1")).series
    assert series.points[0].at_s == START_S


@pytest.mark.parametrize(
    "when",
    ["0021-04-04", "04/14/0021", "Apr 4, 0021", "00210404", "2100-01-01", "1969-12-31", "2021-04-04T00:00+99:99", "2021-04-04T00:00+14:01",
     "2021-04-04T00:00+02:60"],
)  # fmt: skip
def test_time__year_or_offset_that_does_not_exist__is_refused(tmp_path: Path, when: str) -> None:
    assert f"row 1: {when!r} is not a time" in refusal(tmp_path, f'"{when}",WETH,1')


def test_time__typed_date_of_another_age__is_refused(tmp_path: Path) -> None:
    path = tmp_path / "closes.parquet"
    polars.DataFrame({"time": [datetime(21, 4, 4)], "symbol": ["WETH"], "close": [1.0]}).write_parquet(path)
    with pytest.raises(ConfigError, match="row 1: '0021-04-04 00:00:00' is not a time"):
        read(path)


def test_a_parquet_file_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "closes.parquet"
    times = [datetime.fromtimestamp(START_S + i * HOUR_S, UTC) for i in range(3)]
    table = polars.DataFrame({"time": times, "symbol": ["WETH"] * 3, "open": [1.0] * 3, "close": [2_000.25, 2_001.5, 1_999.0]})
    table.write_parquet(path)
    (series,) = read(path).series
    expected = [Fraction("2000.25"), Fraction("2001.5"), Fraction(1_999)]
    assert [point.price for point in series.points] == [unit_price(WETH, price, USDC) for price in expected]
    table.with_columns(polars.col("time").dt.replace_time_zone(None)).write_parquet(path)
    assert read(path).series == (series,)


def test_file_symbols__become_the_config_s_and_strangers_go(tmp_path: Path) -> None:
    prices = read(price_file(tmp_path, f"{START_S},BTC,60000", f"{START_S},DOGE,1"), names={"BTC": "WBTC"})
    assert [series.symbol for series in prices.series] == ["WBTC"]
    assert prices.skipped_symbols == ("DOGE",)


def test_numeraire_closes__divide_the_others(tmp_path: Path) -> None:
    rows = (f"{START_S},USDC,0.5", f"{START_S},WETH,1000", f"{START_S + HOUR_S},WETH,1000")
    (series,) = read(price_file(tmp_path, *rows)).series
    assert [(point.at_s, point.price) for point in series.points] == [(START_S, unit_price(WETH, 2_000, USDC))]
    assert "file's closes" in read(price_file(tmp_path, *rows)).unit


def test_a_bar_named_by_its_start_holds_at_its_end(tmp_path: Path) -> None:
    (series,) = read(price_file(tmp_path, f"{START_S},WETH,1"), bar_s=86_400).series
    assert series.points[0].at_s == START_S + 86_400


def test_import__name_that_the_file_lacks__is_refused(tmp_path: Path) -> None:
    assert "--as: 'BTCC' is not a symbol of closes.csv" in refusal(tmp_path, f"{START_S},WETH,1", names={"BTCC": "WBTC"})


def test_import__prices_of_the_numeraire_alone__are_named(tmp_path: Path) -> None:
    assert "has prices of USDC alone" in refusal(tmp_path, f"{START_S},USDC,1")


def test_import__symbols_beside_the_numeraire__are_advised_by_name(tmp_path: Path) -> None:
    rows = (f"{START_S},USDC,1", f"{START_S},BTC,1", f"{START_S},DOGE,1")
    with pytest.raises(ConfigError, match="prices of USDC alone") as refused:
        read(price_file(tmp_path, *rows))
    assert refused.value.remedy == "name its symbols: --as BTC=WBTC"


def test_import__pair_in_small_letters__is_advised_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read(price_file(tmp_path, f"{START_S},btcusdt,1", f"{START_S},dogeusdt,1"))
    assert refused.value.remedy == "name its symbols: --as btcusdt=WBTC"


def test_import__pair_in_small_letters_of_another_currency__is_refused(tmp_path: Path) -> None:
    assert "closes in EUR" in refusal(tmp_path, f"{START_S},btceur,1", names={"btceur": "WBTC"})


def test_import__unreadable_reference_is_named_with_the_reason(tmp_path: Path) -> None:
    check = JumpCheck({}, START_S, unread_reason="no endpoint answers")
    prices = read_prices(price_file(tmp_path, f"{START_S},WETH,1"), PORTFOLIO, {}, None, START_S, check)
    assert [remark.text for remark in prices.remarks if "today's is not known (no endpoint answers)" in remark.text]


BAR_HEADER = "time,open,high,low,close,volume"


def test_bars__single_bar__needs_its_length(tmp_path: Path) -> None:
    row = f"{START_S},1,2,1,2,5"
    assert mentions(refusal(tmp_path, row, header=BAR_HEADER, names={"closes": "WETH"}), "single bar", "--bar 1d")
    (series,) = read(price_file(tmp_path, row, header=BAR_HEADER), names={"closes": "WETH"}, bar_s=HOUR_S).series
    assert series.points[0].at_s == START_S + HOUR_S


def test_bars__longer_than_the_time_between_them__are_refused(tmp_path: Path) -> None:
    """Each price would be dated days late."""
    path = price_file(tmp_path, *[f"{START_S + day * 86_400},1,2,1,2,5" for day in range(40)], header=BAR_HEADER)
    with pytest.raises(ConfigError, match="has a close every 1 day, and --bar is 30 days"):
        read(path, names={"closes": "WETH"}, bar_s=30 * 86_400)
    assert len(read(path, names={"closes": "WETH"}, bar_s=86_400).series[0].points) == 40


@pytest.mark.parametrize("bar_s", [None, HOUR_S], ids=["derived", "named"])
def test_bars__that_end_after_now__are_left_out(tmp_path: Path, bar_s: int | None) -> None:
    """A site appends the price of now to its bars: neither that row nor the bar around it has ended."""
    starts_s = [START_S + hour * HOUR_S for hour in range(4)]
    rows = [f"{at_s},1,2,1,2,5" for at_s in (*starts_s, starts_s[-1] + 900)]
    prices = read(price_file(tmp_path, *rows, header=BAR_HEADER), names={"closes": "WETH"}, bar_s=bar_s, now_s=starts_s[-1] + 1_800)
    assert [point.at_s for point in prices.series[0].points] == starts_s[1:]
    assert "2 bars of WETH have not ended: left out" in [remark.text for remark in prices.remarks]


def test_of_several_closes_within_an_hour_the_last_is_taken(tmp_path: Path) -> None:
    rows = [f"{START_S + minute * 60},WETH,{2_000 + minute}" for minute in range(0, 120, 15)]
    (series,) = read(price_file(tmp_path, *rows)).series
    assert [point.price for point in series.points] == [unit_price(WETH, price, USDC) for price in (2_045, 2_105)]


def test_gaps_are_counted_by_the_usual_distance(tmp_path: Path) -> None:
    hours = [0, 1, 2, 3, 9, 10, 12]
    prices = read(price_file(tmp_path, *(f"{START_S + hour * HOUR_S},WETH,1" for hour in hours)))
    (series,) = prices.series
    assert (series.interval_s, series.gaps) == (HOUR_S, ((START_S + 3 * HOUR_S, 6 * HOUR_S), (START_S + 10 * HOUR_S, 2 * HOUR_S)))
    (remark,) = prices.remarks
    assert remark.text == "WETH has 2 gaps, at most 6 h, the first from 2025-10-09 12:00, the last from 2025-10-09 19:00 UTC"


def test_a_close_of_now_is_taken(tmp_path: Path) -> None:
    (series,) = read(price_file(tmp_path, f"{NOW_S},WETH,1")).series
    assert series.points[0].at_s == NOW_S


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        pytest.param((f"{START_S},WETH,0",), f"row 1, {format_time(START_S)}: '0' is not a price", id="zero"),
        pytest.param((f"{START_S},WETH,-1",), f"row 1, {format_time(START_S)}: '-1' is not a price", id="negative"),
        pytest.param((f"{START_S},WETH,nan",), f"row 1, {format_time(START_S)}: 'nan' is not a price", id="NaN"),
        pytest.param((f"{START_S},WETH,inf",), f"row 1, {format_time(START_S)}: 'inf' is not a price", id="infinite"),
        pytest.param(
            (f"{START_S},WETH,1e999999999",), f"row 1, {format_time(START_S)}: '1e999999999' is not a price", id="beyond all numbers"
        ),
        pytest.param((f"{START_S},WETH,",), "holds no prices of WETH", id="no price"),
        pytest.param((f"{START_S},WETH,two",), f"row 1, {format_time(START_S)}: 'two' is not a price", id="a word"),
        pytest.param(("yesterday,WETH,1",), "row 1: 'yesterday' is not a time", id="no time"),
        pytest.param((f"{START_S}0,WETH,1",), f"row 1: '{START_S}0' is not a time", id="a time too large"),
        pytest.param((f"{START_S},WETH,1", f"{START_S},WETH,2"), "row 2: WETH has a repeated time", id="repeated time"),
        pytest.param(
            (f"{START_S},WETH,1", f"{START_S + 2},WETH,2", f"{START_S + 1},WETH,2"),
            "row 3: WETH has an unordered time",
            id="unordered time",
        ),
        pytest.param((f"{NOW_S + 1},WETH,1",), "row 1: WETH has a close in the future", id="in the future"),
        pytest.param((f"{START_S},DOGE,1",), "holds no prices of WETH, WBTC, USDC", id="another symbol"),
        pytest.param((f"{START_S},USDC,1", f"{START_S + 1},WETH,1"), "no time has closes of both a token and USDC", id="no common time"),
        pytest.param((), "is empty: it has a header, but no rows", id="no rows"),
    ],
)
def test_what_is_no_price_is_refused_by_row(tmp_path: Path, rows: tuple[str, ...], reason: str) -> None:
    assert reason in refusal(tmp_path, *rows)


def test_a_file_that_is_none_or_lacks_a_column_is_refused(tmp_path: Path) -> None:
    assert "close" in refusal(tmp_path, f"{START_S},WETH,1", header="time,symbol,cost")
    with pytest.raises(ConfigError, match="such file"):
        read(tmp_path / "nowhere.csv")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and nothing of it")
    with pytest.raises(ConfigError, match=r"broken\.parquet"):
        read(broken)
    assert mentions(refusal(tmp_path, f"{START_S},BTC,1", names={"BTC": "XYZ"}), "--as", "'XYZ'")


@pytest.mark.slow
def test_real_hourly_bars_are_read_whole_with_their_gaps() -> None:
    if not REAL.exists():
        pytest.skip(f"{REAL} is not on this machine")
    with_dollar = read(REAL, names={"BTC": "WBTC", "ETH": "WETH"}, bar_s=HOUR_S)
    for series in with_dollar.series:  # the pair of USDC was delisted on 2022-09-26: from then on nothing can be divided by it
        assert series.points[-1].at_s < 1_664_236_800
        assert series.row_count > len(series.points) > 12_000
        assert series.interval_s == HOUR_S
        assert series.gaps
    assert "DOGE" in with_dollar.skipped_symbols
