"""Swaps of a V3 pool over many ranges, their bounds, and exact outputs of many inputs.

`swap` is UniswapV3Pool.swap (v3-core) without its transfers and oracle.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from math import isqrt
from typing import TYPE_CHECKING, NamedTuple

from agent.amm.pools import ContractRevert
from agent.amm.v3.math import (
    MAX_SQRT_RATIO,
    MIN_SQRT_RATIO,
    compute_swap_step,
    get_amount0_delta,
    get_amount1_delta,
    get_tick_at_sqrt_ratio,
    price_limit,
    whole_step,
)
from agent.amm.v3.tick_bitmap import End, next_step, stop_table, tick_table
from agent.units import PIPS, mul_div_up

if TYPE_CHECKING:
    from agent.amm.v3.pool import V3Pool

WIDEST_SPACING = 1700
"""Largest spacing for which a word of 256 ticks spans a price ratio below 2^64, so that the
contract never leaves its precise formula.

A step from √P down to √Q needs L·2^96·√P/√Q in 256 bits, with L below 2^128: √P/√Q below 2^32.
"""

INT256_MAX = 2**255 - 1


class SwapState(NamedTuple):
    """Result of a swap.

    Amounts are in base units. `amount_remaining` has the sign of the specified amount;
    `amount_calculated` is the other side, unsigned; `fee` is part of the input. `stops` is the
    number of steps, each of which ends at a tick, a word border, the price limit or inside a range.
    `tick` is that of the last stop; if the swap ended inside a range (`inside`), the pool's tick
    follows from the price. `left_known_ticks` is true if the next step needs unknown ticks; the
    other fields then describe the state before that step.
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
        """Return the pool's tick after the swap."""
        return get_tick_at_sqrt_ratio(self.sqrt_price_x96) if self.inside else self.tick


def swap(
    pool: V3Pool, zero_for_one: bool, amount_specified: int, sqrt_price_limit_x96: int
) -> SwapState:
    """Swap as UniswapV3Pool.swap: amount_specified > 0 is an exact input, < 0 an exact output.
    Fills in part at the price limit.

    After the first stop it uses the pool's prefix sums, so the loop runs at most three times,
    however many ticks the swap crosses. It stops before a step that needs unknown ticks. Raises
    ContractRevert like the contract.
    """
    price, tick, liquidity = pool.sqrt_price_x96, pool.tick, pool.liquidity
    limit, remaining, exact_in = sqrt_price_limit_x96, amount_specified, amount_specified > 0
    allowed = MIN_SQRT_RATIO < limit < price if zero_for_one else price < limit < MAX_SQRT_RATIO
    if not allowed or not remaining or not -INT256_MAX <= remaining <= INT256_MAX:
        raise _refusal(remaining)
    ticks = tick_table(pool.ticks)
    calculated = fees = ticks_crossed = stops = 0
    inside = left_known = False
    at = bisect_right(ticks.indices, tick)
    while remaining and price != limit:
        stop, next_price, beyond, at_beyond, end = next_step(
            pool, ticks, at, tick, price, liquidity, zero_for_one
        )
        if zero_for_one:
            target = limit if next_price < limit else next_price
        else:
            target = limit if next_price > limit else next_price
        reached, amount_in, amount_out, fee = compute_swap_step(
            price, target, liquidity, remaining, pool.fee_pips
        )
        if end is End.KNOWLEDGE and reached == next_price != limit:
            # the contract's target is further away, so its amounts for this step differ
            left_known = True
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
            # A step ends inside a range only if the amount is used up or the price limit is
            # reached. If the price did not move, the tick stays; after a downward crossing it is
            # one below that of the price.
            inside = reached != price
            price = reached
            break
        if end is End.REVERTS:
            raise ContractRevert(
                "LiquidityMath.addDelta",
                "LS" if beyond < 0 else "LA",
                "the ticks do not fit this pool's liquidity",
            )
        ticks_crossed += at != at_beyond
        price, tick, liquidity, at = reached, stop - 1 if zero_for_one else stop, beyond, at_beyond
        if stops == 1 and remaining and price != limit:
            table, sums, start = stop_table(pool, zero_for_one, stop, liquidity)
            cost, out, fee, skipped, price, tick, liquidity = table.skip(
                sums, start, remaining, limit
            )
            remaining += -cost if exact_in else out
            calculated += out if exact_in else cost
            fees, stops, before = fees + fee, stops + skipped, at
            at = bisect_right(ticks.indices, tick)
            ticks_crossed += abs(at - before)
    return SwapState(
        remaining,
        calculated,
        fees,
        price,
        tick,
        liquidity,
        ticks_crossed,
        stops,
        inside,
        left_known,
    )


