"""A whole V3 swap over many ranges: UniswapV3Pool.swap (v3-core) without its transfers and oracle."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from agent.amm.errors import Reverts
from agent.amm.v3_math.swap_math import compute_swap_step
from agent.amm.v3_math.tick_bitmap import LAST_IN_WORD, WORD_BITS, tick_table
from agent.amm.v3_math.tick_math import MAX_SQRT_RATIO, MAX_TICK, MIN_SQRT_RATIO, MIN_TICK, get_sqrt_ratio_at_tick, get_tick_at_sqrt_ratio
from agent.model import V3Pool

INT256_MAX = 2**255 - 1
UINT128_BITS = 128


class SwapState(NamedTuple):
    """Where a swap ended. Amounts in base units; `amount_remaining` keeps the sign of what was asked.

    `amount_calculated` is the other side, without sign; `fee` is part of what came in. `stops` counts the steps: each
    ends at a tick, a word border, the price limit or inside a range. `tick` is that of the last stop; where the swap
    ended inside a range (`inside`) the pool's tick follows from the price. `left_known_ticks` says that the next step
    needs ticks that are not known: the other fields are those before it.
    """

    amount_remaining: int
    amount_calculated: int
    fee: int
    sqrt_price_x96: int
    tick: int
    liquidity: int
    ticks_crossed: int
    stops: int
    inside: bool
    left_known_ticks: bool

    def end_tick(self) -> int:
        """The pool's tick after the swap."""
        return get_tick_at_sqrt_ratio(self.sqrt_price_x96) if self.inside else self.tick


def price_limit(zero_for_one: bool) -> int:
    """The limit that routers set when none is given: one beside the end of the price range."""
    return MIN_SQRT_RATIO + 1 if zero_for_one else MAX_SQRT_RATIO - 1


def swap(pool: V3Pool, zero_for_one: bool, amount_specified: int, sqrt_price_limit_x96: int) -> SwapState:
    """UniswapV3Pool.swap: amount_specified > 0 is an exact input, < 0 an exact output; fills partially at the price limit.

    Stops before a step that needs unknown ticks. Raises Reverts as the contract does.
    """
    price, tick, liquidity = pool.sqrt_price_x96, pool.tick, pool.liquidity
    limit, remaining = sqrt_price_limit_x96, amount_specified
    allowed = MIN_SQRT_RATIO < limit < price if zero_for_one else price < limit < MAX_SQRT_RATIO
    if not allowed or not remaining or not -INT256_MAX <= remaining <= INT256_MAX:
        raise _refusal(remaining)
    table = tick_table(pool.ticks)
    indices, nets = table.indices, table.nets
    spacing, fee_pips = pool.tick_spacing, pool.fee_pips
    known_from, known_to = pool.known_from_tick, pool.known_to_tick
    calculated = fees = crossed = stops = 0
    inside, left_known = False, not known_from - 1 <= tick <= known_to
    i = bisect_right(indices, tick)
    while remaining and price != limit and not left_known:
        # nextInitializedTickWithinOneWord, written out: the stop is an initialised tick or else the border of a bitmap word
        if zero_for_one:
            next_tick = (tick // spacing >> WORD_BITS << WORD_BITS) * spacing
            initialized = i > 0 and indices[i - 1] >= next_tick
            if initialized:
                next_tick = indices[i - 1]
            elif next_tick < MIN_TICK:
                next_tick = MIN_TICK
            known = next_tick >= known_from
            next_price = get_sqrt_ratio_at_tick(next_tick) if known else min(price, get_sqrt_ratio_at_tick(known_from))
            target = limit if next_price < limit else next_price
        else:
            next_tick = (tick // spacing + 1 | LAST_IN_WORD) * spacing
            initialized = i < len(indices) and indices[i] <= next_tick
            if initialized:
                next_tick = indices[i]
            elif next_tick > MAX_TICK:
                next_tick = MAX_TICK
            known = next_tick <= known_to
            next_price = get_sqrt_ratio_at_tick(next_tick) if known else max(price, get_sqrt_ratio_at_tick(known_to))
            target = limit if next_price > limit else next_price
        reached, amount_in, amount_out, fee = compute_swap_step(price, target, liquidity, remaining, fee_pips)
        if not known and reached == next_price != limit:
            left_known = True  # the contract's own target lies further on: this step's amounts are not the contract's
            break
        stops += 1
        fees += fee
        if amount_specified > 0:
            remaining -= amount_in + fee
            calculated += amount_out
        else:
            remaining += amount_out
            calculated += amount_in + fee
        inside = not known or reached != next_price
        if inside:
            # Nothing but a used up amount or the price limit ends a step inside a range. A price that has not moved keeps the
            # tick, which after crossing downwards is one below that of the price.
            inside = reached != price
            price = reached
            break
        price = reached
        if initialized:
            if zero_for_one:
                i -= 1
                liquidity -= nets[i]
            else:
                liquidity += nets[i]
                i += 1
            crossed += 1
            if liquidity < 0 or liquidity >> UINT128_BITS:
                raise Reverts("LiquidityMath.addDelta", "LS" if liquidity < 0 else "LA", "the ticks do not fit this pool's liquidity")
        tick = next_tick - 1 if zero_for_one else next_tick
    return SwapState(remaining, calculated, fees, price, tick, liquidity, crossed, stops, inside, left_known)


def _refusal(amount_specified: int) -> Reverts:
    """Which requirement at the head of UniswapV3Pool.swap, or of its callers' int256, is not met."""
    if amount_specified == 0:
        return Reverts("UniswapV3Pool.swap", "AS", "trade more than zero")
    if not -INT256_MAX <= amount_specified <= INT256_MAX:
        return Reverts("SafeCast.toInt256", "", "trade less than 2^255 base units")
    return Reverts("UniswapV3Pool.swap", "SPL", "the price limit is on the wrong side of the price, or the pool at the end of its range")
