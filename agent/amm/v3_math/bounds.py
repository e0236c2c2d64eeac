"""How much a V3 pool can take or give before its price passes a bound: closed forms per range of constant liquidity."""

from __future__ import annotations

from bisect import bisect_right
from math import isqrt
from typing import NamedTuple

from agent.amm.v3_math.sqrt_price_math import get_amount0_delta, get_amount1_delta
from agent.amm.v3_math.steps import End, next_step
from agent.amm.v3_math.swap import INT256_MAX
from agent.amm.v3_math.swap_math import compute_swap_step, whole_step
from agent.amm.v3_math.table import stop_table
from agent.amm.v3_math.tick_bitmap import tick_table
from agent.amm.v3_math.tick_math import get_tick_at_sqrt_ratio, price_limit
from agent.model import V3Pool
from agent.units import PIPS, mul_div_up


class Range(NamedTuple):
    """The range in which a swap meets a price, or the last one before it that can be had, and what it takes to come there.

    `cost` base units in (with fee) and `out` are those of the whole steps up to `start_x96`. `end` says why there is nothing
    beyond `end_x96`; None where there is.
    """

    cost: int
    out: int
    start_x96: int
    end_x96: int
    liquidity: int
    end: End | None


def range_at(pool: V3Pool, zero_for_one: bool, price_x96: int) -> Range:
    """The range that holds a sqrt price (Q96) between the pool's own and the end of the price range; a stop ends the range before it."""
    ticks = tick_table(pool.ticks)
    start, liquidity = pool.sqrt_price_x96, pool.liquidity
    at = bisect_right(ticks.indices, pool.tick)
    stop, stop_x96, beyond, _, end = next_step(pool, ticks, at, pool.tick, start, liquidity, zero_for_one)
    if end is not None or (stop_x96 < price_x96 if zero_for_one else stop_x96 > price_x96):
        return Range(0, 0, start, stop_x96, liquidity, end)
    step_in, step_out, fee = whole_step(start, stop_x96, liquidity, pool.fee_pips)
    table, sums, first = stop_table(pool, zero_for_one, stop, beyond)
    sums = table.reach(sums, tick=get_tick_at_sqrt_ratio(price_x96))
    last = table.within(sums, len(sums.rows) - 1, price_x96)
    before_cost, before_out, _, _, _ = sums.rows[first]
    cost, out, _, start, liquidity = sums.rows[last]
    is_end = last == len(sums.rows) - 1
    end_x96 = sums.end_x96 if is_end else sums.rows[last + 1][3]
    cost, out = cost - before_cost + step_in + fee, out - before_out + step_out
    return Range(cost, out, start, end_x96, liquidity, sums.end if is_end else None)


def largest_in(pool: V3Pool, zero_for_one: bool, bound_x96: int) -> int:
    """Largest exact input, base units with fee, that leaves the sqrt price at or before the bound and within the known ticks.

    One unit more would pass the bound, leave the window, or fill only in part at the end of the price range. 0 when the
    pool already stands past the bound.
    """
    bound = _within_prices(zero_for_one, bound_x96)
    if pool.sqrt_price_x96 < bound if zero_for_one else pool.sqrt_price_x96 > bound:
        return 0
    cost, _, start, end_x96, liquidity, end = range_at(pool, zero_for_one, bound)
    if end is End.PRICES and bound == end_x96:  # the swap stops there by itself and takes no more than what leads there
        amount_in, _, fee = whole_step(start, end_x96, liquidity, pool.fee_pips)
        return min(cost + amount_in + fee, INT256_MAX)
    if end in (End.KNOWLEDGE, End.REVERTS):  # the price must stay short of it: what the contract does there is not known, or it reverts
        bound = max(bound, end_x96 + 1) if zero_for_one else min(bound, end_x96 - 1)
    if liquidity > 0 and (start >= bound if zero_for_one else start <= bound):
        less_fee = _largest_down(start, bound, liquidity) if zero_for_one else _largest_up(start, bound, liquidity)
        cost += mul_div_up(less_fee + 1, PIPS, PIPS - pool.fee_pips) - 1
    return min(cost, INT256_MAX)


def largest_out(pool: V3Pool, zero_for_one: bool) -> int:
    """Largest exact output, base units, that the known ticks can quote, where a larger one would leave them."""
    _, out, start, end_x96, liquidity, _ = range_at(pool, zero_for_one, price_limit(zero_for_one))
    _, past, _ = whole_step(start, end_x96, liquidity, pool.fee_pips)
    inside = 0
    while past - inside > 1:  # the last range is left when the price comes to its end, which rounding may hasten
        middle = (inside + past) // 2
        if compute_swap_step(start, end_x96, liquidity, -middle, pool.fee_pips)[0] == end_x96:
            past = middle
        else:
            inside = middle
    return min(out + inside, INT256_MAX)


def amount_between(pool: V3Pool, zero_for_one: bool, bound_x96: int) -> int:
    """Base units of the token that goes out while the sqrt price moves to the bound, as far as ticks are known, rounded down."""
    bound = _within_prices(zero_for_one, bound_x96)
    if pool.sqrt_price_x96 <= bound if zero_for_one else pool.sqrt_price_x96 >= bound:
        return 0
    _, out, start, end_x96, liquidity, _ = range_at(pool, zero_for_one, bound)
    stop = max(end_x96, bound) if zero_for_one else min(end_x96, bound)
    delta = get_amount1_delta if zero_for_one else get_amount0_delta
    return out + delta(start, stop, liquidity, False)


def _within_prices(zero_for_one: bool, bound_x96: int) -> int:
    """The bound, or the last price that a swap may reach when that comes first."""
    last = price_limit(zero_for_one)
    return max(bound_x96, last) if zero_for_one else min(bound_x96, last)


def price_floor(numerator: int, denominator: int) -> int:
    """Least sqrt price (Q96) whose square is at least numerator / denominator · 2^192, for a positive price."""
    squared = -((-numerator << 192) // denominator)
    return isqrt(squared - 1) + 1


def price_ceiling(numerator: int, denominator: int) -> int:
    """Greatest sqrt price (Q96) whose square is at most numerator / denominator · 2^192."""
    return isqrt((numerator << 192) // denominator)


def _largest_down(start: int, bound: int, liquidity: int) -> int:
    """Largest token0 amount (fee taken off) that getNextSqrtPriceFromAmount0RoundingUp leads to `bound` or above.

    ceil(N·s / (N + a·s)) >= b  ⇔  N·s > (b - 1)·(N + a·s), with N = L·2^96; where the sum needs more than 256 bits the
    contract uses ceil(N / (N // s + a)), and so do we (only after a fall by a factor of 2^32 within one range).
    """
    numerator = liquidity << 96
    amount = mul_div_up(numerator, start - bound + 1, (bound - 1) * start) - 1
    if numerator + amount * start >> 256:
        amount = (numerator - 1) // (bound - 1) - numerator // start
    return amount


def _largest_up(start: int, bound: int, liquidity: int) -> int:
    """Largest token1 amount (fee taken off) that getNextSqrtPriceFromAmount1RoundingDown leads to `bound` or below."""
    return ((bound - start + 1) * liquidity - 1) >> 96
