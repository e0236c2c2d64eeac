"""Floors, gas, response curves, the dual core, paths: the planner's parts, each alone."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.amm import pools as amm
from agent.model import V2Pool, V3Pool
from agent.planning import gas
from agent.planning.dual import Arc, Flow, Wish, solve
from agent.planning.floors import fair_floor, min_out
from agent.planning.paths import MAX_LEGS, decompose
from agent.planning.responses import SHADE, Curve, build_curve
from tests.builders import snapshot, token, v2_pool, v3_pool
from tests.planning_worlds import ranged

WETH, USDC = token("WETH"), token("USDC")
PRICES = {WETH.address: Fraction(2_000 * 10**6, 10**18), USDC.address: Fraction(1)}


# floors


def test_a_fair_floor_is_the_reference_value_less_fee_impact_and_slippage() -> None:
    # 1 WETH at 2,000: 0.3 % fee, 1 % impact, 0.3 % slippage
    floor = fair_floor(10**18, PRICES[WETH.address], Fraction(1), 3_000, 100, 30)
    assert floor == int(2_000 * 10**6 * (1 - Fraction(13, 1_000)) * (1 - Fraction(3, 1_000)))


def test_a_fair_floor_is_never_zero_for_a_positive_amount_and_zero_for_none() -> None:
    assert fair_floor(1, PRICES[WETH.address], Fraction(1), 3_000, 100, 30) == 1
    assert fair_floor(10**18, PRICES[WETH.address], Fraction(1), 3_000, 10_000, 10_000) == 1
    assert fair_floor(0, Fraction(1), Fraction(1), 3_000, 100, 30) == 0


def test_a_minimum_is_the_larger_of_fair_floor_and_simulation_less_slippage() -> None:
    assert min_out(10_000, 9_000, 30) == 9_970
    assert min_out(10_000, 9_990, 30) == 9_990
    assert min_out(10_000, 9_000, None) == 9_000


# gas


def test_gas_counts_ticks_and_words_of_v3_and_nothing_more_of_v2() -> None:
    v2, v3 = v2_pool(WETH, USDC, 2_000), v3_pool(WETH, USDC, 2_000)
    assert gas.leg_units(v2, 0) == gas.V2_LEG_UNITS
    assert gas.leg_units(v3, 0) == gas.V3_LEG_UNITS
    assert gas.leg_units(v3, 2, 5) == gas.V3_LEG_UNITS + 2 * gas.TICK_UNITS + 2 * gas.WORD_UNITS


def test_gas_price_is_base_and_tip_or_the_legacy_price() -> None:
    plain = snapshot()
    assert gas.gas_price_wei(plain) == plain.head.base_fee_wei + plain.priority_fee_wei
    assert gas.gas_price_wei(replace(plain, head=replace(plain.head, base_fee_wei=None), gas_price_wei=77)) == 77


# response curves


def _curve(pool: V2Pool | V3Pool, token_in: str, bound_bps: int = 100, no_gain: bool = False) -> Curve:
    token_out = amm.token_out(pool, token_in)
    curve = build_curve(pool, token_in, PRICES[token_in], PRICES[token_out], 10**9, bound_bps, no_gain)
    assert curve is not None
    return curve


@given(seed=st.integers(0, 10**6), share=st.floats(0.0, 1.0), sell_weth=st.booleans(), is_v2=st.booleans())
def test_a_curve_answers_what_the_exact_pool_answers(seed: int, share: float, sell_weth: bool, is_v2: bool) -> None:
    dice = random.Random(seed)
    price = Fraction(2_000) * Fraction(dice.uniform(0.99, 1.01)).limit_denominator(10**6)
    pool: V2Pool | V3Pool = v2_pool(WETH, USDC, price, 100_000)
    if not is_v2:
        pool = ranged(v3_pool(WETH, USDC, price, 300_000, dice.choice([500, 3_000])), dice, 8)
    token_in = (WETH if sell_weth else USDC).address
    token_out = amm.token_out(pool, token_in)
    curve = _curve(pool, token_in)
    rate = curve.best_rate * (1 - 0.01 * share) * 0.999999
    answer = curve.answer(rate)
    exact_price = Fraction(rate) * PRICES[token_in] / PRICES[token_out]
    exact_in = amm.best_response(pool, token_in, exact_price, 100)
    taken_raw = Fraction(answer.taken) * 10**9 / PRICES[token_in]
    room = amm.max_in(pool, token_in, 100)
    assert abs(taken_raw - exact_in) <= Fraction(room, 400) + 2, "V2 keeps its fee in the pool, which the float bound leaves out"
    amount = min(int(taken_raw), room)
    if amount > 10**4:
        paid = amm.swap_exact_in(pool, token_in, amount).amount_out_raw * PRICES[token_out]
        assert float(paid / 10**9) == pytest.approx(answer.paid, rel=4e-3 if int(taken_raw) > room else 1e-6, abs=3e-9)


def test_a_surplus_is_what_a_trade_brings_over_the_asked_price() -> None:
    curve = _curve(v2_pool(WETH, USDC, 2_000, 100_000), WETH.address)
    rate = curve.best_rate * 0.995
    answer = curve.answer(rate)
    assert answer.surplus == pytest.approx(answer.paid - rate * answer.taken, rel=1e-9)


def test_a_pool_that_pays_less_than_asked_takes_nothing() -> None:
    curve = _curve(v2_pool(WETH, USDC, 2_000, 100_000), WETH.address)
    assert curve.answer(curve.best_rate).taken == 0
    assert curve.answer(1.5).taken == 0


def test_a_pool_off_the_market_is_free_but_never_a_gain() -> None:
    bait = v3_pool(WETH, USDC, 2_028, 100_000)
    assert _curve(bait, WETH.address).best_rate > 1.01
    level = _curve(bait, WETH.address, no_gain=True)
    assert 1 - 2 * SHADE < level.best_rate < 1
    assert level.answer(0.9995).taken == pytest.approx(_curve(bait, WETH.address, 10_000).answer(0.9995).taken, rel=0.6)


def test_nothing_can_be_sold_into_a_side_without_liquidity() -> None:
    pool = v3_pool(WETH, USDC, 2_000, 100_000)
    dry = replace(pool, liquidity=0, ticks=())
    assert build_curve(dry, WETH.address, *PRICES.values(), 10**9, 100, False) is None
    empty = replace(v2_pool(WETH, USDC, 2_000), reserve0=0)
    assert build_curve(empty, WETH.address, *PRICES.values(), 10**9, 100, False) is None
    unborn = replace(pool, sqrt_price_x96=0)
    assert build_curve(unborn, WETH.address, *PRICES.values(), 10**9, 100, False) is None


# the dual core


def _arc(a: int, b: int, depth: float = 1_000_000.0, fee_pips: int = 3_000, name: str = "") -> list[Arc]:
    """Both directions of a V2 pair on the reference between tokens worth 1."""
    pool = V2Pool(f"{a}-{b}{name}", "uniswap_v2", str(a), str(b), int(depth * 10**6), int(depth * 10**6), fee_pips)
    found = []
    for source, target in ((a, b), (b, a)):
        curve = build_curve(pool, str(source), Fraction(1), Fraction(1), 10**6, 100, True)
        assert curve is not None
        found.append(Arc(pool.address, source, target, curve))
    return found


def test_prices_settle_where_every_wish_is_met() -> None:
    wishes = [Wish(60.0, 50.0, 50.0, 0.01), Wish(30.0, 35.0, 35.0, 0.01), Wish(10.0, 14.97, 14.97, 0.01)]
    solution = solve(wishes, [*_arc(0, 1), *_arc(0, 2), *_arc(1, 2)])
    ends = solution.ends(wishes)
    assert ends == pytest.approx([50.0, 35.0, 14.97], abs=0.02)
    assert all(solution.prices[flow.arc.source] < solution.prices[flow.arc.target] for flow in solution.flows)


def test_a_move_dearer_than_its_reach_stays_undone() -> None:
    wishes = [Wish(60.0, 50.0, 50.0, 0.001), Wish(40.0, 50.0, 50.0, 0.001)]
    assert solve(wishes, _arc(0, 1, fee_pips=3_000)).flows == ()
    assert solve(wishes, _arc(0, 1, fee_pips=1_000)).flows != ()


def test_parallel_pools_are_split_where_their_last_units_pay_the_same() -> None:
    wishes = [Wish(1.0, 0.0, 0.0, 0.1), Wish(0.0, 1.0, 1.0, 0.1)]
    solution = solve(wishes, [*_arc(0, 1, 500.0, name="a"), *_arc(0, 1, 1_500.0, name="b")])
    shallow, deep = sorted(flow.taken for flow in solution.flows)
    assert deep / shallow == pytest.approx(3.0, rel=0.02)


def test_an_interval_is_left_alone_inside_and_met_at_its_edge() -> None:
    wishes = [Wish(60.0, 45.0, 55.0, 0.01), Wish(40.0, 35.0, 50.0, 0.01)]
    ends = solve(wishes, _arc(0, 1)).ends(wishes)
    assert ends[0] == pytest.approx(55.0, abs=0.02)


def test_without_pools_everything_stays() -> None:
    wishes = [Wish(60.0, 50.0, 50.0, 0.01), Wish(40.0, 50.0, 50.0, 0.01)]
    solution = solve(wishes, [])
    assert solution.flows == () and solution.ends(wishes) == [60.0, 40.0]


# paths


def _flow(a: int, b: int, amount: float) -> Flow:
    return Flow(_arc(a, b)[0], amount, amount, 0.0, 1)


def _trips(paths: tuple) -> dict[tuple[int, ...], float]:  # type: ignore[type-arg]  # paths of any length
    return {(path.source, *(flow.arc.target for flow in path.flows)): path.taken for path in paths}


def test_flows_become_paths_through_an_empty_hub() -> None:
    routes = decompose([_flow(0, 1, 6.0), _flow(1, 2, 4.0), _flow(1, 3, 2.0)], [0, 1, 2, 3], frozenset({0}), frozenset({2, 3}))
    assert _trips(routes.paths) == pytest.approx({(0, 1, 2): 4.0, (0, 1, 3): 2.0})
    assert routes.cut == ()


def test_a_token_that_keeps_takes_the_longest_routes_and_passes_on_the_shortest() -> None:
    flows = [_flow(0, 1, 5.0), _flow(1, 2, 5.0), _flow(3, 2, 4.0), _flow(2, 4, 4.0)]
    routes = decompose(flows, [0, 1, 3, 2, 4], frozenset({0, 3}), frozenset({2, 4}))
    assert _trips(routes.paths) == pytest.approx({(0, 1, 2): 5.0, (3, 2, 4): 4.0})


def test_a_chain_longer_than_allowed_is_cut_and_said() -> None:
    flows = [_flow(i, i + 1, 1.0) for i in range(MAX_LEGS + 1)]
    routes = decompose(flows, list(range(MAX_LEGS + 2)), frozenset({0}), frozenset({MAX_LEGS + 1}))
    assert routes.paths == ()
    assert _trips(routes.cut) == pytest.approx({tuple(range(MAX_LEGS + 1)): 1.0})


def test_flows_that_run_in_a_cycle_are_an_error() -> None:
    with pytest.raises(ValueError, match="cycle"):
        decompose([_flow(0, 1, 1.0), _flow(1, 0, 1.0)], [0, 1], frozenset({0}), frozenset({1}))
