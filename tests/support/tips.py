"""A node that suggests a lower tip than it takes, or none, in the words of nodes of every make."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from eth_account.typed_transactions import TypedTransaction
from hexbytes import HexBytes

from agent.chain.rpc import RpcCall, RpcFault, Transport
from tests.support.constants import GWEI
from tests.support.endpoints import SEND, Reply, passing_on, serve
from tests.support.fakes.transport import RecordingTransport

WORDINGS = {
    "geth": "transaction gas price below minimum: gas tip cap {tip}, minimum needed {needed}",
    "geth 1.14": "transaction underpriced: tip needed {needed}, tip permitted {tip}",
    "nethermind": "FeeTooLow, EffectivePriorityFeePerGas too low {tip} < {needed}, BaseFee: 7",
    "reth": "transaction priority fee below minimum required priority fee {needed}",
    "coreth": "transaction underpriced: address 0x12aB34 have gas tip cap ({tip}) < pool gas tip cap ({needed})",
    "a proxy": "max priority fee per gas too low: have {tip}, want {needed}",
    "erigon": "underpriced",
    "besu": "Gas price below configured minimum gas price",
    "nethermind, full pool": "FeeTooLowToCompete",
}
"""What a node says of a tip below its minimum; the last three name no number."""
NAMELESS = ("erigon", "besu", "nethermind, full pool")
METHOD = "eth_maxPriorityFeePerGas"
NO_METHOD = RpcFault(-32601, f"the method {METHOD} does not exist/is not available")


def tip_of(raw_hex: str) -> int:
    """Return the tip of signed bytes of an EIP-1559 transaction, wei per unit of gas."""
    return int(TypedTransaction.from_bytes(HexBytes(raw_hex)).as_dict()["maxPriorityFeePerGas"])


class DemandingNode:
    """Refuses by `transport` a tip below `needed_wei` in the words of `wording`, and suggests `suggested`; `refused` has those tips."""

    def __init__(self, line: Transport, needed_wei: int, wording: str = "geth", suggested: object = hex(GWEI // 10)) -> None:
        self.needed_wei = needed_wei
        self.wording = wording
        self.suggested = suggested
        self.refused: list[int] = []
        self.transport = RecordingTransport(line, "demanding", self._change, intercept=self._refuse)

    def _refuse(self, calls: Sequence[RpcCall]) -> list[Any] | None:
        if calls[0][0] != SEND or (tip := tip_of(calls[0][1][0])) >= self.needed_wei:
            return None
        self.refused.append(tip)
        return [RpcFault(-32000, WORDINGS[self.wording].format(tip=tip, needed=self.needed_wei))]

    def _change(self, method: str, params: list[Any], answer: Any) -> Any:
        return self.suggested if method == METHOD else answer


@contextmanager
def serving_demands(url: str, needed_wei: int, heard: Callable[[int], object]) -> Iterator[str]:
    """Serve the node at `url` without a suggested tip, and refuse a tip below `needed_wei`; `heard` gets each sent tip."""
    forward = passing_on(url)

    def fault(request: Any, code: int, message: str) -> Any:
        return {"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": message}}

    def answer(request: Any) -> Reply:
        if not isinstance(request, list) and request["method"] == SEND:
            heard(tip := tip_of(request["params"][0]))
            if tip < needed_wei:
                message = WORDINGS["geth"].format(tip=tip, needed=needed_wei)
                return Reply(json.dumps(fault(request, -32000, message)).encode())
        answers = json.loads(forward(request).body)
        if not isinstance(request, list):
            without = fault(request, -32601, NO_METHOD.message) if request["method"] == METHOD else answers
            return Reply(json.dumps(without).encode())
        missing = {call["id"]: fault(call, -32601, NO_METHOD.message) for call in request if call["method"] == METHOD}
        return Reply(json.dumps([missing.get(reply["id"], reply) for reply in answers]).encode())

    with serve(answer) as served:
        yield served.url
