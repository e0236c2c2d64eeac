"""UniswapV3Pool.swap step by step, without any table: what the tables of sums are held against."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from agent.amm.errors import Reverts
from agent.amm.v3_math.swap_math import compute_swap_step
from agent.amm.v3_math.tick_bitmap import next_initialized_tick_within_one_word
from agent.amm.v3_math.tick_math import MAX_TICK, MIN_TICK, get_sqrt_ratio_at_tick, get_tick_at_sqrt_ratio
from agent.model import V3Pool


@dataclass(frozen=True)
class Ended:
    """What is left of the amount asked for (with its sign), the other amount, the fee, and the pool after it."""

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


def swap_by_steps(pool: V3Pool, zero_for_one: bool, amount: int, limit: int) -> Ended:
    """One turn of the loop per step of the contract. The caller sees to a sane amount and limit."""
    price, tick, liquidity = pool.sqrt_price_x96, pool.tick, pool.liquidity
    net = {known.index: known.liquidity_net for known in pool.ticks}
    indices = tuple(net)
    remaining, calculated, fees, crossed, steps = amount, 0, 0, 0, 0
    if not pool.known_from_tick - 1 <= tick <= pool.known_to_tick:
        raise LeftKnownTicks
    while remaining and price != limit:
        at = bisect_right(indices, tick)
        stop, initialized = next_initialized_tick_within_one_word(indices, at, tick, pool.tick_spacing, zero_for_one)
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
        remaining += amount_out if amount < 0 else -amount_in - fee
        calculated += amount_in + fee if amount < 0 else amount_out
        if known and reached == stop_price:
            if initialized:
                liquidity += -net[stop] if zero_for_one else net[stop]
                crossed += 1
                if not 0 <= liquidity < 2**128:
                    raise Reverts("LiquidityMath.addDelta", "LS" if liquidity < 0 else "LA")
            tick = stop - 1 if zero_for_one else stop
        elif reached != price:
            tick = get_tick_at_sqrt_ratio(reached)
        price = reached
    return Ended(remaining, calculated, fees, price, tick, liquidity, crossed, steps)
