"""Moves of liquidity positions, before they become exact actions."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model import (
    ConfirmedPosition,
    LpTarget,
    LpV2Position,
    LpV3Position,
    SkippedItem,
)


@dataclass(frozen=True, slots=True)
class WithdrawMove:
    """Withdrawal of `liquidity` from a position."""

    confirmed_position: ConfirmedPosition
    position: LpV2Position | LpV3Position
    liquidity: int
    reason: str


@dataclass(frozen=True, slots=True)
class CollectMove:
    """Collection of the fees of a V3 position."""

    confirmed_position: ConfirmedPosition
    position: LpV3Position
    reason: str


@dataclass(frozen=True, slots=True)
class ProvideMove:
    """Provision of at most `desired_raw` base units: to the position `existing_position`, or if None to a new
    position with `ticks` (None for V2).
    """

    target: LpTarget
    existing_position: ConfirmedPosition | None
    ticks: tuple[int, int] | None
    desired_raw: tuple[int, int]
    reason: str


PlannedMove = WithdrawMove | CollectMove | ProvideMove


@dataclass(frozen=True, slots=True)
class LiquidityAdjustment:
    """Liquidity moves in order with their reason, and the skipped items. `exceeds_limit` is true if
    a limit is exceeded, so that the withdrawals are an exit.

    An exit without moves is blocked now; `skipped` has the reason.
    """

    moves: tuple[PlannedMove, ...]
    reason: str
    skipped: tuple[SkippedItem, ...]
    exceeds_limit: bool = False


NO_ADJUSTMENT = LiquidityAdjustment((), "", ())
