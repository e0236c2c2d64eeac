"""What a wallet sent in the last day, as a chain tells it: everything, or that it cannot be told; never less (T6)."""

from __future__ import annotations

from typing import Any

import pytest

from agent.chain.endpoints import EndpointPool
from agent.chain.history import MAX_SCANNED_BLOCKS, MAX_TRANSACTIONS, HistoryUnavailable, recent_transactions
from agent.errors import Retryable
from tests.support.ledgers import COIN, DOLLAR, LEDGER_USDC, LEDGER_WETH
from tests.support.old_chain import DAY_BLOCKS, OLD, RECENT, SWAP, Node, told
from tests.support.text import raises_code
from tests.support.transactions import WALLET


def test_transactions__of_the_last_day_alone_are_found() -> None:
    node = Node(sent={OLD: {}, **{number: {"logs": SWAP} for number in RECENT}})
    day = told(node)
    assert day.since_block == 20_000 - DAY_BLOCKS + 1
    assert [transaction.receipt.block_number for transaction in day.transactions] == list(RECENT)
    assert [transaction.nonce for transaction in day.transactions] == [1, 2, 3, 4, 5]
    assert day.transactions[0].receipt.net_transfers(WALLET) == {LEDGER_WETH.address: -COIN, LEDGER_USDC.address: 1_990 * DOLLAR}
    assert node.request_count <= 30
    assert node.largest <= 32


def test_a_wallet_that_sent_nothing_is_told_in_a_few_requests() -> None:
    node = Node(sent={OLD: {}})
    assert told(node).transactions == ()
    assert node.request_count <= 8


def test_a_busy_day_takes_no_more_than_eighty_requests() -> None:
    node = Node(height=400_000, sent={400_000 - 50 * number: {} for number in range(MAX_TRANSACTIONS)})
    assert len(told(node).transactions) == MAX_TRANSACTIONS
    assert node.request_count <= 80
    with raises_code(HistoryUnavailable, "transactions_many", MAX_TRANSACTIONS):
        told(Node(height=400_000, sent={400_000 - 50 * number: {} for number in range(MAX_TRANSACTIONS + 1)}))


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (Node(sent={OLD: {}, 19_999: {}}, states_from=19_872), "day ago"),
        (Node(sent={19_000: {}}, bodies_from=19_500), "old blocks"),
    ],
    ids=["forgets old states", "keeps no bodies"],
)
def test_a_node_without_the_past_cannot_tell(node: Node, words: str) -> None:
    with raises_code(HistoryUnavailable, "old_blocks", words):
        told(node)


def test_young_chain_without_states__is_read_block_by_block() -> None:
    node = Node(height=MAX_SCANNED_BLOCKS - 2, sent={3: {}, 200: {}}, states_from=MAX_SCANNED_BLOCKS - 3)
    assert [transaction.receipt.block_number for transaction in told(node).transactions] == [3, 200]


def test_a_node_that_leaves_a_transaction_out_cannot_tell() -> None:
    """The nonces must be there one after the other, up to the wallet's own."""

    class Hiding(Node):
        def answer(self, method: str, params: list[Any]) -> Any:
            answer = super().answer(method, params)
            if method == "eth_getBlockByNumber" and params[1] and int(params[0], 16) == 15_001:
                answer["transactions"] = []
            return answer

    with raises_code(HistoryUnavailable, "transactions_missing"):
        told(Hiding(sent={number: {} for number in RECENT}))


def test_operators_must_tell_the_same() -> None:
    honest = {number: {"logs": SWAP} for number in RECENT}
    lying = {**honest, RECENT[1]: {"logs": []}}
    head = Node(sent=honest).head
    nonce = len(honest)
    both = EndpointPool([Node("a", sent=honest), Node("b", sent=honest)], 2)
    assert len(recent_transactions(both, WALLET, head, nonce).transactions) == len(RECENT)
    with raises_code(Retryable, "quorum"):
        recent_transactions(EndpointPool([Node("a", sent=honest), Node("b", sent=lying)], 2), WALLET, head, nonce)
    with raises_code(HistoryUnavailable, "operators"):
        recent_transactions(EndpointPool([Node("a", sent=honest), Node("b", sent=honest, states_from=19_900)], 2), WALLET, head, nonce)
    pruned = [Node(name, sent=honest, states_from=19_900) for name in "ab"]
    with pytest.raises(HistoryUnavailable, match="day ago"):
        recent_transactions(EndpointPool(pruned, 2), WALLET, head, nonce)


def feed_answers_of(prices: tuple[int | None, ...]) -> list[object]:
    """Return the answers kept with each transaction by operators of which some have a price."""
    nodes = [
        Node(f"operator {number}", sent={15_000: {"logs": SWAP}}, feeds={} if price is None else {"eth": price})
        for number, price in enumerate(prices)
    ]
    report = recent_transactions(EndpointPool(nodes, 2), WALLET, nodes[0].head, 1, ("eth",))
    return [transaction.feed_answers for transaction in report.transactions]


@pytest.mark.parametrize(
    ("prices", "answers"),
    [
        pytest.param((1_900, 1_900), (("eth", 1_900),), id="both have the state"),
        pytest.param((1_900, None), (), id="one lacks the state"),
        pytest.param((None, None), (), id="both lack the state"),
        pytest.param((1_900, None, 1_900), (("eth", 1_900),), id="two of three"),
        pytest.param((1_900, 1_901, 1_900), (("eth", 1_900),), id="two of three against one"),
        pytest.param((1_900, None, None), (), id="one of three"),
    ],
)
def test_feed_answers__are_those_that_enough_operators_have(prices: tuple[int | None, ...], answers: tuple[tuple[str, int], ...]) -> None:
    """Nodes that have pruned the state of a price disagree on no transaction."""
    assert feed_answers_of(prices) == [answers]


@pytest.mark.parametrize("prices", [(1_900, 1_901), (1_900, 1_901, None)])
def test_feed_answers_that_differ__are_not_chosen_from(prices: tuple[int | None, ...]) -> None:
    with raises_code(Retryable, "quorum"):
        feed_answers_of(prices)
