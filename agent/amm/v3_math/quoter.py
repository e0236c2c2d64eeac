"""Exact outputs for exact inputs of one V3 pool state and direction, at the price of a bisection and one step each.

Everything that does not depend on the amount is worked out before: what the first range takes and pays, and by the table
what every further stop does. The arithmetic is that of swap_math for a step that stops short of its target, with the
amounts that nobody asks a quote for left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from agent.amm.v3_math.steps import next_step
from agent.amm.v3_math.swap_math import whole_step
from agent.amm.v3_math.table import stop_table
from agent.amm.v3_math.tick_bitmap import tick_table
from agent.amm.v3_math.tick_math import price_limit
from agent.model import V3Pool
from agent.units import PIPS

Quote = Callable[[int], int]
Row = tuple[int, int, int, int, int]
Known = tuple[int, tuple[int, ...], tuple[Row, ...]]
"""The input that leads past the rows, the inputs that lead to each, and the rows, all from the pool's own price on.

A row is (input, output, sqrt price, liquidity, liquidity · 2^96), the last two of the range beyond a stop.
"""

WIDEST_SPACING = 1700
"""Up to here a word of 256 ticks spans a price ratio below 2^64, and the contract never leaves its precise formula.

A step from √P down to √Q needs L·2^96·√P/√Q in 256 bits, with L below 2^128: √P/√Q below 2^32.
"""
NOTHING: Known = (0, (), ())


def quoter(pool: V3Pool, zero_for_one: bool, otherwise: Quote) -> Quote:
    """Base units out by base units in. `otherwise` answers what is not a whole exact input within the known ticks."""
    price, tick, liquidity = pool.sqrt_price_x96, pool.tick, pool.liquidity
    last = price_limit(zero_for_one)
    if pool.tick_spacing > WIDEST_SPACING or (price <= last if zero_for_one else price >= last):
        return otherwise
    ticks = tick_table(pool.ticks)
    at = bisect_right(ticks.indices, tick)
    stop, target, beyond, _, end = next_step(pool, ticks, at, tick, price, liquidity, zero_for_one)
    step_in, first_out, fee = whole_step(price, target, liquidity, pool.fee_pips)
    first_cost = step_in + fee

    def know(amount: int) -> Known | None:
        """Rows up to beyond the amount; None when the pool does not take it whole from known ticks."""
        if end is not None:
            return None
        table, sums, start = stop_table(pool, zero_for_one, stop, beyond)
        cost, out, _, _, _ = sums.rows[start]
        ahead, paid = first_cost - cost, first_out - out
        sums = table.reach(sums, cost=amount - ahead)
        if sums.end_cost + ahead <= amount:
            return None
        rows = tuple([(cost + ahead, out + paid, price, depth, depth << 96) for cost, out, _, price, depth in sums.rows[start:]])
        return sums.end_cost + ahead, tuple([row[0] for row in rows]), rows

    make = _falling if zero_for_one else _rising
    return make(price, liquidity, PIPS - pool.fee_pips, first_cost, know, otherwise)


def _falling(price: int, liquidity: int, kept: int, first_cost: int, know: Callable[[int], Known | None], otherwise: Quote) -> Quote:
    """token0 in: getNextSqrtPriceFromAmount0RoundingUp and getAmount1Delta, as P − ⌈N·P/(N + a·P)⌉ = ⌊a·P·P/(N + a·P)⌋."""
    shifted, nearest, known = liquidity << 96, max(first_cost, 1), NOTHING

    def quote(amount: int) -> int:
        nonlocal known
        if amount < nearest:
            if amount <= 0:
                return otherwise(amount)
            product = amount * kept // PIPS * price
            return product * price // (shifted + product) * liquidity >> 96
        end, costs, rows = known
        if amount >= end:
            more = know(amount)
            if more is None:
                return otherwise(amount)
            end, costs, rows = known = more
        cost, out, start, depth, numerator = rows[bisect_right(costs, amount) - 1]
        product = (amount - cost) * kept // PIPS * start
        return out + (product * start // (numerator + product) * depth >> 96)

    return quote


def _rising(price: int, liquidity: int, kept: int, first_cost: int, know: Callable[[int], Known | None], otherwise: Quote) -> Quote:
    """token1 in: getNextSqrtPriceFromAmount1RoundingDown and getAmount0Delta, two floor divisions in one."""
    shifted, nearest, known = liquidity << 96, max(first_cost, 1), NOTHING

    def quote(amount: int) -> int:
        nonlocal known
        if amount < nearest:
            if amount <= 0:
                return otherwise(amount)
            rise = (amount * kept // PIPS << 96) // liquidity
            return shifted * rise // ((price + rise) * price)
        end, costs, rows = known
        if amount >= end:
            more = know(amount)
            if more is None:
                return otherwise(amount)
            end, costs, rows = known = more
        cost, out, start, depth, numerator = rows[bisect_right(costs, amount) - 1]
        rise = ((amount - cost) * kept // PIPS << 96) // depth
        return out + numerator * rise // ((start + rise) * start)

    return quote
