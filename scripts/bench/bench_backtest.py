"""Benchmark of backtests: one run of the kernel, a sweep of a thousand settings on all cores, and
the full live step, also by the tracking rule; optionally other libraries.

The data are seeded random walks of eight assets over 43,800 hourly bars, with equal weights, a band
of 5 points and a fee of 10 bps on every trade. An independent NumPy loop must reach the kernel's
value within 1e-9, and the live step within 1e-5 of the kernel with the same pools. `--peers` runs
bt, vectorbt and cvxportfolio on the same prices, in a temporary environment or in that of
`--peers-python`. `off_own_loop` is the relative deviation of each from a loop that pays fees in
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
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.backtest.data import PriceTable
from agent.backtest.settings import PERMISSIVE_LIMITS, SimulationSettings, make_spec
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
from agent.policy.triggers.no_trade_zone import build_tracking
from scripts.bench.quote_peers import PeerMissing, install

ASSETS = 8
BAND_BPS = 500
FEE_BPS = 10.0
KERNEL_RUNS = 50
START_VALUE = 1e6
START_S = 1_600_000_000
HOUR_S = 3_600
DEPTH = 10**9
YEAR_HOURS = 8_760
PEER_PACKAGES = ("bt==1.4.1", "vectorbt==1.2.0", "cvxportfolio==1.5.1")
PEER_NAMES = ("bt", "bt-told", "vectorbt", "cvxportfolio")
PEER_TIMEOUT_S = 3_600
SYMBOLS = tuple(f"A{i}" for i in range(ASSETS))
FEE = FEE_BPS / 1e4
Floats = np.ndarray
Trader = Callable[[Floats, float, float], tuple[Floats, float]]
"""Function from values of the assets, target value of each, and cash to values and cash after
trading."""


@dataclass(frozen=True)
class MedianTimes:
    """Median wall and processor time, in milliseconds."""

    wall_ms: float
    processor_ms: float


def random_prices(bars: int) -> tuple[Floats, Floats]:
    """Return times and prices of random walks with annual volatilities of 50 to 100 %."""
    generator = np.random.default_rng(1)
    hourly_volatilities = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 0.7, 0.6]) / np.sqrt(8_760)
    walks = np.cumsum(
        generator.standard_normal((bars, ASSETS)) * hourly_volatilities
        - hourly_volatilities**2 / 2,
        axis=0,
    )
    return START_S + HOUR_S * np.arange(bars), 100 * np.exp(walks)


def band_setting(bps: int, depth: float = float("inf")) -> KernelSetting:
    """Return the setting of equal weights with a band of `bps` points of the portfolio."""
    return KernelSetting(
        (10_000 // ASSETS,) * ASSETS,
        Threshold(bps, None),
        Destination.TARGET,
        TradingCosts.for_pools(FEE_BPS, depth, ASSETS),
    )


def run_by_loop(
    closes: Floats, trade: Trader, trade_bars: Sequence[int] | None = None
) -> tuple[float, list[int]]:
    """Run the rule bar by bar; return the final value and the bars with trades. With `trade_bars` it trades
    at these bars instead. `trade` makes the trades.
    """
    values = np.full(ASSETS, START_VALUE / ASSETS)
    cash = 0.0
    traded_bars = []
    trade_bar_set = None if trade_bars is None else set(trade_bars)
    for bar in range(1, len(closes)):
        values = values * closes[bar] / closes[bar - 1]
        total = values.sum() + cash
        if (
            bar in trade_bar_set
            if trade_bar_set is not None
            else bool((np.abs(values / total - 1 / ASSETS) > BAND_BPS / 1e4).any())
        ):
            traded_bars.append(bar)
            values, cash = trade(values, total / ASSETS, cash)
    return float(values.sum() + cash), traded_bars


def trade_to_equal_weights(values: Floats, _share: float, _cash: float) -> tuple[Floats, float]:
    """Trade as trimtab does: sales pay for purchases and all fees, so that all weights end equal.
    Solved by bisection.
    """
    high_total = values.sum()
    low_total = 0.9 * high_total
    for _ in range(80):
        middle_total = (low_total + high_total) / 2
        trades = middle_total / ASSETS - values
        is_affordable = np.where(trades < 0, -trades * (1 - FEE), -trades / (1 - FEE)).sum() > 0
        low_total, high_total = (
            (middle_total, high_total) if is_affordable else (low_total, middle_total)
        )
    return np.full(ASSETS, (low_total + high_total) / 2 / ASSETS), 0.0


def trade_each_with_own_fee(
    values: Floats, target_value: float, _cash: float
) -> tuple[Floats, float]:
    """Trade as bt does: each asset moves to its share of the value before, less its own fee."""
    trades = target_value - values
    return values + np.where(trades > 0, trades / (1 + FEE), trades / (1 - FEE)), 0.0


def trade_until_cash_is_spent(
    values: Floats, target_value: float, cash: float
) -> tuple[Floats, float]:
    """Trade as vectorbt does: sales first, then purchases from the smallest to the largest, until the
    cash is spent.
    """
    trades = target_value - values
    values_after = values.copy()
    for asset in np.argsort(trades, kind="stable"):
        trade = trades[asset] if trades[asset] < 0 else min(trades[asset], cash / (1 + FEE))
        cash -= trade * (1 - FEE) if trade < 0 else trade * (1 + FEE)
        values_after[asset] += trade
    return values_after, cash


def trade_on_credit(values: Floats, target_value: float, cash: float) -> tuple[Floats, float]:
    """Trade as cvxportfolio does: each asset gets its share of the value before, and the fees are
    owed until the next trade.
    """
    trades = target_value - values
    return np.full(ASSETS, target_value), cash - trades.sum() - FEE * np.abs(trades).sum()


def measure_kernel(
    kernel_prices: KernelPrices, closes: Floats, setting_count: int
) -> tuple[dict[str, Any], KernelResult]:
    """Measure the kernel once and over many settings. Raises AssertionError if the loop's result
    differs.
    """
    setting = band_setting(BAND_BPS)
    kernel_result = run_kernel(kernel_prices, setting, START_VALUE)
    loop_value, traded_bars = run_by_loop(closes, trade_to_equal_weights)
    difference = abs(kernel_result.final_value / loop_value - 1)
    if difference > 1e-9 or kernel_result.rebalance_bars.tolist() != traded_bars:
        raise AssertionError(
            f"the loop comes to {loop_value}, the kernel to {kernel_result.final_value}"
        )
    run_times = median_times(
        lambda: sweep(kernel_prices, [setting], START_VALUE, cores=1), KERNEL_RUNS
    )
    settings = [band_setting(300 + i) for i in range(setting_count)]
    sweep_times = median_times(lambda: sweep(kernel_prices, settings, START_VALUE), 5)
    return {
        "bars": len(closes),
        "rebalances": kernel_result.rebalance_count,
        "final_value": kernel_result.final_value,
        "off_the_loop": difference,
        "run_ms": run_times.wall_ms,
        "run_processor_ms": run_times.processor_ms,
        "settings": setting_count,
        "sweep_s": round(sweep_times.wall_ms / 1e3, 4),
        "sweep_processor_s": round(sweep_times.processor_ms / 1e3, 4),
    }, kernel_result


def measure_step(times_s: Floats, closes: Floats, kernel_prices: KernelPrices) -> dict[str, Any]:
    """Measure one run of the live step over all bars. Raises AssertionError if the kernel with the
    same pools has another result.
    """
    spec = make_spec(dict.fromkeys(SYMBOLS, 10_000 // ASSETS), Threshold(BAND_BPS, None), "USD")
    settings = SimulationSettings(Fraction(DEPTH), int(FEE_BPS * 100), Fraction(int(START_VALUE)))
    began_s = perf_counter()
    processor_began_s = process_time()
    simulation_result = simulate(
        spec, PriceTable(SYMBOLS, times_s.astype(np.int64), closes), settings
    )
    wall_s = perf_counter() - began_s
    processor_s = process_time() - processor_began_s
    kernel_result = run_kernel(kernel_prices, band_setting(BAND_BPS, DEPTH), START_VALUE)
    difference = abs(kernel_result.final_value / float(simulation_result.final_value / 10**18) - 1)
    if difference > 1e-5 or kernel_result.rebalance_count != len(simulation_result.rebalances):
        raise AssertionError(
            f"the live step comes to {float(simulation_result.final_value / 10**18)}, the kernel to"
            f" {kernel_result.final_value}"
        )
    return {
        "step_s": round(wall_s, 3),
        "step_processor_s": round(processor_s, 3),
        "evaluated_bars": simulation_result.evaluated_bar_count,
        "kernel_off_the_step": difference,
    }


def measure_rule() -> dict[str, Any]:
    """Measure a year of hours of BTC, ETH and a currency by the live step: by the tracking rule and by
    a band of 10 % of each target. The coins move as the rule expects: 65 and 80 % a year,
    correlation 0.67.
    """
    shocks = np.random.default_rng(2).standard_normal((YEAR_HOURS, 2)) / np.sqrt(YEAR_HOURS)
    returns = np.column_stack(
        (0.65 * shocks[:, 0], 0.80 * (0.67 * shocks[:, 0] + np.sqrt(1 - 0.67**2) * shocks[:, 1]))
    )
    times_s = START_S + HOUR_S * np.arange(YEAR_HOURS)
    table = PriceTable(("BTC", "ETH"), times_s, 100 * np.exp(np.cumsum(returns, axis=0)))
    settings = SimulationSettings(Fraction(10**7), 500, Fraction(50_000), gas_price_wei=10**8)
    weights = {"BTC": 4_000, "ETH": 3_000, "USD": 3_000}
    rule = build_tracking("normal")
    specs = {
        "rule": make_spec(weights, rule, "USD", destination=Destination.ZONE, native="ETH"),
        "band": make_spec(weights, Threshold(None, 1_000), "USD", native="ETH"),
    }
    figures: dict[str, Any] = {}
    for name, spec in specs.items():
        limits = replace(PERMISSIVE_LIMITS, min_trade=Fraction(10 * 10**18))
        processor_began_s = process_time()
        result = simulate(replace(spec, limits=limits), table, settings)
        figures |= {
            f"{name}_year_processor_s": round(process_time() - processor_began_s, 3),
            f"{name}_year_evaluated_bars": result.evaluated_bar_count,
            f"{name}_year_rebalances": len(result.rebalances),
        }
    return figures


def median_times(call: Any, repetitions: int) -> MedianTimes:
    """Return the median times of a call; the first call is not counted."""
    call()
    wall_ms = []
    processor_ms = []
    for _ in range(repetitions):
        began_s = perf_counter()
        processor_began_s = process_time()
        call()
        wall_ms.append((perf_counter() - began_s) * 1e3)
        processor_ms.append((process_time() - processor_began_s) * 1e3)
    return MedianTimes(
        round(float(np.median(wall_ms)), 4), round(float(np.median(processor_ms)), 4)
    )


def measure_peers(
    names: Sequence[str],
    python: Path | None,
    times_s: Floats,
    closes: Floats,
    our_result: KernelResult,
) -> dict[str, Any]:
    """Return time and final value of each peer; `missing` with the reason if it cannot be run."""
    peer_figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as temporary_folder:
        folder = Path(temporary_folder)
        try:
            python = python or install_peers(folder)
        except PeerMissing as error:
            return {name: {"missing": str(error)} for name in names}
        prices_file = folder / "prices.npz"
        np.savez(
            prices_file,
            times_s=times_s,
            prices=closes,
            fee=FEE,
            band=BAND_BPS / 1e4,
            rebalanced=our_result.rebalance_bars,
        )
        for name in names:
            try:
                figures = run_peer(python, name, prices_file)
            except PeerMissing as error:
                peer_figures[name] = {"missing": str(error)}
                continue
            peer_figures[name] = {
                **figures,
                "off_ours": figures["final_value"] / our_result.final_value - 1,
            }
    trade_bars = our_result.rebalance_bars.tolist()
    loop_arguments: dict[str, tuple[Trader, list[int] | None]] = {
        "bt": (trade_each_with_own_fee, None),
        "bt-told": (trade_each_with_own_fee, trade_bars),
        "vectorbt": (trade_until_cash_is_spent, trade_bars),
        "cvxportfolio": (trade_on_credit, None),
    }
    for name, figures in peer_figures.items():
        if "final_value" in figures:
            figures["off_own_loop"] = (
                figures["final_value"] / run_by_loop(closes, *loop_arguments[name])[0] - 1
            )
    return peer_figures


def install_peers(folder: Path) -> Path:
    """Create an environment with the peers and return its interpreter. Raises PeerMissing."""
    environment_folder = folder / "environment"
    install([sys.executable, "-m", "venv", str(environment_folder)], folder)
    python = environment_folder / "bin" / "python"
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
            *PEER_PACKAGES,
        ],
        folder,
    )
    return python


def run_peer(python: Path, name: str, prices_file: Path) -> dict[str, float]:
    """Run one library and return its answer. Raises PeerMissing with the last line of its output."""
    script = Path(__file__).resolve().parent / "backtest_peers.py"
    try:
        process = subprocess.run(
            [python, script, name, prices_file],
            capture_output=True,
            text=True,
            timeout=PEER_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PeerMissing(f"it took longer than {PEER_TIMEOUT_S} s") from None
    if process.returncode != 0:
        raise PeerMissing((process.stderr.strip().splitlines() or ["no output"])[-1][:200])
    figures: dict[str, float] = json.loads(process.stdout)
    return figures


def peer_ratios(our_figures: dict[str, Any], peer_figures: dict[str, Any]) -> dict[str, float]:
    """Return each peer's processor time as a multiple of that of one kernel run."""
    return {
        name: round(figures["processor_s"] * 1e3 / our_figures["run_processor_ms"], 1)
        for name, figures in peer_figures.items()
        if "processor_s" in figures
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
        "--peers", nargs="*", choices=PEER_NAMES, help="measure these too; without a name, all"
    )
    parser.add_argument(
        "--peers-python",
        type=Path,
        help="an interpreter that has them, in place of an environment made for it",
    )
    options = parser.parse_args()
    times_s, closes = random_prices(max(2, options.bars))
    kernel_prices = prepare_prices(SYMBOLS, times_s, closes)
    our_figures, kernel_result = measure_kernel(kernel_prices, closes, max(1, options.settings))
    if not options.no_step:
        our_figures |= measure_step(times_s, closes, kernel_prices)
        our_figures |= measure_rule()
    peer_figures: dict[str, Any] = {}
    if options.peers is not None:
        peer_figures = measure_peers(
            options.peers or PEER_NAMES, options.peers_python, times_s, closes, kernel_result
        )
    machine = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
    }
    document = {
        "machine": machine,
        "ours": our_figures,
        "peers": peer_figures,
        "ratios": peer_ratios(our_figures, peer_figures),
    }
    if options.json:
        print(json.dumps(document))
        return
    for name, figure in our_figures.items():
        print(f"{name:<22}{figure}")
    for name, figures in peer_figures.items():
        print(f"{name:<22}{figures}")


if __name__ == "__main__":
    main()
