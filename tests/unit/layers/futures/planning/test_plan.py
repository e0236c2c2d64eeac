"""Plans of the futures layer: what is reduced, topped up, cut, closed in an emergency, or left alone with a reason."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.layers.futures.planning.orders import plan_futures, top_up_raw
from agent.margin import account as margin
from agent.margin import contract_sizes
from agent.margin.state import after_action, after_fill_at_bound, breaches, margin_state
from agent.model.futures import FuturesPlan, FuturesPolicy, FuturesTarget, MarginAccount, MarginDeposit, PerpOrder, PerpOrderKind
from agent.units import floor_int
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import with_market
from tests.support.perpetuals.plans import PLAN_S, POLICY, RICH, ROUGH, account_after_fills, pair_book
from tests.support.samples import slow

LONGS = replace(POLICY, targets=(FuturesTarget("ETH", 5_000), FuturesTarget("BTC", 5_000)))
"""Two longs, neither of which needs the other."""
NO_LEVERAGE = replace(POLICY, limits=replace(ROUGH, max_leverage_bps=0))


def planned(margin_account: MarginAccount, policy: FuturesPolicy = POLICY, **options: Any) -> FuturesPlan:
    return plan_futures(margin_account, policy, RICH, PLAN_S, **options)


def orders_of(plan: FuturesPlan) -> list[tuple[str, int, bool]]:
    """Return market, size in base units and whether it only reduces, of each order."""
    return [(order.market, order.size_raw, order.is_reduce_only) for order in plan.orders]


def with_markets(margin_account: MarginAccount, **changes: Any) -> MarginAccount:
    """Return the account with these fields of every market."""
    return replace(margin_account, markets=tuple(replace(perp, **changes) for perp in margin_account.markets))


def at_index(margin_account: MarginAccount) -> MarginAccount:
    """Return the account whose indexes have followed their marks."""
    return replace(margin_account, markets=tuple(replace(perp, index=perp.mark) for perp in margin_account.markets))


def moved(margin_account: MarginAccount, share: Fraction) -> MarginAccount:
    """Return the account after index and mark of ETH have moved."""
    return at_index(margin.with_moved_marks(margin_account, {"ETH": share}))


# --- To the targets


def test_empty_account__goes_to_its_targets_in_one_step() -> None:
    plan = planned(pair_book(10_000))
    assert orders_of(plan) == [("ETH", 5 * E18, False), ("BTC", -333 * 10**15, False)]
    assert (plan.orders[0].bound_raw, plan.trigger) == (10_100 * E18, "drift")
    assert planned(account_after_fills(pair_book(10_000), plan)).orders == ()


@pytest.mark.parametrize(("age_s", "acts"), [(0, True), (600, True), (601, False), (-1, False)])
def test_stale_index_or_one_from_the_future__orders_nothing(age_s: int, acts: bool) -> None:
    assert bool(planned(with_markets(pair_book(1_000, eth=5 * E18), index_s=PLAN_S - age_s)).orders) is acts


@pytest.mark.parametrize(
    ("changes", "refusal_text"),
    [
        pytest.param({"index": Fraction(1_800)}, "the mark of ETH is 11.11 % off its index", id="mark off its index"),
        pytest.param({"is_paused": True}, "ETH is paused", id="paused"),
    ],
)
def test_market_that_may_not_open__is_named_and_the_other_traded(changes: dict[str, Any], refusal_text: str) -> None:
    plan = planned(with_market(pair_book(10_000), "ETH", **changes), LONGS)
    assert [order.market for order in plan.orders] == ["BTC"]
    assert plan.refusal_texts == (refusal_text,)


@pytest.mark.parametrize("collateral", [900, 1_900])
def test_target_below_one_lot__opens_nothing(collateral: int) -> None:
    """Half of 2x is less than one ETH of 2,000, and the position is never rounded up to its target."""
    assert planned(with_markets(pair_book(collateral), lot_raw=E18)).orders == ()


def test_leverage_limit_of_zero__opens_nothing_and_closes_all() -> None:
    """The config refuses it; the planner does not count on that."""
    assert planned(pair_book(10_000), NO_LEVERAGE).orders == ()
    assert orders_of(planned(pair_book(10_000, eth=5 * E18), NO_LEVERAGE)) == [("ETH", -5 * E18, True)]


# --- Deposits


def test_collateral_at_hand__is_deposited_before_any_reduction() -> None:
    margin_account = pair_book(4_000, eth=10 * E18)
    policy = replace(POLICY, limits=replace(ROUGH, stress_move_bps=0, max_utilisation_bps=10_000))
    plan = planned(margin_account, policy, depositable_raw=2_000 * E18)
    assert (plan.orders, plan.is_reducing, plan.trigger) == ((), True, "leverage")
    assert Fraction(38, 10) - Fraction(1, 10**9) < margin.leverage(account_after_fills(margin_account, plan)) <= Fraction(38, 10)
    short = planned(margin_account, policy, depositable_raw=plan.top_up_raw - 1)
    assert (short.top_up_raw, [order.is_reduce_only for order in short.orders]) == (0, [True])


@pytest.mark.parametrize("mark", [2_000, 2_600, 1_800])
def test_deposit__restores_utilisation_also_beside_unrealised_profit(mark: int) -> None:
    """Profit of open positions is value, and no free margin before it is settled."""
    margin_account = with_market(pair_book(12_000, eth=10 * E18), "ETH", mark=Fraction(mark), index=Fraction(mark))
    most_bps = floor_int(margin_state(margin_account, ROUGH).utilisation * 9_000)
    limits = replace(ROUGH, max_utilisation_bps=most_bps, max_leverage_bps=100_000, stress_move_bps=0)
    deposit = top_up_raw(margin_account, replace(POLICY, limits=limits), RICH, 0)

    def broken(raw: int) -> list[str]:
        state = margin_state(after_action(margin_account, MarginDeposit(raw)), limits)
        return [limit_check.limit_name for limit_check in breaches(state, limits, RICH)]

    assert deposit > 0
    assert broken(deposit) == []
    assert broken(deposit * 99 // 100) == ["max_utilisation"]


def test_deposit__restores_no_size_limit_or_leverage_of_zero() -> None:
    margin_account = pair_book(4_000, eth=10 * E18)
    none = replace(POLICY, limits=replace(ROUGH, max_leverage_bps=0, stress_move_bps=5_000))
    large = replace(POLICY, limits=replace(ROUGH, max_leverage_bps=30_000))
    broken = {limit_check.limit_name for limit_check in breaches(margin_state(margin_account, none.limits), none.limits, RICH)}
    assert broken >= {"max_leverage", "stress_move"}
    assert top_up_raw(margin_account, none, RICH, 500) == 0
    assert top_up_raw(margin_account, large, RICH, 500) > 0
    assert top_up_raw(margin_account, large, Fraction(E18), 500) == 0, "the spot portfolio is too small for the position"
    assert planned(margin_account, none, depositable_raw=10**30).top_up_raw == 0


# --- Reductions and emergencies


def test_paused_market__others_are_cut_by_as_much_more() -> None:
    both = pair_book(10_000, eth=9 * E18, btc=E18)
    closed = with_market(both, "BTC", is_paused=True)
    assert [order.market for order in planned(closed).orders] == ["ETH"]
    closed_after, both_after = (account_after_fills(before, planned(before)) for before in (closed, both))
    assert not breaches(margin_state(closed_after, ROUGH), ROUGH, RICH)
    assert abs(margin.gross_notional_raw(closed_after) - margin.gross_notional_raw(both_after)) < 100 * E18


def test_plan_futures__old_index_of_a_market_not_held__reduces_other() -> None:
    stale = with_market(pair_book(1_000, eth=5 * E18), "BTC", index_s=0)
    plan = planned(stale)
    assert (plan.is_emergency, [order.market for order in plan.orders]) == (True, ["ETH"])
    assert all(order.market != "BTC" for order in planned(replace(stale, collateral_raw=10_000 * E18)).orders)


def test_plan_futures__mark_is_off_its_index__still_reduces() -> None:
    plan = planned(with_market(pair_book(1_000, eth=4 * E18), "ETH", index=Fraction(1_800)))
    assert plan.is_reducing
    assert plan.orders[0].bound_raw == -(-(-plan.orders[0].size_raw * 1_800 * 99) // 100)


def test_reduction_below_one_lot__closes_one_whole_lot() -> None:
    assert orders_of(planned(with_markets(pair_book(4_900, eth=10 * E18), lot_raw=E18))) == [("ETH", -E18, True)]


def test_near_liquidation__half_is_closed_at_a_wider_bound() -> None:
    margin_account = pair_book(1_300, eth=10 * E18)
    assert abs(margin.liquidation_distance(margin_account, "ETH") or 1) < Fraction(5, 100)
    plan = planned(margin_account, depositable_raw=10**30)
    assert (plan.is_emergency, plan.top_up_raw, [order.size_raw for order in plan.orders]) == (True, 0, [-5 * E18])
    assert plan.orders[0].bound_raw == 5 * 2_000 * 97 * E18 // 100


@pytest.mark.parametrize("side", [1, -1])
def test_emergency_order__is_one_that_the_venue_accepts(side: int) -> None:
    """ClearingHouse refuses a reduction that leaves the account below maintenance margin (CH_NEFCM): then half is too little."""
    margin_account = moved(pair_book(1_700, eth=side * 10 * E18), Fraction(-side * 4, 100))
    half_raw = -side * 5 * E18
    bound_raw = contract_sizes.index_bound_raw(margin_account.markets[0], half_raw, ROUGH.emergency_slippage_bps)
    half = PerpOrder("ETH", half_raw, PerpOrderKind.MARKET, bound_raw, True)
    assert margin.is_liquidatable(margin_account)
    assert not margin.is_reduction_accepted(after_fill_at_bound(margin_account, half))
    [order] = planned(margin_account).orders
    assert 5 * E18 < -side * order.size_raw <= 10 * E18
    assert margin.is_reduction_accepted(after_fill_at_bound(margin_account, order))


def test_account_that_no_order_saves__is_closed_whole() -> None:
    assert orders_of(planned(moved(pair_book(1_700, eth=10 * E18), Fraction(-8, 100)))) == [("ETH", -10 * E18, True)]


def test_two_positions_that_fall_together__are_near_it_together() -> None:
    """Neither position alone is 5 % from its liquidation; both together are."""
    margin_account = pair_book(3_800, 10 * E18, 666 * 10**15)
    assert all(abs(margin.liquidation_distance(margin_account, name) or 1) > Fraction(5, 100) for name in ("ETH", "BTC"))
    plan = planned(margin_account)
    assert plan.is_emergency
    assert {order.market: order.size_raw for order in plan.orders} == {"ETH": -5 * E18, "BTC": -333 * 10**15}


@pytest.mark.parametrize("slippage_bps", [0, 50, 500])
@pytest.mark.parametrize("share", [3, -3])
def test_reduction_filled_at_its_bound__ends_within_the_limit(slippage_bps: int, share: int) -> None:
    limits = replace(ROUGH, stress_move_bps=0, max_utilisation_bps=10_000, slippage_bps=slippage_bps)
    margin_account = pair_book(4_000, eth=share * 3 * E18, btc=share * 10**17)
    plan = planned(margin_account, replace(POLICY, limits=limits))
    assert (plan.is_reducing, plan.trigger) == (True, "leverage")
    at_bound = margin.with_adverse_move(margin_account, Fraction(slippage_bps, 10_000))
    for order in plan.orders:
        quote = -order.bound_raw if order.size_raw > 0 else order.bound_raw
        at_bound = margin.with_trade(at_bound, order.market, order.size_raw, quote)
    assert margin.leverage(at_bound) <= 4
    assert margin.gross_notional_raw(at_bound) > 0


@pytest.mark.parametrize(("side", "leverage"), [(1, Fraction(38, 10)), (-1, Fraction(95, 100) / Fraction(275, 1_000))])
def test_stress_reduction__ends_where_the_position_s_side_requires(side: int, leverage: Fraction) -> None:
    """After a fall of 20 % a long is worth less and needs less maintenance margin: 4.0x survives, less the hysteresis 3.8x. A
    short is worth more: 3.64x survives, less the hysteresis 3.45x.
    """
    limits = replace(ROUGH, max_leverage_bps=60_000, max_utilisation_bps=10_000, stress_move_bps=2_000, slippage_bps=0)
    margin_account = with_markets(pair_book(4_500, eth=side * 10 * E18), fee_ppm=0)
    after = account_after_fills(margin_account, planned(margin_account, replace(POLICY, limits=limits)))
    assert leverage - Fraction(1, 1_000) < (margin.leverage(after) or 0) <= leverage


@given(st.integers(500, 20_000), st.integers(-20, 20), st.integers(-1_000, 1_000), st.integers(0, 4_000))
def test_deposit_or_reduction_for_the_stress_move_is_enough(collateral: int, eth: int, btc: int, move_bps: int) -> None:
    limits = replace(ROUGH, max_leverage_bps=10**6, max_utilisation_bps=10**6, stress_move_bps=move_bps, emergency_distance_bps=0)
    margin_account = pair_book(collateral, eth * E18, btc * 10**15)
    policy = replace(POLICY, limits=limits, leverage_bps=0, band_bps=0)
    if margin.is_liquidatable(margin_account) or margin_state(margin_account, limits).survives_stress:
        return
    for at_hand in (0, 10**30):
        after = account_after_fills(margin_account, planned(margin_account, policy, depositable_raw=at_hand))
        assert margin_state(after, limits).survives_stress


amounts = st.integers(-(2 * 10**19), 2 * 10**19)


@given(st.integers(300, 20_000), amounts, st.integers(-(10**18), 10**18), st.integers(1_500, 20_000), st.integers(0, 20_000))
@example(400, 0, 10**15, 1_500, 12).via("a flip that is cut to a close")
def test_no_plan_leads_into_a_broken_limit(collateral: int, eth: int, btc: int, leverage_bps: int, spot: int) -> None:
    """A plan leaves every limit kept, or all that it did was to make positions smaller."""
    policy = replace(POLICY, leverage_bps=leverage_bps)
    margin_account = pair_book(collateral, eth, btc)
    value = Fraction(spot * E18)
    plan = plan_futures(margin_account, policy, value, PLAN_S)
    after = account_after_fills(margin_account, plan)
    if not plan.is_reducing and plan.orders:
        assert not breaches(margin_state(after, ROUGH), ROUGH, value)
    for order in plan.orders:
        before = margin_account.size_raw(order.market)
        assert order.is_reduce_only == (before * order.size_raw < 0 and abs(order.size_raw) <= abs(before))
        assert order.size_raw % margin_account.market(order.market).lot_raw == 0 or before % margin_account.market(order.market).lot_raw
    assert plan_futures(margin_account, policy, value, PLAN_S) == plan


@pytest.mark.parametrize(("per_mille", "fills"), [(8, 1), (20, 0), (60, 0)])
def test_mark_pushed_around_a_still_index__costs_one_reduction(per_mille: int, fills: int) -> None:
    """T12: the hysteresis keeps a small push from a second reduction; a larger one finds the bound, which counts from the index."""
    margin_account = pair_book(5_050, eth=10 * E18)
    done = 0
    policy = replace(POLICY, targets=(FuturesTarget("ETH", 10_000),), band_bps=0)
    for turn in range(40):
        pushed = margin.with_moved_marks(margin_account, {"ETH": Fraction(per_mille if turn % 2 else -per_mille, 1_000)})
        after = account_after_fills(pushed, planned(pushed, policy))
        done += after.positions != margin_account.positions
        margin_account = replace(after, markets=tuple(replace(perp, mark=perp.index) for perp in after.markets))
    assert done == fills
    assert margin.account_value_raw(margin_account) > 5_030 * E18


def ride(seed: int, agent: bool) -> tuple[bool, int]:
    """Whether a book of 3x was liquidated on a fall of 40 % and a rise of 60 % by hours, and for how many ticks in a row it was
    over its leverage limit."""
    chance = random.Random(seed)
    policy = replace(POLICY, targets=(FuturesTarget("ETH", 10_000),), leverage_bps=30_000)
    margin_account = account_after_fills(pair_book(10_000), planned(pair_book(10_000), policy))
    over = longest = 0
    for hours, factor in ((48, 0.6), (72, 1.6)):
        step = factor ** (1 / hours)
        for _ in range(hours):
            move = Fraction(round((step * (1 + chance.gauss(0, 0.012)) - 1) * 10**6), 10**6)
            margin_account = moved(margin_account, move)
            if margin.is_liquidatable(margin_account):
                return True, longest
            if agent:
                margin_account = account_after_fills(margin_account, planned(margin_account, policy))
            leverage = margin.leverage(margin_account)
            over = over + 1 if leverage is None or leverage > Fraction(ROUGH.max_leverage_bps, 10_000) else 0
            longest = max(longest, over)
    return False, longest


@pytest.mark.parametrize("seeds", [15, *slow([50])])
def test_crash_and_rally__liquidate_the_book_only_without_the_agent(seeds: int) -> None:
    assert [ride(seed, True) for seed in range(seeds)] == [(False, 0)] * seeds
    assert sum(ride(seed, False)[0] for seed in range(seeds)) > seeds // 2


# --- A venue beside the chain, with a smallest order


def with_minimum(margin_account: MarginAccount, least: int) -> MarginAccount:
    """Return the account at a venue that takes no smaller order than so many dollars, and no deposit."""
    return replace(with_markets(margin_account, min_notional_raw=least * E18), is_on_chain=False)


LEVERED = pair_book(4_000, eth=10 * E18)


def test_venue_beside_the_chain__gets_no_deposit() -> None:
    limits = replace(ROUGH, stress_move_bps=0, max_utilisation_bps=10_000)
    plan = planned(with_minimum(LEVERED, 0), replace(POLICY, limits=limits), depositable_raw=2_000 * E18)
    assert (plan.top_up_raw, [order.is_reduce_only for order in plan.orders]) == (0, [True])


def test_opening_below_the_minimum__is_left_out_and_named() -> None:
    plan = planned(with_minimum(pair_book(10_000), 10_091), LONGS)
    assert [order.market for order in plan.orders] == ["ETH"], "its bound is 1 % above the notional of 10,000, that of BTC above 9,990"
    assert plan.refusal_texts == ("BTC: the order is below the venue's minimum",)


def test_reduction_below_the_venue_s_minimum__is_enlarged_to_it() -> None:
    [enlarged] = planned(with_minimum(LEVERED, 15_000)).orders
    assert abs(planned(LEVERED).orders[0].size_raw) < abs(enlarged.size_raw) <= 10 * E18
    assert enlarged.bound_raw >= 15_000 * E18


def test_position_below_the_venue_s_minimum__is_closed_whole() -> None:
    plan = planned(with_minimum(LEVERED, 30_000))
    assert (orders_of(plan), plan.refusal_texts) == ([("ETH", -10 * E18, True)], ())


def test_target_of_nothing__closes_a_position_below_the_minimum() -> None:
    flat = replace(POLICY, targets=(FuturesTarget("BTC", 10_000), FuturesTarget("ETH", 0)))
    assert ("ETH", -E18, True) in orders_of(planned(with_minimum(pair_book(10_000, eth=E18), 5_000), flat))
