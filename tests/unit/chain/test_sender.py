"""Tests of agent/chain/sender.py: one endpoint simulates, sends once and looks a hash up; several do so together, and no liar decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from agent import codec
from agent.chain.endpoints import Endpoint, EndpointPool
from agent.chain.fees.data_fees import GAS_PRICE_ORACLE
from agent.chain.lens import uint_word
from agent.chain.quorum import NoQuorum
from agent.chain.rpc import EndpointOverloaded, RpcFault
from agent.chain.sender import NodeSender, NonceUsed, OutcomeUnknown, QuorumSender, SendRefused, TipRefused
from agent.chain.tokens import encode_approve
from agent.errors import OperatorNeeded, Refused, Retryable
from agent.model import DataFeeKind, DataFeeQuote, Receipt, SignedTx
from agent.model.rollups import MAX_TX_BYTES, OPERATOR_SAMPLE_GAS
from agent.ports import Simulation, TransactionStatus
from tests.support.constants import GWEI
from tests.support.fakes.transport import HEAD_JSON, ScriptedTransport
from tests.support.signing import CANCEL, ROUTER, USDT, WALLET
from tests.support.text import mentions, raises_code
from tests.support.tips import NAMELESS, WORDINGS

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

DOWN = Retryable("it cannot be reached")
NO_ACCESS = OperatorNeeded("the key is refused", "renew it")
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


def header(**changes: str) -> dict[str, str]:
    return HEAD_JSON | changes


def by_tag(latest: int, pending: int) -> Callable[[list[Any]], str]:
    """Return the answer to eth_getTransactionCount by its tag."""
    return lambda params: hex({"latest": latest, "pending": pending}[params[1]])


def chain_of_height(height: int) -> Callable[[list[Any]], dict[str, str] | None]:
    """Return the answer to eth_getBlockByNumber of a node with so many blocks; the hash of block n is n."""

    def block(params: list[Any]) -> dict[str, str] | None:
        number = height if params[0] == "latest" else int(params[0], 16)
        return header(number=hex(number), hash=f"0x{number:064x}") if number <= height else None

    return block


# --- NodeSender: simulation


@pytest.mark.parametrize(
    ("tx_fields", "request_fields"),
    [
        pytest.param(
            {"max_fee_wei": 9, "max_priority_fee_wei": 8},
            {"gas": hex(50_000), "maxFeePerGas": "0x9", "maxPriorityFeePerGas": "0x8"},
            id="EIP-1559",
        ),
        pytest.param(
            {"max_fee_wei": None, "max_priority_fee_wei": None, "gas_price_wei": 9}, {"gas": hex(50_000), "gasPrice": "0x9"}, id="legacy"
        ),
        pytest.param({"gas": 0}, {}, id="gas left to the node"),
    ],
)
def test_simulate_asks_with_the_exact_transaction(tx_fields: dict[str, Any], request_fields: dict[str, str]) -> None:
    asked_node = node()

    assert NodeSender(asked_node).simulate(replace(TX, **tx_fields), WALLET).ok

    request = {"from": WALLET, "to": TX.to, "data": TX.data, "value": "0x5"} | request_fields
    assert [params[0] for method, params in asked_node.calls if method in (CALL, ESTIMATE)] == [request, request]


@pytest.mark.parametrize(("height", "tag"), [(None, "latest"), (16, "0x10")], ids=["at the head", "after a block"])
def test_simulate_reads_everything_at_its_block(height: int | None, tag: str) -> None:
    """Calls, gas and fees of different blocks would not belong together."""
    rollup = rollup_node()

    NodeSender(rollup, data_fee=DataFeeKind.OP_STACK).simulate(TX, WALLET, height)

    tags = [params[0 if method == BLOCK else 1] for method, params in rollup.calls if params]
    assert tags == [tag] * 7, "the head, call, estimate and four fees"


@pytest.mark.parametrize(("max_fee_wei", "ok"), [(BASE_FEE_WEI, True), (BASE_FEE_WEI - 1, False)], ids=["at the base fee", "one wei below"])
def test_simulate_needs_a_fee_of_the_base_fee(max_fee_wei: int, ok: bool) -> None:
    simulation = NodeSender(node()).simulate(replace(TX, max_fee_wei=max_fee_wei, max_priority_fee_wei=0), WALLET)

    assert simulation.ok is ok
    assert mentions(simulation.reason, "6 wei", "7 wei") is not ok


def test_simulate_without_a_base_fee_takes_any_price() -> None:
    legacy = replace(TX, max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=0)

    assert NodeSender(node(**{BLOCK: header() | {"baseFeePerGas": None}})).simulate(legacy, WALLET).ok


@pytest.mark.parametrize(
    ("method", "fault", "reason"),
    [
        pytest.param(CALL, RpcFault(3, "odd"), "odd", id="code of a revert"),
        pytest.param(CALL, RpcFault(-32000, "odd", "0xdeadbeef"), "0xdeadbeef", id="data of a revert"),
        pytest.param(CALL, RpcFault(-32000, "Execution Reverted"), "Execution Reverted", id="words of a revert"),
        pytest.param(CALL, RpcFault(-32000, "out of gas"), "out of gas", id="out of gas"),
        pytest.param(CALL, RpcFault(-32015, "VM execution error"), "VM execution error", id="code of other nodes"),
        pytest.param(CALL, RpcFault(-32000, "invalid opcode: INVALID"), "invalid opcode", id="invalid opcode"),
        pytest.param(CALL, RpcFault(-32003, "EVM error: StackUnderflow"), "EVM error", id="words of revm"),
        pytest.param(ESTIMATE, REVERT, "STF", id="estimate reverts"),
    ],
)
def test_simulate_tells_that_contracts_reverted(method: str, fault: RpcFault, reason: str) -> None:
    simulation = NodeSender(node(**{method: fault})).simulate(TX, WALLET)

    assert (simulation.ok, simulation.reverted) == (False, True)
    assert reason in simulation.reason


BURNED_GAS = RpcFault(-32000, "gas required exceeds allowance (30000000)")


@pytest.mark.parametrize(
    ("gas", "fault", "reverted"),
    [
        pytest.param(0, BURNED_GAS, True, id="all gas that the node chose"),
        pytest.param(50_000, BURNED_GAS, False, id="all gas that we chose"),
        pytest.param(50_000, NO_FUNDS, False, id="no funds"),
        pytest.param(0, NO_FUNDS, False, id="no funds for the node's gas"),
    ],
)
def test_simulate_names_a_refusal_and_its_remedy(gas: int, fault: RpcFault, reverted: bool) -> None:
    simulation = NodeSender(node(**{ESTIMATE: fault})).simulate(replace(TX, gas=gas), WALLET)

    assert (simulation.ok, simulation.reverted) == (False, reverted)
    assert simulation.reason.startswith(f"{fault.message}; ")


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        *(
            pytest.param(method, fault, id=f"{method} {fault.message}")
            for method in (CALL, ESTIMATE)
            for fault in (
                RpcFault(-32005, "limit exceeded"),
                RpcFault(-32601, "method not found"),
                RpcFault(-32000, "already known"),
                RpcFault(-32000, "odd", "0x"),
            )
        ),
        pytest.param(ESTIMATE, None, id="no estimate"),
        pytest.param(BLOCK, RpcFault(-32000, "no"), id="no head"),
        pytest.param("eth_chainId", RpcFault(-32000, "no"), id="no chain id"),
    ],
)
def test_simulate_that_the_node_cannot_do_is_retryable(method: str, answer: object) -> None:
    with pytest.raises(Retryable):
        NodeSender(node(**{method: answer})).simulate(TX, WALLET)


APPROVAL = replace(CANCEL, to=USDT, data=encode_approve(ROUTER, 5))


@pytest.mark.parametrize("returned", [FALSE, "0x" + uint_word(2).hex()], ids=["false", "two"])
def test_simulate_refuses_an_approval_that_is_not_true(returned: str) -> None:
    simulation = NodeSender(node(**{CALL: returned})).simulate(APPROVAL, WALLET)

    assert (simulation.ok, simulation.reverted) == (False, True)
    assert "returned false" in simulation.reason


@pytest.mark.parametrize(
    ("tx", "returned"),
    [
        pytest.param(APPROVAL, TRUE, id="approval returns true"),
        pytest.param(APPROVAL, "0x", id="approval returns nothing"),
        pytest.param(TX, FALSE, id="another call returns false"),
    ],
)
def test_simulate_accepts_other_returns(tx: Any, returned: str) -> None:
    assert NodeSender(node(**{CALL: returned})).simulate(tx, WALLET).ok


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


@pytest.mark.parametrize(("limit", "estimate"), [(50_000, 40_000), (0, 50_000)], ids=["limit above estimate", "estimate alone"])
def test_simulate_prices_the_bytes_and_the_larger_gas(limit: int, estimate: int) -> None:
    rollup = NodeSender(rollup_node(byte_wei=1_000, **{ESTIMATE: hex(estimate)}), data_fee=DataFeeKind.OP_STACK)

    assert rollup.simulate(replace(TX, gas=limit), WALLET).data_fee_wei == rollup_fee_wei(50_000, 1_000)


def test_simulate_leaves_an_unread_data_fee_unknown() -> None:
    simulation = NodeSender(node(), data_fee=DataFeeKind.OP_STACK).simulate(TX, WALLET)

    assert simulation.ok
    assert "data fee" in simulation.data_fee_unknown_reason


# --- NodeSender: sending


def send_to(answer: object, **answers: object) -> ScriptedTransport:
    """Send to a node with this answer, and return the node."""
    target = node(**(UNKNOWN_HASH | answers | {SEND: answer}))
    NodeSender(target).send(SIGNED)
    return target


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(HASH, id="our hash"),
        pytest.param("0x" + "AB" * 32, id="our hash in capitals"),
        *(
            pytest.param(RpcFault(-32000, message), id=message)
            for message in ("already known", "AlreadyKnown", "known transaction: abab", "transaction already imported", "Known transaction")
        ),
    ],
)
def test_send_succeeds_if_the_node_has_the_transaction(answer: object) -> None:
    assert send_to(answer).calls == [(SEND, ["0x0102"])]


@pytest.mark.parametrize(
    ("message", "guard"),
    [
        ("replacement transaction underpriced", "send.underpriced"),
        ("transaction underpriced: tip needed 1, tip permitted 0", "send.underpriced"),
        ("max fee per gas less than block base fee", "send.underpriced"),
        ("FeeTooLow, EffectivePriorityFeePerGas too low", "send.underpriced"),
        ("insufficient funds for gas * price + value", "send.no_funds"),
        ("InsufficientFunds, Balance is 0 less than sending value + gas 42000", "send.no_funds"),
        ("intrinsic gas too low", "send.gas"),
        ("exceeds block gas limit", "send.gas"),
        ("invalid sender", "send.unfit"),
        ("only replay-protected (EIP-155) transactions allowed over RPC: transaction type not supported", "send.unfit"),
    ],
)
def test_send_names_a_refusal_and_its_remedy(message: str, guard: str) -> None:
    with pytest.raises(SendRefused, match=HASH) as caught:
        send_to(RpcFault(-32000, message))

    assert [(verdict.guard, verdict.measured_text, verdict.passed) for verdict in caught.value.verdicts] == [(guard, message, False)]
    assert caught.value.remedy


@pytest.mark.parametrize("wording", WORDINGS)
def test_send_reads_the_tip_that_the_node_demands(wording: str) -> None:
    with pytest.raises(TipRefused) as caught:
        send_to(RpcFault(-32000, WORDINGS[wording].format(tip=7, needed=25 * GWEI)))

    assert caught.value.min_tip_wei == (None if wording in NAMELESS else 25 * GWEI)
    assert caught.value.verdicts[0].guard == "send.underpriced"


@pytest.mark.parametrize(
    ("message", "guard"),
    [
        ("replacement transaction underpriced: new tx gas tip cap 100 < 110 queued", "send.underpriced"),
        ("transaction underpriced: fee cap 5, minimum needed 20000", "send.underpriced"),
        ("intrinsic gas too low: gas 1000, minimum needed 21000", "send.gas"),
        ("insufficient funds for gas * price + value: have 1 want 2", "send.no_funds"),
        ("insufficient funds for gas and tip: have 1 want 2", "send.no_funds"),
    ],
)
def test_send_takes_no_other_demand_for_one_of_a_tip(message: str, guard: str) -> None:
    with pytest.raises(SendRefused) as caught:
        send_to(RpcFault(-32000, message))

    assert not isinstance(caught.value, TipRefused)
    assert caught.value.verdicts[0].guard == guard


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(INTERNAL, id="internal error"),
        pytest.param(RpcFault(-32005, "limit exceeded"), id="limit exceeded"),
        pytest.param(RpcFault(-32000, "something about a tip"), id="a tip without a number"),
        pytest.param(Retryable("timeout"), id="timeout"),
        pytest.param(OTHER_HASH, id="another hash"),
        pytest.param(None, id="null"),
    ],
)
def test_send_of_unknown_outcome_is_never_repeated(answer: object) -> None:
    target = node(**{SEND: answer})

    with raises_code(Retryable, "unknown_if_sent", HASH):
        NodeSender(target).send(SIGNED)

    assert target.asked == [SEND]


@pytest.mark.parametrize(
    "status", [{TX_OF: {"hash": HASH, "blockNumber": None}}, {RECEIPT_OF: RECEIPT}], ids=["ours is pending", "ours is mined"]
)
def test_send_at_our_own_nonce_succeeds(status: dict[str, object]) -> None:
    send_to(NONCE_TOO_LOW, **status)

    with raises_code(NonceUsed, "nonce_used"):
        NodeSender(node(**(status | {SEND: NONCE_TOO_LOW}))).offer(SIGNED)


def test_send_at_a_nonce_of_another_needs_the_operator() -> None:
    with raises_code(NonceUsed, "nonce_used", "nonce 7"):
        send_to(NONCE_TOO_LOW)


def test_send_with_a_private_endpoint_tells_the_public_one_nothing() -> None:
    public = node()
    private = node()

    NodeSender(public, private).send(SIGNED)

    assert (public.asked, private.asked) == ([], [SEND])


# --- NodeSender: state of the chain


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        pytest.param({RECEIPT_OF: None, TX_OF: None}, "unknown", id="unknown"),
        pytest.param({RECEIPT_OF: None, TX_OF: {}}, "pending", id="without a receipt"),
        pytest.param({RECEIPT_OF: RECEIPT | {"blockHash": None}}, "pending", id="receipt without a block"),
    ],
)
def test_status_of_a_hash_that_is_not_mined(answers: dict[str, object], state: str) -> None:
    assert NodeSender(node(**answers)).status_of(HASH) == TransactionStatus(state, None)


@pytest.mark.parametrize("tx_answer", [{"hash": HASH}, None], ids=["with the transaction", "without it"])
def test_status_of_a_mined_hash_has_its_receipt(tx_answer: object) -> None:
    status = NodeSender(node(**{TX_OF: tx_answer})).status_of(HASH)

    assert status.state == "mined"
    assert status.receipt is not None
    assert (status.receipt.block_number, status.receipt.gas_used) == (HEAD_BLOCK, GAS)


@pytest.mark.parametrize("timestamp_s", [1, 1_800_000_000])
def test_status_of_a_mined_hash_has_the_time_of_its_block(timestamp_s: int) -> None:
    transport = node(**{BLOCK: header(timestamp=hex(timestamp_s))})
    receipt = NodeSender(transport).status_of(HASH).receipt

    assert receipt is not None
    assert receipt.block_time_s == timestamp_s
    assert transport.calls[-1] == (BLOCK, [hex(HEAD_BLOCK), False])
    assert codec.loads(Receipt, codec.dumps(receipt)) == receipt


@pytest.mark.parametrize("answers", [{RECEIPT_OF: None}, {RECEIPT_OF: RECEIPT | {"blockHash": None}}], ids=["no receipt", "no block"])
def test_status_of_a_waiting_hash_asks_for_no_block(answers: dict[str, object]) -> None:
    transport = node(**answers)
    NodeSender(transport).status_of(HASH)

    assert transport.asked == [RECEIPT_OF, TX_OF]


@pytest.mark.parametrize(
    "block",
    [None, RpcFault(-32000, "header not found"), header(hash=OTHER_HASH), header(timestamp="soon")],
    ids=["none", "error", "another block", "no time"],
)
def test_status_of_a_mined_hash_needs_its_block(block: object) -> None:
    with raises_code(Retryable, "answer"):
        NodeSender(node(**{BLOCK: block})).status_of(HASH)


@pytest.mark.parametrize("method", [RECEIPT_OF, TX_OF])
@pytest.mark.parametrize("answer", [RpcFault(-32000, "header not found"), "text"], ids=["error", "text"])
def test_status_of_a_hash_needs_objects(method: str, answer: object) -> None:
    with raises_code(Retryable, "answer"):
        NodeSender(node(**{method: answer})).status_of(HASH)


def test_nonces_are_those_of_the_latest_and_the_pending_block() -> None:
    assert NodeSender(node(eth_getTransactionCount=by_tag(5, 7))).nonces(WALLET) == (5, 7)


@pytest.mark.parametrize(("height", "tag"), [(None, "latest"), (9, "0x9"), ("safe", "safe")])
def test_head_is_the_header_of_its_block(height: int | str | None, tag: str) -> None:
    asked_node = node()

    head = NodeSender(asked_node).head(height)

    assert (head.chain_id, head.number, head.timestamp_s, head.base_fee_wei) == (CHAIN_ID, HEAD_BLOCK, 0x64, BASE_FEE_WEI)
    assert asked_node.calls[-1] == (BLOCK, [tag, False])


@pytest.mark.parametrize(("answer", "block_hash"), [(HEAD_JSON, HEAD_JSON["hash"]), (None, None)], ids=["canonical", "none"])
def test_block_hash_is_that_of_the_height_or_none(answer: object, block_hash: str | None) -> None:
    assert NodeSender(node(**{BLOCK: answer})).block_hash(HEAD_BLOCK) == block_hash


@pytest.mark.parametrize("answer", [{}, {"hash": "0x12"}], ids=["no hash", "a short hash"])
def test_block_hash_that_is_none_is_retryable(answer: object) -> None:
    with pytest.raises(Retryable):
        NodeSender(node(**{BLOCK: answer})).block_hash(HEAD_BLOCK)


# --- QuorumSender: nonces


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
    ("lie", "is_blamed"), [("0x0", False), ("0x4", False), ("0x6", True), ("0x77", True)], ids=["zero", "one less", "one more", "many more"]
)
def test_nonces_are_moved_by_no_liar(lie: str, is_blamed: bool) -> None:
    sender, pool = beside_honest(eth_getTransactionCount=lie)

    assert sender.nonces(WALLET) == (5, 5)
    assert last_failures(pool) == ({"liar": "differs in the wallet's nonce"} if is_blamed else {})


# --- QuorumSender: headers


@pytest.mark.parametrize(
    ("lie", "blamed_for"),
    [
        pytest.param(header(number="0xffffff"), "", id="height"),
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


# --- QuorumSender: simulation


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


# --- QuorumSender: status of a hash


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


# --- QuorumSender: sending


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


def test_send_while_all_endpoints_rest_is_unknown() -> None:
    with raises_code(OutcomeUnknown, "unknown_if_sent", "too many requests"):
        quorum(resting("a"), resting("b")).send(SIGNED)


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
