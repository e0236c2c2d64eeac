"""Liquidity positions in the contracts' exact integers: amounts and fees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from math import isqrt

from agent.amm.v3.math import (
    MAX_SQRT_RATIO,
    MIN_SQRT_RATIO,
    get_amount0_delta,
    get_amount1_delta,
    get_sqrt_ratio_at_tick,
)
from agent.errors import ErrorCode, Refused
from agent.model import (
    LpMissingPosition,
    LpPosition,
    LpV2Position,
    LpV3Position,
)
from agent.units import Price, mul_div_down

Amounts = tuple[int, int]
"""Base units of token0 and token1."""
Q128 = 1 << 128
_UINT128 = Q128 - 1
_UINT256 = (1 << 256) - 1


def principal(position: LpPosition, liquidity: int | None = None) -> Amounts:
    """Return the base units that withdrawing `liquidity` (default: all) pays at the pool's current
    price, V3 fees excluded.
    """
    match position:
        case LpV2Position():
            return v2_burn(position, liquidity)
        case LpV3Position():
            liquidity_out = position.liquidity if liquidity is None else liquidity
            return _range_amounts(position, position.sqrt_price_x96, liquidity_out)
        case LpMissingPosition():
            return 0, 0


def uncollected_fees(position: LpPosition) -> Amounts:
    """Return the base units of fees that NonfungiblePositionManager.collect would pay now; 0 for
    V2, whose fees are in the reserves. The manager credits fee growth inside the range since its
    last update. The pool keeps one balance of owed fees per range, which rounding may leave some
    wei short.
    """
    if not isinstance(position, LpV3Position):
        return 0, 0
    credited_position = with_credited_fees(position)
    owed = credited_position.owed
    core_owed = credited_position.core_owed
    return min(owed[0], core_owed[0]), min(owed[1], core_owed[1])


def with_credited_fees(position: LpV3Position) -> LpV3Position:
    """Return the position with the fees since its last update owed by manager and pool; unchanged
    without liquidity, since the manager updates it only then.
    """
    if position.liquidity <= 0:
        return position
    growth_now = growth_inside_x128(position)
    return replace(
        position,
        owed=_credit_fees(position.owed, growth_now, position.inside_last_x128, position.liquidity),
        core_owed=_credit_fees(
            position.core_owed, growth_now, position.core_inside_last_x128, position.core_liquidity
        ),
        inside_last_x128=growth_now,
        core_inside_last_x128=growth_now,
    )


def v2_burn(position: LpV2Position, liquidity: int | None = None) -> Amounts:
    """Return the payout of UniswapV2Pair.burn for LP tokens of the wallet (default: all).

    The pair first mints the protocol's share, and pays from its actual balance. A burn that would
    pay zero of one token reverts, so the result is zero for both.
    """
    burned_liquidity = position.liquidity if liquidity is None else liquidity
    supply = position.total_supply + v2_protocol_mint(position)
    if burned_liquidity <= 0 or supply <= 0:
        return 0, 0
    amount0, amount1 = (
        mul_div_down(burned_liquidity, balance, supply) for balance in position.balances
    )
    return (amount0, amount1) if amount0 > 0 and amount1 > 0 else (0, 0)


def v2_protocol_mint(position: LpV2Position) -> int:
    """Return the LP tokens that UniswapV2Pair._mintFee mints first: a sixth of the growth of √k
    since the last mint or burn.
    """
    if not position.has_protocol_fee or position.k_last == 0:
        return 0
    root_k = isqrt(position.reserves[0] * position.reserves[1])
    root_k_last = isqrt(position.k_last)
    if root_k <= root_k_last:
        return 0
    return position.total_supply * (root_k - root_k_last) // (root_k * 5 + root_k_last)


def growth_inside_x128(position: LpV3Position) -> Amounts:
    """Return the fee growth per unit of liquidity between the position's ticks
    (Tick.getFeeGrowthInside), modulo 2^256.
    """
    growth_by_token = zip(
        position.growth_global_x128,
        position.growth_outside_lower_x128,
        position.growth_outside_upper_x128,
        strict=True,
    )
    growth_inside = []
    for global_growth, outside_lower, outside_upper in growth_by_token:
        growth_below = (
            outside_lower if position.tick >= position.tick_lower else global_growth - outside_lower
        )
        growth_above = (
            outside_upper if position.tick < position.tick_upper else global_growth - outside_upper
        )
        growth_inside.append((global_growth - growth_below - growth_above) & _UINT256)
    return growth_inside[0], growth_inside[1]


def amounts_at_reference(position: LpPosition, price0: Price, price1: Price) -> Amounts:
    """Return the base units of the liquidity at the reference price, for weights and budgets.

    A pushed pool changes the payout of a withdrawal, but not this (T3). V2: reserves with equal
    product √(a0·a1). Tokens sent to a pair without a mint can be skimmed by anyone and do not count
    (T11). Raises Refused if a price is not positive.
    """
    if price0 <= 0 or price1 <= 0:
        raise Refused(
            f"{position.name}: a token's reference price is not positive",
            remedy="check the feeds",
            code=ErrorCode.REFERENCE_PRICE,
        )
    ratio = price0 / price1
    match position:
        case LpV2Position():
            product = Fraction(v2_product(position))
            return _floor_sqrt(product / ratio), _floor_sqrt(product * ratio)
        case LpV3Position():
            return _range_amounts(position, sqrt_price_x96(ratio), position.liquidity)
        case LpMissingPosition():
            return 0, 0


def v2_product(position: LpV2Position) -> int:
    """Return a0·a1 of the burn's payout, as far as the reserves back it. The product is independent
    of the pool's price.
    """
    backed_reserves = (
        min(position.balances[0], position.reserves[0]),
        min(position.balances[1], position.reserves[1]),
    )
    supply = position.total_supply + v2_protocol_mint(position)
    if supply <= 0:
        return 0
    return mul_div_down(position.liquidity, backed_reserves[0], supply) * mul_div_down(
        position.liquidity, backed_reserves[1], supply
    )


def owned_amounts(position: LpPosition, price0: Price, price1: Price) -> Amounts:
    """Return the base units that count as owned: liquidity at the reference price and uncollected
    fees.
    """
    return _sum_amounts(amounts_at_reference(position, price0, price1), uncollected_fees(position))


def look_through(
    positions: Iterable[LpPosition], price_by_token: Mapping[str, Price]
) -> dict[str, int]:
    """Return the base units by token that confirmed positions hold. Raises Refused if a token has
    no reference price in `price_by_token`.
    """
    raw_by_token: dict[str, int] = {}
    for position in positions:
        tokens = (position.token0, position.token1)
        for token in tokens:
            if token not in price_by_token:
                raise Refused(
                    f"{position.name}: {token} has no reference price",
                    remedy="trimtab status lists the missing prices",
                    code=ErrorCode.REFERENCE_PRICE,
                )
        for token, raw in zip(
            tokens,
            owned_amounts(position, price_by_token[tokens[0]], price_by_token[tokens[1]]),
            strict=True,
        ):
            raw_by_token[token] = raw_by_token.get(token, 0) + raw
    return raw_by_token


def pool_price(position: LpPosition) -> Fraction | None:
    """Return the current price of the position's pool, token1 base units per token0 base unit; None
    without a price.
    """
    match position:
        case LpV2Position() if min(position.reserves) > 0:
            return Fraction(position.reserves[1], position.reserves[0])
        case LpV3Position():
            return Fraction(position.sqrt_price_x96**2, 1 << 192)
        case _:
            return None


def sqrt_price_x96(ratio: Fraction) -> int:
    """Return √(token1 base units per token0 base unit) in Q96, rounded down, within the valid range
    of a pool.
    """
    return min(
        max(isqrt((ratio.numerator << 192) // ratio.denominator), MIN_SQRT_RATIO),
        MAX_SQRT_RATIO - 1,
    )


def _range_amounts(position: LpV3Position, at_sqrt_price_x96: int, liquidity: int) -> Amounts:
    """Return the amounts of UniswapV3Pool._modifyPosition for withdrawn liquidity, rounded down;
    whitepaper v3 eqs. 6.29 and 6.30.
    """
    low_x96 = get_sqrt_ratio_at_tick(position.tick_lower)
    high_x96 = get_sqrt_ratio_at_tick(position.tick_upper)
    clamped_x96 = min(max(at_sqrt_price_x96, low_x96), high_x96)
    return get_amount0_delta(clamped_x96, high_x96, liquidity, round_up=False), get_amount1_delta(
        low_x96, clamped_x96, liquidity, round_up=False
    )


def _credit_fees(
    owed: Amounts, inside_x128: Amounts, inside_last_x128: Amounts, liquidity: int
) -> Amounts:
    """Return the fees owed after the growth since `inside_last_x128` (Position.update), in uint128
    like the contract.
    """
    owed0, owed1 = (
        (owed_before + ((growth_now - growth_last & _UINT256) * liquidity // Q128)) & _UINT128
        for owed_before, growth_now, growth_last in zip(
            owed, inside_x128, inside_last_x128, strict=True
        )
    )
    return owed0, owed1


def _floor_sqrt(square: Fraction) -> int:
    return isqrt(square.numerator // square.denominator)


def _sum_amounts(first_amounts: Amounts, second_amounts: Amounts) -> Amounts:
    return first_amounts[0] + second_amounts[0], first_amounts[1] + second_amounts[1]
