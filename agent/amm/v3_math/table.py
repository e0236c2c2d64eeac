"""What a V3 swap takes and pays up to every place where it stops, summed once, so that whole ranges are passed by bisection.

A swap stops, and rounds, at initialised ticks and at the borders of bitmap words, whatever price it came from. So the sums
belong to the ticks and not to one price: every state of a pool between two changes of its positions shares them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from agent.amm.v3_math.steps import End, next_step
from agent.amm.v3_math.swap_math import whole_step
from agent.amm.v3_math.tick_bitmap import tick_table
from agent.amm.v3_math.tick_math import MAX_TICK, get_sqrt_ratio_at_tick
from agent.model import V3Pool

_GROWTH = 8
"""A table grows to what is asked of it, and by one part in this many: a small swap pays for its own stops, many for few copies."""
_KEPT_TABLES = 16
"""Per tuple of ticks: two directions, and what states that disagree on liquidity or window need besides."""

Row = tuple[int, int, int, int, int]


class Sums(NamedTuple):
    """Sums from the first stop of a table to each further one, in base units, and what lies beyond that stop.

    `keys` are the ticks of the stops, negated for a falling price, so that they ascend. `costs` include the `fees`. `crossed`
    counts initialised ticks. `rows` are (cost, out, sqrt price, liquidity, liquidity · 2^96), the last two of the range
    beyond the stop. While `end` is None more stops can be had, and the last three fields are those of the last one; else
    they belong to the end of the range beyond it.
    """

    keys: tuple[int, ...]
    costs: tuple[int, ...]
    fees: tuple[int, ...]
    outs: tuple[int, ...]
    crossed: tuple[int, ...]
    rows: tuple[Row, ...]
    end: End | None
    end_x96: int
    end_cost: int
    end_out: int


class Skipped(NamedTuple):
    """Whole steps that a swap makes: base units in (with fee), out, and fee; ticks crossed; where it stands then."""

    cost: int
    out: int
    fee: int
    ticks_crossed: int
    stops: int
    price_x96: int
    tick: int
    liquidity: int


class StopTable:
    """The stops of a pool in one direction, from some stop on. `sums` is replaced, never changed: threads may share it."""

    __slots__ = ("_pool", "sums", "zero_for_one")

    def __init__(self, pool: V3Pool, zero_for_one: bool, stop: int, liquidity: int) -> None:
        """Starts at `stop`, an initialised tick or a word's border; `liquidity` is that beyond it."""
        self._pool, self.zero_for_one = pool, zero_for_one
        price = get_sqrt_ratio_at_tick(stop)
        row = (0, 0, price, liquidity, liquidity << 96)
        self.sums = Sums((-stop if zero_for_one else stop,), (0,), (0,), (0,), (0,), (row,), None, price, 0, 0)

    def reach(self, cost: int = -1, out: int = -1, tick: int | None = None) -> Sums:
        """Sums that go on to where more than this cost and out have flowed and past this tick; else all that can be had."""
        key = -MAX_TICK if tick is None else -tick if self.zero_for_one else tick
        sums = self.sums
        while sums.end is None and (sums.end_cost <= cost or sums.end_out <= out or sums.keys[-1] <= key):
            sums = self.sums = _grown(self._pool, self.zero_for_one, sums, cost, out, key)
        return sums

    def place(self, stop: int) -> int | None:
        """Where in the sums a stop is; None when it lies before the first one or beyond the end."""
        key = -stop if self.zero_for_one else stop
        keys = self.sums.keys
        if keys[-1] < key:
            keys = self.reach(tick=stop).keys
        at = bisect_left(keys, key)
        return at if at < len(keys) and keys[at] == key else None

    def within(self, sums: Sums, at: int, limit_x96: int) -> int:
        """The last place up to `at` whose price is not past the limit, which the first one must not be."""
        rows = sums.rows
        if self.zero_for_one:
            return at if rows[at][2] >= limit_x96 else bisect_right(rows, -limit_x96, 0, at, key=lambda row: -row[2]) - 1
        return at if rows[at][2] <= limit_x96 else bisect_right(rows, limit_x96, 0, at, key=lambda row: row[2]) - 1

    def skip(self, start: int, remaining: int, limit_x96: int) -> Skipped:
        """What a swap that stands at the stop at `start` does in whole steps, with so much to take in (> 0) or to pay out (< 0)."""
        if remaining > 0:
            goal = self.sums.costs[start] + remaining
            sums = self.reach(cost=goal)
            column = sums.costs
        else:
            goal = self.sums.outs[start] - remaining
            sums = self.reach(out=goal)
            column = sums.outs
        # A swap ends at the first stop at which everything is used up, even where it could go on for nothing.
        at = bisect_left(column, goal, start)
        if at == len(column) or column[at] != goal:
            at -= 1
        at = self.within(sums, at, limit_x96)
        cost, out, _, _, _ = sums.rows[start]
        end_cost, end_out, price, liquidity, _ = sums.rows[at]
        tick = -sums.keys[at] - 1 if self.zero_for_one else sums.keys[at]
        crossed, fee = sums.crossed[at] - sums.crossed[start], sums.fees[at] - sums.fees[start]
        return Skipped(end_cost - cost, end_out - out, fee, crossed, at - start, price, tick, liquidity)


