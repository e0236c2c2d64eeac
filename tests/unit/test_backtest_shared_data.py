"""Simulations of the research data that lie beside the project: hourly prices with a delisted coin, dear gas, a real pool."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.support.text import mentions

pytest.importorskip("polars")

from agent.app.research.backtests import rename_symbols
from agent.backtest.data import PriceTable, read_gas_prices, read_table
from agent.backtest.settings import make_spec
from agent.backtest.world import read_pool
from agent.model import Threshold
from tests.support.backtests import simulated

DATA = Path(__file__).parents[3] / "shared" / "data"
HOURLY = DATA / "prices" / "hourly_2021-04_2022-12.parquet"
needs_data = pytest.mark.skipif(not HOURLY.is_file(), reason=f"the research data are not beside this checkout: no {HOURLY}")
WIDE = Threshold(None, 2_500)
USDC_ENDS_S = 1_664_157_600


def prices() -> PriceTable:
    return read_table(HOURLY)


@pytest.mark.slow
@needs_data
def test_a_coin_that_is_delisted_three_months_before_the_end_halts_the_agent_and_is_named() -> None:
    table = prices()
    wanted = make_spec({"BTC": 4_000, "ETH": 3_000, "USDC": 2_000, "USDT": 1_000}, WIDE, "USDT", native="ETH")
    gas = read_gas_prices(DATA / "gas" / "ethereum_daily.parquet", table.times_s)
    found = simulated(table, wanted, gas_price_wei=gas, start_value=Fraction(1_000_000))
    assert mentions(found.notes, "USDC", "2325 bars", f"{USDC_ENDS_S}")
    assert found.halted_bar_count == 2_325 - 2  # a price is fresh until three bars lack it
    assert 0 < len(found.rebalances) == sum(one.succeeded for one in found.rebalances)
    assert max(one.time_s for one in found.rebalances) < USDC_ENDS_S
    assert found.gas > 0
    assert found.evaluated_bar_count < 100
    assert np.isfinite(found.equity).all()
    assert [one.year for one in found.yearly_gains] == [2021, 2022]


@pytest.mark.slow
@needs_data
def test_the_pool_of_mainnet_stands_at_every_price_of_two_years() -> None:
    table = rename_symbols(prices(), {"BTC": "WBTC", "ETH": "WETH"})
    wanted = make_spec({"WBTC": 5_000, "WETH": 5_000}, WIDE, "WETH", decimals={"WBTC": 8}, pairs=[("WBTC", "WETH")], interval_s=3_600)
    tokens = {asset.token.symbol: asset.token for asset in wanted.portfolio.assets}
    (path,) = (DATA / "pools").glob("uniswap_v3_wbtc_weth_*.json")
    pool = read_pool(path, tokens["WBTC"], tokens["WETH"])
    real = simulated(table, wanted, recorded_pools=(pool,), start_value=Fraction(100))
    deep = simulated(table, wanted, fee_pips=3_000, start_value=Fraction(100))
    assert [one.bar for one in real.rebalances] == [one.bar for one in deep.rebalances]
    assert len(real.rebalances) >= 1
    assert real.impact > deep.impact  # 100 WETH are felt in it, and not in a pool of a billion
