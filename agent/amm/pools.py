"""Code shared by all pool kinds: errors, swap direction, marginal price, price move, and searches
for bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import isqrt

from agent.errors import ConfigError, ErrorCode, Refused
from agent.model import Pool, Verdict
from agent.units import BPS, mul_div_up

# --- Errors: contract reverts, and swaps beyond the known ticks.


class ContractRevert(Refused):
    """A revert of the deployed contract in function `where` with the string `reason` ("" for a bare
    require).
    """

    def __init__(self, where: str, reason: str, remedy: str = "") -> None:
        message = f"reverts with {reason!r}" if reason else "reverts without a reason"
        super().__init__(f"{where} {message}", remedy=remedy)
        self.where = where
        self.reason = reason


class KnownTicksExceeded(Refused):
    """An amount exceeds the known ticks of `pools`; it may fit once more ticks are read."""

    def __init__(self, message: str, verdict: Verdict, remedy: str, pools: tuple[str, ...]) -> None:
        super().__init__(message, (verdict,), remedy)
        self.pools = pools


class BeyondKnownTicks(KnownTicksExceeded):
    """A quote needs ticks that were not read. `largest_raw` base units is the largest quotable
    amount on `side` ("in" or "out").
    """

    def __init__(
        self,
        pool: str,
        side: str,
        asked_raw: int,
        largest_raw: int,
        known_from_tick: int,
        known_to_tick: int,
    ) -> None:
        super().__init__(
            f"pool {pool}: {asked_raw} base units {side} leave the known ticks [{known_from_tick},"
            f" {known_to_tick}]; the largest amount {side} that can be quoted is {largest_raw}",
            Verdict(
                "known_ticks",
                f"{asked_raw} base units {side}",
                f"{largest_raw} base units {side}",
                False,
            ),
            f"trade at most {largest_raw} base units {side} at a time",
            (pool,),
        )
        self.side = side
        self.asked_raw = asked_raw
        self.largest_raw = largest_raw


# --- Direction, prices, and searches for bounds.


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


def marginal_price(pool: Pool, token_in: str) -> Fraction:
    """Return the exact marginal price without fee, token_out base units per token_in base unit."""
    numerator, denominator = pool.price_terms(token_in)
    return Fraction(numerator, denominator)


def price_move_bps(before: Pool, after: Pool, token_in: str) -> int:
    """Return the relative price move between two states of a pool, in bps of the first price,
    rounded up.
    """
    old, old_unit = before.price_terms(token_in)
    new, new_unit = after.price_terms(token_in)
    return mul_div_up(abs(new * old_unit - old * new_unit), BPS, old * new_unit)


def sqrt_ratio_x96(numerator: int, denominator: int) -> int:
    """Return the square root of a ratio, times 2^96, rounded down."""
    return isqrt((numerator << 192) // denominator)


def moved_back(start: int, now: int, left: Fraction) -> int:
    """Return the point at the fraction `left` of the way from start to now, rounded towards now."""
    distance = (abs(now - start) * left.numerator + left.denominator - 1) // left.denominator
    return start + distance if now > start else start - distance


def last_that_fits(fits: Callable[[int], bool], near: int) -> int:
    """Return the largest n with fits(n), for a monotone `fits` with fits(near). Gallops upwards,
    then bisects.
    """
    step = 1
    while fits(near + step):
        near, step = near + step, 2 * step
    past = near + step
    while past - near > 1:
        middle = (near + past) // 2
        if fits(middle):
            near = middle
        else:
            past = middle
    return near


def without_mean(pool: Pool) -> Refused:
    """Return the refusal for a TWAP that was not read, or that the pool kind lacks."""
    return Refused(
        f"pool {pool.address} has no TWAP",
        remedy=(
            "its observations do not cover the window: use a shorter window or a different pool"
        ),
        code=ErrorCode.TWAP,
    )
