"""Sweeps of the fast kernel: prepare prices and settings, and run thousands of settings on all
cores.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import inf, isfinite, isnan
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agent.backtest.data import missing_prices_text
from agent.backtest.settings import BacktestSpec, SimulationSettings
from agent.errors import ConfigError, require_analysis_package
from agent.floats import FloatArray
from agent.model import Destination, NoTradeZone, Policy, Trigger
from agent.policy.triggers.rules import band_and_interval
from agent.policy.triggers.validation import validate_policy
from agent.units import BPS, PIPS, format_duration, format_time

if TYPE_CHECKING:
    from agent.backtest.kernel import PriceArrays, SettingArrays, SweepResult

MIN_BARS = 2


@dataclass(frozen=True, slots=True)
class KernelPrices:
    """A price table in the kernel's form: one row of prices in one numeraire per asset, one column
    per bar.

    An asset is included from its first price on. While it lacks a later price nothing trades, as the
    live agent halts on unknown prices, and it is valued at its newest price. `notes` describe missing
    prices.
    """

    symbols: tuple[str, ...]
    arrays: PriceArrays
    notes: tuple[str, ...]


def prepare_prices(symbols: Sequence[str], times_s: ArrayLike, prices: ArrayLike) -> KernelPrices:
    """Check and prepare the table: `prices[bar, asset]`, NaN if missing, at ascending unix seconds
    `times_s`.

    Raises ConfigError for times that repeat or fall, for prices that are zero, negative or
    infinite, and for an asset without prices; Refused without numba.
    """
    checked_times_s, price_array = _checked_arrays(symbols, times_s, prices)
    _check_times(checked_times_s)
    _check_prices(symbols, checked_times_s, price_array)
    has_price = ~np.isnan(price_array)
    prices_or_zero = np.where(has_price, price_array, 0.0)
    trade_prices = np.ascontiguousarray(prices_or_zero.T)
    quote_prices = (
        trade_prices
        if has_price.all()
        else np.ascontiguousarray(_filled_prices(prices_or_zero, has_price).T)
    )
    kernel = _kernel()
    bar_states = _bar_states(kernel, has_price)
    break_bars = np.append(np.nonzero(bar_states != kernel.SAME_ASSETS)[0], len(checked_times_s))
    return KernelPrices(
        tuple(symbols),
        kernel.PriceArrays(checked_times_s, trade_prices, quote_prices, bar_states, break_bars),
        _price_notes(symbols, checked_times_s, has_price),
    )


def _checked_arrays(
    symbols: Sequence[str], times_s: ArrayLike, prices: ArrayLike
) -> tuple[NDArray[np.int64], FloatArray]:
    time_array_s: NDArray[Any] = np.asarray(times_s)
    if time_array_s.dtype.kind not in "iu":
        raise ConfigError(
            f"times: {time_array_s.dtype} are not unix seconds", "use whole seconds, UTC"
        )
    price_array = np.array(prices, dtype=np.float64, order="C")
    if price_array.ndim != 2 or price_array.shape != (len(time_array_s), len(symbols)):
        raise ConfigError(
            f"prices: a table of {price_array.shape} for {len(time_array_s)} times and {len(symbols)} assets",
            "use one row per time and one column per asset",
        )
    if len(time_array_s) < MIN_BARS or not symbols:
        raise ConfigError(
            f"prices: {len(time_array_s)} bars of {len(symbols)} assets",
            f"at least {MIN_BARS} bars of one asset are needed",
        )
    if len(set(symbols)) != len(symbols):
        raise ConfigError(
            f"prices: {max(symbols, key=list(symbols).count)} has two columns",
            "use one column per asset",
        )
    # A copy, since numba compiles anew for an array that may not be written.
    return np.array(time_array_s, dtype=np.int64, order="C"), price_array


def _check_times(times_s: NDArray[np.int64]) -> None:
    intervals_s = np.diff(times_s)
    if (intervals_s <= 0).any():
        row = int(np.argmax(intervals_s <= 0)) + 1
        problem = "is repeated"
        if intervals_s[row - 1] != 0:
            problem = f"follows {format_time(int(times_s[row - 1]))}"
        raise ConfigError(
            f"times: {format_time(int(times_s[row]))} (row {row}) {problem}",
            "sort the table by time, one row per time",
        )


def _check_prices(
    symbols: Sequence[str], times_s: NDArray[np.int64], price_array: FloatArray
) -> None:
    is_invalid = ~np.isnan(price_array) & ~((price_array > 0) & np.isfinite(price_array))
    if is_invalid.any():
        row, column = (int(indices[0]) for indices in np.nonzero(is_invalid))
        price = float(price_array[row, column])
        problem = "infinite"
        if np.isfinite(price):
            problem = "negative" if price < 0 else "zero"
        raise ConfigError(
            f"prices: {symbols[column]} is {problem} ({price:g}) at"
            f" {format_time(int(times_s[row]))} (row {row})",
            "mark missing prices as NaN",
        )
    is_empty = np.isnan(price_array).all(axis=0)
    if is_empty.any():
        raise ConfigError(
            f"prices: {symbols[int(np.argmax(is_empty))]} has none (NaN in every bar)",
            "omit the asset",
        )


def _filled_prices(prices: FloatArray, has_price: NDArray[np.bool_]) -> FloatArray:
    """Replace each missing price by the newest earlier price, zero before the first."""
    price_rows = np.maximum.accumulate(
        np.where(has_price, np.arange(len(has_price))[:, None], 0), axis=0
    )
    filled_prices: FloatArray = np.take_along_axis(prices, price_rows, axis=0)
    return filled_prices


def _bar_states(kernel: ModuleType, has_price: NDArray[np.bool_]) -> NDArray[np.int8]:
    is_closed = (np.maximum.accumulate(has_price, axis=0) & ~has_price).any(axis=1)
    open_rows = np.nonzero(~is_closed)[0]
    priced_assets = has_price[open_rows]
    is_changed = np.ones(len(open_rows), dtype=bool)
    is_changed[1:] = (priced_assets[1:] != priced_assets[:-1]).any(axis=1)
    bar_states = np.full(len(has_price), kernel.NO_ASSETS, dtype=np.int8)
    bar_states[open_rows] = np.where(is_changed, kernel.CHANGED_ASSETS, kernel.SAME_ASSETS)
    return bar_states


def _price_notes(
    symbols: Sequence[str],
    times_s: NDArray[np.int64],
    has_price: NDArray[np.bool_],
) -> tuple[str, ...]:
    notes = []
    for column, symbol in enumerate(symbols):
        priced_rows = np.nonzero(has_price[:, column])[0]
        first_row = int(priced_rows[0])
        last_row = int(priced_rows[-1])
        if first_row > 0:
            notes.append(
                f"{symbol} has no price before {format_time(int(times_s[first_row]))}: until then"
                " the other assets share its weight"
            )
        if len(priced_rows) <= last_row - first_row:
            notes.append(f"{missing_prices_text(symbol, priced_rows, times_s)}: nothing trades")
        if last_row < len(has_price) - 1:
            notes.append(
                f"{symbol} has no price after {format_time(int(times_s[last_row]))}: it is"
                " valued at its last price; nothing trades"
            )
    intervals_s = np.diff(times_s)
    usual_interval_s = int(np.median(intervals_s))
    if long_gap_count := int((intervals_s > usual_interval_s).sum()):
        row = int(np.argmax(intervals_s))
        longest_text = (
            f"the longest, {format_duration(int(intervals_s[row]))}, follows"
            f" {format_time(int(times_s[row]))}"
        )
        gaps_text = "gap between bars is" if long_gap_count == 1 else "gaps between bars are"
        notes.append(
            f"{long_gap_count:,} {gaps_text} longer than the usual {format_duration(usual_interval_s)};"
            f" {longest_text}"
        )
    return tuple(notes)


DESTINATION_CODES = {Destination.TARGET: 0, Destination.HALFWAY: 1, Destination.BAND: 2}
"""Codes of destinations in agent/backtest/kernel.py."""
NO_DESTINATION_CODE = -1
"""Code of the tracking rule, whose plan ends where the next unit would not pay."""


@dataclass(frozen=True, slots=True)
class TradingCosts:
    """Cost of trading each asset against the numeraire, in the table's order; both sales and
    purchases pay it.

    `fees_bps` is charged on the input. `depths` is the value, in the numeraire, of each side of the
    asset's constant-product pool, which is reset to the recorded price before every rebalance;
    infinite for no impact.
    """

    fees_bps: tuple[float, ...]
    depths: tuple[float, ...]

    @classmethod
    def for_pools(
        cls, fee_bps: float, depth: float, asset_count: int, numeraire_index: int | None = None
    ) -> TradingCosts:
        """Return a pool with that fee and depth for every asset except the numeraire."""
        if numeraire_index is not None and not 0 <= numeraire_index < asset_count:
            raise ConfigError(
                f"costs.numeraire: {numeraire_index} is not the index of one of {asset_count} assets",
                "use the index of its column, or None",
            )
        fees = [float(fee_bps)] * asset_count
        depths = [float(depth)] * asset_count
        if numeraire_index is not None:
            fees[numeraire_index] = 0.0
            depths[numeraire_index] = inf
        return cls(tuple(fees), tuple(depths))


CONSTANT_PRODUCT_KINDS = ("v2", "v3", "volatile")
"""Pool curves that the kernel supports."""


def simulated_costs(spec: BacktestSpec, settings: SimulationSettings) -> TradingCosts:
    """Return the costs of the simulated market: a pool with the numeraire for each asset. Raises
    ConfigError for an unsupported curve.
    """
    if settings.pool_kind not in CONSTANT_PRODUCT_KINDS:
        raise ConfigError(
            f"--market pool: the compiled kernel does not support {settings.pool_kind!r}",
            f"choose from {', '.join(CONSTANT_PRODUCT_KINDS)}",
        )
    asset_addresses = [asset.token.address for asset in spec.portfolio.assets]
    numeraire_address = spec.portfolio.numeraire.address
    numeraire_index = (
        asset_addresses.index(numeraire_address) if numeraire_address in asset_addresses else None
    )
    return TradingCosts.for_pools(
        settings.fee_pips * BPS / PIPS, float(settings.depth), len(asset_addresses), numeraire_index
    )


@dataclass(frozen=True, slots=True)
class KernelRule:
    """The tracking rule of a portfolio, with the index of the numeraire: `triggers` are the
    deviations, in shares, beyond which each asset is traded, and `risk` is Qᵢⱼ, by which a plan
    ends at the edges.
    """

    numeraire: int
    triggers: tuple[float, ...]
    risk: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class KernelSetting:
    """One policy to run. `targets_bps` sum to 10,000. Corrections below `min_trade`, in the
    numeraire, are skipped. A trigger by the tracking rule has its `rule`.
    """

    targets_bps: tuple[int, ...]
    trigger: Trigger
    destination: Destination
    costs: TradingCosts
    cooldown_s: int = 0
    min_trade: float = 0.0
    rule: KernelRule | None = None


def setting_arrays(settings: Sequence[KernelSetting], asset_count: int) -> SettingArrays:
    """Return the settings as arrays for a table of that many assets. Raises ConfigError without
    settings, or for an invalid setting.
    """
    if not settings:
        raise ConfigError("settings: the list is empty", "give at least one setting")
    for setting in settings:
        _check_setting(setting, asset_count)
    bands_and_intervals = [_band_and_interval(setting) for setting in settings]
    kernel = _kernel()
    numeraires, risk_slopes, trigger_slopes = _rule_arrays(kernel, settings, asset_count)
    arrays: SettingArrays = kernel.SettingArrays(
        np.array([setting.targets_bps for setting in settings], dtype=np.float64) / BPS,
        np.array([widths[0] for widths, _ in bands_and_intervals], dtype=np.float64),
        np.array([widths[1] for widths, _ in bands_and_intervals], dtype=np.float64),
        np.array([setting.min_trade for setting in settings], dtype=np.float64),
        np.array([interval_s for _, interval_s in bands_and_intervals], dtype=np.int64),
        np.array([setting.cooldown_s for setting in settings], dtype=np.int64),
        np.array(
            [
                NO_DESTINATION_CODE if setting.rule else DESTINATION_CODES[setting.destination]
                for setting in settings
            ],
            dtype=np.int64,
        ),
        np.array([setting.costs.fees_bps for setting in settings], dtype=np.float64) / BPS,
        1.0 / np.array([setting.costs.depths for setting in settings], dtype=np.float64),
        numeraires,
        risk_slopes,
        trigger_slopes,
    )
    return arrays


def _rule_arrays(
    kernel: ModuleType, settings: Sequence[KernelSetting], asset_count: int
) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
    """Return numeraires, risk slopes and trigger slopes; NO_NUMERAIRE without a rule."""
    numeraires = np.full(len(settings), kernel.NO_NUMERAIRE, dtype=np.int64)
    risk_slopes = np.zeros((len(settings), asset_count, asset_count))
    trigger_slopes = np.zeros((len(settings), asset_count))
    for row, setting in enumerate(settings):
        if setting.rule is None:
            continue
        numeraire = setting.rule.numeraire
        risk = np.array(setting.rule.risk)
        slopes = risk - risk[numeraire]
        numeraires[row] = numeraire
        risk_slopes[row] = slopes
        trigger_slopes[row] = (np.diag(slopes) - slopes[:, numeraire]) * setting.rule.triggers
    return numeraires, risk_slopes, trigger_slopes


def _band_and_interval(setting: KernelSetting) -> tuple[tuple[float, float], int]:
    """Return the widths of the band as shares, NaN for none, and the interval in seconds, zero for
    none.
    """
    threshold, every_s = band_and_interval(setting.trigger) or (None, None)
    absolute_width = relative_width = np.nan
    if threshold is not None and threshold.absolute_bps is not None:
        absolute_width = threshold.absolute_bps / BPS
    if threshold is not None and threshold.relative_bps is not None:
        relative_width = threshold.relative_bps / BPS
    return (absolute_width, relative_width), every_s or 0


def _check_setting(setting: KernelSetting, asset_count: int) -> None:
    trigger = setting.trigger
    costs = setting.costs
    has_rule = isinstance(trigger, NoTradeZone) and setting.rule is not None
    if band_and_interval(trigger) is None and not has_rule:
        raise ConfigError(
            "trigger: the fast kernel does not support this trigger",
            "use bands, intervals, or both together",
        )
    validate_policy(Policy(trigger, setting.destination, setting.cooldown_s))
    if (
        len(setting.targets_bps) != asset_count
        or sum(setting.targets_bps) != BPS
        or min(setting.targets_bps) < 0
    ):
        raise ConfigError(
            f"targets: {setting.targets_bps} for {asset_count} assets",
            f"use a target of 0 or more for each, {BPS} in total",
        )
    if len(costs.fees_bps) != asset_count or len(costs.depths) != asset_count:
        raise ConfigError(
            f"costs: {len(costs.fees_bps)} fees and {len(costs.depths)} depths for {asset_count} assets",
            "set a fee and a depth for each asset",
        )
    if not all(0 <= bps < BPS for bps in costs.fees_bps):
        raise ConfigError(
            f"costs.fee_bps: {costs.fees_bps}", "use a fee of at least 0 and below 10,000 bps"
        )
    if not all(depth > 0 and not isnan(depth) for depth in costs.depths):
        raise ConfigError(f"costs.depth: {costs.depths}", "use a depth above zero, or infinite")
    if not (setting.min_trade >= 0 and isfinite(setting.min_trade)):
        raise ConfigError(f"min_trade: {setting.min_trade}", "write a value of 0 or more")


CHUNKS_PER_CORE = 4
"""Settings that trade often take longer; smaller parts keep all cores busy until the end."""


@dataclass(frozen=True, slots=True)
class KernelResult:
    """Result of one setting.

    `value_by_bar` holds the value at every bar, `rebalance_bars` the bars that traded,
    `holdings[bar, asset]` the units after the first buys and after each trade, zero at all other
    bars.
    """

    final_value: float
    hold_value: float
    turnover: float
    costs: float
    rebalance_count: int
    value_by_bar: FloatArray
    rebalance_bars: NDArray[np.int64]
    holdings: FloatArray


def run_kernel(prices: KernelPrices, setting: KernelSetting, start_value: float) -> KernelResult:
    """Run one setting with an initial value in the numeraire. Raises ConfigError for invalid
    input.
    """
    kernel = _kernel()
    settings_as_arrays = setting_arrays([setting], len(prices.symbols))
    _check_start_value(start_value)
    bar_count = len(prices.arrays.times_s)
    run = _empty_result(1, bar_count)
    path = kernel.RunPath(
        np.zeros(bar_count, dtype=np.bool_), np.zeros((bar_count, len(prices.symbols)))
    )
    kernel.run_settings(
        prices.arrays, settings_as_arrays, float(start_value), np.arange(bar_count), run, path
    )
    return KernelResult(
        final_value=float(run.final_values[0]),
        hold_value=float(run.hold_values[0]),
        turnover=float(run.turnover[0]),
        costs=float(run.costs[0]),
        rebalance_count=int(run.rebalance_counts[0]),
        value_by_bar=run.mark_values[0],
        rebalance_bars=np.nonzero(path.has_traded)[0],
        holdings=path.holdings,
    )


def sweep(
    prices: KernelPrices,
    settings: Sequence[KernelSetting],
    start_value: float,
    *,
    marked_bars: Sequence[int] = (),
    cores: int | None = None,
) -> SweepResult:
    """Run all settings on `cores` cores (default: all available). `marked_bars` are rising bar
    numbers. Raises ConfigError for invalid input.
    """
    kernel = _kernel()
    settings_as_arrays = setting_arrays(settings, len(prices.symbols))
    _check_start_value(start_value)
    mark_bars = _checked_mark_bars(marked_bars, len(prices.arrays.times_s))
    setting_count = len(settings)
    sweep_result = _empty_result(setting_count, len(mark_bars))
    no_path = kernel.RunPath(np.zeros(0, dtype=np.bool_), np.zeros((0, len(prices.symbols))))
    thread_count = min(setting_count, cores or available_cores())
    chunk_size = (
        -(-setting_count // (thread_count * CHUNKS_PER_CORE)) if thread_count > 1 else setting_count
    )

    def run_chunk(start: int) -> None:
        chunk_rows = slice(start, start + chunk_size)
        kernel.run_settings(
            prices.arrays,
            kernel.SettingArrays(*(rows[chunk_rows] for rows in settings_as_arrays)),
            float(start_value),
            mark_bars,
            kernel.SweepResult(*(rows[chunk_rows] for rows in sweep_result)),
            no_path,
        )

    if thread_count == 1:
        run_chunk(0)
    else:
        with ThreadPoolExecutor(thread_count) as executor:
            list(executor.map(run_chunk, range(0, setting_count, chunk_size)))

    return sweep_result


def _empty_result(setting_count: int, mark_count: int) -> SweepResult:
    sweep_result: SweepResult = _kernel().SweepResult(
        *np.zeros((4, setting_count)),
        np.zeros(setting_count, dtype=np.int64),
        np.zeros((setting_count, mark_count)),
        np.zeros((setting_count, mark_count)),
    )
    return sweep_result


def _kernel() -> ModuleType:
    """Import the kernel. numba takes a second to load, and may not be installed."""
    with require_analysis_package():
        from agent.backtest import kernel as fast_kernel
    return fast_kernel


def available_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_start_value(start_value: float) -> None:
    if not (np.isfinite(start_value) and start_value > 0):
        raise ConfigError(
            f"value: {start_value} is not a positive amount", "write a value above zero"
        )


def _checked_mark_bars(bar_numbers: Sequence[int], bar_count: int) -> NDArray[np.int64]:
    mark_bars = np.asarray(bar_numbers, dtype=np.int64)
    if len(mark_bars) and not (
        mark_bars[0] >= 0 and mark_bars[-1] < bar_count and (np.diff(mark_bars) > 0).all()
    ):
        raise ConfigError(
            "marks: the bar numbers are not ascending",
            f"bars are numbered from 0 to {bar_count - 1}",
        )
    return mark_bars
