"""Tests of agent/layers/futures/planning/orders.py: deposits, reductions and openings of a plan, and their sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.layers.futures.planning.orders import EarlierActions, cut_reductions, market_order, plan_futures, smaller_orders, top_up_raw
from agent.layers.futures.policy.targets import due_triggers
from agent.margin.contract_sizes import paused_reason
from agent.model.futures import FuturesPlan, FuturesPolicy, FuturesTarget, MarginAccount, MarginDeposit, PerpOrder
from tests.support.constants import MONTH_S
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import LOT, TWO, WIDE, wide_book, with_market
from tests.support.perpetuals.plans import (
    LONGS,
    PLAIN,
    PLAN_S,
    POLICY,
    RICH,
    ROUGH,
    account_after_fills,
    pair_book,
    policy_of,
)
from tests.support.samples import examples

ETH_ALONE = policy_of(10_000)
EMPTY = pair_book(10_000)
"""10,000 of each of ETH and BTC are the targets."""
IN_UNITS = {"collateral_unit_raw": 10**12}


def unnamed(margin_account: MarginAccount, name: str) -> MarginAccount:
    """Return the account in which the config does not name a market."""
    return with_market(margin_account, name, is_configured=False)


def sizes(plan: FuturesPlan) -> dict[str, int]:
    return {order.market: order.size_raw // LOT for order in plan.orders}


def planned(margin_account: MarginAccount, policy: FuturesPolicy = LONGS, spot_value: Fraction = RICH, **options: Any) -> FuturesPlan:
    return plan_futures(margin_account, policy, spot_value, PLAN_S, **options)


# --- Deposits


@pytest.mark.parametrize(
    ("limits", "exact", "above"),
    [
        pytest.param({}, 1_000, 1_263_157_895, id="leverage"),
        pytest.param({"max_leverage_bps": 100_000, "max_utilisation_bps": 4_000}, 1_000, 1_263_157_895, id="utilisation"),
        pytest.param({"max_leverage_bps": 100_000, "stress_move_bps": 2_000}, 1_000, 1_263_157_895, id="stress"),
        pytest.param({"max_utilisation_bps": 2_500}, 4_000, 4_421_052_632, id="larger of two"),
        pytest.param({"max_leverage_bps": 0}, 0, 0, id="leverage of nothing"),
        pytest.param({"max_leverage_bps": 50_000}, 0, 0, id="limit kept"),
    ],
)
def test_top_up_restores_the_limit_and_the_hysteresis(limits: dict[str, int], exact: int, above: int) -> None:
    """20,000 of ETH on 4,000, with 2,000 of initial margin; by hysteresis in millionths, rounded up."""
    margin_account = pair_book(4_000, 10 * E18)

    assert top_up_raw(margin_account, policy_of(**limits), RICH, 0) == exact * E18
    assert top_up_raw(replace(margin_account, **IN_UNITS), policy_of(**limits), RICH, 500) == above


def test_top_up_of_a_spot_multiple_restores_nothing() -> None:
    assert top_up_raw(pair_book(10_000, 10 * E18), policy_of(spot_multiple_bps=10_000), Fraction(E18), 0) == 0


RESTORING = 1_263_157_895
OVER = replace(pair_book(4_000, 10 * E18), **IN_UNITS)


@pytest.mark.parametrize(
    ("margin_account", "approved", "at_hand", "deposit"),
    [
        pytest.param(OVER, 0, RESTORING, RESTORING, id="exactly at hand"),
        pytest.param(OVER, 0, RESTORING - 1, 0, id="a unit missing"),
        pytest.param(OVER, 1_000_000_000, 2_000_000_000, 1_000_000_000, id="approved amount just restores"),
        pytest.param(OVER, 999_000_000, 2_000_000_000, RESTORING, id="approved amount too small"),
        pytest.param(OVER, 1_100_000_000, 1_100_000_000, 1_100_000_000, id="approved, all at hand"),
        pytest.param(OVER, 1_100_000_000, 1_099_000_000, 0, id="approved, less at hand"),
        pytest.param(replace(OVER, is_on_chain=False), 0, 2 * RESTORING, 0, id="venue off the chain"),
        pytest.param(unnamed(replace(pair_book(4_000, 7_000 * LOT, 200 * LOT), **IN_UNITS), "BTC"), 0, 10**12, 0, id="unnamed market"),
        pytest.param(with_market(OVER, "ETH", index_s=PLAN_S - 601), 0, 2 * RESTORING, 0, id="stale index"),
    ],
)
def test_plan_deposits_what_is_approved_or_restores(margin_account: MarginAccount, approved: int, at_hand: int, deposit: int) -> None:
    plan = planned(margin_account, depositable_raw=at_hand, approved_deposit_raw=approved)

    assert plan.account_actions == ((MarginDeposit(deposit),) if deposit else ())
    assert plan.trigger == "leverage"


# --- Reductions


NEAR = pair_book(1_300, 7_000 * LOT, 230 * LOT)
LARGE = pair_book(10_000, 8_000 * LOT, 80 * LOT)
CROWDED = pair_book(4_000, 5_000 * LOT, 300 * LOT)
"""19,000 where 15,200 may be."""


@pytest.mark.parametrize(
    ("margin_account", "policy", "options", "trigger", "lots"),
    [
        pytest.param(unnamed(NEAR, "ETH"), LONGS, {}, "liquidation", {"ETH": -3_500, "BTC": -115}, id="unnamed near liquidation"),
        pytest.param(
            unnamed(pair_book(10_000, 2_000 * LOT), "ETH"),
            LONGS,
            {"earlier": EarlierActions(unfinished_goals=(("ETH", 1_000 * LOT),))},
            "leverage",
            {"ETH": -1_000},
            id="unnamed, begun reduction",
        ),
        pytest.param(unnamed(CROWDED, "ETH"), LONGS, {}, "leverage", {"BTC": -127}, id="unnamed, others suffice"),
        pytest.param(
            unnamed(CROWDED, "ETH"),
            LONGS,
            {"earlier": EarlierActions(waiting_markets=("BTC",))},
            "leverage",
            {"ETH": -1_900, "BTC": -114},
            id="unnamed, others back off",
        ),
        pytest.param(unnamed(LARGE, "ETH"), policy_of(max_position_bps=7_000), {}, "max_position", {}, id="unnamed above its share"),
        pytest.param(
            unnamed(pair_book(10_000, 8_000 * LOT, 20 * LOT), "BTC"),
            policy_of(max_position_bps=7_000),
            {},
            "max_position",
            {"ETH": -1_350},
            id="trim beside an unnamed market",
        ),
        pytest.param(pair_book(4_000, 2 * E18, 500 * LOT), LONGS, {}, "leverage", {"BTC": -100, "ETH": -400}, id="largest notional first"),
        pytest.param(
            pair_book(10_000, 2 * E18), replace(POLICY, targets=(), leverage_bps=0), {}, "drift", {"ETH": -2_000}, id="leverage of zero"
        ),
    ],
)
def test_plan_reduces_named_markets_unless_it_must_not_wait(
    margin_account: MarginAccount, policy: FuturesPolicy, options: dict[str, Any], trigger: str, lots: dict[str, int]
) -> None:
    plan = planned(margin_account, policy, **options)

    assert (plan.trigger, list(sizes(plan).items())) == (trigger, list(lots.items()))
    assert plan.is_emergency is (trigger == "liquidation")
    assert all(order.is_reduce_only for order in plan.orders)


def test_plan_names_an_unnamed_position_that_stays() -> None:
    plan = planned(unnamed(LARGE, "ETH"), policy_of(max_position_bps=7_000))

    assert plan.refusal_texts == ("the account has a position in ETH, which the config does not name",)


def test_plan_of_an_emergency_waits_for_nobody() -> None:
    policy = replace(POLICY, manual_triggers=("leverage", "utilisation", "spot_multiple", "drift", "leverage_drift"))
    plan = planned(pair_book(1_300, 10 * E18), policy)

    assert plan.is_emergency
    assert sizes(plan) == {"ETH": -5_000}


@pytest.mark.parametrize(
    ("margin_account", "min_notional", "lots"),
    [
        pytest.param(pair_book(4_000, 10 * E18), 6_001, -3_001, id="raised to the minimum"),
        pytest.param(pair_book(4_000, 10 * E18), 4_000, -2_400, id="minimum below it"),
        pytest.param(pair_book(4_000, 10 * E18), 30_000, -10_000, id="whole position below it"),
    ],
)
def test_plan_reduces_by_the_venue_s_minimum_at_least(margin_account: MarginAccount, min_notional: int, lots: int) -> None:
    """2.4 of 10 ETH are above the limit."""
    account = replace(with_market(margin_account, "ETH", min_notional_raw=min_notional * E18), is_on_chain=False)

    assert sizes(planned(account)) == {"ETH": lots}


# --- Openings


def at_mark(mark: Fraction) -> MarginAccount:
    return with_market(EMPTY, "ETH", mark=mark)


def with_minimum(min_notional: int) -> MarginAccount:
    return replace(with_market(EMPTY, "ETH", min_notional_raw=min_notional * E18), is_on_chain=False)


PAYS_15_PERCENT = "ETH is not enlarged: it would pay 15.00 % of its notional in funding over 30 days"
SLIPPING = policy_of(slippage_bps=100)
BASIS = policy_of(slippage_bps=600, max_basis_bps=500)
PAUSED = with_market(EMPTY, "ETH", is_paused=True)


@pytest.mark.parametrize(
    ("margin_account", "policy", "options", "lots"),
    [
        pytest.param(pair_book(10_000, 4_950 * LOT), LONGS, {}, {"BTC": 333}, id="change of a tenth of the band"),
        pytest.param(pair_book(10_000, 4_949 * LOT), LONGS, {}, {"ETH": 51, "BTC": 333}, id="a lot more"),
        pytest.param(at_mark(Fraction(2_020)), SLIPPING, {}, {"ETH": 4_950, "BTC": 333}, id="mark on the bound"),
        pytest.param(at_mark(Fraction(2_020_001, 1_000)), SLIPPING, {}, {"BTC": 333}, id="mark beyond the bound"),
        pytest.param(
            at_mark(Fraction(1_900)),
            policy_of(slippage_bps=100, max_basis_bps=600),
            {},
            {"ETH": 5_263, "BTC": 333},
            id="mark in its favour",
        ),
        pytest.param(at_mark(Fraction(2_100)), BASIS, {}, {"ETH": 4_761, "BTC": 333}, id="mark at max_basis"),
        pytest.param(at_mark(Fraction(21_002, 10)), BASIS, {}, {"BTC": 333}, id="mark beyond max_basis"),
        pytest.param(
            EMPTY, LONGS, {"earlier": EarlierActions(opens_from_s=PLAN_S)}, {"ETH": 5_000, "BTC": 333}, id="at the end of the cooldown"
        ),
        pytest.param(EMPTY, LONGS, {"earlier": EarlierActions(opens_from_s=PLAN_S + 1)}, {}, id="a second before"),
        pytest.param(with_minimum(10_000), LONGS, {}, {"ETH": 5_000, "BTC": 333}, id="at the venue's minimum"),
        pytest.param(with_minimum(10_001), LONGS, {}, {"BTC": 333}, id="below the venue's minimum"),
        pytest.param(EMPTY, policy_of(10_000, max_position_bps=0), {}, {}, id="no share"),
        pytest.param(EMPTY, policy_of(10_000, max_position_bps=7_000), {}, {"ETH": 6_990}, id="share of 70 %"),
        pytest.param(EMPTY, policy_of(10_000, max_position_bps=9_980), {}, {"ETH": 9_960}, id="share of 99.8 %"),
        pytest.param(EMPTY, policy_of(10_000, max_position_bps=9_990), {}, {"ETH": 9_970}, id="share of 99.9 %"),
        pytest.param(EMPTY, policy_of(10_000, max_position_bps=10_000), {}, {"ETH": 10_000}, id="whole share"),
        pytest.param(EMPTY, policy_of(8_000, 2_000, max_position_bps=7_000), {}, {"ETH": 6_987, "BTC": 133}, id="other market whole"),
        pytest.param(PAUSED, ETH_ALONE, {}, {}, id="paused"),
    ],
)
def test_plan_opens_up_to_the_targets_and_limits(
    margin_account: MarginAccount, policy: FuturesPolicy, options: dict[str, Any], lots: dict[str, int]
) -> None:
    """Shares are of the target notional after the fee of 0.1 %: 9.97 ETH are 19,940 of 19,960.12, one lot more is above 99.9 %."""
    plan = planned(margin_account, policy, **options)

    assert sizes(plan) == lots
    assert not plan.is_reducing


@pytest.mark.parametrize(
    ("margin_account", "policy", "note"),
    [
        pytest.param(EMPTY, policy_of(8_000, 2_000, max_position_bps=7_000), "ETH is cut to max_position", id="largest share"),
        pytest.param(EMPTY, policy_of(10_000, max_position_bps=0), "ETH is not opened: it would be 100.00 %", id="no share"),
        pytest.param(
            with_market(EMPTY, "ETH", funding_daily=Fraction(5, 1_000)), policy_of(funding_horizon_s=MONTH_S), PAYS_15_PERCENT, id="funding"
        ),
        pytest.param(
            at_mark(Fraction(2_020_001, 1_000)), SLIPPING, "the mark of ETH is 1.00 % off its index, beyond the bound", id="bound"
        ),
        pytest.param(with_minimum(10_001), LONGS, "ETH: the order is below the venue's minimum", id="minimum"),
        pytest.param(PAUSED, ETH_ALONE, "ETH is paused", id="paused"),
    ],
)
def test_plan_says_why_it_opens_less(margin_account: MarginAccount, policy: FuturesPolicy, note: str) -> None:
    [text] = planned(margin_account, policy).refusal_texts

    assert text.startswith(note)


def test_plan_cuts_every_opening_by_one_share_of_the_multiple() -> None:
    """20,000 of notional wanted, 10,000 allowed: each half gets half."""
    plan = planned(EMPTY, replace(POLICY, limits=replace(ROUGH, spot_multiple_bps=25_000)), Fraction(4_000 * E18))
    eth_value = sizes(plan)["ETH"] * 2
    btc_value = -sizes(plan)["BTC"] * 30

    assert 9_700 < eth_value + btc_value <= 10_000
    assert abs(eth_value - btc_value) <= 40
    assert plan.refusal_texts == ("ETH is cut to what the limits allow", "BTC is cut to what the limits allow")


@pytest.mark.parametrize(("lots", "fires"), [(8_000, False), (7_900, True), (12_100, True), (12_000, False)])
def test_plan_leads_back_into_the_band_of_the_notional(lots: int, fires: bool) -> None:
    """One market is always 100 % of the notional, so that its weight never drifts."""
    policy = FuturesPolicy((FuturesTarget("ETH", 10_000),), 20_000, 500, ROUGH, leverage_band_bps=2_000)
    plan = planned(pair_book(10_000, lots * LOT), policy)

    assert (plan.trigger == "leverage_drift") is fires
    assert bool(plan.orders) is fires


def test_plan_leaves_a_notional_that_a_limit_keeps_small() -> None:
    policy = replace(POLICY, limits=replace(ROUGH, spot_multiple_bps=25_000), targets=ETH_ALONE.targets, leverage_band_bps=1_000)
    spot_value = Fraction(4_000 * E18)
    plan = planned(EMPTY, policy, spot_value)

    assert plan.trigger == "drift"
    assert 4_900 <= sizes(plan)["ETH"] <= 5_000
    assert planned(pair_book(10_000, sizes(plan)["ETH"] * LOT), policy, spot_value).orders == ()


@pytest.mark.parametrize(("spot", "lots"), [(100, {}), (102, {"ETH": 51})], ids=["dust", "more than dust"])
def test_plan_sends_no_opening_that_is_cut_to_dust(spot: int, lots: dict[str, int]) -> None:
    """A tenth of the band is 100."""
    assert sizes(planned(EMPTY, policy_of(10_000, spot_multiple_bps=10_000), Fraction(spot * E18))) == lots


@pytest.mark.parametrize(("min_notional", "opens"), [(3_900, True), (4_100, False)])
def test_plan_opens_in_the_room_that_its_reductions_make(min_notional: int, opens: bool) -> None:
    """12,000 of BTC are paused; 4,000 of 14,000 of ETH are sold, which leaves 4,000 of 30,000 for SOL."""
    targets = tuple(FuturesTarget(name, 3_333) for name in ("ETH", "BTC", "SOL"))
    policy = replace(TWO, leverage_bps=30_000, targets=targets, limits=replace(WIDE, slippage_bps=0))
    crowded = with_market(wide_book(ETH=7_000, BTC=400, SOL=40_000), "BTC", is_paused=True)

    plan = planned(with_market(crowded, "SOL", min_notional_raw=min_notional * E18), policy)

    assert sizes(plan)["ETH"] == pytest.approx(-2_000, abs=2)
    assert sizes(plan).get("SOL", 0) == pytest.approx(40_000 if opens else 0, abs=100)


# --- Funding


LONG_AND_SHORT = replace(POLICY, funding_horizon_s=MONTH_S)
ETH_MONTHLY = replace(LONG_AND_SHORT, targets=ETH_ALONE.targets)


def paying(margin_account: MarginAccount, daily: Fraction) -> MarginAccount:
    return with_market(margin_account, "ETH", funding_daily=daily)


@pytest.mark.parametrize(
    ("eth", "daily", "trigger", "reason"),
    [
        pytest.param(5, Fraction(5, 1_000), "funding", "expected funding puts a position above its band", id="funding"),
        pytest.param(10, Fraction(1, 10_000), "drift", "a weight of the notional has left its band", id="share above its band without it"),
    ],
)
def test_plan_names_what_puts_a_position_above_its_band(eth: int, daily: Fraction, trigger: str, reason: str) -> None:
    plan = planned(paying(pair_book(10_000, eth * E18, -333 * LOT), daily), LONG_AND_SHORT)

    assert (plan.trigger, plan.reason, plan.is_reducing) == (trigger, reason, True)
    assert [(order.market, order.is_reduce_only) for order in plan.orders] == [("ETH", True)]


def test_plan_of_a_market_with_dear_funding_is_empty() -> None:
    margin_account = paying(EMPTY, Fraction(5, 1_000))

    assert due_triggers(margin_account, ETH_MONTHLY, RICH) == ()
    assert planned(margin_account, ETH_MONTHLY).orders == ()


@pytest.mark.parametrize("policy", [LONG_AND_SHORT, ETH_MONTHLY, replace(ETH_MONTHLY, leverage_band_bps=1_000)])
@given(st.lists(st.integers(-100, 100), min_size=2, max_size=12))
@examples(10)
def test_plans_by_funding_never_oscillate(policy: FuturesPolicy, rates_bps: list[int]) -> None:
    """At one rate a second plan is empty; a trim is taken back only after the funding fell by half of the band."""
    margin_account = account_after_fills(EMPTY, planned(EMPTY, policy))
    weight = Fraction(abs(policy.targets[0].weight_bps), 10_000)
    trim_rate = None
    for rate in (Fraction(bps, 10_000) for bps in rates_bps):
        margin_account = paying(margin_account, rate)
        size_before_raw = margin_account.size_raw("ETH")
        margin_account = account_after_fills(margin_account, planned(margin_account, policy))
        change_raw = margin_account.size_raw("ETH") - size_before_raw
        if change_raw < 0:
            trim_rate = rate
        elif change_raw > 0:
            assert size_before_raw == 0 or trim_rate is not None
            if trim_rate is not None:
                assert (trim_rate - rate) * 30 * weight >= Fraction(policy.band_bps, 20_000)
            trim_rate = None
        assert planned(margin_account, policy).orders == (), "a plan at the same rate follows its own"


# --- Parts of orders


def reduction_of(margin_account: MarginAccount, lots: int, slippage_bps: int = 0) -> PerpOrder:
    return market_order(margin_account.market("ETH"), lots * LOT, slippage_bps, is_reduce_only=True)


@pytest.mark.parametrize(
    ("lots", "divisor", "part"),
    [
        pytest.param(-10, 4, -2, id="short"),
        pytest.param(10, 4, 2, id="long"),
        pytest.param(-3, 4, -1, id="one lot at least"),
        pytest.param(-10, 1, -10, id="undivided"),
        pytest.param(-12, 4, -3, id="whole quarters"),
    ],
)
def test_smaller_orders_are_whole_lots_and_at_least_one(lots: int, divisor: int, part: int) -> None:
    margin_account = pair_book(10_000, E18)
    [order] = smaller_orders(margin_account, FuturesPlan((reduction_of(margin_account, lots),), "", ""), PLAIN, {"ETH": divisor})

    assert order.size_raw == part * LOT


def test_smaller_orders_close_a_rest_below_a_lot() -> None:
    margin_account = pair_book(10_000, LOT // 2)
    order = market_order(margin_account.market("ETH"), -LOT // 2, 0, is_reduce_only=True)

    [smaller_order] = smaller_orders(margin_account, FuturesPlan((order,), "", ""), PLAIN, {"ETH": 4})

    assert smaller_order.size_raw == -LOT // 2


@pytest.mark.parametrize(("is_emergency", "percent"), [(True, 97), (False, 100)], ids=["emergency", "reduction"])
def test_smaller_orders_keep_the_bound_of_their_plan(is_emergency: bool, percent: int) -> None:
    margin_account = pair_book(10_000, E18)
    plan = FuturesPlan((reduction_of(margin_account, -10, 300),), "", "", is_emergency=is_emergency)

    [order] = smaller_orders(margin_account, plan, PLAIN, {"ETH": 5})

    assert order.bound_raw == 2 * LOT * 2_000 * percent // 100


@pytest.mark.parametrize(
    ("position", "lots", "share", "changes", "sizes_left"),
    [
        pytest.param(5, -5, Fraction(1, 2), {}, [-2], id="sale, half"),
        pytest.param(-5, 5, Fraction(1, 2), {}, [2], id="purchase, half"),
        pytest.param(5, -5, Fraction(1, 6), {}, [], id="less than a lot"),
        pytest.param(6, -6, Fraction(1, 6), {}, [-1], id="one lot"),
        pytest.param(1_000, -4, Fraction(1, 2), {"min_notional_raw": 4 * E18}, [-2], id="at the minimum"),
        pytest.param(1_000, -4, Fraction(1, 2), {"min_notional_raw": 4 * E18 + 1}, [], id="below the minimum"),
        pytest.param(1, -1, Fraction(1), {"min_notional_raw": 4 * E18}, [-1], id="whole position below the minimum"),
    ],
)
def test_cut_reductions_are_rounded_down_to_what_the_venue_takes(
    position: int, lots: int, share: Fraction, changes: dict[str, Any], sizes_left: Sequence[int]
) -> None:
    margin_account = with_market(pair_book(10_000, position * LOT), "ETH", **changes)
    orders = cut_reductions(margin_account, [reduction_of(margin_account, lots)], PLAIN, share)

    assert [order.size_raw for order in orders] == [size * LOT for size in sizes_left]


def test_cut_reductions_of_one_unit_stay_a_purchase() -> None:
    margin_account = with_market(pair_book(10_000, -1), "ETH", lot_raw=1)
    order = market_order(margin_account.market("ETH"), 1, 0, is_reduce_only=True)

    assert [cut_order.size_raw for cut_order in cut_reductions(margin_account, [order], PLAIN, Fraction(1))] == [1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({}, "", id="open"),
        pytest.param({"is_paused": True}, "ETH is paused", id="paused"),
        pytest.param({"is_paused": True, "is_isolated": True}, "ETH is set to isolated margin", id="isolated"),
    ],
)
def test_paused_reason_names_isolated_margin_first(changes: dict[str, Any], reason: str) -> None:
    assert paused_reason(with_market(EMPTY, "ETH", **changes).market("ETH")) == reason
