"""Bars of a backtest without a decision: each with its own reason, in document and page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date

import pytest

pytest.importorskip("polars")
pytest.importorskip("empyrical")

import polars as pl

from agent import research
from agent.backtest.report.backtest import backtest_page
from agent.backtest.report.series import backtest_document
from agent.backtest.result import SimulationResult
from agent.backtest.settings import HaltLog, make_spec
from agent.backtest.stress.paths import SpotScenario
from tests.support.backtests import BAND, guarded_spec, hourly, risen_prices, simulation_of, simulation_under

FLAT = [100.0] * 12


def one_asset() -> SimulationResult:
    return simulation_of(hourly(BTC=FLAT), make_spec({"BTC": 10_000}, BAND, "USD"))


def silent_feed() -> SimulationResult:
    return simulation_under(SpotScenario.ORACLE, guarded_spec(), risen_prices())


def depeg() -> SimulationResult:
    return simulation_under(SpotScenario.DEPEG, guarded_spec(depeg_bps=200), risen_prices())


def missing_prices() -> SimulationResult:
    return simulation_of(hourly(BTC=[*FLAT, *[float("nan")] * 8, *FLAT]))


@pytest.mark.parametrize(
    ("run", "reason"),
    [(one_asset, "a portfolio needs at least 2 assets, this one has 1"), (silent_feed, "BTC"), (missing_prices, "BTC"), (depeg, "USD")],
    ids=["one asset", "silent feed", "missing prices", "depeg"],
)
def test_the_notes_say_why_and_at_how_many_bars(run: Callable[[], SimulationResult], reason: str) -> None:
    result = run()
    assert result.halted_bar_count > 0
    notes = [note for note in backtest_document(result)["notes"] if note.startswith("no decision at ")]
    assert sum(int(note.split()[3]) for note in notes) == result.halted_bar_count
    assert reason in notes[0]
    page = backtest_page(result)
    assert "contradictory" not in " ".join(paragraph for section in page.sections for paragraph in section.paragraphs)


def test_reasons_that_differ_in_numbers_are_one() -> None:
    log = HaltLog()
    log.add("the price of BTC is 7,300 s old")
    log.add("the price of BTC is 10,900 s old")
    log.add_unevaluated(3)
    log.add("the price of ETH is 10,900 s old")
    log.add_unevaluated(0)
    assert log.bar_count == 6
    assert log.notes() == (
        "no decision at 5 bars: the price of BTC is 7,300 s old",
        "no decision at 1 bar: the price of ETH is 10,900 s old",
    )
    unseen = HaltLog()
    unseen.add_unevaluated(2)
    assert unseen.notes() == ("no decision at 2 bars: a price is too old",)


@pytest.mark.parametrize(
    ("limit_s", "words"), [(259_199, "3 days or more"), (90_000, "1 day 1 h or more"), (179, "3 min or more"), (86_399, "1 day or more")]
)
def test_price_that_is_missing_is_named_by_its_time(limit_s: int, words: str) -> None:
    log = HaltLog()
    log.add(f"ETH has no reference price (feed: the feed of ETH is {limit_s + 1} s old, the limit is {limit_s} s)")
    log.add(f"ETH has no reference price (feed: the feed of ETH is {limit_s + 86_401} s old, the limit is {limit_s} s)")
    assert log.notes() == (f"no decision at 2 bars: ETH had no price for {words}; a trade that is due then waits",)


@pytest.mark.parametrize(
    "reason", ["ETH has no reference price (feed: the feed of USD is 9 s old, the limit is 8 s)", "9 pools are closed"]
)
def test_other_reasons_stay_as_they_are(reason: str) -> None:
    log = HaltLog()
    log.add(reason)
    assert log.notes() == (f"no decision at 1 bar: {reason}",)


def daily(days: Iterable[int], closes: Sequence[float | None]) -> pl.DataFrame:
    """Prices of BTC on these days of January, beside ETH, which has all."""
    return pl.DataFrame({"time": [date(2024, 1, day) for day in days], "BTC": closes, "ETH": [50.0] * len(closes)})


def test_bars_without_a_price_are_noted_in_days() -> None:
    prices = daily(range(1, 29), [100.0] * 10 + [None] * 9 + [100.0] * 9)
    notes = research.backtest(prices, {"BTC": 0.5, "USD": 0.5}, BAND).notes
    assert notes == (
        "BTC has 9 missing prices, 2024-01-11 00:00 to 2024-01-19 00:00 UTC, at most 9 in a row",
        "no decision at 7 bars: BTC had no price for 3 days or more; a trade that is due then waits",
    )


def test_trade_that_is_due_in_a_gap__comes_at_the_next_price() -> None:
    prices = daily(range(1, 29), [100.0] * 6 + [None] * 6 + [120.0] * 16)
    trades = research.backtest(prices, {"BTC": 0.5, "USD": 0.5}, research.cron("0 0 11 * *")).trades
    assert [time.day for time in trades["time"]] == [13]


def test_several_gaps__are_noted_with_the_first_and_the_last() -> None:
    prices = daily((1, 2, 3, 4, 6, 7, 8, 9, 12, 13), [1.0, None, 1.0, 1.0, 1.0, 1.0, None, None, 1.0, 1.0])
    notes = research.backtest(prices, {"BTC": 0.5, "USD": 0.5}, BAND).notes
    assert notes[:2] == (
        "BTC has 3 missing prices, 2024-01-02 00:00 to 2024-01-09 00:00 UTC, at most 2 in a row",
        "2 intervals are longer than usual: at most 3 days, the first from 2024-01-04 00:00, the last from 2024-01-09 00:00 UTC",
    )


def test_missing_price_is_noted_in_the_singular() -> None:
    prices = daily((1, 2, 3, 4, 6, 7), [1.0, None, 1.0, 1.0, 1.0, 1.0])
    notes = research.backtest(prices, {"BTC": 0.5, "USD": 0.5}, BAND).notes
    assert notes == (
        "BTC has 1 missing price, at 2024-01-02 00:00 UTC",
        "1 interval is longer than usual: 2 days from 2024-01-04 00:00 UTC",
    )
