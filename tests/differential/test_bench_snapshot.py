"""The snapshot benchmark runs, and finds the two requests that it is about."""

from __future__ import annotations

import json

import pytest

from agent.localchain import LocalChain
from scripts.bench import bench_snapshot


@pytest.mark.slow
def test_snapshot__is_two_requests_where_calls_are_hundreds(
    anvil_chain: LocalChain, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench_snapshot.py", "--json", "--rounds", "1"])
    assert bench_snapshot.main() == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"machine", "ours", "peers", "ratios"}
    assert result["ours"]["snapshot"]["requests"] == 2
    assert result["ours"]["snapshot"]["pools"] == len(anvil_chain.address_by_pool)
    assert result["ratios"]["requests"] > 50
