"""Sets of orders of longs and shorts in agent/layers/futures/planning: opened with all legs or none, cut alike, and completed."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.layers.futures.planning.orders import plan_futures
from agent.layers.futures.planning.plans import plan_adjustment
from agent.layers.futures.policy.books import net_exposure
from agent.layers.futures.policy.targets import target_gross_notional
from agent.layers.futures.state import FuturesProgress, FuturesState, with_policy
from agent.margin import account as margin
from agent.model import AdjustFutures, ExitFailures, Plan, StepInput
from agent.model.futures import FuturesPlan, FuturesPolicy, FuturesTarget, MarginAccount
from agent.policy.decide import current_drifts
from tests.support.builders import NOW_S, with_history, with_limits
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import LOT, THREE, TWO, WIDE, wide_book, with_index_at, with_market
from tests.support.perpetuals.plans import PLAN_S, RICH, account_after_fills
from tests.support.perpetuals.steps import futures_of, step_of
from tests.support.plans import verdict

LONGS = replace(TWO, targets=(FuturesTarget("ETH", 6_000), FuturesTarget("BTC", 4_000)))


def planned(margin_account: MarginAccount, policy: FuturesPolicy = TWO) -> FuturesPlan:
    return plan_futures(margin_account, policy, RICH, PLAN_S)


def two_with(*weights_bps: int, **limits: Any) -> FuturesPolicy:
    """Return `TWO` with these weights of ETH, BTC and SOL, if any, and these limits."""
    targets = tuple(FuturesTarget(name, bps) for name, bps in zip(("ETH", "BTC", "SOL"), weights_bps, strict=False))
    return replace(TWO, targets=targets or TWO.targets, limits=replace(WIDE, **limits))


def paused(margin_account: MarginAccount, *markets: str) -> MarginAccount:
    for name in markets:
        margin_account = with_market(margin_account, name, is_paused=True)
    return margin_account


def orders_of(plan: FuturesPlan) -> list[tuple[str, int]]:
    """Return market and size in thousandths of each order."""
    return [(order.market, order.size_raw // LOT) for order in plan.orders]


BLOCKED: dict[str, dict[str, object]] = {
    "paused": {"is_paused": True},
    "off its index": {"index": Fraction(20_000)},
    "below the minimum": {"min_notional_raw": 10_000 * E18},
    "beyond its bound": {"mark": Fraction(29_500)},
    "dear funding": {"funding_daily": Fraction(-5, 1_000)},
}
"""Changes of BTC after which it is not sold; the first three hold back its purchase too."""


@pytest.mark.parametrize("change", BLOCKED.values(), ids=BLOCKED)
def test_set__no_leg_of_a_book_is_opened_without_its_other_side(change: dict[str, object]) -> None:
    plan = planned(with_market(wide_book(), "BTC", **change), replace(TWO, funding_horizon_s=30 * 86_400))
    assert plan.orders == ()
    assert plan.refusal_texts[-1] == "ETH is not opened: without BTC the net exposure would be off target"


@pytest.mark.parametrize("change", list(BLOCKED.values())[:3], ids=list(BLOCKED)[:3])
def test_set__two_longs_do_not_need_each_other(change: dict[str, object]) -> None:
    assert [order.market for order in planned(with_market(wide_book(), "BTC", **change), LONGS).orders] == ["ETH"]


def test_set__market_that_backs_off_holds_the_other_side_back() -> None:
    reason = adjustment(with_history(step_of(with_index_at(wide_book(), NOW_S), TWO), failed_exits=(FAILED_BTC,)))
    assert all(words in reason for words in ("ETH is not opened: without BTC", "BTC: its orders failed or were refused"))


@pytest.mark.parametrize(
    ("before", "policy", "refusal_text"),
    [
        pytest.param(
            paused(wide_book(), "SOL"),
            THREE,
            "ETH, BTC is not opened: without SOL the net exposure would be off target",
            id="one of three legs missing",
        ),
        pytest.param(
            paused(wide_book(SOL=100_090), "SOL"),
            TWO,
            "ETH, BTC is not opened: with what is held the net exposure would leave its band",
            id="room for exactly half of each leg, 2,010 net, beside 10,009 that cannot be closed",
        ),
    ],
)
def test_set__none_is_opened_that_leaves_the_net_exposure(before: MarginAccount, policy: FuturesPolicy, refusal_text: str) -> None:
    plan = planned(before, policy)
    assert (plan.orders, plan.refusal_texts[-1]) == ((), refusal_text)


@pytest.mark.parametrize(
    ("before", "policy", "orders"),
    [
        pytest.param(
            paused(wide_book(), "SOL"), two_with(6_000, -3_500, -500), [("ETH", 6_000), ("BTC", -233)], id="missing leg within the band"
        ),
        pytest.param(paused(wide_book(), "SOL"), two_with(6_000, -3_499, -501), [], id="missing leg beyond the band"),
        pytest.param(paused(wide_book(), "BTC", "ETH"), two_with(3_000, -3_000, 4_000), [("SOL", 80_000)], id="missing legs that offset"),
        pytest.param(paused(wide_book(ETH=5_000), "ETH"), TWO, [("BTC", -266)], id="leg that lowers the net exposure"),
        pytest.param(paused(wide_book(ETH=8_000), "BTC"), TWO, [("ETH", -2_000)], id="reduction beside a missing leg"),
        pytest.param(
            with_market(wide_book(), "BTC", min_notional_raw=7_000 * E18), TWO, [("ETH", 6_000), ("BTC", -266)], id="above the minimum"
        ),
        pytest.param(
            with_market(wide_book(), "BTC", min_notional_raw=7_000 * E18),
            two_with(max_position_bps=5_000),
            [],
            id="share below it",
        ),
    ],
)
def test_set__is_opened_whole_or_not_at_all(before: MarginAccount, policy: FuturesPolicy, orders: list[tuple[str, int]]) -> None:
    plan = planned(before, policy)
    assert orders_of(plan) == orders
    assert all(order.is_reduce_only is (before.size_raw(order.market) * order.size_raw < 0) for order in plan.orders)


def test_set__legs_are_cut_by_one_share() -> None:
    """ETH may be half of the target notional instead of 60 %, so BTC is cut by a sixth too."""
    policy = two_with(max_position_bps=5_000)
    plan = planned(wide_book(), policy)
    assert orders_of(plan) == [("ETH", 4_902), ("BTC", -(266 * 4_902 // 6_000))], "less the slippage of 1 % of both, which the limit counts"
    assert any(text.startswith("BTC is cut to the share of ETH") for text in plan.refusal_texts)
    assert max(margin.position_shares(account_after_fills(wide_book(), plan), policy.leverage_bps).values()) <= Fraction(1, 2)


def test_set__openings_keep_net_exposure_beside_a_paused_position() -> None:
    """ETH cannot be closed; closing the short of SOL that offsets it would leave the net exposure 2,594 of a band of 2,000."""
    before = paused(wide_book(20_000, ETH=1_297, SOL=-7_280), "ETH")
    plan = planned(before, two_with(0, -5_000, 5_000))
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
    weights: list[int], lots: list[int], are_paused: list[bool], max_position_bps: int
) -> None:
    """Whatever is paused and held: no opening moves the net exposure farther from zero than before and than the target, by the band."""
    total = sum(map(abs, weights))
    if not total:
        return
    policy = two_with(*(weight * 10_000 // total for weight in weights), max_position_bps=max_position_bps)
    before = wide_book(20_000, ETH=lots[0], BTC=lots[1] // 15, SOL=lots[2] * 20)
    before = paused(before, *(name for name, is_paused in zip(("ETH", "BTC", "SOL"), are_paused, strict=True) if is_paused))
    plan = planned(before, policy)
    if margin.account_value_raw(before) <= 0 or plan.trigger not in ("drift", "leverage_drift"):
        return
    reduced = account_after_fills(before, replace(plan, orders=tuple(order for order in plan.orders if order.is_reduce_only)))
    exposure = net_exposure(reduced, policy)
    exposure_after = net_exposure(account_after_fills(before, plan), policy)
    dust = target_gross_notional(before, policy) * 3 * policy.band_bps / 10 / 10_000
    most = max(abs(exposure.notional), abs(exposure.target_notional) + exposure.band)
    assert abs(exposure_after.notional) <= most + dust + 60 * E18, "lots of 30 dollars, and fees"


# --- The cost of a set


FAILED_BTC = ExitFailures("BTC", 3, 0, NOW_S)
GOALS = (("ETH", 600 * LOT), ("BTC", -26 * LOT))


def cost_step(plan_cost_bps: int = 36, goals: tuple[tuple[str, int], ...] = (), **lots: int) -> StepInput:
    """Fees of 10 bps and 2.42 of gas an order: 34.4 bps of both legs, 41 of the short alone."""
    step = with_limits(step_of(with_index_at(wide_book(1_000, **lots), NOW_S), TWO), plan_cost_bps=plan_cost_bps)
    return step.with_layer(FuturesState(set_goals=goals))


def adjustment(step: StepInput) -> Plan | str:
    """Return the plan of the step's futures, or why there is none."""
    return plan_adjustment(step, AdjustFutures("", is_reducing=False), current_drifts(step))


