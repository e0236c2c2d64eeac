"""Pools of Uniswap V2 and V3 behind one set of functions: quotes, swaps, marginal price, depth. State in, state out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isqrt

from agent.amm import v2
from agent.amm.errors import BeyondKnownTicks
from agent.amm.v3 import pool
from agent.amm.v3.pool import SwapState, swap
from agent.amm.v3.pool import quoter as quoter_v3
from agent.amm.v3.tick_math import MAX_SQRT_RATIO, MAX_TICK, MIN_TICK, Q96, get_sqrt_ratio_at_tick, price_limit
from agent.errors import ConfigError, Refused
from agent.model import PoolState, V2Pool, V3Pool
from agent.units import BPS, PIPS, mul_div_up

Q192 = Q96 * Q96
DEPTH_BPS = 200
"""V3 depth counts what the pool holds within this distance of its price."""


@dataclass(frozen=True, slots=True)
class SwapResult:
    """Result of a swap: amounts in base units, and the pool after it. `fee_raw` is the fee part of amount_in_raw.

    `amount_in_raw` and `amount_out_raw` are the amounts moved: a swap that meets its price limit fills in part. `ticks_crossed`
    counts initialised ticks; `steps` every stop at a tick, word border, limit or inside a range.
    """

    amount_in_raw: int
    amount_out_raw: int
    fee_raw: int
    after: PoolState
    ticks_crossed: int
    steps: int = 1


def token_out(state: PoolState, token_in: str) -> str:
    """The pool's other token. Raises ConfigError if token_in is not one of the pool's two."""
    return state.token1 if is_zero_for_one(state, token_in) else state.token0


def fee_pips(state: PoolState) -> int:
    """Fee on what comes in, in millionths."""
    return state.fee_pips


def is_zero_for_one(state: PoolState, token_in: str) -> bool:
    """True when token_in is token0. Raises ConfigError if it is neither of the pool's tokens."""
    if token_in == state.token0:
        return True
    if token_in == state.token1:
        return False
    raise ConfigError(f"token {token_in} is not in pool {state.address}", f"it trades {state.token0} and {state.token1}")


def quoter(state: PoolState, token_in: str) -> Callable[[int], int]:
    """Return quote_exact_in of this state for many amounts: the same results and errors, ten times as fast.

    V3 sums the input and output of its ranges once, so that a quote crosses fifty ticks as quickly as two.
    """
    zero_for_one = is_zero_for_one(state, token_in)
    if isinstance(state, V2Pool):
        return v2.quoter(*_reserves(state, zero_for_one), state.fee_pips)
    return quoter_v3(state, zero_for_one, lambda amount_in_raw: quote_exact_in(state, token_in, amount_in_raw))


def quote_exact_in(state: PoolState, token_in: str, amount_in_raw: int) -> int:
    """Base units out for amount_in_raw: swap_exact_in(…).amount_out_raw without building the state after it."""
    zero_for_one = is_zero_for_one(state, token_in)
    if isinstance(state, V2Pool):
        reserve_in, reserve_out = _reserves(state, zero_for_one)
        return v2.get_amount_out(amount_in_raw, reserve_in, reserve_out, state.fee_pips)
    return _swap_v3(state, zero_for_one, max(amount_in_raw, 0), None).amount_calculated


def swap_exact_in(state: PoolState, token_in: str, amount_in_raw: int, sqrt_price_limit_x96: int | None = None) -> SwapResult:
    """Swaps up to amount_in_raw base units of token_in, to the wei of UniswapV2Pair.swap (by Router02) or UniswapV3Pool.swap.

    Without a limit a V3 swap may go to the end of the price range, as through a router. Raises ContractRevert if the contract
    would, BeyondKnownTicks where the ticks read do not reach, ValueError for a limit on a V2 pair, which has none.
    """
    zero_for_one = is_zero_for_one(state, token_in)
    if isinstance(state, V2Pool):
        _no_limit(sqrt_price_limit_x96)
        reserve_in, reserve_out = _reserves(state, zero_for_one)
        amount_out = v2.get_amount_out(amount_in_raw, reserve_in, reserve_out, state.fee_pips)
        return _swapped_v2(state, zero_for_one, amount_in_raw, amount_out)
    ended = _swap_v3(state, zero_for_one, max(amount_in_raw, 0), sqrt_price_limit_x96)
    return _swapped_v3(state, ended, amount_in_raw - ended.amount_remaining, ended.amount_calculated)


def swap_exact_out(state: PoolState, token_in: str, amount_out_raw: int, sqrt_price_limit_x96: int | None = None) -> SwapResult:
    """Swaps token_in for up to amount_out_raw base units of the other token; limits and errors as in swap_exact_in."""
    zero_for_one = is_zero_for_one(state, token_in)
    if isinstance(state, V2Pool):
        _no_limit(sqrt_price_limit_x96)
        reserve_in, reserve_out = _reserves(state, zero_for_one)
        amount_in = v2.get_amount_in(amount_out_raw, reserve_in, reserve_out, state.fee_pips)
        return _swapped_v2(state, zero_for_one, amount_in, amount_out_raw)
    ended = _swap_v3(state, zero_for_one, -max(amount_out_raw, 0), sqrt_price_limit_x96)
    return _swapped_v3(state, ended, ended.amount_calculated, amount_out_raw + ended.amount_remaining)


