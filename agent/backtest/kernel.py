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
_MAX_DEPTH_SHARE, _MAX_NEWTON_STEPS = 1.0 - 1e-9, 200
MAX_BLOCK_BARS = 256
"""Maximum number of bars checked at a time."""


def _compiled(function: Any) -> Any:
    """Compile on the first call, and cache on disk if possible."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no writable folder for the cache
        return njit(nogil=True)(function)


@_compiled
def set_bands(
    targets: Floats, absolute: float, relative: float, tradable: Any, goal: Floats, bands: Floats
) -> bool:
    """Write the scaled targets of the tradable assets into `goal`; return False if none has a
    target.

    `bands` gets four rows: the lower and upper edge of each band (0 and 1 for assets that do not
    trade), and the lowest and highest share at which a rebalance to the bands may end. That range
    excludes shares that the other assets could not offset within their own bands. The narrower of
    two widths applies; NaN means no width (agent/policy/drift.py).
    """
    target_sum = 0.0
    for i in range(len(targets)):
        if tradable[i]:
            target_sum += targets[i]
    low, high, end_low, end_high = bands[0], bands[1], bands[2], bands[3]
    low_sum, high_sum = 0.0, 0.0
    for i in range(len(targets)):
        goal[i], low[i], high[i] = 0.0, 0.0, 1.0
        if tradable[i] and target_sum > 0.0:
            goal[i] = targets[i] / target_sum
            width = absolute
            if np.isnan(width) or relative * goal[i] < width:
                width = relative * goal[i]
            if np.isnan(width):
                width = 0.0
            low[i], high[i] = max(0.0, goal[i] - width), min(1.0, goal[i] + width)
            low_sum, high_sum = low_sum + low[i], high_sum + high[i]
    for i in range(len(targets)):
        end_low[i], end_high[i] = 0.0, 0.0
        if tradable[i]:
            end_low[i], end_high[i] = (
                max(low[i], 1.0 - (high_sum - high[i])),
                min(high[i], 1.0 - (low_sum - low[i])),
            )
    return target_sum > 0.0


@_compiled
def destination_shares(
    destination: int, shares: Floats, goal: Floats, bands: Floats, end_shares: Floats
) -> float:
    """Write the destination shares into `end_shares`; return the largest correction, as a share
    (agent/policy/drift.py).

    For destinations target and halfway the shares are fixed. For bands, each share moves to the
    nearest edge of its interval, and the total may differ from one. The difference is spread in
    proportion to the room left in each interval, for minimal turnover.
    """
    end_low, end_high = bands[2], bands[3]
    largest_correction, remainder, room = 0.0, 1.0, 0.0
    for i in range(len(shares)):
        if destination == BAND:
            end_shares[i] = min(max(shares[i], end_low[i]), end_high[i])
        else:
            end_shares[i] = goal[i] if destination == TARGET else 0.5 * (shares[i] + goal[i])
        largest_correction = max(largest_correction, abs(end_shares[i] - shares[i]))
        remainder -= end_shares[i]
    if destination != BAND:
        return largest_correction
    for i in range(len(shares)):
        room += end_high[i] - end_shares[i] if remainder > 0.0 else end_shares[i] - end_low[i]
    fill_ratio = min(1.0, abs(remainder) / room) if room > 0.0 else 0.0
    for i in range(len(shares)):
        end_shares[i] += fill_ratio * (
            (end_high[i] if remainder > 0.0 else end_low[i]) - end_shares[i]
        )
    return largest_correction


@_compiled
def value_after_costs(
    values: Floats, end_shares: Floats, fee: Floats, inverse_depth: Floats, total: float
) -> float:
    """Return the value left of `total`, after costs, once every asset has its share `end_shares`.

    Selling x into a pool of depth D yields n / (1 + n / D) with n = x (1 - fee), as
    UniswapV2Library.getAmountOut; `inverse_depth` is 1 / D, zero if size does not matter. Proceeds
    less costs are concave and decreasing in the remaining value, so Newton's steps from above never
    pass the root.
    """
    end_value, has_costs = total, False
    for i in range(len(values)):
        has_costs |= fee[i] > 0.0 or inverse_depth[i] > 0.0
        if inverse_depth[i] > 0.0 and end_shares[i] > 0.0:
            end_value = min(
                end_value, (values[i] + _MAX_DEPTH_SHARE / inverse_depth[i]) / end_shares[i]
            )
    for _ in range(_MAX_NEWTON_STEPS if has_costs else 0):
        surplus, slope = 0.0, 0.0
        for i in range(len(values)):
            gap, after_fee = end_shares[i] * end_value - values[i], 1.0 - fee[i]
            if gap < 0.0:
                net_sold = -gap * after_fee
                impact = 1.0 + net_sold * inverse_depth[i]
                surplus += net_sold / impact
                slope -= end_shares[i] * after_fee / (impact * impact)
            else:
                impact = 1.0 - gap * inverse_depth[i]
                surplus -= gap / (impact * after_fee)
                slope -= end_shares[i] / (impact * impact * after_fee)
        if slope == 0.0:
            break
        step = surplus / slope
        if step <= 1e-16 * total:
            break
        end_value -= step
    return end_value


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
    units: Floats, prices: Floats, start: int, end: int, bands: Floats, block_totals: Floats
) -> int:
    """Return the first bar from `start` at which `_is_outside_band` is true; `end` if there is
    none.

    Holdings are constant between trades, so bars are checked in blocks, asset by asset. Blocks
    start small and grow, because a large block wastes work if weights leave their bands often.
    `block_totals` is a buffer for the totals of one block.
    """
    block_size = 16
    while start < end:
        stop = min(end, start + block_size)
        bar_count = stop - start
        block_totals[:bar_count] = 0.0
        for i in range(len(units)):
            units_held, row = units[i], prices[i, start:stop]
            for b in range(bar_count):
                block_totals[b] += units_held * row[b]
        any_outside = 0
        for i in range(len(units)):
            units_held, row, low, high = (
                units[i],
                prices[i, start:stop],
                bands[0, i] - BAND_TOLERANCE,
                bands[1, i] + BAND_TOLERANCE,
            )
            for b in range(bar_count):
                value = units_held * row[b]
                any_outside |= (value > high * block_totals[b]) | (value < low * block_totals[b])
        if any_outside:
            for t in range(start, stop):
                if _is_outside_band(units, prices, t, bands):
                    return t
        start, block_size = stop, min(len(block_totals), 2 * block_size)
    return end


@_compiled
def run(  # noqa: C901, PLR0913, PLR0915
    times_s: NDArray[np.int64],
    trade_prices: Floats,
    quote_prices: Floats,
    bar_states: NDArray[np.int8],
    break_bars: NDArray[np.int64],
    start_value: float,
    targets: Floats,
    absolute: float,
    relative: float,
    every_s: int,
    cooldown_s: int,
    min_trade: float,
    destination: int,
    fee: Floats,
    inverse_depth: Floats,
    mark_bars: NDArray[np.int64],
    totals: Floats,
    values_at: Floats,
    has_traded: NDArray[np.bool_],
    holdings: Floats,
) -> None:
    """Run one setting over all bars.

    Results are written to `totals`, the value at each bar of `mark_bars` (ascending) to
    `values_at`. `trade_prices` has prices by asset and bar, zero while an asset does not trade;
    `quote_prices` has the newest known prices, used for all values. `break_bars` has the bars that
    are not SAME, and the end. `start_value` buys the first holdings. If `has_traded` and `holdings`
    are as long as the table, they receive the bars that traded, and the holdings after the first
    buys and after each trade. NaN means no width, an `every_s` of zero no interval.
    """
    asset_count, bar_count = trade_prices.shape
    units, first_units, values, shares = (
        np.zeros(asset_count),
        np.zeros(asset_count),
        np.zeros(asset_count),
        np.zeros(asset_count),
    )
    goal, end_shares, bands, block_totals = (
        np.zeros(asset_count),
        np.zeros(asset_count),
        np.zeros((4, asset_count)),
        np.zeros(MAX_BLOCK_BARS),
    )
    has_band, has_interval = not (np.isnan(absolute) and np.isnan(relative)), every_s > 0
    due_s, cooldown_end_s = times_s[0], times_s[0]
    turnover, costs = 0.0, 0.0
    t, rebalances, mark_index, next_break, has_targets, has_bought = 0, 0, 0, 0, False, False
    while t < bar_count:
        while break_bars[next_break] < t:
            next_break += 1
        end = break_bars[next_break]
        if t < end:
            if has_interval:
                t += np.searchsorted(times_s[t:end], due_s)
            elif has_targets and has_bought:
                t += np.searchsorted(times_s[t:end], cooldown_end_s)
                if has_band:
                    t = first_bar_outside_band(units, trade_prices, t, end, bands, block_totals)
            else:
                t = end
        while mark_index < len(mark_bars) and mark_bars[mark_index] < t:
            values_at[mark_index] = (
                _portfolio_value(units, quote_prices, mark_bars[mark_index])
                if has_bought
                else start_value
            )
            mark_index += 1
        if t >= bar_count:
            break
        if bar_states[t] == CHANGED:
            has_targets = set_bands(
                targets, absolute, relative, trade_prices[:, t] > 0.0, goal, bands
            )
            if has_targets and not has_bought:
                has_bought = True
                for i in range(asset_count):
                    if goal[i] > 0.0:
                        units[i] = first_units[i] = start_value * goal[i] / trade_prices[i, t]
                if len(has_traded) == bar_count:
                    holdings[t] = units
        if bar_states[t] != CLOSED and has_targets and times_s[t] >= due_s:
            total = _portfolio_value(units, trade_prices, t)
            fires = total > 0.0 and (
                not has_band or _is_outside_band(units, trade_prices, t, bands)
            )
            if fires and times_s[t] >= cooldown_end_s:
                for i in range(asset_count):
                    values[i] = units[i] * trade_prices[i, t]
                    shares[i] = values[i] / total
                largest_correction = destination_shares(
                    destination, shares, goal, bands, end_shares
                )
                if largest_correction > BAND_TOLERANCE and largest_correction * total >= min_trade:
                    end_value = value_after_costs(values, end_shares, fee, inverse_depth, total)
                    for i in range(asset_count):
                        if trade_prices[i, t] > 0.0:
                            turnover += 0.5 * abs(end_shares[i] * end_value - values[i])
                            units[i] = end_shares[i] * end_value / trade_prices[i, t]
                    costs += total - end_value
                    cooldown_end_s = times_s[t] + cooldown_s
                    rebalances += 1
                    if len(has_traded) == bar_count:
                        has_traded[t] = True
                        holdings[t] = units
                fires = False  # the scheduled review is complete
            due_s = due_s if fires else times_s[t] + every_s
        if mark_index < len(mark_bars) and mark_bars[mark_index] == t:
            values_at[mark_index] = (
                _portfolio_value(units, quote_prices, t) if has_bought else start_value
            )
            mark_index += 1
        t += 1
    totals[FINAL] = (
        _portfolio_value(units, quote_prices, bar_count - 1) if has_bought else start_value
    )
    totals[HOLD] = (
        _portfolio_value(first_units, quote_prices, bar_count - 1) if has_bought else start_value
    )
    for i in range(asset_count):
        if trade_prices[i, bar_count - 1] == 0.0:
            totals[STRANDED] += units[i] * quote_prices[i, bar_count - 1]
    totals[TURNOVER], totals[COSTS], totals[REBALANCES] = turnover, costs, float(rebalances)


@_compiled
def run_settings(  # noqa: PLR0913
    times_s: NDArray[np.int64],
    trade_prices: Floats,
    quote_prices: Floats,
    bar_states: NDArray[np.int8],
    break_bars: NDArray[np.int64],
    start_value: float,
    targets: Floats,
    widths_and_min_trade: Floats,
    interval_and_cooldown_s: NDArray[np.int64],
    destination_codes: NDArray[np.int64],
    fees: Floats,
    inverse_depths: Floats,
    mark_bars: NDArray[np.int64],
    totals: Floats,
    values_at: Floats,
) -> None:
    """Call `run` for each row: `widths_and_min_trade` are absolute width, relative width and
    smallest trade, `interval_and_cooldown_s` interval and cooldown.
    """
    no_trades, no_holdings = np.zeros(0, dtype=np.bool_), np.zeros((0, targets.shape[1]))
    for k in range(len(targets)):
        run(
            times_s, trade_prices, quote_prices, bar_states, break_bars, start_value, targets[k],
            widths_and_min_trade[k, 0], widths_and_min_trade[k, 1],
            interval_and_cooldown_s[k, 0], interval_and_cooldown_s[k, 1], widths_and_min_trade[k, 2],
            destination_codes[k], fees[k], inverse_depths[k], mark_bars, totals[k], values_at[k],
            no_trades, no_holdings,
        )  # fmt: skip