def _refusal(amount_specified: int) -> ContractRevert:
    """Return the failed requirement at the start of UniswapV3Pool.swap, or of the int256 cast of
    its callers.
    """
    if amount_specified == 0:
        return ContractRevert("UniswapV3Pool.swap", "AS", "trade more than zero")
    if not -INT256_MAX <= amount_specified <= INT256_MAX:
        return ContractRevert("SafeCast.toInt256", "", "trade less than 2^255 base units")
    return ContractRevert(
        "UniswapV3Pool.swap",
        "SPL",
        "the price limit is on the wrong side of the price, or the pool is at the end of its range",
    )


class Range(NamedTuple):
    """The range in which a swap meets a price, or the last one it can reach before the price.

    `cost` (base units in, with fee) and `out` are the totals of all whole steps up to `start_x96`.
    `end` is the reason why nothing lies beyond `end_x96`, else None.
    """

    cost: int
    out: int
    start_x96: int
    end_x96: int
    liquidity: int
    end: End | None


def range_at(pool: V3Pool, zero_for_one: bool, price_x96: int) -> Range:
    """Return the range that holds a sqrt price (Q96) between the pool's own and the end of the
    price range. At a stop, that is the range before the stop.
    """
    ticks = tick_table(pool.ticks)
    start, liquidity = pool.sqrt_price_x96, pool.liquidity
    at = bisect_right(ticks.indices, pool.tick)
    stop, stop_x96, beyond, _, end = next_step(
        pool, ticks, at, pool.tick, start, liquidity, zero_for_one
    )
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
    """Return the largest exact input, base units with fee, that moves the sqrt price at most to the
    bound and stays within known ticks. One more unit would pass the bound, leave the window, or
    fill only in part at the end of the price range. 0 if the pool is already past the bound.
    """
    bound = _within_prices(zero_for_one, bound_x96)
    if pool.sqrt_price_x96 < bound if zero_for_one else pool.sqrt_price_x96 > bound:
        return 0
    cost, _, start, end_x96, liquidity, end = range_at(pool, zero_for_one, bound)
    if end is End.PRICES and bound == end_x96:  # the swap stops there and takes no more than needed
        amount_in, _, fee = whole_step(start, end_x96, liquidity, pool.fee_pips)
        return min(cost + amount_in + fee, INT256_MAX)
    if end in (
        End.KNOWLEDGE,
        End.REVERTS,
    ):  # stop short of this price: the contract reverts at it, or its behaviour is unknown
        bound = max(bound, end_x96 + 1) if zero_for_one else min(bound, end_x96 - 1)
    if liquidity > 0 and (start >= bound if zero_for_one else start <= bound):
        less_fee = (
            _largest_down(start, bound, liquidity)
            if zero_for_one
            else _largest_up(start, bound, liquidity)
        )
        cost += mul_div_up(less_fee + 1, PIPS, PIPS - pool.fee_pips) - 1
    return min(cost, INT256_MAX)


def largest_out(pool: V3Pool, zero_for_one: bool) -> int:
    """Return the largest exact output, in base units, that can be quoted from known ticks. Valid
    only if a larger output would leave them.
    """
    _, out, start, end_x96, liquidity, _ = range_at(pool, zero_for_one, price_limit(zero_for_one))
    _, past, _ = whole_step(start, end_x96, liquidity, pool.fee_pips)
    inside = 0
    while past - inside > 1:  # rounding may let the price reach the end of the last range early
        middle = (inside + past) // 2
        if compute_swap_step(start, end_x96, liquidity, -middle, pool.fee_pips)[0] == end_x96:
            past = middle
        else:
            inside = middle
    return min(out + inside, INT256_MAX)


