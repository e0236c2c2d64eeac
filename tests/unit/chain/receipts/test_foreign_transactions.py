"""What somebody else sent for the wallet is found by nonce or by the Safe's event, as enough operators tell it, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent.chain.endpoints import EndpointPool
from agent.chain.quorum import NoQuorum
from agent.chain.receipts import (
    BLOCKS_PER_REQUEST,
    EXECUTION_FAILURE_TOPIC,
    EXECUTION_SUCCESS_TOPIC,
    MAX_REQUESTS,
    RECENT_BLOCKS,
    SafeExecution,
    TxAtNonce,
    find_conflicting_hash,
    find_mined_hash,
    find_safe_execution,
    find_tx_by_nonce,
)
from agent.chain.rpc import CallFailed, RpcFault, Transport
from agent.errors import PassingFault, Retryable
from tests.support.fakes.transport import ScriptedTransport
from tests.support.signing import ROUTER, STRANGER, WALLET
from tests.support.text import raises_code

HASH, OTHER, SAFE_TX = ("0x" + pair * 32 for pair in ("ab", "cd", "5a"))
MINED_AT = 137
NONCE = 7
HEAD = 1_000


SENT = {"from": WALLET.lower(), "nonce": hex(NONCE), "hash": HASH, "to": ROUTER.lower(), "value": "0x5", "input": "0x1234"}


def chain(operator: str, mined_at: int = MINED_AT, kept_from: int = 0, **changes: Any) -> ScriptedTransport:
    """An endpoint on whose chain the wallet's nonce 7 was used in one block; it keeps the states from a block on."""
    sent = SENT | changes
    strangers = {"from": STRANGER, "nonce": hex(NONCE), "hash": OTHER, "to": None, "value": "0x0", "input": "0x"}

    def nonce(params: list[Any]) -> str:
        if int(params[1], 16) < kept_from:
            raise CallFailed("missing trie node", fault=RpcFault(-32000, "missing trie node"))
        return hex(NONCE + 1 if int(params[1], 16) >= mined_at else NONCE)

    return ScriptedTransport(
        operator,
        eth_getTransactionCount=nonce,
        eth_getBlockByNumber=lambda params: {"transactions": [strangers, sent] if int(params[0], 16) == mined_at else [strangers]},
    )


def panel(*nodes: ScriptedTransport, minimum: int = 2) -> EndpointPool:
    return EndpointPool(nodes, minimum, grace_s=0.2)


FOUND = TxAtNonce(HASH, MINED_AT, ROUTER, 5, "0x1234")


@pytest.mark.parametrize("since", [0, 1, MINED_AT - 1, MINED_AT])
@pytest.mark.parametrize("head", [MINED_AT, MINED_AT + 1, MINED_AT + 120, MINED_AT + 121, HEAD])
def test_wallet_transaction__is_found_by_its_nonce(since: int, head: int) -> None:
    assert find_tx_by_nonce(panel(chain("a"), chain("b")), WALLET, NONCE, since, head) == FOUND


@pytest.mark.parametrize(
    ("nonce", "since", "head"),
    [
        pytest.param(NONCE, 0, MINED_AT - 1, id="not mined yet"),
        pytest.param(NONCE + 1, 0, HEAD, id="later nonce"),
        pytest.param(NONCE, MINED_AT + 2, HEAD, id="mined before"),
    ],
)
def test_what_is_not_there_is_not_found(nonce: int, since: int, head: int) -> None:
    assert find_tx_by_nonce(panel(chain("a"), chain("b")), WALLET, nonce, since, head) is None


@pytest.mark.parametrize(("first_kept", "age"), [(248, 153), (200, 150), (127, 100), (120, 119), (63, 31), (7, 3), (1, 0)])
@pytest.mark.parametrize("since", [0, 10])
def test_recent_transaction__is_found_on_nodes_without_old_states(first_kept: int, age: int, since: int) -> None:
    """A proposal may have waited for its signers for longer than a node remembers."""
    mined_at = HEAD - age
    nodes = [chain(name, mined_at, HEAD - first_kept) for name in ("a", "b")]
    assert find_tx_by_nonce(panel(*nodes), WALLET, NONCE, since, HEAD) == TxAtNonce(HASH, mined_at, ROUTER, 5, "0x1234")


def test_what_is_older_than_every_kept_state_is_unknown() -> None:
    """The states from which on it is used are kept, the one before is not."""
    with pytest.raises(CallFailed, match="missing trie node"):
        find_tx_by_nonce(panel(chain("a", HEAD - 8, HEAD - 8), minimum=1), WALLET, NONCE, 0, HEAD)


