"""Each way in which a market breaks: what is laid over the prices, and what the live step then does and does not."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from agent.backtest.settings import make_spec
from agent.backtest.simulate import simulate
from agent.backtest.stress.paths import SpotScenario, SpotSeverity, apply_scenario, inapplicable_scenarios
from agent.errors import ConfigError
from agent.model import Every, OrderKind, OrdersConfig, OrderTerms
from tests.support.backtests import (
    BAND,
    BARS,
    BEGINS,
    COIN,
    DEEP,
    ENDS,
    HOUR_S,
    guarded_spec,
    halves,
    hourly,
    risen_prices,
    simulation_of,
    simulation_under,
)


def test_without_any_of_it_the_price_that_rose_is_sold_at_once() -> None:
    stressed = simulation_under(SpotScenario.CALM, guarded_spec(), risen_prices())
    assert [rebalance.bar for rebalance in stressed.rebalances] == [BEGINS]
    assert stressed.halted_bar_count == 0


def test_silent_feeds__halt_all_trades_until_they_speak() -> None:
    stressed = simulation_under(SpotScenario.ORACLE, guarded_spec(), risen_prices())
    # The last word is of bar 9. With three bars of age allowed, it still counts in bars 10 and 11, when it says that nothing moved.
    assert stressed.halted_bar_count == ENDS - BEGINS - 2
    assert [rebalance.bar for rebalance in stressed.rebalances] == [ENDS]
    every = simulation_under(SpotScenario.ORACLE, guarded_spec(), risen_prices(), replace(DEEP, looks_at_all=True))
    assert (every.halted_bar_count, every.rebalances) == (stressed.halted_bar_count, stressed.rebalances)


def test_a_schedule_waits_for_feeds_too() -> None:
    table = hourly(BTC=np.linspace(100, 130, BARS).tolist())
    stressed = simulation_under(SpotScenario.ORACLE, halves(Every(2 * HOUR_S)), table)
    # Until it is too old, the price of before is traded by; then nothing is until there is a new one.
    assert not [rebalance for rebalance in stressed.rebalances if BEGINS + 2 <= rebalance.bar < ENDS]
    assert stressed.rebalances[-1].bar >= ENDS
    assert stressed.halted_bar_count == ENDS - BEGINS - 2


def test_dollar_off_its_peg__halts_until_it_is_back() -> None:
    stressed = simulation_under(SpotScenario.DEPEG, guarded_spec(depeg_bps=200), risen_prices())
    assert stressed.halted_bar_count == ENDS - BEGINS
    assert [rebalance.bar for rebalance in stressed.rebalances] == [ENDS]


def test_a_dollar_of_the_table_falls_as_the_numeraire_does() -> None:
    table = hourly(ETH=[100.0] * BARS, USDC=[1.0] * BARS)
    spec = make_spec({"ETH": 5_000, "USDC": 5_000}, BAND, "EUR")
    laid = apply_scenario(SpotScenario.DEPEG, spec, table, DEEP, SpotSeverity(depeg_bps=2_500))
    assert laid.table.closes[:, 1].tolist() == [1.0] * BEGINS + [0.75] * (ENDS - BEGINS) + [1.0] * (BARS - ENDS)
    assert (laid.numeraire_values == 1).all()
    own = apply_scenario(SpotScenario.DEPEG, guarded_spec(), risen_prices(), DEEP, SpotSeverity(depeg_bps=2_500))
    assert own.table.symbols == ("BTC", "USD")
    assert own.numeraire_values.tolist() == own.table.closes[:, 1].tolist() == laid.table.closes[:, 1].tolist()


def test_without_the_limit_a_fallen_dollar_is_bought() -> None:
    stressed = simulation_under(SpotScenario.DEPEG, guarded_spec(), risen_prices(), severity=SpotSeverity(depeg_bps=2_500))
    bought = [rebalance for rebalance in stressed.rebalances if BEGINS <= rebalance.bar < ENDS]
    assert bought
    assert stressed.halted_bar_count == 0


def test_dear_gas__is_refused_by_its_limit_until_cheap() -> None:
    settings = replace(DEEP, gas_price_wei=10**9)
    stressed = simulation_under(SpotScenario.GAS, guarded_spec(gas_price_wei=60 * 10**9), risen_prices(), settings)
    assert [rebalance.bar for rebalance in stressed.rebalances] == [ENDS]
    assert stressed.refusal_counts == (("gas_price", ENDS - BEGINS),)
    paid = simulation_under(SpotScenario.GAS, guarded_spec(), risen_prices(), settings)
    assert [rebalance.bar for rebalance in paid.rebalances] == [BEGINS]
    assert float(paid.gas) == pytest.approx(500 * float(stressed.gas), rel=0.1)


def test_thin_pools__trade_no_more_than_the_impact_limit_allows() -> None:
    severity = SpotSeverity(depth_part=Fraction(1, 50_000))  # 20,000 dollars on either side
    stressed = simulation_under(SpotScenario.POOL, guarded_spec(price_impact_bps=100), risen_prices(), severity=severity)
    calm = simulation_under(SpotScenario.CALM, guarded_spec(price_impact_bps=100), risen_prices())
    inside = [rebalance for rebalance in stressed.rebalances if BEGINS <= rebalance.bar < ENDS]
    # Moving a pair's price by 1 % takes half a percent of a side: 100 dollars, and they have to be 750.
    assert len(inside) >= 2
    assert all(float(rebalance.turnover) / COIN < 110 for rebalance in inside)
    assert float(calm.rebalances[0].turnover) / COIN == pytest.approx(750, rel=1e-2)


def test_thin_pools__refuse_a_least_trade_beyond_the_impact_limit() -> None:
    severity = SpotSeverity(depth_part=Fraction(1, 50_000))
    spec = guarded_spec(price_impact_bps=100, min_trade=Fraction(200 * COIN))
    stressed = simulation_under(SpotScenario.POOL, spec, risen_prices(), severity=severity)
    assert [rebalance.bar for rebalance in stressed.rebalances] == [ENDS]
    assert sum(times for _, times in stressed.refusal_counts) == ENDS - BEGINS


def test_stop_loss__sells_all_once_in_a_crash_and_buys_nothing_back() -> None:
    table = hourly(BTC=[100.0] * BARS)
    spec = halves()
    coin = spec.portfolio.assets[0].token.address
    stopped = replace(spec.portfolio, orders=OrdersConfig((OrderTerms(coin, OrderKind.STOP_LOSS, share_bps=2_000),)))
    stressed = simulation_under(SpotScenario.CRASH, replace(spec, portfolio=stopped), table)
    assert len(stressed.rebalances) == 1
    # 50 % over three bars: 79.4, 63.0, 50. The first is below 80.
    assert stressed.rebalances[0].bar == BEGINS
    assert dict(stressed.balances)[coin] == 0
    assert stressed.equity[-1] == pytest.approx(5_000 + 5_000 * 0.5 ** (1 / 3), rel=2e-3)
    without = simulation_under(SpotScenario.CRASH, spec, table)
    assert without.equity[-1] < stressed.equity[-1]


def test_a_crash_takes_its_share_of_all_but_dollars_and_stays() -> None:
    table = hourly(BTC=[100.0] * BARS, USDC=[1.0] * BARS)
    spec = make_spec({"BTC": 5_000, "USDC": 5_000}, BAND, "EUR")
    laid = apply_scenario(SpotScenario.CRASH, spec, table, DEEP, SpotSeverity(crash_bps=7_500, crash_bars=2))
    assert laid.table.closes[:, 0].tolist() == pytest.approx([100.0] * BEGINS + [50.0] + [25.0] * (BARS - BEGINS - 1))
    assert (laid.table.closes[:, 1] == 1).all()
    assert (table.closes[:, 0] == 100).all()


@pytest.mark.parametrize(
    ("shocks", "ends"),
    [
        ((("BTC", -7_500),), (25.0, 50.0, 1.0)),
        ((("ETH", 2_100),), (100.0, 60.5, 1.0)),
        ((("BTC", -5_000), ("USDC", -1_900)), (50.0, 50.0, 0.81)),
    ],
)
def test_a_shock_moves_the_prices_it_names_alone_and_they_stay(shocks: tuple[tuple[str, int], ...], ends: tuple[float, ...]) -> None:
    table = hourly(BTC=[100.0] * BARS, ETH=[50.0] * BARS, USDC=[1.0] * BARS)
    spec = make_spec({"BTC": 4_000, "ETH": 3_000, "USDC": 3_000}, BAND, "USDC")
    laid = apply_scenario(SpotScenario.SHOCK, spec, table, DEEP, SpotSeverity(crash_bars=2, shocks=shocks))
    assert laid.table.closes[BEGINS - 1].tolist() == [100.0, 50.0, 1.0]
    halfway = [start * (end / start) ** 0.5 for start, end in zip((100.0, 50.0, 1.0), ends, strict=True)]
    assert laid.table.closes[BEGINS].tolist() == pytest.approx(halfway)
    assert laid.table.closes[-1].tolist() == pytest.approx(list(ends))
    assert laid.numeraire_values.tolist() == laid.table.closes[:, 2].tolist()


@pytest.mark.parametrize("scenario", [SpotScenario.CRASH, SpotScenario.SHOCK])
def test_a_crash_that_the_path_ends_before_is_named(scenario: SpotScenario) -> None:
    table = hourly(BTC=[100.0] * BARS)
    spec = make_spec({"BTC": 5_000, "USD": 5_000}, BAND, "USD")
    severity = SpotSeverity(crash_bars=BARS - BEGINS, shocks=(("BTC", -5_000),))
    assert apply_scenario(scenario, spec, table, DEEP, severity).table.closes[-1, 0] == pytest.approx(50)
    with pytest.raises(ConfigError, match=f"write --scenarios crash-bars={BARS - BEGINS} or less, or a longer path"):
        apply_scenario(scenario, spec, table, DEEP, replace(severity, crash_bars=BARS - BEGINS + 1))
    usual = apply_scenario(scenario, spec, table, DEEP, replace(severity, crash_bars=None))
    assert usual.table.closes[-1, 0] == pytest.approx(50), "whole within the bars that are left"


def test_a_crash_starts_from_a_flat_market_and_no_trend_hides_it() -> None:
    """Prices rise threefold over the path and one is missing; before the crash all stand, and they end at half."""
    rising = [100.0 * 3 ** (bar / (BARS - 1)) * (1.01 if bar % 2 else 1) for bar in range(BARS)]
    table = hourly(BTC=[*rising[:-2], float("nan"), rising[-1]])
    laid = apply_scenario(SpotScenario.CRASH, make_spec({"BTC": 5_000, "USD": 5_000}, BAND, "USD"), table, DEEP, SpotSeverity(crash_bars=2))
    closes = laid.table.closes[:, 0]
    assert closes[:BEGINS].tolist() == pytest.approx([100.0] * BEGINS)
    assert closes[-1] == pytest.approx(50)
    assert np.isnan(closes[-2])
    assert np.nanmax(closes[BEGINS + 1 :]) < 52
    assert np.nanstd(closes[BEGINS + 1 :]) > 0, "its noise stays"


def test_what_a_portfolio_cannot_meet_is_named() -> None:
    table = hourly(BTC=[100.0] * BARS, ETH=[10.0] * BARS)
    spec = make_spec({"BTC": 5_000, "ETH": 5_000}, BAND, "EUR")
    reason_by_scenario = dict(inapplicable_scenarios(tuple(SpotScenario), spec, table, DEEP, SpotSeverity(crash_bars=2)))
    assert set(reason_by_scenario) == {"depeg", "gas-spike"}
    assert "a dollar" in reason_by_scenario["depeg"]
    with pytest.raises(ConfigError, match="native coin"):
        apply_scenario(SpotScenario.GAS, spec, table, DEEP, SpotSeverity())
    cash = make_spec({"USDC": 5_000, "USD": 5_000}, BAND, "USD")
    assert "crash" in dict(inapplicable_scenarios(tuple(SpotScenario), cash, hourly(USDC=[1.0] * BARS), DEEP, SpotSeverity()))


def test_settings_without_anything_broken_are_as_they_were() -> None:
    table = risen_prices()
    plain = simulation_of(table)
    full = simulate(halves(), table, replace(DEEP, silent_feed_bars=(5, 5), thin_pool_bars=(5, 5, Fraction(1, 2))))
    assert (plain.final_value, plain.rebalances) == (full.final_value, full.rebalances)
    assert plain.config_hash != full.config_hash


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"crash_bps": 10_000}, "--scenarios crash"),
        ({"crash_bps": 0}, "--scenarios crash"),
        ({"crash_bars": 0}, "--scenarios crash-bars"),
        ({"depeg_bps": 10_000}, "--scenarios depeg"),
        ({"depth_part": Fraction(0)}, "--scenarios thin"),
        ({"depth_part": Fraction(2)}, "--scenarios thin"),
        ({"gas_price_wei": 0}, "--scenarios gas-spike"),
    ],
)
def test_a_severity_that_cannot_be_is_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        SpotSeverity(**changes)  # type: ignore[arg-type]  # field names, checked at run time