def marginal_price(state: PoolState, token_in: str) -> Fraction:
    """token_out base units per token_in base unit for a vanishing trade, fee excluded, exact."""
    numerator, denominator = _price_terms(state, is_zero_for_one(state, token_in))
    return Fraction(numerator, denominator)


def price_move_bps(before: PoolState, after: PoolState, token_in: str) -> int:
    """Relative move of the marginal price between two states of a pool, in bps of the price before, rounded up; 0: unmoved."""
    zero_for_one = is_zero_for_one(before, token_in)
    old, old_unit = _price_terms(before, zero_for_one)
    new, new_unit = _price_terms(after, zero_for_one)
    return mul_div_up(abs(new * old_unit - old * new_unit), BPS, old * new_unit)


def max_input_raw(state: PoolState, token_in: str, impact_bps: int) -> int:
    """Return the largest input, base units, after which the price move is at most impact_bps, within known ticks and contract sizes.

    Exact: one unit more moves the price further, leaves the known ticks, or is not taken whole.
    """
    zero_for_one = is_zero_for_one(state, token_in)
    if isinstance(state, V3Pool):
        return pool.largest_in(state, zero_for_one, _impact_bound(state, zero_for_one, impact_bps))
    reserve_in, reserve_out = _reserves(state, zero_for_one)
    return _v2_max_in(reserve_in, reserve_out, state.fee_pips, impact_bps)


def runs_out_of_ticks(state: PoolState, token_in: str, impact_bps: int) -> bool:
    """True if the ticks read end before selling `token_in` has moved the pool's price by impact_bps."""
    if not isinstance(state, V3Pool):
        return False
    bound = _impact_bound(state, zero_for_one := is_zero_for_one(state, token_in), impact_bps)
    if zero_for_one:
        return state.known_from_tick > MIN_TICK and bound <= get_sqrt_ratio_at_tick(state.known_from_tick)
    return state.known_to_tick < MAX_TICK and bound >= get_sqrt_ratio_at_tick(state.known_to_tick)


