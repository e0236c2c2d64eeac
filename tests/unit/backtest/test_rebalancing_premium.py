"""Return attribution: by closed forms, by random walks of known covariance, and as a part of whole simulations."""

from __future__ import annotations

from dataclasses import replace
from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backtest.result import RebalancingPremium, excess_growth_rate, rebalancing_premium
from agent.backtest.settings import make_spec
from agent.errors import ConfigError
from agent.model import Every
from agent.units import YEAR_S
from tests.support.backtests import BAND, HOUR_S, halves, hourly, random_table, simulation_of
from tests.support.constants import DAY_S


def days(bars: int) -> np.ndarray:
    return np.arange(bars, dtype=np.int64) * DAY_S


def rebalanced_premium(prices: np.ndarray, weights: list[float], cost: float = 0.0) -> RebalancingPremium:
    """Of a portfolio that is back at its weights at every bar, which costs the same share each time."""
    bars = len(prices)
    costs = np.full(bars, cost)
    costs[0] = 0.0
    return rebalancing_premium(prices, np.tile(weights, (bars, 1)), costs, days(bars))


def untouched_premium(prices: np.ndarray, weights: list[float]) -> RebalancingPremium:
    """Of one that is never touched."""
    values = prices / prices[0] * weights
    return rebalancing_premium(prices, values / values.sum(axis=1, keepdims=True), np.zeros(len(prices)), days(len(prices)))


def test_shannons_demon__earns_an_eighth() -> None:
    coin = np.array([1.0, 2, 1, 2, 1, 2, 1])
    earned = rebalanced_premium(np.column_stack([coin, np.ones(7)]), [0.5, 0.5])
    # Half of it doubles: 1.5. Half of that halves: 0.75. Six bars are three times 1.125, and who holds has what he had.
    assert earned.advantage == pytest.approx(3 * log(1.125), rel=1e-12)
    assert earned.excess_growth == pytest.approx(3 * log(1.125), rel=1e-12)
    assert (earned.off_target, earned.dispersion, earned.costs) == pytest.approx((0, 0, 0), abs=1e-15)
    assert earned.excess_growth_yearly == pytest.approx(earned.excess_growth * YEAR_S / (6 * DAY_S), rel=1e-12)


def test_a_coin_that_only_rises_is_better_held() -> None:
    earned = rebalanced_premium(np.column_stack([2.0 ** np.arange(5), np.ones(5)]), [0.5, 0.5])
    assert earned.advantage == pytest.approx(4 * log(1.5) - log(8.5), rel=1e-12)
    assert earned.dispersion == pytest.approx(log(8.5) - 2 * log(2), rel=1e-12)
    assert earned.excess_growth == pytest.approx(4 * (log(1.5) - log(2) / 2), rel=1e-12)
    assert earned.advantage < 0 < earned.excess_growth


def test_holding__earns_nothing_and_its_growth_is_dispersion() -> None:
    prices = np.exp(np.cumsum(np.random.default_rng(4).normal(0, 0.05, (300, 3)), axis=0))
    earned = untouched_premium(prices, [0.2, 0.3, 0.5])
    assert earned.advantage == pytest.approx(0, abs=1e-12)
    assert earned.dispersion > 0.01
    assert earned.excess_growth + earned.off_target == pytest.approx(earned.dispersion, rel=1e-9)


def test_costs_are_what_they_took_and_nothing_else_changes() -> None:
    prices = np.exp(np.cumsum(np.random.default_rng(5).normal(0, 0.05, (101, 2)), axis=0))
    free = rebalanced_premium(prices, [0.5, 0.5])
    dear = rebalanced_premium(prices, [0.5, 0.5], 0.001)
    assert dear.costs == pytest.approx(-100 * log(0.999), rel=1e-12)
    assert dear.advantage == pytest.approx(free.advantage - dear.costs, rel=1e-12)
    assert replace(dear, advantage=free.advantage, costs=0.0) == free


@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(1, 5))
def test_the_parts_are_the_whole_whatever_the_weights(seed: int, bars: int, assets: int) -> None:
    chance = np.random.default_rng(seed)
    prices = 10 ** chance.uniform(-6, 6, assets) * np.exp(np.cumsum(chance.normal(0, 0.1, (bars, assets)), axis=0))
    weights = chance.dirichlet(np.ones(assets), bars)
    premium = rebalancing_premium(prices, weights, chance.uniform(0, 0.01, bars), days(bars))
    parts = premium.excess_growth + premium.off_target - premium.dispersion - premium.costs
    assert premium.advantage == pytest.approx(parts, rel=1e-9, abs=1e-10)
    assert premium.excess_growth >= -1e-12
    assert premium.dispersion >= -1e-12


