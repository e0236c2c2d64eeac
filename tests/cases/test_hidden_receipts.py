"""A provider that hides the receipt of our transaction for a while, and tells the truth otherwise: we wait, and settle it once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Retryable
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from tests.support.agents import ROOMY, agent_on, fund, purse, yes
from tests.support.endpoints import SEND, Served, altering_answerer, methods, serve
from tests.support.markets.endpoints import endpoint_of
from tests.support.samples import slow
from tests.support.scenes import scene_on
from tests.support.text import mentions

TARGETS = {"WETH": "50%", "USDC": "50%"}
RECEIPT = "eth_getTransactionReceipt"
BY_HASH = "eth_getTransactionByHash"
HIDDEN = {"receipt and hash": (RECEIPT, BY_HASH), "receipt alone": (RECEIPT,)}


@dataclass
class ReceiptHidingNode:
    """An endpoint in front of a node. From the `number`-th transaction on it answers null to the methods, until `shows` is set."""

    server: Served
    shows: bool = False

    @property
    def sent(self) -> int:
        return sum(SEND in methods(request) for request in self.server.seen)


@contextmanager
def hiding(url: str, hidden: tuple[str, ...], number: int = 1) -> Iterator[ReceiptHidingNode]:
    def alter(method: str, params: list[Any], answer: Any) -> Any:
        return None if method in hidden and not endpoint.shows and endpoint.sent >= number else answer

    with serve(altering_answerer(url, alter)) as server:
        endpoint = ReceiptHidingNode(server)
        yield endpoint


@pytest.mark.parametrize(
    "hidden",
    [
        pytest.param(HIDDEN["receipt and hash"], id="receipt and hash"),
        pytest.param(HIDDEN["receipt alone"], id="receipt alone", marks=pytest.mark.slow),
    ],
)
def test_hidden_receipt_from_init_on__is_settled_once(
    chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, hidden: tuple[str, ...]
) -> None:
    fund(chain, {"USDC": 600})
    with scene_on(chain, tmp_path, "0.05", capfd, monkeypatch) as scene, hiding(str(chain.url), hidden, number=2) as endpoint:
        monkeypatch.setenv("RPC_A", endpoint.server.url)
        scene.init(TARGETS, "--use-cash", "600")
        scene.say("trust", "--yes")
        before = purse(chain)
        first = scene.say("rebalance", "--send", "--yes", code=Retryable.exit_code)
        assert "not mined within" in first
        assert purse(chain).nonce == before.nonce + 2, "approval and swap"
        for args in (("rebalance", "--send", "--yes"), ("adopt", "--yes")):
            output = scene.say(*args, code=Retryable.exit_code)
            assert not mentions(output, "another program")
            assert mentions(output, "our transaction", "receipt") or mentions(output, "is open")
        assert endpoint.sent == 2, "nothing is sent again, and nothing new"
        endpoint.shows = True
        scene.say("rebalance", "--send", "--yes")
        rows = scene.ask("txs")["transactions"]
        assert [row["open"] for row in rows] == [False, False], rows
        assert scene.weights() == {"WETH": 5_000, "USDC": 5_000}
        assert scene.moment()["pnl"]["periods"][-1]["rebalances"] == 1
        assert "match" in scene.say("books", "check")
        scene.require_rest()


@pytest.mark.parametrize("operators", [1, *slow([2])])
def test_run__waits_with_back_off_for_a_hidden_receipt(chain: LocalChain, tmp_path: Path, operators: int) -> None:
    """With two operators that must agree, it is enough that one hides it."""
    fund(chain, {"WETH": 60_000, "USDC": 30_000})
    with hiding(str(chain.url), HIDDEN["receipt and hash"], number=2) as endpoint:
        lines = [endpoint_of(endpoint.server.url, "hiding"), endpoint_of(str(chain.url), "honest")][:operators]
        rpc = [{"url": "http://127.0.0.1:1", "operator": endpoint_line.operator} for endpoint_line in lines]
        changes = {**ROOMY, "chain.rpc": rpc, "chain.quorum": operators}
        with agent_on(chain, tmp_path, changes, TARGETS, transports=lines) as agent:
            before = purse(chain)
            run = agent.run(send=True, confirm=yes, every="12s")
            failures = [next(run) for _ in range(3)]
            assert [getattr(failure, "code", failure) for failure in failures] == ["not_mined", "lag", "lag"]
            endpoint.shows = True
            outcome = next(run)
            run.close()
            assert isinstance(outcome, StepOutcome), outcome
            assert outcome.kind is OutcomeKind.HOLD, "the swap is settled, and the wallet is on target"
            assert purse(chain).nonce == before.nonce + 2, "approval and swap, each once"
            intents = agent.context.store.journal.intents()
            assert [intent.state.value for intent in intents] == ["final", "final"]
            assert endpoint.sent == 2
            assert agent.step_input().history.budgets.turnover_24h > 0
