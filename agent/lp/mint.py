"""What providing liquidity takes and gives: mint, increaseLiquidity and addLiquidity of the contracts, in exact integers."""

from __future__ import annotations

from fractions import Fraction

from agent.amm.v2_math import UINT112_MAX
from agent.amm.v3_math.sqrt_price_math import get_amount0_delta, get_amount1_delta
from agent.amm.v3_math.tick_math import MAX_TICK, MIN_TICK, get_sqrt_ratio_at_tick, get_tick_at_sqrt_ratio
from agent.lp.exact import Amounts, sqrt_price_x96, v2_protocol_mint
from agent.model import LpV2Position
from agent.units import BPS, mul_div_down

Q96 = 1 << 96
MOST_LIQUIDITY = (1 << 128) - 1
Range = tuple[int, int]
"""Square roots of the prices at both ends of a V3 range, in Q96; the lower first."""


def ends(ticks: tuple[int, int]) -> Range:
    """Sqrt prices of a range."""
    return get_sqrt_ratio_at_tick(ticks[0]), get_sqrt_ratio_at_tick(ticks[1])


def range_around(ratio: Fraction, width_bps: int, spacing: int) -> tuple[int, int]:
    """Ticks from ratio / (1 + width) to ratio · (1 + width), outwards to the spacing, within what a pool allows.

    `ratio` is token1 base units per token0 base unit. Never narrower than asked, and the ratio lies within.
    """
    wide = 1 + Fraction(width_bps, BPS)
    lower = get_tick_at_sqrt_ratio(sqrt_price_x96(ratio / wide)) // spacing * spacing
    upper = -(-(get_tick_at_sqrt_ratio(sqrt_price_x96(ratio * wide)) + 1) // spacing) * spacing
    most = MAX_TICK // spacing * spacing
    least = -(-MIN_TICK // spacing) * spacing
    return max(lower, least), min(upper, most)


def liquidity_for_amounts(at_x96: int, within: Range, desired: Amounts) -> int:
    """Most liquidity that `desired` base units pay for at a pool's price (LiquidityAmounts.getLiquidityForAmounts)."""
    low, high = within
    if at_x96 <= low:
        return _for_amount0(low, high, desired[0])
    if at_x96 >= high:
        return _for_amount1(low, high, desired[1])
    return min(_for_amount0(at_x96, high, desired[0]), _for_amount1(low, at_x96, desired[1]))


def amounts_in(at_x96: int, within: Range, liquidity: int) -> Amounts:
    """Base units that UniswapV3Pool.mint takes for `liquidity`, rounded up (whitepaper v3 eqs. 6.29 and 6.30)."""
    low, high = within
    inside = min(max(at_x96, low), high)
    return get_amount0_delta(inside, high, liquidity, round_up=True), get_amount1_delta(low, inside, liquidity, round_up=True)


def v2_amounts_in(reserves: Amounts, desired: Amounts) -> Amounts:
    """Base units that UniswapV2Router02._addLiquidity takes of `desired`, token0 as its tokenA; (0, 0) where a reserve is empty."""
    if min(reserves) <= 0:
        return 0, 0
    second = mul_div_down(desired[0], reserves[1], reserves[0])
    if second <= desired[1]:
        return desired[0], second
    return mul_div_down(desired[1], reserves[0], reserves[1]), desired[1]


def provided(pair: LpV2Position | None, at_x96: int, within: Range | None, desired: Amounts) -> tuple[int, Amounts]:
    """Liquidity and base units taken for `desired`: of a pair's account, or of a range at a pool's sqrt price (Q96).

    Nothing where the contracts would revert: LiquidityAmounts holds liquidity in uint128, a pair its reserves in uint112.
    """
    if within is not None:
        liquidity = liquidity_for_amounts(at_x96, within, desired)
        if liquidity > MOST_LIQUIDITY:
            return 0, (0, 0)
        return liquidity, amounts_in(at_x96, within, liquidity)
    if pair is None:
        return 0, (0, 0)
    amounts = v2_amounts_in(pair.reserves, desired)
    if max(held + more for held, more in zip(pair.balances, amounts, strict=True)) > UINT112_MAX:
        return 0, (0, 0)
    return v2_liquidity(pair, amounts), amounts


def v2_liquidity(position: LpV2Position, amounts: Amounts) -> int:
    """LP tokens that UniswapV2Pair.mint gives for `amounts`: after its protocol's share, and with what the pair holds above its
    reserves, which goes to whoever mints next.
    """
    supply = position.total_supply + v2_protocol_mint(position)
    if min(position.reserves) <= 0 or supply <= 0:
        return 0
    sides = zip(position.balances, position.reserves, amounts, strict=True)
    return min(mul_div_down(balance - reserve + amount, supply, reserve) for balance, reserve, amount in sides)


def _for_amount0(low: int, high: int, amount: int) -> int:
    """LiquidityAmounts.getLiquidityForAmount0."""
    return mul_div_down(amount, mul_div_down(low, high, Q96), high - low)


def _for_amount1(low: int, high: int, amount: int) -> int:
    """LiquidityAmounts.getLiquidityForAmount1."""
    return mul_div_down(amount, Q96, high - low)
