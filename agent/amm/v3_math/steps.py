"""Where a V3 swap stops next, and what lies beyond: one turn of the loop of UniswapV3Pool.swap, before any amount."""

from __future__ import annotations

from enum import Enum

from agent.amm.v3_math.tick_bitmap import TickTable, next_initialized_tick_within_one_word
from agent.amm.v3_math.tick_math import MAX_TICK, MIN_TICK, get_sqrt_ratio_at_tick, price_limit
from agent.model import V3Pool

UINT128_BITS = 128


class End(Enum):
    """Why a swap cannot go beyond a step: the range of prices ends, the ticks are not known, or the contract reverts."""

    PRICES = 0
    KNOWLEDGE = 1
    REVERTS = 2


def next_step(
    pool: V3Pool, ticks: TickTable, at: int, tick: int, price_x96: int, liquidity: int, zero_for_one: bool
) -> tuple[int, int, int, int, End | None]:
    """(stop, sqrt price there, liquidity beyond it, `at` beyond it, why nothing lies beyond).

    `at` counts the initialised ticks up to `tick`. Where knowledge ends, the price is that of the last known tick, or the
    present one when that is already past it; where prices end, it is the last that a swap may reach.
    """
    if not pool.known_from_tick - 1 <= tick <= pool.known_to_tick:
        return tick, price_x96, liquidity, at, End.KNOWLEDGE
    stop, initialized = next_initialized_tick_within_one_word(ticks.indices, at, tick, pool.tick_spacing, zero_for_one)
    if zero_for_one:
        if stop < pool.known_from_tick and pool.known_from_tick > MIN_TICK:
            return stop, min(price_x96, get_sqrt_ratio_at_tick(pool.known_from_tick)), liquidity, at, End.KNOWLEDGE
        if stop <= MIN_TICK:
            return MIN_TICK, price_limit(True), liquidity, at, End.PRICES
        if not initialized:
            return stop, get_sqrt_ratio_at_tick(stop), liquidity, at, None
        at -= 1
        liquidity -= ticks.nets[at]
    else:
        if stop > pool.known_to_tick and pool.known_to_tick < MAX_TICK:
            return stop, max(price_x96, get_sqrt_ratio_at_tick(pool.known_to_tick)), liquidity, at, End.KNOWLEDGE
        if stop >= MAX_TICK:
            return MAX_TICK, price_limit(False), liquidity, at, End.PRICES
        if not initialized:
            return stop, get_sqrt_ratio_at_tick(stop), liquidity, at, None
        liquidity += ticks.nets[at]
        at += 1
    return stop, get_sqrt_ratio_at_tick(stop), liquidity, at, None if 0 <= liquidity < 1 << UINT128_BITS else End.REVERTS