@pytest.mark.parametrize("mined_at", [HEAD, HEAD - RECENT_BLOCKS, HEAD - RECENT_BLOCKS - 1, MINED_AT])
def test_the_hash_of_a_used_nonce_is_found_however_old(mined_at: int) -> None:
    assert find_mined_hash(panel(chain("a", mined_at), chain("b", mined_at)), WALLET, NONCE, HEAD) == HASH


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param({"hash": OTHER}, id="hash"),
        pytest.param({"to": STRANGER}, id="receiver"),
        pytest.param({"input": "0x12"}, id="calldata"),
        pytest.param({"value": "0x6"}, id="value"),
    ],
)
def test_liar__is_outvoted_and_two_that_differ_decide_nothing(lie: dict[str, str]) -> None:
    assert find_tx_by_nonce(panel(chain("a"), chain("liar", **lie), chain("b")), WALLET, NONCE, 0, HEAD) == FOUND
    with raises_code(NoQuorum, "quorum"):
        find_tx_by_nonce(panel(chain("a"), chain("liar", **lie)), WALLET, NONCE, 0, HEAD)


def test_mined_hash__is_unknown_while_the_endpoints_differ() -> None:
    assert find_mined_hash(panel(chain("a"), chain("liar", hash=OTHER)), WALLET, NONCE, HEAD) is None


def listing(*transactions: dict[str, Any]) -> ScriptedTransport:
    """Return an endpoint that lists these transactions in each block, the pending one too."""
    node = chain("a")
    node.answers["eth_getBlockByNumber"] = lambda _params: {"transactions": [*transactions]}
    return node


@pytest.mark.parametrize(
    "transactions",
    [[{**SENT, "from": WALLET}], [{**SENT, "nonce": hex(NONCE - 1), "hash": OTHER}, SENT]],
    ids=["sender in mixed case", "after another of the wallet"],
)
def test_tx_by_nonce__is_the_wallets_with_that_nonce(transactions: list[dict[str, Any]]) -> None:
    assert find_tx_by_nonce(panel(listing(*transactions), minimum=1), WALLET, NONCE, 0, HEAD) == FOUND


def test_conflicting_hash__is_that_of_a_pending_transaction() -> None:
    node = listing({**SENT, "nonce": "odd", "hash": OTHER}, SENT)
    assert find_conflicting_hash(panel(node, minimum=1), WALLET, NONCE, MINED_AT - 1) == HASH
    assert [params[0] for method, params in node.calls if method == "eth_getBlockByNumber"] == ["pending"]


def test_block_that_hides_the_nonce_s_use__says_nothing() -> None:
    hiding = chain("hiding", **{"from": STRANGER})
    with raises_code(Retryable, "answer", "hiding", "nonce 7", "block 137"):
        find_tx_by_nonce(panel(hiding, minimum=1), WALLET, NONCE, 0, HEAD)


@pytest.mark.parametrize("to", ["nobody", "0x" + "zz" * 20, ["0x"]])
def test_a_recipient_that_is_no_address_is_an_error_of_ours(to: object) -> None:
    with raises_code(Retryable, "answer", "recipient"):
        find_tx_by_nonce(panel(chain("odd", to=to), minimum=1), WALLET, NONCE, 0, HEAD)


def event(**changes: Any) -> dict[str, Any]:
    """ExecutionSuccess as version 1.4 writes it."""
    return {
        "address": WALLET.lower(),
        "topics": [EXECUTION_SUCCESS_TOPIC, SAFE_TX],
        "data": "0x" + "00" * 32,
        "transactionHash": HASH,
        "blockNumber": hex(MINED_AT),
    } | changes


def logs(operator: str, *events: dict[str, Any]) -> ScriptedTransport:
    def answer(params: list[Any]) -> list[dict[str, Any]]:
        param = params[0]
        assert int(param["toBlock"], 16) - int(param["fromBlock"], 16) < BLOCKS_PER_REQUEST
        return [event for event in events if int(param["fromBlock"], 16) <= int(event["blockNumber"], 16) <= int(param["toBlock"], 16)]

    return ScriptedTransport(operator, eth_getLogs=answer)


UseReader = Callable[[Transport, int], bool]


def find_execution(
    *nodes: ScriptedTransport, since: int = 0, head: int = HEAD, is_used_at: UseReader | None = None
) -> SafeExecution | None:
    """Search for the call's execution; by default on nodes that keep the state of the head alone, in which its nonce is used."""

    def is_used_in_head(_: Transport, block: int) -> bool:
        if block != head:
            raise CallFailed("missing trie node", fault=RpcFault(-32000, "missing trie node"))
        return True

    return find_safe_execution(panel(*nodes, minimum=min(2, len(nodes))), WALLET, SAFE_TX, is_used_at or is_used_in_head, since, head)


OLD_FORM = event(topics=[EXECUTION_SUCCESS_TOPIC], data=SAFE_TX + "00" * 32)
UPPER_CASE = event(topics=[EXECUTION_SUCCESS_TOPIC, "0x" + SAFE_TX[2:].upper()])


