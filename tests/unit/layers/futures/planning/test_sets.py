"""Sets of orders of longs and shorts in agent/layers/futures/planning: opened with all legs or none, cut alike, and completed."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent import guards
from agent.layers.futures.planning.orders import plan_futures
from agent.layers.futures.planning.plans import plan_adjustment
from agent.layers.futures.policy.books import (
    net_exposure,
)
from agent.layers.futures.policy.targets import target_gross_notional
from agent.layers.futures.state import FuturesProgress, FuturesState, planned_futures, with_policy
from agent.margin import account as margin
from agent.model import AdjustFutures, ExitFailures, Plan, StepInput
from agent.model.futures import FuturesTarget
from agent.policy.decide import current_drifts
from tests.support.builders import NOW_S, with_history
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import LOT, THREE, TWO, WIDE, wide_book, with_index_at, with_market
from tests.support.perpetuals.plans import PLAN_S, RICH, account_after_fills
from tests.support.perpetuals.steps import step_of
from tests.support.plans import evidence

LONGS = replace(TWO, targets=(FuturesTarget("ETH", 6_000), FuturesTarget("BTC", 4_000)))


BLOCKED: dict[str, dict[str, object]] = {
    "paused": {"is_paused": True},
    "off its index": {"index": Fraction(20_000)},
    "beyond its bound": {"mark": Fraction(29_500)},
    "below the minimum": {"min_notional_raw": 10_000 * E18},
    "dear funding": {"funding_daily": Fraction(-5, 1_000)},
}
"""Changes of BTC after which it is not sold, or bought."""


@pytest.mark.parametrize("change", BLOCKED.values(), ids=BLOCKED)
def test_set__no_leg_of_a_book_is_opened_without_its_other_side(change: dict[str, object]) -> None:
    policy = replace(TWO, funding_horizon_s=30 * 86_400)
    plan = plan_futures(with_market(wide_book(), "BTC", **change), policy, RICH, PLAN_S)
    assert plan.orders == ()
    assert plan.refusal_texts[-1] == "ETH is not opened: without BTC the net exposure would be off target"


@pytest.mark.parametrize("change", list(BLOCKED.values())[:2] + list(BLOCKED.values())[3:4], ids=list(BLOCKED)[:2] + list(BLOCKED)[3:4])
def test_set__two_longs_do_not_need_each_other(change: dict[str, object]) -> None:
    plan = plan_futures(with_market(wide_book(), "BTC", **change), LONGS, RICH, PLAN_S)
    assert [order.market for order in plan.orders] == ["ETH"]


def test_set__market_that_backs_off_holds_the_other_side_back() -> None:
    failed = ExitFailures("BTC", 3, 0, NOW_S)
    step = with_history(step_of(with_index_at(wide_book(), NOW_S), TWO), failed_exits=(failed,))
    reason = plan_adjustment(step, AdjustFutures("", is_reducing=False), current_drifts(step))
    assert isinstance(reason, str)
    assert "ETH is not opened: without BTC" in reason
    assert "BTC: its orders failed or were refused" in reason


def test_set__one_of_three_legs_missing_opens_none() -> None:
    plan = plan_futures(with_market(wide_book(), "SOL", is_paused=True), THREE, RICH, PLAN_S)
    assert plan.orders == ()
    assert plan.refusal_texts[-1] == "ETH, BTC is not opened: without SOL the net exposure would be off target"


@pytest.mark.parametrize(("weight_bps", "opens"), [(-500, True), (-501, False)])
def test_set__leg_within_the_band_may_be_missing(weight_bps: int, opens: bool) -> None:
    targets = (FuturesTarget("ETH", 6_000), FuturesTarget("BTC", -4_000 - weight_bps), FuturesTarget("SOL", weight_bps))
    plan = plan_futures(with_market(wide_book(), "SOL", is_paused=True), replace(TWO, targets=targets), RICH, PLAN_S)
    assert bool(plan.orders) is opens


def test_set__missing_legs_that_offset_hold_nothing_back() -> None:
    targets = (FuturesTarget("ETH", 3_000), FuturesTarget("BTC", -3_000), FuturesTarget("SOL", 4_000))
    quiet = with_market(with_market(wide_book(), "BTC", is_paused=True), "ETH", is_paused=True)
    plan = plan_futures(quiet, replace(TWO, targets=targets), RICH, PLAN_S)
    assert [order.market for order in plan.orders] == ["SOL"]


def test_set__leg_that_lowers_the_net_exposure_needs_no_other() -> None:
    """ETH is open at 60 %; its enlargement is not possible, and the short that offsets it is."""
    before = with_market(wide_book(ETH=5_000), "ETH", is_paused=True)
    plan = plan_futures(before, TWO, RICH, PLAN_S)
    assert [(order.market, order.size_raw) for order in plan.orders] == [("BTC", -266 * LOT)]


def test_set__reduction_beside_a_missing_leg_is_sent() -> None:
    before = with_market(wide_book(ETH=8_000), "BTC", is_paused=True)
    plan = plan_futures(before, TWO, RICH, PLAN_S)
    assert [(order.market, order.is_reduce_only) for order in plan.orders] == [("ETH", True)]


def test_set__legs_are_cut_by_one_share() -> None:
    """ETH may be half of the target notional instead of 60 %, so BTC is cut by a sixth too."""
    policy = replace(TWO, limits=replace(WIDE, max_position_bps=5_000))
    plan = plan_futures(wide_book(), policy, RICH, PLAN_S)
    sizes = {order.market: order.size_raw for order in plan.orders}
    assert sizes == {"ETH": 4_902 * LOT, "BTC": -(266 * 4_902 // 6_000) * LOT}, "less the slippage of 1 % of both, which the limit counts"
    assert any(text.startswith("BTC is cut to the share of ETH") for text in plan.refusal_texts)
    assert max(margin.position_shares(account_after_fills(wide_book(), plan), policy.leverage_bps).values()) <= Fraction(1, 2)


def test_set__share_below_the_venues_minimum_opens_none() -> None:
    policy = replace(TWO, limits=replace(WIDE, max_position_bps=5_000))
    small = with_market(wide_book(), "BTC", min_notional_raw=7_000 * E18)
    assert {order.market for order in plan_futures(small, TWO, RICH, PLAN_S).orders} == {"ETH", "BTC"}
    assert plan_futures(small, policy, RICH, PLAN_S).orders == ()


def test_set__exact_halves_keep_the_net_exposure() -> None:
    """10,009 of SOL cannot be closed; the notional leaves room for exactly half of each leg, 2,010 net."""
    before = with_market(wide_book(SOL=100_090), "SOL", is_paused=True)
    plan = plan_futures(before, TWO, RICH, PLAN_S)
    assert plan.orders == ()
    assert plan.refusal_texts[-1] == "ETH, BTC is not opened: with what is held the net exposure would leave its band"


def test_set__openings_keep_net_exposure_beside_a_paused_position() -> None:
    """ETH cannot be closed; closing the short of SOL that offsets it would leave the net exposure 2,594 of a band of 2,000."""
    targets = (FuturesTarget("ETH", 0), FuturesTarget("BTC", -5_000), FuturesTarget("SOL", 5_000))
    before = with_market(wide_book(20_000, ETH=1_297, SOL=-7_280), "ETH", is_paused=True)
    plan = plan_futures(before, replace(TWO, targets=targets), RICH, PLAN_S)
    exposure = net_exposure(account_after_fills(before, plan), TWO)
    assert {order.market for order in plan.orders} == {"BTC", "SOL"}
    assert exposure.band * 19 / 20 < abs(exposure.notional) <= exposure.band + 30 * E18, "and a lot of BTC"
    assert plan.refusal_texts[-1] == "BTC, SOL is cut: with what is held the net exposure would leave its band"


@example([0, -1, 1], [1_297, -1, -364], [True, False, False], 2_000)
@example([0, 1, -1], [-1_297, 1, 364], [True, False, False], 2_000)
@example([1, 0, -1], [364, -20_000, 0], [False, True, False], 10_000)
@given(
    st.lists(st.integers(-50, 50), min_size=3, max_size=3),
    st.lists(st.integers(-8_000, 8_000), min_size=3, max_size=3),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.integers(2_000, 10_000),
)
def test_set__no_plan_opens_the_net_exposure_beyond_its_target(
    weights: list[int], lots: list[int], paused: list[bool], max_position_bps: int
) -> None:
    """Whatever is paused and held: no opening moves the net exposure farther from zero than before and than the target, by the band."""
    total = sum(map(abs, weights))
    if not total:
        return
    names = ("ETH", "BTC", "SOL")
    targets = tuple(FuturesTarget(name, weight * 10_000 // total) for name, weight in zip(names, weights, strict=True))
    policy = replace(TWO, targets=targets, limits=replace(WIDE, max_position_bps=max_position_bps))
    before = wide_book(20_000, ETH=lots[0], BTC=lots[1] // 15, SOL=lots[2] * 20)
    for name, is_paused in zip(names, paused, strict=True):
        before = with_market(before, name, is_paused=is_paused)
    plan = plan_futures(before, policy, RICH, PLAN_S)
    if margin.account_value_raw(before) <= 0 or plan.trigger not in ("drift", "leverage_drift"):
        return
    reduced = account_after_fills(before, replace(plan, orders=tuple(order for order in plan.orders if order.is_reduce_only)))
    exposure = net_exposure(reduced, policy)
    exposure_after = net_exposure(account_after_fills(before, plan), policy)
    dust = target_gross_notional(before, policy) * 3 * policy.band_bps / 10 / 10_000
    most = max(abs(exposure.notional), abs(exposure.target_notional) + exposure.band)
    assert abs(exposure_after.notional) <= most + dust + 60 * E18, "lots of 30 dollars, and fees"


# The cost of a set


def cost_step(plan_cost_bps: int = 36, goals: tuple[tuple[str, int], ...] = (), **lots: int) -> StepInput:
    """Fees of 10 bps and 2.42 of gas an order: 34.4 bps of both legs, 41 of the short alone."""
    step = step_of(with_index_at(wide_book(1_000, **lots), NOW_S), TWO)
    step = replace(step, limits=replace(step.limits, plan_cost_bps=plan_cost_bps))
    return step.with_layer(FuturesState(set_goals=goals))


def planned(step: StepInput) -> Plan | str:
    return plan_adjustment(step, AdjustFutures("", is_reducing=False), current_drifts(step))


def orders_of(plan: Plan | str) -> list[tuple[str, int]]:
    layer_plan = planned_futures(plan) if isinstance(plan, Plan) else None
    return [] if layer_plan is None else [(order.market, order.size_raw) for order in layer_plan.orders]


def cost_verdict(step: StepInput, plan: Plan | str) -> bool:
    assert isinstance(plan, Plan)
    [verdict] = [verdict for verdict in guards.judge(step, plan, evidence(step, plan)) if verdict.guard == "plan_cost"]
    return verdict.passed


GOALS = (("ETH", 600 * LOT), ("BTC", -26 * LOT))


@pytest.mark.parametrize(("plan_cost_bps", "opens"), [(35, True), (34, False)])
def test_cost__both_legs_are_judged_together(plan_cost_bps: int, opens: bool) -> None:
    step = cost_step(plan_cost_bps)
    plan = planned(step)
    assert orders_of(plan) == (list(GOALS) if opens else [])
    if isinstance(plan, Plan):
        assert cost_verdict(step, plan)
        layer_plan = planned_futures(plan)
        assert layer_plan is not None
        assert (layer_plan.set_goals, layer_plan.completes_set) == (GOALS, False)


def test_cost__short_too_dear_alone_completes_an_open_long_s_set() -> None:
    alone = planned(cost_step(ETH=600))
    assert isinstance(alone, str)
    assert "above limits.plan_cost of 36 bps" in alone
    step = cost_step(goals=GOALS, ETH=600)
    plan = planned(step)
    assert orders_of(plan) == [("BTC", -26 * LOT)]
    assert cost_verdict(step, plan)
    assert isinstance(plan, Plan)
    layer_plan = planned_futures(plan)
    assert layer_plan is not None
    assert (layer_plan.set_goals, layer_plan.completes_set) == (GOALS, True)


@pytest.mark.parametrize(
    "goals",
    [(), (("ETH", 600 * LOT),), (("BTC", 26 * LOT),), (("SOL", -26 * LOT), ("ETH", 600 * LOT))],
    ids=["none", "only the long", "of the other side", "of another market"],
)
def test_cost__order_that_completes_no_set_is_judged_alone(goals: tuple[tuple[str, int], ...]) -> None:
    assert isinstance(planned(cost_step(goals=goals, ETH=600)), str)


def test_cost__completing_order_ends_at_its_goal() -> None:
    plan = planned(cost_step(goals=(("ETH", 600 * LOT), ("BTC", -20 * LOT)), ETH=600))
    assert orders_of(plan) == [("BTC", -20 * LOT)]


def test_cost__reduction_waits_for_no_unfinished_set() -> None:
    """The short of the set backs off; the long is above its target of today."""
    goals = (("ETH", 900 * LOT), ("BTC", -26 * LOT))
    step = cost_step(goals=goals, ETH=900)
    plan = planned(step)
    assert orders_of(plan) == [("ETH", -300 * LOT), ("BTC", -26 * LOT)]
    assert cost_verdict(step, plan)
    failed = ExitFailures("BTC", 3, 0, NOW_S)
    assert orders_of(planned(with_history(step, failed_exits=(failed,)))) == [("ETH", -300 * LOT)]


def test_cost__guard_passes_no_order_beyond_a_goal() -> None:
    step = cost_step(goals=GOALS, ETH=600)
    plan = planned(step)
    assert isinstance(plan, Plan)
    less = step.with_layer(FuturesState(set_goals=(("ETH", 600 * LOT), ("BTC", -25 * LOT))))
    assert not cost_verdict(less, plan)


def test_cost__part_of_a_completing_order_is_judged_alone() -> None:
    step = cost_step(goals=GOALS, ETH=600).with_progress(FuturesProgress(order_divisors=(("BTC", 4),)))
    assert isinstance(planned(step), str)


def test_cost__reductions_to_a_limit_are_no_set() -> None:
    plan = planned(cost_step(ETH=2_500, BTC=-50))
    assert [name for name, _ in orders_of(plan)] == ["ETH", "BTC"]
    assert isinstance(plan, Plan)
    layer_plan = planned_futures(plan)
    assert layer_plan is not None
    assert (layer_plan.is_reducing, layer_plan.set_goals) == (True, ())


def test_parts__long_and_short_are_divided_alike() -> None:
    step = cost_step(10_000).with_progress(FuturesProgress(order_divisors=(("BTC", 4),)))
    assert orders_of(planned(step)) == [("ETH", 150 * LOT), ("BTC", -6 * LOT)]


def test_parts__of_two_longs_the_thin_pool_s_is_divided() -> None:
    step = with_policy(cost_step(10_000), LONGS).with_progress(FuturesProgress(order_divisors=(("BTC", 4),)))
    assert orders_of(planned(step)) == [("ETH", 600 * LOT), ("BTC", 6 * LOT)]


# What a limit allows of an opening


def test_largest_share__enlargement_ends_at_the_limit_to_the_lot() -> None:
    """After a rise of ETH its target is 60 % of more: the order is cut by what would be above 60 %."""
    policy = replace(TWO, limits=replace(WIDE, max_position_bps=6_000, slippage_bps=10), leverage_band_bps=500)
    opened = account_after_fills(wide_book(), plan_futures(wide_book(), policy, RICH, PLAN_S))
    risen = replace(opened, markets=tuple(replace(perp, mark=perp.mark * 5 / 4, index=perp.index * 5 / 4) for perp in opened.markets))
    plan = plan_futures(replace(risen, collateral_raw=risen.collateral_raw * 3 // 2), policy, RICH, PLAN_S)
    assert [order.market for order in plan.orders if order.size_raw > 0] == ["ETH"], plan
    after = account_after_fills(replace(risen, collateral_raw=risen.collateral_raw * 3 // 2), plan)
    share = margin.position_shares(after, policy.leverage_bps)["ETH"]
    assert Fraction(5_990, 10_000) < share <= Fraction(6_000, 10_000)


@pytest.mark.parametrize(("minimum", "orders"), [(13_900, ["ETH"]), (14_000, [])])
def test_largest_share__part_below_the_minimum_is_not_opened(minimum: int, orders: list[str]) -> None:
    """At most 70 % of a target of 20,000 less the fee can be opened."""
    policy = replace(LONGS, targets=(FuturesTarget("ETH", 10_000),), limits=replace(WIDE, max_position_bps=7_000))
    plan = plan_futures(with_market(wide_book(), "ETH", min_notional_raw=minimum * E18), policy, RICH, PLAN_S)
    assert [order.market for order in plan.orders] == orders
    assert plan.refusal_texts[0].startswith("ETH is cut" if orders else "ETH is not opened")
