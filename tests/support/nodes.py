"""Scripted nodes for the senders: what an honest one answers, those that lie, and those of a rollup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agent.chain.fees.data_fees import GAS_PRICE_ORACLE
from agent.chain.lens import uint_word
from agent.chain.rpc import RpcFault
from agent.model import DataFeeQuote, SignedTx
from agent.model.rollups import MAX_TX_BYTES, OPERATOR_SAMPLE_GAS
from tests.support.fakes.transport import HEAD_JSON, ScriptedTransport
from tests.support.signing import CANCEL

SEND = "eth_sendRawTransaction"
CALL = "eth_call"
ESTIMATE = "eth_estimateGas"
BLOCK = "eth_getBlockByNumber"
RECEIPT_OF = "eth_getTransactionReceipt"
TX_OF = "eth_getTransactionByHash"

CHAIN_ID = 0x7A69
HEAD_BLOCK = 0x10
BASE_FEE_WEI = 7
"""Of HEAD_JSON, like the number and the chain id."""
GAS = 0x5208
HASH = "0x" + "ab" * 32
OTHER_HASH = "0x" + "ee" * 32
SIGNED = SignedTx(b"\x01\x02", HASH)
TX = replace(CANCEL, gas=50_000, data="0x" + "11" * 100, value_wei=5)
TRUE = "0x" + uint_word(1).hex()
FALSE = "0x" + uint_word(0).hex()

INTERNAL = RpcFault(-32603, "internal error")
NONCE_TOO_LOW = RpcFault(-32000, "nonce too low: next nonce 8, tx nonce 7")
NO_FUNDS = RpcFault(-32000, "insufficient funds for gas")
REVERT = RpcFault(3, "execution reverted: STF")
RECEIPT: dict[str, object] = {
    "transactionHash": HASH,
    "status": "0x1",
    "blockNumber": hex(HEAD_BLOCK),
    "blockHash": HEAD_JSON["hash"],
    "gasUsed": hex(GAS),
    "effectiveGasPrice": "0x7",
    "logs": [],
}
HONEST: dict[str, object] = {
    CALL: "0x",
    ESTIMATE: hex(GAS),
    "eth_getTransactionCount": "0x5",
    SEND: HASH,
    RECEIPT_OF: RECEIPT,
    TX_OF: {"hash": HASH},
}
UNKNOWN_HASH: dict[str, object] = {RECEIPT_OF: None, TX_OF: None}


def node(operator: str = "node", **answers: object) -> ScriptedTransport:
    """Return a node that answers honestly but for these methods."""
    return ScriptedTransport(operator, **(HONEST | answers))


def header(**changes: str) -> dict[str, str]:
    return HEAD_JSON | changes


def by_tag(latest: int, pending: int) -> Callable[[list[Any]], str]:
    """Return the answer to eth_getTransactionCount by its tag."""
    return lambda params: hex({"latest": latest, "pending": pending}[params[1]])


def rollup_node(operator: str = "node", byte_wei: int = 0, **answers: object) -> ScriptedTransport:
    """Return a node of a rollup that charges for each byte of a transaction, and one wei per unit of gas."""

    def call(params: list[Any]) -> str:
        if params[0]["to"] != GAS_PRICE_ORACLE:
            return "0x"
        is_data_fee = params[0]["data"].startswith("0xf1c7a58b")
        return "0x" + uint_word((byte_wei if is_data_fee else 1) * int(params[0]["data"][10:], 16)).hex()

    return node(operator, **({CALL: call} | answers))


def rollup_fee_wei(gas: int, byte_wei: int) -> int:
    """Return what 100 bytes of calldata and this gas pay at most on the rollup of `rollup_node`."""
    return DataFeeQuote(0, MAX_TX_BYTES * byte_wei, 0, OPERATOR_SAMPLE_GAS).max_fee_beyond_gas_wei(gas, 100)
