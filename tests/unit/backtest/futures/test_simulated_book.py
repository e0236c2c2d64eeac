"""A simulated futures book: profit by source, fills, liquidations, and nothing of the future in the past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backtest.futures.book import FuturesBook, futures_path
from agent.backtest.futures.simulate import FuturesResult, held_book
from agent.backtest.futures_alone import simulate_book
from agent.margin import account as margin
from agent.model.futures import FuturesTarget, PerpOrder, PerpOrderKind
from tests.support.backtests import hourly
from tests.support.perpetuals.accounts import account, market
from tests.support.perpetuals.simulated import E18, FREE, SETTINGS, VENUE, long_btc, moves, random_path, rates
from tests.support.samples import examples


def test_the_worked_example_is_what_a_hand_works_out() -> None:
    """200 BTC are bought at 100, of 10,000; 1 % an hour of funding is paid on 20,000 and on 22,000; then the price rises to 110."""
    futures_result = simulate_book(futures_path(hourly(BTC=[100, 100, 110]), [rates(0.5, 0.01, 0.01)]), long_btc())
    assert futures_result.agent_book.sizes == (("BTC", 200 * E18),)
    profit = futures_result.agent_book.profit
    assert (profit.price_gain_raw, profit.funding_raw, profit.fees_raw) == (2_000 * E18, 420 * E18, 0)
    assert futures_result.agent_book.final_value_raw == 11_580 * E18
    assert futures_result.agent_book.equity.tolist() == [10_000, 9_800, 11_580]
    assert futures_result.agent_book.leverage.tolist() == [2, pytest.approx(20_000 / 9_800), pytest.approx(22_000 / 11_580)]


def test_positive_funding_is_paid_by_longs_to_shorts() -> None:
    path = futures_path(hourly(BTC=[100] * 4), [rates(0, 0, 0.01, 0)])
    short = replace(long_btc(), policy=replace(long_btc().policy, targets=(FuturesTarget("BTC", -10_000),)))
    assert simulate_book(path, long_btc()).agent_book.profit.funding_raw == 200 * E18
    assert simulate_book(path, short).agent_book.profit.funding_raw == -200 * E18


def test_plan__is_filled_at_its_bar_s_or_the_latency_s_price() -> None:
    priced = replace(long_btc(), venue=VENUE)
    for latency, price in enumerate((100, 102, 103)):
        futures_result = simulate_book(moves(100, 102, 103), replace(priced, latency_bars=latency))
        (fill,) = futures_result.agent_book.fills
        assert (fill.bar, fill.size_raw, fill.quote_raw) == (latency, 200 * E18, -200 * E18 * price * 10_010 // 10_000)
        assert fill.fee_raw == -fill.quote_raw // 1_000
        assert futures_result.agent_book.profit.slippage_raw == 200 * price * E18 // 1_000


def test_an_order_beyond_its_bound_is_not_filled() -> None:
    futures_result = simulate_book(moves(100, 106, 106, 106), replace(long_btc(), latency_bars=1))
    assert [fill.bar for fill in futures_result.agent_book.fills] == [3]
    ((why, times),) = futures_result.agent_book.refusal_counts
    assert "reverted" in why
    assert times == 1


@pytest.mark.parametrize(("coins", "is_filled"), [(1, False), (5, True)], ids=["too little left", "profit realised"])
def test_reduction_below_the_maintenance_margin__is_not_filled(coins: int, is_filled: bool) -> None:
    """Losses leave 2,500 less than nothing; each ETH that is sold realises 2,000."""
    doubled = replace(market("ETH"), mark=Fraction(4_000), index=Fraction(4_000))
    doubled_account = replace(account(10_000, {"ETH": 10 * E18}, market("ETH")), realised_raw=-12_500 * E18, markets=(doubled,))
    order = PerpOrder("ETH", -coins * E18, PerpOrderKind.MARKET, 1, is_reduce_only=True)
    reason = FuturesBook(doubled_account, 0, FREE).revert_reason(order, 0)
    assert reason == ("" if is_filled else "not enough margin for a reduction")


def test_paused_venue__fills_and_liquidates_nothing() -> None:
    path = moves(100, 100, 60, 60, 60)
    futures_result = simulate_book(replace(path, paused_bars=frozenset({2, 3})), long_btc(30_000))
    assert [liquidation.bar for liquidation in futures_result.held_book.liquidations][:1] == [4]
    assert futures_result.agent_book.fills[-1].bar == 0
    assert simulate_book(replace(path, paused_bars=frozenset({0})), long_btc()).agent_book.fills[0].bar == 1


def test_the_venue_liquidates_below_maintenance_with_its_penalty() -> None:
    """A long of 30,000 at 100 is worth 700 at 69: below half of the 1,293.75 of maintenance it would be closed whole."""
    held_book = simulate_book(moves(100, 100, 69, 69), long_btc(30_000)).held_book
    first = held_book.liquidations[0]
    assert first.size_raw == -150 * E18
    assert first.penalty_raw == 150 * 69 * E18 * 25 // 1_000
    gone = simulate_book(moves(100, 100, 50), long_btc(30_000)).held_book
    assert (gone.sizes, gone.final_value_raw, len(gone.liquidations)) == ((), 0, 1)
    assert gone.profit.insured_raw == (5_000 + 375) * E18


def test_emergency__is_followed_by_a_judgement_in_the_same_bar() -> None:
    """A gap of 20 % takes 3.6x to 9.5x: half is closed, and then what the limit still asks."""
    agent_book = simulate_book(moves(100, 100, 92, 74.5, 74.5), long_btc(30_000)).agent_book
    assert [fill.trigger for fill in agent_book.fills if fill.bar == 3] == ["liquidation", "leverage"]
    assert agent_book.longest_above_limit == 0
    assert not agent_book.liquidations


def test_a_liquidator_may_close_what_the_contract_allows() -> None:
    margin_account = account(2_000, {"ETH": 10 * E18, "BTC": E18 // 100}, market("ETH"), market("BTC", 5_000))
    assert margin.liquidatable_size_raw(margin_account, "ETH") == 0
    near = margin.with_moved_marks(margin_account, {"ETH": Fraction(-5, 100)})
    assert margin.is_liquidatable(near)
    assert margin.liquidatable_size_raw(near, "ETH") == 10 * E18 * (19_050 * 10**6 // 38_000) // 10**6
    assert margin.liquidatable_size_raw(near, "BTC") == E18 // 100
    far = margin.with_moved_marks(margin_account, {"ETH": Fraction(-8, 100)})
    assert margin.liquidatable_size_raw(far, "ETH") == 10 * E18


def test_reserve_collateral__is_deposited_before_reductions() -> None:
    topped = replace(long_btc(30_000), reserve_raw=10_000 * E18)
    futures_result = simulate_book(moves(100, 100, 88, 88), topped)
    assert futures_result.agent_book.deposited_raw > 0
    assert futures_result.held_book.deposited_raw == 0
    assert futures_result.agent_book.sizes == futures_result.held_book.sizes
    assert futures_result.agent_book.final_value_raw == futures_result.held_book.final_value_raw == 16_400 * E18


def test_missing_price__plans_and_fills_nothing_until_it_returns() -> None:
    gap = float("nan")
    futures_result = simulate_book(moves(100, gap, gap, gap, gap, 80, 80), long_btc(30_000))
    assert {fill.bar for fill in futures_result.agent_book.fills} == {0, 5}
    held_book = simulate_book(moves(100, gap, gap, gap, gap, 100, 100), long_btc()).held_book
    assert [fill.bar for fill in held_book.fills] == [6]
    assert dict(held_book.unfilled_counts) == {"the market has no price": 4}


def test_a_book_without_size_earns_nothing() -> None:
    flat = replace(SETTINGS, policy=replace(SETTINGS.policy, targets=(), leverage_bps=0))
    futures_result = simulate_book(random_path(1), flat)
    assert futures_result.agent_book.final_value_raw == futures_result.held_book.final_value_raw == futures_result.settings.start_value_raw
    assert (futures_result.agent_book.fills, futures_result.agent_book.profit.total_raw) == ((), 0)


seeds = st.integers(0, 10**6)


def changes_and_profits(futures_result: FuturesResult) -> Sequence[tuple[int, int]]:
    return [
        (book.final_value_raw - futures_result.settings.start_value_raw, book.profit.total_raw)
        for book in (futures_result.agent_book, futures_result.held_book)
    ]


any_book = (st.integers(10_000, 60_000), st.sampled_from([0.01, 0.05, 0.15]), st.integers(0, 2), st.integers(0, 5_000))


def require_conserved_value(seed: int, leverage: int, volatility: float, latency: int, reserve: int, bars: int = 60) -> None:
    changed = replace(SETTINGS, policy=replace(SETTINGS.policy, leverage_bps=leverage), latency_bars=latency, reserve_raw=reserve * E18)
    for change, explained in changes_and_profits(simulate_book(random_path(seed, bars, volatility), changed)):
        assert change == explained


@pytest.mark.slow
@examples(10)
@given(seeds, *any_book)
def test_value_is_conserved_to_the_base_unit(seed: int, leverage: int, volatility: float, latency: int, reserve: int) -> None:
    require_conserved_value(seed, leverage, volatility, latency, reserve)


@pytest.mark.parametrize(
    ("seed", "leverage", "volatility", "latency", "reserve"),
    [
        pytest.param(1, 30_000, 0.05, 0, 5_000, id="half the leverage"),
        pytest.param(2, 60_000, 0.15, 1, 0, id="the full leverage and a bar late"),
    ],
)
def test_value_is_conserved_in_two_books(seed: int, leverage: int, volatility: float, latency: int, reserve: int) -> None:
    require_conserved_value(seed, leverage, volatility, latency, reserve, 24)


@examples(10)
@given(seeds, *any_book)
def test_value_of_a_held_book_is_conserved(seed: int, leverage: int, volatility: float, latency: int, reserve: int) -> None:
    changed = replace(SETTINGS, policy=replace(SETTINGS.policy, leverage_bps=leverage), latency_bars=latency, reserve_raw=reserve * E18)
    book_result = held_book(random_path(seed, volatility=volatility), changed)
    assert book_result.final_value_raw - (10_000 + reserve) * E18 == book_result.profit.total_raw


@examples(8)
@given(seeds)
def test_a_mirrored_book_has_the_mirrored_profit_without_fees(seed: int) -> None:
    path = random_path(seed, volatility=0.004)
    targets = SETTINGS.policy.targets
    mirrored = tuple(replace(target, weight_bps=-target.weight_bps) for target in targets)
    ways = [replace(SETTINGS, venue=FREE, policy=replace(SETTINGS.policy, targets=way, band_bps=2_500)) for way in (targets, mirrored)]
    first, second = (held_book(path, way) for way in ways)
    assert first.liquidations == second.liquidations == (), "too calm a path for any"
    assert [(name, -size) for name, size in first.sizes] == list(second.sizes) != []
    assert abs(first.profit.price_gain_raw + second.profit.price_gain_raw) <= 4 * path.bar_count
    assert abs(first.profit.funding_raw + second.profit.funding_raw) <= 4 * path.bar_count


@given(st.integers(1, 3), st.floats(-0.01, 0.01, allow_nan=False))
def test_funding_is_linear_in_the_notional(times: int, rate: float) -> None:
    path = futures_path(hourly(BTC=[100, 100, 100, 100]), [rates(0, 0, round(rate, 6))])
    first_funding, more = (held_book(path, long_btc(leverage)).profit.funding_raw for leverage in (10_000, times * 10_000))
    assert abs(more - times * first_funding) <= times


@pytest.mark.slow
@examples(8)
@given(seeds, st.integers(5, 55))
def test_the_future_changes_nothing_in_the_past(seed: int, cut: int) -> None:
    require_unchanged_past(seed, cut)


def test_the_future_changes_nothing_in_the_past_of_a_book() -> None:
    require_unchanged_past(3, 20)


def require_unchanged_past(seed: int, cut: int) -> None:
    path = random_path(seed)
    other = random_path(seed + 1)
    spliced = replace(
        path,
        index_prices=path.index_prices[:cut] + other.index_prices[cut:],
        mark_prices=path.mark_prices[:cut] + other.mark_prices[cut:],
        payments=path.payments[:cut] + other.payments[cut:],
        daily_rates=path.daily_rates[:cut] + other.daily_rates[cut:],
    )
    first, second = (simulate_book(path, SETTINGS) for path in (path, spliced))
    for first_book, two in ((first.agent_book, second.agent_book), (first.held_book, second.held_book)):
        assert first_book.equity[:cut].tolist() == two.equity[:cut].tolist()
        assert [fill for fill in first_book.fills if fill.bar < cut] == [fill for fill in two.fills if fill.bar < cut]


def test_the_same_settings_give_the_same_result_and_hashes() -> None:
    first, second = (simulate_book(random_path(7), SETTINGS) for _ in range(2))
    assert first.agent_book.fills == second.agent_book.fills
    assert (first.config_hash, first.path.digest) == (second.config_hash, second.path.digest)
    assert simulate_book(random_path(8), SETTINGS).path.digest != first.path.digest
    assert simulate_book(random_path(7), long_btc()).config_hash != first.config_hash


def test_index_price_of_a_later_part_is_as_old_as_it_was() -> None:
    none = float("nan")
    table = hourly(BTC=[100, 101, none, none, 104, none])
    whole = futures_path(table).index_times_s
    assert [time_s for (time_s,) in whole] == table.times_s[[0, 1, 1, 1, 4, 4]].tolist()
    for start in (1, 2, 3, 4, 5):
        assert futures_path(table.bars(start, 6)).index_times_s == whole[start:]
