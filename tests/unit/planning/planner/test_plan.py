"""Plans: the goal is hit with all costs in, within every bound, and what is left undone says why."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.errors import Refused
from agent.model import LegPlace, Pool
from agent.planning.plan_builder import skipped_items
from agent.planning.planner import plan
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


def test_two_assets_meet_their_targets_with_costs_in() -> None:
    step = two(5_800, 4_200)
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    assert weights_bps(step, found) == {"WETH": 5_000, "USDC": 5_000}
    assert found.block == step.snapshot.head.number
    assert found.expires_block == found.block + step.execution.expire_blocks
    assert found.gap_bps is not None
    assert found.gap_bps < Fraction(1, 1_000)
    assert found.verdicts == ()
    assert found.skipped == ()


def test_five_assets_over_shared_pools_and_a_hub_end_within_a_few_basis_points() -> None:
    values = {"WETH": 42_000, "USDC": 15_000, "WBTC": 26_000, "DAI": 7_000, "LINK": 10_000}
    step = wide(step_input(FIVE, values, PRICES, pools=five_pools()))
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    after = weights_bps(step, found)
    assert all(abs(after[symbol] - FIVE[symbol]) <= 2 for symbol in FIVE)
    assert any(leg.source is LegPlace.ROUTER for leg in found.legs), "WBTC reaches LINK through WETH only"


def test_everything_in_one_token_is_spread_over_all() -> None:
    step = wide(step_input(FIVE, {"DAI": 50_000}, PRICES, pools=five_pools()))
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    after = weights_bps(step, found)
    assert all(abs(after[symbol] - FIVE[symbol]) <= 10 for symbol in FIVE)


def test_a_single_asset_outside_is_sold_into_all_the_others() -> None:
    values = {"WETH": 36_000, "USDC": 18_500, "WBTC": 18_000, "DAI": 9_000, "LINK": 18_500}
    step = wide(step_input(FIVE, values, PRICES, pools=five_pools()))
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    assert {leg.token_in for leg in found.legs if leg.source is LegPlace.WALLET} == {WETH.address}
    assert all(abs(weights_bps(step, found)[symbol] - FIVE[symbol]) <= 2 for symbol in FIVE)


def test_cost_is_split_so_that_it_adds_up_to_the_value_lost() -> None:
    values = {"WETH": 42_000, "USDC": 15_000, "WBTC": 26_000, "DAI": 7_000, "LINK": 10_000}
    step = wide(step_input(FIVE, values, PRICES, pools=five_pools()))
    found = plan(step, rebalance_to_targets(step))
    assert flow_value(step, found) == -(found.cost.fees + found.cost.impact + found.cost.skew)
    assert found.cost.fees > 0
    assert found.cost.impact > 0
    gas_price = Fraction(11, 10) * 10**9
    assert found.cost.gas == found.gas_units * gas_price * Fraction(2_000 * 10**6, 10**18)
    volume = sum(leg.amount_in_raw * Fraction(1) for leg in found.legs if leg.token_in == USDC.address)
    assert found.gross_volume > found.turnover > 0
    assert found.gross_volume > volume


def test_a_trade_is_split_over_the_pools_of_a_pair_so_that_their_last_units_pay_alike() -> None:
    pools: list[Pool] = [v2_pool(WETH, USDC, 2_000, 1_000_000), v3_pool(WETH, USDC, 2_000, 3_000_000, 3_000)]
    step = wide(two(45_000, 25_000, pools), pool_min_value=None)
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    small, large = sorted(found.legs, key=lambda leg: leg.amount_in_raw)
    assert Fraction(large.amount_in_raw, small.amount_in_raw) == pytest.approx(3, rel=0.05)
    assert abs(small.impact_bps - large.impact_bps) <= 2


def test_the_bound_of_each_pool_is_kept_and_the_rest_explained() -> None:
    step = wide(two(90_000, 10_000, [v2_pool(WETH, USDC, 2_000, 1_000_000)]))
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    assert found.legs[0].impact_bps == 100
    left = {item.subject: item.why for item in found.skipped}
    assert "price_impact" in left["WETH"]
    assert found.legs[0].pool in left["WETH"]
    assert weights_bps(step, found)["WETH"] > 8_400


def test_several_legs_through_one_pool_share_its_bound() -> None:
    pools: list[Pool] = [v2_pool(WETH, USDC, 2_000, 5_000_000), v3_pool(DAI, USDC, 1, DEEP, 100), v3_pool(LINK, USDC, 15, DEEP)]
    targets = {"WETH": 2_500, "USDC": 2_500, "DAI": 2_500, "LINK": 2_500}
    step = wide(step_input(targets, {"WETH": 55_000, "USDC": 18_000}, PRICES, pools=pools))
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    shared = [leg for leg in found.legs if leg.pool == pools[0].address]
    assert len(shared) > 1
    assert 95 <= sum(leg.impact_bps for leg in shared) <= 100 + len(shared), "each leg's own move, rounded up"
    assert any("price_impact" in item.why for item in found.skipped)


def test_turnover_of_one_plan_is_bounded_and_the_rest_said() -> None:
    step = two(9_600, 400)
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    assert Fraction(2_990) * 10**6 < found.turnover <= Fraction(3_000) * 10**6
    assert any("limits.turnover allows no more" in item.why for item in found.skipped)


def test_what_the_day_has_left_bounds_the_plan_and_nothing_left_refuses() -> None:
    step = replace(two(9_600, 400), history=history(turnover_24h=Fraction(5_000 * 10**6)))
    found = plan(step, rebalance_to_targets(step))
    assert Fraction(995) * 10**6 < found.turnover <= Fraction(1_000) * 10**6
    assert any("limits.daily_turnover" in item.why for item in found.skipped)
    spent = replace(step, history=history(turnover_24h=Fraction(6_000 * 10**6)))
    with raises_code(Refused, "daily_turnover"):
        plan(spent, rebalance_to_targets(spent))


def test_where_the_market_asks_more_than_plan_cost_the_drift_stays() -> None:
    pools: list[Pool] = [v3_pool(WETH, USDC, 2_000, DEEP, 500), v3_pool(LINK, USDC, 15, DEEP, 10_000)]
    step = with_limits(
        step_input({"WETH": 4_000, "USDC": 3_000, "LINK": 3_000}, {"WETH": 46_000, "USDC": 26_000, "LINK": 28_000}, PRICES, pools=pools),
        plan_cost_bps=50,
    )
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    assert {leg.pool for leg in found.legs} == {pools[0].address}
    assert mentions({item.subject: item.why for item in found.skipped}["LINK"], "plan_cost allows", "fees")
    dear = with_limits(step, plan_cost_bps=4)
    with raises_code(Refused, "plan_cost", "4 bps"):
        plan(dear, rebalance_to_targets(dear))


def test_cost_with_gas_never_exceeds_plan_cost_of_what_is_moved() -> None:
    values = {"WETH": 1_300, "USDC": 500, "WBTC": 800, "DAI": 200, "LINK": 200}
    step = wide(step_input(FIVE, values, PRICES, pools=five_pools()), plan_cost_bps=60, min_trade=None, pool_min_value=None)
    step = with_snapshot(step, priority_fee_wei=2 * 10**9)
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    assert found.cost.total * BPS <= 60 * found.turnover
    assert any("gas" in item.why for item in found.skipped)


def test_gas_that_exceeds_what_a_plan_brings_refuses_it() -> None:
    step = with_snapshot(two(5_300, 4_700), priority_fee_wei=100 * 10**9)
    with pytest.raises(Refused) as caught:
        plan(step, rebalance_to_targets(step))
    assert any(verdict.guard == "plan_cost" for verdict in caught.value.verdicts)


def test_a_second_pool_is_not_used_where_its_gas_exceeds_what_it_brings() -> None:
    pools: list[Pool] = [v3_pool(WETH, USDC, 2_000, DEEP), v3_pool(WETH, USDC, 2_000, DEEP, name="twin")]
    cheap = plan(two(5_800, 4_200, pools), rebalance_to_targets(two(5_800, 4_200, pools)))
    assert len(cheap.legs) == 1
    free = with_snapshot(two(9_000_000, 5_000_000, pools, turnover_bps=None), priority_fee_wei=0, gas_price_wei=0)
    assert len(plan(free, rebalance_to_targets(free)).legs) == 2


def test_dust_is_dropped_and_said_while_the_rest_is_traded() -> None:
    targets = {"WETH": 4_000, "USDC": 3_000, "DAI": 3_000}
    pools: list[Pool] = [v3_pool(WETH, USDC, 2_000, DEEP), v3_pool(DAI, USDC, 1, DEEP, 100)]
    step = step_input(targets, {"WETH": 4_300, "USDC": 2_704, "DAI": 2_996}, pools=pools)
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    assert {leg.token_out for leg in found.legs} == {USDC.address}
    assert any(item.subject == "DAI" and "min_trade" in item.why for item in found.skipped)


def test_a_small_trade_that_several_pools_would_share_is_made_in_one() -> None:
    """12 dollars of LINK over two pools and a hub are less than min_trade in each, and not dust together."""
    values = {"WETH": 10_012, "USDC": 10_000, "LINK": 9_988}
    pools: list[Pool] = [
        v2_pool(WETH, USDC, 2_000, DEEP),
        v3_pool(LINK, WETH, Fraction(15, 2_000), 1_000_000, 3_000, name="one"),
        v3_pool(LINK, WETH, Fraction(15, 2_000), 1_100_000, 3_000, name="two"),
    ]
    step = step_input({"WETH": 3_333, "USDC": 3_334, "LINK": 3_333}, values, PRICES, pools=pools)
    step = wide(step, min_trade=Fraction(10 * 10**6), plan_cost_bps=None)
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    assert [leg.token_out for leg in found.legs] == [LINK.address]


def test_a_drift_that_is_all_dust_refuses_with_the_limit() -> None:
    step = two(5_004, 4_996)
    with pytest.raises(Refused) as caught:
        plan(step, rebalance_to_targets(step))
    verdict = next(v for v in caught.value.verdicts if v.guard == "min_trade")
    assert not verdict.passed
    assert verdict.measured_text.startswith("4")
    assert verdict.limit == "10 USDC"


def test_an_exit_is_planned_whole_though_the_day_s_turnover_is_used_up() -> None:
    step = replace(two(9_600, 400), history=history(turnover_24h=Fraction(9_000 * 10**6)))
    out = replace(rebalance_to_targets(step, {"WETH": (0, 0), "USDC": (1, 1)}), is_exit=True)
    found = plan(step, out)
    check_legs(step, found)
    assert found.is_exit
    assert dict(found.holdings_after)[WETH.address] == 0


def test_a_balanced_portfolio_has_nothing_to_trade() -> None:
    step = two(5_000, 5_000)
    with raises_code(Refused, "min_trade"):
        plan(step, rebalance_to_targets(step))


def test_a_reserve_is_neither_spent_nor_counted() -> None:
    step = step_input(None, {"WETH": 5_800, "USDC": 4_200}, reserves={"WETH": 1, "USDC": 100}, depth=DEEP)
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    assert weights_bps(step, found) == {"WETH": 5_000, "USDC": 5_000}
    after = dict(found.holdings_after)
    assert (after[WETH.address] - 10**18) * 2_000 * 10**6 == pytest.approx((after[USDC.address] - 100 * 10**6) * 10**18, rel=1e-4)


@pytest.mark.parametrize(
    ("wanted", "ends"),
    [
        ({"WETH": ("0.45", "0.55"), "USDC": ("0.45", "0.55")}, (5_499, 5_500)),
        ({"WETH": ("0.5", "0.5"), "USDC": ("0.5", "0.5")}, (5_000, 5_000)),
        ({"WETH": ("0.54", "0.54"), "USDC": ("0.46", "0.46")}, (5_400, 5_400)),
    ],
)
def test_a_goal_is_a_point_or_the_nearest_edge(wanted: dict[str, tuple[str, str]], ends: tuple[int, int]) -> None:
    step = two(5_800, 4_200)
    found = plan(step, rebalance_to_targets(step, wanted))
    check_legs(step, found)
    assert ends[0] <= weights_bps(step, found)["WETH"] <= ends[1]


def test_a_band_moves_outside_tokens_to_their_edge_and_no_inside_token_twice() -> None:
    targets = {"WETH": 3_000, "USDC": 3_000, "WBTC": 2_000, "DAI": 2_000}
    pools: list[Pool] = [
        v3_pool(WETH, USDC, 2_000, DEEP),
        v3_pool(WBTC, USDC, 60_000, DEEP),
        v3_pool(DAI, USDC, 1, DEEP, 100),
        v3_pool(WBTC, WETH, 30, 50_000),
    ]
    bands = {"WETH": ("0.27", "0.33"), "USDC": ("0.27", "0.33"), "WBTC": ("0.18", "0.22"), "DAI": ("0.18", "0.22")}
    step = step_input(targets, {"WETH": 3_600, "USDC": 3_000, "WBTC": 1_900, "DAI": 1_500}, pools=pools)
    found = plan(step, rebalance_to_targets(step, bands))
    check_legs(step, found)
    after = weights_bps(step, found)
    assert 3_295 <= after["WETH"] <= 3_300
    assert 1_800 <= after["DAI"] <= 1_805
    assert after["USDC"] == 3_000
    assert after["WBTC"] == 1_900
    short = step_input(targets, {"WETH": 3_200, "USDC": 3_200, "WBTC": 2_100, "DAI": 1_500}, pools=pools)
    found = plan(short, rebalance_to_targets(short, bands))
    check_legs(short, found)
    assert 1_800 <= weights_bps(short, found)["DAI"] <= 1_805
    assert found.turnover < Fraction(302 * 10**6), "just what DAI lacks"


def test_what_is_left_because_another_token_stays_still_names_that_token() -> None:
    """USDC would have to grow by 350, less than min_trade, so that 350 of the 900 too much of WETH have no other side."""
    values = {"WETH": 40_900, "USDC": 29_650, "DAI": 19_450, "WBTC": 10_000}
    targets = {"WETH": 4_000, "USDC": 3_000, "DAI": 2_000, "WBTC": 1_000}
    pools = [v2_pool(WETH, USDC, 2_000, DEEP), v2_pool(WETH, DAI, 2_000, DEEP), v2_pool(WBTC, WETH, 30, 20_000)]
    step = wide(step_input(targets, values, PRICES, pools=pools), min_trade=Fraction(400 * 10**6))
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    left = {item.subject: item.why for item in found.skipped}
    assert "limits.min_trade" in left["USDC"]
    assert left["WETH"].startswith("349")
    assert mentions(left["WETH"], ": USDC")
    assert {leg.token_out for leg in found.legs} == {DAI.address}


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
def test_skipped__cost_is_named_only_where_it_keeps_a_token_off(drop_reasons: tuple[DropReason, ...], why: str) -> None:
    step = two(60_000, 40_000, [v2_pool(WETH, USDC, 2_000, DEEP), v2_pool(WETH, USDC, 2_000, DEEP, "second")], plan_cost_bps=1)
    problem = build_problem(step, reference_prices(step))
    objective = objective_for_goal(problem, rebalance_to_targets(step).goal)
    graph = build_pool_graph(problem, float(problem.total))
    pools = {edge.pool_address for edge in graph.pool_edges}
    fixed_point = FixedPoint(PlanDraft(), dropped_pools=dict(zip(sorted(pools), drop_reasons, strict=True)))
    skips = {item.subject: item.why for item in skipped_items(step, graph, objective, fixed_point, "", None)}
    assert skips["WETH"].partition(" off target: ")[2].startswith(why)
