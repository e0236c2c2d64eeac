"""Benchmark of backtests: one run of the kernel, a sweep of a thousand settings on all cores, and
the full live step; optionally other libraries.

The data are seeded random walks of eight assets over 43,800 hourly bars, with equal weights, a band
of 5 points and a fee of 10 bps on every trade. An independent NumPy loop must reach the kernel's
value within 1e-9, and the live step within 1e-5 of the kernel with the same pools. `--peers` runs
bt, vectorbt and cvxportfolio on the same prices, in a temporary environment or in that of
`--peers-python`. `off_its_own_loop` is the relative deviation of each from a loop that pays fees in
the same way. `--json` prints JSON. Times are wall times without compilation. Processor times are
printed too, since other programs on the machine affect them less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.backtest.data import PriceTable
from agent.backtest.settings import SimulationSettings, make_spec
from agent.backtest.simulate import simulate
from agent.backtest.sweep import (
    KernelPrices,
    KernelResult,
    KernelSetting,
    TradingCosts,
    prepare_prices,
    run_kernel,
    sweep,
)
from agent.model import Destination, Threshold
from scripts.quote_peers import Missing, install

ASSETS, BAND_BPS, COST_BPS, RUNS = 8, 500, 10.0, 50
VALUE = 1e6
START_S, HOUR_S = 1_600_000_000, 3_600
DEPTH = 10**9
PEERS = ("bt==1.4.1", "vectorbt==1.2.0", "cvxportfolio==1.5.1")
NAMES = ("bt", "bt-told", "vectorbt", "cvxportfolio")
LONGEST_S = 3_600
SYMBOLS = tuple(f"A{i}" for i in range(ASSETS))
FEE = COST_BPS / 1e4
Floats = np.ndarray
Trader = Callable[[Floats, float, float], tuple[Floats, float]]
"""Function from values of the assets, target value of each, and cash to values and cash after
trading."""


@dataclass(frozen=True)
class Timed:
    """Median wall and processor time, in milliseconds."""

    clock_ms: float
    busy_ms: float


def prices(bars: int) -> tuple[Floats, Floats]:
    """Return times and prices of random walks with annual volatilities of 50 to 100 %."""
    generator = np.random.default_rng(1)
    hourly_volatilities = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 0.7, 0.6]) / np.sqrt(8_760)
    walks = np.cumsum(
        generator.standard_normal((bars, ASSETS)) * hourly_volatilities
        - hourly_volatilities**2 / 2,
        axis=0,
    )
    return START_S + HOUR_S * np.arange(bars), 100 * np.exp(walks)


def band(bps: int, depth: float = float("inf")) -> KernelSetting:
    """Return the setting of equal weights with a band of `bps` points of the portfolio."""
    return KernelSetting(
        (10_000 // ASSETS,) * ASSETS,
        Threshold(bps, None),
        Destination.TARGET,
        TradingCosts.pools(COST_BPS, depth, ASSETS),
    )


def by_loop(
    table: Floats, trade: Trader, trade_bars: Sequence[int] | None = None
) -> tuple[float, list[int]]:
    """Run the rule bar by bar; return the final value and the bars with trades. With `trade_bars` it trades
    at these bars instead. `trade` makes the trades.
    """
    values, cash, traded_bars = np.full(ASSETS, VALUE / ASSETS), 0.0, []
    trade_bar_set = None if trade_bars is None else set(trade_bars)
    for bar in range(1, len(table)):
        values = values * table[bar] / table[bar - 1]
        total = values.sum() + cash
        if (
            bar in trade_bar_set
            if trade_bar_set is not None
            else bool((np.abs(values / total - 1 / ASSETS) > BAND_BPS / 1e4).any())
        ):
            traded_bars.append(bar)
            values, cash = trade(values, total / ASSETS, cash)
    return float(values.sum() + cash), traded_bars


def together(values: Floats, _share: float, _cash: float) -> tuple[Floats, float]:
    """Trade as trimtab does: sales pay for purchases and all fees, so that all weights end equal.
    Solved by bisection.
    """
    high = values.sum()
    low = 0.9 * high
    for _ in range(80):
        middle = (low + high) / 2
        trades = middle / ASSETS - values
        is_affordable = np.where(trades < 0, -trades * (1 - FEE), -trades / (1 - FEE)).sum() > 0
        low, high = (middle, high) if is_affordable else (low, middle)
    return np.full(ASSETS, (low + high) / 2 / ASSETS), 0.0


def each_its_own(values: Floats, share: float, _cash: float) -> tuple[Floats, float]:
    """Trade as bt does: each asset moves to its share of the value before, less its own fee."""
    trades = share - values
    return values + np.where(trades > 0, trades / (1 + FEE), trades / (1 - FEE)), 0.0


def last_gets_less(values: Floats, share: float, cash: float) -> tuple[Floats, float]:
    """Trade as vectorbt does: sales first, then purchases from the smallest to the largest, until the
    cash is spent.
    """
    trades, after = share - values, values.copy()
    for asset in np.argsort(trades, kind="stable"):
        trade = trades[asset] if trades[asset] < 0 else min(trades[asset], cash / (1 + FEE))
        cash -= trade * (1 - FEE) if trade < 0 else trade * (1 + FEE)
        after[asset] += trade
    return after, cash


def on_credit(values: Floats, share: float, cash: float) -> tuple[Floats, float]:
    """Trade as cvxportfolio does: each asset gets its share of the value before, and the fees are
    owed until the next trade.
    """
    trades = share - values
    return np.full(ASSETS, share), cash - trades.sum() - FEE * np.abs(trades).sum()


def measure_kernel(
    kernel_prices: KernelPrices, table: Floats, setting_count: int
) -> tuple[dict[str, Any], KernelResult]:
    """Measure the kernel once and over many settings. Raises AssertionError if the loop's result
    differs.
    """
    setting = band(BAND_BPS)
    result = run_kernel(kernel_prices, setting, VALUE, with_path=True)
    loop_value, traded_bars = by_loop(table, together)
    difference = abs(result.final_value / loop_value - 1)
    if difference > 1e-9 or result.rebalance_bars.tolist() != traded_bars:
        raise AssertionError(f"the loop comes to {loop_value}, the kernel to {result.final_value}")
    run_times = timed(lambda: run_kernel(kernel_prices, setting, VALUE), RUNS)
    settings = [band(300 + i) for i in range(setting_count)]
    sweep_times = timed(lambda: sweep(kernel_prices, settings, VALUE), 5)
    return {
        "bars": len(table),
        "rebalances": result.rebalances,
        "final_value": result.final_value,
        "off_the_loop": difference,
        "run_ms": run_times.clock_ms,
        "run_processor_ms": run_times.busy_ms,
        "settings": setting_count,
        "sweep_s": round(sweep_times.clock_ms / 1e3, 4),
        "sweep_processor_s": round(sweep_times.busy_ms / 1e3, 4),
    }, result


def measure_step(times: Floats, table: Floats, kernel_prices: KernelPrices) -> dict[str, Any]:
    """Measure one run of the live step over all bars. Raises AssertionError if the kernel with the
    same pools has another result.
    """
    spec = make_spec(dict.fromkeys(SYMBOLS, 10_000 // ASSETS), Threshold(BAND_BPS, None), "USD")
    settings = SimulationSettings(Fraction(DEPTH), int(COST_BPS * 100), Fraction(int(VALUE)))
    began_s, processor_began_s = perf_counter(), process_time()
    result = simulate(spec, PriceTable(SYMBOLS, times.astype(np.int64), table), settings)
    clock_s, busy_s = perf_counter() - began_s, process_time() - processor_began_s
    kernel = run_kernel(kernel_prices, band(BAND_BPS, DEPTH), VALUE)
    difference = abs(kernel.final_value / float(result.final_value / 10**18) - 1)
    if difference > 1e-5 or kernel.rebalances != len(result.rebalances):
        raise AssertionError(
            f"the live step comes to {float(result.final_value / 10**18)}, the kernel to"
            f" {kernel.final_value}"
        )
    return {
        "step_s": round(clock_s, 3),
        "step_processor_s": round(busy_s, 3),
        "step_looked": result.evaluated_bars,
        "kernel_off_the_step": difference,
    }


def timed(work: Any, times: int) -> Timed:
    """Return the median times of a call; the first call is not counted."""
    work()
    clock_ms, busy_ms = [], []
    for _ in range(times):
        began_s, processor_began_s = perf_counter(), process_time()
        work()
        clock_ms.append((perf_counter() - began_s) * 1e3)
        busy_ms.append((process_time() - processor_began_s) * 1e3)
    return Timed(round(float(np.median(clock_ms)), 4), round(float(np.median(busy_ms)), 4))


def measure_peers(
    names: Sequence[str], python: Path | None, times: Floats, table: Floats, ours: KernelResult
) -> dict[str, Any]:
    """Return time and final value of each peer; `missing` with the reason if it cannot be run."""
    answers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as scratch:
        folder = Path(scratch)
        try:
            python = python or install_peers(folder)
        except Missing as why:
            return {name: {"missing": str(why)} for name in names}
        prices_file = folder / "prices.npz"
        np.savez(
            prices_file,
            times_s=times,
            prices=table,
            fee=FEE,
            band=BAND_BPS / 1e4,
            rebalanced=ours.rebalance_bars,
        )
        for name in names:
            try:
                answer = run_peer(python, name, prices_file)
            except Missing as why:
                answers[name] = {"missing": str(why)}
                continue
            answers[name] = {**answer, "off_ours": answer["final_value"] / ours.final_value - 1}
    trade_bars = ours.rebalance_bars.tolist()
    loop_arguments: dict[str, tuple[Trader, list[int] | None]] = {
        "bt": (each_its_own, None), "bt-told": (each_its_own, trade_bars),
        "vectorbt": (last_gets_less, trade_bars), "cvxportfolio": (on_credit, None),
    }  # fmt: skip
    for name, answer in answers.items():
        if "final_value" in answer:
            answer["off_its_own_loop"] = (
                answer["final_value"] / by_loop(table, *loop_arguments[name])[0] - 1
            )
    return answers


def install_peers(folder: Path) -> Path:
    """Create an environment with the peers and return its interpreter. Raises Missing."""
    home = folder / "environment"
    install([sys.executable, "-m", "venv", str(home)], folder)
    python = home / "bin" / "python"
    install(
        [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
            *PEERS,
        ],
        folder,
    )
    return python


def run_peer(python: Path, name: str, prices_file: Path) -> dict[str, float]:
    """Run one library and return its answer. Raises Missing with the last line of its output."""
    script = Path(__file__).resolve().parent / "backtest_peers.py"
    try:
        process = subprocess.run(
            [python, script, name, prices_file],
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"it took longer than {LONGEST_S} s") from None
    if process.returncode != 0:
        raise Missing((process.stderr.strip().splitlines() or ["no output"])[-1][:200])
    answer: dict[str, float] = json.loads(process.stdout)
    return answer


def ratios(ours: dict[str, Any], peers: dict[str, Any]) -> dict[str, float]:
    """Return each peer's processor time as a multiple of that of one kernel run."""
    return {
        name: round(answer["processor_s"] * 1e3 / ours["run_processor_ms"], 1)
        for name, answer in peers.items()
        if "processor_s" in answer
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--bars", type=int, default=43_800)
    parser.add_argument("--settings", type=int, default=1_000)
    parser.add_argument("--no-step", action="store_true", help="leave the live step out")
    parser.add_argument(
        "--peers", nargs="*", choices=NAMES, help="measure these too; without a name, all"
    )
    parser.add_argument(
        "--peers-python",
        type=Path,
        help="an interpreter that has them, in place of an environment made for it",
    )
    options = parser.parse_args()
    times, table = prices(max(2, options.bars))
    kernel_prices = prepare_prices(SYMBOLS, times, table)
    ours, result = measure_kernel(kernel_prices, table, max(1, options.settings))
    if not options.no_step:
        ours |= measure_step(times, table, kernel_prices)
    peers: dict[str, Any] = {}
    if options.peers is not None:
        peers = measure_peers(options.peers or NAMES, options.peers_python, times, table, result)
    machine = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
    }
    document = {"machine": machine, "ours": ours, "peers": peers, "ratios": ratios(ours, peers)}
    if options.json:
        print(json.dumps(document))
        return
    for name, figure in ours.items():
        print(f"{name:<22}{figure}")
    for name, answer in peers.items():
        print(f"{name:<22}{answer}")


if __name__ == "__main__":
    main()
