"""The kernel: one run of fixed weights over a price table, compiled by numba.

The rules are those of agent/policy (drift, bands, schedules, goal) in floating point;
agent/backtest/sweep.py describes them. All numba code is in this file: numba's cache identifies a
function by its file, and importing numba takes a second.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SAME, CHANGED, CLOSED = 0, 1, 2
"""State of a bar: the same assets trade as in the previous bar, different ones, or none."""
TARGET, HALFWAY, BAND = 0, 1, 2
FINAL, HOLD, TURNOVER, COSTS, STRANDED, REBALANCES = range(6)
"""Result columns of a run."""
BAND_TOLERANCE = 1e-12
"""Tolerance in shares for float errors: a weight closer to an edge counts as on it, and smaller
corrections count as zero.
"""
_DEEPEST, _ROUNDS = 1.0 - 1e-9, 200
BLOCK = 256
"""Maximum number of bars checked at a time."""


def _compiled(function: Any) -> Any:
    """Compile on the first call, and cache on disk if possible."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no writable folder for the cache
        return njit(nogil=True)(function)


@_compiled
def set_bands(
    targets: Floats, absolute: float, relative: float, open_: Any, goal: Floats, bands: Floats
) -> bool:
    """Write the scaled targets of the tradable assets into `goal`; return False if none has a
    target.

    `bands` receives the band edges (0 and 1 for assets that do not trade), and the intervals in
    which a rebalance to the bands may end: the band without the part that other assets cannot
    offset. The narrower of two widths applies; NaN means no width (agent/policy/drift.py).
    """
    whole = 0.0
    for i in range(len(targets)):
        if open_[i]:
            whole += targets[i]
    low, high, least, most = bands[0], bands[1], bands[2], bands[3]
    lows, highs = 0.0, 0.0
    for i in range(len(targets)):
        goal[i], low[i], high[i] = 0.0, 0.0, 1.0
        if open_[i] and whole > 0.0:
            goal[i] = targets[i] / whole
            width = absolute
            if np.isnan(width) or relative * goal[i] < width:
                width = relative * goal[i]
            if np.isnan(width):
                width = 0.0
            low[i], high[i] = max(0.0, goal[i] - width), min(1.0, goal[i] + width)
            lows, highs = lows + low[i], highs + high[i]
    for i in range(len(targets)):
        least[i], most[i] = 0.0, 0.0
        if open_[i]:
            least[i], most[i] = (
                max(low[i], 1.0 - (highs - high[i])),
                min(high[i], 1.0 - (lows - low[i])),
            )
    return whole > 0.0


@_compiled
def destination_shares(
    destination: int, shares: Floats, goal: Floats, bands: Floats, land: Floats
) -> float:
    """Write the destination shares into `land`; return the largest correction, as a share
    (agent/policy/drift.py).

    For destinations target and halfway the shares are fixed. For bands, each share moves to the
    nearest edge of its interval, and the total may differ from one. The difference is spread in
    proportion to the room left in each interval, for minimal turnover.
    """
    least, most = bands[2], bands[3]
    largest, left, room = 0.0, 1.0, 0.0
    for i in range(len(shares)):
        if destination == BAND:
            land[i] = min(max(shares[i], least[i]), most[i])
        else:
            land[i] = goal[i] if destination == TARGET else 0.5 * (shares[i] + goal[i])
        largest = max(largest, abs(land[i] - shares[i]))
        left -= land[i]
    if destination != BAND:
        return largest
    for i in range(len(shares)):
        room += most[i] - land[i] if left > 0.0 else land[i] - least[i]
    part = min(1.0, abs(left) / room) if room > 0.0 else 0.0
    for i in range(len(shares)):
        land[i] += part * ((most[i] if left > 0.0 else least[i]) - land[i])
    return largest


