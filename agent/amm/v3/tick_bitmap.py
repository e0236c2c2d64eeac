"""Stops of a V3 swap: initialised ticks and borders of bitmap words, with prefix sums for
bisection.

From any starting price, a swap stops and rounds at initialised ticks and at borders of bitmap
words. The sums therefore depend on the ticks only, not on the price: every state of a pool shares
them until a position changes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from enum import Enum
from operator import lt
from typing import TYPE_CHECKING, NamedTuple

from agent.amm.v3.math import MAX_TICK, MIN_TICK, get_sqrt_ratio_at_tick, price_limit, whole_step

if TYPE_CHECKING:
    from agent.amm.v3.pool import V3Pool

# --- Next stop of a V3 swap: initialised ticks and the borders of 256-tick bitmap words
# (TickBitmap, v3-core).


WORD_BITS = 8
LAST_IN_WORD = 0xFF
_KEPT_TABLES = 256


@dataclass(frozen=True, slots=True)
class TickLiquidity:
    """An initialised tick: liquidity added when the price crosses it upwards."""

    index: int
    liquidity_net: int


class TickTable:
    """The initialised ticks of one pool as plain tuples, ascending, for bisection by the swap loop.

    `stops` caches the sums over these ticks (StopTable).
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
    """Return the table of this tuple object, built once. States before and after a swap share their
    ticks and so the table. Raises ValueError if unsorted.
    """
    known = _tables.get(id(ticks))
    if (
        known is not None and known[0] is ticks
    ):  # the entry keeps the tuple alive, so its id is not reused
        return known[1]
    table = TickTable(ticks)
    if len(_tables) >= _KEPT_TABLES:
        _tables.clear()
    _tables[id(ticks)] = (ticks, table)
    return table


