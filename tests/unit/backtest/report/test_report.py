"""Reports without a browser: what is kept of a series, what the words say, bytes, and files."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from agent import artifacts
from agent.app.research.report_files import write_report
from agent.backtest.report import page
from agent.backtest.report.backtest import backtest_page
from agent.backtest.report.page import ReportFact, ReportPage, format_money, format_percent, format_ratio, render_html, write_page
from agent.backtest.report.series import (
    calendar_benchmark,
    downsample_indices,
    drawdown_series,
    growth_series,
    performance,
    risk_metrics,
    unit_changes,
    with_owner_transfers,
)
from agent.backtest.result import time_weighted_return
from agent.errors import ConfigError
from tests.support.backtests import DECIMALS, HOSTILE, START, exact, result_of, with_series

pytestmark = pytest.mark.skipif(find_spec("empyrical") is None, reason="reports need the extra for backtests")

PAGE = ReportPage("One", (ReportFact("value", "1.00"),), (), ("It ended.",))


# Series
@pytest.mark.parametrize("seed", range(5))
def test_thinning__keeps_both_ends_and_every_extreme(seed: int) -> None:
    columns = list(np.random.default_rng(seed).normal(0, 1, (3, 20_000)).cumsum(axis=1))
    columns[1][777] = 1e6
    columns[2][12_345] = -1e6
    indices = downsample_indices(columns, 1_000)
    assert len(indices) <= 1_000
    assert (np.diff(indices) > 0).all()
    assert indices[0] == 0
    assert indices[-1] == 19_999
    for column in columns:
        assert column[indices].min() == column.min()
        assert column[indices].max() == column.max()


def test_short_series__is_not_thinned_and_unknown_breaks_nothing() -> None:
    assert downsample_indices([np.arange(10.0)], 10).tolist() == list(range(10))
    column = np.full(5_000, np.nan)
    column[4_321] = 1.0
    assert 4_321 in downsample_indices([column], 100)


def test_flows_change_no_growth() -> None:
    bare = result_of(every=50)
    moved = result_of(every=50, flows=((120, 5_000.0), (300, -2_000.0)))
    assert not np.allclose(bare.equity, moved.equity)
    assert np.allclose(growth_series(bare).unit_growth, growth_series(moved).unit_growth, rtol=1e-9)
    assert np.allclose(growth_series(bare).hold_unit_growth, growth_series(moved).hold_unit_growth, rtol=1e-9)
    apart = result_of(every=50, flows=((120, 5_000.0), (310, -2_000.0)))
    assert np.allclose(with_owner_transfers(growth_series(apart).unit_growth, apart), apart.equity, rtol=1e-9)


def test_growth_after_a_total_loss_is_none_whatever_is_paid_in() -> None:
    series = result_of(every=50, flows=((120, 5_000.0), (300, 5_000.0)))
    is_empty = (np.arange(len(series.equity)) >= 100) & (np.arange(len(series.equity)) < 120)
    first, second = series.transfers
    lost = with_series(series, equity=np.where(is_empty, 0.0, series.equity), transfers=(replace(first, value_before=Fraction(0)), second))
    growth = growth_series(lost)

    assert not growth.unit_growth[100:].any()
    assert lost.twr == -1
    assert np.isfinite(growth.returns).all()
    assert performance(growth)[0].cagr == -1
    assert performance(growth)[0].max_drawdown == -1
    assert np.isnan(risk_metrics(growth).mean_excess)


@pytest.mark.parametrize(
    ("start", "flows", "end", "growth"),
    [
        pytest.param(100, [(0, 50), (60, 0)], 60, -1, id="lost before a deposit"),
        pytest.param(100, [(0, 0), (0, 50)], 60, -1, id="lost before a second deposit"),
        pytest.param(100, [(110, 50)], 160, 0.1, id="one deposit"),
        pytest.param(100, [(0, 0)], 0, -1, id="nothing left"),
    ],
)
def test_time_weighted_return_skips_periods_that_start_at_zero(start: int, flows: list[tuple[int, int]], end: int, growth: float) -> None:
    exact_flows = [(Fraction(value_before), Fraction(transfer)) for value_before, transfer in flows]

    assert time_weighted_return(Fraction(start), Fraction(end), exact_flows) == pytest.approx(growth)


def test_transfer_buys_nothing_of_a_unit_that_is_worth_nothing() -> None:
    moved = result_of(every=50, flows=((120, 5_000.0),))
    worthless = np.where(np.arange(len(moved.equity)) < 100, 1.0, 0.0)

    assert with_owner_transfers(worthless, moved)[-1] == 0


def test_the_calendar_rule_is_a_hand_made_one() -> None:
    prices = np.array([[1.0, 1.0], [2.0, 1.0], [2.0, 1.0], [1.0, 1.0]])
    times_s = np.arange(4) * 10
    benchmark = calendar_benchmark(prices, np.array([0.5, 0.5]), times_s, 20)
    assert benchmark.tolist() == [1.0, 1.5, 1.5, 1.5 * 0.75]


def test_falls_are_measured_from_the_highest_before() -> None:
    assert drawdown_series(np.array([1.0, 2.0, 1.0, 4.0, 3.0])).tolist() == [0, 0, -0.5, 0, -0.25]


def test_fall__counts_the_cost_of_the_first_bar_s_trades() -> None:
    assert drawdown_series(np.array([0.75, 0.5, 2.0])).tolist() == [-0.25, -0.5, 0]


@pytest.mark.slow
def test_days__are_sampled_at_their_last_bar_without_later_ones() -> None:
    long = result_of(bars=24 * 200, every=200)
    short = result_of(bars=24 * 150, every=200)
    assert growth_series(long).sample_bars.tolist()[:2] == [23, 47]
    assert growth_series(long).samples_per_year == 365
    window = growth_series(long).window_samples
    long_metrics = risk_metrics(growth_series(long))
    two = risk_metrics(growth_series(short))
    assert window == 50 - 1
    assert growth_series(short).window_samples == 37
    same = replace_window(short, 49)
    assert np.allclose(long_metrics.rolling_sharpe[: len(same)], same)
    assert math.isfinite(two.sharpe)


def test_a_year_of_working_days_has_no_more_samples_than_it_has() -> None:
    simulation = result_of(bars=24 * 140, every=200)
    days = np.arange(simulation.bar_count) // 24
    is_working_day = days % 7 < 5
    worked = with_series(
        simulation,
        **{
            name: getattr(simulation, name)[is_working_day]
            for name in ("times_s", "equity", "hold_equity", "weights", "prices", "targets", "bands")
        },
        rebalances=(),
        fees=Fraction(0),
        bar_count=int(is_working_day.sum()),
    )
    own = growth_series(worked)
    assert own.samples_per_year == pytest.approx(365 * 5 / 7, rel=0.02)
    span_s = int(worked.times_s[own.sample_bars[-1]] - worked.times_s[own.sample_bars[0]])
    assert len(own.returns) / own.samples_per_year == pytest.approx(span_s / (365 * 86_400))
    assert own.years == pytest.approx(int(worked.times_s[-1] - worked.times_s[0]) / (365 * 86_400))


def replace_window(short: object, window: int) -> np.ndarray:
    import empyrical

    return np.asarray(empyrical.roll_sharpe_ratio(growth_series(short).returns, window=window, annualization=365))  # type: ignore[arg-type]


def test_risk_is_the_mean_over_the_spread_of_days() -> None:
    series = growth_series(result_of(bars=24 * 100, every=200))
    metrics = risk_metrics(series)
    returns = series.returns
    assert metrics.sharpe == pytest.approx(returns.mean() / returns.std(ddof=1) * math.sqrt(365))
    beyond = np.log1p(series.returns) - np.log1p(series.hold_returns)
    assert metrics.mean_excess * len(returns) / series.samples_per_year == pytest.approx(
        math.log(series.unit_growth[-1] / series.unit_growth[23] / series.hold_unit_growth[-1] * series.hold_unit_growth[23])
    )
    assert metrics.mean_excess_error == pytest.approx(beyond.std(ddof=1) * 365 / math.sqrt(len(beyond)))


def test_what_was_bought_and_sold_is_found_at_its_bar_alone() -> None:
    simulation = result_of(bars=350, every=100)
    moved = unit_changes(simulation)
    quiet = np.delete(moved, [100, 200, 300], axis=0)
    assert np.abs(quiet).max() < 1e-12
    assert (np.abs(moved[[100, 200, 300]]) > 1e-6).all()


# Words
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"every": 0}, "it never rebalanced: no trigger fired"),
        ({"every": 100, "volatility": 0.0}, "made no difference"),
        ({"every": 2, "cost": 0.05}, "did not pay here"),
    ],
)
def test_the_summary_says_so_when_there_is_no_gain(changes: dict[str, float], reason: str) -> None:
    assert reason in backtest_page(result_of(**changes)).summary[0]  # type: ignore[arg-type]  # whole numbers where they have to be


def test_the_summary_names_the_gain_and_its_interval() -> None:
    simulation = result_of(bars=24 * 90, every=24, cost=0.0, volatility=0.02, seed=3)
    ahead = growth_series(simulation).unit_growth[-1] / growth_series(simulation).hold_unit_growth[-1] - 1
    summary = backtest_page(simulation).summary
    assert ahead > 0
    assert f"{ahead * 100:.1f} % above" in summary[0]
    log_growth = math.log(1 + ahead) * 365 / 89  # from the first of 90 daily closes to the last
    assert f"Its log growth was {log_growth * 100:.2f} % a year above" in summary[2]
    assert re.search(r"95 % interval of that mean is [−+][\d.]+ % to [−+][\d.]+ %: (chance|more)", summary[2])


def test_a_gain_beside_flows_is_time_weighted_and_says_so() -> None:
    bare, moved = (result_of(bars=24 * 90, every=24, seed=3, flows=flows) for flows in ((), ((500, 20_000.0),)))
    match = re.search(r"[\d.]+ % (above|below)", backtest_page(bare).summary[0])
    assert match.group() in backtest_page(moved).summary[0]
    assert any("time-weighted" in sentence for sentence in backtest_page(moved).summary)
    assert not any("time-weighted" in sentence for sentence in backtest_page(bare).summary)


def test_flows_stand_one_by_one_where_the_run_came_from() -> None:
    changed_result = replace(result_of(flows=((30, 5_000.0), (60, -1_250.5))), parameters=(("flows", "(…)"), ("depth", "5")))
    origin = [(provenance_fact.name, provenance_fact.value) for provenance_fact in backtest_page(changed_result).provenance_facts]
    assert ("flow, 2 Jan 2021", "5,000.00 USD") in origin
    assert ("flow, 3 Jan 2021", "−1,250.50 USD") in origin
    assert "flows" not in dict(origin)


def test_what_rebalancing_earned_adds_up_to_what_it_was_ahead_by() -> None:
    simulation = result_of(bars=24 * 30, every=24, cost=0.002)
    section = next(section for section in backtest_page(simulation).sections if section.title == "Return attribution")
    rows = {name: float(value.replace("−", "-").rstrip("%")) for name, value, _ in section.tables[0].rows}
    assert "gas money" not in rows
    ahead = math.log(growth_series(simulation).unit_growth[-1] / growth_series(simulation).hold_unit_growth[-1]) * 100
    assert rows["excess return"] == pytest.approx(ahead, abs=0.006)
    assert sum(value for name, value in rows.items() if name != "excess return") == pytest.approx(ahead, abs=0.03)
    paid = with_series(simulation, gas=exact(50.0), equity=simulation.equity - np.linspace(0, 50, simulation.bar_count))
    section = next(section for section in backtest_page(paid).sections if section.title == "Return attribution")
    assert "gas money" in [row[0] for row in section.tables[0].rows]


def test_flows__are_not_called_gas_money_in_the_difference() -> None:
    simulation = result_of(bars=24 * 60, every=24, seed=3, flows=((500, 20_000.0),))
    hold_equity = simulation.hold_equity.copy()
    hold_equity[600:] *= 0.98  # what was held met the market at weights of its own
    moved = with_series(simulation, hold_equity=hold_equity, gas=exact(0.0))
    for gas, name in ((exact(0.0), "flows"), (exact(5.0), "flows and gas money")):
        section = next(section for section in backtest_page(replace(moved, gas=gas)).sections if section.title == "Return attribution")
        assert section.tables[0].rows[4][0] == name


def test_costs_and_years_are_those_of_the_run() -> None:
    simulation = result_of(bars=600, every=100, cost=0.01)
    tables = {section.title: section.tables for section in backtest_page(simulation).sections}
    assert tables["Costs"][0].rows[0][:2] == ("fees", format_money(simulation.fees, DECIMALS))
    assert tables["Costs"][0].rows[0][4] == "100.0 bps"
    assert tables["Taxable gains"][0].rows == (("2021", "12.50"), ("2022", "−3.25"), ("all", "9.25"))
    assert ("price_impact", "2") in tables["Run log"][0].rows


def test_a_run_can_be_repeated_by_what_stands_at_its_end() -> None:
    origin = {
        provenance_fact.name: provenance_fact.value
        for provenance_fact in backtest_page(replace(result_of(), policy_json='{"band":500}')).provenance_facts
    }
    assert origin["config hash"] == "c0" * 32
    assert origin["data hash"] == "da" * 32
    assert origin["seed"] == "1"
    assert origin["trimtab"] == "0.1.0"
    assert origin["policy"] == '{"band":500}'
    assert origin["targets at the start"] == "BTC 33.33 %, ETH 33.33 %, USD 33.33 %"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("12345.678", "12,345.68"),
        ("7347.6657", "7,347.67"),
        ("999.995", "1,000.00"),
        ("0.125", "0.1250"),
        ("62", "62.00"),
        ("-3.25", "−3.25"),
        ("0", "0.00"),
        ("0.000012349", "0.00001235"),
        ("0.1", "0.1000"),
        ("0.001", "0.001000"),
        ("0.00099999999999999999999", "0.0010000"),
    ],
)
def test_money_has_its_thousands_its_places_and_its_sign(value: str, text: str) -> None:
    assert format_money(Fraction(value) * 10**6, 6) == text


def test_money_below_its_places_has_no_sign() -> None:
    assert format_money(Fraction(-1, 10**16), 6) == "0." + "0" * 18


def test_what_is_no_number_is_a_dash() -> None:
    assert format_percent(math.nan) == format_ratio(math.inf) == "—"
    assert format_percent(-0.00001, 2, signed=True) == "0.00 %"
    assert format_percent(0.1234, signed=True) == "+12.3 %"
    assert format_ratio(-1.5) == "−1.50"


# Files
def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_report(result_of(bars=300), tmp_path / f"{name}.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.html", "one.json", "two.html", "two.json"]


def test_document__holds_the_same_texts_figures_and_tables(tmp_path: Path) -> None:
    path, beside = write_report(replace(result_of(bars=50, every=20), notes=(HOSTILE,)), tmp_path / "report.html")
    document = json.loads(beside.read_text())
    assert document["title"] == "BTC, ETH and USD"
    assert [section["title"] for section in document["sections"]][:2] == ["Value", "Return attribution"]
    assert document["sections"][0]["figures"][0]["data"][-1]["y"][0] == START
    assert HOSTILE in json.dumps(document, ensure_ascii=False).replace('\\"', '"')
    assert HOSTILE not in path.read_text()


def test_a_failed_writing_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def broken(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(OSError, match="No space"):
        write_page(PAGE, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_without_plotly_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page._plotly_script.cache_clear()
    monkeypatch.setattr(artifacts, "_REPO", tmp_path)
    monkeypatch.setattr(artifacts, "_PACKAGE", tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        render_html(PAGE)
    assert caught.value.remedy == "pip install 'trimtab[analysis]'"


def test_python_bundle__draws_where_there_is_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page._plotly_script.cache_clear()
    monkeypatch.setattr(artifacts, "_REPO", tmp_path)
    monkeypatch.setattr(artifacts, "_PACKAGE", tmp_path)
    assert artifacts.plotly_bundle().name == "plotly.min.js"
    assert "Plotly, Inc." in render_html(PAGE)
    page._plotly_script.cache_clear()
