"""Processor time of backtests from Python (docs/python.md) over simulated prices, each after a first
run that compiles: `.venv/bin/python scripts/bench/bench_python.py [NAME …]`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from agent import research
from agent.research.triggers import AnyTrigger
from agent.signals import SignalView

FIRST = datetime(2023, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
YEAR_HOURS = 8_760
QUARTER_HOURS = YEAR_HOURS // 4
WEEKLY_BARS = 700
WINDOW_BARS = 400
MORE_BARS = 50
DAYS = 720
FEW_DAYS = 90


def prices(assets: int, bars: int, interval: timedelta) -> pl.DataFrame:
    """Return random walks of 80 % volatility a year, the same for the same arguments."""
    moves = np.random.default_rng(1).normal(size=(bars, assets))
    closes = 100 * np.exp(np.cumsum(moves * 0.8 * (interval / timedelta(days=365)) ** 0.5, axis=0))
    times = [FIRST + bar * interval for bar in range(bars)]
    return pl.DataFrame({"time": times} | {f"COIN{n}": closes[:, n] for n in range(assets)})


def targets(assets: int) -> dict[str, float]:
    """Return equal shares of the assets beside a fifth of cash."""
    shares = {f"COIN{n}": round(0.8 / assets, 4) for n in range(assets)}
    return shares | {"USD": 1 - sum(shares.values())}


def keep(view: SignalView) -> dict[str, float]:
    """Answer with the targets."""
    return dict(view.targets)


def seconds(run: Callable[[], research.Backtest]) -> tuple[float, int]:
    """Return the processor time of a backtest, and its trades."""
    began_s = time.process_time()
    result = run()
    return time.process_time() - began_s, result.summary.trades


def measured(
    trigger: AnyTrigger, assets: int, bars: int, interval: timedelta, **arguments: Any
) -> tuple[float, int]:
    """Return the processor time and the trades of a backtest over simulated prices."""
    frame = prices(assets, bars, interval)
    return seconds(lambda: research.backtest(frame, targets(assets), trigger, **arguments))


def whole(trigger: AnyTrigger, assets: int, bars: int, interval: timedelta) -> str:
    """Return the time of a backtest and its trades."""
    taken_s, trades = measured(trigger, assets, bars, interval)
    return f"{taken_s:.1f} s, {trades} trades"


def step_weekly() -> str:
    """Return the time of a bar with a function that is asked once a week."""
    signal = research.signal(keep, every="7d")
    taken_s, trades = measured(research.band(0.5), 2, WEEKLY_BARS, HOUR, signal=signal)
    return f"{1_000 * taken_s / WEEKLY_BARS:.1f} ms a bar, {trades} trades"


def step_at_each_bar() -> str:
    """Return the time of a bar with a function that is asked at each and sees 400 prices of each
    of two assets.
    """
    times_s = [
        measured(research.band(0.5), 2, bars, HOUR, signal=keep)[0]
        for bars in (WINDOW_BARS, WINDOW_BARS + MORE_BARS)
    ]
    return f"{1_000 * (times_s[1] - times_s[0]) / MORE_BARS:.0f} ms a bar"


CASES: Mapping[str, Callable[[], str]] = {
    "band, a year of hours, 2 assets": lambda: whole(research.band(0.1), 2, YEAR_HOURS, HOUR),
    "weekly, a year of hours, 2 assets": lambda: whole(research.every("7d"), 2, YEAR_HOURS, HOUR),
    "tracking, a quarter of hours, 2 assets": lambda: whole(
        research.tracking(), 2, QUARTER_HOURS, HOUR
    ),
    "band, 720 days, 2 assets": lambda: whole(research.band(0.1), 2, DAYS, DAY),
    "a trade at each bar, 90 days, 10 assets": lambda: whole(
        research.every("1h"), 10, FEW_DAYS, DAY
    ),
    "band, 90 days, 29 assets": lambda: whole(research.band(0.5), 29, FEW_DAYS, DAY),
    "a trade at each bar, 90 days, 2 assets": lambda: whole(research.every("1h"), 2, FEW_DAYS, DAY),
    "function once a week": step_weekly,
    "function at each bar": step_at_each_bar,
}


def main() -> None:
    """Print the time of each case, or of those whose name has a word."""
    measured(research.band(0.1), 2, 50, DAY)
    measured(research.tracking(), 2, 50, DAY)
    for name, run in CASES.items():
        if len(sys.argv) == 1 or any(word in name for word in sys.argv[1:]):
            print(f"{name}: {run()}", flush=True)


if __name__ == "__main__":
    main()
