"""Tests of agent/chain/providers/quorum.py: an answer counts when enough operators give it, at one block of all."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from agent.chain.endpoints import EndpointPool
from agent.chain.lens import PAGE_FORMAT, CallItem, LensPages, uint_word
from agent.chain.providers.checked import open_web3
from agent.chain.providers.quorum import QuorumProvider, SnapshotProvider
from agent.chain.quorum import NoQuorum
from agent.chain.rpc import CallFailed, RpcFault, block_ref_at_hash, parse_head
from agent.errors import Refused, Retryable
from tests.support.builders import OWNER, address
from tests.support.fakes.transport import BLOCK, HEAD_JSON, ScriptedTransport
from tests.support.text import raises_code

CALL: list[Any] = [{"data": "0x00"}, "latest"]
DOWN = Retryable("it cannot be reached")
REVERT = RpcFault(3, "execution reverted")
OVERLOADED = RpcFault(-32005, "limit exceeded")


def quorum_of(*answers: object, method: str = "eth_call", min_operators: int = 2) -> QuorumProvider:
    """Return the provider over operators n0, n1 and so on, with these answers to the method."""
    nodes = [ScriptedTransport(f"n{number}", **{method: answer}) for number, answer in enumerate(answers)]
    return QuorumProvider(EndpointPool(nodes, min_operators, grace_s=0.02))


@pytest.mark.parametrize(
    ("answers", "min_operators"),
    [
        pytest.param(("0xaa", "0xaa"), 2, id="two"),
        pytest.param(("0xaa", "0xbb", "0xaa"), 2, id="two of three"),
        pytest.param(("0xaa", "0xbb", "0xAA"), 2, id="in capitals"),
        pytest.param(("0xaa",), 1, id="alone"),
        pytest.param((DOWN, "0xaa", "0xaa"), 2, id="first down"),
    ],
)
def test_quorum_answer_is_that_of_enough_operators(answers: Sequence[object], min_operators: int) -> None:
    assert str(quorum_of(*answers, min_operators=min_operators).call("eth_call", CALL)).lower() == "0xaa"


@pytest.mark.parametrize(
    "answers",
    [("0xaa", "0xbb"), ("0xaa", "0xbb", "0xcc"), ("0xaa", REVERT)],
    ids=["two differ", "three differ", "one fails"],
)
def test_quorum_of_different_answers_is_none(answers: Sequence[object]) -> None:
    with raises_code(NoQuorum, "quorum", "eth_call"):
        quorum_of(*answers).call("eth_call", CALL)


@pytest.mark.parametrize("turn", range(3))
def test_quorum_of_failures_has_the_most_frequent_code(turn: int) -> None:
    """A single operator that says that it was asked too much would end a step."""
    faults = (OVERLOADED, REVERT, RpcFault(3, "VM error"))

    (answer,) = quorum_of(*faults[turn:], *faults[:turn]).batch([("eth_call", CALL)])

    assert answer.code == 3


def test_quorum_of_failures_counts_before_an_answer() -> None:
    (answer,) = quorum_of(REVERT, RpcFault(-32000, "VM error"), "0xaa").batch([("eth_call", CALL)])

    assert isinstance(answer, RpcFault)


def test_quorum_waits_for_a_majority_of_all_operators() -> None:
    """Two of five that agree at once may be liars: a third is heard before they count."""
    release = threading.Event()

    def answer_later(_params: list[object]) -> str:
        time.sleep(0.1)
        return "0xbb"

    def hang(_params: list[object]) -> str:
        release.wait(20)
        return "0xbb"

    answers: list[object] = ["0xaa", "0xaa", answer_later, hang, hang]
    pool = EndpointPool([ScriptedTransport(f"n{number}", eth_call=answer) for number, answer in enumerate(answers)], 2, grace_s=0)

    QuorumProvider(pool).batch([("eth_call", [{"data": "0x00"}, block_ref_at_hash(BLOCK)])])
    release.set()

    assert dict(pool.endpoint_states())["n2"].last_failure == "differs in the answer to eth_call"


def test_quorum_votes_on_each_call_by_itself() -> None:
    def node(operator: str, *answers: str) -> ScriptedTransport:
        return ScriptedTransport(operator, eth_call=lambda params: answers[int(params[0]["data"], 16)])

    provider = QuorumProvider(EndpointPool([node("a", "0x1", "0x2"), node("b", "0x1", "0x3"), node("c", "0x4", "0x3")], 2, grace_s=5))
    at = block_ref_at_hash(BLOCK)

    assert provider.batch([("eth_call", [{"data": hex(number)}, at]) for number in range(2)]) == ["0x1", "0x3"]


EVENT = {"address": "0xaa", "blockNumber": "0x1", "data": "0x01", "topics": ["0x02"]}
TRANSACTIONS = [HEAD_JSON | {"transactions": ["0x01"]}, HEAD_JSON | {"transactions": ["0x02"]}]


@pytest.mark.parametrize(
    ("method", "params", "answers"),
    [
        pytest.param("eth_getBlockByNumber", ["0x10", False], [HEAD_JSON | {"size": "0x1"}, HEAD_JSON | {"size": "0x2"}], id="block"),
        pytest.param("eth_getLogs", [{}], [[EVENT | {"logIndex": "0x1"}], [EVENT | {"logIndex": "0x2"}]], id="events"),
    ],
)
def test_quorum_ignores_fields_that_nobody_reads(method: str, params: list[Any], answers: list[object]) -> None:
    assert quorum_of(*answers, method=method).call(method, params) in answers


@pytest.mark.parametrize(
    ("method", "params", "answers"),
    [
        *(
            pytest.param("eth_getBlockByNumber", ["0x10", False], [HEAD_JSON, HEAD_JSON | {name: "0x11"}], id=f"{name} of a block")
            for name in ("number", "hash", "timestamp", "baseFeePerGas")
        ),
        pytest.param("eth_getBlockByNumber", ["0x10", True], TRANSACTIONS, id="transactions"),
        *(
            pytest.param("eth_getLogs", [{}], [[EVENT], [EVENT | {name: "0x11"}]], id=f"{name} of an event")
            for name in ("address", "blockNumber", "data", "topics")
        ),
        pytest.param("eth_getLogs", [{}], [[EVENT], []], id="an event less"),
    ],
)
def test_quorum_compares_fields_that_are_read(method: str, params: list[Any], answers: list[object]) -> None:
    with raises_code(NoQuorum, "quorum", method):
        quorum_of(*answers, method=method).call(method, params)


def test_quorum_reads_the_newest_block_by_its_hash() -> None:
    def answer(params: list[object]) -> str:
        assert params[1] == {"blockHash": HEAD_JSON["hash"], "requireCanonical": True}
        return "0xaa"

    assert quorum_of(answer, answer).call("eth_call", CALL) == "0xaa"


def test_quorum_reads_at_no_block_that_some_lack() -> None:
    """A liar about the newest height would have contracts looked for before they were deployed."""

    def newest_ahead(params: list[object]) -> object:
        return HEAD_JSON if params[0] == "0x10" else {**HEAD_JSON, "number": "0x20", "hash": "0x" + "22" * 32}

    nodes = [ScriptedTransport("low", eth_call="0xaa"), ScriptedTransport("high", eth_call="0xaa", eth_getBlockByNumber=newest_ahead)]

    with raises_code(NoQuorum, "lag", "16 blocks", "low is at block 16", "high is at block 32"):
        QuorumProvider(EndpointPool(nodes, 2, grace_s=0.02)).call("eth_call", CALL)
    assert QuorumProvider(EndpointPool(nodes, 2, grace_s=0.02, max_lag_blocks=16)).call("eth_call", CALL) == "0xaa"


def test_quorum_names_the_liar_to_the_operator() -> None:
    pool = EndpointPool(
        [ScriptedTransport(name, eth_getBalance="0x7") for name in "ab"] + [ScriptedTransport("c", eth_getBalance="0x8")], 2
    )
    reports: list[str] = []
    pool.report = reports.append
    at: Any = block_ref_at_hash(BLOCK)

    assert open_web3(QuorumProvider(pool)).eth.get_balance(OWNER, at) == 7  # type: ignore[arg-type]  # an address

    assert reports == ["endpoint 'c' differs in the answer to eth_getBalance; the others outvoted it"]


def test_quorum_failure_names_who_differs() -> None:
    at: Any = block_ref_at_hash(BLOCK)

    with raises_code(NoQuorum, "quorum", "n0 against n1"):
        open_web3(quorum_of("0x7", "0x8", method="eth_getBalance")).eth.get_balance(OWNER, at)  # type: ignore[arg-type]  # an address


def test_quorum_raises_our_error_of_a_refused_call() -> None:
    provider = quorum_of(RpcFault(3, "execution reverted: no", "0x1234"), min_operators=1)

    with pytest.raises(CallFailed) as caught:
        open_web3(provider).eth.call({"to": OWNER, "data": "0x"})  # type: ignore[typeddict-item]  # an address

    assert caught.value.fault.revert_data == "0x1234"


# --- Pages of the lens, and snapshots


ITEMS = [CallItem(address("token"), bytes([number]) * 4) for number in range(2)]
PAGES = LensPages(ITEMS)
AT_BLOCK = block_ref_at_hash(BLOCK)
HEAD = parse_head(HEAD_JSON, 0)
NAMES = ["balance of A", "balance of B", "slot"]
SLOT = f"0x{7:064x}"


def page_of(*numbers: int) -> str:
    """Return the lens's page with one word for each item."""
    return "0x" + (bytes([PAGE_FORMAT]) + b"".join(b"\0\0\x20" + uint_word(number) for number in numbers)).hex()


