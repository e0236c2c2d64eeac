"""Senders over nodes that answer as told."""

from __future__ import annotations

from typing import Any

from agent.chain.endpoints import Endpoint, EndpointPool
from agent.chain.rpc import RpcFault
from agent.chain.sender import QuorumSender
from agent.model import SignedTx
from tests.support.fakes.transport import ScriptedTransport

CHAIN_ID = 0x7A69
HASH = "0x" + "ab" * 32
SIGNED = SignedTx(b"\x01\x02", HASH)
LOW = RpcFault(-32000, "nonce too low")
POOR = RpcFault(-32000, "insufficient funds for gas")
RECEIPT: dict[str, Any] = {
    "transactionHash": HASH,
    "status": "0x1",
    "blockNumber": "0x10",
    "blockHash": "0x" + "cd" * 32,
    "gasUsed": "0x5208",
    "effectiveGasPrice": "0x7",
    "logs": [],
}
HONEST: dict[str, object] = {
    "eth_call": "0x",
    "eth_estimateGas": "0x5208",
    "eth_getTransactionCount": "0x5",
    "eth_sendRawTransaction": HASH,
    "eth_getTransactionReceipt": RECEIPT,
    "eth_getTransactionByHash": {"hash": HASH},
}


def node(operator: str, **changes: object) -> ScriptedTransport:
    return ScriptedTransport(operator, **(HONEST | changes))


def sender(*nodes: ScriptedTransport, minimum: int = 2, submit: ScriptedTransport | None = None, fallback: bool = False) -> QuorumSender:
    return QuorumSender(EndpointPool(nodes, minimum, grace_s=0.02), CHAIN_ID, None if submit is None else Endpoint(submit), fallback)
