"""What the wallet really did, read block by block from the node by nothing of the agent's, and each swap held against the limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from eth_utils.crypto import keccak

from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode
from tests.support.agents import off_target
from tests.support.searchers import PLAN_COST, SLIPPAGE

TRANSFER = "0x" + bytes(keccak(text="Transfer(address,address,uint256)")).hex()
MOST_GAS_PRICE_WEI = 60 * 10**9
"""The template's limits.gas_price."""

BAND = Fraction(1, 10)
"""The template's trigger: 10 % of the target."""
EDGE_BPS = 20
"""So near to a band's edge nobody says beforehand what will be decided."""


@dataclass(frozen=True, slots=True)
class Done:
    """A transaction of the wallet in a block."""

    tx_hash: str
    nonce: int
    block: int
    time_s: int
    gas_wei: int


class LedgerOfChain:
    """Transactions of the wallet since this was made; a reorganisation takes those of its blocks out again."""

    def __init__(self, chain: LocalChain, node: AnvilNode) -> None:
        self._chain, self._node = chain, node
        self._wallet = chain.wallet.address.lower()
        height = int(chain.w3.eth.block_number)
        self._blocks = {height: self._hash(height)}
        self._start_nonce = int(node.rpc("eth_getTransactionCount", chain.wallet.address, "latest"), 16)
        self._before_wei = _gas_before(node, self._wallet, height)
        self._done: list[Done] = []
        self._by_hand: set[str] = set()
        self._prices = dict(chain.books.prices_usd)

    def by_hand(self, tx_hash: str) -> None:
        """This one is the owner's own."""
        self._by_hand.add(tx_hash)

    def nonce(self) -> int:
        """The wallet's next nonce, as counted."""
        return self._start_nonce + len(self._done)

    def hashes(self) -> set[str]:
        """Of all but the owner's own."""
        return {one.tx_hash for one in self._done} - self._by_hand

    def count(self) -> int:
        """How many those are."""
        return len(self.hashes())

    def gas_wei(self, since_s: int) -> int:
        """Paid for them since then."""
        return sum(one.gas_wei for one in self._done if one.tx_hash not in self._by_hand and one.time_s > since_s)

    def others_gas_wei(self, since_s: int) -> int:
        """Paid for the owner's own since then, and for all that the wallet did before this ledger began."""
        own = sum(one.gas_wei for one in self._done if one.tx_hash in self._by_hand and one.time_s > since_s)
        return own + self._before_wei

    def read(self) -> None:
        """Goes on to the newest block."""
        while self._blocks and self._hash(max(self._blocks)) != self._blocks[max(self._blocks)]:
            gone = max(self._blocks)
            del self._blocks[gone]
            self._done = [one for one in self._done if one.block != gone]
        for number in range(max(self._blocks) + 1, int(self._chain.w3.eth.block_number) + 1):
            block = self._node.rpc("eth_getBlockByNumber", hex(number), True)
            self._blocks[number] = block["hash"]
            for tx in block["transactions"]:
                if tx["from"].lower() == self._wallet:
                    self._book(tx, number, int(block["timestamp"], 16))
        self._prices = dict(self._chain.books.prices_usd)

    def _hash(self, number: int) -> str | None:
        block = self._node.rpc("eth_getBlockByNumber", hex(number), False)
        return None if block is None else str(block["hash"])

    def _book(self, tx: dict[str, str], number: int, time_s: int) -> None:
        receipt = self._node.rpc("eth_getTransactionReceipt", tx["hash"])
        assert int(tx["nonce"], 16) == self.nonce(), "a nonce is missing or twice"
        price_wei = int(receipt["effectiveGasPrice"], 16)
        assert price_wei <= MOST_GAS_PRICE_WEI
        self._done.append(Done(tx["hash"], int(tx["nonce"], 16), number, time_s, int(receipt["gasUsed"], 16) * price_wei))
        moved: dict[str, int] = {}
        for log in receipt["logs"]:
            if log["topics"][0] == TRANSFER and len(log["topics"]) == 3:
                sender, recipient = ("0x" + topic[-40:] for topic in log["topics"][1:])
                sign = (recipient == self._wallet) - (sender == self._wallet)
                moved[log["address"]] = moved.get(log["address"], 0) + sign * int(log["data"], 16)
        # A price may have moved since the last look and before this transaction, which was waiting: it keeps to the limits of one.
        assert any(self._kept(moved, prices) for prices in (self._prices, self._chain.books.prices_usd)), f"{tx['hash']} lost too much"

    def _kept(self, moved: dict[str, int], prices: Mapping[str, Fraction]) -> bool:
        """Whether what came is worth what went, less plan_cost and slippage of the turnover."""
        usd = {token.address.lower(): prices[symbol] / 10**token.decimals for symbol, token in self._chain.tokens.items()}
        values = [raw * usd[address.lower()] for address, raw in moved.items()]
        return -sum(values, Fraction(0)) <= (PLAN_COST + SLIPPAGE) * sum(map(abs, values), Fraction(0)) / 2


def outside_band(chain: LocalChain, targets: Mapping[str, str]) -> bool | None:
    """Whether a token's weight is outside its band, by balances and world prices; None where one is too near to an edge to say."""
    wanted = {symbol: Fraction(target.rstrip("%")) * 100 for symbol, target in targets.items()}
    beyond = {symbol: off - BAND * wanted[symbol] for symbol, off in off_target(chain, targets).items()}
    return None if any(abs(bps) <= EDGE_BPS for bps in beyond.values()) else any(bps > 0 for bps in beyond.values())


_KNOWN: dict[str, int] = {}


def _gas_before(node: AnvilNode, wallet: str, height: int) -> int:
    """Gas money of all that a wallet did on a chain as it was deployed; looked up once."""
    key = str(node.url)
    if key not in _KNOWN:
        blocks = [node.rpc("eth_getBlockByNumber", hex(number), True) for number in range(height + 1)]
        sent = [tx["hash"] for block in blocks for tx in block["transactions"] if tx["from"].lower() == wallet]
        paid = [node.rpc("eth_getTransactionReceipt", tx_hash) for tx_hash in sent]
        _KNOWN[key] = sum(int(one["gasUsed"], 16) * int(one["effectiveGasPrice"], 16) for one in paid)
    return _KNOWN[key]
