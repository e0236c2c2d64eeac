"""The benchmark of backtests runs, holds the kernel against its loop and the live step, and prints what its users parse."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent.backtest.sweep import prepare_prices
from scripts.bench import bench_backtest
from scripts.bench.bench_backtest import (
    START_VALUE,
    SYMBOLS,
    measure_kernel,
    random_prices,
    run_by_loop,
    trade_each_with_own_fee,
    trade_on_credit,
    trade_to_equal_weights,
    trade_until_cash_is_spent,
)

SCRIPT = Path(bench_backtest.__file__)


def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    monkeypatch.setattr(sys, "argv", [SCRIPT.name, *options])
    bench_backtest.main()
    return capsys.readouterr().out


def run_alone(_monkeypatch: pytest.MonkeyPatch, _capsys: pytest.CaptureFixture[str], *options: str) -> str:
    return subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, timeout=240, check=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("run", [run_here, run_alone])
def test_bench__prints_one_json_and_names_a_missing_library(monkeypatch, capsys, run):
    options = "--settings", "3", "--bars", "1800", "--json", "--peers", "bt", "vectorbt", "--peers-python", sys.executable
    printed = json.loads(run(monkeypatch, capsys, *options))
    assert set(printed) == {"machine", "ours", "peers", "ratios"}
    ours = printed["ours"]
    assert ours["off_the_loop"] <= 1e-9
    assert ours["kernel_off_the_step"] <= 1e-5
    assert ours["rebalances"] >= 1
    assert ours["run_ms"] > 0
    assert ours["step_s"] > 0
    assert {name: "No module named" in peer["missing"] for name, peer in printed["peers"].items()} == {"bt": True, "vectorbt": True}
    assert printed["ratios"] == {}


def test_kernel__equals_the_loop_and_a_wrong_loop_is_noticed(monkeypatch: pytest.MonkeyPatch):
    times, table = random_prices(3_000)
    ready = prepare_prices(SYMBOLS, times, table)
    ours, figures = measure_kernel(ready, table, 2)
    assert ours["rebalances"] == len(figures.rebalance_bars) >= 2
    monkeypatch.setattr(bench_backtest, "run_by_loop", lambda *_, **__: (ours["final_value"] * (1 + 1e-8), figures.rebalance_bars.tolist()))
    with pytest.raises(AssertionError, match="loop comes"):
        measure_kernel(ready, table, 2)


def test_each_way_to_pay_is_what_a_hand_works_out():
    table = np.full((3, 8), 100.0)
    table[1:, 0] = 200.0  # 2/9 of all: beyond 17.5 %
    units = START_VALUE / 8 / 100
    total = units * 900
    sold = (200 * units - total / 8) / 0.999
    bought = 7 * (total / 8 - 100 * units) / 1.001
    value, traded = run_by_loop(table, trade_each_with_own_fee)
    assert traded == [1]
    assert value == pytest.approx(total - sold + bought, rel=1e-12)
    shared, _ = run_by_loop(table, trade_to_equal_weights)
    units_after = (200 * units - shared / 8) * 0.999  # what the sale brings
    assert units_after == pytest.approx(7 * (shared / 8 - 100 * units) / 0.999, rel=1e-9)
    assert run_by_loop(table, trade_each_with_own_fee, [])[0] == pytest.approx(total)
    moved = 200 * units - total / 8
    assert run_by_loop(table, trade_on_credit)[0] == pytest.approx(total - 0.001 * 2 * moved, rel=1e-12)
    assert run_by_loop(table, trade_until_cash_is_spent)[0] == pytest.approx(total - 0.001 * moved * (1 + 0.999 / 1.001), rel=1e-12)
