"""Slippage of liquidity actions: the band of prices that they accept, the minimums in it, and how much
liquidity may be overpaid. Minimums come from the reference price, never from a pool alone (T11).

Within a band around the reference every action succeeds; outside it, one of the two minimums fails
and the contract reverts. The band is [reference / (1 + d), reference · (1 + d)].

Withdrawal: the payout of a given liquidity at a price P, valued at the reference R, is the tangent
in P of the concave value function. It is therefore never below the value at R. An attacker who
pushes the pool before a withdrawal pays the owner. The minimums only bound the mix: for each token,
the smaller of its amounts at the two ends of the band.

Provision: the tangent is the cost. At a pushed price P, provision costs more than the liquidity is
worth at R; the attacker who pushes the pool back keeps the difference. The difference is of second
order in the push: d²/8 of the value in a pair, about d²/(4·width) in a narrow range.
`max_overpayment` computes it exactly, and `widest_band_bps` limits the band
so that it stays within the slippage limit. The amount of each token falls monotonically with the
price in one direction, so the two minimums hold exactly within the band. If an end of the range is
in the band, one minimum is zero there, and the overpayment stops growing.
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

from agent.amm.lp.minting import (
    SqrtPriceRange,
    liquidity_for_amounts,
    mint_amounts,
    sqrt_price_range,
)
from agent.amm.lp.positions import Amounts, sqrt_price_x96, v2_product
from agent.amm.v3.math import (
    get_amount0_delta,
    get_amount1_delta,
)
from agent.model import LpV2Position, LpV3Position
from agent.units import BPS, floor_int

REFERENCE_LIQUIDITY = 1 << 160
"""Liquidity unit of relative figures; large, so that rounding is negligible."""


def price_band(reference_price: Fraction, band_bps: int) -> tuple[Fraction, Fraction]:
    """Return the lowest and highest price of the band around `reference_price`, token1 base units
    per token0 base unit.
    """
    band_factor = 1 + Fraction(band_bps, BPS)
    return reference_price / band_factor, reference_price * band_factor


def is_within_band(price: Fraction, reference_price: Fraction, band_bps: int) -> bool:
    """Return whether a pool's price is within the band."""
    low_price, high_price = price_band(reference_price, band_bps)
    return low_price <= price <= high_price


def withdrawal_minimums(
    position: LpV2Position | LpV3Position, liquidity: int, reference_price: Fraction, band_bps: int
) -> Amounts:
    """Return the least base units that withdrawing `liquidity` pays within the band, fees excluded;
    rounded down.
    """
    low_price, high_price = price_band(reference_price, band_bps)
    if isinstance(position, LpV2Position):
        if position.liquidity <= 0:
            return 0, 0
        # A pair keeps √(a0·a1) of this part at any price; the product is that of all LP tokens of
        # the wallet.
        part_product = Fraction(v2_product(position)) * Fraction(liquidity, position.liquidity) ** 2
        return isqrt(floor_int(part_product / high_price)), isqrt(
            floor_int(part_product * low_price)
        )
    range_low_x96, range_high_x96 = sqrt_price_range((position.tick_lower, position.tick_upper))
    high_sqrt_x96, low_sqrt_x96 = (
        min(max(sqrt_price_x96(price), range_low_x96), range_high_x96)
        for price in (high_price, low_price)
    )
    return get_amount0_delta(
        high_sqrt_x96, range_high_x96, liquidity, round_up=False
    ), get_amount1_delta(range_low_x96, low_sqrt_x96, liquidity, round_up=False)


def provision_minimums(
    sqrt_range: SqrtPriceRange | None,
    desired_amounts: Amounts,
    reference_price: Fraction,
    band_bps: int,
) -> Amounts:
    """Return the least base units that providing `desired_amounts` uses within the band, rounded
    down. `sqrt_range` is None for a pair.
    """
    low_price, high_price = price_band(reference_price, band_bps)
    if sqrt_range is None:
        return min(desired_amounts[0], floor_int(desired_amounts[1] / high_price)), min(
            desired_amounts[1], floor_int(desired_amounts[0] * low_price)
        )
    high_sqrt_x96 = sqrt_price_x96(high_price)
    low_sqrt_x96 = sqrt_price_x96(low_price)
    liquidity_at_high, liquidity_at_low = (
        liquidity_for_amounts(band_sqrt_x96, sqrt_range, desired_amounts)
        for band_sqrt_x96 in (high_sqrt_x96, low_sqrt_x96)
    )
    least0 = mint_amounts(high_sqrt_x96, sqrt_range, liquidity_at_high)[0]
    least1 = mint_amounts(low_sqrt_x96, sqrt_range, liquidity_at_low)[1]
    # One unit covers the rounding of prices between the band's end and the pool's own.
    return max(0, min(least0, desired_amounts[0]) - 1), max(0, min(least1, desired_amounts[1]) - 1)


def nonzero_minimums(minimums: Amounts, expected_raws: Amounts) -> Amounts:
    """Return minimums with at least one above zero.

    A range inside the band could hold either token alone at its ends. Then the minimum is one unit
    of each expected token, so that no transaction accepts zero in return.
    """
    return minimums if max(minimums) > 0 else (min(1, expected_raws[0]), min(1, expected_raws[1]))


def max_overpayment(
    sqrt_range: SqrtPriceRange | None, reference_price: Fraction, band_bps: int
) -> Fraction:
    """Return the largest relative overpayment for liquidity bought at a price within the band: cost
    above its value at the reference, per unit of value.
    """
    if sqrt_range is None:
        # (1 + x)/(2·√x) - 1 at x = 1 + d, and the same at its inverse; the root is rounded down, so
        # the result is rounded up.
        band_factor = 1 + Fraction(band_bps, BPS)
        sqrt_factor = Fraction(
            isqrt(floor_int(band_factor * REFERENCE_LIQUIDITY**2)), REFERENCE_LIQUIDITY
        )
        return (1 + band_factor) / (2 * sqrt_factor) - 1
    fair_cost = _cost_at(sqrt_range, reference_price, reference_price)
    return max(
        _cost_at(sqrt_range, price, reference_price) / fair_cost - 1
        for price in price_band(reference_price, band_bps)
    )


def widest_band_bps(
    sqrt_range: SqrtPriceRange | None,
    reference_price: Fraction,
    max_bps: int,
    slippage_bps: int | None,
) -> int:
    """Return the widest band of at most `max_bps` in which overpayment stays within the slippage
    limit.
    """
    if slippage_bps is None:
        return max_bps
    low_bps = 0
    high_bps = max_bps
    while low_bps < high_bps:
        middle_bps = (low_bps + high_bps + 1) // 2
        low_bps, high_bps = (
            (middle_bps, high_bps)
            if max_overpayment(sqrt_range, reference_price, middle_bps) * BPS <= slippage_bps
            else (low_bps, middle_bps - 1)
        )
    return low_bps


def _cost_at(sqrt_range: SqrtPriceRange, price: Fraction, reference_price: Fraction) -> Fraction:
    """Return the cost of REFERENCE_LIQUIDITY bought at `price`, valued at `reference_price`, in
    token1.
    """
    amount0, amount1 = mint_amounts(sqrt_price_x96(price), sqrt_range, REFERENCE_LIQUIDITY)
    return amount0 * reference_price + amount1