def amount_between(pool: V3Pool, zero_for_one: bool, bound_x96: int) -> int:
    """Return the base units of the output token for a move of the sqrt price to the bound, within
    known ticks, rounded down.
    """
    bound = _within_prices(zero_for_one, bound_x96)
    if pool.sqrt_price_x96 <= bound if zero_for_one else pool.sqrt_price_x96 >= bound:
        return 0
    _, out, start, end_x96, liquidity, _ = range_at(pool, zero_for_one, bound)
    stop = max(end_x96, bound) if zero_for_one else min(end_x96, bound)
    delta = get_amount1_delta if zero_for_one else get_amount0_delta
    return out + delta(start, stop, liquidity, False)


def _within_prices(zero_for_one: bool, bound_x96: int) -> int:
    """Return the bound, or the last price that a swap can reach before it."""
    last = price_limit(zero_for_one)
    return max(bound_x96, last) if zero_for_one else min(bound_x96, last)


def price_floor(numerator: int, denominator: int) -> int:
    """Return the least sqrt price (Q96) whose square is at least numerator / denominator · 2^192,
    for a positive price.
    """
    squared = -((-numerator << 192) // denominator)
    return isqrt(squared - 1) + 1


def price_ceiling(numerator: int, denominator: int) -> int:
    """Return the greatest sqrt price (Q96) with a square up to numerator / denominator · 2^192."""
    return isqrt((numerator << 192) // denominator)


def _largest_down(start: int, bound: int, liquidity: int) -> int:
    """Return the largest token0 amount (after fee) for which getNextSqrtPriceFromAmount0RoundingUp
    stays at or above `bound`. ceil(N·s / (N + a·s)) >= b ⇔ N·s > (b - 1)·(N + a·s), with N =
    L·2^96. If the sum exceeds 256 bits, which takes a fall by a factor of 2^32 within one range,
    contract and function use ceil(N / (N // s + a)).
    """
    numerator = liquidity << 96
    amount = mul_div_up(numerator, start - bound + 1, (bound - 1) * start) - 1
    if numerator + amount * start >> 256:
        amount = (numerator - 1) // (bound - 1) - numerator // start
    return amount


def _largest_up(start: int, bound: int, liquidity: int) -> int:
    """Return the largest token1 amount (after fee) for which
    getNextSqrtPriceFromAmount1RoundingDown stays at or below `bound`.
    """
    return ((bound - start + 1) * liquidity - 1) >> 96


Quote = Callable[[int], int]
Row = tuple[int, int, int, int, int]
Known = tuple[int, tuple[int, ...], tuple[Row, ...]]
"""(input beyond which rows are missing, input of each row, rows), starting at the pool's price.

A row is (input, output, sqrt price, liquidity, liquidity · 2^96), the last two for the range beyond
the stop.
"""
NOTHING: Known = (0, (), ())


def quoter(pool: V3Pool, zero_for_one: bool, otherwise: Quote) -> Quote:
    """Return a function from base units in to base units out. It calls `otherwise` for amounts that
    are not positive, and for amounts that the known ticks cannot take in full.
    """
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
        """Return rows that reach beyond the amount; None if known ticks cannot take all of it."""
        if end is not None:
            return None
        table, sums, start = stop_table(pool, zero_for_one, stop, beyond)
        cost, out, _, _, _ = sums.rows[start]
        ahead, paid = first_cost - cost, first_out - out
        sums = table.reach(sums, cost=amount - ahead)
        if sums.end_cost + ahead <= amount:
            return None
        rows = tuple(
            [
                (cost + ahead, out + paid, price, depth, depth << 96)
                for cost, out, _, price, depth in sums.rows[start:]
            ]
        )
        return sums.end_cost + ahead, tuple([row[0] for row in rows]), rows

    make = _falling if zero_for_one else _rising
    return make(price, liquidity, PIPS - pool.fee_pips, first_cost, know, otherwise)


def _falling(
    price: int,
    liquidity: int,
    kept: int,
    first_cost: int,
    know: Callable[[int], Known | None],
    otherwise: Quote,
) -> Quote:
    """Return a quoter of token0 inputs: getNextSqrtPriceFromAmount0RoundingUp and getAmount1Delta,
    as P − ⌈N·P/(N + a·P)⌉ = ⌊a·P·P/(N + a·P)⌋.
    """
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


def _rising(
    price: int,
    liquidity: int,
    kept: int,
    first_cost: int,
    know: Callable[[int], Known | None],
    otherwise: Quote,
) -> Quote:
    """Return a quoter of token1 inputs: getNextSqrtPriceFromAmount1RoundingDown and
    getAmount0Delta, with two floor divisions joined into one.
    """
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