def next_initialized_tick_within_one_word(
    indices: tuple[int, ...], at: int, tick: int, tick_spacing: int, lte: bool
) -> tuple[int, bool]:
    """Return the next tick at which the contract stops and whether it is initialised
    (TickBitmap.nextInitializedTickWithinOneWord). `at` is bisect_right(indices, tick): the number
    of initialised ticks not above `tick`, which a caller that walks the ticks counts itself.
    """
    if lte:
        border = (tick // tick_spacing >> WORD_BITS << WORD_BITS) * tick_spacing
        return (indices[at - 1], True) if at and indices[at - 1] >= border else (border, False)
    border = (tick // tick_spacing + 1 | LAST_IN_WORD) * tick_spacing
    return (indices[at], True) if at < len(indices) and indices[at] <= border else (border, False)


# --- Next stop of a V3 swap and the state beyond: one iteration of UniswapV3Pool.swap's loop,
# without amounts.


UINT128_BITS = 128


class End(Enum):
    """Reason why a swap cannot continue: the price range ends, the ticks are unknown, or the
    contract reverts.
    """

    PRICES = 0
    KNOWLEDGE = 1
    REVERTS = 2


def next_step(
    pool: V3Pool,
    ticks: TickTable,
    at: int,
    tick: int,
    price_x96: int,
    liquidity: int,
    zero_for_one: bool,
) -> tuple[int, int, int, int, End | None]:
    """Return (stop, sqrt price there, liquidity beyond it, `at` beyond it, end reason or None).

    `at` counts the initialised ticks up to `tick`. If known ticks end, the price is that of the
    last known tick, or the current price if that is already beyond. If the price range ends, it is
    the last price that a swap can reach.
    """
    if not pool.known_from_tick - 1 <= tick <= pool.known_to_tick:
        return tick, price_x96, liquidity, at, End.KNOWLEDGE
    stop, initialized = next_initialized_tick_within_one_word(
        ticks.indices, at, tick, pool.tick_spacing, zero_for_one
    )
    if zero_for_one:
        if stop < pool.known_from_tick and pool.known_from_tick > MIN_TICK:
            return (
                stop,
                min(price_x96, get_sqrt_ratio_at_tick(pool.known_from_tick)),
                liquidity,
                at,
                End.KNOWLEDGE,
            )
        if stop <= MIN_TICK:
            return MIN_TICK, price_limit(True), liquidity, at, End.PRICES
        if not initialized:
            return stop, get_sqrt_ratio_at_tick(stop), liquidity, at, None
        at -= 1
        liquidity -= ticks.nets[at]
    else:
        if stop > pool.known_to_tick and pool.known_to_tick < MAX_TICK:
            return (
                stop,
                max(price_x96, get_sqrt_ratio_at_tick(pool.known_to_tick)),
                liquidity,
                at,
                End.KNOWLEDGE,
            )
        if stop >= MAX_TICK:
            return MAX_TICK, price_limit(False), liquidity, at, End.PRICES
        if not initialized:
            return stop, get_sqrt_ratio_at_tick(stop), liquidity, at, None
        liquidity += ticks.nets[at]
        at += 1
    return (
        stop,
        get_sqrt_ratio_at_tick(stop),
        liquidity,
        at,
        None if 0 <= liquidity < 1 << UINT128_BITS else End.REVERTS,
    )


_GROWTH = 8
"""A table grows by at least this fraction (1 / _GROWTH) of its length. Small swaps compute few
unneeded stops; large ones copy the table rarely.
"""
_TABLE_KEPT_TABLES = 16
"""Maximum number of tables per tuple of ticks: two directions, with a margin for pools that share
the tuple, as all pools without ticks share the empty one.
"""

Row = tuple[int, int, int, int, int]


class Sums(NamedTuple):
    """Sums from the first stop of a table to each later stop, in base units, and the state beyond
    that stop. `keys` are the ticks of the stops, negated for a falling price, so that they ascend.
    `costs` include fees. `rows` are (cost, out, fee, sqrt price, liquidity beyond the stop). While
    `end` is None more stops can be added, and the last three fields describe the last stop;
    otherwise they describe the end of the range beyond it.
    """

    keys: tuple[int, ...]
    costs: tuple[int, ...]
    outs: tuple[int, ...]
    rows: tuple[Row, ...]
    end: End | None
    end_x96: int
    end_cost: int
    end_out: int


class Skipped(NamedTuple):
    """Whole steps of a swap taken together: base units in (with fee), out, and fee; number of
    steps; final state.
    """

    cost: int
    out: int
    fee: int
    stops: int
    price_x96: int
    tick: int
    liquidity: int


class StopTable:
    """Stops of a pool in one direction from a first stop.

    `sums` is replaced, never mutated, so threads may share it. An index into one version is not
    valid in another, since another thread may store a shorter one.
    """

    __slots__ = ("_pool", "sums", "zero_for_one")

    def __init__(self, pool: V3Pool, zero_for_one: bool, stop: int, liquidity: int) -> None:
        """Start at `stop`, an initialised tick or a word border, with `liquidity` beyond it."""
        self._pool, self.zero_for_one = pool, zero_for_one
        price = get_sqrt_ratio_at_tick(stop)
        self.sums = Sums(
            (-stop if zero_for_one else stop,),
            (0,),
            (0,),
            ((0, 0, 0, price, liquidity),),
            None,
            price,
            0,
            0,
        )

    def reach(self, sums: Sums, cost: int = -1, out: int = -1, tick: int | None = None) -> Sums:
        """Return `sums` of this table, extended past this cost, output and tick, or to the end."""
        key = -MAX_TICK if tick is None else -tick if self.zero_for_one else tick
        while sums.end is None and (
            sums.end_cost <= cost or sums.end_out <= out or sums.keys[-1] <= key
        ):
            sums = self.sums = _grown(self._pool, self.zero_for_one, sums, cost, out, key)
        return sums

    def find(self, stop: int, liquidity: int) -> tuple[Sums, int] | None:
        """Return the sums and the index of a stop with this liquidity beyond it; None if the table
        lacks the stop, or has a different liquidity there.
        """
        key = -stop if self.zero_for_one else stop
        sums = self.sums
        if sums.keys[-1] < key:
            sums = self.reach(sums, tick=stop)
        at = bisect_left(sums.keys, key)
        return (
            (sums, at)
            if at < len(sums.keys) and sums.keys[at] == key and sums.rows[at][4] == liquidity
            else None
        )

    def within(self, sums: Sums, at: int, limit_x96: int) -> int:
        """Return the last index up to `at` with a price not past the limit. The price at the first
        index must not be past it.
        """
        rows = sums.rows
        if self.zero_for_one:
            return (
                at
                if rows[at][3] >= limit_x96
                else bisect_right(rows, -limit_x96, 0, at, key=lambda row: -row[3]) - 1
            )
        return (
            at
            if rows[at][3] <= limit_x96
            else bisect_right(rows, limit_x96, 0, at, key=lambda row: row[3]) - 1
        )

    def skip(self, sums: Sums, start: int, remaining: int, limit_x96: int) -> Skipped:
        """Return all whole steps but the last of a swap from `start`, with this input (> 0) or
        output (< 0) remaining.
        """
        if remaining > 0:
            goal = sums.costs[start] + remaining
            sums = self.reach(sums, cost=goal)
            column = sums.costs
        else:
            goal = sums.outs[start] - remaining
            sums = self.reach(sums, out=goal)
            column = sums.outs
        # The swap itself always runs the last step, since it ends once the amount is used up, even
        # if it could continue at no cost.
        at = self.within(sums, bisect_left(column, goal, start) - 1, limit_x96)
        cost, out, fee, _, _ = sums.rows[start]
        end_cost, end_out, end_fee, price, liquidity = sums.rows[at]
        tick = -sums.keys[at] - 1 if self.zero_for_one else sums.keys[at]
        return Skipped(
            end_cost - cost, end_out - out, end_fee - fee, at - start, price, tick, liquidity
        )


def stop_table(
    pool: V3Pool, zero_for_one: bool, stop: int, liquidity: int
) -> tuple[StopTable, Sums, int]:
    """Return a table with this stop and `liquidity` beyond it, the sums, and the index of the stop.

    All states with these ticks share the table. It is rebuilt from `stop` if it lacks that stop, or
    if its liquidity there differs. The latter happens only if the ticks do not add up to the pool's
    liquidity.
    """
    tables = tick_table(pool.ticks).stops
    key = (zero_for_one, pool.fee_pips, pool.tick_spacing, pool.known_from_tick, pool.known_to_tick)
    table = tables.get(key)
    found = None if table is None else table.find(stop, liquidity)
    if table is None or found is None:
        if len(tables) >= _TABLE_KEPT_TABLES:
            tables.clear()
        table = tables[key] = StopTable(pool, zero_for_one, stop, liquidity)
        found = table.sums, 0
    return table, *found


def _grown(
    pool: V3Pool, zero_for_one: bool, sums: Sums, past_cost: int, past_out: int, past_key: int
) -> Sums:
    """Return the sums extended past the request, by a minimum number of stops, or to the end."""
    ticks, fee_pips = tick_table(pool.ticks), pool.fee_pips
    keys, costs, outs, rows = list(sums.keys), list(sums.costs), list(sums.outs), list(sums.rows)
    key, (cost, out, fee, price, liquidity) = keys[-1], rows[-1]
    tick = -key - 1 if zero_for_one else key
    at = bisect_right(ticks.indices, tick)
    fewest = len(keys) + 1 + len(keys) // _GROWTH
    while cost <= past_cost or out <= past_out or key <= past_key or len(keys) < fewest:
        stop, target, beyond, at, end = next_step(
            pool, ticks, at, tick, price, liquidity, zero_for_one
        )
        step_in, step_out, step_fee = whole_step(price, target, liquidity, fee_pips)
        cost += step_in + step_fee
        out += step_out
        fee += step_fee
        price, liquidity = target, beyond
        if end is not None:
            return Sums(tuple(keys), tuple(costs), tuple(outs), tuple(rows), end, price, cost, out)
        tick, key = (stop - 1, -stop) if zero_for_one else (stop, stop)
        keys.append(key)
        costs.append(cost)
        outs.append(out)
        rows.append((cost, out, fee, price, liquidity))
    return Sums(tuple(keys), tuple(costs), tuple(outs), tuple(rows), None, price, cost, out)
