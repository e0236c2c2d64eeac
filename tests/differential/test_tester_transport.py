"""eth-tester behind the transport: values as a node sends them, blocks by hash, reverts with data, no CCIP-read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from agent.chain.endpoints import EndpointPool
from agent.chain.providers.checked import open_web3
from agent.chain.providers.eth_tester import UNKNOWN_BLOCK_CODE, EthTesterTransport
from agent.chain.providers.quorum import QuorumProvider
from agent.chain.rpc import CallFailed, RpcFault, block_ref_at_hash, parse_head
from agent.chain.tokens import encode_approve
from agent.localchain import LocalChain
from tests.support.wallets import Desk, three_way_plan

ANSWER_42 = "0x602a60005260206000f3"
# Reverts with OffchainLookup(address,string[],bytes,bytes4,bytes), whose one URL is on this machine.
LOOKUP = bytes.fromhex(
    "556f1830"
    + f"{1:064x}{5 * 32:064x}{9 * 32:064x}"
    + "aabbccdd".ljust(64, "0")
    + f"{10 * 32:064x}"
    + f"{1:064x}{32:064x}{20:064x}"
    + b"http://127.0.0.1:9/x".hex().ljust(64, "0")
    + f"{0:064x}{0:064x}"
)


def reverting_with(data: bytes) -> str:
    """Creation code that copies what follows it and reverts with that."""
    size = len(data).to_bytes(2, "big").hex()
    return "0x61" + size + "601060003961" + size + "6000fd" + "00" * 2 + data.hex()


def head(chain: LocalChain) -> Any:
    return chain.transport.call("eth_getBlockByNumber", ["latest", False])


def test_blocks_and_receipts_are_wire_values(tester_chain: LocalChain) -> None:
    block = head(tester_chain)
    assert parse_head(block, tester_chain.chain_id).number == tester_chain.w3.eth.block_number
    sent = tester_chain.send(tester_chain.token_contract("LINK").functions.transfer(tester_chain.wallet.address, 1))
    wire_receipt = tester_chain.transport.call("eth_getTransactionReceipt", [sent])
    assert wire_receipt["status"] == "0x1"
    assert int(wire_receipt["gasUsed"], 16) == tester_chain.w3.eth.get_transaction_receipt(sent)["gasUsed"]
    assert len(wire_receipt["logs"]) == 1
    assert all(isinstance(topic, str) and topic.startswith("0x") for topic in wire_receipt["logs"][0]["topics"])
    assert tester_chain.transport.call("eth_getTransactionReceipt", ["0x" + "22" * 32]) is None


def test_a_batch_counts_as_one_request(tester_chain: LocalChain) -> None:
    before = tester_chain.transport.request_count
    assert len(tester_chain.transport.batch([("eth_chainId", []), ("eth_blockNumber", [])])) == 2
    assert tester_chain.transport.request_count == before + 1


def test_block_hash_unknown_or_not_canonical__is_a_fault(tester_chain: LocalChain) -> None:
    mark = tester_chain.snapshot()
    tester_chain.set_balance("LINK", 1)
    gone = head(tester_chain)["hash"]
    tester_chain.revert(mark)
    tester_chain.set_balance("LINK", 2)
    owner = tester_chain.wallet.address
    for unknown in (gone, "0x" + "11" * 32):
        answers = tester_chain.transport.batch([("eth_getBalance", [owner, {"blockHash": unknown, "requireCanonical": True}])])[0]
        assert isinstance(answers, RpcFault)
    known = {"blockHash": head(tester_chain)["hash"], "requireCanonical": True}
    assert int(tester_chain.transport.call("eth_getBalance", [owner, known]), 16) == tester_chain.w3.eth.get_balance(owner)


def calls_at(chain: LocalChain, block_ref: str) -> list[tuple[str, list[Any]]]:
    """A read of each kind that the transport answers itself."""
    link = chain.token_contract("LINK").address
    supply_call = {"from": "0x" + "11" * 20, "to": link, "data": "0x18160ddd"}
    return [
        ("eth_call", [supply_call, block_ref]),
        ("eth_getStorageAt", [link, "0x0", block_ref]),
        ("eth_getLogs", [{"address": link, "fromBlock": block_ref, "toBlock": block_ref}]),
    ]


@pytest.mark.parametrize("tag", ["pending", "safe", "finalized"])
def test_tag_of_a_new_block__is_the_newest(tester_chain: LocalChain, tag: str) -> None:
    batch = tester_chain.transport.batch
    assert batch(calls_at(tester_chain, tag)) == batch(calls_at(tester_chain, "latest"))


def test_earliest_block__is_the_first(tester_chain: LocalChain) -> None:
    batch = tester_chain.transport.batch
    assert batch(calls_at(tester_chain, "earliest")) == batch(calls_at(tester_chain, "0x0")) == ["0x", "0x" + "00" * 32, []]


def test_block_after_the_newest__is_unknown(tester_chain: LocalChain) -> None:
    number = hex(tester_chain.w3.eth.block_number + 1)
    answers = tester_chain.transport.batch(calls_at(tester_chain, number))
    assert [answer.code for answer in answers] == [UNKNOWN_BLOCK_CODE] * 3


def test_a_revert_is_a_fault_with_its_data(tester_chain: LocalChain) -> None:
    with pytest.raises(CallFailed) as caught:
        tester_chain.transport.call("eth_call", [{"data": reverting_with(bytes.fromhex("deadbeef01"))}, "latest"])
    assert caught.value.fault.code == 3
    assert caught.value.fault.revert_data == "0xdeadbeef01"


def test_the_reason_of_a_revert_is_told(tester_chain: LocalChain) -> None:
    text = b"not today"
    data = bytes.fromhex("08c379a0") + (32).to_bytes(32, "big") + len(text).to_bytes(32, "big") + text.ljust(32, b"\0")
    answers = tester_chain.transport.batch([("eth_call", [{"data": reverting_with(data)}, "latest"])])[0]
    assert isinstance(answers, RpcFault)
    assert "not today" in answers.message


def test_an_offchain_lookup_is_a_fault_and_nothing_is_fetched(tester_chain: LocalChain, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    def fetched(*args: object, **kwargs: object) -> None:
        raise AssertionError("CCIP-read went out")

    monkeypatch.setattr(requests.Session, "request", fetched)
    answers = tester_chain.transport.batch([("eth_call", [{"data": reverting_with(LOOKUP)}, "latest"])])[0]
    assert isinstance(answers, RpcFault)
    assert answers.revert_data == "0x" + LOOKUP.hex()


def test_what_eth_tester_does_not_know_is_a_fault(tester_chain: LocalChain) -> None:
    answers = tester_chain.transport.batch(
        [("anvil_mine", []), ("eth_getBalance", ["0x1", "latest"]), ("eth_call", [{"data": ANSWER_42}, "latest"])]
    )
    assert [isinstance(answer, RpcFault) for answer in answers] == [True, True, False]
    assert int(answers[2], 16) == 42


def test_calls_do_not_need_money_in_the_wallet(tester_chain: LocalChain) -> None:
    tester_chain.set_native(0)
    call = {"input": ANSWER_42, "type": "0x2", "chainId": hex(tester_chain.chain_id)}
    assert int(tester_chain.transport.call("eth_call", [call, "latest"]), 16) == 42


def test_gas_estimate__suffices_and_is_hardly_more(tester_chain: LocalChain) -> None:
    """Where a pool calls back and the tokens are called from there, each call keeps back a 64th of the gas (EIP-150)."""
    desk = Desk(tester_chain)
    three_way = three_way_plan(desk)
    desk.approve_for(three_way)
    for tx in (desk.swap_tx(three_way), desk.tx(desk.at("USDC"), encode_approve(desk.router, 1)), desk.tx(desk.wallet, "0x")):
        gas = desk.simulate(tx).gas
        assert desk.simulate(replace(tx, gas=gas)).ok
        assert not desk.simulate(replace(tx, gas=gas * 985 // 1_000 - 1)).ok
    assert gas == 21_000


def test_web3_reads_eth_tester_through_the_same_providers(tester_chain: LocalChain) -> None:
    """By the transport itself and by a quorum over it; header, balance and a contract call at a hash are one batch."""
    truth = tester_chain.w3.eth.get_block("latest")
    wallet = tester_chain.wallet.address
    at: Any = block_ref_at_hash("0x" + bytes(truth["hash"]).hex())
    token = tester_chain.tokens["WETH"].address
    line = EthTesterTransport(cast("Any", tester_chain.node).provider)
    for provider in (line, QuorumProvider(EndpointPool([line], 1))):
        before = line.request_count
        w3 = open_web3(provider)
        with w3.batch_requests() as batch:
            batch.add(w3.eth.get_block(truth["number"]))
            batch.add(w3.eth.get_balance(wallet, at))
            batch.add(w3.eth.call({"to": token, "data": "0x313ce567"}, at))
            block, wei, decimals = batch.execute()
        assert (block["hash"], block["timestamp"]) == (truth["hash"], truth["timestamp"])
        assert wei == tester_chain.w3.eth.get_balance(wallet)
        assert int.from_bytes(decimals, "big") == 18
        assert line.request_count == before + 1


def test_a_call_from_any_address_keeps_to_its_gas(tester_chain: LocalChain) -> None:
    """The token screen bounds its calls; one that runs out of gas is the contract's answer, like a revert."""
    token = tester_chain.tokens["WETH"].address
    stranger = "0x" + "11" * 20
    call = {"from": stranger, "to": token, "data": encode_approve(tester_chain.wallet.address, 1)}
    free, bounded, starved = tester_chain.transport.batch(
        [("eth_call", [{**call, **gas}, "latest"]) for gas in ({}, {"gas": hex(10_000_000)}, {"gas": hex(1_000)})]
    )
    assert bounded == free == hex(1).replace("0x", "0x" + "0" * 63)
    assert isinstance(starved, RpcFault)
    assert starved.code == 3
