"""What markets a simulation is given: a real pool's ticks, gas prices of a file, assets that lose their prices, and the shipped sample."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.text import mentions, raises_field

pytest.importorskip("polars")

from agent.amm.pools import marginal_price
from agent.amm.v3.pool import V3Pool
from agent.app.research.backtests import sample_files
from agent.backtest.data import PriceTable, read_gas_prices, read_table, select_spec_symbols
from agent.backtest.settings import BacktestSpec, SimulatedTokens, make_spec
from agent.backtest.simulate import SimulationRun
from agent.backtest.world import arbitrage_pool, read_pool
from agent.errors import ConfigError
from agent.model import Halt
from agent.units import Token, format_time
from tests.support.backtests import BAND, COIN, DEEP, HOUR_S, START_S, hourly, simulation_of

RECORDED = Path(__file__).parents[2] / "data" / "uniswap_v3_wbtc_weth_3000_block_24407242.json"
PAIR = ("WBTC", "WETH")
RATIO = 30.0
"""WETH for a WBTC, near where the pool stood: 33.1."""


NEGATIVE = {"0": [5, -5, 0], "887220": [5, 5, 0]}
NEGATIVE_BELOW = {"-60": [5, -5, 0], "0": [10, 10, 0], "887220": [5, -5, 0]}
"""Liquidity below 0 at the price, and only further down."""


def pair() -> BacktestSpec:
    """Half each, counted in WETH, with the decimals and the order of the pool's tokens."""
    return make_spec({"WBTC": 5_000, "WETH": 5_000}, BAND, "WETH", tokens=SimulatedTokens(decimals_by_symbol={"WBTC": 8}, pairs=[PAIR]))


def real_pool(spec: BacktestSpec) -> V3Pool:
    tokens = {asset.token.symbol: asset.token for asset in spec.portfolio.assets}
    return read_pool(RECORDED, tokens["WBTC"], tokens["WETH"])


def test_real_pool__is_traded_over_its_ticks_and_back() -> None:
    pool = real_pool(pair())
    assert len(pool.ticks) == 458
    expected_price = marginal_price(pool, pool.token0)
    for share in (Fraction(4, 5), Fraction(5, 4), Fraction(1, 100), Fraction(100)):
        moved = arbitrage_pool(pool, expected_price * share)
        assert moved.sqrt_price_x96 == isqrt(int(expected_price * share * 2**192))
        assert moved.liquidity == sum(tick.liquidity_net for tick in moved.ticks if tick.index <= moved.tick)
        assert moved.liquidity != pool.liquidity
        assert arbitrage_pool(moved, expected_price) == pool


def test_a_backtest_trades_in_the_ticks_of_a_real_pool() -> None:
    spec = pair()
    table = hourly(WBTC=[RATIO, RATIO, RATIO * 1.4, RATIO * 1.4])
    deep_settings = replace(DEEP, recorded_pools=(real_pool(spec),), start_value=Fraction(1_000), looks_at_all=True)
    with SimulationRun(spec, table, deep_settings) as going:
        while going.evaluate_next_bar() and going.world.bar < 2:
            pass
        world = going.world
        assert list(world.pools) == [pool.address for pool in deep_settings.recorded_pools]  # in the place of the pool that is made up
        stood = arbitrage_pool(deep_settings.recorded_pools[0], Fraction(str(RATIO * 1.4)) * 10**10)
        after = world.pools[stood.address]
        assert isinstance(after, V3Pool)
        assert after.sqrt_price_x96 < stood.sqrt_price_x96  # WBTC was sold
        result = going.finish()
    (done,) = result.rebalances
    # 16.67 WBTC at 42 are 700 WETH beside 500: close to 100 are sold at 0.3 %.
    assert float(done.turnover) / COIN == pytest.approx(100, rel=0.01)
    assert float(done.fees) / COIN == pytest.approx(0.3, rel=0.01)
    assert done.impact > 0
    deep = simulation_of(table, spec, fee_pips=3_000, start_value=Fraction(1_000))
    assert done.impact > 100 * deep.impact


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda data: data["scalars"].pop("fee"), "is not a pool: it has no 'fee'", id="no fee"),
        pytest.param(lambda data: data["scalars"].update(tick=5), "the tick does not match the price", id="tick beside the price"),
        pytest.param(lambda data: data["scalars"].update(liquidity=5), "do not add up", id="other liquidity"),
        pytest.param(lambda data: data["tick_data"].pop("0"), "do not add up", id="tick missing"),
        pytest.param(
            lambda data: data["tick_data"].update({"61": [1, 1, 0]}),
            "a tick does not match the spacing or is out of range",
            id="tick beside the spacing",
        ),
        pytest.param(lambda data: data.update(tick_data=[]), "tick_data is not an object", id="list of ticks"),
        pytest.param(lambda data: data["tick_data"].update({"-60": "55"}), "no list of its gross and net liquidity", id="text of a tick"),
        pytest.param(lambda data: data["tick_data"].update({"-60": 5}), "no list of its gross and net liquidity", id="number of a tick"),
        pytest.param(lambda data: data["tick_data"].update({"060": [1, 1], "60": [1, 1]}), "a tick is given twice", id="tick twice"),
        pytest.param(lambda data: data["scalars"].update(liquidity=2**128), "liquidity is out of range", id="liquidity beyond uint128"),
        pytest.param(lambda data: data["scalars"].update(fee=3_000.7), "fee: 3000.7 is not a whole number", id="fraction of a fee"),
        pytest.param(lambda data: data["scalars"].update(fee="3_000"), "fee: '3_000' is not a whole number", id="underscore in a fee"),
        pytest.param(lambda data: data["tick_data"].update({"6_0": [1, 1, 0]}), "tick: '6_0' is not a whole", id="underscore in a tick"),
        pytest.param(
            lambda data: data["scalars"].update(sqrt_price_x96=float("inf")), "Infinity is not a number of JSON", id="infinite price"
        ),
        pytest.param(lambda data: data["scalars"].update(tick=True), "tick: True is not a whole number", id="truth as a tick"),
        pytest.param(
            lambda data: data["tick_data"].update({"0": [1, 1.5, 0]}), "tick 0: 1.5 is not a whole number", id="fraction of liquidity"
        ),
        pytest.param(
            lambda data: data.update(scalars=data["scalars"] | {"liquidity": -5}, tick_data=NEGATIVE),
            "liquidity is out of range",
            id="negative at the price",
        ),
        pytest.param(
            lambda data: data.update(scalars=data["scalars"] | {"liquidity": 5}, tick_data=NEGATIVE_BELOW),
            "do not add up",
            id="negative further down",
        ),
    ],
)
def test_a_file_that_is_no_whole_pool_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object], reason: str) -> None:
    data = json.loads(RECORDED.read_text())
    change(data)
    path = tmp_path / "pool.json"
    path.write_text(json.dumps(data))
    low = Token("0x" + "1" * 40, "WBTC", 8)
    high = Token("0x" + "2" * 40, "WETH", 18)
    with pytest.raises(ConfigError, match=reason):
        read_pool(path, low, high)