@_compiled
def value_after_costs(
    values: Floats, land: Floats, fee: Floats, shallow: Floats, total: float
) -> float:
    """Return the value left of `total`, after costs, once every asset has its share `land`.

    Selling x into a pool of depth D yields n / (1 + n / D) with n = x (1 - fee), as
    UniswapV2Library.getAmountOut; `shallow` is 1 / D, zero if size does not matter. Proceeds less
    costs are concave and decreasing in the remaining value, so Newton's steps from above never pass
    the root.
    """
    left, costly = total, False
    for i in range(len(values)):
        costly |= fee[i] > 0.0 or shallow[i] > 0.0
        if shallow[i] > 0.0 and land[i] > 0.0:
            left = min(left, (values[i] + _DEEPEST / shallow[i]) / land[i])
    for _ in range(_ROUNDS if costly else 0):
        surplus, slope = 0.0, 0.0
        for i in range(len(values)):
            gap, keep = land[i] * left - values[i], 1.0 - fee[i]
            if gap < 0.0:
                net = -gap * keep
                room = 1.0 + net * shallow[i]
                surplus += net / room
                slope -= land[i] * keep / (room * room)
            else:
                room = 1.0 - gap * shallow[i]
                surplus -= gap / (room * keep)
                slope -= land[i] / (room * room * keep)
        if slope == 0.0:
            break
        step = surplus / slope
        if step <= 1e-16 * total:
            break
        left -= step
    return left


@_compiled
def _portfolio_value(units: Floats, prices: Floats, t: int) -> float:
    """Return the value of the holdings at bar `t`."""
    total = 0.0
    for i in range(len(units)):
        total += units[i] * prices[i, t]
    return total


@_compiled
def _is_outside_band(units: Floats, prices: Floats, t: int, bands: Floats) -> bool:
    """Return whether any share is strictly beyond its band at bar `t`."""
    total, is_outside = _portfolio_value(units, prices, t), False
    for i in range(len(units)):
        value = units[i] * prices[i, t]
        is_outside |= (value > (bands[1, i] + BAND_TOLERANCE) * total) | (
            value < (bands[0, i] - BAND_TOLERANCE) * total
        )
    return is_outside


@_compiled
def first_bar_outside_band(
    units: Floats, prices: Floats, start: int, end: int, bands: Floats, whole: Floats
) -> int:
    """Return the first bar from `start` at which `_is_outside_band` is true; `end` if there is
    none.

    Holdings are constant between trades, so bars are checked in blocks, asset by asset. Blocks
    start small and grow, because a large block wastes work if weights leave their bands often.
    `whole` is a buffer for the totals of one block.
    """
    size = 16
    while start < end:
        stop = min(end, start + size)
        many = stop - start
        whole[:many] = 0.0
        for i in range(len(units)):
            amount, row = units[i], prices[i, start:stop]
            for b in range(many):
                whole[b] += amount * row[b]
        outside = 0
        for i in range(len(units)):
            amount, row, least, most = (
                units[i],
                prices[i, start:stop],
                bands[0, i] - BAND_TOLERANCE,
                bands[1, i] + BAND_TOLERANCE,
            )
            for b in range(many):
                value = amount * row[b]
                outside |= (value > most * whole[b]) | (value < least * whole[b])
        if outside:
            for t in range(start, stop):
                if _is_outside_band(units, prices, t, bands):
                    return t
        start, size = stop, min(len(whole), 2 * size)
    return end


