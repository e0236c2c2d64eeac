"""Orders, allocators and strategies in a simulation: what they do at which bar, and that no bar knows a later one."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from agent.backtest.settings import PERMISSIVE_LIMITS, BacktestSpec, make_spec, simulated_spec
from agent.layers.strategies.state import CapitalSplit, Strategy
from agent.model import AllocationMethod, AllocatorConfig, Destination, InitialWeights, OrderKind, OrdersConfig, OrderTerms, Threshold
from agent.policy.triggers.no_trade_zone import build_tracking
from tests.support.backtests import BAND, COIN, HALVES, HOUR_S, halves, hourly, random_table, simulation_of
from tests.support.samples import slow

THREE = {"BTC": 4_000, "ETH": 4_000, "USD": 2_000}


def with_orders(*terms: tuple[OrderKind, int], spec: BacktestSpec | None = None) -> BacktestSpec:
    """Half in BTC (or what else is wanted), BTC under orders at so many bps from the price at which they are armed."""
    spec = spec or halves()
    token = spec.portfolio.assets[0].token.address
    orders = OrdersConfig(tuple(OrderTerms(token, kind, share_bps=share_bps) for kind, share_bps in terms))
    return replace(spec, portfolio=replace(spec.portfolio, orders=orders))


def with_allocator(method: AllocationMethod) -> BacktestSpec:
    """BTC and ETH by returns of the last 12 hours, chosen anew every six; a fifth stays USD."""
    spec = make_spec(THREE, BAND, "USD")
    weights = AllocatorConfig(
        method=method,
        every_s=6 * HOUR_S,
        window_s=12 * HOUR_S,
        step_s=HOUR_S,
        min_returns=5,
        max_age_s=3 * HOUR_S,
        max_overdue_s=48 * HOUR_S,
        churn_bps=50,
        initial_weights=InitialWeights.TARGETS,
        fixed_tokens=(spec.portfolio.numeraire.address,),
        limits=(),
    )
    return replace(spec, portfolio=replace(spec.portfolio, allocator=weights))


def strategies() -> BacktestSpec:
    """Three fifths half in BTC, two fifths three quarters in ETH, the rest USD."""
    spec = make_spec(THREE, BAND, "USD")
    of = {asset.token.symbol: asset.token.address for asset in spec.portfolio.assets}

    def one(name: str, share_bps: int, **weights_bps: int) -> Strategy:
        weights = tuple((of[symbol], bps) for symbol, bps in weights_bps.items())
        return Strategy(name, share_bps, weights, BAND, Destination.TARGET, 0)

    both = (one("trend", 6_000, BTC=5_000, USD=5_000), one("calm", 4_000, ETH=7_500, USD=2_500))
    return replace(spec, layers=(CapitalSplit(both, Threshold(None, 2_000)),))


def test_stop_loss__sells_all_at_the_first_bar_below_for_good() -> None:
    simulation = simulation_of(hourly(BTC=[100.0, 100, 95, 79, 70, 90]), with_orders((OrderKind.STOP_LOSS, 2_000)))
    # 50 BTC are sold at 79, and a thousandth of that is fee: 5,000 + 50 · 79 · 0.999.
    assert [rebalance.bar for rebalance in simulation.rebalances] == [3]
    assert float(simulation.final_value) / COIN == pytest.approx(5_000 + 50 * 79 * 0.999, rel=1e-5)
    assert simulation.weights[-1].tolist() == [0, 1]
    assert simulation.targets[:, 0].tolist() == [0.5, 0.5, 0.5, 0, 0, 0]


def test_native_coin__lies_beside_the_portfolio_without_a_top_up() -> None:
    table, topped = random_table(5, 40), replace(PERMISSIVE_LIMITS, native_top_up_wei=10**30)  # more than there is
    bare, first_run = (
        simulation_of(table, simulated_spec(replace(make_spec(HALVES, BAND, "USD"), limits=limits)))
        for limits in (PERMISSIVE_LIMITS, topped)
    )
    assert (first_run.evaluated_bar_count, first_run.balances, first_run.config_hash) == (
        bare.evaluated_bar_count,
        bare.balances,
        bare.config_hash,
    )
    assert first_run.evaluated_bar_count < first_run.bar_count


def test_entry__buys_below_its_level_and_take_profit_sells_above() -> None:
    spec = with_orders((OrderKind.ENTRY, 1_000), (OrderKind.TAKE_PROFIT, 2_000))
    simulation = simulation_of(hourly(BTC=[100.0, 100, 95, 89, 95, 109, 120]), spec)
    # It begins as 10,000 USD. Below 90 half is spent: 5,000 · 0.999 / 89 BTC, sold above 90 · 1.2, the level of its entry.
    assert [rebalance.bar for rebalance in simulation.rebalances] == [3, 5]
    assert simulation.hold_value == 10_000 * COIN
    assert float(simulation.final_value) / COIN == pytest.approx(5_000 + 5_000 / 89 * 109 * 0.999**2, rel=1e-4)


def test_a_trailing_stop_follows_the_highest_price_that_was() -> None:
    simulation = simulation_of(hourly(BTC=[100.0, 105, 115, 105, 97, 90]), with_orders((OrderKind.TRAILING_STOP, 1_500)))
    assert [rebalance.bar for rebalance in simulation.rebalances] == [4]  # 115 less 15 % is 97.75
    assert float(simulation.final_value) / COIN == pytest.approx(5_000 + 50 * 97 * 0.999, rel=1e-5)


def test_an_allocator_chooses_from_what_was_recorded_until_then() -> None:
    table = random_table(3, 20)
    simulation = simulation_of(table, with_allocator(AllocationMethod.INVERSE_VOLATILITY))
    returns = table.closes[1:6] / table.closes[:5] - 1  # what was recorded before bar 6: six prices
    inverse = 1 / returns.std(axis=0, ddof=1)
    assert simulation.targets[5].tolist() == [0.4, 0.4, 0.2]
    assert simulation.targets[6].tolist() == pytest.approx([*(0.8 * inverse / inverse.sum()), 0.2], abs=1e-4)
    assert simulation.rebalances[0].bar == 6
    assert set(np.flatnonzero(np.diff(simulation.targets[:, 0])) + 1) == {6, 12, 18}
    assert simulation.bands[6, 2].tolist() == pytest.approx([0.15, 0.25])


def test_strategies__begin_at_their_weights_and_act_by_their_own() -> None:
    simulation = simulation_of(hourly(BTC=[100.0, 100, 130, 130], ETH=[10.0] * 4), strategies())
    # "trend" has 3,900 of 6,900 in BTC at 130, 56.5 %: it sells 450. "calm" is where it was.
    assert [rebalance.bar for rebalance in simulation.rebalances] == [2]
    assert float(simulation.rebalances[0].turnover) / COIN == pytest.approx(450, rel=1e-3)
    assert simulation.weights[0].tolist() == pytest.approx([0.3, 0.3, 0.4])
    assert simulation.weights[-1].tolist() == pytest.approx([3_450 / 10_900, 3_000 / 10_900, 4_450 / 10_900], rel=1e-3)


def test_strategies_by_tracking__trade_beyond_triggers_alone() -> None:
    rule = build_tracking("normal")
    banded = strategies()
    (split,) = banded.layers
    assert isinstance(split, CapitalSplit)
    parts = tuple(replace(part, trigger=rule, destination=Destination.ZONE) for part in split.strategies)
    ruled = replace(
        banded,
        policy=replace(banded.policy, trigger=rule, destination=Destination.ZONE),
        layers=(replace(split, strategies=parts),),
        limits=replace(PERMISSIVE_LIMITS, min_trade=Fraction(10 * COIN)),
    )
    table = hourly(BTC=[100.0, 100, 101, 130, 130, 130], ETH=[10.0] * 6)
    simulation = simulation_of(table, ruled)
    assert [rebalance.bar for rebalance in simulation.rebalances] == [3], "at the opening they exchange what they need"
    # "trend" has 3,900 of 6,900 in BTC at 130, and keeps what its edge allows above half.
    btc_of_trend = float(simulation.weights[-1][0]) * float(simulation.final_value) / COIN / 6_900
    assert 0.51 < btc_of_trend < 0.55


PAST = 14
LOOKING = {
    "inverse volatility, trailing stop": with_orders(
        (OrderKind.TRAILING_STOP, 900), spec=with_allocator(AllocationMethod.INVERSE_VOLATILITY)
    ),
    "strategies": strategies(),
}


@pytest.mark.parametrize("policy", ["inverse volatility, trailing stop", *slow(["strategies"])])
def test_future__changes_nothing_in_the_past_for_any_policy(policy: str) -> None:
    table = random_table(13, 20)
    gas = tuple(10**10 + bar * 10**8 for bar in range(20))
    closes = table.closes.copy()
    later = list(gas)
    closes[PAST:] *= np.linspace(2.5, 0.2, 6)[:, None]
    later[PAST:] = [10**12] * 6
    first_run = simulation_of(table, LOOKING[policy], gas_price_wei=gas)
    other = simulation_of(replace(table, closes=closes), LOOKING[policy], gas_price_wei=tuple(later))
    past = [rebalance for rebalance in first_run.rebalances if rebalance.bar < PAST]
    assert past
    assert past == [rebalance for rebalance in other.rebalances if rebalance.bar < PAST]
    for name in ("equity", "weights", "targets"):
        assert np.array_equal(getattr(first_run, name)[:PAST], getattr(other, name)[:PAST])
    assert not np.array_equal(first_run.equity[PAST:], other.equity[PAST:])
