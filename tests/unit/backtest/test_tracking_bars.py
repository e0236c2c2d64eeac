"""Backtests with the tracking rule: a step sees only the bars near a trigger, and decides all that it would have decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from agent.backtest.data import PriceTable
from agent.backtest.result import SimulationResult
from agent.backtest.settings import PERMISSIVE_LIMITS, BacktestSpec, OwnerTransfer, TaxRule, make_spec
from agent.model import Destination, NoTradeZone, RiskEstimationWindow
from agent.policy.triggers.no_trade_zone import build_tracking
from tests.support.backtests import COIN, HOUR_S, START_S, random_table, simulation_of
from tests.support.constants import DAY_S

THIRDS = {"BTC": 4_000, "ETH": 3_000, "USD": 3_000}
FEW_TRADES = {"depth": Fraction(10**7), "fee_pips": 500, "start_value": Fraction(20_000)}


def tracking(targets: Mapping[str, int] = THIRDS, strictness: str = "normal") -> BacktestSpec:
    """Return a spec with the tracking rule; ETH pays the gas, and the smallest trade is 10 dollars."""
    limits = replace(PERMISSIVE_LIMITS, min_trade=Fraction(10 * COIN))
    return replace(make_spec(targets, build_tracking(strictness), "USD", destination=Destination.ZONE, native="ETH"), limits=limits)


def assert_equal_results(table: PriceTable, spec: BacktestSpec, **market: object) -> SimulationResult:
    """Compare a simulation with one that evaluates each bar; return it."""
    quick = simulation_of(table, spec, **{**FEW_TRADES, **market})
    whole = simulation_of(table, spec, looks_at_all=True, **{**FEW_TRADES, **market})
    assert whole.evaluated_bar_count == whole.bar_count
    for name in ("rebalances", "balances", "halted_bar_count", "refusal_counts", "holds_by_setting", "gas", "twr"):
        assert getattr(quick, name) == getattr(whole, name), name
    assert np.array_equal(quick.equity, whole.equity)
    assert np.array_equal(quick.targets, whole.targets)
    assert np.allclose(quick.bands, whole.bands, rtol=0.02, atol=5e-4, equal_nan=True)
    return quick


def test_evaluated_bars__are_those_near_a_trigger_alone() -> None:
    result = assert_equal_results(random_table(4, 150, volatility=0.03), tracking(), gas_price_wei=10**10)
    assert len(result.rebalances) >= 3
    assert result.evaluated_bar_count <= 2 * len(result.rebalances)


def test_a_bar_whose_gas_is_cheaper_is_judged_by_its_own_gas() -> None:
    gas_prices_wei = [10**11 if bar % 20 else 10**8 for bar in range(80)]
    result = assert_equal_results(random_table(5, 80, volatility=0.02), tracking(), gas_price_wei=gas_prices_wei)
    assert len(result.rebalances) >= 2
    assert all(rebalance.bar % 20 == 0 for rebalance in result.rebalances), "only cheap bars trade, or the case shows nothing"


def test_bars_without_prices_and_deposits_are_evaluated() -> None:
    table = random_table(6, 80, volatility=0.01)
    closes = table.closes.copy()
    closes[30:36, 0] = np.nan  # longer than prices stay fresh
    deposits = (OwnerTransfer(START_S + 50 * HOUR_S, Fraction(5_000)), OwnerTransfer(START_S + 60 * HOUR_S, Fraction(-3_000)))
    result = assert_equal_results(replace(table, closes=closes), tracking(), flows=deposits)
    assert result.halted_bar_count == 4
    assert len(result.transfers) == 2
    assert result.evaluated_bar_count < 40


def test_realised_tax__evaluates_a_bar_only_if_the_rule_counts_it() -> None:
    table = random_table(4, 100, volatility=0.01)
    taxed = replace(tracking(), tax=TaxRule(rate_bps=2_500))
    assert assert_equal_results(table, taxed).evaluated_bar_count < 50
    after_tax = replace(taxed, policy=replace(taxed.policy, trigger=build_tracking("normal", after_tax=True)))
    assert simulation_of(table, after_tax, **FEW_TRADES).evaluated_bar_count == table.bar_count


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_in_any_market_nothing_changes(seed: int) -> None:
    dice = np.random.default_rng(seed)
    symbols = ("BTC", "ETH", "USDC", "SOL", "LINK")[: int(dice.integers(2, 6))]
    weights = dice.integers(1, 6, len(symbols) + 1)
    shares = np.floor(10_000 * weights / weights.sum()).astype(int).tolist()
    targets = dict(zip(symbols, shares[:-1], strict=True))
    targets["USD"] = 10_000 - sum(targets.values())
    table = random_table(seed, 300, symbols, volatility=float(dice.uniform(0.002, 0.02)))
    gas_price_wei = [int(10 ** dice.uniform(7, 10.5)) for _ in range(300)]
    result = assert_equal_results(
        table,
        tracking(targets, str(dice.choice(["relaxed", "normal", "strict"]))),
        gas_price_wei=gas_price_wei if seed % 2 else gas_price_wei[0],
        fee_pips=int(dice.choice([100, 500, 3_000])),
        data_fee_wei=int(dice.choice([0, 10**12])),
        start_value=Fraction(int(dice.choice([1_000, 50_000]))),
    )
    assert result.evaluated_bar_count < 300


@pytest.mark.parametrize(("lowest", "passes_bars"), [(0.985, True), (0.97, False)], ids=["near-its-peg", "depegged"])
def test_dollar_token__bars_are_passed_within_its_depeg_limit(lowest: float, passes_bars: bool) -> None:
    table = random_table(4, 100, ("ETH", "USDC"), volatility=0.02)
    closes = table.closes.copy()
    closes[:, 1] = np.linspace(1, lowest, 100)
    spec = tracking({"ETH": 5_000, "USDC": 3_000, "USD": 2_000})
    spec = replace(spec, limits=replace(spec.limits, depeg_bps=200))
    result = assert_equal_results(replace(table, closes=closes), spec)
    assert (result.evaluated_bar_count < 60) is passes_bars
    assert (result.halted_bar_count > 0) is not passes_bars


def test_zone_with_an_estimate_measures_the_simulated_prices() -> None:
    usual = tracking()
    assert isinstance(usual.policy.trigger, NoTradeZone)
    window = RiskEstimationWindow(30 * DAY_S, DAY_S, 20, 2 * DAY_S)
    estimated_zone = NoTradeZone(replace(usual.policy.trigger.risk, estimation_window=window))
    measured = replace(usual, policy=replace(usual.policy, trigger=estimated_zone))
    table = random_table(3, 60, volatility=0.01, bar_s=DAY_S)
    usual_widths, measured_widths = (np.diff(simulation_of(table, spec).bands[:, 0]).ravel() for spec in (usual, measured))
    assert measured_widths[:21] == pytest.approx(usual_widths[:21], rel=0.01), "there are fewer than 20 returns"
    assert (measured_widths[21:] > 1.1 * usual_widths[21:]).all(), "BTC and ETH are not correlated here"
