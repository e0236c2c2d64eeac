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
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agent.backtest.settings import BacktestSpec, SimulationSettings
from agent.errors import ConfigError, needs_analysis
from agent.model import Destination, Policy, Trigger
from agent.policy.triggers.rules import band_and_interval
from agent.policy.triggers.validation import validate_policy
from agent.units import BPS, PIPS, format_duration, format_time

Floats = NDArray[np.float64]
SAME, CHANGED, CLOSED = 0, 1, 2
"""States of bars; equal to those of agent/backtest/kernel.py, which is only imported when used."""
FEWEST_BARS = 2


@dataclass(frozen=True, slots=True)
class KernelPrices:
    """A price table in the kernel's form: one row of prices in one numeraire per asset, one column
    per bar.

    `traded` is zero while an asset has no price, `quoted` the newest price so far (zero before the
    first). `state` marks bars that trade; `breaks` has the bars where that changes, and the end. An
    asset is included from its first price on. While an asset lacks a price nothing trades, as the
    live agent halts on unknown prices. After `patience_bars` the other assets trade with targets
    scaled to one, and the missing asset is valued at its newest price until it has a price again.
    `notes` describe missing prices.
    """

    symbols: tuple[str, ...]
    times_s: NDArray[np.int64]
    traded: Floats
    quoted: Floats
    state: NDArray[np.int8]
    breaks: NDArray[np.int64]
    notes: tuple[str, ...]


def prepare_prices(
    symbols: Sequence[str],
    times_s: ArrayLike,
    prices: ArrayLike,
    patience_bars: int | None = None,
) -> KernelPrices:
    """Check and prepare the table: `prices[bar, asset]`, NaN if missing, at ascending unix seconds
    `times_s`.

    Raises ConfigError for times that repeat or fall, for prices that are zero, negative or
    infinite, and for an asset without prices.
    """
    times, table = _shaped(symbols, times_s, prices)
    if patience_bars is not None and patience_bars < 0:
        raise ConfigError(
            f"patience_bars: {patience_bars} is negative",
            "set the number of bars to wait for a price, or None",
        )
    _check_times(times)
    _check_prices(symbols, times, table)
    known = ~np.isnan(table)
    prices_or_zero = np.where(known, table, 0.0)
    traded = np.ascontiguousarray(prices_or_zero.T)
    quoted = traded if known.all() else np.ascontiguousarray(_newest(prices_or_zero, known).T)
    state = _states(known, patience_bars)
    breaks = np.append(np.nonzero(state != SAME)[0], len(times))
    return KernelPrices(
        tuple(symbols),
        times,
        traded,
        quoted,
        state,
        breaks,
        _notes(symbols, times, known, patience_bars),
    )


def _shaped(
    symbols: Sequence[str], times_s: ArrayLike, prices: ArrayLike
) -> tuple[NDArray[np.int64], Floats]:
    array: NDArray[Any] = np.asarray(times_s)
    if array.dtype.kind not in "iu":
        raise ConfigError(f"times: {array.dtype} are not unix seconds", "use whole seconds, UTC")
    table = np.array(prices, dtype=np.float64, order="C")
    if table.ndim != 2 or table.shape != (len(array), len(symbols)):
        raise ConfigError(
            f"prices: a table of {table.shape} for {len(array)} times and {len(symbols)} assets",
            "use one row per time and one column per asset",
        )
    if len(array) < FEWEST_BARS or not symbols:
        raise ConfigError(
            f"prices: {len(array)} bars of {len(symbols)} assets",
            f"at least {FEWEST_BARS} bars of one asset are needed",
        )
    if len(set(symbols)) != len(symbols):
        raise ConfigError(
            f"prices: {max(symbols, key=list(symbols).count)} has two columns",
            "use one column per asset",
        )
    # A copy, since numba compiles anew for an array that may not be written.
    return np.array(array, dtype=np.int64, order="C"), table


def _check_times(times: NDArray[np.int64]) -> None:
    steps = np.diff(times)
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0)) + 1
        what = "is repeated"
        if steps[row - 1] != 0:
            what = f"follows {format_time(int(times[row - 1]))}"
        raise ConfigError(
            f"times: {format_time(int(times[row]))} (row {row}) {what}",
            "sort the table by time, one row per time",
        )


def _check_prices(symbols: Sequence[str], times: NDArray[np.int64], table: Floats) -> None:
    bad = ~np.isnan(table) & ~((table > 0) & np.isfinite(table))
    if bad.any():
        row, column = (int(part[0]) for part in np.nonzero(bad))
        price = float(table[row, column])
        what = "infinite"
        if np.isfinite(price):
            what = "negative" if price < 0 else "zero"
        raise ConfigError(
            f"prices: {symbols[column]} is {what} ({price:g}) at"
            f" {format_time(int(times[row]))} (row {row})",
            "mark missing prices as NaN",
        )
    empty = np.isnan(table).all(axis=0)
    if empty.any():
        raise ConfigError(
            f"prices: {symbols[int(np.argmax(empty))]} has none (NaN in every bar)",
            "omit the asset",
        )