def test_quorum_of_refused_pages_is_a_refusal() -> None:
    """Among several endpoints a refusal is a vote; an only one raises it."""
    refused = [ScriptedTransport(operator, eth_call=REVERT) for operator in "ab"]
    calls = PAGES.calls(AT_BLOCK)

    (answer,) = QuorumProvider(EndpointPool(refused, 2, grace_s=5), PAGES.for_one_read()).batch(calls)

    assert answer == REVERT
    with pytest.raises(CallFailed, match="refused the lens: execution reverted"):
        QuorumProvider(EndpointPool(refused[:1], 1), PAGES.for_one_read()).batch(calls)


def snapshot_node(operator: str, **answers: object) -> ScriptedTransport:
    """Return a node that answers the header, one page of two items and a slot."""
    return ScriptedTransport(operator, **({"eth_call": page_of(1, 2), "eth_getStorageAt": SLOT} | answers))


SNAPSHOT_CALLS: list[Any] = [
    ("eth_getBlockByNumber", ["0x10", False]),
    *PAGES.calls(AT_BLOCK),
    ("eth_getStorageAt", [address("proxy"), "0x0", AT_BLOCK]),
]


def snapshot_provider(*nodes: ScriptedTransport, min_operators: int = 2) -> SnapshotProvider:
    pool = EndpointPool(nodes, min_operators, grace_s=5)
    return SnapshotProvider(pool, PAGES.for_one_read(), HEAD, pool.endpoints, {}, NAMES)


