"""Orders of the futures planner beside markets that the config does not name, that back off or are paused, and parts too small to send."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.futures.planning.orders import market_order, paused_reason, plan_futures, smaller_orders
from agent.model.futures import FuturesPlan, FuturesTarget, MarginAccount
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import LOT, TWO, WIDE, wide_book, with_market
from tests.support.perpetuals.plans import LONGS, PLAIN, PLAN_S, RICH, pair_book

TRIPLE = replace(TWO, leverage_bps=30_000, targets=tuple(FuturesTarget(name, 3_333) for name in ("ETH", "BTC", "SOL")))
ONE = replace(LONGS, targets=(FuturesTarget("ETH", 10_000),))


def unnamed(account: MarginAccount, name: str) -> MarginAccount:
    """The account in which the config does not name a market."""
    return with_market(account, name, is_configured=False)


def sizes(plan: FuturesPlan) -> dict[str, int]:
    return {order.market: order.size_raw // LOT for order in plan.orders}


# Markets that the config does not name


def test_unnamed__market_near_liquidation_is_reduced_too() -> None:
    plan = plan_futures(unnamed(pair_book(1_300, 7_000 * LOT, 230 * LOT), "ETH"), LONGS, RICH, PLAN_S)
    assert plan.is_emergency
    assert sizes(plan).keys() == {"ETH", "BTC"}


def test_unnamed__begun_reduction_ends_at_its_goal() -> None:
    plan = plan_futures(unnamed(pair_book(10_000, 2_000 * LOT), "ETH"), LONGS, RICH, PLAN_S, goal_sizes=(("ETH", 1_000 * LOT),))
    assert sizes(plan) == {"ETH": -1_000}


@pytest.mark.parametrize(("waiting", "markets"), [((), {"BTC"}), (("BTC",), {"ETH", "BTC"})])
def test_unnamed__position_is_reduced_if_the_others_back_off(waiting: tuple[str, ...], markets: set[str]) -> None:
    """19,000 where 15,200 may be: 9,000 of BTC are enough, unless its orders wait."""
    plan = plan_futures(unnamed(pair_book(4_000, 5_000 * LOT, 300 * LOT), "ETH"), LONGS, RICH, PLAN_S, waiting_markets=waiting)
    assert sizes(plan).keys() == markets


def test_unnamed__position_above_its_share_is_not_trimmed() -> None:
    policy = replace(LONGS, limits=replace(PLAIN, max_position_bps=7_000))
    plan = plan_futures(unnamed(pair_book(10_000, 8_000 * LOT, 80 * LOT), "ETH"), policy, RICH, PLAN_S)
    assert (plan.trigger, plan.orders) == ("max_position", ())
    assert plan.refusal_texts == ("the account has a position in ETH, which the config does not name",)


def test_unnamed__market_holds_no_trim_of_another_back() -> None:
    policy = replace(LONGS, limits=replace(PLAIN, max_position_bps=7_000))
    plan = plan_futures(unnamed(pair_book(10_000, 8_000 * LOT, 20 * LOT), "BTC"), policy, RICH, PLAN_S)
    assert (plan.trigger, sizes(plan).keys()) == ("max_position", {"ETH"})


def test_unnamed__market_takes_no_deposit() -> None:
    account = replace(unnamed(pair_book(4_000, 7_000 * LOT, 200 * LOT), "BTC"), collateral_unit_raw=10**12)
    plan = plan_futures(account, LONGS, RICH, PLAN_S, depositable_raw=10**12)
    assert (plan.account_actions, sizes(plan).keys()) == ((), {"ETH"})


# Parts of orders


@pytest.mark.parametrize(("spot", "opened"), [(100, {}), (102, {"ETH": 51})])
def test_opening__cut_to_dust_is_not_sent(spot: int, opened: dict[str, int]) -> None:
    """A tenth of the band is 100."""
    policy = replace(ONE, limits=replace(PLAIN, spot_multiple_bps=10_000))
    assert sizes(plan_futures(pair_book(10_000), policy, Fraction(spot * E18), PLAN_S)) == opened


def test_plan__without_an_order_is_no_reduction() -> None:
    plan = plan_futures(with_market(pair_book(10_000), "ETH", is_paused=True), ONE, RICH, PLAN_S)
    assert (plan.orders, plan.is_reducing) == ((), False)


def crowded(**changes: object) -> MarginAccount:
    """12,000 of BTC, paused, and 14,000 of ETH, each of a target of 9,999; 4,000 of SOL."""
    return with_market(with_market(wide_book(ETH=7_000, BTC=400, SOL=40_000), "BTC", is_paused=True), "SOL", **changes)


@pytest.mark.parametrize(("least", "opens"), [(3_900, True), (4_100, False)])
def test_cut_to_target__reduction_makes_room_and_a_small_part_waits(least: int, opens: bool) -> None:
    """4,000 of ETH are sold, which leaves 4,000 of 30,000 for SOL."""
    policy = replace(TRIPLE, limits=replace(WIDE, slippage_bps=0))
    plan = plan_futures(crowded(min_notional_raw=least * E18), policy, RICH, PLAN_S)
    assert sizes(plan)["ETH"] == pytest.approx(-2_000, abs=2)
    assert sizes(plan).get("SOL", 0) == pytest.approx(40_000 if opens else 0, abs=100)


def test_smaller_orders__rest_below_a_lot_is_closed_whole() -> None:
    account = pair_book(10_000, LOT // 2)
    order = market_order(account.market("ETH"), -LOT // 2, 0, is_reduce_only=True)
    [smaller] = smaller_orders(account, FuturesPlan((order,), "", ""), PLAIN, {"ETH": 4})
    assert smaller.size_raw == -LOT // 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({}, ""), ({"is_paused": True}, "ETH is paused"), ({"is_paused": True, "is_isolated": True}, "ETH is set to isolated margin")],
    ids=["open", "paused", "isolated"],
)
def test_paused__isolated_margin_is_named(changes: dict[str, object], reason: str) -> None:
    assert paused_reason(with_market(pair_book(10_000), "ETH", **changes).market("ETH")) == reason
