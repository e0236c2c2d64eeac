"""Plans: the goal is hit with all costs in, within every bound, and what is left undone says why."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.errors import Refused
from agent.model import LegPlace, Pool
from agent.planning import planner
from agent.planning.plan_builder import skipped_items
from agent.planning.problem import build_pool_graph, build_problem
from agent.planning.rounding import PlanDraft
from agent.planning.solver.drop_reasons import DropCause, DropReason
from agent.planning.solver.fixed_point import FixedPoint
from agent.planning.solver.utility import objective_for_goal
from agent.reference import reference_prices
from agent.units import BPS
from tests.support.builders import history, step_input, v2_pool, v3_pool, with_limits, with_snapshot
from tests.support.planning_worlds import (
    DAI,
    DEEP,
    FIVE,
    LINK,
    PRICES,
    USDC,
    WBTC,
    WETH,
    check_legs,
    five_pools,
    flow_value,
    rebalance_to_targets,
    two,
    weights_bps,
    wide,
)
from tests.support.text import mentions, raises_code


def test_plan_of_two_assets_meets_its_targets_after_costs() -> None:
    step = two(5_800, 4_200)
    plan = planner.plan(step, rebalance_to_targets(step))
    check_legs(step, plan)
    assert weights_bps(step, plan) == {"WETH": 5_000, "USDC": 5_000}
    assert plan.block == step.snapshot.head.number
    assert plan.expires_block == plan.block + step.execution.expire_blocks
    assert plan.gap_bps is not None
    assert plan.gap_bps < Fraction(1, 1_000)
    assert plan.verdicts == ()
    assert plan.skipped == ()


def test_plan_of_five_assets_ends_within_two_bps() -> None:
    values = {"WETH": 42_000, "USDC": 15_000, "WBTC": 26_000, "DAI": 7_000, "LINK": 10_000}
    step = wide(step_input(FIVE, values, PRICES, pools=five_pools()))
    plan = planner.plan(step, rebalance_to_targets(step))
    check_legs(step, plan)
    after = weights_bps(step, plan)
    assert all(abs(after[symbol] - FIVE[symbol]) <= 2 for symbol in FIVE)
    assert any(leg.source is LegPlace.ROUTER for leg in plan.legs), "WBTC reaches LINK through WETH only"


def test_plan_spreads_a_single_token_over_all() -> None:
    step = wide(step_input(FIVE, {"DAI": 50_000}, PRICES, pools=five_pools()))
    plan = planner.plan(step, rebalance_to_targets(step))
    check_legs(step, plan)
    after = weights_bps(step, plan)
    assert all(abs(after[symbol] - FIVE[symbol]) <= 10 for symbol in FIVE)


def test_plan_sells_a_single_excess_into_all_others() -> None:
    values = {"WETH": 36_000, "USDC": 18_500, "WBTC": 18_000, "DAI": 9_000, "LINK": 18_500}
    step = wide(step_input(FIVE, values, PRICES, pools=five_pools()))
    plan = planner.plan(step, rebalance_to_targets(step))
    check_legs(step, plan)
    assert {leg.token_in for leg in plan.legs if leg.source is LegPlace.WALLET} == {WETH.address}
    assert all(abs(weights_bps(step, plan)[symbol] - FIVE[symbol]) <= 2 for symbol in FIVE)


def test_cost_parts_add_up_to_the_value_lost() -> None:
    values = {"WETH": 42_000, "USDC": 15_000, "WBTC": 26_000, "DAI": 7_000, "LINK": 10_000}
    step = wide(step_input(FIVE, values, PRICES, pools=five_pools()))
    plan = planner.plan(step, rebalance_to_targets(step))
    assert flow_value(step, plan) == -(plan.cost.fees + plan.cost.impact + plan.cost.skew)
    assert plan.cost.fees > 0
    assert plan.cost.impact > 0
    gas_price = Fraction(11, 10) * 10**9
    assert plan.cost.gas == plan.gas_units * gas_price * Fraction(2_000 * 10**6, 10**18)
    volume = sum(leg.amount_in_raw * Fraction(1) for leg in plan.legs if leg.token_in == USDC.address)
    assert plan.gross_volume > plan.turnover > 0
    assert plan.gross_volume > volume


def test_plan_splits_a_trade_so_that_last_units_pay_alike() -> None:
    pools: list[Pool] = [v2_pool(WETH, USDC, 2_000, 1_000_000), v3_pool(WETH, USDC, 2_000, 3_000_000, 3_000)]
    step = wide(two(45_000, 25_000, pools), pool_min_value=None)
    plan = planner.plan(step, rebalance_to_targets(step))
    check_legs(step, plan)
    small, large = sorted(plan.legs, key=lambda leg: leg.amount_in_raw)
    assert Fraction(large.amount_in_raw, small.amount_in_raw) == pytest.approx(3, rel=0.05)
    assert abs(small.impact_bps - large.impact_bps) <= 2


def test_plan_stops_at_price_impact_and_explains_the_rest() -> None:
    step = wide(two(90_000, 10_000, [v2_pool(WETH, USDC, 2_000, 1_000_000)]))
    plan = planner.plan(step, rebalance_to_targets(step))
    check_legs(step, plan)
    assert plan.legs[0].impact_bps == 100
    reason_by_subject = {item.subject: item.why for item in plan.skipped}
    assert "price_impact" in reason_by_subject["WETH"]
    assert plan.legs[0].pool in reason_by_subject["WETH"]
    assert weights_bps(step, plan)["WETH"] > 8_400


def test_legs_through_one_pool_share_its_price_impact() -> None:
    pools: list[Pool] = [v2_pool(WETH, USDC, 2_000, 5_000_000), v3_pool(DAI, USDC, 1, DEEP, 100), v3_pool(LINK, USDC, 15, DEEP)]
    targets = {"WETH": 2_500, "USDC": 2_500, "DAI": 2_500, "LINK": 2_500}
    step = wide(step_input(targets, {"WETH": 55_000, "USDC": 18_000}, PRICES, pools=pools))
    plan = planner.plan(step, rebalance_to_targets(step))
    check_legs(step, plan)
    shared = [leg for leg in plan.legs if leg.pool == pools[0].address]
    assert len(shared) > 1
    assert 95 <= sum(leg.impact_bps for leg in shared) <= 100 + len(shared), "each leg's own move, rounded up"
    assert any("price_impact" in item.why for item in plan.skipped)


def test_plan_stops_at_turnover_and_explains_the_rest() -> None:
    step = two(9_600, 400)
    plan = planner.plan(step, rebalance_to_targets(step))
    check_legs(step, plan)
    assert Fraction(2_990) * 10**6 < plan.turnover <= Fraction(3_000) * 10**6
    assert any("limits.turnover allows no more" in item.why for item in plan.skipped)


def test_plan_stops_at_daily_turnover_and_refuses_at_nothing() -> None:
    step = replace(two(9_600, 400), history=history(turnover_24h=Fraction(5_000 * 10**6)))
    plan = planner.plan(step, rebalance_to_targets(step))
    assert Fraction(995) * 10**6 < plan.turnover <= Fraction(1_000) * 10**6
    assert any("limits.daily_turnover" in item.why for item in plan.skipped)
    spent = replace(step, history=history(turnover_24h=Fraction(6_000 * 10**6)))
    with raises_code(Refused, "daily_turnover"):
        planner.plan(spent, rebalance_to_targets(spent))


def test_drift_stays_where_trading_costs_over_plan_cost() -> None:
    pools: list[Pool] = [v3_pool(WETH, USDC, 2_000, DEEP, 500), v3_pool(LINK, USDC, 15, DEEP, 10_000)]
    step = with_limits(
        step_input({"WETH": 4_000, "USDC": 3_000, "LINK": 3_000}, {"WETH": 46_000, "USDC": 26_000, "LINK": 28_000}, PRICES, pools=pools),
        plan_cost_bps=50,
    )
    plan = planner.plan(step, rebalance_to_targets(step))
    check_legs(step, plan)
    assert {leg.pool for leg in plan.legs} == {pools[0].address}
    assert mentions({item.subject: item.why for item in plan.skipped}["LINK"], "plan_cost allows", "fees")
    dear = with_limits(step, plan_cost_bps=4)
    with raises_code(Refused, "plan_cost", "4 bps"):
        planner.plan(dear, rebalance_to_targets(dear))


def test_cost_with_gas_stays_within_plan_cost() -> None:
    values = {"WETH": 1_300, "USDC": 500, "WBTC": 800, "DAI": 200, "LINK": 200}
    step = wide(step_input(FIVE, values, PRICES, pools=five_pools()), plan_cost_bps=60, min_trade=None, pool_min_value=None)
    step = with_snapshot(step, priority_fee_wei=2 * 10**9)
    plan = planner.plan(step, rebalance_to_targets(step))
    check_legs(step, plan)
    assert plan.cost.total * BPS <= 60 * plan.turnover
    assert any("gas" in item.why for item in plan.skipped)


def test_plan_refuses_where_gas_exceeds_its_benefit() -> None:
    step = with_snapshot(two(5_300, 4_700), priority_fee_wei=100 * 10**9)
    with pytest.raises(Refused) as caught:
        planner.plan(step, rebalance_to_targets(step))
    assert any(verdict.guard == "plan_cost" for verdict in caught.value.verdicts)


def test_second_pool_is_used_only_where_worth_its_gas() -> None:
    pools: list[Pool] = [v3_pool(WETH, USDC, 2_000, DEEP), v3_pool(WETH, USDC, 2_000, DEEP, name="twin")]
    cheap = planner.plan(two(5_800, 4_200, pools), rebalance_to_targets(two(5_800, 4_200, pools)))
    assert len(cheap.legs) == 1
    free = with_snapshot(two(9_000_000, 5_000_000, pools, turnover_bps=None), priority_fee_wei=0, gas_price_wei=0)
    assert len(planner.plan(free, rebalance_to_targets(free)).legs) == 2


def test_dust_is_skipped_while_the_rest_is_traded() -> None:
    targets = {"WETH": 4_000, "USDC": 3_000, "DAI": 3_000}
    pools: list[Pool] = [v3_pool(WETH, USDC, 2_000, DEEP), v3_pool(DAI, USDC, 1, DEEP, 100)]
    step = step_input(targets, {"WETH": 4_300, "USDC": 2_704, "DAI": 2_996}, pools=pools)
    plan = planner.plan(step, rebalance_to_targets(step))
    check_legs(step, plan)
    assert {leg.token_out for leg in plan.legs} == {USDC.address}
    assert any(item.subject == "DAI" and "min_trade" in item.why for item in plan.skipped)


def test_small_trade_goes_through_a_single_pool() -> None:
    """12 dollars of LINK over two pools and a hub are less than min_trade in each, and not dust together."""
    values = {"WETH": 10_012, "USDC": 10_000, "LINK": 9_988}
    pools: list[Pool] = [
        v2_pool(WETH, USDC, 2_000, DEEP),
        v3_pool(LINK, WETH, Fraction(15, 2_000), 1_000_000, 3_000, name="one"),
        v3_pool(LINK, WETH, Fraction(15, 2_000), 1_100_000, 3_000, name="two"),
    ]
    step = step_input({"WETH": 3_333, "USDC": 3_334, "LINK": 3_333}, values, PRICES, pools=pools)
    step = wide(step, min_trade=Fraction(10 * 10**6), plan_cost_bps=None)
    plan = planner.plan(step, rebalance_to_targets(step))
    check_legs(step, plan)
    assert [leg.token_out for leg in plan.legs] == [LINK.address]


def test_plan_refuses_a_drift_below_min_trade() -> None:
    step = two(5_004, 4_996)
    with pytest.raises(Refused) as caught:
        planner.plan(step, rebalance_to_targets(step))
    verdict = next(v for v in caught.value.verdicts if v.guard == "min_trade")
    assert not verdict.passed
    assert verdict.measured_text.startswith("4")
    assert verdict.limit == "10 USDC"


def test_exit_ignores_a_used_up_daily_turnover() -> None:
    step = replace(two(9_600, 400), history=history(turnover_24h=Fraction(9_000 * 10**6)))
    out = replace(rebalance_to_targets(step, {"WETH": (0, 0), "USDC": (1, 1)}), is_exit=True)
    plan = planner.plan(step, out)
    check_legs(step, plan)
    assert plan.is_exit
    assert dict(plan.holdings_after)[WETH.address] == 0


def test_balanced_portfolio_has_nothing_to_trade() -> None:
    step = two(5_000, 5_000)
    with raises_code(Refused, "min_trade"):
        planner.plan(step, rebalance_to_targets(step))


def test_reserve_is_neither_spent_nor_counted() -> None:
    step = step_input(None, {"WETH": 5_800, "USDC": 4_200}, reserves={"WETH": 1, "USDC": 100}, depth=DEEP)
    plan = planner.plan(step, rebalance_to_targets(step))
    check_legs(step, plan)
    assert weights_bps(step, plan) == {"WETH": 5_000, "USDC": 5_000}
    after = dict(plan.holdings_after)
    assert (after[WETH.address] - 10**18) * 2_000 * 10**6 == pytest.approx((after[USDC.address] - 100 * 10**6) * 10**18, rel=1e-4)


@pytest.mark.parametrize(
    ("goal_shares", "ends"),
    [
        ({"WETH": ("0.45", "0.55"), "USDC": ("0.45", "0.55")}, (5_499, 5_500)),
        ({"WETH": ("0.5", "0.5"), "USDC": ("0.5", "0.5")}, (5_000, 5_000)),
        ({"WETH": ("0.54", "0.54"), "USDC": ("0.46", "0.46")}, (5_400, 5_400)),
    ],
)
def test_goal_is_a_point_or_the_nearest_edge(goal_shares: dict[str, tuple[str, str]], ends: tuple[int, int]) -> None:
    step = two(5_800, 4_200)
    plan = planner.plan(step, rebalance_to_targets(step, goal_shares))
    check_legs(step, plan)
    assert ends[0] <= weights_bps(step, plan)["WETH"] <= ends[1]


def test_band_goal_moves_only_tokens_outside_to_their_edge() -> None:
    targets = {"WETH": 3_000, "USDC": 3_000, "WBTC": 2_000, "DAI": 2_000}
    pools: list[Pool] = [
        v3_pool(WETH, USDC, 2_000, DEEP),
        v3_pool(WBTC, USDC, 60_000, DEEP),
        v3_pool(DAI, USDC, 1, DEEP, 100),
        v3_pool(WBTC, WETH, 30, 50_000),
    ]
    bands = {"WETH": ("0.27", "0.33"), "USDC": ("0.27", "0.33"), "WBTC": ("0.18", "0.22"), "DAI": ("0.18", "0.22")}
    step = step_input(targets, {"WETH": 3_600, "USDC": 3_000, "WBTC": 1_900, "DAI": 1_500}, pools=pools)
    plan = planner.plan(step, rebalance_to_targets(step, bands))
    check_legs(step, plan)
    after = weights_bps(step, plan)
    assert 3_295 <= after["WETH"] <= 3_300
    assert 1_800 <= after["DAI"] <= 1_805
    assert after["USDC"] == 3_000
    assert after["WBTC"] == 1_900
    short = step_input(targets, {"WETH": 3_200, "USDC": 3_200, "WBTC": 2_100, "DAI": 1_500}, pools=pools)
    plan = planner.plan(short, rebalance_to_targets(short, bands))
    check_legs(short, plan)
    assert 1_800 <= weights_bps(short, plan)["DAI"] <= 1_805
    assert plan.turnover < Fraction(302 * 10**6), "just what DAI lacks"


def test_skipped_names_the_unmoved_counterpart() -> None:
    """USDC would have to grow by 350, less than min_trade, so that 350 of the 900 too much of WETH have no other side."""
    values = {"WETH": 40_900, "USDC": 29_650, "DAI": 19_450, "WBTC": 10_000}
    targets = {"WETH": 4_000, "USDC": 3_000, "DAI": 2_000, "WBTC": 1_000}
    pools = [v2_pool(WETH, USDC, 2_000, DEEP), v2_pool(WETH, DAI, 2_000, DEEP), v2_pool(WBTC, WETH, 30, 20_000)]
    step = wide(step_input(targets, values, PRICES, pools=pools), min_trade=Fraction(400 * 10**6))
    plan = planner.plan(step, rebalance_to_targets(step))
    check_legs(step, plan)
    reason_by_subject = {item.subject: item.why for item in plan.skipped}
    assert "limits.min_trade" in reason_by_subject["USDC"]
    assert reason_by_subject["WETH"].startswith("349")
    assert mentions(reason_by_subject["WETH"], ": USDC")
    assert {leg.token_out for leg in plan.legs} == {DAI.address}


FLOOR_REASON = DropReason(DropCause.BELOW_FLOOR, "pays less than the floor set by the reference price")
GAS_REASON = DropReason(DropCause.GAS, DropCause.GAS.value)


@pytest.mark.parametrize(
    ("drop_reasons", "why"),
    [
        ((FLOOR_REASON,) * 2, "no pool of it is used: pays less than the floor set by the reference price"),
        (
            (FLOOR_REASON, GAS_REASON),
            "no pool of it is used: gas costs more than it saves; pays less than the floor set by the reference price",
        ),
        ((GAS_REASON,) * 2, "plan_cost allows"),
    ],
    ids=["floor", "floor and gas", "gas"],
)
def test_skipped_names_cost_only_where_it_binds(drop_reasons: tuple[DropReason, ...], why: str) -> None:
    step = two(60_000, 40_000, [v2_pool(WETH, USDC, 2_000, DEEP), v2_pool(WETH, USDC, 2_000, DEEP, "second")], plan_cost_bps=1)
    problem = build_problem(step, reference_prices(step))
    objective = objective_for_goal(problem, rebalance_to_targets(step).goal)
    graph = build_pool_graph(problem, float(problem.total))
    pools = {edge.pool_address for edge in graph.pool_edges}
    fixed_point = FixedPoint(PlanDraft(), dropped_pools=dict(zip(sorted(pools), drop_reasons, strict=True)))
    skips = {item.subject: item.why for item in skipped_items(step, graph, objective, fixed_point, "", None)}
    assert skips["WETH"].partition(" off target: ")[2].startswith(why)
