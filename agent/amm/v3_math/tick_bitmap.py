"""Where a V3 swap stops next: initialised ticks and the borders of 256-tick bitmap words (TickBitmap, v3-core)."""

from __future__ import annotations

from operator import lt
from typing import TYPE_CHECKING

from agent.model import TickLiquidity

if TYPE_CHECKING:
    from agent.amm.v3_math.table import StopTable

WORD_BITS = 8
LAST_IN_WORD = 0xFF
_KEPT_TABLES = 256


class TickTable:
    """The initialised ticks of one pool as plain tuples, ascending: what the swap loop bisects.

    `stops` keeps what table.py sums up over these ticks.
    """

    __slots__ = ("indices", "nets", "stops")

    def __init__(self, ticks: tuple[TickLiquidity, ...]) -> None:
        self.indices = tuple([tick.index for tick in ticks])
        self.nets = tuple([tick.liquidity_net for tick in ticks])
        self.stops: dict[tuple[int, ...], StopTable] = {}
        if not all(map(lt, self.indices, self.indices[1:])):
            raise ValueError("ticks must ascend, each index once")


_tables: dict[int, tuple[tuple[TickLiquidity, ...], TickTable]] = {}


def tick_table(ticks: tuple[TickLiquidity, ...]) -> TickTable:
    """The table of this very tuple, built once: states before and after a swap share their ticks. Raises ValueError if unsorted."""
    known = _tables.get(id(ticks))
    if known is not None and known[0] is ticks:  # the entry keeps the tuple alive, so its id is not given out again
        return known[1]
    table = TickTable(ticks)
    if len(_tables) >= _KEPT_TABLES:
        _tables.clear()
    _tables[id(ticks)] = (ticks, table)
    return table


def next_initialized_tick_within_one_word(indices: tuple[int, ...], at: int, tick: int, tick_spacing: int, lte: bool) -> tuple[int, bool]:
    """Next tick at which the contract stops and whether it is initialised (TickBitmap.nextInitializedTickWithinOneWord).

    `at` is bisect_right(indices, tick): the number of initialised ticks not above `tick`, which a walk keeps by counting.
    """
    if lte:
        border = (tick // tick_spacing >> WORD_BITS << WORD_BITS) * tick_spacing
        return (indices[at - 1], True) if at and indices[at - 1] >= border else (border, False)
    border = (tick // tick_spacing + 1 | LAST_IN_WORD) * tick_spacing
    return (indices[at], True) if at < len(indices) and indices[at] <= border else (border, False)
