"""Code shared by all pool kinds: errors, swap direction, marginal price, price move, and searches
for bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from agent.errors import ConfigError, ErrorCode, Refused
from agent.model import Pool, Verdict
from agent.units import BPS, mul_div_up

# --- Errors: contract reverts, and swaps beyond the known ticks.


class ContractRevert(Refused):
    """The deployed contract would revert. `reason` is its revert string ("" for a bare require),
    `where` the function.
    """

    def __init__(self, where: str, reason: str, remedy: str = "") -> None:
        message = f"reverts with {reason!r}" if reason else "reverts without a reason"
        super().__init__(f"{where} {message}", remedy=remedy)
        self.where = where
        self.reason = reason


class KnownTicksExceeded(Refused):
    """The amount exceeds the known ticks of `pools`; with more ticks it may fit."""

    def __init__(self, message: str, verdict: Verdict, remedy: str, pools: tuple[str, ...]) -> None:
        super().__init__(message, (verdict,), remedy)
        self.pools = pools


class BeyondKnownTicks(KnownTicksExceeded):
    """A quote needs unknown ticks. `largest_raw` base units is the largest quotable amount on
    `side` ("in" or "out").
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
        code=ErrorCode.TWAP,
    )
