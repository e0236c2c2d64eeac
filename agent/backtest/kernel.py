"""The kernel: one run of fixed weights over a price table, compiled by numba.

The rules are those of agent/policy (drift, bands, schedules, goal, tracking) in floating point;
agent/backtest/sweep.py describes them. All numba code is in this file: numba's cache identifies a
function by its file, and importing numba takes a second.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from agent.floats import FloatArray

SAME_ASSETS = 0
CHANGED_ASSETS = 1
NO_ASSETS = 2
"""State of a bar: the same assets trade as in the previous bar, different ones, or none."""
TARGET = 0
HALFWAY = 1
BAND = 2
BAND_TOLERANCE = 1e-12
"""Tolerance in shares for float errors: a weight closer to an edge counts as on it, and smaller
corrections count as zero.
"""
NO_NUMERAIRE = -1
"""Index of the numeraire of a setting that is not by the tracking rule."""
_MAX_DEPTH_SHARE = 1.0 - 1e-9
_MAX_NEWTON_STEPS = 200
_MAX_DESCENT_ROUNDS = 400
_DESCENT_TOLERANCE = 1e-10
MAX_BLOCK_BARS = 256
"""Maximum number of bars checked at a time."""


class PriceArrays(NamedTuple):
    """Prices by asset and bar: `trade_prices` is zero while an asset does not trade, `quote_prices`
    has the newest known price, used for all values. `break_bars` has the bars that are not
    SAME_ASSETS, and the end.
    """

    times_s: NDArray[np.int64]
    trade_prices: FloatArray
    quote_prices: FloatArray
    bar_states: NDArray[np.int8]
    break_bars: NDArray[np.int64]


class SettingArrays(NamedTuple):
    """Settings, one row each. NaN means no width, an interval of zero none.

    With a numeraire other than NO_NUMERAIRE the setting is the tracking rule: `risk_slopes` are
    the rows of Qᵢⱼ less that of the numeraire, whose products with the deviations are what an
    exchange saves, and `trigger_slopes` those beyond which assets are traded.
    """

    targets: FloatArray
    absolute_widths: FloatArray
    relative_widths: FloatArray
    min_trades: FloatArray
    intervals_s: NDArray[np.int64]
    cooldowns_s: NDArray[np.int64]
    destination_codes: NDArray[np.int64]
    fee_shares: FloatArray
    inverse_depths: FloatArray
    numeraires: NDArray[np.int64]
    risk_slopes: FloatArray
    trigger_slopes: FloatArray


class SweepResult(NamedTuple):
    """Results of settings, one number per setting, values in the numeraire.

    `hold_values` is the final value of the first holdings, `turnover` half the sum of absolute
    changes of holdings, `costs` the cost of trading. `mark_values[setting, mark]` are values at the
    requested bars, after trading, `cost_shares` the costs until then as shares of the portfolio at
    each trade.
    """

    final_values: FloatArray
    hold_values: FloatArray
    turnover: FloatArray
    costs: FloatArray
    rebalance_counts: NDArray[np.int64]
    mark_values: FloatArray
    cost_shares: FloatArray


class RunPath(NamedTuple):
    """Written by a run if as long as the table: the bars that traded, and the holdings after the
    first buys and after each trade.
    """

    has_traded: NDArray[np.bool_]
    holdings: FloatArray


class ExchangeCosts(NamedTuple):
    """Costs of exchanging a share y of an asset for the numeraire: fee·|y| + impact·y²."""

    fee_shares: FloatArray
    impact_shares: FloatArray


def _compiled(function: Any) -> Any:
    """Compile on the first call, and cache on disk if possible."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no writable folder for the cache
        return njit(nogil=True)(function)


