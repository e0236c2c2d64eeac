"""Exact integers leg after leg, and the rounds around them: bounds at the unit, chains that are too long, moves that shrink to dust."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest

from agent.amm import pools as amm
from agent.model import Plan, Pool, PriceSource, StepInput
from agent.planning import planner
from agent.planning.rounding import PlanDraft, RouteSimulator, run_routes
from agent.planning.routes import MAX_LEGS, Route
from tests.support.builders import step_input, token, v2_pool, v3_pool, with_limits
from tests.support.constants import ETHER
from tests.support.planning_worlds import (
    DEEP,
    PRICES,
    USDC,
    WETH,
    any_problem_with_gas,
    assert_plan_refused,
    checked_plan,
    gap_of,
    problem_of,
    reason_by_subject,
    rebalance_to_targets,
    two,
    wide,
)


def route_simulator(step: StepInput) -> RouteSimulator:
    return RouteSimulator(problem_of(step))


def with_spend_cap(step: StepInput, cap_raw: int) -> StepInput:
    """Return the step in which so much of WETH was approved."""
    return replace(step, progress=replace(step.progress, spend_caps=((WETH.address, cap_raw),)))


def sold_raw(plan: Plan) -> int:
    return sum(leg.amount_in_raw for leg in plan.legs)


def taken_raw(simulator: RouteSimulator, pool: Pool, raw: int, of: str = WETH.address) -> int:
    """Base units that one pool has taken of a wanted amount."""
    return simulator.run(Route(((pool.address, of),)), [raw])[0]


def test_route_takes_no_more_than_is_spendable() -> None:
    pool = v2_pool(WETH, USDC, 2_000, DEEP)
    simulator = route_simulator(step_input(None, {"WETH": 20_000, "USDC": 20_000}, reserves={"WETH": 3}, pools=[pool]))
    assert taken_raw(simulator, pool, 100 * ETHER) == 10 * ETHER
    assert taken_raw(simulator, pool, ETHER) == 0


def test_pool_is_filled_to_its_impact_bound_over_legs() -> None:
    pool = v2_pool(WETH, USDC, 2_000, 1_000_000)
    step = with_limits(two(100_000, 100_000, [pool]), pool_min_value=None)
    room = pool.max_in(WETH.address, 100)
    simulator = route_simulator(step)
    first = taken_raw(simulator, pool, room // 3)
    rest = taken_raw(simulator, pool, room)
    assert first == room // 3
    assert room - 10 <= first + rest <= room
    assert pool.address in simulator.draft.full_pools
    assert amm.price_move_bps(pool, simulator.current_pools[pool.address], WETH.address) == 100
    assert taken_raw(simulator, pool, ETHER) == 0


def test_pool_is_filled_to_the_end_of_known_ticks() -> None:
    wide_pool = v3_pool(WETH, USDC, 2_000, DEEP)
    pool = replace(wide_pool, known_from_tick=wide_pool.tick - 7, known_to_tick=wide_pool.tick + 7, ticks=())
    simulator = route_simulator(with_limits(two(200_000, 200_000, [pool]), price_impact_bps=None, pool_min_value=None))
    taken_raw_total = sum(taken_raw(simulator, pool, 7 * ETHER + part) for part in range(20))
    room = pool.max_in(WETH.address, 9_999)
    assert room - 100 <= taken_raw_total <= room < 100 * ETHER


DEEP_POOL = v2_pool(WETH, USDC, 2_000, DEEP)
SMALL_POOL = v2_pool(WETH, USDC, 2_000, 100_000)
LARGE_POOL = v3_pool(WETH, USDC, 2_000, DEEP)


def test_pool_sold_into_is_not_bought_from() -> None:
    simulator = route_simulator(two(20_000, 20_000, [DEEP_POOL]))
    assert taken_raw(simulator, DEEP_POOL, ETHER) == ETHER
    assert taken_raw(simulator, DEEP_POOL, 10**6, USDC.address) == 0


def test_amount_that_buys_nothing_is_not_spent() -> None:
    simulator = route_simulator(two(20_000, 20_000, [DEEP_POOL]))
    assert [taken_raw(simulator, DEEP_POOL, raw) for raw in (1_000, 0)] == [0, 0]
    assert simulator.draft.legs == []


def test_chain_shrinks_to_its_narrowest_pool() -> None:
    dai = token("DAI")
    first = v3_pool(WETH, dai, 2_000, DEEP)
    narrow = v2_pool(dai, USDC, 1, 100_000)
    step = step_input(None, {"WETH": 50_000, "USDC": 50_000}, hubs=("DAI",), pools=[first, narrow], kinds=(PriceSource.SPOT,))
    simulator = route_simulator(with_limits(step, pool_min_value=None))
    taken_raw_total = simulator.run(Route(((first.address, WETH.address), (narrow.address, dai.address))), [10 * ETHER])[0]
    into, out_of = simulator.draft.legs
    assert 0 < taken_raw_total == into.amount_in_raw < ETHER
    assert into.amount_out_raw == out_of.amount_in_raw
    assert narrow.max_in(dai.address, 100) * 999 // 1_000 < out_of.amount_in_raw <= narrow.max_in(dai.address, 100)


def run_five_each(*pools: Pool, held_usd: int = 100_000, leaves: bool = False) -> PlanDraft:
    """Run five WETH through each of these pools."""
    problem = problem_of(with_limits(two(held_usd, 100_000, [SMALL_POOL, LARGE_POOL]), pool_min_value=None))
    problem = replace(problem, leaving_tokens=frozenset({WETH.address} if leaves else ()))
    routes = [Route(((pool.address, WETH.address),), 5 * ETHER) for pool in pools]
    return run_routes(problem, routes, lambda draft: float(draft.sold_raw[WETH.address]))


def test_remainder_goes_to_the_next_route_of_the_pair() -> None:
    draft = run_five_each(SMALL_POOL, LARGE_POOL)
    assert draft.sold_raw == {WETH.address: 10 * ETHER}
    assert draft.legs[0].amount_in_raw == SMALL_POOL.max_in(WETH.address, 100)


@pytest.mark.parametrize(
    ("leaves", "held_usd", "is_whole"),
    [
        pytest.param(True, 20_000, True, id="leaving"),
        pytest.param(True, 100_000, False, id="leaving, more than routes take"),
        pytest.param(False, 20_000, False, id="staying"),
    ],
)
def test_remainder_of_a_leaving_token_goes_to_an_earlier_route(leaves: bool, held_usd: int, is_whole: bool) -> None:
    draft = run_five_each(LARGE_POOL, SMALL_POOL, held_usd=held_usd, leaves=leaves)
    bound = SMALL_POOL.max_in(WETH.address, 100)
    assert draft.sold_raw[WETH.address] == (10 * ETHER if is_whole else 5 * ETHER + bound)
    assert [leg.amount_in_raw <= bound for leg in draft.legs] == [False, True]


def test_routes_run_alone_where_merging_leaves_a_part_unsold() -> None:
    step = any_problem_with_gas(10_769)
    assert gap_of(planner.plan(step, rebalance_to_targets(step))) < 1, "with merged routes only it is 955"


def test_move_that_buys_below_min_trade_is_refused() -> None:
    step = with_limits(step_input(None, {"WETH": Fraction("5010.01"), "USDC": Fraction("4989.99")}, depth=DEEP), plan_cost_bps=None)
    assert_plan_refused(step, "", "less than")


def test_overlong_chains_give_way_to_a_hub() -> None:
    line = [token(symbol) for symbol in ("USDC", "WETH", "WBTC", "DAI", "LINK", "CRV", "SNX", "LDO", "MKR", "UNI")]
    hub = token("AAVE")
    worth = {**PRICES, "USDC": 1, "WETH": 2_000, "WBTC": 60_000, "DAI": 1}
    unit = {t.symbol: Fraction(worth[t.symbol]) for t in (*line, hub)}

    def pool(a: str, b: str, fee_pips: int) -> Pool:
        return v3_pool(token(a), token(b), unit[a] / unit[b], DEEP / unit[b], fee_pips)

    pools = [pool(a.symbol, b.symbol, 100) for a, b in pairwise(line)]
    pools += [pool("USDC", "AAVE", 3_000), pool("AAVE", "UNI", 3_000)]
    targets = dict.fromkeys([t.symbol for t in line], 900) | {"AAVE": 1_000}
    values = dict.fromkeys([t.symbol for t in line], 8_000) | {"USDC": 26_000, "UNI": 0, "AAVE": 10_000}
    plan = checked_plan(wide(step_input(targets, values, PRICES, pools=pools)))
    assert len(line) - 1 > MAX_LEGS
    assert {leg.token_in for leg in plan.legs if leg.token_out == token("UNI").address} == {hub.address}
    assert dict(plan.weights_after_bps)[token("UNI").address] >= 890


def test_spend_cap_bounds_the_legs_and_names_the_rest() -> None:
    plan = checked_plan(with_spend_cap(two(5_800, 4_200), ETHER // 5))
    assert sold_raw(plan) == ETHER // 5
    assert all("approved more" in reason_by_subject(plan)[symbol] for symbol in ("WETH", "USDC"))


def three_token_step(worth_weth: int) -> StepInput:
    """WETH to be spread over two others, through one pool each."""
    pools: list[Pool] = [v2_pool(WETH, USDC, 2_000, DEEP), v2_pool(WETH, token("DAI"), 2_000, DEEP)]
    targets = {"WETH": 4_000, "USDC": 3_000, "DAI": 3_000}
    return wide(step_input(targets, {"WETH": worth_weth, "USDC": 15_000, "DAI": 15_000}, pools=pools))


def test_spend_cap_shortens_both_buyers_alike() -> None:
    """The market rose by 3 % after 8 WETH were approved: neither buyer is served before the other, and none too much."""
    plan = checked_plan(with_spend_cap(three_token_step(61_800), 8 * ETHER))
    assert sold_raw(plan) == 8 * ETHER
    weight_by_token = dict(plan.weights_after_bps)
    assert abs(weight_by_token[USDC.address] - weight_by_token[token("DAI").address]) <= 1
    assert max(weight_by_token[USDC.address], weight_by_token[token("DAI").address]) <= 3_000


def test_spend_cap_is_not_shrunk_again_by_turnover() -> None:
    """What was approved under the limit may be spent to the last unit: the second plan of the step is the first one."""
    step = with_limits(three_token_step(60_000), turnover_bps=500)
    first = planner.plan(step, rebalance_to_targets(step))
    second = planner.plan(with_spend_cap(step, sold_raw(first)), rebalance_to_targets(step))
    assert sold_raw(second) == sold_raw(first)
    assert [leg.pool for leg in second.legs] == [leg.pool for leg in first.legs]
    assert abs(second.turnover - first.turnover) * 10**6 <= first.turnover
    assert "limits.turnover" in str(second.skipped)


def test_spend_cap_gives_nothing_to_a_buyer_without_route() -> None:
    """DAI costs more than plan_cost: the first plan sells for USDC alone, and so does the one after its approval."""
    step = three_token_step(60_000)
    pools = (step.snapshot.pools[0], v2_pool(WETH, token("DAI"), 1_900, DEEP))
    step = with_limits(replace(step, snapshot=replace(step.snapshot, pools=pools)), plan_cost_bps=60)
    first = planner.plan(step, rebalance_to_targets(step))
    assert {leg.token_out for leg in first.legs} == {USDC.address}
    again = planner.plan(with_spend_cap(step, sold_raw(first)), rebalance_to_targets(step))
    assert replace(again, gap=first.gap) == first, "the cap may make the bound of the gap lower, and nothing else"
