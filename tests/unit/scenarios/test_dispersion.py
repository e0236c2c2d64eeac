"""A ratio to the spread of returns is unknown where they are equal but for rounding: in reports, searches, stress and strategies."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("empyrical")

from agent.app.records.ledger import statistics
from agent.backtest.report.series import growth_series_of_units, performance, risk_metrics
from agent.backtest.stress.paths import ReturnHistory, fit_jump_diffusion
from agent.backtest.tune.statistics import Objective, block_length, deflated_sharpe, objective_scores, overfitting_probability
from agent.errors import Refused
from agent.floats import column_dispersions, dispersion, dispersion_floor
from agent.layers.strategies.policy.health import FIXED_POINT_ONE, sharpe_milli
from agent.layers.strategies.state import NavPoint
from agent.model import PricePoint
from agent.units import DAY_S
from agent.weights.returns import compute_returns

DAYS = 200
STEADY_RATES = {"tenth of a percent": 0.001, "loss": -0.002, "a third": 1 / 3e3, "tiny": 1e-7, "none": 0.0}
STEADY = pytest.mark.parametrize("rate", STEADY_RATES.values(), ids=STEADY_RATES.keys())


def steady_growth(rate: float) -> np.ndarray:
    """Return growth that is as steady as floats are."""
    return np.cumprod(np.full(DAYS, 1 + rate))


def moving_growth(scale: float) -> np.ndarray:
    """Return growth that moves by `scale` a day."""
    return np.cumprod(1 + scale * np.random.default_rng(5).normal(0.3, 1, DAYS))


@STEADY
def test_steady_series__has_no_volatility_and_no_sharpe_ratio(rate: float) -> None:
    growth = growth_series_of_units(np.arange(DAYS) * DAY_S, steady_growth(rate), moving_growth(0.01))
    steady, moving = performance(growth)
    assert (steady.volatility, math.isnan(steady.sharpe)) == (0.0, True)
    assert moving.sharpe == pytest.approx(growth.hold_returns.mean() / growth.hold_returns.std(ddof=1) * math.sqrt(365))
    risk = risk_metrics(growth)
    assert np.isnan(risk.rolling_sharpe).all()
    assert np.isfinite(risk.rolling_hold_sharpe).all()
    assert risk_metrics(growth_series_of_units(np.arange(DAYS) * DAY_S, steady_growth(rate), steady_growth(rate))).mean_excess_error == 0


@pytest.mark.parametrize("scale", [1e-1, 1e-4, 1e-7])
def test_small_returns_that_move_keep_their_ratio(scale: float) -> None:
    growth = moving_growth(scale)
    returns = growth[1:] / growth[:-1] - 1
    assert dispersion(returns) == pytest.approx(returns.std(ddof=1), rel=1e-9)
    assert column_dispersions(np.column_stack([returns, np.full(len(returns), 0.1)])).tolist() == [dispersion(returns), 0.0]


def test_floor__is_a_share_of_the_largest_return_or_rounding() -> None:
    assert dispersion_floor(2.0, 1e-14) == 2e-9
    assert dispersion_floor(1e-7, 1e-14) == 1e-14
    assert dispersion_floor(Fraction(10**12), Fraction(100)) == 1_000
    assert dispersion(np.array([0.5])) == 0
    assert math.isnan(dispersion(np.array([0.5, np.nan])))


@STEADY
def test_a_search_ranks_no_setting_by_rounding(rate: float) -> None:
    steady = np.diff(np.log(steady_growth(rate)))
    moving = np.diff(np.log(moving_growth(0.01)))
    returns = np.column_stack([steady, moving, steady])
    scores = objective_scores(returns, Objective.SHARPE)
    assert (scores[0], scores[2]) == (0, 0)
    assert scores[1] == pytest.approx(moving.mean() / moving.std())
    assert deflated_sharpe(returns, 0) is None
    assert deflated_sharpe(returns, 1) is not None
    estimate = overfitting_probability(np.column_stack([moving, steady]), Objective.SHARPE)
    assert estimate.probability < 0.5  # the setting that moved upwards is ahead in both halves of most ways
    assert block_length(steady) == 1


@STEADY
def test_a_stress_test_takes_no_rounding_for_jumps(rate: float) -> None:
    steady = np.diff(np.log(steady_growth(rate)))
    history = ReturnHistory(("A", "B"), np.column_stack([steady, np.zeros(len(steady))]), np.array([1.0, 1.0]), 0, DAY_S, 0, 0)
    assert fit_jump_diffusion(history).jumps_per_bar == 0


@STEADY
def test_a_strategy_of_a_steady_index_has_no_ratio(rate: float) -> None:
    indexes = [round(Fraction(FIXED_POINT_ONE) * (1 + Fraction(rate)) ** day) for day in range(31)]
    points = [NavPoint(day * DAY_S, index, index) for day, index in enumerate(indexes)]
    assert sharpe_milli(points, 30 * DAY_S, 30 * DAY_S) is None
    uneven = [NavPoint(day * DAY_S, index, index + (day % 2) * 10**9) for day, index in enumerate(indexes)]
    assert sharpe_milli(uneven, 30 * DAY_S, 30 * DAY_S) is not None


@STEADY
def test_a_ledger_of_a_steady_value_has_no_ratio(rate: float) -> None:
    values = [Fraction(10**12) * (1 + Fraction(rate)) ** day for day in range(40)]
    statistics_document = statistics([float(after / before) - 1 for before, after in pairwise(values)])
    assert (statistics_document["volatility"], statistics_document["sharpe"]) == (0.0, None)


@pytest.mark.parametrize("rate", [0.001, -0.002, 1 / 3e3, 0.0])
def test_no_weight_is_chosen_by_the_volatility_of_rounding(rate: float) -> None:
    steady = steady_growth(rate)
    moving = moving_growth(0.01)
    prices = [
        PricePoint(token, day * DAY_S, Fraction(float(growth[day])))
        for token, growth in (("A", steady), ("B", moving))
        for day in range(60)
    ]
    window = SimpleNamespace(window_s=50 * DAY_S, step_s=DAY_S, min_returns=30, max_age_s=2 * DAY_S)
    with pytest.raises(Refused, match="the price of Aa does not move"):
        compute_returns(window, ("A", "B"), {"A": "Aa", "B": "Bb"}, prices, 59 * DAY_S)


@pytest.mark.parametrize(("window_s", "text"), [(1_095 * DAY_S, "1095 days"), (36 * 3_600, "1 day 12 h"), (999 * DAY_S, "999 days")])
def test_returns__window_without_prices_is_named_in_plain_digits(window_s: int, text: str) -> None:
    window = SimpleNamespace(window_s=window_s, step_s=DAY_S, min_returns=30, max_age_s=2 * DAY_S)
    with pytest.raises(Refused, match=f"no prices of Aa within {text}"):
        compute_returns(window, ("A",), {"A": "Aa"}, [], 59 * DAY_S)
