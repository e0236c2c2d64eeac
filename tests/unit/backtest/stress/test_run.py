"""Whole stress tests: the same again, the kernel against the live step, tails by hand, and what is refused before it begins."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from math import isnan

import numpy as np
import pytest

from agent.backtest.report.page import report_document
from agent.backtest.settings import PERMISSIVE_LIMITS, OwnerTransfer, make_spec
from agent.backtest.simulate import simulate
from agent.backtest.stress.distribution import (
    FEW_PATHS_TEXT,
    QUANTILES,
    distribution_document,
    expected_shortfall,
    outcome_distributions,
    quantiles,
)
from agent.backtest.stress.paths import SpotScenario
from agent.backtest.stress.run import (
    StressCase,
    StressResult,
    estimate_s,
    measure_statistics,
    run_stress_test,
    stress_page,
)
from agent.backtest.stress.work import (
    BLOCKS_NAME,
    JUMPS_NAME,
    PieceResult,
    StressPiece,
    StressWork,
    band_edges,
    kernel_setting_or_reason,
    max_drawdown,
    measure_by_kernel,
    share_outside_bands,
)
from agent.errors import ConfigError
from agent.layers.holding.state import HoldingConfig
from agent.model import Cron, Destination, Every, HybridTrigger, NoTradeZone, OrderKind, OrdersConfig, OrderTerms, Threshold
from agent.policy.triggers.no_trade_zone import build_tracking
from agent.research.allocators import allocator, with_table
from tests.support.backtests import BAND, DEEP, HOUR_S, START_S, halves, hourly, random_table, simulation_of, wish
from tests.support.studies.stress_tables import TABLE
from tests.support.text import mentions, raises_field

WANTED = make_spec({"BTC": 4_000, "ETH": 3_000, "USD": 3_000}, BAND, "USD", native="ETH")


@pytest.fixture(scope="module")
def tested_stress() -> StressResult:
    return run_stress_test(WANTED, TABLE, DEEP, wish(scenarios=(SpotScenario.CRASH,)))


def test_all_that_was_asked_for_is_there_and_fits_together(tested_stress: StressResult) -> None:
    assert [(case.name, case.engine, len(case.path_metrics)) for case in tested_stress.cases] == [
        (BLOCKS_NAME, "kernel", 20),
        (JUMPS_NAME, "kernel", 20),
        ("calm", "step", 1),
        ("crash", "step", 1),
    ]
    calm, crash = tested_stress.cases[2:]
    assert crash.path_metrics[0].loss == pytest.approx(0.35, abs=0.03), "half of 70 %, whatever the recorded path did"
    assert calm.path_metrics[0].loss != pytest.approx(crash.path_metrics[0].loss)
    assert (tested_stress.path_bars, tested_stress.return_count, tested_stress.skipped_cases) == (40, 199, ())
    assert tested_stress.kernel_difference is not None
    assert tested_stress.kernel_difference < 1e-5
    assert {name for name, _ in tested_stress.versions} >= {"trimtab", "numpy", "numba"}


def test_pieces__of_any_size_and_order_find_the_same(tested_stress: StressResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.backtest.stress.work.KERNEL_PIECE_PATHS", 7)
    sizes = []

    def share(work: StressWork, pieces: Sequence[StressPiece]) -> Iterator[tuple[StressPiece, PieceResult]]:
        sizes.extend(piece.end - piece.start for piece in pieces)
        other: StressWork = pickle.loads(pickle.dumps(work))
        return ((piece, other.run(piece)) for piece in reversed(pieces))

    assert run_stress_test(WANTED, TABLE, DEEP, wish(scenarios=(SpotScenario.CRASH,)), piece_runner=share) == tested_stress
    assert sizes == [7, 7, 6, 7, 7, 6, 1, 1]


def test_seed__finds_the_same_and_more_paths_begin_alike(tested_stress: StressResult) -> None:
    stress_spec = wish(paths=10)
    stress_result = run_stress_test(WANTED, TABLE, DEEP, stress_spec)
    other = run_stress_test(WANTED, TABLE, replace(DEEP, seed=1), stress_spec)
    assert stress_result.cases[0].path_metrics == tested_stress.cases[0].path_metrics[:10]
    assert stress_result.cases[1].path_metrics == tested_stress.cases[1].path_metrics[:10]
    assert stress_result.cases[2] == tested_stress.cases[2]
    assert stress_result.cases[0].path_metrics != other.cases[0].path_metrics
    assert stress_result.data_hash == other.data_hash == tested_stress.data_hash
    assert len({stress_result.config_hash, other.config_hash, tested_stress.config_hash}) == 3


def test_the_kernel_measures_what_the_live_step_measures() -> None:
    for spec in (WANTED, replace(WANTED, policy=replace(WANTED.policy, trigger=HybridTrigger(Threshold(200, None), Every(2 * HOUR_S))))):
        table = random_table(7, 30, volatility=0.05)
        setting = kernel_setting_or_reason(spec, DEEP)
        assert not isinstance(setting, str)
        mine = measure_by_kernel(spec, setting, table, 10_000.0)
        step = simulate(spec, table, DEEP)
        assert mine.rebalance_count == len(step.rebalances) >= 2
        assert mine.loss == pytest.approx(1 - step.equity[-1] / step.equity[0], abs=1e-6)
        assert mine.drawdown == pytest.approx(max_drawdown(step.equity), abs=1e-6)
        assert mine.hold_shortfall == pytest.approx(1 - step.equity[-1] / step.hold_equity[-1], abs=1e-6)
        assert mine.turnover == pytest.approx(float(step.turnover_ratio), rel=1e-3)
        assert mine.outside_share == share_outside_bands(step.weights, band_edges(spec))


def test_loss_and_drawdown__count_the_cost_of_the_first_bar_s_trades() -> None:
    equal = allocator("equal", every="28d", keep="7d", churn="1%", until_chosen="targets")
    spec = with_table(make_spec({"BTC": 8_000, "ETH": 1_000, "USD": 1_000}, BAND, "USD"), equal)
    (calm,) = run_stress_test(spec, TABLE, DEEP, wish(scenarios=())).cases[2].path_metrics
    simulation = simulate(spec, TABLE.bars(TABLE.bar_count - 40, TABLE.bar_count), DEEP)
    assert simulation.rebalances[0].time_s == simulation.times_s[0]
    assert calm.loss == pytest.approx(1 - simulation.equity[-1] / 10_000)
    assert calm.drawdown == pytest.approx(max_drawdown(np.array([10_000.0, *simulation.equity])))


def test_setting_of_a_layer__is_beyond_the_kernel() -> None:
    held_token = WANTED.portfolio.assets[0].token.address
    assert kernel_setting_or_reason(replace(WANTED, layers=(HoldingConfig((held_token,), HOUR_S),)), DEEP) == "a setting such as [holding]"


def test_kernel__follows_the_tracking_rule_as_the_live_step() -> None:
    """The kernel exchanges one asset after the other, so that amounts differ in the third digit."""
    spec = make_spec({"BTC": 4_000, "ETH": 3_000, "USD": 3_000}, build_tracking("normal"), "USD", destination=Destination.ZONE)
    table = random_table(7, 60, volatility=0.05)
    setting = kernel_setting_or_reason(spec, DEEP)
    assert not isinstance(setting, str)
    by_kernel = measure_by_kernel(spec, setting, table, 10_000.0)
    step = simulate(spec, table, DEEP)
    assert by_kernel.rebalance_count == len(step.rebalances) >= 5
    assert by_kernel.loss == pytest.approx(1 - step.equity[-1] / step.equity[0], abs=1e-4)
    assert by_kernel.turnover == pytest.approx(float(step.turnover_ratio), rel=0.03)


def test_scheduled_review__leaves_weights_outside_until_due() -> None:
    table = hourly(BTC=[100.0] * 5 + [130.0] * 15)
    simulation = simulation_of(table, halves(HybridTrigger(BAND, Every(12 * HOUR_S))))
    assert [rebalance.bar for rebalance in simulation.rebalances] == [12]
    setting = kernel_setting_or_reason(halves(HybridTrigger(BAND, Every(12 * HOUR_S))), DEEP)
    assert not isinstance(setting, str)
    assert measure_by_kernel(halves(HybridTrigger(BAND, Every(12 * HOUR_S))), setting, table, 1e4).outside_share == 7 / 20
    assert isnan(measure_by_kernel(halves(Every(HOUR_S)), replace(setting, trigger=Every(HOUR_S)), table, 1e4).outside_share)


def test_policy_unknown_to_the_kernel__takes_the_live_step() -> None:
    spec = halves(HybridTrigger(BAND, Cron("0 9 * * *", "UTC")))
    stress_result = run_stress_test(spec, TABLE, DEEP, wish(bars=5))
    assert [(case.name, case.engine) for case in stress_result.cases] == [(BLOCKS_NAME, "step"), (JUMPS_NAME, "step"), ("calm", "step")]
    assert mentions(dict(stress_result.skipped_cases)["kernel"], "calendar schedules")
    assert stress_result.kernel_difference is None
    coin = spec.portfolio.assets[0].token.address
    orders = replace(halves().portfolio, orders=OrdersConfig((OrderTerms(coin, OrderKind.STOP_LOSS, share_bps=2_000),)))
    banded = replace(halves().portfolio, assets=tuple(replace(asset, band=BAND) for asset in halves().portfolio.assets))
    for unknown, why in (
        (replace(halves(), portfolio=orders), "orders"),
        (replace(halves(), portfolio=banded), "bands of single assets"),
        (replace(halves(), policy=replace(halves().policy, destination=Destination.ZONE)), "this destination"),
    ):
        assert kernel_setting_or_reason(unknown, DEEP) == why
    by_horizon = NoTradeZone(replace(build_tracking("normal").risk, horizon_s=30 * 24 * HOUR_S))
    zone = make_spec({"BTC": 5_000, "USD": 5_000}, by_horizon, "USD", destination=Destination.ZONE)
    assert kernel_setting_or_reason(zone, DEEP) == "this destination"
    assert kernel_setting_or_reason(halves(), replace(DEEP, latency_bars=1)) == "latency"
    assert (
        kernel_setting_or_reason(halves(), replace(DEEP, flows=(OwnerTransfer(START_S + HOUR_S, Fraction(1)),)))
        == "deposits and withdrawals"
    )


def test_unfit_scenarios__are_left_out_or_refused_where_named() -> None:
    cash = make_spec({"BTC": 5_000, "ETH": 5_000}, BAND, "EUR")
    stress_result = run_stress_test(cash, TABLE, DEEP, wish(paths=1, bars=5, scenarios=(SpotScenario.DEPEG,)))
    assert "a dollar" in dict(stress_result.skipped_cases)["depeg"]
    assert [case.name for case in stress_result.cases][2:] == ["calm"]
    with raises_field("depeg"):
        run_stress_test(cash, TABLE, DEEP, wish(paths=1, bars=5, scenarios=(SpotScenario.DEPEG,), has_named_scenarios=True))


def test_tails_are_what_a_hand_works_out() -> None:
    losses = np.arange(1, 101) / 100
    assert expected_shortfall(losses) == pytest.approx(0.98)  # 0.96 to 1.00
    assert expected_shortfall(losses[:50]) == pytest.approx((0.50 + 0.49 + 0.48 / 2) / 2.5)
    assert expected_shortfall(losses[:3]) == pytest.approx(0.03)
    assert quantiles(np.arange(101) / 100) == pytest.approx((0.05, 0.25, 0.5, 0.75, 0.95, 0.99))
    assert quantiles(np.array([0.0, float("nan")])) is None
    assert max_drawdown(np.array([1.0, 2.0, 1.5, 3.0, 1.2, 2.0])) == pytest.approx(0.6)
    edges = np.array([[0.4, 0.6], [0.4, 0.6]])
    assert share_outside_bands(np.array([[0.5, 0.5], [0.6, 0.4], [0.61, 0.39], [0.3, 0.7]]), edges) == 0.5


@pytest.mark.parametrize(("paths", "levels"), [(1, 1), (3, 1), (4, 3), (19, 3), (20, 5), (99, 5), (100, 6)])
def test_quantile_without_a_path_beyond_it_is_left_out(paths: int, levels: int) -> None:
    outcomes = np.arange(paths, dtype=float)
    values = quantiles(outcomes)
    assert values is not None
    known = {level: value for level, value in zip(QUANTILES, values, strict=True) if value is not None}
    assert list(known) == sorted(sorted(QUANTILES, key=lambda level: abs(level - 0.5))[:levels])
    assert list(known.values()) == pytest.approx(list(np.quantile(outcomes, list(known))))
    texts = distribution_document(outcomes, 2, is_loss=True)
    assert texts is not None
    assert [text is None for text in texts["quantiles"].values()] == [value is None for value in values]


def test_report_leaves_out_percentiles_of_few_paths_and_says_why(tested_stress: StressResult) -> None:
    few = replace(tested_stress, cases=tuple(replace(case, path_metrics=case.path_metrics[:3]) for case in tested_stress.cases))
    for section in stress_page(few).sections:
        assert FEW_PATHS_TEXT in section.paragraphs
        for table in section.tables:
            for level in ("5 %", "25 %", "75 %", "95 %", "99 %"):
                columns = [
                    column for column, name in enumerate(table.header) if name.removeprefix("return ").removeprefix("end value ") == level
                ]
                assert {row[column] for row in table.rows for column in columns} <= {"–"}
    whole = str(report_document(stress_page(tested_stress)))
    assert "'–'" in whole
    assert "99 % a hundred" in whole


def test_figures_of_a_case_are_those_of_its_paths(tested_stress: StressResult) -> None:
    case: StressCase = tested_stress.cases[0]
    statistics = measure_statistics(case)
    losses = case.metric_values("loss")
    assert float(statistics["loss"]["worst"]) == pytest.approx(losses.max(), abs=1e-6)
    assert float(statistics["loss"]["quantiles"]["50%"]) == pytest.approx(np.median(losses), abs=1e-6)
    assert float(statistics["loss"]["expected_shortfall"]) == pytest.approx(losses.max(), abs=1e-6)  # of twenty
    assert statistics["outside_bands"]["worst"] == "0.000000"
    timed = StressCase("x", "kernel", tuple(replace(path_metric, outside_share=float("nan")) for path_metric in case.path_metrics))
    assert measure_statistics(timed)["outside_bands"] is None


def test_results__are_returns_and_end_values_with_their_worst(tested_stress: StressResult) -> None:
    case: StressCase = tested_stress.cases[0]
    distribution = outcome_distributions(case.metric_values("loss"), 2_000)
    losses = case.metric_values("loss")
    assert float(distribution["return"]["worst"]) == pytest.approx(-losses.max(), abs=1e-6)
    assert float(distribution["return"]["expected_shortfall"]) == pytest.approx(-expected_shortfall(losses), abs=1e-6)
    assert float(distribution["return"]["quantiles"]["5%"]) == pytest.approx(-np.quantile(losses, 0.95), abs=1e-6)
    assert float(distribution["end_value"]["quantiles"]["50%"]) == pytest.approx(2_000 * (1 - np.median(losses)), abs=0.01)
    assert tested_stress.start_value == float(DEEP.start_value)
    assert "end value 50 %" in str(report_document(stress_page(tested_stress)))


def test_report__shows_every_case_and_how_to_repeat_it(tested_stress: StressResult) -> None:
    report_text = report_document(stress_page(tested_stress))
    text = str(report_text)
    for case in tested_stress.cases:
        assert case.name in text
    assert tested_stress.config_hash in text
    assert tested_stress.data_hash in text
    assert mentions(text, "crash", "its only path")
    assert "'20 paths'" in text
    assert "bars of 1 h" in text
    three = replace(
        tested_stress, cases=tuple(replace(case, path_metrics=case.path_metrics[:1] * 3) for case in tested_stress.cases), interval_s=900
    )
    report_text_of_three = str(report_document(stress_page(three)))
    assert mentions(report_text_of_three, "crash", "3 paths")
    assert "bars of 15 min" in report_text_of_three
    titles = [section["title"] for section in report_text["sections"]]
    assert titles == ["Simulated paths", "Stress scenarios"]
    shares = report_text["sections"][0]["figures"][0]["data"]
    assert [sum(share["y"]) for share in shares] == pytest.approx([1, 1])


def test_how_long_it_takes_is_known_before_it_begins() -> None:
    few = estimate_s(wish(), WANTED, DEEP)
    many = estimate_s(wish(paths=20_000, step_paths=100, bars=1_000), WANTED, DEEP)
    assert few < 2 < 100 < many
    timed = make_spec({"BTC": 5_000, "USD": 5_000}, Every(HOUR_S), "USD")
    assert estimate_s(wish(), timed, DEEP) > estimate_s(wish(), WANTED, DEEP)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"paths": 0}, "--paths: 0"),
        ({"paths": -1}, "--paths"),
        ({"paths": 10**7}, "--paths"),
        ({"step_paths": 0}, "--paths step-paths"),
        ({"bars": 2}, "--paths bars"),
        ({"bars": 10**7}, "--paths bars"),
        ({"paths": 10**6, "bars": 10**5}, "would take days"),
    ],
)
def test_numbers_of_none_or_too_much__are_refused_first(changes: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        wish(**changes)


def test_paths_and_blocks_too_long_or_negative_seed__are_named() -> None:
    with raises_field("--paths", "bars", "201, but the file has 200"):
        run_stress_test(WANTED, TABLE, DEEP, wish(paths=1, bars=201))
    with raises_field("--paths", "block", "300", "199"):
        run_stress_test(WANTED, TABLE, DEEP, wish(mean_block_bars=300.0))
    with raises_field("--market", "seed"):
        run_stress_test(WANTED, TABLE, replace(DEEP, seed=-1), wish())
    with raises_field("--prices", "19 moves"):
        run_stress_test(WANTED, random_table(1, 20), DEEP, wish(bars=5))


def test_recorded_path__ends_at_an_asset_s_last_price() -> None:
    closes = TABLE.closes.copy()
    closes[150:, 1] = np.nan
    stress_result = run_stress_test(WANTED, replace(TABLE, closes=closes), DEEP, wish(paths=1, bars=30))
    assert stress_result.cases[2].path_metrics[0].halted_bar_count == 0
    assert stress_result.kernel_difference is not None
    assert any("50 bars" in note for note in stress_result.notes)
    assert any("50 returns" in note for note in stress_result.notes)
    with raises_field("--paths", "bars", "151, but the file has 150"):
        run_stress_test(WANTED, replace(TABLE, closes=closes), DEEP, wish(paths=1, bars=151))


def test_least_trades_fees_and_depths_are_those_of_the_live_step() -> None:
    limited = replace(WANTED, limits=replace(PERMISSIVE_LIMITS, min_trade=Fraction(25 * 10**18)))
    setting = kernel_setting_or_reason(limited, replace(DEEP, fee_pips=3_000, depth=Fraction(10**6)))
    assert not isinstance(setting, str)
    assert (setting.min_trade, setting.costs.fees_bps, setting.costs.depths[:2]) == (25.0, (30.0, 30.0, 0.0), (1e6, 1e6))
    assert isinstance(setting.trigger, Threshold)
