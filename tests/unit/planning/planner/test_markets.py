"""Plans over awkward markets: baits, skewed, shallow, sick, one-sided and missing pools, tokens without price or route."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.errors import Refused
from agent.model import Goal, LegPlace, Pool, PriceSource, Rebalance, UnreadableItem
from agent.planning import planner
from agent.reference.floors import fair_floor
from tests.support.builders import step_input, v2_pool, v3_pool, with_limits, with_snapshot, without_feed
from tests.support.planning_worlds import (
    DAI,
    DEEP,
    FIVE,
    LINK,
    PRICES,
    USDC,
    WETH,
    checked_plan,
    five_pools,
    rebalance_to_targets,
    two,
    weights_bps,
    wide,
)
from tests.support.text import mentions, raises_code


def test_pool_above_the_reference_carries_only_the_drift() -> None:
    bait = v3_pool(WETH, USDC, 2_028, 100_000_000, name="bait")
    pools: list[Pool] = [v2_pool(WETH, USDC, 2_000, DEEP), bait]
    step = two(5_600, 4_400, pools)
    plan = checked_plan(step)
    assert [leg.pool for leg in plan.legs] == [bait.address]
    assert plan.turnover <= Fraction(600 * 10**6) * Fraction(105, 100)
    assert plan.cost.skew < 0 < plan.cost.fees
    other_way = two(4_400, 5_600, pools)
    plan = checked_plan(other_way)
    assert bait.address not in {leg.pool for leg in plan.legs}, "buying there would cost 1.4 %"


def test_skewed_pool_is_a_cost_and_never_lowers_a_floor() -> None:
    skewed = v3_pool(WETH, USDC, Fraction(2_000 * 9_960, 10_000), DEEP, 500)
    step = with_limits(two(5_800, 4_200, [skewed]), plan_cost_bps=60)
    plan = checked_plan(step)
    assert plan.cost.skew / plan.turnover == pytest.approx(0.004, rel=0.02)
    leg = plan.legs[0]
    prices = Fraction(2_000 * 10**6, 10**18), Fraction(1)
    assert leg.min_out_raw >= fair_floor(leg.amount_in_raw, *prices, leg.fee_pips, 100, 30)
    tight = with_limits(step, plan_cost_bps=20)
    with raises_code(Refused, "plan_cost"):
        planner.plan(tight, rebalance_to_targets(tight))


def test_pool_below_its_fair_floor_is_barred_without_plan_cost() -> None:
    skewed = v3_pool(WETH, USDC, Fraction(2_000 * 9_800, 10_000), DEEP, 500, name="skewed")
    fair = v3_pool(WETH, USDC, 2_000, DEEP, 10_000)
    step = wide(two(5_800, 4_200, [skewed]), plan_cost_bps=None)
    with pytest.raises(Refused, match="floor set by the reference price"):
        planner.plan(step, rebalance_to_targets(step))
    both = wide(two(5_800, 4_200, [skewed, fair]), plan_cost_bps=None)
    assert {leg.pool for leg in planner.plan(both, rebalance_to_targets(both)).legs} == {fair.address}


def test_limits_that_are_off_keep_only_a_minimum_output() -> None:
    step = two(
        9_000, 1_000, [v2_pool(WETH, USDC, 2_000, 10_000)],
        price_impact_bps=None, slippage_bps=None, plan_cost_bps=None, turnover_bps=None, daily_turnover_bps=None, min_trade=None,
        pool_min_value=None,
    )  # fmt: skip
    plan = checked_plan(step)
    assert plan.legs[0].impact_bps > 2_000
    assert plan.legs[0].min_out_raw >= 1
    assert weights_bps(step, plan)["WETH"] == pytest.approx(5_000, abs=2)


def test_token_without_a_pool_stays_with_a_reason() -> None:
    step = step_input({"WETH": 4_000, "USDC": 4_000, "LINK": 2_000}, {"WETH": 5_000, "USDC": 3_500, "LINK": 1_500}, PRICES,
                      pools=[v3_pool(WETH, USDC, 2_000, DEEP)])  # fmt: skip
    plan = checked_plan(step)
    assert mentions({item.subject: item.why for item in plan.skipped}["LINK"], "usable pool")


def test_plan_refuses_tokens_that_no_route_joins() -> None:
    pools: list[Pool] = [v3_pool(LINK, DAI, 15, DEEP)]
    step = step_input(None, {"WETH": 5_800, "USDC": 4_200}, pools=pools)
    with raises_code(Refused, "plan_cost", "usable pool"):
        planner.plan(step, rebalance_to_targets(step))
    apart: list[Pool] = [v3_pool(WETH, LINK, Fraction(2_000, 15), DEEP), v3_pool(DAI, USDC, 1, DEEP)]
    split = step_input(
        {"WETH": 4_000, "USDC": 4_000, "LINK": 1_000, "DAI": 1_000}, {"WETH": 5_000, "USDC": 3_000, "LINK": 1_000, "DAI": 1_000},
        PRICES, pools=apart,
    )  # fmt: skip
    with raises_code(Refused, "plan_cost", "no route"):
        planner.plan(split, rebalance_to_targets(split))


def test_hub_is_passed_through_and_ends_empty() -> None:
    pools: list[Pool] = [v3_pool(WETH, DAI, 2_000, DEEP), v3_pool(DAI, USDC, 1, DEEP, 100)]
    step = step_input(None, {"WETH": 5_800, "USDC": 4_200}, hubs=("DAI",), pools=pools)
    plan = checked_plan(step)
    assert [(leg.token_out, leg.sink) for leg in plan.legs] == [(DAI.address, LegPlace.ROUTER), (USDC.address, LegPlace.WALLET)]
    assert weights_bps(step, plan) == {"WETH": 5_000, "USDC": 5_000}
    assert {at for at, _ in plan.holdings_after} == {WETH.address, USDC.address}


def test_hub_without_a_price_or_in_quarantine_is_not_used() -> None:
    pools: list[Pool] = [v3_pool(WETH, DAI, 2_000, DEEP, window_s=None), v3_pool(DAI, USDC, 1, DEEP, 100, window_s=None)]
    step = step_input(None, {"WETH": 5_800, "USDC": 4_200}, hubs=("DAI",), pools=pools)
    with raises_code(Refused, "plan_cost", "reference price"):
        planner.plan(step, rebalance_to_targets(step))
    priced: list[Pool] = [v3_pool(WETH, DAI, 2_000, DEEP), v3_pool(DAI, USDC, 1, DEEP, 100)]
    unreadable = with_snapshot(
        step_input(None, {"WETH": 5_800, "USDC": 4_200}, hubs=("DAI",), pools=priced),
        unreadable_items=(UnreadableItem("token", DAI.address, "returned a megabyte"),),
    )
    with raises_code(Refused, "plan_cost", "returned a megabyte"):
        planner.plan(unreadable, rebalance_to_targets(unreadable))


def test_pool_unreadable_shallow_or_empty_is_skipped_by_name() -> None:
    sound = v3_pool(WETH, USDC, 2_000, DEEP, 3_000)
    unreadable = v3_pool(WETH, USDC, 2_000, DEEP, 500)
    shallow = v2_pool(WETH, USDC, 2_000, 1_000)
    dry = replace(v3_pool(WETH, USDC, 2_000, DEEP, 100), liquidity=0, ticks=())
    step = with_snapshot(
        two(5_800, 4_200, [sound, unreadable, shallow, dry]),
        unreadable_items=(UnreadableItem("pool", unreadable.address, "burnt its gas"),),
    )
    plan = planner.plan(step, rebalance_to_targets(step))
    assert {leg.pool for leg in plan.legs} == {sound.address}
    reasons = {item.subject: item.why for item in plan.skipped}
    assert "its gas" in reasons[f"pool {unreadable.address}"]
    assert "pool_min_value" in reasons[f"pool {shallow.address}"]
    assert reasons[f"pool {dry.address}"] == "no liquidity"


def test_one_sided_liquidity_serves_its_direction() -> None:
    pool = v3_pool(WETH, USDC, 2_000, 5_000_000, 100)
    up = pool.tick + 3
    down = pool.tick - 2
    if WETH.address == pool.token0:
        ticks = (pool.ticks[0], replace(pool.ticks[1], index=up))
    else:
        ticks = (replace(pool.ticks[0], index=down), pool.ticks[1])
    one_sided = replace(pool, ticks=ticks)
    sells = two(5_800, 4_200, [one_sided], pool_min_value=None)
    assert weights_bps(sells, planner.plan(sells, rebalance_to_targets(sells)))["WETH"] == 5_000
    buys = two(4_200, 5_800, [one_sided], pool_min_value=None, min_trade=None)
    plan = checked_plan(buys)
    assert plan.turnover < Fraction(700 * 10**6), "of 800 wanted: three ticks are all there is"
    assert any(one_sided.address in item.why for item in plan.skipped)


def test_plan_refuses_a_token_without_price_or_balance() -> None:
    unpriced = without_feed(two(5_800, 4_200), "WETH")
    with raises_code(Refused, "reference", "WETH"):
        planner.plan(unpriced, rebalance_to_targets(unpriced))
    step = two(5_800, 4_200)
    unread = with_snapshot(step, holdings=step.snapshot.holdings[:1], unreadable_items=(UnreadableItem("token", USDC.address, "mute"),))
    with raises_code(Refused, "balance", "mute"):
        planner.plan(unread, rebalance_to_targets(unread))


def test_gas_without_a_price_refuses_only_under_plan_cost() -> None:
    pools: list[Pool] = [v3_pool(DAI, USDC, 1, DEEP, 100)]
    step = step_input({"DAI": 5_000, "USDC": 5_000}, {"DAI": 5_800, "USDC": 4_200}, pools=pools)
    with raises_code(Refused, "plan_cost", "be valued"):
        planner.plan(step, rebalance_to_targets(step))
    off = with_limits(step, plan_cost_bps=None)
    plan = planner.plan(off, rebalance_to_targets(off))
    assert plan.cost.gas == 0
    assert any(item.subject == "gas" for item in plan.skipped)


def test_plan_refuses_an_empty_wallet_and_a_foreign_goal() -> None:
    empty = two(0, 0)
    with raises_code(Refused, "empty"):
        planner.plan(empty, rebalance_to_targets(empty))
    step = two(5_800, 4_200)
    with raises_code(Refused, "goal"):
        planner.plan(step, Rebalance("test", Goal(())))


def test_plan_is_the_same_for_the_same_input() -> None:
    values = {"WETH": 42_000, "USDC": 15_000, "WBTC": 26_000, "DAI": 7_000, "LINK": 10_000}
    step = wide(step_input(FIVE, values, PRICES, pools=five_pools()))
    assert planner.plan(step, rebalance_to_targets(step)) == planner.plan(step, rebalance_to_targets(step))


def test_numeraire_without_a_target_may_be_passed_through() -> None:
    pools: list[Pool] = [v3_pool(WETH, USDC, 2_000, DEEP), v3_pool(DAI, USDC, 1, DEEP, 100)]
    step = step_input({"WETH": 5_000, "DAI": 5_000}, {"WETH": 5_800, "DAI": 4_200}, hubs=("USDC",), pools=pools)
    step = replace(step, reference=replace(step.reference, sources=(PriceSource.SPOT,)))
    plan = checked_plan(step)
    assert [leg.token_out for leg in plan.legs] == [USDC.address, DAI.address]
    assert weights_bps(step, plan) == {"WETH": 5_000, "DAI": 5_000}
