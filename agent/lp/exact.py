"""What a position pays when it is taken out: burn, decreaseLiquidity and collect of the contracts, in exact integers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import isqrt

from agent.amm.v3_math.sqrt_price_math import get_amount0_delta, get_amount1_delta
from agent.amm.v3_math.tick_math import MAX_SQRT_RATIO, MIN_SQRT_RATIO, get_sqrt_ratio_at_tick
from agent.errors import Refused
from agent.model import LpGone, LpPosition, LpV2Position, LpV3Position
from agent.units import Price, mul_div_down

Amounts = tuple[int, int]
"""Base units of token0 and token1."""
Q128 = 1 << 128
_UINT128 = Q128 - 1
_UINT256 = (1 << 256) - 1


def principal(position: LpPosition, liquidity: int | None = None) -> Amounts:
    """Base units that taking out `liquidity` (all of it unless said) pays at the pool's present price, V3 fees excluded."""
    match position:
        case LpV2Position():
            return v2_burn(position, liquidity)
        case LpV3Position():
            taken = position.liquidity if liquidity is None else liquidity
            return _within(position, position.sqrt_price_x96, taken)
        case LpGone():
            return 0, 0


def uncollected(position: LpPosition) -> Amounts:
    """Base units of fees that NonfungiblePositionManager.collect would pay now; of V2 none, whose fees are in the reserves.

    The manager credits the growth of fees inside the range since it last looked; the pool pays from one account for all
    tokens of the same range, which its own rounding may have left some wei short.
    """
    if not isinstance(position, LpV3Position):
        return 0, 0
    owed, core = position.owed, position.core_owed
    if position.liquidity > 0:  # collect pokes the pool only then
        inside = growth_inside_x128(position)
        owed = credited(owed, inside, position.inside_last_x128, position.liquidity)
        core = credited(core, inside, position.core_inside_last_x128, position.core_liquidity)
    return min(owed[0], core[0]), min(owed[1], core[1])


def redeemed(position: LpPosition) -> Amounts:
    """Base units that taking out everything pays now: burn of V2, decreaseLiquidity and then collect of V3."""
    return _sum(principal(position), uncollected(position))


def v2_burn(position: LpV2Position, liquidity: int | None = None) -> Amounts:
    """UniswapV2Pair.burn of that many of the wallet's LP tokens (all unless said).

    The pair first mints its protocol's share, and pays from what it really holds. A burn that would pay nothing of one of the
    tokens reverts, and so pays nothing.
    """
    burned = position.liquidity if liquidity is None else liquidity
    supply = position.total_supply + v2_protocol_mint(position)
    if burned <= 0 or supply <= 0:
        return 0, 0
    amount0, amount1 = (mul_div_down(burned, balance, supply) for balance in position.balances)
    return (amount0, amount1) if amount0 > 0 and amount1 > 0 else (0, 0)


def v2_protocol_mint(position: LpV2Position) -> int:
    """LP tokens that UniswapV2Pair._mintFee makes first: a sixth of the growth of √k since the last mint or burn."""
    if not position.protocol_fee or position.k_last == 0:
        return 0
    root_k, root_k_last = isqrt(position.reserves[0] * position.reserves[1]), isqrt(position.k_last)
    if root_k <= root_k_last:
        return 0
    return position.total_supply * (root_k - root_k_last) // (root_k * 5 + root_k_last)


def growth_inside_x128(position: LpV3Position) -> Amounts:
    """Fee growth per unit of liquidity between the position's ticks (Tick.getFeeGrowthInside), modulo 2^256."""
    sides = zip(position.growth_global_x128, position.growth_outside_lower_x128, position.growth_outside_upper_x128, strict=True)
    inside = []
    for whole, lower, upper in sides:
        below = lower if position.tick >= position.tick_lower else whole - lower
        above = upper if position.tick < position.tick_upper else whole - upper
        inside.append((whole - below - above) & _UINT256)
    return inside[0], inside[1]