def planned_set(step: StepInput) -> FuturesPlan:
    """Return the planned orders, whose cost passes its guard."""
    plan = adjustment(step)
    assert isinstance(plan, Plan), plan
    assert verdict("plan_cost", step, plan).passed
    return futures_of(plan)


def in_parts(step: StepInput) -> StepInput:
    """Return the step in which the pool of BTC has refused an order."""
    return step.with_progress(FuturesProgress(order_divisors=(("BTC", 4),)))


def test_cost__both_legs_are_judged_together() -> None:
    plan = planned_set(cost_step(35))
    assert (orders_of(plan), plan.set_goals, plan.completes_set) == ([("ETH", 600), ("BTC", -26)], GOALS, False)


def test_cost__short_too_dear_alone_completes_an_open_long_s_set() -> None:
    plan = planned_set(cost_step(goals=GOALS, ETH=600))
    assert (orders_of(plan), plan.set_goals, plan.completes_set) == ([("BTC", -26)], GOALS, True)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(cost_step(34), id="both legs too dear"),
        pytest.param(cost_step(ETH=600), id="no set"),
        pytest.param(cost_step(goals=GOALS[:1], ETH=600), id="set of the long alone"),
        pytest.param(cost_step(goals=(("BTC", 26 * LOT),), ETH=600), id="set of the other side"),
        pytest.param(cost_step(goals=(("SOL", -26 * LOT), GOALS[0]), ETH=600), id="set of another market"),
        pytest.param(in_parts(cost_step(goals=GOALS, ETH=600)), id="part of a completing order"),
    ],
)
def test_cost__order_that_completes_no_set_is_judged_alone(step: StepInput) -> None:
    reason = adjustment(step)
    assert isinstance(reason, str)
    assert f"above limits.plan_cost of {step.limits.plan_cost_bps} bps" in reason


