"""Routes that share their way to the end are one: fewer legs, the same trades, nothing left in the router."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.model import LegPlace, StepInput
from agent.planning.gas import GasInputs, leg_gas_units, plan_gas_units
from agent.planning.planner import plan
from agent.planning.problem import build_problem
from agent.planning.rounding import RouteSimulator
from agent.planning.routes import Route, merge_routes, merged_legs
from agent.reference import reference_prices
from tests.support.builders import step_input, token, v2_pool, v3_pool, with_limits, with_snapshot
from tests.support.planning_worlds import DEEP, PRICES, USDC, WETH, check_legs, rebalance_to_targets
from tests.support.signing import leg

LINK, WBTC, UNI = token("LINK"), token("WBTC"), token("UNI")
ONE = 10**18
GWEI = 10**9


def hub_world(base_fee_wei: int = 0) -> StepInput:
    """LINK, WBTC and UNI trade with WETH alone, and USDC with WETH: everything that is sold goes through one pool at the end."""
    pools = [
        v2_pool(LINK, WETH, 15 / 2_000, DEEP),
        v3_pool(WBTC, WETH, 30, DEEP),
        v2_pool(UNI, WETH, 10 / 2_000, DEEP),
        v3_pool(WETH, USDC, 2_000, DEEP, fee_pips=500),
    ]
    held = {"LINK": 40_000, "WBTC": 30_000, "UNI": 20_000, "USDC": 10_000}
    targets = {"LINK": 1_000, "WBTC": 1_000, "UNI": 1_000, "USDC": 7_000}
    step = with_limits(step_input(targets, held, PRICES | {"UNI": 10}, numeraire="USDC", pools=pools), turnover_bps=None, plan_cost_bps=200)
    step = replace(step, portfolio=replace(step.portfolio, hubs=(WETH,)))
    return with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=base_fee_wei))


def test_chains_with_the_same_last_hops_share_them_and_others_stay_apart() -> None:
    a = Route((("p", "A"), ("q", "H"), ("r", "G")), 1)
    b = Route((("s", "B"), ("q", "H"), ("r", "G")), 2)
    c = Route((("t", "C"), ("r", "G")), 3)
    begins_at_the_hub = Route((("r", "G"),), 4)
    alone = Route((("u", "A"), ("v", "H")), 5)
    ab = Route((("q", "H"),), 0, (Route((("p", "A"),), 1), Route((("s", "B"),), 2)))
    together = Route((("r", "G"),), 0, (ab, Route((("t", "C"),), 3)))
    assert merge_routes([a, b, c, begins_at_the_hub, alone]) == [begins_at_the_hub, together, alone]
    assert [source.amount_raw for source in together.sources] == [1, 2, 3]
    assert merge_routes([a, a]) == [replace(a, amount_raw=2)], "twice the same way is once the sum"


def test_legs_are_counted_as_they_will_run() -> None:
    chains = [[("p", 0), ("q", 1)], [("r", 2), ("q", 1)], [("q", 1)], [("p", 0), ("s", 1)]]
    p, q, r, s = ("p", 0), ("q", 1), ("r", 2), ("s", 1)
    legs = merged_legs(chains)
    assert legs.counts == {p: 2, q: 2, r: 1, s: 1}
    assert legs.dependents == {p: {s: 1}, q: {p: 1, r: 1}, s: {p: 1}}


def test_legs_that_only_chains_through_an_edge_need_are_known_along_the_whole_chain() -> None:
    a, b, c, d = ("a", 0), ("b", 1), ("c", 2), ("d", 2)
    legs = merged_legs([[a, b, c], [a, b, d], [b, d]])
    assert legs.counts == {a: 2, b: 3, c: 1, d: 1}
    assert legs.dependents == {a: {b: 2, c: 1}, b: {a: 2, c: 1, d: 1}, c: {a: 1, b: 1}, d: {a: 1, b: 2}}


def test_three_tokens_sold_through_one_hub_leave_it_in_one_leg() -> None:
    step = hub_world()
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    assert [(leg.token_out == WETH.address, leg.sink) for leg in found.legs] == [(True, LegPlace.ROUTER)] * 3 + [(False, LegPlace.WALLET)]
    assert found.legs[-1].amount_in_raw == sum(leg.amount_out_raw for leg in found.legs[:-1])
    assert found.gap_bps is not None
    assert found.gap_bps < 1


def test_what_gathers_costs_less_gas_than_chains_of_their_own() -> None:
    step = hub_world(10 * GWEI)
    found = plan(step, rebalance_to_targets(step))
    assert len(found.legs) == 4
    apart = []
    for chain in found.legs[:-1]:
        apart += [chain, replace(found.legs[-1], amount_in_raw=chain.amount_out_raw)]
    problem = build_problem(step, reference_prices(step))
    swaps = sum(leg_gas_units(problem.pools[leg.pool], 0, router_gas=problem.gas_inputs.router_gas) for leg in apart)
    assert found.gas_units < plan_gas_units(problem.gas_inputs, apart, swaps) - 100_000


def test_where_the_last_pool_takes_less_every_source_gives_less_and_nothing_stays_behind() -> None:
    step = hub_world()
    step = with_limits(step, price_impact_bps=10, pool_min_value=None)
    narrow = v3_pool(WETH, USDC, 2_000, 1_000_000, fee_pips=500)
    pools = tuple(narrow if USDC.address in (pool.token0, pool.token1) else pool for pool in step.snapshot.pools)
    step = with_snapshot(step, pools=pools)
    walk = RouteSimulator(build_problem(step, reference_prices(step)))
    hops = [(pool.address, pool.token1 if pool.token0 == WETH.address else pool.token0) for pool in pools if pool is not narrow]
    route = Route(((narrow.address, WETH.address),), 0, tuple(Route((hop,)) for hop in hops))
    wanted = [walk.spendable(token_in) for _, token_in in hops]
    taken = walk.run(route, wanted)
    assert all(0 < got < asked for got, asked in zip(taken, wanted, strict=True))
    legs = walk.draft.legs
    assert legs[-1].amount_in_raw == sum(leg.amount_out_raw for leg in legs[:-1])
    room = narrow.max_in(WETH.address, 10)
    assert room * 99 // 100 < legs[-1].amount_in_raw <= room
    assert narrow.address in walk.draft.full_pools


def test_a_feed_that_has_nothing_is_left_out() -> None:
    step = hub_world()
    walk = RouteSimulator(build_problem(step, reference_prices(step)))
    first, second, last = (step.snapshot.pools[at] for at in (0, 1, 3))
    route = Route(((last.address, WETH.address),), 0, (Route(((first.address, LINK.address),)), Route(((second.address, WBTC.address),))))
    assert walk.run(route, [ONE, 0]) == [ONE, 0]
    assert [leg.pool for leg in walk.draft.legs] == [first.address, last.address]
    assert walk.run(route, [0, 0]) == [0, 0]


@pytest.mark.parametrize(("swap_units", "is_capped"), [(0, True), (10**6, False)])
def test_refunds_are_at_most_a_fifth_of_the_gas(swap_units: int, is_capped: bool) -> None:
    """EIP-3529. Refunded are the allowance that is used up, the balance that is sold, and the router's balances: between two
    pools, and before the sweep of what is bought."""
    link = token("LINK").address
    legs = [
        leg(WETH.address, link, 10**18, 10**18, sink=LegPlace.ROUTER),
        leg(link, USDC.address, 10**18, 10**9, source=LegPlace.ROUTER),
    ]
    balances = {WETH.address: 10**18, USDC.address: 1}
    facts = GasInputs(balances=balances, allowances={WETH.address: 10**18})
    units = 24_000 + swap_units + 3 * 2_500 + 2 * 4_900 + 4_900 + 22_100
    units += 22_100 + 9_000
    refund = 4_800 + 4_800 + 19_900 + 19_900
    assert (refund > units // 5) is is_capped
    assert plan_gas_units(facts, legs, swap_units) == units - min(refund, units // 5)
