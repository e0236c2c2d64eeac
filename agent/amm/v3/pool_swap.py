"""Swaps of a V3 pool over its ranges, the largest inputs within a price bound, and the outputs of
many inputs.

`swap` is UniswapV3Pool.swap (v3-core) without its transfers and oracle.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from enum import Enum
from math import isqrt
from operator import attrgetter
from typing import NamedTuple

from agent.amm.swap_errors import ContractRevert
from agent.amm.v3.math import (
    MAX_SQRT_RATIO,
    MAX_TICK,
    MIN_SQRT_RATIO,
    MIN_TICK,
    compute_swap_step,
    get_amount0_delta,
    get_amount1_delta,
    get_sqrt_ratio_at_tick,
    get_tick_at_sqrt_ratio,
    price_limit,
    whole_step,
)
from agent.amm.v3.state import V3State
from agent.amm.v3.tick_bitmap import next_initialized_tick_within_one_word
from agent.units import PIPS, mul_div_up

INT256_MAX = 2**255 - 1
UINT128_BITS = 128


class EndReason(Enum):
    """Reason why a swap cannot continue: the price range ends, the ticks are unknown, or the
    contract reverts.
    """

    PRICES = 0
    KNOWN_TICKS = 1
    REVERTS = 2


class TickRange(NamedTuple):
    """What one step of the contract's loop can pass: constant liquidity from `start_x96` to the
    stop at `end_x96`, which is an initialised tick (`crosses`) or a border of a bitmap word.

    `tick_beyond` and `liquidity_beyond` are the pool's after the stop. `end_reason` is the reason why the
    swap cannot continue there, else None.
    """

    start_x96: int
    end_x96: int
    liquidity: int
    tick_beyond: int
    liquidity_beyond: int
    crosses: bool
    end_reason: EndReason | None


def swap_ranges(pool: V3State, zero_for_one: bool) -> Iterator[TickRange]:
    """Yield the ranges that a swap passes, up to the one with an end reason.

    If the known ticks end, that one ends at the last known tick, or at once if the price is already
    beyond. If the price range ends, it ends at the last price that a swap can reach.
    """
    ticks = pool.ticks
    price_x96 = pool.sqrt_price_x96
    tick = pool.tick
    liquidity = pool.liquidity
    if not pool.known_from_tick - 1 <= tick <= pool.known_to_tick:
        yield TickRange(
            price_x96, price_x96, liquidity, tick, liquidity, False, EndReason.KNOWN_TICKS
        )
        return
    tick_index = bisect_right(ticks, tick, key=attrgetter("index"))
    end_reason = None
    while end_reason is None:
        stop_tick, crosses = next_initialized_tick_within_one_word(
            ticks, tick_index, tick, pool.tick_spacing, zero_for_one
        )
        tick = stop_tick - 1 if zero_for_one else stop_tick
        liquidity_beyond = liquidity
        if zero_for_one and MIN_TICK < pool.known_from_tick > stop_tick:
            crosses = False
            end_reason = EndReason.KNOWN_TICKS
            stop_x96 = min(price_x96, get_sqrt_ratio_at_tick(pool.known_from_tick))
        elif not zero_for_one and MAX_TICK > pool.known_to_tick < stop_tick:
            crosses = False
            end_reason = EndReason.KNOWN_TICKS
            stop_x96 = max(price_x96, get_sqrt_ratio_at_tick(pool.known_to_tick))
        elif not MIN_TICK < stop_tick < MAX_TICK:
            crosses = False
            end_reason = EndReason.PRICES
            stop_x96 = price_limit(zero_for_one)
        else:
            stop_x96 = get_sqrt_ratio_at_tick(stop_tick)
            if crosses:
                tick_index -= zero_for_one
                net_liquidity = ticks[tick_index].liquidity_net
                liquidity_beyond += -net_liquidity if zero_for_one else net_liquidity
                tick_index += not zero_for_one
            if not 0 <= liquidity_beyond < 1 << UINT128_BITS:
                end_reason = EndReason.REVERTS
        yield TickRange(price_x96, stop_x96, liquidity, tick, liquidity_beyond, crosses, end_reason)
        price_x96 = stop_x96
        liquidity = liquidity_beyond


class SwapState(NamedTuple):
    """Result of a swap.

    Amounts are in base units. `amount_remaining` is the input that is left; `fee` is part of the
    input. `stops` is the number of steps, each of which ends at a tick, a word border, the price
    limit or inside a range. `left_known_ticks` is true if the next step needs unknown ticks; the
    other fields then describe the state before that step.
    """

    amount_remaining: int
    amount_out: int
    fee: int
    sqrt_price_x96: int
    tick: int
    liquidity: int
    ticks_crossed: int
    stops: int
    left_known_ticks: bool


def swap(pool: V3State, zero_for_one: bool, amount_in: int, sqrt_price_limit_x96: int) -> SwapState:
    """Swap an exact input as UniswapV3Pool.swap. Fills in part at the price limit, and stops before
    a step that needs unknown ticks. Raises ContractRevert like the contract.
    """
    price_x96 = pool.sqrt_price_x96
    tick = pool.tick
    liquidity = pool.liquidity
    limit_x96 = sqrt_price_limit_x96
    remaining_raw = amount_in
    is_limit_valid = (
        MIN_SQRT_RATIO < limit_x96 < price_x96
        if zero_for_one
        else price_x96 < limit_x96 < MAX_SQRT_RATIO
    )
    if not is_limit_valid or not 0 < amount_in <= INT256_MAX:
        raise _refusal(amount_in)
    nearer_of = max if zero_for_one else min
    fee_pips = pool.fee_toward(zero_for_one)
    paid_raw = fees = ticks_crossed = stops = 0
    left_known_ticks = False
    for tick_range in swap_ranges(pool, zero_for_one):
        reached_x96, step_in, step_out, fee = compute_swap_step(
            price_x96, nearer_of(tick_range.end_x96, limit_x96), liquidity, remaining_raw, fee_pips
        )
        is_passed = reached_x96 == tick_range.end_x96
        if is_passed and tick_range.end_reason is not None:
            if tick_range.end_reason is EndReason.REVERTS:
                raise ContractRevert(
                    "LiquidityMath.addDelta",
                    "LS" if tick_range.liquidity_beyond < 0 else "LA",
                    "the ticks do not fit this pool's liquidity",
                )
            if tick_range.end_reason is EndReason.KNOWN_TICKS and reached_x96 != limit_x96:
                # the contract's target is further away, so its amounts for this step differ
                left_known_ticks = True
                break
            is_passed = False
        stops += 1
        fees += fee
        remaining_raw -= step_in + fee
        paid_raw += step_out
        if is_passed:
            ticks_crossed += tick_range.crosses
            tick = tick_range.tick_beyond
            liquidity = tick_range.liquidity_beyond
        elif reached_x96 != price_x96:
            # If the price did not move, the tick stays: after a downward crossing it is one below
            # that of the price.
            tick = get_tick_at_sqrt_ratio(reached_x96)
        price_x96 = reached_x96
        if not remaining_raw or price_x96 == limit_x96:
            break
    return SwapState(
        remaining_raw,
        paid_raw,
        fees,
        price_x96,
        tick,
        liquidity,
        ticks_crossed,
        stops,
        left_known_ticks,
    )


def _refusal(amount_in: int) -> ContractRevert:
    """Return the failed requirement at the start of UniswapV3Pool.swap, or of the int256 cast of
    its callers.
    """
    if amount_in <= 0:
        return ContractRevert("UniswapV3Pool.swap", "AS", "trade more than zero")
    if amount_in > INT256_MAX:
        return ContractRevert("SafeCast.toInt256", "", "trade less than 2^255 base units")
    return ContractRevert(
        "UniswapV3Pool.swap",
        "SPL",
        "the price limit is on the wrong side of the price, or the pool is at the end of its range",
    )


def _ranges_with_totals(pool: V3State, zero_for_one: bool) -> Iterator[tuple[int, int, TickRange]]:
    """Yield the input (with fee) and the output of all whole ranges before a range, and the
    range.
    """
    total_in = 0
    total_out = 0
    fee_pips = pool.fee_toward(zero_for_one)
    for tick_range in swap_ranges(pool, zero_for_one):
        yield total_in, total_out, tick_range
        amount_in, amount_out, fee = whole_step(
            tick_range.start_x96, tick_range.end_x96, tick_range.liquidity, fee_pips
        )
        total_in = total_in + amount_in + fee
        total_out += amount_out


def range_at(pool: V3State, zero_for_one: bool, price_x96: int) -> tuple[int, int, TickRange]:
    """Return the range that leads past a sqrt price (Q96), or the last one before it, with the
    input (with fee) and the output of all whole ranges before.
    """
    return next(
        (total_in, total_out, tick_range)
        for total_in, total_out, tick_range in _ranges_with_totals(pool, zero_for_one)
        if tick_range.end_reason is not None
        or (tick_range.end_x96 < price_x96 if zero_for_one else tick_range.end_x96 > price_x96)
    )


def largest_in(pool: V3State, zero_for_one: bool, bound_x96: int) -> int:
    """Return the largest exact input, base units with fee, that moves the sqrt price at most to the
    bound and stays within known ticks. One more unit would pass the bound, leave the window, or
    fill only in part at the end of the price range. 0 if the pool is already past the bound.
    """
    reachable_x96 = _reachable_price_x96(zero_for_one, bound_x96)
    if pool.sqrt_price_x96 < reachable_x96 if zero_for_one else pool.sqrt_price_x96 > reachable_x96:
        return 0
    total_in, _, tick_range = range_at(pool, zero_for_one, reachable_x96)
    fee_pips = pool.fee_toward(zero_for_one)
    start_x96 = tick_range.start_x96
    end_x96 = tick_range.end_x96
    liquidity = tick_range.liquidity
    end_reason = tick_range.end_reason
    if (
        end_reason is EndReason.PRICES and reachable_x96 == end_x96
    ):  # the swap stops there and takes no more than needed
        amount_in, _, fee = whole_step(start_x96, end_x96, liquidity, fee_pips)
        return min(total_in + amount_in + fee, INT256_MAX)
    if end_reason in (
        EndReason.KNOWN_TICKS,
        EndReason.REVERTS,
    ):  # stop short of this price: the contract reverts at it, or its behaviour is unknown
        reachable_x96 = (
            max(reachable_x96, end_x96 + 1) if zero_for_one else min(reachable_x96, end_x96 - 1)
        )
    if liquidity > 0 and (
        start_x96 >= reachable_x96 if zero_for_one else start_x96 <= reachable_x96
    ):
        net_in = (
            _largest_token0_in(start_x96, reachable_x96, liquidity)
            if zero_for_one
            else _largest_token1_in(start_x96, reachable_x96, liquidity)
        )
        total_in += mul_div_up(net_in + 1, PIPS, PIPS - fee_pips) - 1
    return min(total_in, INT256_MAX)


def amount_between(pool: V3State, zero_for_one: bool, bound_x96: int) -> int:
    """Return the base units of the output token for a move of the sqrt price to the bound, within
    known ticks, rounded down.
    """
    reachable_x96 = _reachable_price_x96(zero_for_one, bound_x96)
    if (
        pool.sqrt_price_x96 <= reachable_x96
        if zero_for_one
        else pool.sqrt_price_x96 >= reachable_x96
    ):
        return 0
    amount_delta = get_amount1_delta if zero_for_one else get_amount0_delta
    nearer_of = max if zero_for_one else min
    total_out = 0
    for tick_range in swap_ranges(pool, zero_for_one):
        stop_x96 = nearer_of(tick_range.end_x96, reachable_x96)
        total_out += amount_delta(tick_range.start_x96, stop_x96, tick_range.liquidity, False)
        if tick_range.end_reason is not None or stop_x96 == reachable_x96:
            break
    return total_out


def _reachable_price_x96(zero_for_one: bool, bound_x96: int) -> int:
    """Return the bound, or the last price that a swap can reach before it."""
    last_price_x96 = price_limit(zero_for_one)
    return max(bound_x96, last_price_x96) if zero_for_one else min(bound_x96, last_price_x96)


def min_sqrt_price_x96(numerator: int, denominator: int) -> int:
    """Return the least sqrt price (Q96) whose square is at least numerator / denominator · 2^192,
    for a positive price.
    """
    price_x192 = -((-numerator << 192) // denominator)
    return isqrt(price_x192 - 1) + 1


def max_sqrt_price_x96(numerator: int, denominator: int) -> int:
    """Return the greatest sqrt price (Q96) with a square up to numerator / denominator · 2^192."""
    return isqrt((numerator << 192) // denominator)


def _largest_token0_in(start_x96: int, bound_x96: int, liquidity: int) -> int:
    """Return the largest token0 amount (after fee) for which getNextSqrtPriceFromAmount0RoundingUp
    stays at or above `bound_x96`. ceil(N·s / (N + a·s)) >= b ⇔ N·s > (b - 1)·(N + a·s), with N =
    L·2^96. If the sum exceeds 256 bits, which takes a fall by a factor of 2^32 within one range,
    contract and function use ceil(N / (N // s + a)).
    """
    numerator = liquidity << 96
    amount_in = mul_div_up(numerator, start_x96 - bound_x96 + 1, (bound_x96 - 1) * start_x96) - 1
    if numerator + amount_in * start_x96 >> 256:
        amount_in = (numerator - 1) // (bound_x96 - 1) - numerator // start_x96
    return amount_in


def _largest_token1_in(start_x96: int, bound_x96: int, liquidity: int) -> int:
    """Return the largest token1 amount (after fee) for which
    getNextSqrtPriceFromAmount1RoundingDown stays at or below `bound_x96`.
    """
    return ((bound_x96 - start_x96 + 1) * liquidity - 1) >> 96


Quote = Callable[[int], int]


def quoter(pool: V3State, zero_for_one: bool, fallback: Quote) -> Quote:
    """Return a function from base units in to base units out, which walks each range once. It calls
    `fallback` for amounts that are not positive, and for amounts that the known ticks cannot take
    in full.
    """
    price_x96 = pool.sqrt_price_x96
    last_price_x96 = price_limit(zero_for_one)
    if price_x96 <= last_price_x96 if zero_for_one else price_x96 >= last_price_x96:
        return fallback
    remaining_ranges = _ranges_with_totals(pool, zero_for_one)
    totals_so_far = [next(remaining_ranges)]
    total_inputs = [0]
    fee_pips = pool.fee_toward(zero_for_one)

    def quote(amount_in: int) -> int:
        if amount_in <= 0:
            return fallback(amount_in)
        while (
            total_inputs[-1] <= amount_in and (totals := next(remaining_ranges, None)) is not None
        ):
            totals_so_far.append(totals)
            total_inputs.append(totals[0])
        total_in, total_out, tick_range = totals_so_far[bisect_right(total_inputs, amount_in) - 1]
        reached_x96, _, amount_out, _ = compute_swap_step(
            tick_range.start_x96,
            tick_range.end_x96,
            tick_range.liquidity,
            amount_in - total_in,
            fee_pips,
        )
        if tick_range.end_reason is not None and reached_x96 == tick_range.end_x96:
            return fallback(amount_in)
        return total_out + amount_out

    return quote
