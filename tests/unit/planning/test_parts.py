"""Floors, gas, paths: the planner's parts, each alone."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.amm.v2_pool import V2Pool
from agent.planning import gas
from agent.planning.pool_curves import build_trade_curves
from agent.planning.problem import EdgeFlow, PoolEdge
from agent.planning.routes import MAX_LEGS, decompose_flows
from agent.reference.floors import fair_floor, least_rate, min_out
from tests.support.builders import snapshot, v2_pool, v3_pool
from tests.support.tokens import USDC, WETH

PRICES = {WETH.address: Fraction(2_000 * 10**6, 10**18), USDC.address: Fraction(1)}


# floors


@pytest.mark.parametrize(
    ("amount_raw", "impact_bps", "slippage_bps", "floor"),
    [
        pytest.param(10**18, 100, 30, int(2_000 * 10**6 * (1 - Fraction(13, 1_000)) * (1 - Fraction(3, 1_000))), id="less all three"),
        pytest.param(1, 100, 30, 1, id="a wei"),
        pytest.param(10**18, 10_000, 10_000, 1, id="limits that allow all"),
        pytest.param(0, 100, 30, 0, id="no amount"),
    ],
)
def test_fair_floor_is_reference_less_fee_impact_and_slippage(amount_raw: int, impact_bps: int, slippage_bps: int, floor: int) -> None:
    """WETH at 2,000 with a fee of 0.3 %; zero only for no amount."""
    assert fair_floor(amount_raw, PRICES[WETH.address], Fraction(1), 3_000, impact_bps, slippage_bps) == floor


@pytest.mark.parametrize(
    ("floor", "slippage_bps", "minimum"),
    [
        pytest.param(9_000, 30, 9_970, id="slippage larger"),
        pytest.param(9_990, 30, 9_990, id="floor larger"),
        pytest.param(9_000, None, 9_000, id="no slippage"),
    ],
)
def test_min_out_is_the_larger_of_floor_and_slippage(floor: int, slippage_bps: int | None, minimum: int) -> None:
    assert min_out(10_000, floor, slippage_bps) == minimum


def test_least_rate_keeps_a_leg_above_its_floor() -> None:
    rate = least_rate(3_000, 100, 30)
    amount = 123_456_789 * 10**10
    paid = amount * PRICES[WETH.address] * rate
    assert fair_floor(amount, PRICES[WETH.address], Fraction(1), 3_000, 100, 30) <= paid
    assert least_rate(3_000, 10_000, 30) == 0


# gas


def test_leg_gas_counts_ticks_and_stops_of_v3_only() -> None:
    v2 = v2_pool(WETH, USDC, 2_000)
    v3 = v3_pool(WETH, USDC, 2_000)
    for name, router in gas.ROUTER_GAS.items():
        swap_units = v3.gas.swap_units_by_router[name]
        assert gas.leg_gas_units(v2, 0, router_gas=router) == v2.gas.swap_units_by_router[name]
        assert gas.leg_gas_units(v3, 0, router_gas=router, writes_observation=False) == swap_units
        assert gas.leg_gas_units(v3, 0, router_gas=router) == swap_units + v3.gas.observation_gas
        ticks_and_stops = 2 * v3.gas.tick_gas + 2 * v3.gas.stop_gas
        assert gas.leg_gas_units(v3, 2, 5, router) == swap_units + v3.gas.observation_gas + ticks_and_stops


def test_gas_price_is_base_and_tip_or_legacy() -> None:
    plain = snapshot()
    assert plain.current_gas_price_wei == plain.head.base_fee_wei + plain.priority_fee_wei
    assert replace(plain, head=replace(plain.head, base_fee_wei=None), gas_price_wei=77).current_gas_price_wei == 77


# paths


def steep_flow(a: int, b: int, amount: float) -> EdgeFlow:
    """A flow that moves its pool by about a percent per unit."""
    return deep_flow(a, b, amount, 2 * 10**8)


def deep_flow(a: int, b: int, amount: float, reserve: int = 10**14) -> EdgeFlow:
    """A flow through a pool so deep, and free of charge, that it pays nearly what it takes."""
    pool = V2Pool(f"{a}-{b}", "uniswap_v2", str(a), str(b), reserve, reserve, 0)
    offer = build_trade_curves(pool, str(a), Fraction(1), Fraction(1), 10**6, 2_000)
    return EdgeFlow(PoolEdge(pool.address, a, b, offer), amount, offer.real_curve.output_for(amount), 0.0)


def amount_by_path(paths: tuple) -> dict[tuple[int, ...], float]:  # type: ignore[type-arg]  # paths of any length
    return {(path.sold_token_index, *(flow.pool_edge.token_out_index for flow in path.flows)): path.amount_in for path in paths}


def test_decompose_flows_passes_through_an_empty_hub() -> None:
    routes = decompose_flows(
        [deep_flow(0, 1, 6.0), deep_flow(1, 2, 4.0), deep_flow(1, 3, 2.0)], [0, 1, 2, 3], frozenset({0}), frozenset({2, 3})
    )
    assert amount_by_path(routes.paths) == pytest.approx({(0, 1, 2): 4.0, (0, 1, 3): 2.0})
    assert routes.overlong_paths == ()


def test_decompose_flows_ends_the_longest_routes_first() -> None:
    first = deep_flow(0, 1, 5.0)
    third = deep_flow(3, 2, 4.0)
    flows = [first, deep_flow(1, 2, first.amount_out), third, deep_flow(2, 4, third.amount_out)]
    routes = decompose_flows(flows, [0, 1, 3, 2, 4], frozenset({0, 3}), frozenset({2, 4}))
    assert amount_by_path(routes.paths) == pytest.approx({(0, 1, 2): 5.0, (3, 2, 4): 4.0})


def test_decompose_flows_keeps_the_flow_of_each_shared_pool() -> None:
    """Token 0 goes through 1, where 3 and 4 come in too, to 2 and on to 5: every pool takes what its flow takes, by its own rates."""
    first, beside, third = (steep_flow(a, 1, amount) for a, amount in ((0, 6.0), (3, 3.0), (4, 2.0)))
    own = 1.0
    arrives = first.amount_out + beside.amount_out + third.amount_out
    shared = steep_flow(1, 2, 8.0)
    other = steep_flow(1, 6, arrives + own - 8.0)
    onward = steep_flow(2, 5, 5.0)
    flows = [first, beside, third, shared, other, onward]
    routes = decompose_flows(flows, [0, 3, 4, 1, 2, 6, 5], frozenset({0, 1, 3, 4}), frozenset({2, 5, 6}))
    entered = dict.fromkeys((flow.pool_edge.pool_address for flow in flows), 0.0)
    for path in routes.paths:
        value = path.amount_in
        for flow in path.flows:
            before = entered[flow.pool_edge.pool_address]
            entered[flow.pool_edge.pool_address] = before + value
            value = flow.pool_edge.curves.real_curve.output_for(before + value) - flow.pool_edge.curves.real_curve.output_for(before)
    assert entered == pytest.approx({flow.pool_edge.pool_address: flow.amount_in for flow in flows}, rel=1e-12)


def test_decompose_flows_returns_overlong_chains_apart() -> None:
    flows = [deep_flow(i, i + 1, 1.0) for i in range(MAX_LEGS + 1)]
    routes = decompose_flows(flows, list(range(MAX_LEGS + 2)), frozenset({0}), frozenset({MAX_LEGS + 1}))
    assert routes.paths == ()
    assert amount_by_path(routes.overlong_paths) == pytest.approx({tuple(range(MAX_LEGS + 1)): 1.0})


def test_decompose_flows_refuses_a_cycle() -> None:
    with pytest.raises(ValueError, match="cycle"):
        decompose_flows([deep_flow(0, 1, 1.0), deep_flow(1, 0, 1.0)], [0, 1], frozenset({0}), frozenset({1}))
