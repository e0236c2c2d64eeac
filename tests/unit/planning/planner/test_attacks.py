"""Pools as a thief leaves them before the snapshot (T1, T9): pushed, deep for a moment, full of dust, off the market in chains."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.errors import Refused
from agent.model import Plan, Pool, StepInput
from agent.planning.planner import NothingPlanned
from agent.units import BPS, Token
from tests.support.builders import price_of, step_input, v2_pool, v3_pool, with_limits, with_snapshot
from tests.support.planning_worlds import (
    DAI,
    DEEP,
    LINK,
    PRICES,
    USDC,
    WBTC,
    WETH,
    assert_plan_refused,
    assert_within_limits,
    checked_plan,
    flow_value,
    pools_used,
    random_step,
    two,
    values_of,
    wide,
)
from tests.support.samples import examples, slow

UNLIMITED = {"min_trade": None, "daily_turnover_bps": None, "pool_min_value": None}


def pool_after_sale(pool: Pool, sold: str, bps: int) -> Pool:
    """The pool after a whale sold into it until the price of what it sold was so much lower, or all known liquidity was used."""
    raw = pool.max_in(sold, bps)
    return pool.swap(sold, raw).pool_after if raw > 0 else pool


def with_momentary_liquidity(pool: Pool, times: int) -> Pool:
    """A V3 pool with so many times its liquidity added between the two ticks around its price."""
    if not isinstance(pool, V3Pool):
        return pool
    start = pool.tick // pool.tick_spacing * pool.tick_spacing
    net = {tick.index: tick.liquidity_net for tick in pool.ticks}
    for index, side in ((start, 1), (start + pool.tick_spacing, -1)):
        net[index] = net.get(index, 0) + side * pool.liquidity * times
    ticks = tuple(TickLiquidity(index, raw) for index, raw in sorted(net.items()))
    return replace(pool, liquidity=pool.liquidity * (1 + times), ticks=ticks)


def with_dust_ticks(pool: V3Pool, number: int) -> V3Pool:
    """A pool with so many initialised ticks on either side of its price, a unit of liquidity between every second two."""
    start = pool.tick // pool.tick_spacing * pool.tick_spacing
    spacing = pool.tick_spacing
    dust = {start + k * spacing: 1 if k % 2 else -1 for k in (*range(-number, 0), *range(1, number + 1))}
    net = {tick.index: tick.liquidity_net for tick in pool.ticks} | dust
    return replace(pool, ticks=tuple(TickLiquidity(index, raw) for index, raw in sorted(net.items())))


def plan_within_limits(step: StepInput) -> Plan:
    """Return a plan with costs within plan_cost at fair prices, which is what is lost when the thief has set everything back; no
    churn, no bad floor.
    """
    plan = checked_plan(step)
    assert_within_limits(step, plan)
    values = values_of(step, plan)
    before = sum(v[0] for v in values)
    after = sum(v[1] for v in values)
    drift = sum(max(Fraction(0), b - before * t / BPS) for b, _, t in values)
    drift_left = sum(max(Fraction(0), a - after * t / BPS) for _, a, t in values)
    gain = max(Fraction(0), after - before)
    assert plan.turnover <= (drift - drift_left + gain) * Fraction(105, 100) + before / 100_000, "no churn beyond the drift corrected"
    for value, ends, target_bps in values:
        goals = before * target_bps / BPS, after * target_bps / BPS
        assert min(value, *goals) - before / 50_000 <= ends <= max(value, *goals) + before / 50_000, "no token moves past its goal"
    return plan


@examples(10)
@given(
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.1, 0.5, 1.0]),
    most_bps=st.sampled_from([30, 140, 500, 2_000]),
    momentary=st.sampled_from([0, 10, 10**6]),
    plan_cost_bps=st.sampled_from([20, 50, 200, None]),
    turnover_bps=st.sampled_from([None, 3_000]),
)
def test_plan_keeps_its_limits_in_pools_that_a_thief_pushed(
    seed: int, share: float, most_bps: int, momentary: int, plan_cost_bps: int | None, turnover_bps: int | None
) -> None:
    dice = random.Random(seed)
    step = random_step(seed, dice.randint(2, 10), dice.randint(3, 24), 10 ** dice.uniform(4.5, 7.5))
    pools = [
        with_momentary_liquidity(
            pool_after_sale(pool, dice.choice((pool.token0, pool.token1)), dice.randint(1, most_bps)), momentary * (dice.random() < 0.3)
        )
        if dice.random() < share
        else pool
        for pool in step.snapshot.pools
    ]
    step = with_limits(with_snapshot(step, pools=tuple(pools)), **UNLIMITED, plan_cost_bps=plan_cost_bps, turnover_bps=turnover_bps)
    try:
        plan_within_limits(step)
    except Refused as refusal:
        assert refusal.verdicts or isinstance(refusal, NothingPlanned)


@pytest.mark.parametrize("seed", [2, 18, *slow([25, 33, 58])])
def test_plan_without_plan_cost_moves_only_the_drift(seed: int) -> None:
    dice = random.Random(seed)
    step = random_step(seed, 7, 24, 10**6.5)
    pools = [pool_after_sale(pool, dice.choice((pool.token0, pool.token1)), dice.randint(1, 2_000)) for pool in step.snapshot.pools]
    step = with_limits(with_snapshot(step, pools=tuple(pools)), **UNLIMITED, plan_cost_bps=None, turnover_bps=None)
    plan_within_limits(step)


def bait_chain(factor: Fraction) -> list[Pool]:
    """A ring of five tokens in which each exchange one way pays so much more than the reference, beside fair pools with USDC."""
    ring: list[Token] = [USDC, WETH, WBTC, LINK, DAI]
    baits = [
        v3_pool(a, b, price_of(a.symbol, PRICES) / price_of(b.symbol, PRICES) * factor, DEEP / price_of(b.symbol, PRICES), 100, name="bait")
        for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)
    ]
    fair = [v2_pool(token, USDC, price_of(token.symbol, PRICES), DEEP) for token in ring[1:]]
    return [*baits, *fair]


def test_ring_of_baits_moves_nothing_of_a_balanced_portfolio() -> None:
    values = {"USDC": 20_000, "WETH": 20_000, "WBTC": 20_000, "LINK": 20_000, "DAI": 20_000}
    step = wide(step_input(dict.fromkeys(values, 2_000), values, PRICES, pools=bait_chain(Fraction(1_014, 1_000))))
    assert_plan_refused(step, "min_trade")


@pytest.mark.parametrize("plan_cost_bps", [50, 200])
def test_chain_of_baits_carries_no_more_than_the_drift(plan_cost_bps: int) -> None:
    """WETH has to become DAI, and every exchange on the way round pays 1.4 % more than it should: together 4.3 %."""
    values = {"USDC": 20_000, "WETH": 24_000, "WBTC": 20_000, "LINK": 20_000, "DAI": 16_000}
    pools = bait_chain(Fraction(1_014, 1_000))
    step = wide(step_input(dict.fromkeys(values, 2_000), values, PRICES, pools=pools), plan_cost_bps=plan_cost_bps)
    plan = plan_within_limits(step)
    assert pools_used(plan) & {pool.address for pool in pools[:5]}, "the baits were worth nothing"
    moved = 4_000 * 10**6
    assert moved * Fraction(98, 100) <= plan.turnover <= moved * Fraction(105, 100)
    assert flow_value(step, plan) > 0


def test_dust_ticks_cost_more_gas_than_their_pool_saves() -> None:
    """Where gas costs nothing, all that the bait pays more is taken, tick by tick; at 50 gwei the same gas would cost $300 for $25."""
    fair = v3_pool(WETH, USDC, 2_000, DEEP)
    bait = with_dust_ticks(v3_pool(WETH, USDC, 2_024, 700_000, 100, name="dust"), 130)
    step = two(60_000, 40_000, [fair, bait], turnover_bps=None, pool_min_value=None)
    lured, wise = (plan_within_limits(with_gas_price(step, gwei)) for gwei in (0, 50))
    assert pools_used(lured) == {fair.address, bait.address}
    assert lured.gas_units > 2_000_000
    assert pools_used(wise) == {fair.address}
    assert wise.gas_units < 400_000


def with_gas_price(step: StepInput, gwei: int) -> StepInput:
    """The step at this price of gas, all of it base fee."""
    head = replace(step.snapshot.head, base_fee_wei=gwei * 10**9)
    return with_snapshot(step, priority_fee_wei=0, gas_price_wei=gwei * 10**9, head=head)
