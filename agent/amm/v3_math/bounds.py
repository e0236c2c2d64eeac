"""How much a V3 pool can take or give before its price passes a bound: closed forms per range of constant liquidity."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from math import isqrt
from typing import NamedTuple

from agent.amm.v3_math.sqrt_price_math import get_amount0_delta, get_amount1_delta
from agent.amm.v3_math.swap import INT256_MAX, price_limit
from agent.amm.v3_math.swap_math import compute_swap_step
from agent.amm.v3_math.tick_bitmap import next_initialized_tick_within_one_word, tick_table
from agent.amm.v3_math.tick_math import MAX_TICK, MIN_TICK, get_sqrt_ratio_at_tick
from agent.model import V3Pool
from agent.units import PIPS, mul_div_up


class Range(NamedTuple):
    """One step of a swap: from one price to the next stop. Beyond an unknown end (`known` false) nothing may be counted."""

    start_x96: int
    end_x96: int
    liquidity: int
    known: bool


def ranges(pool: V3Pool, zero_for_one: bool) -> Iterator[Range]:
    """The steps that UniswapV3Pool.swap takes in one direction, to the end of the known ticks (last entry: known false)."""
    table = tick_table(pool.ticks)
    indices, nets = table.indices, table.nets
    price, tick, liquidity = pool.sqrt_price_x96, pool.tick, pool.liquidity
    if not pool.known_from_tick - 1 <= tick <= pool.known_to_tick:
        yield Range(price, price, liquidity, False)
        return
    i = bisect_right(indices, tick)
    while MIN_TICK <= tick < MAX_TICK:
        stop, initialized = next_initialized_tick_within_one_word(indices, i, tick, pool.tick_spacing, zero_for_one)
        if zero_for_one:
            stop = max(stop, MIN_TICK)
            known = stop >= pool.known_from_tick
            stop = max(stop, pool.known_from_tick)
        else:
            stop = min(stop, MAX_TICK)
            known = stop <= pool.known_to_tick
            stop = min(stop, pool.known_to_tick)
        end = get_sqrt_ratio_at_tick(stop)
        if not known:  # a price at or past the window's border has nowhere to go
            end = min(end, price) if zero_for_one else max(end, price)
        yield Range(price, end, liquidity, known)
        if not known:
            return
        if initialized:
            liquidity += -nets[i - 1] if zero_for_one else nets[i]
            i += -1 if zero_for_one else 1
        price, tick = end, stop - 1 if zero_for_one else stop


def largest_in(pool: V3Pool, zero_for_one: bool, bound_x96: int) -> int:
    """Largest exact input, base units with fee, that leaves the sqrt price at or before the bound and within the known ticks.

    One unit more would pass the bound, leave the window, or fill only in part at the end of the price range. 0 when the
    pool already stands past the bound.
    """
    last = price_limit(zero_for_one)
    bound = max(bound_x96, last) if zero_for_one else min(bound_x96, last)
    fee_pips = pool.fee_pips
    consumed = 0
    for start, stop, liquidity, known in ranges(pool, zero_for_one):
        end = stop
        if known and bound == last:  # the swap stops at the last price by itself and takes no more than what leads there
            end = max(stop, last) if zero_for_one else min(stop, last)
        if not known:  # the price must stay strictly inside the window: where the contract's own step ends is not known
            bound = max(bound, stop + 1) if zero_for_one else min(bound, stop - 1)
        if start < bound if zero_for_one else start > bound:
            break
        if end >= bound if zero_for_one else end <= bound:
            delta_in = get_amount0_delta if zero_for_one else get_amount1_delta
            amount_in = delta_in(start, end, liquidity, True)
            consumed += amount_in + mul_div_up(amount_in, fee_pips, PIPS - fee_pips)
            if end != last:
                continue
        elif liquidity > 0:
            less_fee = _largest_down(start, bound, liquidity) if zero_for_one else _largest_up(start, bound, liquidity)
            consumed += mul_div_up(less_fee + 1, PIPS, PIPS - fee_pips) - 1
        break
    return min(consumed, INT256_MAX)


def largest_out(pool: V3Pool, zero_for_one: bool) -> int:
    """Largest exact output, base units, that the known ticks can quote."""
    total = 0
    for start, end, liquidity, known in ranges(pool, zero_for_one):
        if zero_for_one:
            amount_out = get_amount1_delta(end, start, liquidity, False)
        else:
            amount_out = get_amount0_delta(start, end, liquidity, False)
        if known:
            total += amount_out
            continue
        inside, past = 0, amount_out  # the last range is left when the price comes to its end, which rounding may hasten
        while past - inside > 1:
            middle = (inside + past) // 2
            if compute_swap_step(start, end, liquidity, -middle, pool.fee_pips)[0] == end:
                past = middle
            else:
                inside = middle
        total += inside
    return min(total, INT256_MAX)


def amount_between(pool: V3Pool, zero_for_one: bool, bound_x96: int) -> int:
    """Base units of the token that goes out while the sqrt price moves to the bound, as far as ticks are known, rounded down."""
    total = 0
    for start, end, liquidity, known in ranges(pool, zero_for_one):
        stop = max(end, bound_x96) if zero_for_one else min(end, bound_x96)
        delta = get_amount1_delta if zero_for_one else get_amount0_delta
        total += delta(start, stop, liquidity, False)
        if not known or stop == bound_x96:
            break
    return total


def price_floor(numerator: int, denominator: int) -> int:
    """Least sqrt price (Q96) whose square is at least numerator / denominator · 2^192."""
    squared = -((-numerator << 192) // denominator)
    return isqrt(squared - 1) + 1 if squared > 0 else 0


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