def test_snapshot_has_the_answers_of_the_operators_that_agree() -> None:
    provider = snapshot_provider(snapshot_node("liar", eth_call=page_of(1, 3)), snapshot_node("a"), snapshot_node("b"))
    reports: list[str] = []
    provider._endpoint_pool.report = reports.append

    header, page, slot = provider.batch(SNAPSHOT_CALLS)

    assert (header["hash"], page, slot) == (BLOCK, page_of(1, 2), SLOT)
    assert provider.agreement.agreeing_operators == ("a", "b")
    assert provider.agreement.dissent == (("liar", "the balance of B"),)
    assert [endpoint.operator for endpoint in provider.agreeing_endpoints] == ["a", "b"]
    assert provider.failures == {}
    assert len(reports) == 1
    assert "liar" in reports[0]


@pytest.mark.parametrize(
    ("answers", "page", "slot"),
    [
        pytest.param({"eth_getStorageAt": REVERT}, page_of(1, 2), f"0x{0:064x}", id="slot"),
        pytest.param({"eth_getStorageAt": "0x7"}, page_of(1, 2), SLOT, id="slot cut short"),
    ],
)
def test_snapshot_reads_nothing_of_a_refused_slot(answers: dict[str, object], page: str, slot: str) -> None:
    provider = snapshot_provider(snapshot_node("a", **answers), snapshot_node("b", **answers))

    assert provider.batch(SNAPSHOT_CALLS)[1:] == [page, slot]


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        pytest.param({"eth_getBlockByNumber": HEAD_JSON | {"hash": "0x" + "ee" * 32}}, "a different block 16", id="a reorg"),
        pytest.param({"eth_getBlockByNumber": REVERT}, "eth_getBlockByNumber", id="no header"),
    ],
)
def test_snapshot_has_no_vote_of_an_endpoint_without_the_block(answers: dict[str, object], error: str) -> None:
    provider = snapshot_provider(snapshot_node("late", **answers), snapshot_node("a"), snapshot_node("b"))

    provider.batch(SNAPSHOT_CALLS)

    ((endpoint, failure),) = provider.failures.items()
    assert endpoint.operator == "late"
    assert error in failure.message


def test_snapshot_of_a_refused_balance_is_no_answer() -> None:
    balance: tuple[str, list[Any]] = ("eth_getBalance", [OWNER, AT_BLOCK])
    provider = snapshot_provider(snapshot_node("a", eth_getBalance=REVERT), min_operators=1)

    with pytest.raises(CallFailed, match="refused eth_getBalance by block hash"):
        provider.batch([SNAPSHOT_CALLS[0], balance])


def test_snapshot_without_a_quorum_is_refused() -> None:
    provider = snapshot_provider(snapshot_node("a"), snapshot_node("b", eth_call=page_of(1, 3)))

    with raises_code(Refused, "quorum", "b differs in the balance of B"):
        provider.batch(SNAPSHOT_CALLS)
