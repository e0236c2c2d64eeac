"""Four swaps by the Rebalancer cost at most 0.80 of one transaction per swap, and never more than SwapRouter02's multicall."""

from __future__ import annotations

import json

import pytest

from agent.localchain import LocalChain
from scripts.bench import bench_gas


@pytest.mark.slow
def test_rebalance_of_four_swaps__costs_the_least_gas(
    anvil_chain: LocalChain, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert anvil_chain.url, "the benchmark opens an anvil of its own"
    monkeypatch.setattr("sys.argv", ["bench_gas.py", "--json"])
    assert bench_gas.main() == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"machine", "ours", "peers", "ratios", "exits"}
    ratios = result["ratios"]
    print({name: (gas, ratios["to multicall"][name], ratios["to one transaction per swap"][name]) for name, gas in result["ours"].items()})
    assert len(result["ours"]) == 6
    assert max(ratios["to one transaction per swap"].values()) <= 0.80
    assert max(ratios["to multicall"].values()) < 1
