"""The report's part on funding: absent without rates, sums that are those of the payments, charts of a bounded size."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec

import numpy as np
import pytest

from agent.backtest.funding import FundingCarry, FundingSummary
from agent.backtest.report.backtest import backtest_page
from agent.backtest.report.page import report_document
from agent.backtest.report.series import MAX_POINTS
from agent.backtest.result import SimulationResult
from tests.support.backtests import HOUR_S, REPORT_START_S, SCALE, result_of

pytestmark = pytest.mark.skipif(find_spec("empyrical") is None, reason="reports need the extra for backtests")

TITLE = "Funding of a full hedge"


def carry(symbol: str, every_s: int, payments: np.ndarray) -> FundingCarry:
    """A holding of 1,000 through the whole run."""
    count = len(payments)
    times_s = REPORT_START_S + every_s * np.arange(count)
    return FundingCarry(symbol, times_s, tuple(int(payment) for payment in payments), (1_000 * SCALE,) * count, (every_s,) * count)


def with_funding(*carries: FundingCarry, bars: int = 500) -> SimulationResult:
    return replace(result_of(bars=bars), funding=FundingSummary(carries, "f0" * 32))


def test_without_rates_there_is_no_such_section() -> None:
    page = report_document(backtest_page(result_of()))
    assert TITLE not in [section["title"] for section in page["sections"]]
    assert "funding hash" not in [fact["name"] for fact in page["origin"]]


def test_lines__end_at_the_table_s_sums_and_change_where_paid() -> None:
    hourly = carry("BTC", HOUR_S, np.full(17, SCALE))
    eighth = carry("ETH", 8 * HOUR_S, np.array([-5, 2, -1]) * SCALE)
    page = report_document(backtest_page(with_funding(hourly, eighth)))
    (section,) = (section for section in page["sections"] if section["title"] == TITLE)
    lines = {line["name"]: line for line in section["figures"][0]["data"]}
    assert lines["BTC"]["y"] == list(range(1, 18))
    assert lines["ETH"]["y"] == [-5] * 8 + [-3] * 8 + [-4]
    assert lines["all"]["y"] == [a + b for a, b in zip(lines["BTC"]["y"], lines["ETH"]["y"], strict=True)]
    assert lines["all"]["x"] == [(REPORT_START_S + HOUR_S * at) * 1_000 for at in range(17)]
    rows = {row[0]: row[1:5] for row in section["tables"][0]["rows"]}
    assert rows["BTC"] == ["17.00", "+876.00 %", "1,000.00", "17"]
    assert (rows["ETH"][0], rows["all"][0], rows["all"][3]) == ("−4.00", "13.00", "20")
    assert next(fact["value"] for fact in page["origin"] if fact["name"] == "funding hash") == "f0" * 32


def test_lone_asset__is_one_line_and_unheld_has_no_yearly_share() -> None:
    nothing = replace(carry("LINK", HOUR_S, np.zeros(3)), notionals=(0, 0, 0))
    (section,) = (section for section in report_document(backtest_page(with_funding(nothing)))["sections"] if section["title"] == TITLE)
    assert [line["name"] for line in section["figures"][0]["data"]] == ["all"]
    assert section["tables"][0]["rows"][0][1:4] == ["0.00", "—", "0.00"]


def test_two_years_of_hours__are_drawn_in_bounded_points() -> None:
    walks = np.random.default_rng(1).normal(0, SCALE, (12, 17_520))
    result = with_funding(*(carry(f"A{at}", HOUR_S, walk) for at, walk in enumerate(walks)))
    (section,) = (section for section in backtest_page(result).sections if section.title == TITLE)
    lines = section.charts[0]["data"]
    assert len(lines) == 7
    assert max(len(line["x"]) for line in lines) <= MAX_POINTS
    assert len(section.tables[0].rows) == 13
    assert result.funding.total == sum((carry.total for carry in result.funding.carries), Fraction(0))
