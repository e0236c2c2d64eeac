"""What a wallet sent in the last day, as a chain tells it: everything, or that it cannot be told; never less (T6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent.chain.chronicle import MOST_SENT, SCANNED, CannotTell, Day, last_day, told_by
from agent.chain.panel import Panel
from agent.chain.wire import Call, RpcFault
from agent.errors import Retryable
from agent.execution.earlier import entries, recall
from agent.model import Head, IntentKind, IntentState
from agent.store import open_store
from agent.units import NATIVE
from tests import builders
from tests.ledgers import COIN, DOLLAR, GAS_WEI, PRICE, USDC, WETH, at
from tests.scripted import CHAIN_ID, OTHER, WALLET, grant, receipt, tx

NOW_S = builders.NOW_S
SPACING_S = 12
ROUTER = builders.ROUTER
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


def topic(address: str) -> str:
    return "0x" + address[2:].lower().rjust(64, "0")


def event(token: str, sender: str, recipient: str, raw: int) -> dict[str, Any]:
    return {"address": token, "topics": [TRANSFER, topic(sender), topic(recipient)], "data": f"0x{raw:064x}"}


@dataclass
class Node:
    """A chain of `height` blocks 12 s apart; `sent` are the wallet's transactions by block, `states_from` the oldest state kept."""

    operator: str = "a"
    height: int = 20_000
    sent: dict[int, dict[str, Any]] = field(default_factory=dict)
    states_from: int = 0
    bodies_from: int = 0
    later_s: int = 0
    requests: int = 0
    largest: int = 0

    @property
    def name(self) -> str:
        return f"endpoint {self.operator!r}"

    @property
    def head(self) -> Head:
        return Head(CHAIN_ID, self.height, f"0x{self.height:064x}", NOW_S + self.later_s, 1)

    @property
    def nonce(self) -> int:
        return len(self.sent)

    def call(self, method: str, params: list[Any]) -> Any:
        return self.batch([(method, params)])[0]

    def batch(self, calls: Sequence[Call]) -> list[Any]:
        self.requests += 1
        self.largest = max(self.largest, len(calls))
        return [self.answer(method, params) for method, params in calls]

    def answer(self, method: str, params: list[Any]) -> Any:
        if method == "eth_getTransactionReceipt":
            number = int(params[0], 16)
            return self.receipt(number)
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
        one = {"from": WALLET.lower(), "to": ROUTER.lower(), "value": "0x0"} | self.sent[number]
        return one | {"hash": f"0x{number:064x}", "nonce": hex(order)}

    def receipt(self, number: int) -> dict[str, Any]:
        found = self.sent[number]
        return {
            "transactionHash": f"0x{number:064x}",
            "status": hex(found.get("status", 1)),
            "blockNumber": hex(number),
            "blockHash": f"0x{number:064x}",
            "gasUsed": hex(50_000),
            "effectiveGasPrice": hex(2 * 10**9),
            "logs": found.get("logs", []),
        }


DAY_BLOCKS = 86_400 // SPACING_S
OLD, RECENT = 20_000 - DAY_BLOCKS - 5, (20_000 - DAY_BLOCKS + 1, 15_000, 15_001, 19_999, 20_000)
SWAP = [event(WETH.address, WALLET, OTHER, COIN), event(USDC.address, OTHER, WALLET, 1_990 * DOLLAR)]


def told(node: Node) -> Day:
    return told_by(node, WALLET, node.head, node.nonce)


def test_every_transaction_of_the_last_day_is_found_and_none_of_before() -> None:
    node = Node(sent={OLD: {}, **{number: {"logs": SWAP} for number in RECENT}})
    day = told(node)
    assert day.since_block == 20_000 - DAY_BLOCKS + 1
    assert [one.receipt.block_number for one in day.sent] == list(RECENT)
    assert [one.nonce for one in day.sent] == [1, 2, 3, 4, 5]
    assert day.sent[0].receipt.net(WALLET) == {WETH.address: -COIN, USDC.address: 1_990 * DOLLAR}
    assert node.requests <= 30
    assert node.largest <= 32


def test_a_wallet_that_sent_nothing_is_told_in_a_few_requests() -> None:
    node = Node(sent={OLD: {}})
    assert told(node).sent == ()
    assert node.requests <= 8


