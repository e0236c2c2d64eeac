"""Code shared by all pool kinds: errors, swap direction, marginal price, price move, and searches
for bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import accumulate
from math import isqrt

from agent.errors import ConfigError, ErrorCode, Refused
from agent.model import Pool
from agent.units import BPS, Price, Value, mul_div_up


def is_zero_for_one(pool: Pool, token_in: str) -> bool:
    """Return whether token_in is token0. Raises ConfigError if the pool does not trade it."""
    if token_in == pool.token0:
        return True
    if token_in == pool.token1:
        return False
    raise ConfigError(
        f"token {token_in} is not in pool {pool.address}",
        f"it trades {pool.token0} and {pool.token1}",
    )


def token_out(pool: Pool, token_in: str) -> str:
    """Return the token that the pool pays for token_in. Raises ConfigError if the pool does not
    trade it.
    """
    return pool.token1 if is_zero_for_one(pool, token_in) else pool.token0


def holds_token(pool: Pool, token: str) -> bool:
    """Return whether a pool's contract holds a token for it; one of native coin holds no wrapped
    coin.
    """
    return token == pool.token1 or (token == pool.token0 and not pool.trades_native)


def is_deep_enough(pool: Pool, min_value: Value | None, prices: Mapping[str, Price]) -> bool:
    """True if the pool's depth is worth `min_value`; often that of its first token is."""
    if min_value is None:
        return True
    depth_values = (pool.depth(token) * prices[token] for token in (pool.token0, pool.token1))
    return any(value >= min_value for value in accumulate(depth_values))


def marginal_price(pool: Pool, token_in: str) -> Fraction:
    """Return the exact marginal price without fee, token_out base units per token_in base unit."""
    numerator, denominator = pool.price_terms(token_in)
    return Fraction(numerator, denominator)


def price_move_bps(pool_before: Pool, pool_after: Pool, token_in: str) -> int:
    """Return the relative price move between two states of a pool, in bps of the first price,
    rounded up.
    """
    numerator_before, denominator_before = pool_before.price_terms(token_in)
    numerator_after, denominator_after = pool_after.price_terms(token_in)
    return mul_div_up(
        abs(numerator_after * denominator_before - numerator_before * denominator_after),
        BPS,
        numerator_before * denominator_after,
    )


def sqrt_ratio_x96(numerator: int, denominator: int) -> int:
    """Return the square root of a ratio, times 2^96, rounded down."""
    return isqrt((numerator << 192) // denominator)


def partly_moved_point(start_point: int, current_point: int, share_of_way: Fraction) -> int:
    """Return the point at `share_of_way` of the way from start to now, rounded towards now."""
    distance = (
        abs(current_point - start_point) * share_of_way.numerator + share_of_way.denominator - 1
    ) // share_of_way.denominator
    return start_point + distance if current_point > start_point else start_point - distance


def last_that_fits(fits: Callable[[int], bool], known_fitting: int) -> int:
    """Return the largest n with fits(n), for a monotone `fits` with fits(known_fitting). Gallops
    upwards, then bisects.
    """
    stride = 1
    while fits(known_fitting + stride):
        known_fitting += stride
        stride = 2 * stride
    too_large = known_fitting + stride
    while too_large - known_fitting > 1:
        middle = (known_fitting + too_large) // 2
        if fits(middle):
            known_fitting = middle
        else:
            too_large = middle
    return known_fitting


def missing_twap_refusal(pool: Pool) -> Refused:
    """Return the refusal for a TWAP that was not read, or that the pool kind lacks."""
    return Refused(
        f"pool {pool.address} has no TWAP",
        remedy=(
            "its observations do not cover the window: use a shorter window or a different pool"
        ),
        code=ErrorCode.TWAP,
    )
