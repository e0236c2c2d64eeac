"""UniswapV3Pool.swap step by step, as the tests write it: what swaps and quoters are held against, and amounts to try."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from hypothesis import strategies as st

from agent.amm.swap_errors import ContractRevert
from agent.amm.v3.math import (
    MAX_SQRT_RATIO,
    MAX_TICK,
    MIN_SQRT_RATIO,
    MIN_TICK,
    compute_swap_step,
    get_sqrt_ratio_at_tick,
    get_tick_at_sqrt_ratio,
    price_limit,
)
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import next_initialized_tick_within_one_word
from tests.support import amm_pools


@dataclass(frozen=True)
class SwapEnd:
    """What is left of the input, the output, the fee, and the pool after it."""

    remaining: int
    calculated: int
    fee: int
    price: int
    tick: int
    liquidity: int
    ticks_crossed: int
    steps: int


class LeftKnownTicks(Exception):
    """The next step needs ticks that the state does not know."""


def swap_by_steps(pool: V3Pool, zero_for_one: bool, amount: int, limit: int) -> SwapEnd:
    """One turn of the loop per step of the contract. The caller sees to a sane amount and limit."""
    price = pool.sqrt_price_x96
    tick = pool.tick
    liquidity = pool.liquidity
    net = {known.index: known.liquidity_net for known in pool.ticks}
    indices = tuple(net)
    remaining = amount
    calculated = 0
    fees = 0
    crossed = 0
    steps = 0
    if not pool.known_from_tick - 1 <= tick <= pool.known_to_tick:
        raise LeftKnownTicks
    while remaining and price != limit:
        at = bisect_right(indices, tick)
        stop, initialized = next_initialized_tick_within_one_word(pool.ticks, at, tick, pool.tick_spacing, zero_for_one)
        stop = max(MIN_TICK, min(MAX_TICK, stop))
        known = pool.known_from_tick <= stop if zero_for_one else stop <= pool.known_to_tick
        clamp, further = (max, min) if zero_for_one else (min, max)
        # Up to the last known tick the contract's own step has the same liquidity; it ends there for us only.
        border = pool.known_from_tick if zero_for_one else pool.known_to_tick
        stop_price = get_sqrt_ratio_at_tick(stop) if known else further(price, get_sqrt_ratio_at_tick(border))
        reached, amount_in, amount_out, fee = compute_swap_step(price, clamp(stop_price, limit), liquidity, remaining, pool.fee_pips)
        if not known and reached == stop_price != limit:
            raise LeftKnownTicks
        steps += 1
        fees += fee
        remaining -= amount_in + fee
        calculated += amount_out
        if known and reached == stop_price:
            if initialized:
                liquidity += -net[stop] if zero_for_one else net[stop]
                crossed += 1
                if not 0 <= liquidity < 2**128:
                    raise ContractRevert("LiquidityMath.addDelta", "LS" if liquidity < 0 else "LA")
            tick = stop - 1 if zero_for_one else stop
        elif reached != price:
            tick = get_tick_at_sqrt_ratio(reached)
        price = reached
    return SwapEnd(remaining, calculated, fees, price, tick, liquidity, crossed, steps)


some_pools = st.one_of(amm_pools.v3_pools(), amm_pools.v3_pools(windowed=True), amm_pools.v3_pools(moderate=True))


def by_steps(state: V3Pool, down: bool, amount: int, limit: int) -> SwapEnd | str:
    """The swap by steps, in the same words where there is none."""
    try:
        return swap_by_steps(state, down, amount, limit)
    except ContractRevert as refusal:
        return refusal.reason
    except LeftKnownTicks:
        return "?"


def draw_limit(data: st.DataObject, state: V3Pool, down: bool) -> int:
    """No limit, one at the price of a stop or one beside it, or one anywhere."""
    last = price_limit(down)
    if data.draw(st.booleans()):
        return last
    word = 256 * state.tick_spacing
    border = (state.tick // word + data.draw(st.integers(-3, 3))) * word - (0 if down else state.tick_spacing)
    edges = (border, state.known_from_tick, state.known_to_tick, *(tick.index for tick in state.ticks))
    ticks = [tick for tick in edges if MIN_TICK < tick < MAX_TICK]
    nearby = st.integers(state.sqrt_price_x96 // 2, state.sqrt_price_x96 * 2)
    at_stops = st.sampled_from(ticks).map(get_sqrt_ratio_at_tick) if ticks else nearby
    limit = data.draw(st.one_of(at_stops, nearby)) + data.draw(st.sampled_from((-1, 0, 0, 1)))
    allowed = MIN_SQRT_RATIO < limit < state.sqrt_price_x96 if down else state.sqrt_price_x96 < limit < MAX_SQRT_RATIO
    return limit if allowed else last


def draw_amount(data: st.DataObject, state: V3Pool, down: bool, limit: int) -> int:
    """Any input, or what leads exactly onto a price, and one beside it."""
    amount = data.draw(amm_pools.amounts)
    goal = draw_limit(data, state, down)
    if data.draw(st.booleans()) and goal != price_limit(down):
        there = by_steps(state, down, 2**200, goal)
        if isinstance(there, SwapEnd):
            amount = 2**200 - there.remaining + data.draw(st.sampled_from((-1, 0, 0, 1)))
    return max(amount, 1)