def test_a_pool_s_tokens_come_in_the_order_of_their_addresses() -> None:
    low = Token("0x" + "1" * 40, "WETH", 18)
    high = Token("0x" + "2" * 40, "WBTC", 8)
    with raises_field("--market", "pool-state", "WBTC", "WETH"):
        read_pool(RECORDED, high, low)
    with raises_field("--market", "pool-state", "order"):
        make_spec({"WBTC": 5_000, "WETH": 5_000}, BAND, "WETH", tokens=SimulatedTokens(pairs=[PAIR, PAIR[::-1]]))


@pytest.mark.parametrize("symbols", [PAIR, PAIR[::-1]], ids=" ".join)
def test_simulated_tokens__have_addresses_in_the_order_of_their_pair(symbols: tuple[str, str]) -> None:
    spec = make_spec({"WBTC": 5_000, "WETH": 5_000}, BAND, "WETH", tokens=SimulatedTokens(pairs=[symbols]))
    addresses = {asset.token.symbol: int(asset.token.address, 16) for asset in spec.portfolio.assets}
    assert addresses[symbols[0]] < addresses[symbols[1]]


def test_gas_costs_what_the_newest_row_until_then_says(tmp_path: Path) -> None:
    path = tmp_path / "gas.csv"
    path.write_text("time,gas_price_wei\n2021-01-01,5\n2021-01-03,7\n")
    day = 86_400
    first = 1_609_459_200
    assert read_gas_prices(path, np.array([first, first + day, first + 2 * day - 1, first + 2 * day, first + 9 * day])) == (5, 5, 5, 7, 7)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("time,gas_price_wei\n2021-01-01T00:00:01,5\n", "begins at 2021-01-01 00:00:01 UTC, after the first price", id="late"),
        pytest.param("time,gas_price_wei\n2021-01-01,5\n2021-01-01,6\n", "row 2: its time is not later", id="repeated time"),
        pytest.param("time,gas_price_wei\n2021-01-01,-5\n", "not a whole number of wei", id="negative"),
        pytest.param("time,gas_price_wei\n2021-01-01,5.5\n", "not a whole number of wei", id="half a wei"),
        pytest.param("time,gas\n2021-01-01,5\n", "needs columns time and gas_price_wei", id="no column"),
        pytest.param("time,gas_price_wei\n2021-01-01T00:00Z,5\n2021-01-02T00:00+02:00,5\n", "times in several time zones", id="time zones"),
    ],
)
def test_a_mistake_in_gas_prices_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "gas.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_gas_prices(path, np.array([1_609_459_200]))


def test_gas_prices__are_those_of_the_bars_after_a_late_start() -> None:
    spec = make_spec({"BTC": 5_000, "ETH": 3_000, "USD": 2_000}, BAND, "USD", native="ETH")
    none = float("nan")
    table = hourly(BTC=[100.0, 100, 100, 150], ETH=[none, none, 10, 10])
    simulation = simulation_of(table, spec, gas_price_wei=(1, 2, 3, 10**10))
    assert [rebalance.bar for rebalance in simulation.rebalances] == [1]
    assert simulation.gas / simulation.rebalances[0].gas == 1
    assert simulation.gas == simulation_of(table.select(["BTC", "ETH"]), spec, gas_price_wei=(3, 10**10)).gas
    with pytest.raises(ConfigError, match=r"2 bars.*4"):
        simulation_of(table, spec, gas_price_wei=(1, 2))