def at_reference(position: LpPosition, price0: Price, price1: Price) -> Amounts:
    """Base units that the liquidity stands for where the pool's price is the reference: what weights and budgets go by.

    A pushed pool changes what a withdrawal pays, not this (T3). V2: the same product of reserves, √(a0·a1) kept. Tokens that
    someone sent to a pair without providing them may be skimmed by anyone and do not count (T11). Raises Refused when a price
    is not positive.
    """
    if price0 <= 0 or price1 <= 0:
        raise Refused(f"{position.name}: a reference price of its tokens is not positive", remedy="check the feeds")
    ratio = price0 / price1
    match position:
        case LpV2Position():
            product = Fraction(v2_product(position))
            return _root(product / ratio), _root(product * ratio)
        case LpV3Position():
            return _within(position, sqrt_price_x96(ratio), position.liquidity)
        case LpGone():
            return 0, 0


def v2_product(position: LpV2Position) -> int:
    """a0·a1 of what the burn pays, as far as the reserves back it: it does not change when the pool's price does."""
    counted = (min(position.balances[0], position.reserves[0]), min(position.balances[1], position.reserves[1]))
    supply = position.total_supply + v2_protocol_mint(position)
    if supply <= 0:
        return 0
    return mul_div_down(position.liquidity, counted[0], supply) * mul_div_down(position.liquidity, counted[1], supply)


def held(position: LpPosition, price0: Price, price1: Price) -> Amounts:
    """Base units that count as the owner's: liquidity at the reference price and uncollected fees."""
    return _sum(at_reference(position, price0, price1), uncollected(position))


def look_through(positions: Iterable[LpPosition], prices: Mapping[str, Price]) -> dict[str, int]:
    """Base units by token that confirmed positions hold. `prices` are reference prices by token; raises Refused when one lacks."""
    total: dict[str, int] = {}
    for position in positions:
        tokens = (position.token0, position.token1)
        for token in tokens:
            if token not in prices:
                raise Refused(f"{position.name}: {token} has no reference price", remedy="see status for what has no price")
        for token, raw in zip(tokens, held(position, prices[tokens[0]], prices[tokens[1]]), strict=True):
            total[token] = total.get(token, 0) + raw
    return total


def pool_price(position: LpPosition) -> Fraction | None:
    """Token1 base units per token0 base unit in the position's pool now; None where there is no price."""
    match position:
        case LpV2Position() if min(position.reserves) > 0:
            return Fraction(position.reserves[1], position.reserves[0])
        case LpV3Position():
            return Fraction(position.sqrt_price_x96**2, 1 << 192)
        case _:
            return None


def sqrt_price_x96(ratio: Fraction) -> int:
    """√(token1 base units per token0 base unit) in Q96, rounded down, within what a pool can have."""
    return min(max(isqrt((ratio.numerator << 192) // ratio.denominator), MIN_SQRT_RATIO), MAX_SQRT_RATIO - 1)


def _within(position: LpV3Position, at_x96: int, liquidity: int) -> Amounts:
    """UniswapV3Pool._modifyPosition for liquidity taken out, rounded down; whitepaper v3 eqs. 6.29 and 6.30."""
    low, high = get_sqrt_ratio_at_tick(position.tick_lower), get_sqrt_ratio_at_tick(position.tick_upper)
    inside = min(max(at_x96, low), high)
    return get_amount0_delta(inside, high, liquidity, round_up=False), get_amount1_delta(low, inside, liquidity, round_up=False)


def credited(owed: Amounts, inside: Amounts, last: Amounts, liquidity: int) -> Amounts:
    """Position.update: fees owed after the growth since `last`, in uint128 as the contracts keep it."""
    one, two = (
        (before + ((now - then & _UINT256) * liquidity // Q128)) & _UINT128 for before, now, then in zip(owed, inside, last, strict=True)
    )
    return one, two


def _root(value: Fraction) -> int:
    return isqrt(value.numerator // value.denominator)


def _sum(one: Amounts, other: Amounts) -> Amounts:
    return one[0] + other[0], one[1] + other[1]
