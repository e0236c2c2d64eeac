"""A whole search: what is chosen, what of the data it never sees, and when a setting is recommended."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from agent.backtest.report.page import report_document as report
from agent.backtest.settings import BacktestSpec, make_spec
from agent.backtest.simulate import simulate
from agent.backtest.tune import jobs
from agent.backtest.tune.grid import PolicyChoice
from agent.backtest.tune.jobs import (
    AllocatorSchedule,
    RunEngine,
    TuneJob,
    buy_and_hold_values,
    estimate_work,
    slice_settings,
    spec_for_choice,
)
from agent.backtest.tune.report import tune_document, tune_page
from agent.backtest.tune.search import TuneResult
from agent.backtest.tune.statistics import (
    ConfidenceInterval,
    Excess,
    Objective,
    OverfittingEstimate,
    WalkForwardMode,
    compare_neighbours,
    format_signed_percent,
    heat_map,
    judge_choice,
    last_quarter_start,
    make_folds,
    walk_forward,
)
from agent.errors import ConfigError
from agent.layers.holding.state import HoldingConfig
from agent.model import AllocationMethod, Destination, Every, HybridTrigger, Threshold
from tests.support.backtests import CALENDAR, DAY_S, FAIR, HOUR_S, TERMS, grid_of, hourly, search, swinging, tune_result_of, walks
from tests.support.text import mentions, raises_field

pytest.importorskip("numba")


def test_a_grid_is_every_combination_that_makes_sense() -> None:
    grid = grid_of("1%rel..30%rel:12,5%abs", "1d,7d,28d", destination="target,halfway,band", allocator="fixed,hrp")
    choices = grid.choices()
    assert len(choices) == len(set(choices)) == grid.setting_count == 2 * (13 * 3 + 13 * 3 * 3 + 3 * 2)
    assert choices[0] == PolicyChoice(Threshold(None, 100))
    assert PolicyChoice(HybridTrigger(Threshold(500, None), Every(7 * DAY_S)), Destination.BAND, AllocationMethod.HRP) in choices
    assert not any(isinstance(choice.trigger, Every) and choice.destination is Destination.BAND for choice in choices)
    widths = [band.relative_bps for band in grid.bands if band.relative_bps]
    assert (widths[0], widths[1], widths[-1], len(widths)) == (100, 364, 3_000, 12)
    assert grid_of("5%rel", "1d", trigger="hybrid").setting_count == 1
    assert mentions(choices[-1].label, "28 days", "halfway", "hrp")
    assert (
        grid_of("5%rel", "1d", destination="band", trigger="hybrid").choices()[0].backtest_options
        == "--band 5%rel --every 86400s --destination band"
    )


@pytest.mark.parametrize(
    ("band", "every", "destination", "named"),
    [
        pytest.param("", "7d", "band", "the grid is empty", id="no band for a destination"),
        pytest.param("1%rel..30%rel:9999,1%abs..30%abs:9999", "1h..28d:9999", "target", "more than 1,000,000", id="too many settings"),
        pytest.param("1%rel..30%rel", "", "target", "has no number of values", id="range without a number"),
        pytest.param(f"1%rel..30%rel:{'9' * 5_000}", "", "target", "has no number of values", id="range of a long number"),
        pytest.param("30%rel..1%rel:3", "", "target", "is not ascending", id="falling range"),
        pytest.param("1%rel..30%abs:3", "", "target", "mixes a relative and an absolute band", id="mixed units"),
        pytest.param("5", "", "target", "is not a band", id="band without unit"),
        pytest.param("0%rel", "", "target", "is not within 0 and 100 %", id="band of nothing"),
        pytest.param("", "29d", "target", "is outside the valid intervals", id="interval too long"),
        pytest.param("", "0s", "target", "is outside the valid intervals", id="interval of nothing"),
        pytest.param("5%rel", "", "zone", "--grid destination: 'zone'", id="zone"),
    ],
)
def test_a_grid_that_is_none_is_named(band: str, every: str, destination: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        grid_of(band, every, destination=destination)
    assert named in caught.value.message


def test_the_last_quarter_changes_nothing_that_the_search_sees() -> None:
    table = walks(1, 240)
    closes = table.closes.copy()
    closes[last_quarter_start(240) :] *= np.linspace(1, 5, 60)[:, None] ** np.array([1, -1])
    first_result, other = (tune_result_of(search(prices, every="7d")) for prices in (table, replace(table, closes=closes)))
    for name in ("scores", "excess_growths", "best_index", "deflated_sharpe", "overfitting", "neighbours", "fold_claims"):
        assert np.array_equal(getattr(first_result, name), getattr(other, name)), name
    assert [run_result.value_by_mark.tolist() for run_result in first_result.run_results] == [
        run_result.value_by_mark.tolist() for run_result in other.run_results
    ]
    assert first_result.claims != other.claims
    assert first_result.last_quarter_start_s == table.times_s[180]


def test_real_edge__is_found_and_claimed_within_its_interval() -> None:
    tune_result = tune_result_of(search(swinging(480), every="14d"))
    assert tune_result.verdict.is_recommended, tune_result.verdict.sentences
    assert isinstance(tune_result.choices[tune_result.best_index].trigger, Threshold)
    for claim in tune_result.claims:
        assert 0 < claim.interval.low < claim.interval.mean < claim.interval.high
    assert tune_result.overfitting.probability < 0.5
    assert tune_result.deflated_sharpe.probability > 0.95
    document = tune_document(tune_result)
    assert document["recommendation"]["label"] == tune_result.choices[tune_result.best_index].label
    text = " ".join(document["verdict"])
    assert format_signed_percent(tune_result.claims[0].interval.low if tune_result.claims[0].interval else 0.0) in text
    assert "lower end of each interval" in text
    assert json.loads(json.dumps(document)) == document


def test_noise_gets_no_recommendation_and_a_safe_default() -> None:
    verdicts = [tune_result_of(search(walks(seed, 240), every="7d")).verdict for seed in range(6)]
    assert sum(verdict.is_recommended for verdict in verdicts) <= 1
    plain = next(verdict for verdict in verdicts if not verdict.is_recommended)
    assert "No edge" in plain.sentences[-1]
    assert "so the safe default is recommended: every 28 days" in plain.sentences[-1]
    assert "every 28 days" in plain.safe_default


def claim(low: float, rival: str = "hold") -> Excess:
    return Excess(rival, ConfidenceInterval(low + 0.01, low, low + 0.02, 100, 3.0))


@pytest.mark.parametrize(
    ("claims", "chance", "reason"),
    [
        pytest.param((claim(0.01), claim(0.02, "the calendar")), 0.1, None, id="both intervals above zero"),
        pytest.param((claim(0.01), claim(0.02, "the calendar")), None, None, id="chance unknown"),
        pytest.param((claim(-0.001), claim(0.02, "the calendar")), 0.1, "No edge over hold was found", id="hold not beaten"),
        pytest.param((claim(0.01), claim(-0.02, "the calendar")), 0.1, "No edge over the calendar was found", id="calendar not beaten"),
        pytest.param((claim(1e-12), claim(0.02, "the calendar")), 0.1, "No edge over hold was found", id="edge of rounding"),
        pytest.param((Excess("hold", None), claim(0.02, "the calendar")), 0.1, "fewer than 30 periods", id="too few periods"),
        pytest.param((claim(0.01), claim(0.02, "the calendar")), 0.5, "below the median in the other in 50 %", id="overfitted"),
    ],
)
def test_recommendation__needs_both_intervals_and_little_overfit(
    claims: tuple[Excess, ...], chance: float | None, reason: str | None
) -> None:
    risk = None if chance is None else OverfittingEstimate(chance, 70, 8)
    tune_verdict = judge_choice(PolicyChoice(Threshold(None, 500)), CALENDAR, claims, risk)
    assert tune_verdict.is_recommended == (reason is None)
    assert reason is None or reason in " ".join(tune_verdict.sentences)


def test_the_calendar_rule_itself_never_beats_itself() -> None:
    tune_result = tune_result_of(search(swinging(480), band="", every="28d"))
    assert not tune_result.verdict.is_recommended
    assert tune_result.claims[1].interval is not None
    assert tune_result.claims[1].interval.high == 0.0
    assert mentions(tune_result.claims[1].text, "the same")
    assert (tune_result.overfitting, tune_result.neighbours) == (None, None)


def test_folds_judge_only_what_comes_after_they_chose() -> None:
    for walk in WalkForwardMode:
        folds = make_folds(120, 4, walk)
        assert [(fold.evaluation_start, fold.evaluation_end) for fold in folds] == [(40, 60), (60, 80), (80, 100), (100, 120)]
        assert [fold.choice_start for fold in folds] == ([0] * 4 if walk is WalkForwardMode.ANCHORED else [0, 20, 40, 60])
    assert make_folds(11, 4, WalkForwardMode.ANCHORED) == ()
    returns = np.zeros((120, 3))
    returns[:60, 1], returns[60:, 2] = 0.01, 0.02
    chosen = [
        fold_result.choice_index for fold_result in walk_forward(returns, Objective.GROWTH, make_folds(120, 4, WalkForwardMode.ROLLING))
    ]
    assert chosen == [1, 1, 2, 2]  # the third saw twenty periods of each
    assert walk_forward(returns, Objective.GROWTH, make_folds(120, 4, WalkForwardMode.ROLLING))[1].out_of_sample_score == 0.0
    returns[20:60, 2] = 0.005
    returns[60:, 2] = 0.05
    second = walk_forward(returns, Objective.GROWTH, make_folds(120, 4, WalkForwardMode.ROLLING))[1]
    assert (second.choice_index, second.in_sample_score) == (1, pytest.approx(0.01))  # by far the worse one of the fold that judges it
    assert (
        walk_forward(np.zeros((120, 3)), Objective.GROWTH, make_folds(120, 4, WalkForwardMode.ANCHORED))[0].choice_index == 0
    )  # of equals the first


def test_heat_map__has_each_setting_and_its_fall_to_neighbours() -> None:
    choices = grid_of("1%rel..5%rel:5,5%abs", "1d,7d", destination="target,halfway").choices()
    value = {choice: float(i % 7) for i, choice in enumerate(choices)}
    best = next(i for i, choice in enumerate(choices) if choice == PolicyChoice(HybridTrigger(Threshold(None, 300), Every(7 * DAY_S))))
    value[choices[best]] = 10.0
    objective = np.array([value[choice] for choice in choices])
    setting_map = heat_map(choices, objective, best)
    assert (setting_map.row_axis.name, setting_map.column_axis.name) == ("band", "interval")
    assert setting_map.row_axis.labels == ("1 % rel", "2 % rel", "3 % rel", "4 % rel", "5 % rel", "5 % abs", "no band")
    assert setting_map.column_axis.labels == ("no interval", "1 day", "7 days")
    assert setting_map.best_cell == (2, 2)
    assert setting_map.scores[2, 2] == 10.0
    assert setting_map.scores[0, 1] == value[PolicyChoice(HybridTrigger(Threshold(None, 100), Every(DAY_S)))]
    assert np.isnan(setting_map.scores[6, 0])
    alone = [best, *(i for i, choice in enumerate(choices) if choice.destination is Destination.HALFWAY)]
    filled = heat_map([choices[i] for i in alone], objective[alone], 0)
    assert filled.scores[0, 1] == value[PolicyChoice(HybridTrigger(Threshold(None, 100), Every(DAY_S)), Destination.HALFWAY)]
    assert filled.scores[filled.best_cell] == 10.0
    beside = [
        PolicyChoice(HybridTrigger(Threshold(None, 200), Every(7 * DAY_S))),
        PolicyChoice(HybridTrigger(Threshold(None, 400), Every(7 * DAY_S))),
        PolicyChoice(HybridTrigger(Threshold(None, 300), Every(DAY_S))),
        PolicyChoice(HybridTrigger(Threshold(None, 300), Every(7 * DAY_S)), Destination.HALFWAY),
    ]
    near = compare_neighbours(choices, objective, best)
    falls = [10.0 - value[setting] for setting in beside]
    assert (near.neighbour_count, near.mean_decline, near.largest_decline) == (4, pytest.approx(np.mean(falls)), max(falls))
    assert near.median_decline == 10.0 - np.median(objective)


def test_kernel_and_full_step_find_the_same() -> None:
    tune_spec = search(walks(3, 24), band="8%rel", destination="target,halfway")
    quick = tune_result_of(tune_spec)
    whole = tune_result_of(replace(tune_spec, uses_full_step=True))
    assert dict(quick.run_counts_by_engine) == {"kernel": 3}
    assert dict(whole.run_counts_by_engine) == {"full": 3}
    assert sum(run_result.rebalance_count for run_result in quick.run_results) >= 2
    # The calendar rule apart: at the first bar the full step finds dust to trade, refuses, and reviews a bar later.
    for quick_result, other in zip(
        (*quick.run_results, quick.last_quarter_results[0]), (*whole.run_results, whole.last_quarter_results[0]), strict=True
    ):
        assert quick_result.value_by_mark == pytest.approx(other.value_by_mark, rel=1e-5)
        assert quick_result.rebalance_count == other.rebalance_count
        assert (quick_result.turnover, quick_result.costs) == pytest.approx((other.turnover, other.costs), rel=1e-3)
    assert whole.best_index == quick.best_index


def test_setting_unknown_to_the_kernel__takes_the_full_step() -> None:
    tune_spec = search(
        walks(4, 14), band="25%rel", allocator="inverse_volatility", allocator_schedule=AllocatorSchedule(4 * DAY_S, 6 * DAY_S)
    )
    tune_result = tune_result_of(tune_spec)
    assert dict(tune_result.run_counts_by_engine) == {"kernel": 1, "full": 1}
    plain = tune_result_of(search(tune_spec.table, band="25%rel"))
    fixed = plain.run_results[0]
    chosen = tune_result.run_results[0]
    assert chosen.value_by_mark[2] == pytest.approx(fixed.value_by_mark[2], rel=1e-5)  # nothing is known yet: the targets count
    assert chosen.value_by_mark[-1] != pytest.approx(fixed.value_by_mark[-1], rel=1e-4)
    last = tune_result.last_quarter_results[0].value_by_mark  # of three bars, after six more in which the allocator looked at prices
    assert len(last) == len(tune_result.last_quarter_hold_values) == len(tune_result.last_quarter_results[1].value_by_mark) == 3
    assert last[0] == pytest.approx(10_000)
    assert last[-1] != pytest.approx(
        plain.last_quarter_results[0].value_by_mark[-1], rel=1e-4
    )  # it begins with chosen weights, not with the targets
    spec = spec_for_choice(tune_spec.backtest, tune_result.choices[0], tune_spec.allocator_schedule, DAY_S)
    direct = simulate(spec, tune_spec.table.bars(0, 9), FAIR)  # and no later bar
    assert chosen.value_by_mark[:9] == pytest.approx(direct.equity)


def test_gas_and_delay_rule_the_kernel_out() -> None:
    for market in (replace(FAIR, gas_price_wei=10**9), replace(FAIR, latency_bars=1)):
        assert tuned_engines(market) == {RunEngine.FULL}
    assert tuned_engines(FAIR) == {RunEngine.KERNEL}


def test_setting_of_a_layer__rules_the_kernel_out() -> None:
    """The kernel knows no layer, and would leave the time out that an asset is held."""
    backtest = search(walks(5, 40)).backtest
    token = backtest.portfolio.assets[0].token.address
    assert tuned_engines(FAIR, replace(backtest, layers=(HoldingConfig((token,), 7 * DAY_S),))) == {RunEngine.FULL}


def tuned_engines(market: object, backtest: BacktestSpec | None = None) -> set[RunEngine]:
    tune_spec = search(walks(5, 40), settings=market)
    if backtest is not None:
        tune_spec = replace(tune_spec, backtest=backtest)
    job = TuneJob(tune_spec.table, tune_spec.backtest, tune_spec.settings, tune_spec.grid.choices(), (0, 1), TERMS)
    return {job.engine(choice) for choice in job.choices}


def test_hold__begins_at_targets_and_pieces_carry_prices() -> None:
    table = walks(6, 20)
    closes = table.closes.copy()
    closes[9:12, 1] = np.nan
    table = replace(table, closes=closes)
    part = table.bars(10, 20)
    assert part.closes[0].tolist() == [closes[10, 0], closes[8, 1]]
    assert np.isnan(part.closes[1, 1])
    spec = make_spec({"A": 4_000, "B": 3_000, "USD": 3_000}, Every(DAY_S), "USD")
    worth = buy_and_hold_values(spec, FAIR, part, (0, 5))
    assert worth.tolist() == pytest.approx([10_000, 4_000 * closes[15, 0] / closes[10, 0] + 3_000 * closes[15, 1] / closes[8, 1] + 3_000])
    assert slice_settings(replace(FAIR, gas_price_wei=tuple(range(20))), 5, 8).gas_price_wei == (5, 6, 7)


def test_returns_are_daily_whatever_the_bars() -> None:
    closes = np.round(100 * np.exp(np.cumsum(np.random.default_rng(7).normal(0, 0.005, (24 * 60, 2)), axis=0)), 6)
    tune_result: TuneResult = tune_result_of(search(hourly(A=closes[:, 0], B=closes[:, 1])))
    assert tune_result.period_s == pytest.approx(24 * HOUR_S)
    assert len(tune_result.run_results[0].value_by_mark) == 45
    assert tune_document(tune_result)["last_quarter"]["excess_intervals"][0]["mean"] is None  # 14 days are no evidence


def test_final_values_of_the_last_quarter_are_of_the_same_bar() -> None:
    closes = np.round(100 * np.exp(np.cumsum(np.random.default_rng(11).normal(0, 0.002, (24 * 50 + 17, 2)), axis=0)), 6)
    closes[-1] *= 2  # sixteen hours after the last whole day
    last_quarter = tune_document(tune_result_of(search(hourly(A=closes[:, 0], B=closes[:, 1]), band="99%rel")))["last_quarter"]
    assert last_quarter["rebalances"] == 0  # so that it is a hold
    assert last_quarter["final_value"] == last_quarter["hold_value"]


def test_too_little_data_is_refused() -> None:
    with raises_field("--prices", "the first three quarters of 10 bars are 7 periods") as caught:
        tune_result_of(search(walks(8, 10)))
    assert caught.value.remedy == "a search needs at least 8; use more prices"


def test_report__says_the_verdict_and_draws_each_setting() -> None:
    tune_result = tune_result_of(search(walks(9, 240), every="7d"))
    report_page = tune_page(tune_result)
    assert report_page.summary == tune_result.verdict.sentences
    assert {fact.value for fact in report_page.provenance_facts} >= {
        tune_result.stamp["data"],
        tune_result.stamp["grid"],
        tune_result.stamp["settings"],
    }
    assert tune_result.deflated_sharpe is not None
    deflated = tune_result.deflated_sharpe
    luck = f"expected {deflated.threshold:.4f}. The true ratio is above that with probability {deflated.probability * 100:.1f} %"
    assert luck in " ".join(report_page.sections[-1].paragraphs)  # by docs/tune.md: above the best of luck, not above zero
    stability = next(section for section in report_page.sections if section.title == "Stability of the optimum")
    squares = stability.charts[0]["data"][0]
    assert squares["type"] == "scatter"
    assert len(squares["x"]) == int((~np.isnan(tune_result.heat_map.scores)).sum())
    assert sorted(squares["marker"]["color"]) == pytest.approx(sorted(tune_result.scores))
    assert len(next(section for section in report_page.sections if section.title == "Walk-forward").tables[0].rows) == 4


def test_search__repeats_its_report_and_another_seed_differs() -> None:
    tune_spec = search(walks(10, 200))
    tune_result = tune_result_of(tune_spec)
    same = tune_result_of(tune_spec)
    other = tune_result_of(replace(tune_spec, settings=replace(FAIR, seed=1)))
    assert report(tune_page(tune_result)) == report(tune_page(same))
    assert tune_document(tune_result) == tune_document(same)
    means, lows = zip(
        *((claim.interval.mean, claim.interval.low) for claim in (tune_result.claims[1], other.claims[1]) if claim.interval), strict=True
    )
    assert means[0] == means[1]
    assert lows[0] != lows[1]
    assert {tune_document(tune_result)[name] for name in ("grid_hash", "config_hash", "data_hash")} <= {
        fact.value for fact in tune_page(tune_result).provenance_facts
    }


def test_many_runs_of_the_kernel_are_measured_on_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    tune_spec = search(walks(2, 40), band="1%rel..30%rel:50")
    job = TuneJob(tune_spec.table, tune_spec.backtest, tune_spec.settings, tune_spec.grid.choices(), (0, 1), TERMS)
    assert estimate_work(job, job.chunks(), 4).core_s == 0.0  # fifty are nothing
    monkeypatch.setattr(jobs, "MAX_UNMEASURED_RUNS", 10)
    work_estimate = estimate_work(job, job.chunks(), 4)
    assert (work_estimate.run_count, work_estimate.measured_run_count, work_estimate.bars) == (50, 8, 40)
    assert work_estimate.core_s > 0
    assert work_estimate.wall_s == work_estimate.core_s / 4