def test_cost__completing_order_ends_at_its_goal() -> None:
    assert orders_of(planned_set(cost_step(goals=(GOALS[0], ("BTC", -20 * LOT)), ETH=600))) == [("BTC", -20)]


def test_cost__reduction_waits_for_no_unfinished_set() -> None:
    """The short of the set backs off; the long is above its target of today."""
    step = cost_step(goals=(("ETH", 900 * LOT), GOALS[1]), ETH=900)
    assert orders_of(planned_set(step)) == [("ETH", -300), ("BTC", -26)]
    assert orders_of(planned_set(with_history(step, failed_exits=(FAILED_BTC,)))) == [("ETH", -300)]


def test_cost__guard_passes_no_order_beyond_a_goal() -> None:
    step = cost_step(goals=GOALS, ETH=600)
    less = step.with_layer(FuturesState(set_goals=(GOALS[0], ("BTC", -25 * LOT))))
    assert not verdict("plan_cost", less, adjustment(step)).passed


def test_cost__reductions_to_a_limit_are_no_set() -> None:
    plan = futures_of(adjustment(cost_step(ETH=2_500, BTC=-50)))
    assert [order.market for order in plan.orders] == ["ETH", "BTC"]
    assert (plan.is_reducing, plan.set_goals) == (True, ())


@pytest.mark.parametrize(
    ("policy", "orders"),
    [
        pytest.param(TWO, [("ETH", 150), ("BTC", -6)], id="long and short alike"),
        pytest.param(LONGS, [("ETH", 600), ("BTC", 6)], id="of two longs the thin pool's"),
    ],
)
def test_parts__are_of_both_sides_alike(policy: FuturesPolicy, orders: list[tuple[str, int]]) -> None:
    assert orders_of(futures_of(adjustment(in_parts(with_policy(cost_step(10_000), policy))))) == orders


# --- What a limit allows of an opening


def test_largest_share__enlargement_ends_at_the_limit_to_the_lot() -> None:
    """After a rise of ETH its target is 60 % of more: the order is cut by what would be above 60 %."""
    policy = replace(two_with(max_position_bps=6_000, slippage_bps=10), leverage_band_bps=500)
    opened = account_after_fills(wide_book(), planned(wide_book(), policy))
    markets = tuple(replace(perp, mark=perp.mark * 5 / 4, index=perp.index * 5 / 4) for perp in opened.markets)
    risen = replace(opened, markets=markets, collateral_raw=opened.collateral_raw * 3 // 2)
    plan = planned(risen, policy)
    assert [order.market for order in plan.orders if order.size_raw > 0] == ["ETH"], plan
    share = margin.position_shares(account_after_fills(risen, plan), policy.leverage_bps)["ETH"]
    assert Fraction(5_990, 10_000) < share <= Fraction(6_000, 10_000)


@pytest.mark.parametrize(
    ("minimum", "orders", "refusal_text"), [(13_900, ["ETH"], "ETH is cut"), (14_000, [], "ETH is not opened")], ids=["at most", "above"]
)
def test_largest_share__part_below_the_minimum_is_not_opened(minimum: int, orders: list[str], refusal_text: str) -> None:
    """At most 70 % of a target of 20,000 less the fee can be opened."""
    plan = planned(with_market(wide_book(), "ETH", min_notional_raw=minimum * E18), two_with(10_000, max_position_bps=7_000))
    assert [order.market for order in plan.orders] == orders
    assert plan.refusal_texts[0].startswith(refusal_text)
