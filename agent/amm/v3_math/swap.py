"""A whole V3 swap over many ranges: UniswapV3Pool.swap (v3-core) without its transfers and oracle."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from agent.amm.errors import Reverts
from agent.amm.v3_math.steps import End, next_step
from agent.amm.v3_math.swap_math import compute_swap_step
from agent.amm.v3_math.table import stop_table
from agent.amm.v3_math.tick_bitmap import tick_table
from agent.amm.v3_math.tick_math import MAX_SQRT_RATIO, MIN_SQRT_RATIO, get_tick_at_sqrt_ratio
from agent.model import V3Pool

INT256_MAX = 2**255 - 1


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


def swap(pool: V3Pool, zero_for_one: bool, amount_specified: int, sqrt_price_limit_x96: int) -> SwapState:
    """UniswapV3Pool.swap: amount_specified > 0 is an exact input, < 0 an exact output; fills partially at the price limit.

    Past its first stop it skips what the pool's table has summed, so that the loop runs three times at most, however many
    ticks the swap crosses. Stops before a step that needs unknown ticks. Raises Reverts as the contract does.
    """
    price, tick, liquidity = pool.sqrt_price_x96, pool.tick, pool.liquidity
    limit, remaining, exact_in = sqrt_price_limit_x96, amount_specified, amount_specified > 0
    allowed = MIN_SQRT_RATIO < limit < price if zero_for_one else price < limit < MAX_SQRT_RATIO
    if not allowed or not remaining or not -INT256_MAX <= remaining <= INT256_MAX:
        raise _refusal(remaining)
    ticks = tick_table(pool.ticks)
    calculated = fees = crossed = stops = 0
    inside = left_known = False
    at = bisect_right(ticks.indices, tick)
    while remaining and price != limit:
        stop, next_price, beyond, at_beyond, end = next_step(pool, ticks, at, tick, price, liquidity, zero_for_one)
        if zero_for_one:
            target = limit if next_price < limit else next_price
        else:
            target = limit if next_price > limit else next_price
        reached, amount_in, amount_out, fee = compute_swap_step(price, target, liquidity, remaining, pool.fee_pips)
        if end is End.KNOWLEDGE and reached == next_price != limit:
            left_known = True  # the contract's own target lies further on: this step's amounts are not the contract's
            break
        stops += 1
        fees += fee
        if exact_in:
            remaining -= amount_in + fee
            calculated += amount_out
        else:
            remaining += amount_out
            calculated += amount_in + fee
        if reached != next_price or end in (End.KNOWLEDGE, End.PRICES):
            # Nothing but a used up amount or the price limit ends a step inside a range. A price that has not moved keeps the
            # tick, which after crossing downwards is one below that of the price.
            inside = reached != price
            price = reached
            break
        if end is End.REVERTS:
            raise Reverts("LiquidityMath.addDelta", "LS" if beyond < 0 else "LA", "the ticks do not fit this pool's liquidity")
        crossed += at != at_beyond
        price, tick, liquidity, at = reached, stop - 1 if zero_for_one else stop, beyond, at_beyond
        if stops == 1 and remaining and price != limit:
            table, sums, start = stop_table(pool, zero_for_one, stop, liquidity)
            cost, out, fee, skipped, price, tick, liquidity = table.skip(sums, start, remaining, limit)
            remaining += -cost if exact_in else out
            calculated += out if exact_in else cost
            fees, stops, before = fees + fee, stops + skipped, at
            at = bisect_right(ticks.indices, tick)
            crossed += abs(at - before)
    return SwapState(remaining, calculated, fees, price, tick, liquidity, crossed, stops, inside, left_known)


def _refusal(amount_specified: int) -> Reverts:
    """Which requirement at the head of UniswapV3Pool.swap, or of its callers' int256, is not met."""
    if amount_specified == 0:
        return Reverts("UniswapV3Pool.swap", "AS", "trade more than zero")
    if not -INT256_MAX <= amount_specified <= INT256_MAX:
        return Reverts("SafeCast.toInt256", "", "trade less than 2^255 base units")
    return Reverts("UniswapV3Pool.swap", "SPL", "the price limit is on the wrong side of the price, or the pool at the end of its range")
