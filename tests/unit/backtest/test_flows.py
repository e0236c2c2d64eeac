"""Deposits and withdrawals in a simulation: what they do to the holdings, to returns, to holding, to the books and to limits."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("polars")

from agent.backtest.report.series import growth_series
from agent.backtest.result import SimulationResult
from agent.backtest.settings import OwnerTransfer, apply_transfer, make_spec
from agent.backtest.simulate import SimulationRun
from agent.cli.research.portfolio_texts import parse_owner_transfer
from agent.errors import ConfigError
from agent.model import ExternalTransferKind, Threshold
from tests.support.backtests import BAND, COIN, DEEP, HOUR_S, START_S, halves, hourly, random_table, simulation_of

QUIET = [100.0, 100, 110, 110, 121]
"""52.4 % of BTC at 110: inside 45 to 55."""


def at(bar: int, amount: int) -> OwnerTransfer:
    return OwnerTransfer(START_S + HOUR_S * bar, Fraction(amount))


def test_returns_are_told_without_what_came_and_went() -> None:
    simulation = simulation_of(hourly(BTC=QUIET), flows=(at(2, 1_050),), transfer_mode="pro-rata")
    # 50 BTC and 5,000 USD are 10,500 at 110; a tenth more of each is 55 and 5,500: at 121 that is 12,155.
    assert simulation.rebalances == ()
    assert float(simulation.final_value) / COIN == pytest.approx(12_155, rel=1e-12)
    assert simulation.final_value == simulation.hold_value
    assert simulation.twr == pytest.approx(10_500 / 10_000 * 12_155 / 11_550 - 1, rel=1e-12)
    assert simulation.twr == pytest.approx(simulation.hold_twr, rel=1e-12)
    flow = simulation.transfers[0]
    assert (flow.bar, flow.time_s, flow.value, round(flow.value_before / COIN)) == (2, START_S + 2 * HOUR_S, 1_050 * COIN, 10_500)
    assert simulation.equity.tolist() == pytest.approx([10_000, 10_000, 11_550, 11_550, 12_155])
    assert simulation.hold_equity.tolist() == pytest.approx(simulation.equity.tolist())


def test_deposit_in_the_numeraire__is_bought_by_holding_at_no_cost() -> None:
    simulation = simulation_of(hourly(BTC=[100.0, 100, 100, 120]), flows=(at(2, 5_000),))
    # 5,000 of 15,000 in BTC is below 45 %: 2,500 is bought. Holding buys the same: 9,000 and 7,500 in the end.
    assert [rebalance.bar for rebalance in simulation.rebalances] == [2]
    assert float(simulation.rebalances[0].turnover) / COIN == pytest.approx(2_500, rel=1e-3)
    assert simulation.hold_value == 16_500 * COIN
    assert simulation.final_value < simulation.hold_value  # by the cost of the purchase alone
    assert float(simulation.final_value) / COIN == pytest.approx(7_500 * 1.2 + 7_500, rel=1e-3)
    assert simulation.hold_twr == pytest.approx(16_500 / 15_000 - 1, rel=1e-12)


def test_withdrawal__takes_one_share_of_everything_from_holding() -> None:
    simulation = simulation_of(hourly(BTC=[100.0, 100, 100, 200]), flows=(at(2, -2_000),))
    assert simulation.hold_value == (40 * 200 + 4_000) * COIN


def test_withdrawal__takes_the_numeraire_first_then_in_proportion() -> None:
    prices = {"BTC": Fraction(100), "ETH": Fraction(10), "USD": Fraction(1)}
    amount_by_symbol = {"BTC": 30, "ETH": 100, "USD": 2_000}
    holdings_after = apply_transfer(amount_by_symbol, prices, Fraction(-4_000), "numeraire", "USD", amount_by_symbol)
    assert holdings_after == {"BTC": 15, "ETH": 50, "USD": 0}
    assert apply_transfer(amount_by_symbol, prices, Fraction(-3_000), "pro-rata", "USD", amount_by_symbol) == {
        "BTC": 15,
        "ETH": 50,
        "USD": 1_000,
    }
    assert apply_transfer(amount_by_symbol, prices, Fraction(600), "pro-rata", "USD", amount_by_symbol) == {
        "BTC": 33,
        "ETH": 110,
        "USD": 2_200,
    }
    assert apply_transfer(amount_by_symbol, prices, Fraction(7, 2), "numeraire", "USD", amount_by_symbol) == amount_by_symbol | {
        "USD": 2_003
    }  # rounded against the wallet
    assert apply_transfer(amount_by_symbol, prices, Fraction(-7, 2), "numeraire", "USD", amount_by_symbol) == amount_by_symbol | {
        "USD": 1_996
    }
    with pytest.raises(ConfigError, match="not below the portfolio's value"):
        apply_transfer(amount_by_symbol, prices, Fraction(-6_000), "numeraire", "USD", amount_by_symbol)


def withdraw_all_but(left: int) -> tuple[SimulationResult, SimulationResult]:
    """Return a simulation, and one with a withdrawal that leaves so much. The gas of a rebalance is paid from no asset, so the wallet is
    worth more than the portfolio.
    """
    table = hourly(ETH=[100.0, 130, 130, 130, 130])
    spec = make_spec({"ETH": 5_000, "USD": 5_000}, BAND, "USD", native="ETH")
    whole = simulation_of(table, spec, gas_price_wei=10**12)
    assert whole.gas > 10 * COIN
    flow = OwnerTransfer(START_S + HOUR_S * 3, (left * COIN - whole.final_value) / COIN)
    return whole, simulation_of(table, spec, flows=(flow,), gas_price_wei=10**12, transfer_mode="pro-rata")


@pytest.mark.parametrize("left", [-10, 0])
def test_withdrawal__leaves_more_than_the_gas_owed(left: int) -> None:
    with pytest.raises(ConfigError, match="--flow: a withdrawal"):
        withdraw_all_but(left)


def test_withdrawal__that_leaves_a_coin_keeps_the_return() -> None:
    whole, withdrawn = withdraw_all_but(1)
    assert withdrawn.twr == pytest.approx(whole.twr)


def test_books__have_each_flow_as_the_owner_s_outside_all_limits() -> None:
    spec = halves()
    spec = replace(spec, limits=replace(spec.limits, balance_jump_bps=200, daily_loss_bps=100, slippage_bps=30))
    deep_settings = replace(DEEP, flows=(at(1, 4_000), at(3, -6_000)), looks_at_all=True)
    with SimulationRun(spec, hourly(BTC=[100.0, 100, 100, 100, 100]), deep_settings) as going:
        while going.evaluate_next_bar():
            pass
        simulation = going.finish()
        store = going.context.store
        assert [(flow.kind, flow.delta_raw) for flow in store.balances.transfers()] == [
            (ExternalTransferKind.DEPOSIT, 4_000 * COIN),
            (ExternalTransferKind.WITHDRAWAL, -6_000 * COIN),
        ]
        assert float(store.budgets.history(going.world.now_s()).budgets.loss_total) == pytest.approx(
            float(simulation.fees + simulation.impact), rel=1e-9, abs=1e6
        )
    assert (simulation.halted_bar_count, simulation.refusal_counts) == (0, ())
    assert [rebalance.bar for rebalance in simulation.rebalances] == [1, 3]
    assert float(simulation.final_value) / COIN == pytest.approx(8_000, rel=1e-3)


def test_bars_with_flows__are_looked_at_and_change_nothing_else() -> None:
    table = random_table(4, 40)
    flows = (at(7, 3_000), at(19, -2_000), at(20, -100))
    quick = simulation_of(table, flows=flows)
    whole = simulation_of(table, flows=flows, looks_at_all=True)
    assert quick.evaluated_bar_count < whole.evaluated_bar_count == 40
    assert quick.rebalances == whole.rebalances
    assert quick.config_hash == whole.config_hash
    assert np.array_equal(quick.equity, whole.equity)
    assert np.array_equal(quick.hold_equity, whole.hold_equity)
    assert (quick.twr, quick.hold_twr) == (whole.twr, whole.hold_twr)


WIDE = Threshold(4_999, None)
"""A band that no price of these tests leaves, so that only transfers change what is held."""
AMOUNTS = st.integers(-90, 300).filter(bool)
"""Percent of the start value."""


def unit_values(prices: list[float], amounts_by_bar: dict[int, list[float]], of_holding: bool) -> list[float]:
    """Return the value of one unit after each bar, as a fund keeps it: who pays in buys units at their value of that moment."""
    coins = 5_000 / prices[0]
    cash = 5_000.0
    units = 10_000.0
    values = []
    for bar, price in enumerate(prices):
        for amount in amounts_by_bar.get(bar, []):
            total = coins * price + cash
            units += amount / (total / units)
            if amount > 0:
                bought = amount / 2 if of_holding else 0.0
                coins += bought / price
                cash += amount - bought
            elif of_holding:
                coins *= 1 + amount / total
                cash *= 1 + amount / total
            else:
                from_cash = min(cash, -amount)
                cash -= from_cash
                coins -= (-amount - from_cash) / price
        values.append((coins * price + cash) / units)
    return values


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(-15, 15), min_size=4, max_size=9),
    st.lists(st.lists(AMOUNTS, max_size=5), min_size=8, max_size=8),
)
def test_growth__is_that_of_a_unit_for_any_transfers_of_a_bar(steps: list[int], percents: list[list[int]]) -> None:
    prices = [100.0]
    for step in steps:
        prices.append(round(prices[-1] * (1 + step / 100), 4))
    amounts_by_bar: dict[int, list[float]] = {}
    paid_in = 10_000.0
    for bar, bar_percents in enumerate(percents[: len(prices) - 1], 1):
        for percent in bar_percents:
            amount = percent * 100.0 if percent > 0 else percent / 1_000 * paid_in  # a tenth at most leaves
            paid_in += amount
            amounts_by_bar.setdefault(bar, []).append(amount)
    flows = tuple(OwnerTransfer(START_S + HOUR_S * bar, Fraction(amount)) for bar, amounts in amounts_by_bar.items() for amount in amounts)
    simulation = simulation_of(hourly(BTC=prices), halves(WIDE), flows=flows)
    growth = growth_series(simulation)
    for grown, twr, of_holding in (
        (growth.unit_growth, simulation.twr, False),
        (growth.hold_unit_growth, simulation.hold_twr, True),
    ):
        values = unit_values(prices, amounts_by_bar, of_holding)
        assert grown.tolist() == pytest.approx(values, rel=1e-9)
        assert twr == pytest.approx(values[-1] / values[0] - 1, abs=1e-9)


def test_swap_under_way__reverts_if_the_owner_takes_its_input() -> None:
    simulation = simulation_of(hourly(BTC=[100.0, 130, 130, 130, 130]), latency_bars=2, flows=(at(2, -11_000),))
    # 750 of BTC is to be sold at bar 1; at bar 2 the owner leaves 500 of all: the swap of bar 3 has nothing to sell.
    first = simulation.rebalances[0]
    assert (first.bar, first.succeeded) == (3, False)


def test_owner_transfer__time_with_a_zone_is_its_moment_in_utc() -> None:
    assert parse_owner_transfer("2021-01-03T12:00+02:00=1").time_s == parse_owner_transfer("2021-01-03T10:00=1").time_s