@_compiled
def set_bands(
    targets: FloatArray,
    absolute_width: float,
    relative_width: float,
    is_tradable: Any,
    scaled_targets: FloatArray,
    bands: FloatArray,
) -> bool:
    """Write the scaled targets of the tradable assets into `scaled_targets`; return False if none
    has a target.

    `bands` gets four rows: the lower and upper edge of each band (0 and 1 for assets that do not
    trade), and the lowest and highest share at which a rebalance to the bands may end. That range
    excludes shares that the other assets could not offset within their own bands. The narrower of
    two widths applies; NaN means no width (agent/policy/drift.py).
    """
    target_sum = 0.0
    for asset in range(len(targets)):
        if is_tradable[asset]:
            target_sum += targets[asset]
    low_edges = bands[0]
    high_edges = bands[1]
    lowest_end_shares = bands[2]
    highest_end_shares = bands[3]
    low_edge_sum = 0.0
    high_edge_sum = 0.0
    for asset in range(len(targets)):
        scaled_targets[asset] = 0.0
        low_edges[asset] = 0.0
        high_edges[asset] = 1.0
        if is_tradable[asset] and target_sum > 0.0:
            scaled_targets[asset] = targets[asset] / target_sum
            width = absolute_width
            if np.isnan(width) or relative_width * scaled_targets[asset] < width:
                width = relative_width * scaled_targets[asset]
            if np.isnan(width):
                width = 0.0
            low_edges[asset] = max(0.0, scaled_targets[asset] - width)
            high_edges[asset] = min(1.0, scaled_targets[asset] + width)
            low_edge_sum += low_edges[asset]
            high_edge_sum += high_edges[asset]
    for asset in range(len(targets)):
        lowest_end_shares[asset] = 0.0
        highest_end_shares[asset] = 0.0
        if is_tradable[asset]:
            lowest_end_shares[asset] = max(
                low_edges[asset], 1.0 - (high_edge_sum - high_edges[asset])
            )
            highest_end_shares[asset] = min(
                high_edges[asset], 1.0 - (low_edge_sum - low_edges[asset])
            )
    return target_sum > 0.0


@_compiled
def set_end_shares(
    destination: int,
    shares: FloatArray,
    scaled_targets: FloatArray,
    bands: FloatArray,
    end_shares: FloatArray,
) -> float:
    """Write the destination shares into `end_shares`; return the largest correction, as a share
    (agent/policy/drift.py).

    For destinations target and halfway the shares are fixed. For bands, each share moves to the
    nearest edge of its interval, and the total may differ from one. The difference is spread in
    proportion to the room left in each interval, for minimal turnover.
    """
    lowest_end_shares = bands[2]
    highest_end_shares = bands[3]
    largest_correction = 0.0
    remainder = 1.0
    room = 0.0
    for asset in range(len(shares)):
        if destination == BAND:
            end_shares[asset] = min(
                max(shares[asset], lowest_end_shares[asset]), highest_end_shares[asset]
            )
        else:
            end_shares[asset] = (
                scaled_targets[asset]
                if destination == TARGET
                else 0.5 * (shares[asset] + scaled_targets[asset])
            )
        largest_correction = max(largest_correction, abs(end_shares[asset] - shares[asset]))
        remainder -= end_shares[asset]
    if destination != BAND:
        return largest_correction
    for asset in range(len(shares)):
        room += (
            highest_end_shares[asset] - end_shares[asset]
            if remainder > 0.0
            else end_shares[asset] - lowest_end_shares[asset]
        )
    fill_ratio = min(1.0, abs(remainder) / room) if room > 0.0 else 0.0
    for asset in range(len(shares)):
        end_shares[asset] += fill_ratio * (
            (highest_end_shares[asset] if remainder > 0.0 else lowest_end_shares[asset])
            - end_shares[asset]
        )
    return largest_correction


@_compiled
def value_after_costs(
    asset_values: FloatArray,
    end_shares: FloatArray,
    fee_shares: FloatArray,
    inverse_depth: FloatArray,
    start_value: float,
) -> float:
    """Return the value left of `start_value`, after costs, once every asset has its share
    `end_shares`.

    Selling x into a pool of depth D yields n / (1 + n / D) with n = x (1 - fee), as
    UniswapV2Library.getAmountOut; `inverse_depth` is 1 / D, zero if size does not matter. Proceeds
    less costs are concave and decreasing in the remaining value, so Newton's steps from above never
    pass the root.
    """
    end_value = start_value
    has_costs = False
    for asset in range(len(asset_values)):
        has_costs |= fee_shares[asset] > 0.0 or inverse_depth[asset] > 0.0
        if inverse_depth[asset] > 0.0 and end_shares[asset] > 0.0:
            end_value = min(
                end_value,
                (asset_values[asset] + _MAX_DEPTH_SHARE / inverse_depth[asset]) / end_shares[asset],
            )
    for _ in range(_MAX_NEWTON_STEPS if has_costs else 0):
        surplus = 0.0
        slope = 0.0
        for asset in range(len(asset_values)):
            trade_value = end_shares[asset] * end_value - asset_values[asset]
            share_after_fee = 1.0 - fee_shares[asset]
            if trade_value < 0.0:
                net_sold = -trade_value * share_after_fee
                impact_factor = 1.0 + net_sold * inverse_depth[asset]
                surplus += net_sold / impact_factor
                slope -= end_shares[asset] * share_after_fee / (impact_factor * impact_factor)
            else:
                impact_factor = 1.0 - trade_value * inverse_depth[asset]
                surplus -= trade_value / (impact_factor * share_after_fee)
                slope -= end_shares[asset] / (impact_factor * impact_factor * share_after_fee)
        if slope == 0.0:
            break
        newton_step = surplus / slope
        if newton_step <= 1e-16 * start_value:
            break
        end_value -= newton_step
    return end_value