@pytest.mark.parametrize("events", [event(), OLD_FORM, UPPER_CASE], ids=["1.4", "1.3", "upper case"])
@pytest.mark.parametrize(("since", "head"), [(0, HEAD), (MINED_AT, MINED_AT), (0, 9 * BLOCKS_PER_REQUEST + 1)])
def test_what_a_safe_carried_out_is_found_by_its_hash(events: dict[str, Any], since: int, head: int) -> None:
    safe_execution = find_execution(logs("a", events), logs("b", events), since=since, head=head)
    assert safe_execution == SafeExecution(HASH, MINED_AT, SAFE_TX)


@pytest.mark.parametrize(
    "log",
    [
        event(topics=[EXECUTION_SUCCESS_TOPIC, OTHER]),
        event(topics=[OTHER, SAFE_TX]),
        event(address=STRANGER),
        event(topics=[EXECUTION_SUCCESS_TOPIC], data=OTHER + SAFE_TX[2:]),
        event(topics=[]),
        event(topics=[EXECUTION_FAILURE_TOPIC, SAFE_TX]),
    ],
    ids=["another call", "another event", "another Safe", "another call, old form", "no topics", "a failure"],
)
def test_an_event_of_anything_else_is_not_taken_for_it(log: dict[str, Any]) -> None:
    assert find_execution(logs("a", log), logs("b", log)) is None


@pytest.mark.parametrize(
    "block_number",
    [0, BLOCKS_PER_REQUEST - 1, BLOCKS_PER_REQUEST, 2 * BLOCKS_PER_REQUEST - 1, 2 * BLOCKS_PER_REQUEST],
    ids=["begin of a request", "its end", "begin of the next", "its end too", "the head"],
)
def test_safe_execution__is_found_at_both_ends_of_each_request(block_number: int) -> None:
    execution = event(blockNumber=hex(block_number))
    safe_execution = find_execution(logs("a", execution), logs("b", execution), head=2 * BLOCKS_PER_REQUEST)
    assert safe_execution == SafeExecution(HASH, block_number, SAFE_TX)


LONG_HEAD = MAX_REQUESTS * BLOCKS_PER_REQUEST + 1
"""The newest block of a chain, of which a search by events alone covers all but two."""


@pytest.mark.parametrize("head", [200 * BLOCKS_PER_REQUEST, 1_037_000, LONG_HEAD - 1, LONG_HEAD, 3 * LONG_HEAD])
def test_safe_execution__is_found_by_old_states_however_old(head: int) -> None:
    """A weekend on Arbitrum has a million blocks."""
    node = logs("a", event())
    assert find_execution(node, head=head, is_used_at=lambda _, block: block >= MINED_AT) == SafeExecution(HASH, MINED_AT, SAFE_TX)
    ((_, [log_filter]),) = node.calls
    assert (log_filter["fromBlock"], log_filter["toBlock"]) == (hex(MINED_AT), hex(MINED_AT))


@pytest.mark.parametrize("kept_from", [MINED_AT, MINED_AT + 1, HEAD])
def test_safe_execution__is_searched_where_states_are_not_kept(kept_from: int) -> None:
    def is_used_at(transport: Transport, block: int) -> bool:
        if block < kept_from:
            raise PassingFault("403")
        return block >= MINED_AT

    node = logs("a", event())
    assert find_execution(node, is_used_at=is_used_at) == SafeExecution(HASH, MINED_AT, SAFE_TX)
    assert max(int(log_filter["toBlock"], 16) for _, [log_filter] in node.calls) <= kept_from


@pytest.mark.parametrize("is_used_at", [None, lambda *_: True], ids=["no old states", "the newest state for every block"])
def test_safe_execution__too_old_for_events_alone_is_refused(is_used_at: UseReader | None) -> None:
    """A search that began later would take a later call for the one that used the nonce."""
    node = logs("a", event(blockNumber=hex(LONG_HEAD - 1)))
    assert find_execution(node, since=2, head=LONG_HEAD, is_used_at=is_used_at) == SafeExecution(HASH, LONG_HEAD - 1, SAFE_TX)
    node.calls.clear()
    with raises_code(Retryable, "old_blocks", "endpoint 'a'", "2000001 blocks", "archive"):
        find_execution(node, since=1, head=LONG_HEAD, is_used_at=is_used_at)
    assert node.calls == []


def test_safe_execution__of_a_free_nonce_is_not_searched() -> None:
    assert find_execution(logs("a", event()), is_used_at=lambda *_: False) is None


def test_execution_seen_by_one_endpoint__is_not_known() -> None:
    assert find_execution(logs("a"), logs("liar", event()), logs("b")) is None
    with raises_code(NoQuorum, "quorum"):
        find_execution(logs("a"), logs("liar", event()))


@pytest.mark.parametrize("answer", [None, {}, "0x"])
def test_events_that_are_no_list_say_nothing(answer: object) -> None:
    with raises_code(Retryable, "answer", "not a list"):
        find_execution(ScriptedTransport("a", eth_getLogs=answer))
