"""Tests of QuorumSender in agent/chain/sender.py: several endpoints do together what a node does, and no liar decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agent.chain.endpoints import Endpoint, EndpointPool, EndpointResting
from agent.chain.quorum import NoQuorum
from agent.chain.rpc import EndpointOverloaded, RpcFault
from agent.chain.sender import NodeSender, NonceUsed, OutcomeUnknown, QuorumSender, SendRefused, TipRefused
from agent.errors import OperatorNeeded, Refused, Retryable
from agent.model import DataFeeKind
from agent.ports import Simulation, TransactionStatus
from tests.support.constants import GWEI
from tests.support.fakes.transport import HEAD_JSON, ScriptedTransport
from tests.support.nodes import (
    BASE_FEE_WEI,
    BLOCK,
    CALL,
    CHAIN_ID,
    ESTIMATE,
    GAS,
    HASH,
    HEAD_BLOCK,
    INTERNAL,
    NO_FUNDS,
    NONCE_TOO_LOW,
    OTHER_HASH,
    RECEIPT,
    RECEIPT_OF,
    REVERT,
    SEND,
    SIGNED,
    TX,
    TX_OF,
    UNKNOWN_HASH,
    by_tag,
    header,
    node,
    rollup_fee_wei,
    rollup_node,
)
from tests.support.signing import CANCEL, WALLET
from tests.support.text import mentions, raises_code
from tests.support.tips import WORDINGS

DOWN = Retryable("it cannot be reached")
NO_ACCESS = OperatorNeeded("the key is refused", "renew it")


def nodes_with(method: str, answers: Sequence[object]) -> list[ScriptedTransport]:
    """Return nodes of different operators, one for each answer to the method."""
    return [node(f"n{number}", **{method: answer}) for number, answer in enumerate(answers)]


def pool_of(*nodes: ScriptedTransport | Endpoint, min_operators: int = 2, grace_s: float = 5) -> EndpointPool:
    """Return a pool whose grace period no answer of a script exceeds."""
    return EndpointPool(nodes, min_operators, grace_s=grace_s)


def quorum(*nodes: ScriptedTransport | Endpoint, min_operators: int = 2, private: ScriptedTransport | None = None) -> QuorumSender:
    return QuorumSender(pool_of(*nodes, min_operators=min_operators), CHAIN_ID, private and Endpoint(private))


def beside_honest(**lies: object) -> tuple[QuorumSender, EndpointPool]:
    """Return the sender over a liar and two honest operators, and its pool."""
    pool = pool_of(node("liar", **lies), node("a"), node("b"))
    return QuorumSender(pool, CHAIN_ID), pool


def last_failures(pool: EndpointPool) -> dict[str, str]:
    """Return the last failure of the operators that have one."""
    return {operator: state.last_failure for operator, state in pool.endpoint_states() if state.last_failure}


def chain_of_height(height: int) -> Callable[[list[Any]], dict[str, str] | None]:
    """Return the answer to eth_getBlockByNumber of a node with so many blocks; the hash of block n is n."""

    def block(params: list[Any]) -> dict[str, str] | None:
        number = height if params[0] == "latest" else int(params[0], 16)
        return header(number=hex(number), hash=f"0x{number:064x}") if number <= height else None

    return block


# --- Nonces


@pytest.mark.parametrize(
    ("answers", "min_operators", "expected_nonces"),
    [
        pytest.param([("a", 5, 5), ("a", 7, 7)], 1, (5, 5), id="one operator's lowest used"),
        pytest.param([("a", 5, 6), ("a", 5, 8), ("a", 5, 5)], 1, (5, 8), id="one operator's highest pending"),
        pytest.param([("a", 5, 4)], 1, (5, 5), id="pending never below used"),
        pytest.param([("a", 5, 5), ("b", 4, 4)], 2, (4, 4), id="lower used of two"),
        pytest.param([("a", 5, 5), ("b", 7, 7)], 2, (5, 5), id="used by one is not pending"),
        pytest.param([("a", 5, 5), ("b", 5, 7)], 2, (5, 7), id="higher pending of two"),
        pytest.param([("a", 5, 9), ("b", 5, 5), ("c", 5, 5)], 2, (5, 5), id="pending of one in three"),
        pytest.param([("a", 5, 9), ("b", 5, 7), ("c", 5, 5)], 2, (5, 7), id="lower pending of two in three"),
    ],
)
def test_nonces_are_those_that_enough_operators_confirm(
    answers: list[tuple[str, int, int]], min_operators: int, expected_nonces: tuple[int, int]
) -> None:
    nodes = [node(operator, eth_getTransactionCount=by_tag(latest, pending)) for operator, latest, pending in answers]

    assert quorum(*nodes, min_operators=min_operators).nonces(WALLET) == expected_nonces


@pytest.mark.parametrize(
    ("lie", "is_blamed"),
    [("0x0", False), ("0x4", False), ("0x6", False), ("0x7", True), ("0x77", True)],
    ids=["zero", "one less", "one more", "two more", "many more"],
)
def test_nonces_are_moved_by_no_liar(lie: str, is_blamed: bool) -> None:
    sender, pool = beside_honest(eth_getTransactionCount=lie)

    assert sender.nonces(WALLET) == (5, 5)
    assert last_failures(pool) == ({"liar": "differs in the wallet's nonce"} if is_blamed else {})


@pytest.mark.parametrize(
    ("latest_nonces", "report"),
    [
        pytest.param((5, 6), [], id="a block ahead of one"),
        pytest.param((5, 7), ["endpoint 'c1' differs in the wallet's nonce"], id="far above one"),
        pytest.param((5, 5, 7), ["endpoint 'c2' differs in the wallet's nonce; the others outvoted it"], id="far above two"),
    ],
)
def test_nonce_above_the_confirmed_is_outvoted_only_by_a_majority(latest_nonces: tuple[int, ...], report: list[str]) -> None:
    pool = pool_of(*(node(f"c{number}", eth_getTransactionCount=hex(nonce)) for number, nonce in enumerate(latest_nonces)))
    messages: list[str] = []
    pool.report = messages.append

    assert QuorumSender(pool, CHAIN_ID).nonces(WALLET) == (5, 5)
    assert messages == report


# --- Headers


@pytest.mark.parametrize(
    ("lie", "blamed_for"),
    [
        pytest.param(header(number="0xffffff"), "16777199 blocks ahead of block 16", id="height"),
        pytest.param(header(number="0x1"), "15 blocks behind", id="behind"),
        pytest.param(header(timestamp="0xffffffff"), "the header of block 16", id="time"),
        pytest.param(header(hash=OTHER_HASH), "the header of block 16", id="hash"),
        pytest.param(header(baseFeePerGas="0x1"), "the header of block 16", id="base fee"),
    ],
)
def test_head_is_moved_by_no_liar(lie: dict[str, str], blamed_for: str) -> None:
    sender, pool = beside_honest(**{BLOCK: lie})

    head = sender.head()

    assert (head.number, head.timestamp_s, head.base_fee_wei) == (HEAD_BLOCK, 0x64, BASE_FEE_WEI)
    assert blamed_for in last_failures(pool).get("liar", "")
    assert sender.block_hash(HEAD_BLOCK) == HEAD_JSON["hash"]


@pytest.mark.parametrize("heights", [(101, 100), (101, 100, 60)], ids=["two", "three"])
def test_head_is_the_newest_block_that_enough_have(heights: tuple[int, ...]) -> None:
    pool = pool_of(*nodes_with(BLOCK, [chain_of_height(height) for height in heights]))

    assert QuorumSender(pool, CHAIN_ID).head().number == 100
    assert [mentions(text, "40 blocks behind") for text in last_failures(pool).values()] == [True] * (len(heights) - 2)


def test_head_that_differs_between_two_is_no_quorum() -> None:
    with raises_code(NoQuorum, "quorum", "16"):
        quorum(node("a"), node("b", **{BLOCK: header(timestamp="0x1")})).head()


OTHER_CHAIN: dict[str, object] = {"eth_chainId": "0x1"}


@pytest.mark.parametrize(
    "question",
    [
        pytest.param(lambda sender: sender.head(), id="head"),
        pytest.param(lambda sender: sender.simulate(TX, WALLET), id="simulation"),
        pytest.param(lambda sender: sender.tagged_height("safe"), id="tagged height"),
    ],
)
def test_endpoint_of_another_chain_has_no_vote(question: Callable[[QuorumSender], object]) -> None:
    honest = question(quorum(node("a"), node("b")))

    assert question(beside_honest(**OTHER_CHAIN)[0]) == honest
    with raises_code(OperatorNeeded, "chain", "chain 1", CHAIN_ID):
        question(quorum(node(**OTHER_CHAIN), min_operators=1))


@pytest.mark.parametrize(
    ("hashes", "min_operators", "block_hash"),
    [
        pytest.param([OTHER_HASH, HASH, HASH], 2, HASH, id="two of three"),
        pytest.param([HASH, HASH], 2, HASH, id="two"),
        pytest.param([HASH], 1, HASH, id="alone"),
        pytest.param([None, None], 2, None, id="no block"),
    ],
)
def test_block_hash_is_that_of_enough_operators(hashes: list[str | None], min_operators: int, block_hash: str | None) -> None:
    nodes = nodes_with(BLOCK, [answer and header(hash=answer) for answer in hashes])

    assert quorum(*nodes, min_operators=min_operators).block_hash(HEAD_BLOCK) == block_hash


@pytest.mark.parametrize("answers", [(HEAD_JSON, None), (HEAD_JSON, header(hash=OTHER_HASH))], ids=["one lacks the block", "another hash"])
def test_block_hash_without_enough_operators_is_no_quorum(answers: tuple[object, ...]) -> None:
    with raises_code(NoQuorum, "quorum", "block 16"):
        quorum(*nodes_with(BLOCK, answers)).block_hash(HEAD_BLOCK)


@pytest.mark.parametrize(("lie", "is_blamed"), [(header(hash=OTHER_HASH), True), (None, False)], ids=["another hash", "no block yet"])
def test_block_hash_blames_only_another_hash(lie: object, is_blamed: bool) -> None:
    sender, pool = beside_honest(**{BLOCK: lie})

    sender.block_hash(HEAD_BLOCK)

    assert last_failures(pool) == ({"liar": "differs in block 16"} if is_blamed else {})


@pytest.mark.parametrize(
    ("heights", "min_operators", "tagged_height"),
    [
        pytest.param([("a", 90), ("b", 96)], 2, 90, id="lower of two"),
        pytest.param([("a", 90), ("liar", 10**6), ("b", 96)], 2, 96, id="two of three"),
        pytest.param([("a", 90), ("a", 80)], 1, 80, id="one operator's lowest"),
    ],
)
def test_tagged_height_is_reached_by_enough_operators(heights: list[tuple[str, int]], min_operators: int, tagged_height: int) -> None:
    nodes = [node(operator, **{BLOCK: header(number=hex(number))}) for operator, number in heights]

    assert quorum(*nodes, min_operators=min_operators).tagged_height("finalized") == tagged_height
    assert all((BLOCK, ["finalized", False]) in tagged_node.calls for tagged_node in nodes)


@pytest.mark.parametrize("missing", [None, {}], ids=["null", "an empty header"])
def test_tagged_height_needs_a_block_with_the_tag(missing: object) -> None:
    with pytest.raises((Retryable, OperatorNeeded)):
        quorum(node(**{BLOCK: missing}), min_operators=1).tagged_height("safe")


# --- Simulation


def simulated(*answers: dict[str, object], min_operators: int = 2) -> Simulation:
    """Return the simulation by operators with these answers together."""
    return quorum(*(node(f"n{number}", **answer) for number, answer in enumerate(answers)), min_operators=min_operators).simulate(
        TX, WALLET
    )


FINE: dict[str, object] = {}
REVERTING: dict[str, object] = {CALL: REVERT}
POOR: dict[str, object] = {ESTIMATE: NO_FUNDS}


@pytest.mark.parametrize(
    "lie",
    [REVERTING, POOR, {ESTIMATE: "0x1"}, {ESTIMATE: "0xffffffff"}],
    ids=["reverts", "no funds", "little gas", "much gas"],
)
def test_simulation_is_decided_by_no_liar(lie: dict[str, object]) -> None:
    simulation = simulated(lie, FINE, FINE)

    assert (simulation.ok, simulation.gas) == (True, GAS)


@pytest.mark.parametrize(
    ("answers", "reverted"),
    [
        pytest.param((REVERTING, REVERTING), True, id="two revert"),
        pytest.param((FINE, REVERTING, REVERTING), True, id="two of three revert"),
        pytest.param((REVERTING, POOR), False, id="one reverts, one refuses"),
        pytest.param((REVERTING, POOR, POOR), False, id="one of three reverts"),
        pytest.param((REVERTING, FINE), False, id="one reverts, one succeeds"),
    ],
)
def test_simulation_fails_unless_enough_operators_succeed(answers: tuple[dict[str, object], ...], reverted: bool) -> None:
    simulation = simulated(*answers)

    assert (simulation.ok, simulation.reverted) == (False, reverted)
    assert "STF" in simulation.reason


def test_simulation_names_who_disagrees() -> None:
    assert mentions(simulated(FINE, REVERTING).reason, "disagree (n1: ", "STF", "succeeds for n0")


@pytest.mark.parametrize(
    ("liar", "others", "is_blamed"),
    [
        pytest.param(REVERTING, FINE, True, id="fails alone"),
        pytest.param(FINE, REVERTING, True, id="succeeds alone"),
        pytest.param({ESTIMATE: "0x1"}, FINE, False, id="another estimate"),
    ],
)
def test_simulation_blames_the_outvoted(liar: dict[str, object], others: dict[str, object], is_blamed: bool) -> None:
    pool = pool_of(node("liar", **liar), node("a", **others), node("b", **others))

    QuorumSender(pool, CHAIN_ID).simulate(TX, WALLET)

    assert last_failures(pool) == ({"liar": "differs in the simulation"} if is_blamed else {})


@pytest.mark.parametrize(
    ("estimates", "min_operators", "gas"),
    [
        pytest.param([("a", 30_000), ("b", 40_000)], 2, 40_000, id="higher of two"),
        pytest.param([("a", 30_000), ("b", 40_000), ("c", 90_000)], 2, 40_000, id="enough for two of three"),
        pytest.param([("a", 30_000), ("b", 40_000), ("c", 90_000)], 3, 90_000, id="enough for three"),
        pytest.param([("a", 30_000), ("a", 40_000)], 1, 40_000, id="higher of one operator's"),
        pytest.param([("a", 40_000), ("a", 30_000)], 1, 40_000, id="higher of one operator's first"),
    ],
)
def test_simulation_has_gas_that_enough_operators_accept(estimates: list[tuple[str, int]], min_operators: int, gas: int) -> None:
    nodes = [node(operator, **{ESTIMATE: hex(estimate)}) for operator, estimate in estimates]

    assert quorum(*nodes, min_operators=min_operators).simulate(TX, WALLET).gas == gas


def rollup_simulation(*nodes: ScriptedTransport, min_operators: int = 2) -> Simulation:
    pool = EndpointPool(nodes, min_operators, grace_s=5, data_fee_kind=DataFeeKind.OP_STACK)
    return QuorumSender(pool, CHAIN_ID).simulate(TX, WALLET)


HONEST_FEE_WEI = rollup_fee_wei(50_000, 1_000)


@pytest.mark.parametrize(
    ("byte_fees_wei", "min_operators"),
    [
        pytest.param([("a", 1_000), ("b", 1_000)], 2, id="two"),
        pytest.param([("a", 1_000), ("b", 10**9), ("c", 1_000)], 2, id="one dear of three"),
        pytest.param([("a", 1_000), ("b", 0), ("c", 1_000)], 2, id="one free of three"),
        pytest.param([("a", 900), ("b", 1_000)], 2, id="higher of two"),
        pytest.param([("a", 900), ("a", 1_000)], 1, id="higher of one operator's"),
        pytest.param([("a", 1_000), ("a", 900)], 1, id="higher of one operator's first"),
    ],
)
def test_simulation_has_a_data_fee_that_enough_operators_accept(byte_fees_wei: list[tuple[str, int]], min_operators: int) -> None:
    nodes = [rollup_node(operator, byte_wei) for operator, byte_wei in byte_fees_wei]

    assert rollup_simulation(*nodes, min_operators=min_operators).data_fee_wei == HONEST_FEE_WEI


NO_ORACLE: dict[str, object] = {CALL: "0x"}


def test_simulation_needs_no_data_fee_of_a_third_operator() -> None:
    simulation = rollup_simulation(rollup_node("a", 1_000), rollup_node("b", 1_000), rollup_node("c", **NO_ORACLE))

    assert (simulation.data_fee_wei, simulation.data_fee_unknown_reason) == (HONEST_FEE_WEI, "")


@pytest.mark.parametrize("quoting_operators", ["", "a"], ids=["of none", "of one"])
def test_simulation_without_enough_data_fees_leaves_it_unknown(quoting_operators: str) -> None:
    nodes = [rollup_node(name, 1_000, **({} if name in quoting_operators else NO_ORACLE)) for name in "abc"]

    simulation = rollup_simulation(*nodes)

    assert simulation.ok
    assert "data fee" in simulation.data_fee_unknown_reason


@pytest.mark.parametrize(
    ("heights", "head", "disagreement"),
    [pytest.param((101, 100), 100, "", id="level"), pytest.param((100, 60), 60, "40 blocks", id="far apart")],
)
def test_simulation_is_of_the_block_that_enough_have(heights: tuple[int, ...], head: int, disagreement: str) -> None:
    simulation = quorum(*nodes_with(BLOCK, [chain_of_height(height) for height in heights])).simulate(CANCEL, WALLET)

    assert simulation.head.number == head
    assert bool(simulation.height_disagreement) is bool(disagreement)
    assert disagreement in simulation.height_disagreement


# --- Status of a hash


@pytest.mark.parametrize(
    "lie",
    [{"status": "0x0"}, {"blockHash": OTHER_HASH}, {"gasUsed": "0x1"}, {"blockNumber": "0x9"}],
    ids=lambda lie: next(iter(lie)),
)
def test_status_is_falsified_by_no_liar(lie: dict[str, str]) -> None:
    block = header(hash=lie.get("blockHash", HEAD_JSON["hash"]))
    sender, pool = beside_honest(**{RECEIPT_OF: RECEIPT | lie, BLOCK: block})

    receipt = sender.status_of(HASH).receipt

    assert receipt is not None
    assert (receipt.status, receipt.block_number, receipt.block_hash, receipt.gas_used) == (1, HEAD_BLOCK, HEAD_JSON["hash"], GAS)
    assert last_failures(pool) == {"liar": "differs in a receipt"}


def test_time_of_a_block_is_falsified_by_no_liar() -> None:
    sender, pool = beside_honest(**{BLOCK: header(timestamp="0x1")})

    receipt = sender.status_of(HASH).receipt

    assert receipt is not None
    assert receipt.block_time_s == int(HEAD_JSON["timestamp"], 16)
    assert last_failures(pool) == {"liar": "differs in a receipt"}


def test_status_blames_nobody_without_a_receipt_yet() -> None:
    sender, pool = beside_honest(**UNKNOWN_HASH)

    assert sender.status_of(HASH).state == "mined"
    assert last_failures(pool) == {}


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        pytest.param([UNKNOWN_HASH, UNKNOWN_HASH], "unknown", id="known to none"),
        pytest.param([UNKNOWN_HASH, UNKNOWN_HASH, {RECEIPT_OF: None, TX_OF: {}}], "pending", id="known to one"),
        pytest.param([{}, UNKNOWN_HASH, UNKNOWN_HASH], "pending", id="receipt of one"),
        pytest.param(
            [{}, {RECEIPT_OF: RECEIPT | {"blockHash": OTHER_HASH}, BLOCK: header(hash=OTHER_HASH)}], "pending", id="receipts of two blocks"
        ),
    ],
)
def test_status_without_enough_receipts_is_not_mined(answers: list[dict[str, object]], state: str) -> None:
    nodes = [node(f"n{number}", **answer) for number, answer in enumerate(answers)]

    assert quorum(*nodes).status_of(HASH) == TransactionStatus(state, None)


def test_status_needs_enough_operators() -> None:
    with raises_code(Retryable, "operators", "1 of 2"):
        quorum(node("a", **UNKNOWN_HASH), node("b", **{RECEIPT_OF: DOWN})).status_of(HASH)


def test_status_waits_for_a_slower_operator_that_may_know() -> None:
    def answer_late(_params: list[object]) -> dict[str, str]:
        time.sleep(0.1)
        return {"hash": HASH}

    nodes = [node("a", **UNKNOWN_HASH), node("b", **UNKNOWN_HASH), node("late", **(UNKNOWN_HASH | {TX_OF: answer_late}))]

    assert QuorumSender(pool_of(*nodes, grace_s=0.02), CHAIN_ID).status_of(HASH).state == "pending"


# --- Sending


def test_send_offers_the_bytes_to_every_endpoint_once() -> None:
    nodes = nodes_with(SEND, [HASH, RpcFault(-32000, "already known"), DOWN])

    quorum(*nodes).send(SIGNED)

    assert [target.calls for target in nodes] == [[(SEND, ["0x0102"])]] * 3


@pytest.mark.parametrize("others", [(NO_FUNDS, NONCE_TOO_LOW), (DOWN, NO_ACCESS)], ids=["refuse", "fail"])
def test_send_needs_one_acceptance(others: tuple[object, ...]) -> None:
    quorum(*nodes_with(SEND, [*others, HASH])).send(SIGNED)


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param((DOWN, DOWN), id="both down"),
        pytest.param((DOWN, NO_FUNDS), id="one down"),
        pytest.param((DOWN, NONCE_TOO_LOW), id="one down, nonce too low"),
        pytest.param((NO_FUNDS, INTERNAL), id="internal error"),
        pytest.param((NO_FUNDS, OTHER_HASH), id="another hash"),
        pytest.param((DOWN, NO_ACCESS), id="one down, no access"),
        pytest.param((NO_FUNDS, NO_ACCESS), id="no access"),
    ],
)
def test_send_with_an_unknown_outcome_anywhere_is_unknown(answers: tuple[object, ...]) -> None:
    with raises_code(OutcomeUnknown, "unknown_if_sent", HASH):
        quorum(*nodes_with(SEND, answers)).send(SIGNED)


def resting(operator: str) -> Endpoint:
    """Return an endpoint that asked for a pause, so that nothing is sent to it."""
    endpoint = Endpoint(node(operator, **{SEND: AssertionError("it rests")}))
    endpoint.health.record_failure("too many requests", wait_s=600)
    return endpoint


def test_send_that_an_endpoint_at_rest_did_not_get_is_refused() -> None:
    with pytest.raises(SendRefused):
        quorum(resting("a"), node("b", **{SEND: NO_FUNDS})).send(SIGNED)


def test_send_while_all_endpoints_rest_says_that_nothing_was_sent() -> None:
    with raises_code(EndpointResting, "rate_limit", HASH, "was not sent", "too many requests"):
        quorum(resting("a"), resting("b")).send(SIGNED)


def test_offer_to_an_endpoint_that_begins_to_rest_sends_nothing() -> None:
    with raises_code(EndpointResting, "rate_limit", "too many requests"):
        NodeSender(resting("a")).offer(SIGNED)


@pytest.mark.parametrize("answers", [(NO_FUNDS, NONCE_TOO_LOW), (NONCE_TOO_LOW, NO_FUNDS)], ids=["refused first", "used first"])
def test_send_that_all_refuse_is_refused_before_a_used_nonce(answers: tuple[object, ...]) -> None:
    with pytest.raises(SendRefused) as caught:
        quorum(*nodes_with(SEND, answers)).send(SIGNED)

    assert caught.value.verdicts[0].guard == "send.no_funds"


def test_send_that_no_endpoint_may_take_needs_the_operator() -> None:
    with pytest.raises(OperatorNeeded, match="the key is refused"):
        quorum(*nodes_with(SEND, [NO_ACCESS, NO_ACCESS])).send(SIGNED)


def test_send_at_a_used_nonce_looks_the_hash_up() -> None:
    quorum(*nodes_with(SEND, [NONCE_TOO_LOW, NONCE_TOO_LOW])).send(SIGNED)
    with pytest.raises(NonceUsed):
        quorum(*(node(name, **(UNKNOWN_HASH | {SEND: NONCE_TOO_LOW})) for name in "ab")).send(SIGNED)


@pytest.mark.parametrize("tips_gwei", [(25, None), (None, 25), (30, 25), (25, 30)])
def test_send_that_all_refuse_names_the_least_tip(tips_gwei: tuple[int | None, ...]) -> None:
    demands = [
        RpcFault(-32000, WORDINGS["erigon"] if tip is None else WORDINGS["geth"].format(tip=1, needed=tip * GWEI)) for tip in tips_gwei
    ]

    with pytest.raises(TipRefused) as caught:
        quorum(*nodes_with(SEND, demands)).send(SIGNED)
    with raises_code(OutcomeUnknown, "unknown_if_sent", f"minimum needed {25 * GWEI}") as unknown:
        quorum(*nodes_with(SEND, [*demands, DOWN])).send(SIGNED)

    assert caught.value.min_tip_wei == 25 * GWEI
    assert unknown.value.tip_refusal is not None
    assert unknown.value.tip_refusal.min_tip_wei == 25 * GWEI


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(DOWN, OutcomeUnknown, id="down"),
        pytest.param(EndpointOverloaded("busy", retry_after_s=9), OutcomeUnknown, id="overloaded"),
        pytest.param(INTERNAL, OutcomeUnknown, id="internal error"),
        pytest.param(NO_FUNDS, SendRefused, id="refused"),
    ],
)
def test_send_that_the_private_endpoint_fails_reaches_no_other(answer: object, error: type[Retryable | Refused]) -> None:
    public = [node("a"), node("b")]

    with pytest.raises(error):
        quorum(*public, private=node("relay", **{SEND: answer})).send(SIGNED)

    assert [endpoint.asked for endpoint in public] == [[], []]


@pytest.mark.parametrize(
    ("answer", "public_fallback", "public_calls"),
    [
        pytest.param(HASH, False, [], id="accepted"),
        pytest.param(HASH, True, [], id="accepted, with a fallback"),
        pytest.param(DOWN, True, [SEND], id="down, with a fallback"),
        pytest.param(NO_FUNDS, True, [SEND], id="refused, with a fallback"),
    ],
)
def test_send_falls_back_only_by_permission(answer: object, public_fallback: bool, public_calls: list[str]) -> None:
    public = [node("a"), node("b")]
    private = node("relay", **{SEND: answer})

    QuorumSender(pool_of(*public), CHAIN_ID, Endpoint(private), public_fallback).send(SIGNED)

    assert private.asked == [SEND]
    assert [endpoint.asked for endpoint in public] == [public_calls] * 2


def test_send_checks_what_the_private_endpoint_calls_used() -> None:
    relay = node("relay", **{SEND: NONCE_TOO_LOW})

    quorum(node("a"), node("b"), private=relay).send(SIGNED)
    with pytest.raises(NonceUsed):
        quorum(node("a", **UNKNOWN_HASH), node("b", **UNKNOWN_HASH), private=relay).send(SIGNED)
