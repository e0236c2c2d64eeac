"""A public mempool, who reads it and private endpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from agent.chain.providers.endpoint import EndpointProvider
from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode
from agent.signing import calldata
from agent.signing.calldata import Approve
from tests.support.endpoints import Answerer, Reply, Served, methods, rpc_answer

HEAVY = {"WETH": {"WETH": 60_000, "USDC": 30_000}, "USDC": {"WETH": 30_000, "USDC": 60_000}}
"""What is sold, and holdings of which it is too much."""


class LookedLongEnough(Exception):
    """The predictor has looked for long enough."""


@dataclass
class MempoolReader:
    """Reads the mempool through the public endpoint at every moment of a step; `seen` are calldata of the wallet's waiting transactions."""

    line: EndpointProvider
    wallet: str
    seen: list[str] = field(default_factory=list)
    patience: int = 40

    def look(self, _moment: str) -> None:
        self.patience -= 1
        if self.patience < 0:
            raise LookedLongEnough
        pools: Mapping[str, Any] = self.line.call("txpool_content", [])
        for waiting in (*pools["pending"].items(), *pools["queued"].items()):
            if waiting[0].lower() == self.wallet.lower():
                self.seen += [tx["input"] for tx in waiting[1].values() if tx["input"] not in self.seen]

    def approvals(self) -> list[Approve]:
        """Approvals among what was seen, in order."""
        decoded = [calldata.decode(bytes.fromhex(data[2:])) for data in self.seen]
        return [call for call in decoded if isinstance(call, Approve)]


def builder(node: AnvilNode) -> Answerer:
    """A private endpoint: what it is sent is in a block before it answers, and before anybody else has looked."""

    def include(method: str, params: list[Any]) -> Any:
        assert method == "eth_sendRawTransaction", f"a private endpoint was asked {method}"
        sent = node.rpc(method, *params)
        node.rpc("evm_mine")
        return sent

    return lambda request: Reply(json.dumps(rpc_answer(request, include)).encode())


@contextmanager
def waiting_mempool(chain: LocalChain) -> Iterator[AnvilNode]:
    """Blocks are made only when time passes: until then whatever was sent lies in the mempool."""
    assert isinstance(chain.node, AnvilNode)
    chain.node.rpc("evm_setAutomine", False)
    try:
        yield chain.node
    finally:
        chain.node.rpc("evm_setAutomine", True)


def sends(served: Served) -> int:
    """How many transactions an endpoint was given."""
    return sum(methods(request).count("eth_sendRawTransaction") for request in served.seen)
