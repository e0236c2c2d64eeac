"""Arithmetic of Uniswap V3, to the bit of v3-core: TickMath, SqrtPriceMath, and SwapMath for one
step of a swap within a range of constant liquidity. Prices are in Q96.

compute_swap_step inlines the amount formulas because it is the innermost loop of every quote; a
property test compares the two. A step without liquidity costs nothing and reaches its target.
"""

from __future__ import annotations

from functools import lru_cache
from math import isqrt

from agent.amm.swap_errors import ContractRevert
from agent.units import PIPS, UINT256_MAX

MIN_TICK = -887272
MAX_TICK = 887272
MIN_SQRT_RATIO = 4295128739
"""get_sqrt_ratio_at_tick(MIN_TICK)."""
MAX_SQRT_RATIO = 1461446703485210103287273052203988822378723970342
"""get_sqrt_ratio_at_tick(MAX_TICK); no pool reaches it."""
Q96 = 1 << 96


def _powers() -> tuple[int, ...]:
    """Return 1.0001^-(2^(i-1)) for i = 0…19 in Q128, rounded to nearest: TickMath's factors."""
    bits = 512
    factor_q512 = isqrt((10_000 << 2 * bits) // 10_001)
    factors = []
    for _ in range(20):
        factors.append((factor_q512 + (1 << bits - 129)) >> bits - 128)
        factor_q512 = factor_q512 * factor_q512 >> bits
    return tuple(factors)


_SQRT_RATIO_FACTORS = _powers()
_TICKS_PER_OCTAVE_Q64 = 255738958999603826347141
"""2 / log2(1.0001) in Q64: ticks per doubling of the sqrt price."""
_LOG_BITS = 14


def price_limit(zero_for_one: bool) -> int:
    """Return the default price limit of routers: one inside the end of the price range."""
    return MIN_SQRT_RATIO + 1 if zero_for_one else MAX_SQRT_RATIO - 1


@lru_cache(maxsize=1 << 16)
def get_sqrt_ratio_at_tick(tick: int) -> int:
    """Return sqrt(1.0001^tick) in Q96, rounded up (TickMath.getSqrtRatioAtTick). Raises
    ContractRevert("T") beyond MIN_TICK and MAX_TICK.
    """
    if not MIN_TICK <= tick <= MAX_TICK:
        raise ContractRevert("TickMath.getSqrtRatioAtTick", "T")
    ratio = 1 << 128
    remaining_bits = abs(tick)
    for power in _SQRT_RATIO_FACTORS:
        if remaining_bits & 1:
            ratio = ratio * power >> 128
        remaining_bits >>= 1
        if not remaining_bits:
            break
    if tick > 0:
        ratio = UINT256_MAX // ratio
    return (ratio + 0xFFFFFFFF) >> 32


def get_tick_at_sqrt_ratio(sqrt_price_x96: int) -> int:
    """Return the greatest tick whose ratio is not above the price (TickMath.getTickAtSqrtRatio).
    Raises ContractRevert("R") outside the range.
    """
    if not MIN_SQRT_RATIO <= sqrt_price_x96 < MAX_SQRT_RATIO:
        raise ContractRevert("TickMath.getTickAtSqrtRatio", "R")
    msb = sqrt_price_x96.bit_length() - 1
    mantissa = sqrt_price_x96 >> msb - 63 if msb > 63 else sqrt_price_x96 << 63 - msb
    log2 = msb - 96
    for _ in range(_LOG_BITS):  # one more binary digit of the logarithm per iteration
        mantissa = mantissa * mantissa >> 63
        digit = mantissa >> 64
        log2 = log2 << 1 | digit
        mantissa >>= digit
    # Truncation leaves the logarithm at most 2^-14 of an octave, or 0.85 ticks, too low, never too
    # high. The ratios of ticks are rounded up, so one tick lower is certainly at or below the
    # price.
    tick = max(MIN_TICK, (log2 * _TICKS_PER_OCTAVE_Q64 >> 64 + _LOG_BITS) - 1)
    while get_sqrt_ratio_at_tick(tick + 1) <= sqrt_price_x96:
        tick += 1
    return tick


UINT160_BITS = 160
_UNBOUNDED_INPUT = 1 << 512
"""Exact input that reaches the target of any step."""


def get_amount0_delta(
    sqrt_ratio_a_x96: int, sqrt_ratio_b_x96: int, liquidity: int, round_up: bool
) -> int:
    """Return the token0 base units between two prices, L/√lower − L/√upper
    (SqrtPriceMath.getAmount0Delta).
    """
    if sqrt_ratio_a_x96 > sqrt_ratio_b_x96:
        sqrt_ratio_a_x96, sqrt_ratio_b_x96 = sqrt_ratio_b_x96, sqrt_ratio_a_x96
    if sqrt_ratio_a_x96 <= 0:
        raise ContractRevert("SqrtPriceMath.getAmount0Delta", "")
    product = (liquidity << 96) * (sqrt_ratio_b_x96 - sqrt_ratio_a_x96)
    if round_up:
        return -((-product // sqrt_ratio_b_x96) // sqrt_ratio_a_x96)
    return product // sqrt_ratio_b_x96 // sqrt_ratio_a_x96


def get_amount1_delta(
    sqrt_ratio_a_x96: int, sqrt_ratio_b_x96: int, liquidity: int, round_up: bool
) -> int:
    """Return the token1 base units between two prices, L·(√upper − √lower)
    (SqrtPriceMath.getAmount1Delta).
    """
    product = liquidity * abs(sqrt_ratio_b_x96 - sqrt_ratio_a_x96)
    return -(-product >> 96) if round_up else product >> 96


def get_next_sqrt_price_from_amount0_rounding_up(
    sqrt_price_x96: int, liquidity: int, amount: int
) -> int:
    """Return the price after token0 is added (SqrtPriceMath.getNextSqrtPriceFromAmount0RoundingUp
    with `add`).
    """
    if amount == 0:
        return sqrt_price_x96
    numerator = liquidity << 96
    denominator = numerator + amount * sqrt_price_x96
    # the contract abandons the precise formula once it overflows 256 bits
    if denominator >> 256:
        return -(-numerator // (numerator // sqrt_price_x96 + amount))
    return -(-numerator * sqrt_price_x96 // denominator)


def get_next_sqrt_price_from_amount1_rounding_down(
    sqrt_price_x96: int, liquidity: int, amount: int
) -> int:
    """Return the price after token1 is added
    (SqrtPriceMath.getNextSqrtPriceFromAmount1RoundingDown with `add`). Raises ContractRevert.
    """
    next_price_x96 = sqrt_price_x96 + (amount << 96) // liquidity
    if next_price_x96 >> UINT160_BITS:
        raise ContractRevert("SqrtPriceMath.getNextSqrtPriceFromAmount1RoundingDown", "")
    return next_price_x96


def compute_swap_step(
    sqrt_ratio_current_x96: int,
    sqrt_ratio_target_x96: int,
    liquidity: int,
    amount_remaining: int,
    fee_pips: int,
) -> tuple[int, int, int, int]:
    """Return (next sqrt price, amount in, amount out, fee) of SwapMath.computeSwapStep
    for an exact input. Amounts in base units; the fee is in the input token,
    on top of amount in. Raises ContractRevert where the contract reverts.
    """
    current_x96 = sqrt_ratio_current_x96
    target_x96 = sqrt_ratio_target_x96
    # An amount that does not reach the target in exact arithmetic does not reach it after rounding
    # either, since prices round away from the target. Below, `next_x96` is therefore never the
    # target, and the rest of the input is fee.
    amount_after_fee = amount_remaining * (PIPS - fee_pips) // PIPS
    if current_x96 >= target_x96:
        amount_in = -((liquidity * (target_x96 - current_x96) << 96) // current_x96 // target_x96)
        if amount_after_fee >= amount_in:
            return (
                target_x96,
                amount_in,
                liquidity * (current_x96 - target_x96) >> 96,
                -(-amount_in * fee_pips // (PIPS - fee_pips)),
            )
        next_x96 = get_next_sqrt_price_from_amount0_rounding_up(
            current_x96, liquidity, amount_after_fee
        )
        amount_in = -((liquidity * (next_x96 - current_x96) << 96) // current_x96 // next_x96)
        return (
            next_x96,
            amount_in,
            liquidity * (current_x96 - next_x96) >> 96,
            amount_remaining - amount_in,
        )
    amount_in = -(liquidity * (current_x96 - target_x96) >> 96)
    if amount_after_fee >= amount_in:
        amount_out = (liquidity * (target_x96 - current_x96) << 96) // target_x96 // current_x96
        return target_x96, amount_in, amount_out, -(-amount_in * fee_pips // (PIPS - fee_pips))
    next_x96 = get_next_sqrt_price_from_amount1_rounding_down(
        current_x96, liquidity, amount_after_fee
    )
    amount_in = -(liquidity * (current_x96 - next_x96) >> 96)
    amount_out = (liquidity * (next_x96 - current_x96) << 96) // next_x96 // current_x96
    return next_x96, amount_in, amount_out, amount_remaining - amount_in


def whole_step(
    current_x96: int, target_x96: int, liquidity: int, fee_pips: int
) -> tuple[int, int, int]:
    """Return (amount in, amount out, fee) of a step that reaches its target with input left."""
    return compute_swap_step(current_x96, target_x96, liquidity, _UNBOUNDED_INPUT, fee_pips)[1:]