def _newest(traded: Floats, known: NDArray[np.bool_]) -> Floats:
    """Replace each missing price by the newest earlier price, zero before the first."""
    rows = np.maximum.accumulate(np.where(known, np.arange(len(known))[:, None], 0), axis=0)
    newest: Floats = np.take_along_axis(traded, rows, axis=0)
    return newest


def _missing_for(known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the number of bars, including the current one, for which each asset has had no price;
    zero before its first price.
    """
    rows = np.arange(len(known))[:, None]
    last = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    ages: NDArray[np.int64] = np.where(last >= 0, rows - last, 0)
    return ages


def _states(known: NDArray[np.bool_], patience_bars: int | None) -> NDArray[np.int8]:
    state = np.zeros(len(known), dtype=np.int8)
    state[0] = CHANGED
    if known.all():
        return state
    missing = _missing_for(known)
    waits = missing > 0
    if patience_bars is not None:
        waits &= missing <= patience_bars
    closed = waits.any(axis=1)
    state[closed] = CLOSED
    open_rows = np.nonzero(~closed)[0]
    sets = known[open_rows]
    changed = np.ones(len(open_rows), dtype=bool)
    changed[1:] = (sets[1:] != sets[:-1]).any(axis=1)
    state[open_rows] = np.where(changed, CHANGED, SAME)
    return state


def _notes(
    symbols: Sequence[str],
    times: NDArray[np.int64],
    known: NDArray[np.bool_],
    patience_bars: int | None,
) -> tuple[str, ...]:
    notes = []
    waiting = "nothing trades"
    if patience_bars is not None:
        waiting = f"nothing trades for {patience_bars} bars, then the other assets trade without it"
    for column, symbol in enumerate(symbols):
        rows = np.nonzero(known[:, column])[0]
        first, last = int(rows[0]), int(rows[-1])
        if first > 0:
            notes.append(
                f"{symbol} has no price before {format_time(int(times[first]))}: until then"
                " the other assets share its weight"
            )
        if holes := last - first + 1 - len(rows):
            notes.append(
                f"{symbol} has {holes} missing prices, at most {int(np.diff(rows).max()) - 1} in a"
                f" row: {waiting}"
            )
        if last < len(known) - 1:
            notes.append(
                f"{symbol} has no price after {format_time(int(times[last]))}: it is"
                f" valued at its last price; {waiting}"
            )
    steps = np.diff(times)
    usual = int(np.median(steps))
    if wide := int((steps > usual).sum()):
        row = int(np.argmax(steps))
        longest = (
            f"the longest, {format_duration(int(steps[row]))}, follows"
            f" {format_time(int(times[row]))}"
        )
        notes.append(
            f"{wide} gaps between bars are longer than the usual {format_duration(usual)};"
            f" {longest}"
        )
    return tuple(notes)


DESTINATION_CODES = {Destination.TARGET: 0, Destination.HALFWAY: 1, Destination.BAND: 2}
"""Codes of destinations in agent/backtest/kernel.py."""


@dataclass(frozen=True, slots=True)
class TradingCosts:
    """Cost of trading each asset against the numeraire, in the table's order; both sales and
    purchases pay it.

    `fee_bps` is charged on the input. `depth` is the value, in the numeraire, of each side of the
    asset's constant-product pool, which is reset to the recorded price before every rebalance;
    infinite for no impact.
    """

    fee_bps: tuple[float, ...]
    depth: tuple[float, ...]

    @classmethod
    def proportional(cls, bps: float, assets: int, numeraire: int | None = None) -> TradingCosts:
        """Return a fee of `bps` for every asset except the numeraire, at index `numeraire`, which
        is free.
        """
        return cls.pools(bps, inf, assets, numeraire)

    @classmethod
    def pools(
        cls, fee_bps: float, depth: float, assets: int, numeraire: int | None = None
    ) -> TradingCosts:
        """Return a pool with that fee and depth for every asset except the numeraire."""
        if numeraire is not None and not 0 <= numeraire < assets:
            raise ConfigError(
                f"costs.numeraire: {numeraire} is not the index of one of {assets} assets",
                "use the index of its column, or None",
            )
        fees, depths = [float(fee_bps)] * assets, [float(depth)] * assets
        if numeraire is not None:
            fees[numeraire], depths[numeraire] = 0.0, inf
        return cls(tuple(fees), tuple(depths))


CONSTANT_PRODUCT = ("v2", "v3", "volatile")
"""Pool curves that the kernel supports."""


def simulated_costs(spec: BacktestSpec, settings: SimulationSettings) -> TradingCosts:
    """Return the costs of the simulated market: a pool with the numeraire for each asset. Raises
    ConfigError for an unsupported curve.
    """
    if settings.pool not in CONSTANT_PRODUCT:
        raise ConfigError(
            f"--pool: the compiled kernel does not support {settings.pool!r}",
            f"choose from {', '.join(CONSTANT_PRODUCT)}",
        )
    assets = [asset.token.address for asset in spec.portfolio.assets]
    money = spec.portfolio.numeraire.address
    own = assets.index(money) if money in assets else None
    return TradingCosts.pools(
        settings.fee_pips * BPS / PIPS, float(settings.depth), len(assets), own
    )


@dataclass(frozen=True, slots=True)
class KernelSetting:
    """One policy to run. `targets_bps` sum to 10,000. Corrections below `min_trade`, in the
    numeraire, are skipped.
    """

    targets_bps: tuple[int, ...]
    trigger: Trigger
    destination: Destination
    costs: TradingCosts
    cooldown_s: int = 0
    min_trade: float = 0.0


@dataclass(frozen=True, slots=True)
class SettingArrays:
    """Settings as arrays, one row each: shares, [absolute width, relative width, smallest trade],
    [interval, cooldown], destination, costs.
    """

    targets: Floats
    numbers: Floats
    seconds: NDArray[np.int64]
    destination: NDArray[np.int64]
    fee: Floats
    shallow: Floats

    def part(self, start: int, end: int) -> SettingArrays:
        """Return a slice of the rows, without a copy."""
        some = slice(start, end)
        return SettingArrays(
            self.targets[some],
            self.numbers[some],
            self.seconds[some],
            self.destination[some],
            self.fee[some],
            self.shallow[some],
        )


def setting_arrays(settings: Sequence[KernelSetting], assets: int) -> SettingArrays:
    """Return the settings as arrays for a table of `assets` assets. Raises ConfigError without
    settings, or for an invalid setting.
    """
    if not settings:
        raise ConfigError("settings: the list is empty", "give at least one setting")
    for setting in settings:
        _check(setting, assets)
    every = [_parts(setting) for setting in settings]
    return SettingArrays(
        np.array([setting.targets_bps for setting in settings], dtype=np.float64) / BPS,
        np.array(
            [
                [*widths, setting.min_trade]
                for (widths, _), setting in zip(every, settings, strict=True)
            ],
            dtype=np.float64,
        ),
        np.array(
            [
                [every_s, setting.cooldown_s]
                for (_, every_s), setting in zip(every, settings, strict=True)
            ],
            dtype=np.int64,
        ),
        np.array([DESTINATION_CODES[setting.destination] for setting in settings], dtype=np.int64),
        np.array([setting.costs.fee_bps for setting in settings], dtype=np.float64) / BPS,
        1.0 / np.array([setting.costs.depth for setting in settings], dtype=np.float64),
    )


def _parts(setting: KernelSetting) -> tuple[tuple[float, float], int]:
    """Return the widths of the band as shares, NaN for none, and the interval in seconds, zero for
    none.
    """
    band, every_s = band_and_interval(setting.trigger) or (None, None)
    absolute = relative = np.nan
    if band is not None and band.absolute_bps is not None:
        absolute = band.absolute_bps / BPS
    if band is not None and band.relative_bps is not None:
        relative = band.relative_bps / BPS
    return (absolute, relative), every_s or 0


def _check(setting: KernelSetting, assets: int) -> None:
    trigger, costs = setting.trigger, setting.costs
    if band_and_interval(trigger) is None:
        raise ConfigError(
            f"trigger: the fast kernel does not support this {type(trigger).__name__}",
            "use bands, intervals, or both together",
        )
    validate_policy(Policy(trigger, setting.destination, setting.cooldown_s))
    if (
        len(setting.targets_bps) != assets
        or sum(setting.targets_bps) != BPS
        or min(setting.targets_bps) < 0
    ):
        raise ConfigError(
            f"targets: {setting.targets_bps} for {assets} assets",
            f"use a target of 0 or more for each, {BPS} in total",
        )
    if len(costs.fee_bps) != assets or len(costs.depth) != assets:
        raise ConfigError(
            f"costs: {len(costs.fee_bps)} fees and {len(costs.depth)} depths for {assets} assets",
            "set a fee and a depth for each asset",
        )
    if not all(0 <= bps < BPS for bps in costs.fee_bps):
        raise ConfigError(
            f"costs.fee_bps: {costs.fee_bps}", "use a fee of at least 0 and below 10,000 bps"
        )
    if not all(depth > 0 and not isnan(depth) for depth in costs.depth):
        raise ConfigError(f"costs.depth: {costs.depth}", "use a depth above zero, or infinite")
    if not (setting.min_trade >= 0 and isfinite(setting.min_trade)):
        raise ConfigError(f"min_trade: {setting.min_trade}", "write a value of 0 or more")


PARTS_PER_CORE = 4
"""Settings that trade often take longer; smaller parts keep all cores busy until the end."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """Results of settings, one number per setting, values in the numeraire.

    `hold_value` is the final value of the first holdings, `turnover` half the sum of absolute
    changes of holdings, `costs` the cost of trading, `stranded` the part of `final_value` without a
    current price at the end. `values[setting, mark]` are values at the requested bars, after
    trading.
    """

    final_value: Floats
    hold_value: Floats
    turnover: Floats
    costs: Floats
    stranded: Floats
    rebalances: NDArray[np.int64]
    values: Floats


@dataclass(frozen=True, slots=True)
class KernelResult:
    """Result of one setting.

    `values` are at every bar, `rebalanced` the bars that traded, `held[bar, asset]` the units after
    the first buys and after each trade, zero at all other bars. The three are empty without a path.
    """

    final_value: float
    hold_value: float
    turnover: float
    costs: float
    stranded: float
    rebalances: int
    values: Floats
    rebalanced: NDArray[np.int64]
    held: Floats


def run_kernel(
    bars: KernelPrices, setting: KernelSetting, value: float, *, path: bool = False
) -> KernelResult:
    """Run one setting with an initial `value` of the numeraire. Raises ConfigError for invalid
    input, Refused without numba.
    """
    kernel, rows = _kernel(), setting_arrays([setting], len(bars.symbols))
    _check_value(value)
    marks = np.arange(len(bars.times_s)) if path else np.zeros(0, dtype=np.int64)
    totals, values = np.zeros(6), np.zeros(len(marks))
    traded_at, held_at = (
        np.zeros(len(marks), dtype=np.bool_),
        np.zeros((len(marks), len(bars.symbols))),
    )
    (absolute, relative, min_trade), (every_s, cooldown_s) = rows.numbers[0], rows.seconds[0]
    kernel.run(
        bars.times_s, bars.traded, bars.quoted, bars.state, bars.breaks, float(value), rows.targets[0], absolute, relative, every_s,
        cooldown_s, min_trade, rows.destination[0], rows.fee[0], rows.shallow[0], marks, totals, values, traded_at, held_at,
    )  # fmt: skip
    final, hold, turnover, costs, stranded = (float(number) for number in totals[:5])
    return KernelResult(
        final,
        hold,
        turnover,
        costs,
        stranded,
        int(totals[5]),
        values,
        np.nonzero(traded_at)[0],
        held_at,
    )


def sweep(
    bars: KernelPrices,
    settings: Sequence[KernelSetting],
    value: float,
    *,
    marks: Sequence[int] = (),
    cores: int | None = None,
) -> SweepResult:
    """Run all settings on `cores` cores (default: all available). `marks` are rising bar numbers.
    Raises ConfigError for invalid input, Refused without numba.
    """
    kernel, rows = _kernel(), setting_arrays(settings, len(bars.symbols))
    _check_value(value)
    at = _marked(marks, len(bars.times_s))
    count = len(settings)
    totals, values = np.zeros((count, 6)), np.zeros((count, len(at)))
    threads = min(count, cores or available_cores())
    size = -(-count // (threads * PARTS_PER_CORE)) if threads > 1 else count

    def part(start: int) -> None:
        some: SettingArrays = rows.part(start, start + size)
        kernel.many(
            bars.times_s, bars.traded, bars.quoted, bars.state, bars.breaks, float(value), some.targets, some.numbers, some.seconds,
            some.destination, some.fee, some.shallow, at, totals[start : start + size], values[start : start + size],
        )  # fmt: skip

    if threads == 1:
        part(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, range(0, count, size)))
    final, hold, turnover, costs, stranded = (
        np.ascontiguousarray(totals[:, column]) for column in range(5)
    )
    return SweepResult(
        final, hold, turnover, costs, stranded, totals[:, 5].astype(np.int64), values
    )


def _kernel() -> ModuleType:
    """Import the kernel. numba takes a second to load, and may not be installed."""
    with needs_analysis():
        from agent.backtest import kernel as fast_kernel
    return fast_kernel


def available_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_value(value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise ConfigError(f"value: {value} is not a positive amount", "write a value above zero")


def _marked(marks: Sequence[int], bars: int) -> NDArray[np.int64]:
    at = np.asarray(marks, dtype=np.int64)
    if len(at) and not (at[0] >= 0 and at[-1] < bars and (np.diff(at) > 0).all()):
        raise ConfigError(
            "marks: the bar numbers are not ascending", f"bars are numbered from 0 to {bars - 1}"
        )
    return at
