"""Thousands of settings over one price table: fixed weights, bands, intervals, costs, by a kernel of machine code on all cores.

What a bar does is what agent/policy would decide at its prices: the same shares, bands, schedules, cooldown and goals, in floating
point. It begins on target, at no cost. A rebalance trades at the prices it was decided at; each asset trades against the numeraire in
its own pool, which arbitrage has brought back to the recorded price by the next bar; afterwards every asset stands exactly at its
share of what the costs have left. Of a band's interval the share is chosen that moves least in all (`landing` in fast_kernel.py).
No bar knows a later one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from agent.backtest.fast_prices import Bars
from agent.backtest.fast_settings import Rows, Setting, rows_of
from agent.errors import ConfigError, Refused

Floats = NDArray[np.float64]
PARTS_PER_CORE = 4
"""Settings that trade often take longer: smaller parts keep all cores busy to the end."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What each setting came to, one number per setting, values in the numeraire.

    `turnover` is half of what holdings changed by, `costs` what trading took, `stranded` what of `final_value` has no price at the
    end, `hold_value` what the first holdings would be worth. `values[setting, mark]` are those at the bars asked for, after trading.
    """

    final_value: Floats
    hold_value: Floats
    turnover: Floats
    costs: Floats
    stranded: Floats
    rebalances: NDArray[np.int64]
    values: Floats


@dataclass(frozen=True, slots=True)
class Run:
    """The same of one setting. Where no path was asked for these are empty: `values` at every bar; `rebalanced`, the bars that traded;
    `held[bar, asset]`, units after the first buys and after each trade, zero at all other bars.
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


def run(bars: Bars, setting: Setting, value: float, *, path: bool = False) -> Run:
    """One setting, beginning with `value` of the numeraire. Raises ConfigError for what makes no sense, Refused without numba."""
    kernel, rows = _kernel(), rows_of([setting], len(bars.symbols))
    _check_value(value)
    marks = np.arange(len(bars.times_s)) if path else np.zeros(0, dtype=np.int64)
    found, values = np.zeros(6), np.zeros(len(marks))
    traded_at, held = np.zeros(len(marks), dtype=np.bool_), np.zeros((len(marks), len(bars.symbols)))
    (absolute, relative, min_trade), (every_s, cooldown_s) = rows.numbers[0], rows.seconds[0]
    kernel.run(
        bars.times_s, bars.traded, bars.shown, bars.state, bars.breaks, float(value), rows.targets[0], absolute, relative, every_s,
        cooldown_s, min_trade, rows.destination[0], rows.fee[0], rows.shallow[0], marks, found, values, traded_at, held,
    )  # fmt: skip
    final, hold, turnover, costs, stranded = (float(number) for number in found[:5])
    return Run(final, hold, turnover, costs, stranded, int(found[5]), values, np.nonzero(traded_at)[0], held)


def sweep(bars: Bars, settings: Sequence[Setting], value: float, *, marks: Sequence[int] = (), cores: int | None = None) -> Sweep:
    """Each setting as `run` has it, on `cores` at once (all that this process may use). `marks` are rising numbers of bars.

    Raises ConfigError for what makes no sense, Refused without numba.
    """
    kernel, rows = _kernel(), rows_of(settings, len(bars.symbols))
    _check_value(value)
    at = _marked(marks, len(bars.times_s))
    count = len(settings)
    found, values = np.zeros((count, 6)), np.zeros((count, len(at)))
    threads = min(count, cores or cores_here())
    size = -(-count // (threads * PARTS_PER_CORE)) if threads > 1 else count

    def part(start: int) -> None:
        some: Rows = rows.part(start, start + size)
        kernel.many(
            bars.times_s, bars.traded, bars.shown, bars.state, bars.breaks, float(value), some.targets, some.numbers, some.seconds,
            some.destination, some.fee, some.shallow, at, found[start : start + size], values[start : start + size],
        )  # fmt: skip

    if threads == 1:
        part(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, range(0, count, size)))
    final, hold, turnover, costs, stranded = (np.ascontiguousarray(found[:, column]) for column in range(5))
    return Sweep(final, hold, turnover, costs, stranded, found[:, 5].astype(np.int64), values)


def _kernel() -> ModuleType:
    """The compiled part; numba takes a second to load, and may not be there."""
    try:
        from agent.backtest import fast_kernel
    except ModuleNotFoundError as missing:
        raise Refused(f"{missing.name} is not installed", remedy="pip install 'trimtab[analysis]'") from None
    return fast_kernel


def cores_here() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_value(value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise ConfigError(f"value: {value} is nothing to begin with", "write a value above zero")


def _marked(marks: Sequence[int], bars: int) -> NDArray[np.int64]:
    at = np.asarray(marks, dtype=np.int64)
    if len(at) and not (at[0] >= 0 and at[-1] < bars and (np.diff(at) > 0).all()):
        raise ConfigError("marks: these are no rising numbers of bars", f"bars are numbered from 0 to {bars - 1}")
    return at
