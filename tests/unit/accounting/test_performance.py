"""Returns against closed forms: time-weighted, money-weighted, held; costs, periods and the hint."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.accounting import entries
from agent.accounting.export import weights_bps
from agent.accounting.money_weighted import annualize, money_weighted_return
from agent.accounting.performance import (
    BuyAndHoldTokens,
    ExternalCashFlow,
    Performance,
    PerformanceCosts,
    buy_and_hold,
    calendar_periods,
    external_cash_flows,
    hold_values,
    managed_inflows,
    performance,
    performance_costs,
    return_periods,
    time_weighted_return,
    year_start_s,
)
from agent.model import Entry, EntryKind, ExternalTransfer, ExternalTransferKind, LedgerOpening, MarginReading, Valuation, ValuedHolding
from agent.units import NATIVE, YEAR_S
from tests.support.ledgers import COUNTED, USDC, WETH, Wallet
from tests.support.records.entries import DAY_S, flow, trade_of
from tests.support.text import raises_field

OPENING = BuyAndHoldTokens(USDC, WETH)


def at(block: int, weth: int, usdc: int, price: int) -> Valuation:
    """Whole coins, each base unit a coin; half and half is wanted."""
    rows = (ValuedHolding(WETH, weth, 0, Fraction(price), 5_000), ValuedHolding(USDC, usdc, 0, Fraction(1), 5_000))
    return Valuation(block, block * DAY_S, Fraction(weth * price + usdc), rows)


def targeting(valuation: Valuation, target: str = "") -> Valuation:
    """With `target` as the only target, or none."""
    holdings = (replace(holding, target_bps=10_000 if holding.token == target else 0) for holding in valuation.holdings)
    return replace(valuation, holdings=tuple(holdings))


def worth(block: int, value: int | Fraction) -> Valuation:
    return Valuation(block, block * DAY_S, Fraction(value), (ValuedHolding(USDC, int(value), 0, Fraction(1), 10_000),))


def test_a_deposit_is_no_return_and_a_loss_after_it_counts_once() -> None:
    parts = return_periods([worth(1, 100), worth(2, 160), worth(3, 144)], external_cash_flows([flow(2, 50)]))
    assert time_weighted_return(parts) == Fraction(11, 10) * Fraction(9, 10) - 1


def test_a_withdrawal_is_no_loss() -> None:
    parts = return_periods([worth(1, 100), worth(2, 120), worth(3, 30), worth(4, 33)], external_cash_flows([flow(3, -90)]))
    assert time_weighted_return(parts) == Fraction(12, 10) * Fraction(11, 10) - 1


def test_blocks_of_one_second__lose_nothing_between_them() -> None:
    first, second, third = (replace(worth(block, 100), chain_s=DAY_S) for block in (1, 2, 3))
    trade = replace(flow(2, 50), kind=EntryKind.TRADE)
    measured = performance([trade], [first, second, replace(third, chain_s=2 * DAY_S)], DAY_S, 3 * DAY_S, USDC, OPENING)
    assert measured.start == first
    assert measured.rebalance_count == 1


def test_wallet_empty_meanwhile__goes_on_from_where_it_was() -> None:
    parts = return_periods(
        [worth(1, 100), worth(2, 110), worth(3, 0), worth(4, 50), worth(5, 55)], external_cash_flows([flow(3, -110), flow(4, 50)])
    )
    assert time_weighted_return(parts) == Fraction(11, 10) ** 2 - 1
    assert time_weighted_return(()) is None


def changed_asset(between: list[Entry], *valuations: Valuation) -> Performance:
    result = performance(between, list(valuations), 0, 9 * DAY_S, USDC, OPENING)
    assert result is not None
    return result


def test_asset_leaving_with_its_balance__is_a_withdrawal() -> None:
    result = changed_asset([], at(1, 10, 100, 10), worth(2, 100), at(3, 10, 100, 12))
    assert (result.withdrawals, result.deposits, result.profit, result.twr) == (100, 120, 0, 0)


def test_what_is_sold_before_its_asset_leaves_is_no_withdrawal() -> None:
    """9 of 10 coins are sold for 89 before the asset goes: one dollar is lost, one coin leaves."""
    sale = entries.Posting(entries.WALLET, WETH, -9, Fraction(-90)), entries.Posting(entries.WALLET, USDC, 89, Fraction(89))
    result = changed_asset([replace(trade_of(0), block=2, postings=sale)], at(1, 10, 100, 10), worth(2, 189))
    assert (result.withdrawals, result.profit) == (10, -1)


def test_the_first_entry_of_an_asset_is_counted_once() -> None:
    opening = entries.opening_entry(LedgerOpening("", WETH, 10, Fraction(100), 2, 2 * DAY_S))
    result = changed_asset([opening], worth(1, 100), at(2, 10, 100, 10))
    assert (result.deposits, result.profit, result.twr) == (100, 0, 0)


@given(st.lists(st.tuples(st.integers(-40, 60), st.integers(-30, 80)), min_size=1, max_size=12))
def test_time_weighted_return__is_the_markets_product(moves: list[tuple[int, int]]) -> None:
    value = Fraction(1_000_000)
    valuations = [worth(0, 1_000_000)]
    flows = []
    expected = Fraction(1)
    for block, (percent, paid_percent) in enumerate(moves, 1):
        grown = value * (100 + percent) / 100
        paid = int(grown) * paid_percent // 100
        expected *= Fraction(100 + percent, 100)
        value = grown + paid
        valuations.append(worth(block, value))
        flows += [flow(block, paid)] if paid else []
    assert time_weighted_return(return_periods(valuations, external_cash_flows(flows))) == expected - 1


@pytest.mark.parametrize(
    ("crossed", "end", "expected"),
    [
        pytest.param([], 110, 0.1, id="no flow"),
        pytest.param([(YEAR_S, 100)], 231, 0.21, id="deposit after a year"),  # 10 % in each of two years
        pytest.param([(YEAR_S, -110)], 0, 0.21, id="withdrawal of all"),
        pytest.param([(YEAR_S, -55)], Fraction(121, 2), 0.21, id="withdrawal of half"),
    ],
)
def test_money_weighted_returns_match_closed_forms(crossed: list[tuple[int, int]], end: Fraction, expected: float) -> None:
    flows = [(at_s, Fraction(value)) for at_s, value in crossed]
    assert money_weighted_return(0, 2 * YEAR_S, Fraction(100), Fraction(end), flows) == pytest.approx(expected, abs=1e-9)


def test_money_weighted_return_of_hours__is_exact() -> None:
    assert money_weighted_return(0, 7_200, Fraction(100), Fraction(231), [(3_600, Fraction(100))]) == pytest.approx(0.21, abs=1e-9)


def test_wallet_empty_at_first__has_the_return_of_what_came() -> None:
    """100 come after three quarters of the period and grow by a tenth: 1.1 to the fourth over all of it, whatever the unit."""
    for unit in (1, 10**6, 10**40):
        rate = money_weighted_return(0, 100, Fraction(0), Fraction(110 * unit), [(75, Fraction(100 * unit))])
        assert rate == pytest.approx(1.1**4 - 1, abs=1e-9)


def test_a_return_of_moments_is_not_stretched_over_years() -> None:
    """2 % in the last quarter of an hour of a year is no rate of a year."""
    for end in (98, 102, 110):
        assert money_weighted_return(0, YEAR_S, Fraction(0), Fraction(end), [(YEAR_S - 800, Fraction(100))]) is None
    assert annualize(1e40, 30 * 86_400) is None


def test_no_rate_is_told_where_there_is_none() -> None:
    assert money_weighted_return(0, 10, Fraction(0), Fraction(0), []) is None
    assert money_weighted_return(5, 5, Fraction(1), Fraction(2), []) is None
    assert money_weighted_return(0, 100, Fraction(100), Fraction(-20), [(50, Fraction(-150))]) is None, "it ends in debt"
    assert annualize(0.01, 30 * 86_400 - 1) is None
    assert annualize(0.01, 30 * 86_400) == pytest.approx(1.01 ** (365 / 30) - 1)
    assert annualize(0.21, 2 * YEAR_S) == pytest.approx(0.1)


def test_holding_keeps_units_and_buys_deposits_at_the_targets() -> None:
    """1 WETH and 100 USDC at 100; WETH doubles, 60 come and buy 0.15 WETH and 30 USDC; WETH halves."""
    valuations = [at(1, 1, 100, 100), at(2, 1, 160, 200), at(3, 1, 160, 100)]
    profit, twr = buy_and_hold(valuations, external_cash_flows([flow(2, 60)]), OPENING, has_traded=True)
    assert profit == Fraction(115 + 130) - 200 - 60
    assert twr == pytest.approx(Fraction(300, 200) * Fraction(245, 360) - 1)
    assert hold_values([flow(2, 60)], valuations, OPENING, {1, 2, 3}) == {1: 200, 2: 360, 3: 245}


@pytest.mark.parametrize(
    "second",
    [
        targeting(at(2, 1, 200, 100)),
        replace(at(2, 1, 200, 100), holdings=()),
        targeting(at(2, 1, 200, 0), WETH),
    ],
    ids=["no target", "no holding", "target without a price"],
)
def test_deposit_that_can_buy_nothing__stays_in_the_numeraire(second: Valuation) -> None:
    """1 WETH and 100 USDC at 100; 100 come and buy nothing."""
    valuations = [at(1, 1, 100, 100), second, at(3, 1, 200, 300)]
    profit, _ = buy_and_hold(valuations, external_cash_flows([flow(2, 100)]), OPENING, has_traded=True)
    assert profit == 200


def test_opening_cash__buys_the_basket_at_its_cost_alone() -> None:
    """200 USDC buy one WETH of 100 for 101; WETH rises to 300. The market made 200, the purchase cost 1."""
    valuations = [at(1, 0, 200, 100), at(2, 1, 99, 100), at(3, 1, 99, 300)]
    bought = replace(trade_of(200), block=2, chain_s=2 * DAY_S)
    measured = performance([bought], valuations, 0, 10**9, USDC, OPENING)
    assert (measured.profit, measured.hold_profit, measured.against_holding, measured.rebalance_count) == (199, 200, -1, 1)


def test_opening_cash__fills_what_is_below_target() -> None:
    fifth = at(1, 1, 400, 100)
    assert OPENING.basket(fifth) == {WETH: Fraction(5, 2), USDC: 250}
    assert OPENING.basket(at(1, 4, 100, 100)) == {WETH: 4, USDC: 100}
    margin = replace(fifth.holdings[1], margin=MarginReading(1, 300, 0, 0, ()))
    assert OPENING.basket(replace(fifth, holdings=(fifth.holdings[0], margin))) == {WETH: Fraction(5, 2), USDC: 550}
    unpriced = targeting(replace(fifth, holdings=(replace(fifth.holdings[0], price=Fraction(0)), fifth.holdings[1])), WETH)
    assert OPENING.basket(unpriced) == {WETH: 1, USDC: 400}, "a token without a price cannot be bought"
    empty = Valuation(1, DAY_S, Fraction(0), ())
    assert OPENING.basket(empty) == {}


def test_native_coin_asset__counts_as_its_wrapped_token() -> None:
    """1 native coin of 100 is at its target of a third; 200 USDC buy one LINK of 100."""
    link = "0x" + "11" * 20
    third = 3_333
    rows = (
        ValuedHolding(WETH, 0, 0, Fraction(100), third),
        ValuedHolding(link, 0, 0, Fraction(100), third),
        ValuedHolding(USDC, 200, 0, Fraction(1), third),
        ValuedHolding(NATIVE, 1, 0, Fraction(100), 0),
    )
    assert OPENING.basket(Valuation(1, DAY_S, Fraction(300), rows)) == {WETH: 0, link: 1, USDC: 100, NATIVE: 1}


def test_after_the_first_trade_a_period_begins_with_what_is_held() -> None:
    """The basket was bought on day 1 and the band holds since: no trade, so rebalancing made nothing."""
    valuations = [at(1, 0, 200, 100), at(2, 1, 100, 80), at(3, 1, 100, 120)]
    bought = replace(trade_of(200), block=2, chain_s=2 * DAY_S)
    measured = performance([bought], valuations, 2 * DAY_S + 1, 10**9, USDC, OPENING)
    assert (measured.rebalance_count, measured.profit, measured.against_holding) == (0, 40, 0)


def test_a_withdrawal_takes_its_share_of_everything_that_is_held() -> None:
    valuations = [at(1, 1, 100, 100), at(2, 1, 50, 100), at(3, 1, 50, 200)]
    profit, _ = buy_and_hold(valuations, external_cash_flows([flow(2, -50)]), OPENING, has_traded=True)
    assert profit == Fraction(75 * 2 + 75) - 200 + 50


@pytest.mark.parametrize(
    ("weth", "usdc", "effect"),
    [
        pytest.param(1, 130, 30, id="more than holding has"),
        pytest.param(1, 70, -30, id="less than holding has"),
        pytest.param(1, 100, 0, id="as much as holding has"),
    ],
)
def test_payout_of_everything__keeps_the_effect_of_rebalancing(weth: int, usdc: int, effect: int) -> None:
    """1 WETH and 100 USDC at 100. Rebalancing gains `effect` before all is paid out at 150, WETH moves to 300, and 300 come."""
    paid = weth * 150 + usdc
    valuations = [at(1, 1, 100, 100), at(2, weth, usdc, 150), at(3, 0, 0, 150), at(4, 0, 0, 300), at(5, 0, 300, 300)]
    between = [replace(trade_of(0), block=1), flow(3, -paid), flow(5, 300)]
    for end_s in range(3, 7):
        measured = performance(between, valuations, 0, end_s * DAY_S, USDC, OPENING)
        assert (measured.profit, measured.hold_profit, measured.against_holding) == (50 + effect, 50, effect)
        assert measured.hold_return == Fraction(1, 4)
    assert hold_values(between, valuations, OPENING, {3, 4}) == {1: 200, 3: 0, 4: 0, 5: 300}


@pytest.mark.parametrize(
    ("between", "second", "inflows"),
    [
        pytest.param([flow(2, 60)], at(2, 1, 160, 100), [(2, 60)], id="deposit"),
        pytest.param([flow(2, -60)], at(2, 1, 40, 100), [(2, -60)], id="withdrawal"),
        pytest.param([], at(2, 1, 100, 250), [], id="rise"),
        pytest.param([trade_of(1)], at(2, 1, 100, 100), [], id="trade"),
    ],
)
def test_inflows__are_what_came_and_went(between: list[Entry], second: Valuation, inflows: list[tuple[int, int]]) -> None:
    assert [(valuation.block, value) for valuation, value in managed_inflows(between, [at(1, 1, 100, 100), second])] == inflows


def test_inflow__of_what_is_set_aside_is_counted_once() -> None:
    """40 of 100 dollars are set aside, and paid later."""
    aside = Valuation(2, 2 * DAY_S, Fraction(100), (ValuedHolding(USDC, 100, 0, Fraction(1), 10_000, reserved_raw=40),))
    inflows = managed_inflows([flow(3, -40)], [worth(1, 100), aside, worth(3, 60)])
    assert [(valuation.block, value) for valuation, value in inflows] == [(2, -40)]


@pytest.mark.parametrize("paid", [140, 240, 279])
def test_payout_of_a_part__takes_the_same_share_of_holding(paid: int) -> None:
    """1 WETH and 100 USDC at 100, and 30 are gained: at 150 the portfolio has 280, and holding 250."""
    valuations = [at(1, 1, 100, 100), at(2, 1, 130, 150), at(3, 0, 280 - paid, 150)]
    between = [replace(trade_of(0), block=1), flow(3, -paid)]
    measured = performance(between, valuations, 0, 9 * DAY_S, USDC, OPENING)
    assert (measured.against_holding, measured.hold_return) == (30, Fraction(1, 4))
    assert hold_values(between, valuations, OPENING, {3})[3] == pytest.approx(Fraction(250 * (280 - paid), 280))


def test_a_swap_by_hand_is_no_part_of_the_strategys_return() -> None:
    wallet = Wallet()
    entry = entries.trade_entry(wallet.change({WETH: -(10**18), USDC: 1_900 * 10**6}, 0), wallet.prices(), COUNTED, {})
    by_hand = replace(entry, by_hand=True, block=2)
    valuations = [worth(1, 10**10), worth(2, 10**10 - 100 * 10**6), worth(3, 10**10 - 100 * 10**6)]
    measured = performance([by_hand], valuations, 0, 10**9, USDC, OPENING)
    assert (measured.profit, measured.manual_effect, measured.twr) == (0, -100 * 10**6, 0)
    assert (measured.rebalance_count, measured.manual_swap_count, measured.costs.total) == (0, 1, 0)
    own = performance([replace(by_hand, by_hand=False)], valuations, 0, 10**9, USDC, OPENING)
    assert own.profit == -100 * 10**6
    assert own.rebalance_count == 1


@pytest.mark.parametrize(
    ("moved", "deposits", "withdrawals", "manual_effect", "swap_count"),
    [
        ({USDC: -5_000 * 10**6}, 0, 5_002 * 10**6, 0, 0),
        ({USDC: 5_000 * 10**6}, 4_998 * 10**6, 0, 0, 0),
        ({WETH: -(10**18), USDC: 1_900 * 10**6}, 0, 0, -102 * 10**6, 1),
        ({}, 0, 0, -2 * 10**6, 0),
    ],
    ids=["payment", "receipt", "exchange", "gas alone"],
)
def test_transaction_of_another_program__is_a_flow_unless_an_exchange(
    moved: dict[str, int], deposits: int, withdrawals: int, manual_effect: int, swap_count: int
) -> None:
    """Its gas of 2 USDC belongs to it."""
    wallet = Wallet()
    start_value = int(wallet.worth())
    wallet.change(moved, 10**15)
    gas_wei = {NATIVE: moved.get(NATIVE, 0) - 10**15}
    entry = entries.external_entry("0x01", 2, 2 * DAY_S, moved | gas_wei, 10**15, wallet.prices(), COUNTED)
    end_value = int(wallet.worth())
    measured = performance([entry], [worth(1, start_value), worth(2, end_value)], 0, 10**9, USDC, OPENING)
    assert (measured.deposits, measured.withdrawals) == (deposits, withdrawals)
    assert (measured.manual_effect, measured.manual_swap_count) == (manual_effect, swap_count)
    assert measured.profit == measured.hold_profit == 0


def test_costs_are_told_apart_and_sum_to_what_was_lost() -> None:
    wallet = Wallet()
    before = wallet.worth()
    entry = entries.trade_entry(wallet.change({WETH: -(10**18), USDC: 1_990 * 10**6}, 10**15), wallet.prices(), COUNTED, {WETH: 3 * 10**15})
    costs = performance_costs([entry])
    assert costs == PerformanceCosts(Fraction(6 * 10**6), Fraction(4 * 10**6), Fraction(2 * 10**6))
    assert costs.total == before - wallet.worth()


@pytest.mark.parametrize(
    ("days", "values", "share"),
    [
        ((0, 10, 30), (100, 400, 900), Fraction(365, 9_000)),
        ((0, 10, 29), (100, 400, 900), None),
        ((0, 10, 30), (0, 0, 900), None),
    ],
    ids=["30 days", "29 days", "no value"],
)
def test_costs_a_year__are_a_share_of_the_mean_value(days: tuple[int, ...], values: tuple[int, ...], share: Fraction | None) -> None:
    """The mean counts each value for as long as it lasts: (100 · 10 + 400 · 20) / 30 = 300."""
    valuations = [worth(day, value) for day, value in zip(days, values, strict=True)]
    period = replace(_performance(0, 1), start=valuations[0], end=valuations[-1], periods=return_periods(valuations, ()))
    assert period.costs_year == share


def test_unexplained_fall__is_a_loss_and_a_rise_no_gain() -> None:
    def unexplained(raw: int) -> Entry:
        return entries.transfer_entry(ExternalTransfer(1, USDC, raw, Fraction(raw), 0, 2, 2 * DAY_S, False, None))

    assert external_cash_flows([unexplained(-7)]) == ()
    assert external_cash_flows([unexplained(7)]) == (ExternalCashFlow(2, 2 * DAY_S, Fraction(7), False),)
    assert unexplained(7).kind is EntryKind.UNEXPLAINED


def beside_gas(block: int, usdc: int, native_wei: int, weth_reserved: int = 0) -> Valuation:
    """A valuation with 4 WETH at 100, some of it reserved, and native coin for gas."""
    rows = (
        ValuedHolding(WETH, 4, 0, Fraction(100), 5_000, weth_reserved),
        ValuedHolding(USDC, usdc, 0, Fraction(1), 5_000),
        ValuedHolding(NATIVE, native_wei, 0, Fraction(100), 0, native_wei),
    )
    return Valuation(block, block * DAY_S, Fraction(400 + usdc + 100 * native_wei), rows)


def gas_money(block: int, coins: int) -> Entry:
    return entries.transfer_entry(
        ExternalTransfer(block, NATIVE, coins, Fraction(100 * coins), 0, block, block * DAY_S, False, ExternalTransferKind.GAS_MONEY)
    )


def test_gas_money_is_no_part_of_value_weights_and_returns() -> None:
    first = beside_gas(1, 400, 300)
    last = beside_gas(2, 600, 300)
    assert (first.managed_value, first.gas_money_value) == (800, 30_000)
    assert weights_bps(last) == {WETH: 4_000, USDC: 6_000}
    measured = performance([], [first, last], 0, 10**9, USDC, OPENING)
    assert (measured.profit, measured.twr) == (200, Fraction(1, 4))


def test_gas_is_a_cost_though_gas_money_pays_it() -> None:
    """Two coins of 100 are burned: the portfolio still has 800, and earned 200 less than nothing."""
    measured = performance([], [beside_gas(1, 400, 300), beside_gas(2, 400, 298)], 0, 10**9, USDC, OPENING)
    assert (measured.profit, measured.twr, measured.gas_money_inflow, measured.hold_profit, measured.against_holding) == (
        -200,
        Fraction(-1, 4),
        200,
        0,
        -200,
    )


def test_gas_money_that_comes_is_neither_a_deposit_nor_a_profit() -> None:
    measured = performance([gas_money(2, 5)], [beside_gas(1, 400, 300), beside_gas(2, 400, 305)], 0, 10**9, USDC, OPENING)
    assert (measured.deposits, measured.profit, measured.gas_money_inflow, measured.hold_profit) == (0, 0, 0, 0)


def test_wrapped_coin_for_gas__leaves_without_a_loss() -> None:
    """Two WETH of 100 become gas money; what is held falls by 200 and nothing was lost, by holding neither."""
    after = beside_gas(2, 400, 302)
    after = replace(after, value=after.value - 200, holdings=(replace(after.holdings[0], wallet_raw=2), *after.holdings[1:]))
    measured = performance([], [beside_gas(1, 400, 300), after], 0, 10**9, USDC, OPENING)
    assert (measured.profit, measured.twr, measured.gas_money_inflow, measured.hold_profit) == (0, 0, -200, 0)


def test_a_new_reserve_is_no_loss() -> None:
    measured = performance([], [beside_gas(1, 400, 300), beside_gas(2, 400, 300, weth_reserved=1)], 0, 10**9, USDC, OPENING)
    assert (measured.end.managed_value, measured.end.reserved_value - measured.end.gas_money_value) == (700, 100)
    assert (measured.profit, measured.twr, measured.hold_profit) == (0, 0, 0)


def test_values_of_older_stores_begin_no_loss() -> None:
    """They counted gas money: what is told apart later leaves the portfolio without a loss."""
    older = beside_gas(1, 400, 300)
    older = replace(older, holdings=tuple(replace(holding, reserved_raw=0) for holding in older.holdings))
    measured = performance([], [older, beside_gas(2, 400, 300)], 0, 10**9, USDC, OPENING)
    assert (measured.profit, measured.twr) == (0, 0)


def test_periods_are_those_of_the_calendar() -> None:
    assert calendar_periods("day", 10, 2 * DAY_S) == ((0, DAY_S), (DAY_S, 2 * DAY_S), (2 * DAY_S, 3 * DAY_S))
    assert calendar_periods("week", 5 * DAY_S, 5 * DAY_S) == ((4 * DAY_S, 11 * DAY_S),)  # 1970-01-05 was a Monday
    ((start, end),) = calendar_periods("month", 1_709_164_800, 1_709_164_800)  # 2024-02-29
    assert (end - start) == 29 * DAY_S
    assert calendar_periods("year", 0, 0) == ((0, 365 * DAY_S),)
    assert year_start_s(400 * DAY_S) == 365 * DAY_S
    assert calendar_periods("all", 7, 9) == ((7, 10),)
    with raises_field("--period"):
        calendar_periods("hour", 0, 1)


@pytest.mark.parametrize(
    ("effect", "paid", "word"),
    [
        pytest.param(-20, 10, "gained nothing before costs", id="a loss"),
        pytest.param(5, 10, "more than half", id="half of the gain"),
        pytest.param(190, 10, "less than a tenth", id="small part of the gain"),
    ],
)
def test_the_hint_follows_its_rule(effect: int, paid: int, word: str) -> None:
    assert word in _performance(effect, paid).hint
    assert replace(_performance(effect, paid), rebalance_count=4).hint == ""
    assert _performance(30, 10).hint == ""


def _performance(effect: int, paid: int) -> Performance:
    zero = Fraction(0)
    spent = PerformanceCosts(Fraction(paid), zero, zero)
    return Performance(
        worth(0, 1), worth(30, 1), zero, zero, zero, zero, zero, None, None, zero, None, None, Fraction(effect), 9, 0, zero, spent, ()
    )  # fmt: skip