@_compiled
def run(  # noqa: C901, PLR0913, PLR0915
    times_s: NDArray[np.int64],
    traded: Floats,
    quoted: Floats,
    state: NDArray[np.int8],
    breaks: NDArray[np.int64],
    value: float,
    targets: Floats,
    absolute: float,
    relative: float,
    every_s: int,
    cooldown_s: int,
    min_trade: float,
    destination: int,
    fee: Floats,
    shallow: Floats,
    marks: NDArray[np.int64],
    totals: Floats,
    values_at: Floats,
    traded_at: NDArray[np.bool_],
    held_at: Floats,
) -> None:
    """Run one setting over all bars.

    Results are written to `totals`, the value at each bar of `marks` (ascending) to `values_at`.
    `traded` has prices by asset and bar, zero while an asset does not trade; `quoted` has the newest
    known prices, used for all values. `breaks` has the bars that are not SAME, and the end. If
    `traded_at` and `held_at` are as long as the table, they receive the bars that traded, and the
    holdings after the first buys and after each trade. NaN means no width, an `every_s` of zero no
    interval.
    """
    count, bars = traded.shape
    units, first, values, shares = (
        np.zeros(count),
        np.zeros(count),
        np.zeros(count),
        np.zeros(count),
    )
    goal, land, bands, whole = (
        np.zeros(count),
        np.zeros(count),
        np.zeros((4, count)),
        np.zeros(BLOCK),
    )
    banded, timed = not (np.isnan(absolute) and np.isnan(relative)), every_s > 0
    due_s, rested_s = times_s[0], times_s[0]
    turnover, costs = 0.0, 0.0
    t, rebalances, mark, next_break, opened, begun = 0, 0, 0, 0, False, False
    while t < bars:
        while breaks[next_break] < t:
            next_break += 1
        end = breaks[next_break]
        if t < end:
            if timed:
                t += np.searchsorted(times_s[t:end], due_s)
            elif opened and begun:
                t += np.searchsorted(times_s[t:end], rested_s)
                if banded:
                    t = first_bar_outside_band(units, traded, t, end, bands, whole)
            else:
                t = end
        while mark < len(marks) and marks[mark] < t:
            values_at[mark] = _portfolio_value(units, quoted, marks[mark]) if begun else value
            mark += 1
        if t >= bars:
            break
        if state[t] == CHANGED:
            opened = set_bands(targets, absolute, relative, traded[:, t] > 0.0, goal, bands)
            if opened and not begun:
                begun = True
                for i in range(count):
                    if goal[i] > 0.0:
                        units[i] = first[i] = value * goal[i] / traded[i, t]
                if len(traded_at) == bars:
                    held_at[t] = units
        if state[t] != CLOSED and opened and times_s[t] >= due_s:
            total = _portfolio_value(units, traded, t)
            fires = total > 0.0 and (not banded or _is_outside_band(units, traded, t, bands))
            if fires and times_s[t] >= rested_s:
                for i in range(count):
                    values[i] = units[i] * traded[i, t]
                    shares[i] = values[i] / total
                largest = destination_shares(destination, shares, goal, bands, land)
                if largest > BAND_TOLERANCE and largest * total >= min_trade:
                    left = value_after_costs(values, land, fee, shallow, total)
                    for i in range(count):
                        if traded[i, t] > 0.0:
                            turnover += 0.5 * abs(land[i] * left - values[i])
                            units[i] = land[i] * left / traded[i, t]
                    costs += total - left
                    rested_s = times_s[t] + cooldown_s
                    rebalances += 1
                    if len(traded_at) == bars:
                        traded_at[t] = True
                        held_at[t] = units
                fires = False  # the scheduled review is complete
            due_s = due_s if fires else times_s[t] + every_s
        if mark < len(marks) and marks[mark] == t:
            values_at[mark] = _portfolio_value(units, quoted, t) if begun else value
            mark += 1
        t += 1
    totals[FINAL] = _portfolio_value(units, quoted, bars - 1) if begun else value
    totals[HOLD] = _portfolio_value(first, quoted, bars - 1) if begun else value
    for i in range(count):
        if traded[i, bars - 1] == 0.0:
            totals[STRANDED] += units[i] * quoted[i, bars - 1]
    totals[TURNOVER], totals[COSTS], totals[REBALANCES] = turnover, costs, float(rebalances)


@_compiled
def many(  # noqa: PLR0913
    times_s: NDArray[np.int64],
    traded: Floats,
    quoted: Floats,
    state: NDArray[np.int8],
    breaks: NDArray[np.int64],
    value: float,
    targets: Floats,
    numbers: Floats,
    seconds: NDArray[np.int64],
    destination: NDArray[np.int64],
    fee: Floats,
    shallow: Floats,
    marks: NDArray[np.int64],
    totals: Floats,
    values_at: Floats,
) -> None:
    """Call `run` for each row: `numbers` are absolute width, relative width and smallest trade,
    `seconds` interval and cooldown.
    """
    silent, nothing = np.zeros(0, dtype=np.bool_), np.zeros((0, targets.shape[1]))
    for k in range(len(targets)):
        run(
            times_s, traded, quoted, state, breaks, value, targets[k], numbers[k, 0], numbers[k, 1], seconds[k, 0], seconds[k, 1],
            numbers[k, 2], destination[k], fee[k], shallow[k], marks, totals[k], values_at[k], silent, nothing,
        )  # fmt: skip
