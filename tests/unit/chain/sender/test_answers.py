"""What nodes of every make say to a send, a look, a simulation, and what the sender takes it for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.chain.receipts import INCREASE_LIQUIDITY_TOPIC, TRANSFER_TOPIC
from agent.chain.rpc import RpcFault
from agent.chain.sender import NodeSender, NonceUsed, SendRefused
from agent.chain.tokens import encode_approve
from agent.errors import Retryable
from agent.model import LiquidityAdded, SignedTx, Transfer
from tests.support.fakes.transport import HEAD_JSON, ScriptedTransport
from tests.support.signing import CANCEL, GWEI, ROUTER, USDT, WALLET
from tests.support.text import raises_code

HASH = "0x" + "ab" * 32
BLOCK = "0x" + "cd" * 32
SIGNED = SignedTx(b"\x01\x02", HASH)


def sending(answer: object, receipt: object = None, body: object = None) -> tuple[NodeSender, ScriptedTransport]:
    node = ScriptedTransport(eth_sendRawTransaction=answer, eth_getTransactionReceipt=receipt, eth_getTransactionByHash=body)
    return NodeSender(node), node


# Wording of geth, nethermind, erigon, besu, reth and anvil.
@pytest.mark.parametrize(
    "message", ["already known", "AlreadyKnown", "known transaction: abab", "transaction already imported", "Known transaction"]
)
def test_a_transaction_that_the_node_has_already_is_success(message: str) -> None:
    sender, node = sending(RpcFault(-32000, message))
    sender.send(SIGNED)
    assert node.asked == ["eth_sendRawTransaction"]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("replacement transaction underpriced", "underpriced"),
        ("transaction underpriced: tip needed 1, tip permitted 0", "underpriced"),
        ("max fee per gas less than block base fee", "underpriced"),
        ("FeeTooLow, EffectivePriorityFeePerGas too low", "underpriced"),
        ("insufficient funds for gas * price + value", "no_funds"),
        ("InsufficientFunds, Balance is 0 less than sending value + gas 42000", "no_funds"),
        ("intrinsic gas too low", "gas"),
        ("exceeds block gas limit", "gas"),
        ("invalid sender", "unfit"),
        ("only replay-protected (EIP-155) transactions allowed over RPC: transaction type not supported", "unfit"),
    ],
)
def test_a_refusal_by_the_node_is_named_and_has_a_remedy(message: str, why: str) -> None:
    sender, node = sending(RpcFault(-32000, message))
    with pytest.raises(SendRefused) as caught:
        sender.send(SIGNED)
    assert caught.value.verdicts[0].guard == f"send.{why}"
    assert caught.value.remedy
    assert node.asked == ["eth_sendRawTransaction"]


@pytest.mark.parametrize(
    "answer", [RpcFault(-32603, "internal error"), RpcFault(-32005, "limit exceeded"), Retryable("timeout"), "0x" + "00" * 32, None]
)
def test_an_unknown_fate_is_said_and_nothing_is_sent_again(answer: object) -> None:
    sender, node = sending(answer)
    with raises_code(Retryable, "unknown_if_sent"):
        sender.send(SIGNED)
    assert node.asked == ["eth_sendRawTransaction"]


def test_nonce_too_low__is_success_with_our_hash_on_chain() -> None:
    sender, _ = sending(RpcFault(-32000, "nonce too low: next nonce 8, tx nonce 7"), body={"hash": HASH, "blockNumber": None})
    sender.send(SIGNED)


def test_a_nonce_too_low_needs_the_operator_when_it_is_not() -> None:
    sender, _ = sending(RpcFault(-32000, "nonce too low: next nonce 8, tx nonce 7"))
    with pytest.raises(NonceUsed):
        sender.send(SIGNED)


def receipt_json(**changes: object) -> dict[str, object]:
    token = "0x" + "11" * 20
    log = {
        "address": token,
        "topics": [TRANSFER_TOPIC, "0x" + bytes(12).hex() + WALLET[2:], "0x" + bytes(12).hex() + ROUTER[2:]],
        "data": "0x" + f"{5:064x}",
    }
    nft = {"address": token, "topics": [TRANSFER_TOPIC, BLOCK, BLOCK, BLOCK], "data": "0x"}
    odd = {"address": token, "topics": [TRANSFER_TOPIC, BLOCK, BLOCK], "data": "0x"}
    other = {"address": token, "topics": [BLOCK], "data": "0x1234"}
    plain = {
        "transactionHash": HASH,
        "status": "0x1",
        "blockNumber": "0x10",
        "blockHash": BLOCK,
        "gasUsed": "0x5208",
        "effectiveGasPrice": "0x3b9aca00",
        "logs": [other, nft, log, odd],
    }
    return {**plain, **changes}


def test_a_receipt_tells_the_erc20_transfers_and_no_other_event() -> None:
    status = sending(None, receipt_json(), {"hash": HASH})[0].status_of(HASH)
    assert status.state == "mined"
    assert status.receipt is not None
    assert status.receipt.transfers == (Transfer("0x" + "11" * 20, WALLET, ROUTER, 5),)
    assert (status.receipt.block_number, status.receipt.gas_used, status.receipt.effective_gas_price_wei) == (16, 21_000, GWEI)


def test_receipt__says_which_positions_were_minted_and_grew() -> None:
    manager = "0x" + "22" * 20
    word = "0x" + bytes(12).hex()
    minted = {"address": manager, "topics": [TRANSFER_TOPIC, word + "00" * 20, word + WALLET[2:], f"0x{7:064x}"], "data": "0x"}
    moved = {"address": manager, "topics": [TRANSFER_TOPIC, word + ROUTER[2:], word + WALLET[2:], f"0x{8:064x}"], "data": "0x"}
    data = "0x" + "".join(f"{number:064x}" for number in (10**20, 5, 6))
    grown = [{"address": manager, "topics": [INCREASE_LIQUIDITY_TOPIC, f"0x{number:064x}"], "data": data} for number in (7, 8)]
    odd = {"address": manager, "topics": [INCREASE_LIQUIDITY_TOPIC, f"0x{9:064x}"], "data": "0x"}
    status = sending(None, receipt_json(logs=[minted, moved, *grown, odd]), {"hash": HASH})[0].status_of(HASH)
    assert status.receipt is not None
    assert status.receipt.liquidity_added == (
        LiquidityAdded(manager, 7, 10**20, (5, 6), WALLET),
        LiquidityAdded(manager, 8, 10**20, (5, 6), None),
    )


def test_a_receipt_without_block_is_not_mined_yet() -> None:
    assert sending(None, receipt_json(blockHash=None), {"hash": HASH})[0].status_of(HASH).state == "pending"


@pytest.mark.parametrize(
    "receipt",
    [
        receipt_json(transactionHash=BLOCK),
        receipt_json(logs=None),
        receipt_json(logs=["x"]),
        receipt_json(status=None),
        receipt_json(gasUsed="many"),
        RpcFault(-32000, "header not found or so"),
        "receipt",
    ],
)
def test_receipt_without_sense__is_an_error_not_an_answer(receipt: object) -> None:
    with pytest.raises(Retryable):
        sending(None, receipt, {"hash": HASH})[0].status_of(HASH)


def simulating(call: object, gas: object, **changes: object) -> NodeSender:
    return NodeSender(ScriptedTransport(eth_call=call, eth_estimateGas=gas, **changes))


def test_impossible_simulation__is_retryable_and_no_verdict() -> None:
    for fault in (RpcFault(-32005, "limit exceeded"), RpcFault(-32601, "method not found"), RpcFault(-32000, "already known")):
        with pytest.raises(Retryable):
            simulating(fault, "0x5208").simulate(CANCEL, WALLET)
        with pytest.raises(Retryable):
            simulating("0x", fault).simulate(CANCEL, WALLET)
    with pytest.raises(Retryable):
        simulating("0x", "0x5208", eth_getBlockByNumber=RpcFault(-32000, "no")).simulate(CANCEL, WALLET)


def test_token_that_answers_false__fails_the_simulation() -> None:
    approve = replace(CANCEL, to=USDT, data=encode_approve(ROUTER, 5))
    for number in (0, 2):  # two is not true
        simulation = simulating("0x" + number.to_bytes(32, "big").hex(), "0x5208").simulate(approve, WALLET)
        assert (simulation.ok, simulation.reverted) == (False, True)
        assert "returned false" in simulation.reason
    for fine in ("0x", "0x" + f"{1:064x}"):
        assert simulating(fine, "0x5208").simulate(approve, WALLET).ok


def test_simulation_after_a_block__reads_everything_at_it() -> None:
    """Calls and gas of different blocks would not belong together."""
    blocks: dict[str, object] = {}

    def at(method: str, answer: object) -> Callable[[list[object]], object]:
        return lambda params: blocks.update({method: params[0] if method == "eth_getBlockByNumber" else params[1]}) or answer

    answers = {"eth_call": "0x", "eth_estimateGas": "0x5208", "eth_getBlockByNumber": HEAD_JSON}
    node = ScriptedTransport(**{method: at(method, answer) for method, answer in answers.items()})
    for height, tag in ((16, "0x10"), (None, "latest")):
        assert NodeSender(node).simulate(CANCEL, WALLET, height).ok
        assert blocks == dict.fromkeys(answers, tag)


def test_fee_below_the_base_fee__fails_the_simulation() -> None:
    simulated = simulating("0x", "0x5208").simulate(replace(CANCEL, max_fee_wei=6, max_priority_fee_wei=0), WALLET)
    assert not simulated.ok
    assert "7 wei" in simulated.reason