@_compiled
def _portfolio_value(units: FloatArray, prices: FloatArray, bar: int) -> float:
    """Return the value of the holdings at bar `bar`."""
    portfolio_value = 0.0
    for asset in range(len(units)):
        portfolio_value += units[asset] * prices[asset, bar]
    return portfolio_value


@_compiled
def _is_outside_band(units: FloatArray, prices: FloatArray, bar: int, bands: FloatArray) -> bool:
    """Return whether any share is strictly beyond its band at bar `bar`."""
    portfolio_value = _portfolio_value(units, prices, bar)
    is_outside = False
    for asset in range(len(units)):
        asset_value = units[asset] * prices[asset, bar]
        is_outside |= (asset_value > (bands[1, asset] + BAND_TOLERANCE) * portfolio_value) | (
            asset_value < (bands[0, asset] - BAND_TOLERANCE) * portfolio_value
        )
    return is_outside


@_compiled
def first_bar_outside_band(
    units: FloatArray,
    prices: FloatArray,
    start_bar: int,
    end_bar: int,
    bands: FloatArray,
    block_totals: FloatArray,
) -> int:
    """Return the first bar from `start_bar` at which `_is_outside_band` is true; `end_bar` if there
    is none.

    Holdings are constant between trades, so bars are checked in blocks, asset by asset. Blocks
    start small and grow, because a large block wastes work if weights leave their bands often.
    `block_totals` is a buffer for the totals of one block.
    """
    block_size = 16
    while start_bar < end_bar:
        block_end = min(end_bar, start_bar + block_size)
        bar_count = block_end - start_bar
        block_totals[:bar_count] = 0.0
        for asset in range(len(units)):
            units_held = units[asset]
            prices_in_block = prices[asset, start_bar:block_end]
            for block_bar in range(bar_count):
                block_totals[block_bar] += units_held * prices_in_block[block_bar]
        any_outside = 0
        for asset in range(len(units)):
            units_held = units[asset]
            prices_in_block = prices[asset, start_bar:block_end]
            low_edge = bands[0, asset] - BAND_TOLERANCE
            high_edge = bands[1, asset] + BAND_TOLERANCE
            for block_bar in range(bar_count):
                asset_value = units_held * prices_in_block[block_bar]
                any_outside |= (asset_value > high_edge * block_totals[block_bar]) | (
                    asset_value < low_edge * block_totals[block_bar]
                )
        if any_outside:
            for bar in range(start_bar, block_end):
                if _is_outside_band(units, prices, bar, bands):
                    return bar
        start_bar = block_end
        block_size = min(len(block_totals), 2 * block_size)
    return end_bar


@_compiled
def is_beyond_trigger(
    units: FloatArray,
    prices: FloatArray,
    bar: int,
    scaled_targets: FloatArray,
    risk_slopes: FloatArray,
    trigger_slopes: FloatArray,
) -> bool:
    """Return whether an asset's deviation, with what the correlated ones add to it, is beyond its
    trigger at bar `bar` (agent/policy/triggers/no_trade_zone.py).
    """
    portfolio_value = _portfolio_value(units, prices, bar)
    if portfolio_value <= 0.0:
        return False
    for asset in range(len(units)):
        slope = 0.0
        for other in range(len(units)):
            share = units[other] * prices[other, bar] / portfolio_value
            slope += risk_slopes[asset, other] * (share - scaled_targets[other])
        if prices[asset, bar] > 0.0 and abs(slope) > trigger_slopes[asset] * (1 + BAND_TOLERANCE):
            return True
    return False


@_compiled
def first_bar_beyond_trigger(
    units: FloatArray,
    prices: FloatArray,
    start_bar: int,
    end_bar: int,
    scaled_targets: FloatArray,
    risk_slopes: FloatArray,
    trigger_slopes: FloatArray,
) -> int:
    """Return the first bar from `start_bar` at which `is_beyond_trigger` is true; `end_bar` if
    there is none.
    """
    for bar in range(start_bar, end_bar):
        if is_beyond_trigger(units, prices, bar, scaled_targets, risk_slopes, trigger_slopes):
            return bar
    return end_bar