def best_response(state: PoolState, token_in: str, price: Fraction, impact_bps: int) -> int:
    """Return the largest input whose last unit pays at least `price` after fee, within the impact bound.

    Input in base units, `price` in token_out per token_in. The trade to the marginal rate `price` in closed form (Angeris, Evans,
    Chitra, Boyd 2022): V2 stops where φ·Rin·Rout / (Rin + φ·x)² = price, V3 where (1 - fee)·marginal_price = price. 0 if even the
    first unit pays less.
    """
    zero_for_one = is_zero_for_one(state, token_in)
    if price <= 0:
        return max_input_raw(state, token_in, impact_bps)
    p, q, kept = price.numerator, price.denominator, PIPS - state.fee_pips
    if isinstance(state, V3Pool):
        bound = _impact_bound(state, zero_for_one, impact_bps)
        if zero_for_one:
            bound = max(bound, pool.price_floor(p * PIPS, q * kept))
        else:
            bound = min(bound, pool.price_ceiling(q * kept, p * PIPS))
        return pool.largest_in(state, zero_for_one, bound)
    reserve_in, reserve_out = _reserves(state, zero_for_one)
    best = (isqrt(kept * PIPS * reserve_in * reserve_out * q // p) - reserve_in * PIPS) // kept
    return min(best, _v2_max_in(reserve_in, reserve_out, state.fee_pips, impact_bps)) if best > 0 else 0


def depth(state: PoolState, token: str) -> int:
    """Return the base units of `token` that count as depth.

    V2: the reserve. V3: the amount in liquidity between the price and DEPTH_BPS away, as far as ticks are known; computed from
    liquidity, not from the pool's balance, which also holds uncollected fees and distant positions.
    """
    is_token0 = is_zero_for_one(state, token)
    if isinstance(state, V2Pool):
        return state.reserve0 if is_token0 else state.reserve1
    squared = state.sqrt_price_x96**2 * (BPS + (DEPTH_BPS if is_token0 else -DEPTH_BPS)) // BPS
    return pool.amount_between(state, not is_token0, isqrt(squared))


def _reserves(state: V2Pool, zero_for_one: bool) -> tuple[int, int]:
    return (state.reserve0, state.reserve1) if zero_for_one else (state.reserve1, state.reserve0)


def _price_terms(state: PoolState, zero_for_one: bool) -> tuple[int, int]:
    """Marginal price as an unreduced fraction."""
    if isinstance(state, V2Pool):
        reserve_in, reserve_out = _reserves(state, zero_for_one)
        return reserve_out, reserve_in
    squared = state.sqrt_price_x96**2
    return (squared, Q192) if zero_for_one else (Q192, squared)


def _no_limit(sqrt_price_limit_x96: int | None) -> None:
    if sqrt_price_limit_x96 is not None:
        raise ValueError("a V2 pair has no price limit")


def _swapped_v2(state: V2Pool, zero_for_one: bool, amount_in: int, amount_out: int) -> SwapResult:
    reserve_in, reserve_out = _reserves(state, zero_for_one)
    v2.require_pair_swaps(amount_in, amount_out, reserve_in, reserve_out)
    reserve_in, reserve_out = reserve_in + amount_in, reserve_out - amount_out
    reserve0, reserve1 = (reserve_in, reserve_out) if zero_for_one else (reserve_out, reserve_in)
    fee = mul_div_up(amount_in, state.fee_pips, PIPS)
    return SwapResult(amount_in, amount_out, fee, replace(state, reserve0=reserve0, reserve1=reserve1), 0)


def _swap_v3(state: V3Pool, zero_for_one: bool, amount_specified: int, limit_x96: int | None) -> SwapState:
    limit = price_limit(zero_for_one) if limit_x96 is None else limit_x96
    ended = swap(state, zero_for_one, amount_specified, limit)
    if ended.left_known_ticks:
        if amount_specified > 0:
            end = price_limit(zero_for_one)
            side, largest = "in", pool.largest_in(state, zero_for_one, end)
        else:
            side, largest = "out", pool.largest_out(state, zero_for_one)
        raise BeyondKnownTicks(state.address, side, abs(amount_specified), largest, state.known_from_tick, state.known_to_tick)
    return ended


def _swapped_v3(state: V3Pool, ended: SwapState, amount_in: int, amount_out: int) -> SwapResult:
    after = replace(state, sqrt_price_x96=ended.sqrt_price_x96, tick=ended.end_tick(), liquidity=ended.liquidity)
    return SwapResult(amount_in, amount_out, ended.fee, after, ended.ticks_crossed, ended.stops)


def _impact_bound(state: V3Pool, zero_for_one: bool, impact_bps: int) -> int:
    """Furthest sqrt price (Q96) at which move_bps is at most impact_bps."""
    kept = max(0, BPS - impact_bps)
    squared = state.sqrt_price_x96**2
    if zero_for_one:
        least = mul_div_up(squared, kept, BPS)
        return isqrt(least - 1) + 1 if least else 0
    return isqrt(squared * BPS // kept) if kept else MAX_SQRT_RATIO


def _v2_max_in(reserve_in: int, reserve_out: int, fee_pips: int, impact_bps: int) -> int:
    """max_in of a pair: the root of (Rin + φ·x)·(Rin + x) = Rin² / (1 - impact), then upwards.

    The output is rounded down, so that the pair's price moves less than in exact numbers: the root always fits.
    """
    most = v2.UINT112_MAX - reserve_in
    kept = max(0, BPS - impact_bps)
    if kept == 0 or reserve_in <= 0 or reserve_out <= 0:
        return max(most, 0) if reserve_in > 0 and reserve_out > 0 else 0

    def fits(amount_in: int) -> bool:
        if amount_in > most:
            return False
        left = reserve_out - v2.get_amount_out(amount_in, reserve_in, reserve_out, fee_pips)
        return left * reserve_in * BPS >= kept * reserve_out * (reserve_in + amount_in)

    linear = reserve_in * (2 * PIPS - fee_pips)
    constant = reserve_in * reserve_in * impact_bps * PIPS // kept
    root = (isqrt(linear * linear + 4 * (PIPS - fee_pips) * constant) - linear) // (2 * (PIPS - fee_pips))
    return _last_that_fits(fits, min(max(root, 0), most))


def _last_that_fits(fits: Callable[[int], bool], near: int) -> int:
    """Largest n with fits(n), for a monotone `fits` that holds at `near`: gallops up from there, then bisects."""
    step = 1
    while fits(near + step):
        near, step = near + step, 2 * step
    past = near + step
    while past - near > 1:
        middle = (near + past) // 2
        near, past = (middle, past) if fits(middle) else (near, middle)
    return near


# --- Time-weighted price of a V3 pool from the mean tick of its own oracle.


def twap_price(pool_state: V3Pool, token: str) -> Fraction:
    """Base units of the other token per base unit of `token` at twap_tick (OracleLibrary.getQuoteAtTick, unrounded).

    Raises Refused if the pool's observations do not reach back over the window.
    """
    if pool_state.twap_tick is None:
        raise Refused(
            f"pool {pool_state.address} has no time-weighted price",
            remedy="its observations do not reach back over the window: take a shorter window or another pool",
        )
    squared = get_sqrt_ratio_at_tick(pool_state.twap_tick) ** 2
    return Fraction(squared, Q192) if is_zero_for_one(pool_state, token) else Fraction(Q192, squared)
