"""A node that refuses a transaction: its reason is in the error, the journal, the history and the log, and nothing is sent twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.errors import NotAccepted, Retryable
from agent.localchain import LocalChain
from tests.support.agents import fund, purse
from tests.support.endpoints import SEND, Reply, Served, methods, passing_on, serve
from tests.support.scenes import scene_on

TARGETS = {"WETH": "50%", "USDC": "50%"}
REFUSALS = {
    "in flight": ("in-flight transaction limit reached for delegated accounts", NotAccepted, "mined"),
    "fee cap": ("tx fee (1.23 ether) exceeds the configured cap (1.00 ether)", NotAccepted, "limits.gas_price"),
    "type": ("unknown transaction type", NotAccepted, "type"),
    "no words that we know": ("Filtered by the operator's own rules", Retryable, "run the command again"),
}


@contextmanager
def refusing(url: str, reason: str) -> Iterator[Served]:
    forward = passing_on(url)

    def answer(request: Any) -> Reply:
        if SEND not in methods(request):
            return forward(request)
        return Reply(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32000, "message": reason}}).encode())

    with serve(answer) as server:
        yield server


@pytest.mark.parametrize(
    ("reason", "error", "remedy"),
    [
        pytest.param(*refusal, id=name, marks=pytest.mark.slow if refusal[1] is Retryable else ())  # waits for a late receipt
        for name, refusal in REFUSALS.items()
    ],
)
def test_the_reason_of_a_node_reaches_its_owner_everywhere(
    chain: LocalChain,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
    error: type[Retryable],
    remedy: str,
) -> None:
    fund(chain, {"USDC": 600})
    with scene_on(chain, tmp_path, "0.05", capfd, monkeypatch) as scene:
        scene.init(TARGETS, "--use-cash", "600")
        scene.say("trust", "--yes")
        before = purse(chain)
        with refusing(str(chain.url), reason) as server:
            monkeypatch.setenv("RPC_A", server.url)
            rebalance_document = scene.ask("rebalance", "--send", "--yes", code=error.exit_code)
            assert reason in json.dumps(rebalance_document)
            assert remedy in json.dumps(rebalance_document)
            run = scene.run("run", "--once", "--send", "--yes", "--log-format", "json", code=error.exit_code)
            assert reason in run.out + run.err
            rows = scene.ask("txs")["transactions"]
            assert all(any(reason in move["note"] for move in row["moves"]) for row in rows)
            assert reason in scene.say("txs")
            assert reason in json.dumps(scene.ask("history"))
        assert purse(chain) == before
        monkeypatch.setenv("RPC_A", str(chain.url))
        scene.say("rebalance", "--send", "--yes")
        swaps = [row for row in scene.ask("txs")["transactions"] if row["kind"] == "swap"]
        assert [row["status"] for row in swaps] == ["final"]
        assert scene.weights() == {"WETH": 5_000, "USDC": 5_000}