def stop_table(pool: V3Pool, zero_for_one: bool, stop: int, at: int, liquidity: int) -> tuple[StopTable, int]:
    """A table that holds this stop, and the stop's place in it. All states with these ticks share it.

    `at` counts the initialised ticks up to the tick beyond the stop; `liquidity` is that beyond it. A table that starts too
    far on is made anew from this stop.
    """
    ticks = tick_table(pool.ticks)
    # States with the same ticks differ in liquidity by what the ticks do not explain, which is nothing in a sane pool.
    key = (zero_for_one, pool.fee_pips, pool.tick_spacing, pool.known_from_tick, pool.known_to_tick, liquidity - ticks.depths[at])
    table = ticks.stops.get(key)
    place = None if table is None else table.place(stop)
    if table is None or place is None:
        if len(ticks.stops) >= _KEPT_TABLES:
            ticks.stops.clear()
        table, place = StopTable(pool, zero_for_one, stop, liquidity), 0
        ticks.stops[key] = table
    return table, place


def _grown(pool: V3Pool, zero_for_one: bool, sums: Sums, past_cost: int, past_out: int, past_key: int) -> Sums:
    """The sums with more stops: past all that is asked for, a few at least, or up to the end."""
    ticks = tick_table(pool.ticks)
    keys, costs, fees, outs = list(sums.keys), list(sums.costs), list(sums.fees), list(sums.outs)
    crossed, rows = list(sums.crossed), list(sums.rows)
    (cost, out, price, liquidity, _), fee, crossings = rows[-1], fees[-1], crossed[-1]
    tick = -keys[-1] - 1 if zero_for_one else keys[-1]
    at = bisect_right(ticks.indices, tick)
    fewest = len(keys) + 1 + len(keys) // _GROWTH
    end = None
    while end is None and (len(keys) < fewest or cost <= past_cost or out <= past_out or keys[-1] <= past_key):
        stop, target, beyond, at_beyond, end = next_step(pool, ticks, at, tick, price, liquidity, zero_for_one)
        step_in, step_out, step_fee = whole_step(price, target, liquidity, pool.fee_pips)
        cost, out, fee = cost + step_in + step_fee, out + step_out, fee + step_fee
        crossings += at != at_beyond
        price, tick, liquidity, at = target, stop - 1 if zero_for_one else stop, beyond, at_beyond
        if end is None:
            keys.append(-stop if zero_for_one else stop)
            costs.append(cost)
            fees.append(fee)
            outs.append(out)
            crossed.append(crossings)
            rows.append((cost, out, price, liquidity, liquidity << 96))
    return Sums(tuple(keys), tuple(costs), tuple(fees), tuple(outs), tuple(crossed), tuple(rows), end, price, cost, out)
