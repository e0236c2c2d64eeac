"""The sender on real nodes: simulation, sending once, where a hash stands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.chain.sender import NodeSender, NonceUsed, SendRefused
from agent.chain.tokens import encode_approve
from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode
from agent.model import IntentKind, SignedTx, UnsignedTx
from agent.signing.calldata import selector
from tests.support.text import raises_code
from tests.support.wallets import LIMIT_WEI, Desk

UNKNOWN = "0x" + "ab" * 32


def cancel(desk: Desk, **changes: object) -> UnsignedTx:
    """A self-transfer of nothing at the next nonce."""
    return replace(desk.tx(desk.wallet, "0x", gas=21_000), **changes)  # type: ignore[arg-type]


def signed(desk: Desk, tx: UnsignedTx) -> SignedTx:
    return desk.signer.sign(tx, desk.grant(IntentKind.CANCEL))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_cancel_is_simulated_signed_sent_and_mined(local_chain: LocalChain, legacy: bool) -> None:
    desk = Desk(local_chain)
    head = desk.sender.head()
    nonce = desk.sender.nonces(desk.wallet)[0]
    simulated = desk.simulate(desk.tx(desk.wallet, "0x", legacy))
    assert (simulated.ok, simulated.reason, simulated.gas, simulated.head) == (True, "", 21_000, head)
    receipt = desk.run(desk.tx(desk.wallet, "0x", legacy, gas=21_000), desk.grant(IntentKind.CANCEL))
    assert (receipt.status, receipt.gas_used, receipt.block_number, receipt.transfers) == (1, 21_000, head.number + 1, ())
    assert receipt.block_hash == desk.sender.block_hash(receipt.block_number) == desk.sender.head().hash
    assert desk.sender.nonces(desk.wallet) == (nonce + 1, nonce + 1)
    if legacy:
        assert receipt.effective_gas_price_wei == 10**10
    chain_says = desk.chain.w3.eth.get_transaction(receipt.tx_hash)  # type: ignore[arg-type]
    assert int(chain_says["type"]) == (0 if legacy else 2)
    assert chain_says["from"] == desk.wallet


def test_the_head_is_the_chains_newest_block(local_chain: LocalChain) -> None:
    desk = Desk(local_chain)
    block = local_chain.w3.eth.get_block("latest")
    head = desk.sender.head()
    assert (head.number, head.hash, head.timestamp_s) == (block["number"], "0x" + bytes(block["hash"]).hex(), block["timestamp"])
    assert (head.chain_id, head.base_fee_wei) == (local_chain.chain_id, block["baseFeePerGas"])
    assert desk.sender.block_hash(head.number + 10) is None


def test_a_hash_that_nobody_knows_is_unknown(local_chain: LocalChain) -> None:
    status = Desk(local_chain).sender.status_of(UNKNOWN)
    assert (status.state, status.receipt) == ("unknown", None)


def test_same_bytes_sent_again__are_a_success_sending_nothing(local_chain: LocalChain) -> None:
    desk = Desk(local_chain)
    once = signed(desk, cancel(desk))
    desk.sender.send(once)
    assert desk.mined(once.hash).status == 1
    nonces = desk.sender.nonces(desk.wallet)
    desk.sender.send(once)
    assert desk.sender.nonces(desk.wallet) == nonces
    assert desk.sender.status_of(once.hash).state == "mined"


def test_nonce_another_used__needs_the_operator(local_chain: LocalChain) -> None:
    desk = Desk(local_chain)
    tx = cancel(desk)
    first = signed(desk, tx)
    desk.sender.send(first)
    desk.mined(first.hash)
    other = signed(desk, replace(tx, max_fee_wei=LIMIT_WEI))
    with raises_code(NonceUsed, "nonce_used"):
        desk.sender.send(other)
    assert desk.sender.status_of(other.hash).state == "unknown"


def test_wallet_without_gas_money__is_told_before_and_at_sending(local_chain: LocalChain) -> None:
    desk = Desk(local_chain)
    tx = cancel(desk)
    desk.chain.set_native(10**12)
    simulated = desk.simulate(tx)
    assert not simulated.ok
    assert "native coin" in simulated.reason
    with pytest.raises(SendRefused) as caught:
        desk.sender.send(signed(desk, tx))
    assert caught.value.verdicts[0].guard == "send.no_funds"


def test_gas_left_to_the_node_asks_for_no_gas_money(local_chain: LocalChain) -> None:
    desk = Desk(local_chain)
    desk.chain.set_native(10**18)
    assert desk.simulate(desk.tx(desk.wallet, "0x", max_fee_wei=LIMIT_WEI)).gas == 21_000
    rich = desk.tx(desk.wallet, "0x", max_fee_wei=LIMIT_WEI, gas=15_000_000)
    assert not desk.simulate(rich).ok


def test_a_fee_below_the_base_fee_is_told(local_chain: LocalChain) -> None:
    desk = Desk(local_chain)
    tx = cancel(desk, max_fee_wei=1, max_priority_fee_wei=0)
    assert not desk.simulate(tx).ok
    with pytest.raises(SendRefused) as caught:
        desk.sender.send(signed(desk, tx))
    assert caught.value.verdicts[0].guard == "send.underpriced"


def test_too_little_gas_is_told(local_chain: LocalChain) -> None:
    desk = Desk(local_chain)
    weth = desk.at("WETH")
    simulated = desk.simulate(desk.tx(weth, encode_approve(desk.router, 1), gas=21_000))
    assert not simulated.ok
    assert "gas" in simulated.reason


def test_a_custom_error_is_named_by_its_selector(local_chain: LocalChain) -> None:
    desk = Desk(local_chain)
    tether = desk.at("USDT")
    desk.approve(tether, 5)
    reason = desk.simulate(desk.tx(tether, encode_approve(desk.router, 6))).reason
    assert reason == f"reverted with custom error 0x{selector('SetToZeroFirst(uint256)').hex()}"


def test_a_pending_transaction_is_pending_until_it_is_mined(anvil_chain: LocalChain) -> None:
    desk = Desk(anvil_chain)
    node = anvil_chain.node
    assert isinstance(node, AnvilNode)
    nonce = desk.sender.nonces(desk.wallet)[0]
    sent = signed(desk, cancel(desk))
    node.rpc("evm_setAutomine", False)
    try:
        desk.sender.send(sent)
        assert desk.sender.status_of(sent.hash).state == "pending"
        assert desk.sender.nonces(desk.wallet) == (nonce, nonce + 1)
        desk.sender.send(sent)
        cheap = signed(desk, cancel(desk, nonce=nonce, gas=30_000))
        with pytest.raises(SendRefused) as caught:
            desk.sender.send(cheap)
        assert caught.value.verdicts[0].guard == "send.underpriced"
    finally:
        node.rpc("evm_setAutomine", True)
    node.mine(1)
    assert desk.sender.status_of(sent.hash).state == "mined"


def test_signed_bytes_go_to_the_private_endpoint_alone(anvil_chain: LocalChain, tester_chain: LocalChain) -> None:
    desk = Desk(anvil_chain)
    reading = NodeSender(tester_chain.transport)
    sent = signed(desk, cancel(desk))
    NodeSender(tester_chain.transport, private_transport=anvil_chain.transport).send(sent)
    assert desk.mined(sent.hash).status == 1
    assert reading.status_of(sent.hash).state == "unknown"