def test_the_rate_of_two_assets_is_the_closed_form() -> None:
    weights = 0.64
    other = 0.25
    together = 0.5
    between = together * sqrt(weights * other)
    covariance = np.array([[weights, between], [between, other]])
    # Of two: half of w (1 - w) times the variance of the difference.
    expected = 0.3 * 0.7 * (weights + other - 2 * between) / 2
    assert excess_growth_rate(np.array([0.3, 0.7]), covariance) == pytest.approx(expected, rel=1e-12)
    assert excess_growth_rate(np.array([1.0, 0.0]), covariance) == pytest.approx(0, abs=1e-15)


def test_expectation__uses_the_sample_variance_and_all_bars() -> None:
    earned = rebalanced_premium(np.exp(np.array([[0.0, 0.0], [0.1, 0.0], [0.0, 0.0]])), [0.5, 0.5])
    # Moves of 0.1 and -0.1: their variance is 0.02, half of a quarter of it for each of two days.
    assert earned.expected_yearly == pytest.approx(0.02 / 8 * YEAR_S / DAY_S, rel=1e-12)


def test_random_walks__are_harvested_at_their_covariance() -> None:
    chance = np.random.default_rng(7)
    weights = np.array([0.5, 0.3, 0.2])
    bars = 20_001
    yearly = np.array([[0.64, 0.20, 0.0], [0.20, 0.36, 0.05], [0.0, 0.05, 0.25]])
    steps = chance.multivariate_normal(np.zeros(3), yearly * DAY_S / YEAR_S, bars - 1)
    prices = np.exp(np.vstack([np.zeros(3), np.cumsum(steps, axis=0)]))
    earned = rebalanced_premium(prices, weights.tolist())
    rate = excess_growth_rate(weights, yearly)
    # A variance of n normal numbers is known to sqrt(2 / n): 1 %, three times of it here; bars of a day add their fourth moments.
    assert earned.expected_yearly == pytest.approx(rate, rel=0.03)
    assert earned.excess_growth_yearly == pytest.approx(earned.expected_yearly, rel=0.003)
    assert earned.off_target == pytest.approx(0, abs=1e-12)


@pytest.mark.slow
def test_simulation__says_what_rebalancing_earned_after_costs() -> None:
    table = random_table(5, 60)
    for spec in (make_spec({"BTC": 4_000, "ETH": 3_000, "USD": 3_000}, BAND, "USD"), halves(Every(6 * HOUR_S))):
        simulation = simulation_of(table, spec)
        assert len(simulation.rebalances) >= 2
        assert simulation.premium.advantage == pytest.approx(log(simulation.final_value / simulation.hold_value), rel=1e-9)
        paid = float(simulation.fees + simulation.impact) / float(simulation.start_value)
        assert simulation.premium.costs == pytest.approx(paid, rel=0.5)
        assert simulation.premium.excess_growth > 0


def test_gas__counts_among_costs_and_a_priced_numeraire_divides() -> None:
    coin = [100.0, 100, 130, 130, 104]
    spec = make_spec({"ETH": 5_000, "USD": 5_000}, BAND, "USD", native="ETH")
    free = simulation_of(hourly(ETH=coin), spec)
    paid = simulation_of(hourly(ETH=coin), spec, gas_price_wei=20 * 10**9)
    assert paid.premium.costs - free.premium.costs == pytest.approx(float(paid.gas / paid.start_value), rel=0.2)
    assert paid.premium.advantage == pytest.approx(log(paid.final_value / paid.hold_value), rel=0.05)
    divided = simulation_of(
        hourly(ETH=[close * price for close, price in zip(coin, [1, 2, 3, 2, 1], strict=True)], USD=[1, 2, 3, 2, 1]), spec
    )
    assert divided.premium.excess_growth == pytest.approx(free.premium.excess_growth, rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prices": np.array([[1.0, 1.0], [0.0, 1.0]])}, "prices must be above zero"),
        ({"prices": np.array([[1.0, 1.0], [np.nan, 1.0]])}, "prices must be above zero"),
        ({"weights": np.array([[0.5, 0.5], [0.5, 0.4]])}, "do not sum to one"),
        ({"cost_shares": np.array([0.0, 1.0])}, "costs reach 100 %"),
        ({"cost_shares": np.zeros(3)}, "3"),
        ({"times_s": np.arange(3)}, "for 3 bars"),
    ],
)
def test_tables_that_make_no_sense_are_named(changes: dict[str, np.ndarray], reason: str) -> None:
    good = {"prices": np.ones((2, 2)), "weights": np.full((2, 2), 0.5), "cost_shares": np.zeros(2), "times_s": days(2)}
    with pytest.raises(ConfigError, match=reason):
        rebalancing_premium(**(good | changes))