NONE = float("nan")
DELISTED = hourly(BTC=[100.0] * 9 + [150, 150, 150], ETH=[10.0, 10, 10, 11, *[NONE] * 8])
"""ETH has no price from bar 4 on: it stays fresh for three bars."""
THREE = {"BTC": 4_000, "ETH": 2_000, "USD": 4_000}


def test_asset_without_a_price__halts_the_step_as_live() -> None:
    simulation = simulation_of(DELISTED, make_spec(THREE, BAND, "USD"))
    assert simulation.rebalances == ()
    assert simulation.halted_bar_count == 12 - 6
    assert mentions(simulation.notes, "ETH", "8 bars", f"at {format_time(START_S + 3 * HOUR_S)}")
    assert float(simulation.final_value) / COIN == pytest.approx(40 * 150 + 200 * 11 + 4_000)  # ETH counts at its last price


FIRST_BAR_IN_A_GAP = {
    "another starts late": lambda spec, table: replace(table, closes=np.where(np.arange(12)[:, None] < [7, 0], NONE, table.closes)),
    "a later part": lambda spec, table: select_spec_symbols(spec, table).bars(7, 12),
    "a part of a part": lambda spec, table: select_spec_symbols(spec, table).bars(5, 12).bars(2, 7),
}


@pytest.mark.parametrize("part", FIRST_BAR_IN_A_GAP.values(), ids=FIRST_BAR_IN_A_GAP)
@pytest.mark.parametrize("spec_symbols", [("BTC", "ETH"), ("ETH", "BTC")], ids=" ".join)
def test_old_price__is_as_old_in_a_run_that_begins_in_the_gap(part: Callable[..., PriceTable], spec_symbols: tuple[str, ...]) -> None:
    spec = make_spec({**dict.fromkeys(spec_symbols, 3_000), "USD": 4_000}, BAND, "USD")
    closes = DELISTED.closes.copy()
    closes[11, 1] = 11
    simulation = simulation_of(part(spec, replace(DELISTED, closes=closes)), spec, looks_at_all=True)
    assert len(simulation.equity) == 5
    assert simulation.halted_bar_count == 4, "the price of bar 3 is four to seven bars old"


def test_ended_asset__stays_at_its_last_price_by_the_owner_s_word() -> None:
    spec = make_spec(THREE, BAND, "USD")
    quick, whole = (simulation_of(DELISTED, spec, stale_asset_mode="leave", looks_at_all=every) for every in (False, True))
    # From bar 6 on BTC and USD are half and half of the rest: 6,000 beside 4,000 at bar 9, so that 1,000 moves. 200 ETH stay.
    (done,) = quick.rebalances
    assert (done.bar, quick.halted_bar_count) == (9, 0)
    assert float(done.turnover) / COIN == pytest.approx(1_000, rel=1e-3)
    eth = spec.portfolio.assets[1].token.address
    assert dict(quick.balances)[eth] == 200 * COIN
    assert quick.targets[5].tolist() == [0.4, 0.2, 0.4]
    assert quick.targets[9].tolist() == [0.5, 0, 0.5]
    assert quick.rebalances == whole.rebalances
    assert np.array_equal(quick.equity, whole.equity)


def test_asset_with_prices_again__is_traded_again() -> None:
    closes = DELISTED.closes.copy()
    closes[9:, 1] = 20
    simulation = simulation_of(replace(DELISTED, closes=closes), make_spec(THREE, BAND, "USD"), stale_asset_mode="leave")
    assert [rebalance.bar for rebalance in simulation.rebalances] == [9]
    assert simulation.weights[-1].tolist() == pytest.approx([0.4, 0.2, 0.4], abs=1e-5)


def test_missing_numeraire_price__leaves_nothing_to_go_on_with() -> None:
    table = hourly(BTC=[100.0] * 9, USD=[1.0, 1, *[NONE] * 7])
    with SimulationRun(
        make_spec({"BTC": 5_000, "USD": 5_000}, BAND, "USD"), table, replace(DEEP, stale_asset_mode="leave", looks_at_all=True)
    ) as going:
        while going.evaluate_next_bar():
            pass
        assert isinstance(going.outcome.decision, Halt)
        assert going.finish().halted_bar_count == 9 - 4


def test_shipped_sample__is_read_and_names_its_licence() -> None:
    prices, gas = sample_files()
    table = read_table(prices)
    assert (table.bar_count, table.interval_s, table.symbols) == (365, 86_400, ("BTC", "ETH", "LINK", "SOL", "UNI", "USDC", "AAVE"))
    assert len(set(read_gas_prices(gas, table.times_s))) == 365
    assert "MIT License" in (prices.parent / "README.md").read_text()
