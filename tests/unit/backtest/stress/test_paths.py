"""Paths that could have been: made of what was recorded, with its size of moves, and the same for the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.backtest.data import PriceTable
from agent.backtest.stress.paths import (
    JumpDiffusion,
    ReturnHistory,
    bootstrap_path,
    fit_jump_diffusion,
    jump_diffusion_path,
    mean_block_length,
    require_block_length,
    return_history,
)
from tests.support.backtests import HOUR_S, START_S, make_price_table, random_table
from tests.support.constants import DAY_S
from tests.support.text import raises_field

NAN = float("nan")


def chance(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def moves(path: PriceTable) -> np.ndarray:
    return np.diff(np.log(path.closes), axis=0)


def past(count: int = 200) -> ReturnHistory:
    return return_history(random_table(3, count + 1))


def test_resampled_path__begins_at_the_newest_with_past_moves_only() -> None:
    was = past()
    path = bootstrap_path(was, 500, 8, chance())
    assert path.symbols == was.symbols
    assert path.closes[0].tolist() == was.start_prices.tolist()
    assert path.times_s.tolist() == [was.end_s + HOUR_S * bar for bar in range(500)]
    known = {tuple(row) for row in np.round(was.returns, 9)}
    assert {tuple(row) for row in np.round(moves(path), 9)} <= known


def test_blocks_go_on_where_they_are_and_are_as_long_as_said() -> None:
    was = past(1_000)
    order = {tuple(row): number for number, row in enumerate(np.round(was.returns, 8))}
    for block in (1.0, 5.0, 40.0):
        rows = np.array([order[tuple(row)] for row in np.round(moves(bootstrap_path(was, 20_001, block, chance())), 8)])
        follows = (np.diff(rows) % 1_000 == 1).mean()
        assert follows == pytest.approx(1 - 1 / block, abs=0.01)
        assert set(rows.tolist()) == set(range(1_000))  # the newest move as well


def test_generator__makes_its_own_path_and_the_same_again() -> None:
    was = past()
    model = fit_jump_diffusion(was)
    for make_path in (
        lambda seed: bootstrap_path(was, 50, 5, chance(seed)),
        lambda seed: jump_diffusion_path(was, model, 50, chance(seed)),
    ):
        assert np.array_equal(make_path(1).closes, make_path(1).closes)
        assert not np.array_equal(make_path(1).closes, make_path(2).closes)


def test_jump_walk__has_its_model_s_moments_and_is_found_again() -> None:
    walk = np.array([[1.0, 0.4], [0.4, 0.5]]) * 1e-4
    sizes = np.array([[9.0, 5.0], [5.0, 4.0]]) * 1e-3
    model = JumpDiffusion(np.array([2e-4, -1e-4]), walk, 0.01, np.array([-0.10, -0.06]), sizes)
    path = jump_diffusion_path(past(), model, 100_001, chance(5))
    moments = moves(path)
    # Of a compound Poisson sum: mean λ μ, variance λ (Σ + μ μ').
    mean = model.drift + model.jumps_per_bar * model.jump_mean
    spread = walk + model.jumps_per_bar * (sizes + np.outer(model.jump_mean, model.jump_mean))
    assert moments.mean(axis=0) == pytest.approx(mean, abs=4 * np.sqrt(spread[0, 0] / 100_000))
    assert np.cov(moments, rowvar=False) == pytest.approx(spread, rel=0.1)
    again = fit_jump_diffusion(return_history(path))
    assert again.jumps_per_bar == pytest.approx(model.jumps_per_bar, rel=0.25)  # small jumps look like the walk
    assert again.covariance == pytest.approx(walk, rel=0.1)
    assert again.jump_mean == pytest.approx(model.jump_mean, rel=0.35)


def test_data_without_jumps__gives_none_and_its_own_covariance() -> None:
    steps = 0.01 * np.sin(np.arange(300) * np.array([[1.0], [1.7]])).T
    table = make_price_table([START_S + HOUR_S * bar for bar in range(301)], dict(zip("AB", _prices(steps).T.tolist(), strict=True)))
    jump_diffusion = fit_jump_diffusion(return_history(table))
    assert jump_diffusion.jumps_per_bar == 0
    assert jump_diffusion.covariance == pytest.approx(np.cov(steps, rowvar=False), rel=1e-6)
    assert np.cov(moves(jump_diffusion_path(return_history(table), jump_diffusion, 50_000, chance())), rowvar=False) == pytest.approx(
        jump_diffusion.covariance, abs=2e-6
    )


def test_one_asset_whose_price_never_moves_has_paths_too() -> None:
    table = make_price_table([START_S + HOUR_S * bar for bar in range(60)], {"A": [3.0] * 60})
    was = return_history(table)
    assert (jump_diffusion_path(was, fit_jump_diffusion(was), 20, chance()).closes == 3).all()
    assert (bootstrap_path(was, 20, mean_block_length(was), chance()).closes == 3).all()


def test_moves_with_a_missing_price__are_left_out_and_counted() -> None:
    table = random_table(3, 101)
    closes = table.closes.copy()
    closes[40:45, 0] = NAN
    closes[90:, 1] = NAN
    returns = return_history(replace(table, closes=closes))
    assert len(returns.returns) == 100 - 6 - 11
    assert returns.skipped_returns == 17
    assert np.isfinite(returns.returns).all()
    assert returns.start_prices.tolist() == [closes[100, 0], closes[89, 1]]


def test_without_drift_prices_go_nowhere_on_average() -> None:
    table = random_table(3, 101)
    assert np.exp(return_history(table, with_drift=False).returns).mean(axis=0) == pytest.approx(np.ones(2), abs=1e-14)
    assert np.abs(return_history(table).returns.mean(axis=0)).max() > 1e-4


def test_clustered_moves__need_longer_blocks() -> None:
    steps = chance(2).normal(0, 0.01, (2_000, 1))
    calm = return_history(PriceTable(("A",), START_S + HOUR_S * np.arange(2_001), _prices(steps)))
    loud = np.repeat(np.where(np.arange(40) % 2, 3.0, 0.3), 50)[:, None]
    wild = return_history(PriceTable(("A",), START_S + HOUR_S * np.arange(2_001), _prices(steps * loud)))
    assert 1 <= mean_block_length(calm) < 10
    assert mean_block_length(wild) > 3 * mean_block_length(calm)


def test_too_few_prices_and_blocks_that_do_not_fit_are_named() -> None:
    with raises_field("--prices", "29 moves"):
        return_history(random_table(1, 30))
    closes = random_table(1, 100).closes
    closes[::2, 0] = NAN
    with raises_field("--prices", "0 moves"):
        return_history(replace(random_table(1, 100), closes=closes))
    was = past(100)
    for block in (0.5, 0.0, -3.0, 101.0, float("nan")):
        with raises_field("--paths", "block"):
            require_block_length(block, was)
    require_block_length(1, was)
    require_block_length(100, was)


def _prices(steps: np.ndarray) -> np.ndarray:
    return 100 * np.exp(np.vstack([np.zeros(steps.shape[1]), np.cumsum(steps, axis=0)]))


@pytest.mark.parametrize(
    ("bar_s", "missing_bars", "skipped"),
    [(HOUR_S, 240, 1), (HOUR_S, 5, 1), (HOUR_S, 4, 0), (DAY_S, 2, 0), (DAY_S, 30, 1)],
    ids=["ten days", "six hours", "five hours", "weekend", "month"],
)
def test_move_over_a_gap_in_time__is_no_move_of_a_bar(bar_s: int, missing_bars: int, skipped: int) -> None:
    table = random_table(3, 400, volatility=0.01, bar_s=bar_s)
    is_kept = np.ones(400, dtype=bool)
    is_kept[100 : 100 + missing_bars] = False
    with_gap = replace(table, times_s=table.times_s[is_kept], closes=table.closes[is_kept])
    whole, history = (return_history(prices) for prices in (table, with_gap))
    assert history.gap_returns == skipped
    assert len(history.returns) == 400 - missing_bars - 1 - skipped
    assert history.skipped_returns == 0
    if skipped:
        rows = [*range(99), *range(100 + missing_bars, 399)]
        assert np.array_equal(history.returns, whole.returns[rows])
