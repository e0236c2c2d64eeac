"""What all kinds of pools share: direction, marginal price, price move, and searches that their
bounds are found with.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from agent.errors import ConfigError, Refused
from agent.model import Pool
from agent.units import BPS, mul_div_up


def is_zero_for_one(pool: Pool, token_in: str) -> bool:
    """Return True when token_in is token0. Raises ConfigError if it is neither of the pool's
    tokens.
    """
    if token_in == pool.token0:
        return True
    if token_in == pool.token1:
        return False
    raise ConfigError(
        f"token {token_in} is not in pool {pool.address}",
        f"it trades {pool.token0} and {pool.token1}",
    )


def token_out(pool: Pool, token_in: str) -> str:
    """Return the pool's other token. Raises ConfigError if token_in is not one of the pool's
    two.
    """
    return pool.token1 if is_zero_for_one(pool, token_in) else pool.token0


def marginal_price(pool: Pool, token_in: str) -> Fraction:
    """Return token_out base units per token_in base unit for a vanishing trade, fee excluded,
    exact.
    """
    numerator, denominator = pool.price_terms(token_in)
    return Fraction(numerator, denominator)


def price_move_bps(before: Pool, after: Pool, token_in: str) -> int:
    """Return the relative price move between two states of a pool, in bps of the former price,
    rounded up.
    """
    old, old_unit = before.price_terms(token_in)
    new, new_unit = after.price_terms(token_in)
    return mul_div_up(abs(new * old_unit - old * new_unit), BPS, old * new_unit)


def moved_back(start: int, now: int, left: Fraction) -> int:
    """Return `left` of the way from start to now, rounded towards now."""
    way = (abs(now - start) * left.numerator + left.denominator - 1) // left.denominator
    return start + way if now > start else start - way


def last_that_fits(fits: Callable[[int], bool], near: int) -> int:
    """Return the largest n with fits(n), for a monotone `fits` that holds at `near`: gallops up
    from there, then bisects.
    """
    step = 1
    while fits(near + step):
        near, step = near + step, 2 * step
    past = near + step
    while past - near > 1:
        middle = (near + past) // 2
        near, past = (middle, past) if fits(middle) else (near, middle)
    return near


def without_mean(pool: Pool) -> Refused:
    """Return the refusal of a mean price that was not read, or that the kind does not have."""
    return Refused(
        f"pool {pool.address} has no time-weighted price",
        remedy=(
            "its observations do not reach back over the window: take a shorter window or another"
            " pool"
        ),
    )
