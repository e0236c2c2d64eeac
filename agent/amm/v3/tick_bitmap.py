"""Initialised ticks of a V3 pool, and the contract's search for the next one (TickBitmap of
v3-core).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WORD_BITS = 8
LAST_IN_WORD = 0xFF


@dataclass(frozen=True, slots=True)
class TickLiquidity:
    """An initialised tick: liquidity added when the price crosses it upwards."""

    index: int
    liquidity_net: int


def next_initialized_tick_within_one_word(
    ticks: Sequence[TickLiquidity], tick_count: int, tick: int, tick_spacing: int, lte: bool
) -> tuple[int, bool]:
    """Return the next tick at which the contract stops and whether it is initialised
    (TickBitmap.nextInitializedTickWithinOneWord). `tick_count` is the number of initialised ticks
    not above `tick`, which a caller that walks the ticks counts itself.
    """
    if lte:
        border_tick = (tick // tick_spacing >> WORD_BITS << WORD_BITS) * tick_spacing
        is_initialized = tick_count > 0 and ticks[tick_count - 1].index >= border_tick
        return (ticks[tick_count - 1].index, True) if is_initialized else (border_tick, False)
    border_tick = (tick // tick_spacing + 1 | LAST_IN_WORD) * tick_spacing
    is_initialized = tick_count < len(ticks) and ticks[tick_count].index <= border_tick
    return (ticks[tick_count].index, True) if is_initialized else (border_tick, False)