def test_a_busy_day_takes_no_more_than_eighty_requests() -> None:
    node = Node(height=400_000, sent={400_000 - 50 * number: {} for number in range(MOST_SENT)})
    assert len(told(node).sent) == MOST_SENT
    assert node.requests <= 80
    with pytest.raises(CannotTell, match=f"more than {MOST_SENT}"):
        told(Node(height=400_000, sent={400_000 - 50 * number: {} for number in range(MOST_SENT + 1)}))


def test_a_node_that_forgets_old_states_cannot_tell() -> None:
    with pytest.raises(CannotTell, match="states of a day ago"):
        told(Node(sent={OLD: {}, 19_999: {}}, states_from=19_872))


def test_a_young_chain_is_read_block_by_block_where_states_are_forgotten() -> None:
    node = Node(height=SCANNED - 2, sent={3: {}, 200: {}}, states_from=SCANNED - 3)
    assert [one.receipt.block_number for one in told(node).sent] == [3, 200]


def test_a_node_that_keeps_no_bodies_cannot_tell() -> None:
    with pytest.raises(CannotTell, match="no old blocks"):
        told(Node(sent={19_000: {}}, bodies_from=19_500))


def test_a_node_that_leaves_a_transaction_out_cannot_tell() -> None:
    """The nonces must be there one after the other, up to the wallet's own."""

    class Hiding(Node):
        def answer(self, method: str, params: list[Any]) -> Any:
            found = super().answer(method, params)
            if method == "eth_getBlockByNumber" and params[1] and int(params[0], 16) == 15_001:
                found["transactions"] = []
            return found

    with pytest.raises(CannotTell, match="not found"):
        told(Hiding(sent={number: {} for number in RECENT}))


def test_operators_must_tell_the_same() -> None:
    honest = {number: {"logs": SWAP} for number in RECENT}
    lying = {**honest, RECENT[1]: {"logs": []}}
    head, nonce = Node(sent=honest).head, len(honest)
    both = Panel([Node("a", sent=honest), Node("b", sent=honest)], 2)
    assert len(last_day(both, WALLET, head, nonce).sent) == len(RECENT)
    with pytest.raises(Retryable, match="disagree"):
        last_day(Panel([Node("a", sent=honest), Node("b", sent=lying)], 2), WALLET, head, nonce)
    with pytest.raises(CannotTell, match="too few operators"):
        last_day(Panel([Node("a", sent=honest), Node("b", sent=honest, states_from=19_900)], 2), WALLET, head, nonce)
    pruned = [Node(name, sent=honest, states_from=19_900) for name in "ab"]
    with pytest.raises(CannotTell, match="states of a day ago"):
        last_day(Panel(pruned, 2), WALLET, head, nonce)


# what it is worth
def lost(**one: Any) -> tuple[Fraction, Fraction, int]:
    """Loss and turnover in dollars, and gas, of one transaction."""
    (found,) = entries(at(), told(Node(sent={19_000: one})))
    return found.loss / DOLLAR, found.turnover / DOLLAR, found.gas_wei


GAS_USD = Fraction(GAS_WEI * 2_000, COIN)


@pytest.mark.parametrize(
    ("logs", "status", "to", "dollars", "turned"),
    [
        (SWAP, 1, ROUTER, 10, 1_995),
        (SWAP, 1, OTHER, 10, 1_995),
        ([event(WETH.address, WALLET, OTHER, COIN), event(USDC.address, OTHER, WALLET, 3_000 * DOLLAR)], 1, ROUTER, 0, 2_500),
        ([], 0, ROUTER, 0, 0),
        ([event(WETH.address, WALLET, OTHER, COIN)], 1, ROUTER, 2_000, 1_000),
        ([event(WETH.address, WALLET, OTHER, COIN)], 1, OTHER, 0, 0),
        ([event(builders.address("a stranger's token"), WALLET, OTHER, 10**30)], 1, ROUTER, 0, 0),
    ],
    ids=["swap", "swap elsewhere", "gain", "revert", "robbed by the router", "payment", "event of a stranger"],
)
def test_an_exchange_costs_what_it_lost_and_everything_its_gas(logs: list[Any], status: int, to: str, dollars: int, turned: int) -> None:
    loss, turnover, gas_wei = lost(logs=logs, status=status, to=to)
    assert loss == max(dollars + GAS_USD, GAS_USD)
    assert (turnover, gas_wei) == (turned, GAS_WEI)