@_compiled
def set_rule_shares(
    shares: FloatArray,
    scaled_targets: FloatArray,
    is_tradable: Any,
    risk_slopes: FloatArray,
    numeraire: int,
    costs: ExchangeCosts,
    end_shares: FloatArray,
) -> float:
    """Write the shares at which risk and costs together are least into `end_shares`; return the
    largest correction, as a share.

    Each asset is exchanged for the numeraire. With the deviation x, minimise ½·xᵀQx + Σ(fee·|y| +
    impact·y²) over the amounts y, one after the other until none moves: the convex plan of
    agent/planning without gas. No share falls below zero. Without a price of the numeraire nothing
    is exchanged.
    """
    largest_correction = 0.0
    for asset in range(len(shares)):
        end_shares[asset] = shares[asset]
    for _ in range(_MAX_DESCENT_ROUNDS):
        largest_move = 0.0
        for asset in range(len(shares)):
            if asset == numeraire or not (is_tradable[asset] and is_tradable[numeraire]):
                continue
            slope = 0.0
            for other in range(len(shares)):
                slope += risk_slopes[asset, other] * (end_shares[other] - scaled_targets[other])
            curvature = risk_slopes[asset, asset] - risk_slopes[asset, numeraire]
            sold_share = shares[asset] - end_shares[asset]
            pull = slope + curvature * sold_share
            best_share = 0.0
            if abs(pull) > costs.fee_shares[asset]:
                excess = (
                    pull - costs.fee_shares[asset] if pull > 0.0 else pull + costs.fee_shares[asset]
                )
                best_share = excess / (curvature + 2.0 * costs.impact_shares[asset])
            move = min(max(best_share - sold_share, -end_shares[numeraire]), end_shares[asset])
            end_shares[asset] -= move
            end_shares[numeraire] += move
            largest_move = max(largest_move, abs(move))
        if largest_move < _DESCENT_TOLERANCE:
            break
    for asset in range(len(shares)):
        largest_correction = max(largest_correction, abs(end_shares[asset] - shares[asset]))
    return largest_correction


