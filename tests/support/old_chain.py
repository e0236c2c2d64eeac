"""An in-memory chain of many blocks with old headers, states, blocks and receipts, which it may also have pruned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.chain.history import RecentTransactions, recent_transactions_from
from agent.chain.rpc import RpcCall, RpcFault
from agent.model import Head
from tests.support import builders
from tests.support.fakes.transport import ScriptedTransport
from tests.support.ledgers import COIN, DOLLAR, LEDGER_USDC, LEDGER_WETH
from tests.support.transactions import CHAIN_ID, OTHER, WALLET

NOW_S = builders.NOW_S
SPACING_S = 12
ROUTER = builders.ROUTER
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


def topic(address: str) -> str:
    return "0x" + address[2:].lower().rjust(64, "0")


def event(token: str, sender: str, recipient: str, raw: int) -> dict[str, Any]:
    return {"address": token, "topics": [TRANSFER, topic(sender), topic(recipient)], "data": f"0x{raw:064x}"}


@dataclass
class Node(ScriptedTransport):
    """A chain of `height` blocks 12 s apart; `sent` are the wallet's transactions by block, `states_from` the oldest state kept."""

    operator: str = "a"
    height: int = 20_000
    sent: dict[int, dict[str, Any]] = field(default_factory=dict)
    states_from: int = 0
    bodies_from: int = 0
    later_s: int = 0
    feeds: dict[str, Any] = field(default_factory=dict)
    largest: int = 0

    @property
    def head(self) -> Head:
        return Head(CHAIN_ID, self.height, f"0x{self.height:064x}", NOW_S + self.later_s, 1)

    @property
    def nonce(self) -> int:
        return len(self.sent)

    def __post_init__(self) -> None:
        super().__init__(self.operator, self.answer)

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        self.largest = max(self.largest, len(calls))
        return super().batch(calls)

    def answer(self, method: str, params: list[Any]) -> Any:
        if method == "eth_getTransactionReceipt":
            number = int(params[0], 16)
            return self.receipt(number)
        if method == "eth_call":
            past = int(params[1], 16)
            usd = self.feeds.get(params[0]["to"])
            if usd is None or past < self.states_from:
                return RpcFault(-32000, "missing trie node")
            return "0x" + "".join(f"{word:064x}" for word in (7, usd[past] if isinstance(usd, dict) else usd, 1, 1, 7))
        height = int(params[-1] if method == "eth_getTransactionCount" else params[0], 16)
        if method == "eth_getTransactionCount":
            if height < self.states_from:
                return RpcFault(-32000, "missing trie node")
            return hex(sum(number <= height for number in self.sent))
        assert method == "eth_getBlockByNumber"
        txs = [self.tx(height)] if params[1] and height in self.sent else []
        if params[1] and height < self.bodies_from:
            return None
        return {"number": hex(height), "timestamp": hex(self.head.timestamp_s - (self.height - height) * SPACING_S), "transactions": txs}

    def tx(self, number: int) -> dict[str, Any]:
        order = sorted(self.sent).index(number)
        transaction = {"from": WALLET.lower(), "to": ROUTER.lower(), "value": "0x0"} | self.sent[number]
        return transaction | {"hash": f"0x{number:064x}", "nonce": hex(order)}

    def receipt(self, number: int) -> dict[str, Any]:
        transaction = self.sent[number]
        return {
            "transactionHash": f"0x{number:064x}",
            "status": hex(transaction.get("status", 1)),
            "blockNumber": hex(number),
            "blockHash": f"0x{number:064x}",
            "gasUsed": hex(50_000),
            "effectiveGasPrice": hex(2 * 10**9),
            "logs": transaction.get("logs", []),
        }


DAY_BLOCKS = 86_400 // SPACING_S
OLD = 20_000 - DAY_BLOCKS - 5
RECENT = (20_000 - DAY_BLOCKS + 1, 15_000, 15_001, 19_999, 20_000)
SWAP = [event(LEDGER_WETH.address, WALLET, OTHER, COIN), event(LEDGER_USDC.address, OTHER, WALLET, 1_990 * DOLLAR)]


def told(node: Node) -> RecentTransactions:
    return recent_transactions_from(node, WALLET, node.head, node.nonce)
