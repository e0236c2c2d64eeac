"""Simulations of the research data beside the project: hourly prices with a delisted coin, dear gas, a real pool, two years of days."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
import pytest

from tests.support.text import mentions

pytest.importorskip("polars")

from agent.app.research.backtests import rename_symbols
from agent.backtest.data import PriceTable, read_gas_prices, read_table
from agent.backtest.settings import PERMISSIVE_LIMITS, SimulatedTokens, make_spec
from agent.backtest.world import read_pool
from agent.model import Destination, NoTradeZone, Threshold, TrackingRisk
from agent.policy.triggers.no_trade_zone import build_tracking
from agent.units import format_time
from tests.support.backtests import simulation_of
from tests.support.studies.shared_data import DATA, HOURLY, needs_data

DAILY = DATA / "prices" / "daily_2017_2023.parquet"
WIDE = Threshold(None, 2_500)
USDC_ENDS_S = 1_664_157_600


def prices() -> PriceTable:
    return read_table(HOURLY)


@pytest.mark.slow
@needs_data
def test_coin_delisted_before_the_end__halts_and_is_named() -> None:
    table = prices()
    spec = make_spec({"BTC": 4_000, "ETH": 3_000, "USDC": 2_000, "USDT": 1_000}, WIDE, "USDT", native="ETH")
    gas = read_gas_prices(DATA / "gas" / "ethereum_daily.parquet", table.times_s)
    simulation = simulation_of(table, spec, gas_price_wei=gas, start_value=Fraction(1_000_000))
    assert mentions(simulation.notes, "USDC", "2,325 bars", format_time(USDC_ENDS_S))
    assert simulation.halted_bar_count == 2_325 - 2  # a price is fresh until three bars lack it
    assert 0 < len(simulation.rebalances) == sum(rebalance.succeeded for rebalance in simulation.rebalances)
    assert max(rebalance.time_s for rebalance in simulation.rebalances) < USDC_ENDS_S
    assert simulation.gas > 0
    assert simulation.evaluated_bar_count < 100
    assert np.isfinite(simulation.equity).all()
    assert [yearly_gain.year for yearly_gain in simulation.yearly_gains] == [2021, 2022]


@pytest.mark.slow
@needs_data
def test_the_pool_of_mainnet_stands_at_every_price_of_two_years() -> None:
    table = rename_symbols(prices(), {"BTC": "WBTC", "ETH": "WETH"})
    spec = make_spec(
        {"WBTC": 5_000, "WETH": 5_000},
        WIDE,
        "WETH",
        interval_s=3_600,
        tokens=SimulatedTokens(decimals_by_symbol={"WBTC": 8}, pairs=[("WBTC", "WETH")]),
    )
    tokens = {asset.token.symbol: asset.token for asset in spec.portfolio.assets}
    (path,) = (DATA / "pools").glob("uniswap_v3_wbtc_weth_*.json")
    pool = read_pool(path, tokens["WBTC"], tokens["WETH"])
    real = simulation_of(table, spec, recorded_pools=(pool,), start_value=Fraction(100))
    deep = simulation_of(table, spec, fee_pips=3_000, start_value=Fraction(100))
    assert [rebalance.bar for rebalance in real.rebalances] == [rebalance.bar for rebalance in deep.rebalances]
    assert len(real.rebalances) >= 1
    assert real.impact > deep.impact  # 100 WETH are felt in it, and not in a pool of a billion


DAYS_A_YEAR = 365
TARGETS = {"BTC": 5_000, "ETH": 3_000, "USD": 2_000}
TRIGGERS = {
    "tracking": (build_tracking("normal"), Destination.ZONE),
    "relative 10 %": (Threshold(None, 1_000), Destination.TARGET),
    "zone of 30 days": (NoTradeZone(TrackingRisk(Fraction(1, 2), 30 * 86_400, (), ())), Destination.ZONE),
}
GOLDEN = {
    (500, "tracking"): (55, 47.28, 4.43),
    (500, "relative 10 %"): (53, 102.69, 6.42),
    (500, "zone of 30 days"): (94, 47.88, 4.48),
    (3_000, "tracking"): (38, 170.34, 14.78),
    (3_000, "relative 10 %"): (53, 504.91, 29.79),
    (3_000, "zone of 30 days"): (28, 77.67, 32.73),
}
"""Trades, their costs in dollars, and what costs and tracking error lose a year in bps, at λ = 1, by the fee of the pools in pips."""


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize(("fee_pips", "name"), GOLDEN)
def test_two_years_of_days_cost_what_they_did(fee_pips: int, name: str) -> None:
    table = read_table(DAILY)
    is_inside = (table.times_s >= datetime(2021, 1, 1, tzinfo=UTC).timestamp()) & (
        table.times_s < datetime(2023, 1, 1, tzinfo=UTC).timestamp()
    )
    table = replace(table, times_s=table.times_s[is_inside], closes=table.closes[is_inside])
    trigger, destination = TRIGGERS[name]
    limits = replace(PERMISSIVE_LIMITS, plan_cost_bps=100)
    spec = replace(make_spec(TARGETS, trigger, "USD", destination=destination, native="ETH"), limits=limits)
    result = simulation_of(table, spec, depth=Fraction(20_000_000), fee_pips=fee_pips, start_value=Fraction(50_000), gas_price_wei=10**8)
    costs = float(result.fees + result.impact + result.gas) / 10**result.decimals
    off_target = result.weights[:-1] - np.array(list(TARGETS.values())) / 10_000
    active_returns = (off_target * (result.prices[1:] / result.prices[:-1] - 1)).sum(axis=1)
    drift_a_year = active_returns.var() * DAYS_A_YEAR / 2
    loss_bps = 10_000 * (costs / result.equity.mean() / (len(table.times_s) / DAYS_A_YEAR) + drift_a_year)
    assert (len(result.rebalances), round(costs, 2), round(loss_bps, 2)) == GOLDEN[fee_pips, name]
