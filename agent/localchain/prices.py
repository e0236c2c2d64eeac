"""From USD prices to pool prices, ticks and amounts of liquidity, for seeding and moving local pools."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor, isqrt, log, sqrt

from agent.localchain.description import Range
from agent.units import BPS, PIPS

MAX_TICK = 887_272
TICK_SPACINGS = {100: 1, 500: 10, 3_000: 60, 10_000: 200}
"""Uniswap V3 factory; the 100 pips tier was enabled later by governance (feeAmountTickSpacing)."""


@dataclass(frozen=True, slots=True)
class Position:
    """A range of ticks and the base units of both tokens to provide in it."""

    tick_lower: int
    tick_upper: int
    amount0_raw: int
    amount1_raw: int


def sqrt_price_x96(price: Fraction) -> int:
    """floor(sqrt(token1 base units per token0 base unit) · 2^96), as the V3 pool stores it."""
    return isqrt((price.numerator << 192) // price.denominator)


def full_range(spacing: int) -> tuple[int, int]:
    """The widest range whose ends are multiples of the spacing."""
    last = MAX_TICK // spacing * spacing
    return -last, last


def ticks_of(price: Fraction, part: Range, spacing: int) -> tuple[int, int]:
    """Ends of a range as usable ticks, at least one spacing apart."""
    first, last = full_range(spacing)

    def tick(distance_bps: int) -> int:
        return floor(log(float(price) * (1 + distance_bps / BPS)) / log(1.0001) / spacing) * spacing

    lower = first if part.from_bps is None else tick(part.from_bps)
    upper = last if part.to_bps is None else tick(part.to_bps)
    return lower, max(upper, lower + spacing)


def position(price: Fraction, tick_lower: int, tick_upper: int, value1_raw: float) -> Position:
    """Amounts worth `value1_raw` base units of token1 in all (LiquidityAmounts.getAmountsForLiquidity).

    Floats: this is how much a made-up provider brings, the contract decides the liquidity.
    """
    low, high, now = 1.0001 ** (tick_lower / 2), 1.0001 ** (tick_upper / 2), sqrt(float(price))
    inside = min(max(now, low), high)
    amount0, amount1 = 1 / inside - 1 / high, inside - low
    scale = value1_raw / (amount0 * float(price) + amount1)
    return Position(tick_lower, tick_upper, _generous(amount0 * scale), _generous(amount1 * scale))


def _generous(amount: float) -> int:
    return floor(amount * 1.000001) + 1 if amount > 0 else 0


def v2_input_to_reach(reserve_in: int, reserve_out: int, price: Fraction, fee_pips: int = 3_000) -> int:
    """Largest input after which the pair still pays at least `price` token_out per token_in at the margin, fee excluded.

    UniswapV2Library.getAmountOut in integers, bisected.
    """

    def pays(amount_in: int) -> bool:
        with_fee = amount_in * (PIPS - fee_pips)
        out = with_fee * reserve_out // (reserve_in * PIPS + with_fee)
        return Fraction(reserve_out - out, reserve_in + amount_in) >= price

    if not pays(0):
        return 0
    low, high = 0, reserve_in
    while pays(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if pays(middle) else (low, middle)
    return low
