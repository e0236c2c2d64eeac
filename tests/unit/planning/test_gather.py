"""Routes that share their way to the end are one: fewer legs, the same trades, nothing left in the router."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.model import LegPlace, StepInput
from agent.planning import planner
from agent.planning.gas import GasInputs, leg_gas_units, plan_gas_units
from agent.planning.problem import build_problem
from agent.planning.rounding import RouteSimulator
from agent.planning.routes import Route, merge_routes, merged_legs
from agent.reference import reference_prices
from tests.support.builders import step_input, token, v2_pool, v3_pool, with_limits, with_snapshot
from tests.support.constants import ETHER, GWEI
from tests.support.planning_worlds import DEEP, PRICES, USDC, WETH, checked_plan, gap_of, rebalance_to_targets
from tests.support.signing import leg
from tests.support.tokens import LINK, WBTC

UNI = token("UNI")


def step_with_hub(base_fee_wei: int = 0) -> StepInput:
    """LINK, WBTC and UNI trade with WETH alone, and USDC with WETH: everything that is sold goes through one pool at the end."""
    pools = [
        v2_pool(LINK, WETH, 15 / 2_000, DEEP),
        v3_pool(WBTC, WETH, 30, DEEP),
        v2_pool(UNI, WETH, 10 / 2_000, DEEP),
        v3_pool(WETH, USDC, 2_000, DEEP, fee_pips=500),
    ]
    values = {"LINK": 40_000, "WBTC": 30_000, "UNI": 20_000, "USDC": 10_000}
    targets = {"LINK": 1_000, "WBTC": 1_000, "UNI": 1_000, "USDC": 7_000}
    step = with_limits(
        step_input(targets, values, PRICES | {"UNI": 10}, numeraire="USDC", pools=pools), turnover_bps=None, plan_cost_bps=200
    )
    step = replace(step, portfolio=replace(step.portfolio, hubs=(WETH,)))
    return with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=base_fee_wei))


def test_merge_routes_shares_common_last_hops() -> None:
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


A = ("a", 0)
B = ("b", 1)
C = ("c", 2)
D = ("d", 2)


@pytest.mark.parametrize(
    ("chains", "counts", "dependents"),
    [
        pytest.param(
            [[A, B], [C, B], [B], [A, D]], {A: 2, B: 2, C: 1, D: 1}, {A: {D: 1}, B: {A: 1, C: 1}, D: {A: 1}}, id="legs as they run"
        ),
        pytest.param(
            [[A, B, C], [A, B, D], [B, D]],
            {A: 2, B: 3, C: 1, D: 1},
            {A: {B: 2, C: 1}, B: {A: 2, C: 1, D: 1}, C: {A: 1, B: 1}, D: {A: 1, B: 2}},
            id="dependents along the chain",
        ),
    ],
)
def test_merged_legs_counts_legs_and_their_dependents(chains: list[Any], counts: dict[Any, int], dependents: dict[Any, Any]) -> None:
    legs = merged_legs(chains)
    assert (legs.counts, legs.dependents) == (counts, dependents)


def test_plan_gathers_three_sales_into_a_single_leg() -> None:
    plan = checked_plan(step_with_hub())
    assert [(leg.token_out == WETH.address, leg.sink) for leg in plan.legs] == [(True, LegPlace.ROUTER)] * 3 + [(False, LegPlace.WALLET)]
    assert plan.legs[-1].amount_in_raw == sum(leg.amount_out_raw for leg in plan.legs[:-1])
    assert gap_of(plan) < 1


def test_gathered_legs_cost_less_gas_than_separate_chains() -> None:
    step = step_with_hub(10 * GWEI)
    plan = planner.plan(step, rebalance_to_targets(step))
    assert len(plan.legs) == 4
    apart = [leg for chain in plan.legs[:-1] for leg in (chain, replace(plan.legs[-1], amount_in_raw=chain.amount_out_raw))]
    problem = build_problem(step, reference_prices(step))
    swaps = sum(leg_gas_units(problem.pools[leg.pool], 0, router_gas=problem.gas_inputs.router_gas) for leg in apart)
    assert plan.gas_units < plan_gas_units(problem.gas_inputs, apart, swaps) - 100_000


def test_sources_shrink_to_what_the_last_pool_takes() -> None:
    narrow = v3_pool(WETH, USDC, 2_000, 1_000_000, fee_pips=500)
    pools = tuple(narrow if USDC.address in (pool.token0, pool.token1) else pool for pool in step_with_hub().snapshot.pools)
    step = with_snapshot(with_limits(step_with_hub(), price_impact_bps=10, pool_min_value=None), pools=pools)
    simulator = RouteSimulator(build_problem(step, reference_prices(step)))
    hops = [(pool.address, pool.token1 if pool.token0 == WETH.address else pool.token0) for pool in pools if pool is not narrow]
    route = Route(((narrow.address, WETH.address),), 0, tuple(Route((hop,)) for hop in hops))
    requested_raw = [simulator.spendable(token_in) for _, token_in in hops]
    taken_raw = simulator.run(route, requested_raw)
    assert all(0 < amount_raw < most_raw for amount_raw, most_raw in zip(taken_raw, requested_raw, strict=True))
    legs = simulator.draft.legs
    assert legs[-1].amount_in_raw == sum(leg.amount_out_raw for leg in legs[:-1])
    room = narrow.max_in(WETH.address, 10)
    assert room * 99 // 100 < legs[-1].amount_in_raw <= room
    assert narrow.address in simulator.draft.full_pools


def test_source_without_amount_is_skipped() -> None:
    step = step_with_hub()
    simulator = RouteSimulator(build_problem(step, reference_prices(step)))
    first, second, last = (step.snapshot.pools[at] for at in (0, 1, 3))
    route = Route(((last.address, WETH.address),), 0, (Route(((first.address, LINK.address),)), Route(((second.address, WBTC.address),))))
    assert simulator.run(route, [ETHER, 0]) == [ETHER, 0]
    assert [leg.pool for leg in simulator.draft.legs] == [first.address, last.address]
    assert simulator.run(route, [0, 0]) == [0, 0]


@pytest.mark.parametrize(("swap_units", "is_capped"), [(0, True), (10**6, False)])
def test_gas_refunds_are_at_most_a_fifth(swap_units: int, is_capped: bool) -> None:
    """EIP-3529. Refunded are the allowance that is used up, the balance that is sold, and the router's balances: between two
    pools, and before the sweep of what is bought."""
    link = token("LINK").address
    legs = [
        leg(WETH.address, link, 10**18, 10**18, sink=LegPlace.ROUTER),
        leg(link, USDC.address, 10**18, 10**9, source=LegPlace.ROUTER),
    ]
    facts = GasInputs(balances={WETH.address: 10**18, USDC.address: 1}, allowances={WETH.address: 10**18})
    units = 24_000 + swap_units + 3 * 2_500 + 2 * 4_900 + 4_900 + 22_100 + 22_100 + 9_000
    refund = 4_800 + 4_800 + 19_900 + 19_900
    assert (refund > units // 5) is is_capped
    assert plan_gas_units(facts, legs, swap_units) == units - min(refund, units // 5)
