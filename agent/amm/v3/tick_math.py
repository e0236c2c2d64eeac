"""Tick to sqrt price and back, to the bit of TickMath (v3-core)."""

from __future__ import annotations

from functools import lru_cache
from math import isqrt

from agent.amm.pools import ContractRevert
from agent.units import UINT256_MAX

MIN_TICK = -887272
MAX_TICK = 887272
MIN_SQRT_RATIO = 4295128739
"""get_sqrt_ratio_at_tick(MIN_TICK)."""
MAX_SQRT_RATIO = 1461446703485210103287273052203988822378723970342
"""get_sqrt_ratio_at_tick(MAX_TICK); no pool reaches it."""
Q96 = 1 << 96


def _powers() -> tuple[int, ...]:
    """Return 1.0001^-(2^(i-1)) for i = 0…19 in Q128, rounded to nearest: the factors of TickMath."""
    bits = 512
    root = isqrt((10_000 << 2 * bits) // 10_001)
    powers = []
    for _ in range(20):
        powers.append((root + (1 << bits - 129)) >> bits - 128)
        root = root * root >> bits
    return tuple(powers)


_POWERS = _powers()
_TICKS_PER_OCTAVE_Q64 = 255738958999603826347141
"""2 / log2(1.0001) in Q64: sqrt-price ticks per doubling."""
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
    rest = abs(tick)
    for power in _POWERS:
        if rest & 1:
            ratio = ratio * power >> 128
        rest >>= 1
        if not rest:
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
