"""The snapshot benchmark runs, and finds the two requests that it is about."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from agent.localchain import LocalChain

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_snapshot.py"


def test_a_snapshot_is_two_requests_where_single_calls_are_hundreds(anvil_chain: LocalChain) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--json", "--rounds", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) == {"machine", "ours", "peers", "ratios"}
    assert result["ours"]["snapshot"]["requests"] == 2
    assert result["ours"]["snapshot"]["pools"] == len(anvil_chain.pools)
    assert result["ratios"]["requests"] > 50
