"""Tests of NodeSender in agent/chain/sender.py: one endpoint simulates, sends once and looks a hash up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent import codec
from agent.chain.lens import uint_word
from agent.chain.rpc import RpcFault
from agent.chain.sender import NodeSender, NonceUsed, SendRefused, TipRefused
from agent.chain.tokens import encode_approve
from agent.errors import Retryable
from agent.model import DataFeeKind, Receipt
from agent.ports import TransactionStatus
from tests.support.constants import GWEI
from tests.support.fakes.transport import HEAD_JSON, ScriptedTransport
from tests.support.nodes import (
    BASE_FEE_WEI,
    BLOCK,
    CALL,
    CHAIN_ID,
    ESTIMATE,
    FALSE,
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
    TRUE,
    TX,
    TX_OF,
    UNKNOWN_HASH,
    by_tag,
    header,
    node,
    rollup_fee_wei,
    rollup_node,
)
from tests.support.signing import CANCEL, ROUTER, USDT, WALLET
from tests.support.text import mentions, raises_code
from tests.support.tips import NAMELESS, WORDINGS

# --- Simulation


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
    ("method", "answer", "code", "reason"),
    [
        *(
            pytest.param(method, fault, "simulation", fault.message, id=f"{method} {fault.message}")
            for method in (CALL, ESTIMATE)
            for fault in (
                RpcFault(-32005, "limit exceeded"),
                RpcFault(-32601, "method not found"),
                RpcFault(-32000, "already known"),
                RpcFault(-32000, "odd", "0x"),
            )
        ),
        pytest.param(ESTIMATE, None, "answer", "the gas estimate is not a number", id="no estimate"),
        pytest.param(BLOCK, RpcFault(-32000, "no"), "answer", "cannot report the head", id="no head"),
        pytest.param("eth_chainId", RpcFault(-32000, "no"), "answer", "cannot report the chain id", id="no chain id"),
    ],
)
def test_simulate_that_the_node_cannot_do_is_retryable(method: str, answer: object, code: str, reason: str) -> None:
    with raises_code(Retryable, code, reason):
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


@pytest.mark.parametrize(("limit", "estimate"), [(50_000, 40_000), (0, 50_000)], ids=["limit above estimate", "estimate alone"])
def test_simulate_prices_the_bytes_and_the_larger_gas(limit: int, estimate: int) -> None:
    rollup = NodeSender(rollup_node(byte_wei=1_000, **{ESTIMATE: hex(estimate)}), data_fee=DataFeeKind.OP_STACK)

    assert rollup.simulate(replace(TX, gas=limit), WALLET).data_fee_wei == rollup_fee_wei(50_000, 1_000)


def test_simulate_leaves_an_unread_data_fee_unknown() -> None:
    simulation = NodeSender(node(), data_fee=DataFeeKind.OP_STACK).simulate(TX, WALLET)

    assert simulation.ok
    assert "data fee" in simulation.data_fee_unknown_reason


# --- Sending


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
        ("exceeds block gas limit", "send.gas_cap"),
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


# --- State of the chain


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
    with raises_code(Retryable, "answer", "block hash is not 32 bytes"):
        NodeSender(node(**{BLOCK: answer})).block_hash(HEAD_BLOCK)
