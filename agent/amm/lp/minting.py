"""Amounts that a provision of liquidity takes, and the liquidity that they buy."""

from __future__ import annotations

from fractions import Fraction

from agent.amm.lp.positions import Amounts, sqrt_price_x96, v2_protocol_mint
from agent.amm.v2 import UINT112_MAX
from agent.amm.v3.math import (
    MAX_TICK,
    MIN_TICK,
    get_amount0_delta,
    get_amount1_delta,
    get_sqrt_ratio_at_tick,
    get_tick_at_sqrt_ratio,
)
from agent.model import LpV2Position
from agent.units import BPS, mul_div_down

Q96 = 1 << 96
MAX_LIQUIDITY = (1 << 128) - 1
SqrtPriceRange = tuple[int, int]
"""Square roots of the lower and upper price of a V3 range, in Q96."""


def sqrt_price_range(ticks: tuple[int, int]) -> SqrtPriceRange:
    """Return the sqrt prices of a range of ticks."""
    return get_sqrt_ratio_at_tick(ticks[0]), get_sqrt_ratio_at_tick(ticks[1])


def optional_sqrt_range(ticks: tuple[int, int] | None) -> SqrtPriceRange | None:
    """Return the sqrt prices of a range of ticks; None for a pair, which has no range."""
    return None if ticks is None else sqrt_price_range(ticks)


def range_around(reference_price: Fraction, width_bps: int, spacing: int) -> tuple[int, int]:
    """Return the ticks from reference_price / (1 + width) to reference_price · (1 + width), outwards
    to the spacing, within a pool's limits.

    `reference_price` is token1 base units per token0 base unit. The range is never narrower than
    requested and contains that price.
    """
    width_factor = 1 + Fraction(width_bps, BPS)
    lower_tick = (
        get_tick_at_sqrt_ratio(sqrt_price_x96(reference_price / width_factor)) // spacing * spacing
    )
    upper_tick = (
        -(-(get_tick_at_sqrt_ratio(sqrt_price_x96(reference_price * width_factor)) + 1) // spacing)
        * spacing
    )
    highest_tick = MAX_TICK // spacing * spacing
    lowest_tick = -(-MIN_TICK // spacing) * spacing
    return max(lower_tick, lowest_tick), min(upper_tick, highest_tick)


def liquidity_for_amounts(
    pool_sqrt_x96: int, sqrt_range: SqrtPriceRange, desired_amounts: Amounts
) -> int:
    """Return the most liquidity that `desired_amounts` in base units pay for at a pool's sqrt
    price, Q96 (LiquidityAmounts.getLiquidityForAmounts).
    """
    low_x96, high_x96 = sqrt_range
    if pool_sqrt_x96 <= low_x96:
        return _liquidity_for_amount0(low_x96, high_x96, desired_amounts[0])
    if pool_sqrt_x96 >= high_x96:
        return _liquidity_for_amount1(low_x96, high_x96, desired_amounts[1])
    return min(
        _liquidity_for_amount0(pool_sqrt_x96, high_x96, desired_amounts[0]),
        _liquidity_for_amount1(low_x96, pool_sqrt_x96, desired_amounts[1]),
    )


def mint_amounts(pool_sqrt_x96: int, sqrt_range: SqrtPriceRange, liquidity: int) -> Amounts:
    """Return the base units that UniswapV3Pool.mint takes for `liquidity`, rounded up (whitepaper
    v3 eqs. 6.29 and 6.30).
    """
    low_x96, high_x96 = sqrt_range
    clamped_x96 = min(max(pool_sqrt_x96, low_x96), high_x96)
    return get_amount0_delta(clamped_x96, high_x96, liquidity, round_up=True), get_amount1_delta(
        low_x96, clamped_x96, liquidity, round_up=True
    )


def v2_mint_amounts(reserves: Amounts, desired_amounts: Amounts) -> Amounts:
    """Return the base units that UniswapV2Router02._addLiquidity takes of `desired_amounts`, with
    token0 as its tokenA; (0, 0) if a reserve is empty.
    """
    if min(reserves) <= 0:
        return 0, 0
    amount1 = mul_div_down(desired_amounts[0], reserves[1], reserves[0])
    if amount1 <= desired_amounts[1]:
        return desired_amounts[0], amount1
    return mul_div_down(desired_amounts[1], reserves[0], reserves[1]), desired_amounts[1]


def provided_liquidity(
    pair: LpV2Position | None,
    pool_sqrt_x96: int,
    sqrt_range: SqrtPriceRange | None,
    desired_amounts: Amounts,
) -> tuple[int, Amounts]:
    """Return the liquidity for `desired_amounts` and the base units taken: in a pair, or in a range
    at a pool's sqrt price (Q96). Zero where the contracts would revert: LiquidityAmounts holds
    liquidity in uint128, a pair its reserves in uint112.
    """
    if sqrt_range is not None:
        liquidity = liquidity_for_amounts(pool_sqrt_x96, sqrt_range, desired_amounts)
        if liquidity > MAX_LIQUIDITY:
            return 0, (0, 0)
        return liquidity, mint_amounts(pool_sqrt_x96, sqrt_range, liquidity)
    if pair is None:
        return 0, (0, 0)
    amounts = v2_mint_amounts(pair.reserves, desired_amounts)
    if (
        max(balance + amount for balance, amount in zip(pair.balances, amounts, strict=True))
        > UINT112_MAX
    ):
        return 0, (0, 0)
    return v2_liquidity(pair, amounts), amounts


def v2_liquidity(position: LpV2Position, amounts: Amounts) -> int:
    """Return the LP tokens that UniswapV2Pair.mint gives for `amounts`, after the protocol's share.
    Counts the pair's excess balance above its reserves, which the next minter receives.
    """
    supply = position.total_supply + v2_protocol_mint(position)
    if min(position.reserves) <= 0 or supply <= 0:
        return 0
    sides = zip(position.balances, position.reserves, amounts, strict=True)
    return min(
        mul_div_down(balance - reserve + amount, supply, reserve)
        for balance, reserve, amount in sides
    )


def _liquidity_for_amount0(low_x96: int, high_x96: int, amount0: int) -> int:
    """Return the liquidity for an amount of token0 (LiquidityAmounts.getLiquidityForAmount0)."""
    return mul_div_down(amount0, mul_div_down(low_x96, high_x96, Q96), high_x96 - low_x96)


def _liquidity_for_amount1(low_x96: int, high_x96: int, amount1: int) -> int:
    """Return the liquidity for an amount of token1 (LiquidityAmounts.getLiquidityForAmount1)."""
    return mul_div_down(amount1, Q96, high_x96 - low_x96)