def test_a_new_store_is_told_once_and_remembers(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET, WETH.address)
    node = Node(sent={number: {"logs": SWAP} for number in RECENT})
    step = at(node.height, nonce_latest=node.nonce)
    step = replace(step, history=store.history(NOW_S))
    panel = Panel([node], 1)
    known = recall(step, store, panel).history
    assert known.loss_24h == len(RECENT) * (10 + GAS_USD) * DOLLAR
    assert known.gas_24h_wei == len(RECENT) * GAS_WEI
    asked = node.requests
    assert recall(replace(step, history=store.history(NOW_S)), store, panel).history == known
    assert node.requests == asked
    assert store.history(NOW_S + 86_400).loss_24h == 0


def test_what_the_chain_cannot_tell_is_unknown_until_the_store_has_seen_a_day_itself(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET, WETH.address)
    node = Node(sent={19_990: {}}, states_from=30_000)
    for later_s, unknown in ((0, True), (86_399, True), (86_400, False)):
        node.later_s = later_s
        step = at(node.height, nonce_latest=1)
        step = replace(step, snapshot=replace(step.snapshot, head=node.head), history=store.history(NOW_S + later_s))
        found = recall(step, store, Panel([node], 1)).history.unknown
        assert bool(found) is unknown
        assert not unknown or "--nothing-lost" in found


def test_an_owner_who_vouches_is_believed(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET, WETH.address)
    node = Node(sent={19_990: {}}, states_from=30_000)
    step = replace(at(node.height, nonce_latest=1), history=store.history(NOW_S))
    assert recall(step, store, Panel([node], 1)).history.unknown
    store.tell_day(())
    assert recall(step, store, Panel([node], 1)).history.unknown == ""


def test_a_wallet_that_never_sent_anything_is_not_asked_about(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET)
    node = Node()
    step = at(node.height, nonce_latest=0)
    assert recall(step, store, Panel([node], 1)).history.unknown == ""
    assert node.requests == 0


def test_what_this_store_sent_itself_is_not_counted_twice(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET, WETH.address)
    store.begin_step("s", 1, "{}")
    made = store.intend("s", IntentKind.SWAP, tx(0), grant(), "swap", 1, None)
    tx_hash = f"0x{19_000:064x}"
    store.advance(made.id, IntentState.SIGNED, 1, tx_hash=tx_hash)
    store.advance(made.id, IntentState.BROADCAST, 1)
    mined = store.advance(made.id, IntentState.MINED, 1, receipt=receipt(tx_hash, 19_000, f"0x{19_000:064x}"))
    store.book(mined, Fraction(5), Fraction(7), 11, NOW_S - 5)
    node = Node(sent={19_000: {"logs": SWAP}, 19_001: {}})
    step = replace(at(node.height, nonce_latest=2), history=store.history(NOW_S))
    found = recall(step, store, Panel([node], 1)).history
    assert found.loss_24h == 7 + GAS_USD * DOLLAR
    assert found.gas_24h_wei == 11 + GAS_WEI


def test_after_an_adoption_the_chain_explains_what_the_wallet_did_meanwhile(tmp_path: Path) -> None:
    """Balances that another machine moved with the same key are known, not flows; what came before the books is not counted again."""
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET, WETH.address)
    before = at(18_500)
    store.note_balances(before.snapshot, {WETH.address: 10 * COIN, USDC.address: 20_000 * DOLLAR, NATIVE: COIN}, (), 0)
    store.adopt_nonce(2, 1)
    node = Node(sent={18_000: {"logs": SWAP}, 19_000: {"logs": SWAP}})
    recall(replace(at(node.height, nonce_latest=2), history=store.history(NOW_S)), store, Panel([node], 1))
    own = {change.token: change.delta_raw for change in store.books().own}
    assert own == {WETH.address: -COIN, USDC.address: 1_990 * DOLLAR, NATIVE: -GAS_WEI}
    assert store.history(NOW_S).loss_24h == 2 * (10 + GAS_USD) * DOLLAR
    assert PRICE == 2_000 * DOLLAR
