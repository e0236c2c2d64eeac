"""Bars of a backtest without a decision: each with its own reason, in document and page."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("polars")
pytest.importorskip("empyrical")

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
        "no decision at 1 bars: the price of ETH is 10,900 s old",
    )
    unseen = HaltLog()
    unseen.add_unevaluated(2)
    assert unseen.notes() == ("no decision at 2 bars: a price is too old",)
