"""Positions as the contracts would have them, built from few numbers, for tests without a chain."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.amm.v3.tick_math import get_sqrt_ratio_at_tick
from agent.model import ConfirmedPosition, LpMissingPosition, LpV2Position, LpV3Position
from tests.support import builders

TOKENS = tuple(sorted((builders.token("WETH").address, builders.token("USDC").address), key=lambda a: int(a, 16)))
MANAGER = builders.address("position manager")
PAIR = builders.address("pair")
NO_FEES = (0, 0)
MONTH_S = 30 * 86_400


def v2(liquidity: int = 10**18, supply: int = 10**20, reserves: tuple[int, int] = (10**22, 4 * 10**22), **changes: object) -> LpV2Position:
    """A share of a pair that holds exactly its reserves, without protocol fee."""
    plain = LpV2Position("uniswap_v2", PAIR, *TOKENS, liquidity, supply, reserves, reserves, reserves[0] * reserves[1], False)
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace itself


def v3(lower: int = -6_000, upper: int = 6_000, liquidity: int = 10**20, tick: int = 0, **changes: object) -> LpV3Position:
    """A position alone in its range, at the price of `tick`, without fees."""
    plain = LpV3Position(
        "uniswap_v3", MANAGER, 42, builders.address("pool"), *TOKENS, 3_000, lower, upper, liquidity, NO_FEES, NO_FEES,
        get_sqrt_ratio_at_tick(tick), tick, NO_FEES, NO_FEES, NO_FEES, liquidity, NO_FEES, NO_FEES,
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace itself


def gone() -> LpMissingPosition:
    """A burned token."""
    return LpMissingPosition("uniswap_v3", MANAGER, 42, *TOKENS)


def confirmed(
    position: LpV2Position | LpV3Position | LpMissingPosition, entry_raw: tuple[int, int] = (1, 1), **changes: object
) -> ConfirmedPosition:
    """The owner's word for a position: 60 % a year, a month ahead."""
    at = position.pair if isinstance(position, LpV2Position) else position.manager
    token_id = None if isinstance(position, LpV2Position) else position.token_id
    plain = ConfirmedPosition(position.venue, at, token_id, position.token0, position.token1, entry_raw, None, 6_000, MONTH_S)
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace itself


def price_at(tick: int) -> Fraction:
    """Token1 base units per token0 base unit at a tick, exactly as a pool's sqrt price says it."""
    return Fraction(get_sqrt_ratio_at_tick(tick) ** 2, 2**192)
