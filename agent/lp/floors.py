"""The least that taking liquidity out must pay and that putting it in may buy: from the reference price, never from a pool alone (T11).

Within a band around the reference everything goes through; outside it, one of the two minimums fails and the contract reverts.
The band is given by how far its ends lie from the reference: a price in [reference / (1 + d), reference · (1 + d)].

Taking out. What a given liquidity pays at any price P, valued at the reference R, is the tangent in P of its concave value
function, and so never below its value at R: whoever pushes the pool before a withdrawal pays the owner for it. The minimums
only bound the mix: of each token what the liquidity holds at that end of the band where it holds least.

Putting in. The same tangent now is what is paid: pushed to P, providing costs more than the liquidity is worth at R, and who
pushes the pool back takes the difference, which is second order in the push: d²/8 of the value in a pair, about d²/(4·width)
in a narrow range. `overpaid` says it exactly and `widest` keeps the band where it is at most the slippage limit: that is all
that a push can gain. Of each token less is used the further the price goes to its side, so that the two minimums hold exactly
within the band; where an end of the range lies in the band, one of them is nothing there, and what is overpaid grows no more.
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

from agent.amm.v3_math.sqrt_price_math import get_amount0_delta, get_amount1_delta
from agent.lp.exact import Amounts, sqrt_price_x96, v2_product
from agent.lp.mint import Range, amounts_in, ends, liquidity_for_amounts
from agent.model import LpV2Position, LpV3Position
from agent.units import BPS, floor_int

UNIT = 1 << 160
"""Liquidity that relative figures are taken of: large, so that rounding does not show."""


def sides(ratio: Fraction, band_bps: int) -> tuple[Fraction, Fraction]:
    """Lowest and highest price of the band around `ratio`, token1 base units per token0 base unit."""
    wide = 1 + Fraction(band_bps, BPS)
    return ratio / wide, ratio * wide


def inside(price: Fraction, ratio: Fraction, band_bps: int) -> bool:
    """Whether a pool's price lies in the band."""
    low, high = sides(ratio, band_bps)
    return low <= price <= high


def out_floor(position: LpV2Position | LpV3Position, liquidity: int, ratio: Fraction, band_bps: int) -> Amounts:
    """Least base units that taking out `liquidity` pays within the band, fees left aside; rounded down."""
    low, high = sides(ratio, band_bps)
    if isinstance(position, LpV2Position):
        if position.liquidity <= 0:
            return 0, 0
        # √(a0·a1) of this part is what a pair keeps at any price; the product is that of all the wallet's LP tokens.
        part = Fraction(v2_product(position)) * Fraction(liquidity, position.liquidity) ** 2
        return isqrt(floor_int(part / high)), isqrt(floor_int(part * low))
    bottom, top = ends((position.tick_lower, position.tick_upper))
    at_high, at_low = (min(max(sqrt_price_x96(price), bottom), top) for price in (high, low))
    return get_amount0_delta(at_high, top, liquidity, round_up=False), get_amount1_delta(bottom, at_low, liquidity, round_up=False)


def in_floor(within: Range | None, desired: Amounts, ratio: Fraction, band_bps: int) -> Amounts:
    """Least base units that providing `desired` uses within the band; `within` is None for a pair. Rounded down."""
    low, high = sides(ratio, band_bps)
    if within is None:
        return min(desired[0], floor_int(desired[1] / high)), min(desired[1], floor_int(desired[0] * low))
    at_high, at_low = sqrt_price_x96(high), sqrt_price_x96(low)
    of_high, of_low = (liquidity_for_amounts(at, within, desired) for at in (at_high, at_low))
    least0, least1 = amounts_in(at_high, within, of_high)[0], amounts_in(at_low, within, of_low)[1]
    # A unit for the rounding of prices between the band's end and the pool's own.
    return max(0, min(least0, desired[0]) - 1), max(0, min(least1, desired[1]) - 1)


def something(least: Amounts, expected: Amounts) -> Amounts:
    """Minimums that are not both nothing: a range that lies within the band whole could be of either token alone at its ends.

    Then a unit of each token that is expected, so that no transaction goes out that accepts nothing for something.
    """
    return least if max(least) > 0 else (min(1, expected[0]), min(1, expected[1]))


def overpaid(within: Range | None, ratio: Fraction, band_bps: int) -> Fraction:
    """Most that liquidity costs above its worth at the reference when it is bought at a price of the band, per unit of worth."""
    if within is None:
        # (1 + x)/(2·√x) - 1 at x = 1 + d, and the same at its inverse; the root from below, so that the share is from above.
        wide = 1 + Fraction(band_bps, BPS)
        root = Fraction(isqrt(floor_int(wide * UNIT**2)), UNIT)
        return (1 + wide) / (2 * root) - 1
    worth = _paid(within, ratio, ratio)
    return max(_paid(within, price, ratio) / worth - 1 for price in sides(ratio, band_bps))


def widest(within: Range | None, ratio: Fraction, most_bps: int, slippage_bps: int | None) -> int:
    """The widest band of at most `most_bps` within which nothing is overpaid by more than the slippage limit."""
    if slippage_bps is None:
        return most_bps
    low, high = 0, most_bps
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if overpaid(within, ratio, middle) * BPS <= slippage_bps else (low, middle - 1)
    return low


def _paid(within: Range, price: Fraction, ratio: Fraction) -> Fraction:
    """Cost of UNIT liquidity bought at `price`, valued at `ratio`, in token1."""
    amount0, amount1 = amounts_in(sqrt_price_x96(price), within, UNIT)
    return amount0 * ratio + amount1