@_compiled
def run_setting(  # noqa: C901, PLR0915
    prices: PriceArrays,
    settings: SettingArrays,
    row: int,
    start_value: float,
    mark_bars: NDArray[np.int64],
    sweep_result: SweepResult,
    path: RunPath,
) -> None:
    """Run the setting of a row over all bars; `start_value` buys the first holdings. Results are written to
    that row of `sweep_result`, with values and costs at each bar of `mark_bars` (ascending), and to
    `path`.
    """
    times_s, trade_prices, quote_prices, bar_states, break_bars = prices
    mark_values = sweep_result.mark_values[row]
    cost_shares = sweep_result.cost_shares[row]
    asset_count, bar_count = trade_prices.shape
    units = np.zeros(asset_count)
    hold_units = np.zeros(asset_count)
    asset_values = np.zeros(asset_count)
    shares = np.zeros(asset_count)
    scaled_targets = np.zeros(asset_count)
    end_shares = np.zeros(asset_count)
    bands = np.zeros((4, asset_count))
    block_totals = np.zeros(MAX_BLOCK_BARS)
    has_band = not (
        np.isnan(settings.absolute_widths[row]) and np.isnan(settings.relative_widths[row])
    )
    has_interval = settings.intervals_s[row] > 0
    is_by_rule = settings.numeraires[row] != NO_NUMERAIRE
    cost_share = 0.0
    due_s = times_s[0]
    cooldown_end_s = times_s[0]
    turnover = 0.0
    costs = 0.0
    bar = 0
    rebalance_count = 0
    mark_index = 0
    break_index = 0
    has_targets = False
    has_bought = False
    while bar < bar_count:
        while break_bars[break_index] < bar:
            break_index += 1
        end_bar = break_bars[break_index]
        if bar < end_bar:
            if has_interval:
                bar += np.searchsorted(times_s[bar:end_bar], due_s)
            elif has_targets and has_bought:
                bar += np.searchsorted(times_s[bar:end_bar], cooldown_end_s)
                if is_by_rule:
                    bar = first_bar_beyond_trigger(
                        units,
                        trade_prices,
                        bar,
                        end_bar,
                        scaled_targets,
                        settings.risk_slopes[row],
                        settings.trigger_slopes[row],
                    )
                elif has_band:
                    bar = first_bar_outside_band(
                        units, trade_prices, bar, end_bar, bands, block_totals
                    )
            else:
                bar = end_bar
        while mark_index < len(mark_bars) and mark_bars[mark_index] < bar:
            mark_values[mark_index] = (
                _portfolio_value(units, quote_prices, mark_bars[mark_index])
                if has_bought
                else start_value
            )
            cost_shares[mark_index] = cost_share
            mark_index += 1
        if bar >= bar_count:
            break
        if bar_states[bar] == CHANGED_ASSETS:
            has_targets = set_bands(
                settings.targets[row],
                settings.absolute_widths[row],
                settings.relative_widths[row],
                trade_prices[:, bar] > 0.0,
                scaled_targets,
                bands,
            )
            if has_targets and not has_bought:
                has_bought = True
                for asset in range(asset_count):
                    if scaled_targets[asset] > 0.0:
                        units[asset] = hold_units[asset] = (
                            start_value * scaled_targets[asset] / trade_prices[asset, bar]
                        )
                if len(path.has_traded) == bar_count:
                    path.holdings[bar] = units
        if bar_states[bar] != NO_ASSETS and has_targets and times_s[bar] >= due_s:
            portfolio_value = _portfolio_value(units, trade_prices, bar)
            if is_by_rule:
                is_triggered = is_beyond_trigger(
                    units,
                    trade_prices,
                    bar,
                    scaled_targets,
                    settings.risk_slopes[row],
                    settings.trigger_slopes[row],
                )
            else:
                is_triggered = portfolio_value > 0.0 and (
                    not has_band or _is_outside_band(units, trade_prices, bar, bands)
                )
            if is_triggered and times_s[bar] >= cooldown_end_s:
                for asset in range(asset_count):
                    asset_values[asset] = units[asset] * trade_prices[asset, bar]
                    shares[asset] = asset_values[asset] / portfolio_value
                if is_by_rule:
                    largest_correction = set_rule_shares(
                        shares,
                        scaled_targets,
                        trade_prices[:, bar] > 0.0,
                        settings.risk_slopes[row],
                        settings.numeraires[row],
                        ExchangeCosts(
                            settings.fee_shares[row], settings.inverse_depths[row] * portfolio_value
                        ),
                        end_shares,
                    )
                else:
                    largest_correction = set_end_shares(
                        settings.destination_codes[row], shares, scaled_targets, bands, end_shares
                    )
                if (
                    largest_correction > BAND_TOLERANCE
                    and largest_correction * portfolio_value >= settings.min_trades[row]
                ):
                    end_value = value_after_costs(
                        asset_values,
                        end_shares,
                        settings.fee_shares[row],
                        settings.inverse_depths[row],
                        portfolio_value,
                    )
                    for asset in range(asset_count):
                        if trade_prices[asset, bar] > 0.0:
                            turnover += 0.5 * abs(
                                end_shares[asset] * end_value - asset_values[asset]
                            )
                            units[asset] = end_shares[asset] * end_value / trade_prices[asset, bar]
                    costs += portfolio_value - end_value
                    cost_share += 1.0 - end_value / portfolio_value
                    cooldown_end_s = times_s[bar] + settings.cooldowns_s[row]
                    rebalance_count += 1
                    if len(path.has_traded) == bar_count:
                        path.has_traded[bar] = True
                        path.holdings[bar] = units
                is_triggered = False  # the scheduled review is complete
            due_s = due_s if is_triggered else times_s[bar] + settings.intervals_s[row]
        if mark_index < len(mark_bars) and mark_bars[mark_index] == bar:
            mark_values[mark_index] = (
                _portfolio_value(units, quote_prices, bar) if has_bought else start_value
            )
            cost_shares[mark_index] = cost_share
            mark_index += 1
        bar += 1
    sweep_result.final_values[row] = (
        _portfolio_value(units, quote_prices, bar_count - 1) if has_bought else start_value
    )
    sweep_result.hold_values[row] = (
        _portfolio_value(hold_units, quote_prices, bar_count - 1) if has_bought else start_value
    )
    sweep_result.turnover[row] = turnover
    sweep_result.costs[row] = costs
    sweep_result.rebalance_counts[row] = rebalance_count


@_compiled
def run_settings(
    prices: PriceArrays,
    settings: SettingArrays,
    start_value: float,
    mark_bars: NDArray[np.int64],
    sweep_result: SweepResult,
    path: RunPath,
) -> None:
    """Call `run_setting` for each row of the settings; a path is of the last of them."""
    for row in range(len(settings.targets)):
        run_setting(prices, settings, row, start_value, mark_bars, sweep_result, path)
