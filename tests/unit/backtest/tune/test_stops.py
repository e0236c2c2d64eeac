"""Stop levels in a search: the grid, what a stop does to a run, its trials, and what the report says about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.backtest.data import PriceTable
from agent.backtest.settings import make_spec
from agent.backtest.tune.grid import NO_STOP, PolicyGrid, StopLevel
from agent.backtest.tune.jobs import RunEngine, TuneJob, spec_for_choice, with_stop
from agent.backtest.tune.report import tune_document
from agent.backtest.tune.search import TuneSpec
from agent.cli.research.trial_texts import parse_stops
from agent.errors import ConfigError
from agent.model import PORTFOLIO_SUBJECT, AllocationMethod, Every, OrderKind, OrdersConfig, OrderTerms
from tests.support.backtests import DAY_S, TERMS, WALKING, daily, grid_of, search, tune_result_of, walks

pytest.importorskip("numba")
LOSS_20 = StopLevel(OrderKind.STOP_LOSS, 2_000)
TRAILING_20 = StopLevel(OrderKind.TRAILING_STOP, 2_000)


def with_stops(table: PriceTable, stop: str, band: str = "15%rel", **changes: object) -> TuneSpec:
    """A search over bands and stops."""
    tune_spec = search(table, band, **changes)
    return replace(tune_spec, grid=replace(tune_spec.grid, stops=parse_stops(stop)))


@pytest.mark.parametrize(
    ("stop", "levels"),
    [
        ("", [None]),
        ("off", [NO_STOP]),
        ("20%", [NO_STOP, LOSS_20]),
        ("2000bps,20%,off", [NO_STOP, LOSS_20]),
        ("trailing:20%", [NO_STOP, TRAILING_20]),
        ("10%..40%:4", [NO_STOP, *(StopLevel(OrderKind.STOP_LOSS, bps) for bps in (1_000, 2_000, 3_000, 4_000))]),
        ("20%,trailing:10%..30%:3", [NO_STOP, LOSS_20, *(StopLevel(OrderKind.TRAILING_STOP, bps) for bps in (1_000, 2_000, 3_000))]),
    ],
)
def test_grid__stops_multiply_settings_and_none_is_one(stop: str, levels: list[StopLevel | None]) -> None:
    grid = grid_of("5%rel,10%rel", "7d", destination="target,halfway", stop=stop)
    assert list(grid.stops) == levels
    plain: PolicyGrid = replace(grid, stops=(None,))
    choices = grid.choices()
    assert len(choices) == len(set(choices)) == grid.setting_count == plain.setting_count * len(levels)
    assert [choice.label for choice in plain.choices()] == [
        choice.label for choice in grid_of("5%rel,10%rel", "7d", destination="target,halfway").choices()
    ]


@pytest.mark.parametrize(
    "stop", ["1%", "0%", "100%", "150%", "20", "low", "40%..10%:4", "10%..40%", "trailing:", "trailing:1%", "rising:20%"]
)
def test_grid__refuses_a_stop_that_is_none(stop: str) -> None:
    with pytest.raises(ConfigError, match="--grid stop"):
        grid_of("5%rel", stop=stop)


FALLING = [100.0] * 4 + [90.0, 75.0] + [40.0] * 18
RISING_FIRST = [100.0, 150, 200, 190, 155, 150] + [100.0] * 18
STEADY = [50.0] * 24


@pytest.mark.parametrize(
    ("stop", "closes", "stopped", "value"),
    [
        pytest.param(NO_STOP, FALLING, 0, None, id="no stop, fall"),
        pytest.param(LOSS_20, FALLING, 1, 9_000, id="stop loss, fall"),
        pytest.param(TRAILING_20, FALLING, 1, 9_000, id="trailing stop, fall"),
        pytest.param(StopLevel(OrderKind.STOP_LOSS, 9_000), FALLING, 0, None, id="level never reached"),
        pytest.param(LOSS_20, RISING_FIRST, 0, None, id="stop loss, rise first"),
        pytest.param(TRAILING_20, RISING_FIRST, 1, None, id="trailing stop, rise first"),
    ],
)
def test_run__stop_sells_its_asset_and_stays_out(stop: StopLevel, closes: list[float], stopped: int, value: float | None) -> None:
    """40 % of A, bought at 100; sold at 75, it leaves 6,000 and 40 × 75 = 3,000, and nothing trades later."""
    tune_spec = with_stops(daily({"A": closes, "B": STEADY}), "", band="90%rel")
    choice = replace(tune_spec.grid.choices()[0], stop=stop)
    job = TuneJob(tune_spec.table, tune_spec.backtest, tune_spec.settings, (choice,), (0, 8, 23), TERMS)
    (result,) = job.run(job.chunks()[0])
    assert result.stopped_asset_count == stopped
    if value is not None:
        assert result.value_by_mark[1] == pytest.approx(value, rel=0.005)
    if stopped and closes is FALLING:
        assert result.value_by_mark[2] == pytest.approx(result.value_by_mark[1], rel=1e-9)


def test_search__without_stops_is_the_same_with_the_option() -> None:
    table = walks(7, 40)
    plain = tune_result_of(search(table, "10%rel"))
    beside = tune_result_of(with_stops(table, "30%", "10%rel"))
    assert beside.run_results[0].value_by_mark == pytest.approx(plain.run_results[0].value_by_mark, rel=1e-12)
    assert plain.stamp["grid"] != beside.stamp["grid"]


@pytest.mark.slow
def test_search__counts_every_stop_as_a_trial() -> None:
    result = tune_result_of(with_stops(walks(8, 48), "15%,trailing:10%", "5%rel,20%rel"))
    assert len(result.choices) == 6
    assert result.deflated_sharpe.trial_count == 6
    assert dict(result.run_counts_by_engine) == {"kernel": 3, "full": 4}
    first_note, best_note, config_note = tune_document(result)["notes"]
    stopped = sum(run.stopped_asset_count > 0 for run in result.run_results)
    assert first_note.startswith(f"4 of 6 settings have a stop, each of them a trial of its own; {stopped} of them")
    without = max((score, choice.label) for choice, score in zip(result.choices, result.scores, strict=True) if choice.stop == NO_STOP)
    assert without[1] in best_note
    assert "stop_loss" in config_note
    assert "stop" in (result.heat_map.row_axis.name, result.heat_map.column_axis.name)


@pytest.mark.slow
def test_search__noise_recommends_no_stop() -> None:
    verdicts = [tune_result_of(with_stops(walks(seed, 40), "10%,25%,trailing:15%", "10%rel")).verdict for seed in (11, 12, 13)]
    assert not any(verdict.is_recommended for verdict in verdicts)


@pytest.mark.slow
def test_search__future_prices_change_no_stop_of_the_past() -> None:
    table = walks(9, 48)
    later = table.closes.copy()
    later[36:] *= np.linspace(0.9, 0.2, 12)[:, None]
    stop = "15%,trailing:10%"
    first_result, other = (tune_result_of(with_stops(prices, stop, "10%rel")) for prices in (table, replace(table, closes=later)))
    assert first_result.scores.tolist() == other.scores.tolist()


def test_search__results_of_stops_are_resumed(tmp_path: Path) -> None:
    tune_spec = with_stops(walks(8, 40), "15%,trailing:10%", "10%rel")
    first = tune_result_of(tune_spec, tmp_path / "out")
    again = tune_result_of(tune_spec, tmp_path / "out")
    assert again.resumed_run_count == len(again.choices) + 1
    assert [run.stopped_asset_count for run in again.run_results] == [run.stopped_asset_count for run in first.run_results]
    with pytest.raises(ConfigError, match="the grid"):
        tune_result_of(with_stops(tune_spec.table, "15%", "10%rel"), tmp_path / "out")


@pytest.mark.parametrize("stop", [NO_STOP, LOSS_20, TRAILING_20])
def test_spec__stop_replaces_those_of_assets_and_nothing_else(stop: StopLevel) -> None:
    spec = make_spec(WALKING, Every(28 * DAY_S), "USD")
    token = {asset.token.symbol: asset.token.address for asset in spec.portfolio.assets}
    kept = (OrderTerms(PORTFOLIO_SUBJECT, OrderKind.STOP_LOSS, None, 5_000), OrderTerms(token["A"], OrderKind.TAKE_PROFIT, None, 9_000))
    own = (OrderTerms(token["A"], OrderKind.STOP_LOSS, None, 3_000), OrderTerms(token["B"], OrderKind.TRAILING_STOP, None, 3_000))
    spec = replace(spec, portfolio=replace(spec.portfolio, orders=OrdersConfig((*own, *kept))))
    terms = with_stop(spec, stop).portfolio.orders.terms
    stops = () if stop.kind is None else tuple(OrderTerms(token[symbol], stop.kind, None, stop.share_bps) for symbol in "AB")
    assert terms == (*kept, *stops)
    assert with_stop(spec, None) == spec


def test_engine__only_settings_without_a_stop_run_in_the_kernel() -> None:
    tune_spec = with_stops(walks(5, 40), "20%", "10%rel", allocator="fixed")
    job = TuneJob(tune_spec.table, tune_spec.backtest, tune_spec.settings, tune_spec.grid.choices(), (0, 1), TERMS)
    assert [job.engine(choice) for choice in job.choices] == [RunEngine.KERNEL, RunEngine.FULL]
    weighted = replace(job.choices[1], allocator=AllocationMethod.INVERSE_VOLATILITY)
    assert spec_for_choice(tune_spec.backtest, weighted, TERMS, DAY_S).portfolio.orders.terms
