"""Time-weighted price of a V3 pool from the mean tick of its own oracle."""

from __future__ import annotations

from fractions import Fraction

from agent.amm.pools import Q192, is_zero_for_one
from agent.amm.v3_math.tick_math import get_sqrt_ratio_at_tick
from agent.errors import Refused
from agent.model import V3Pool


def price(pool_state: V3Pool, token: str) -> Fraction:
    """Base units of the other token per base unit of `token` at twap_tick (OracleLibrary.getQuoteAtTick, unrounded).

    Raises Refused when the pool's observations do not reach back over the window.
    """
    if pool_state.twap_tick is None:
        raise Refused(
            f"pool {pool_state.address} has no time-weighted price",
            remedy="its observations do not reach back over the window: take a shorter window or another pool",
        )
    squared = get_sqrt_ratio_at_tick(pool_state.twap_tick) ** 2
    return Fraction(squared, Q192) if is_zero_for_one(pool_state, token) else Fraction(Q192, squared)
