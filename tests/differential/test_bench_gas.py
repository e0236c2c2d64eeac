"""Four swaps by the Rebalancer cost at most 0.80 of one transaction per swap, and never more than SwapRouter02's multicall."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from agent.localchain import LocalChain

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_gas.py"


def test_a_rebalance_of_four_swaps_costs_less_gas_than_any_other_way(anvil_chain: LocalChain) -> None:
    assert anvil_chain.url, "the benchmark opens an anvil of its own"
    done = subprocess.run([sys.executable, str(SCRIPT), "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) == {"machine", "ours", "peers", "ratios", "exits"}
    ratios = result["ratios"]
    print({name: (gas, ratios["to multicall"][name], ratios["to one transaction per swap"][name]) for name, gas in result["ours"].items()})
    assert len(result["ours"]) == 6
    assert max(ratios["to one transaction per swap"].values()) <= 0.80
    assert max(ratios["to multicall"].values()) < 1
