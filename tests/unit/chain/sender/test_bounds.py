"""Exact bounds of what nodes say of a transaction: fees, gas, nonces of an operator, and what a majority of them is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agent.chain.lens import uint_word
from agent.chain.rpc import RpcFault
from agent.chain.sender import NodeSender
from agent.errors import OperatorNeeded, Retryable
from agent.model import DataFeeKind, UnsignedTx
from tests.support.chain_reads.senders import HASH, LOW, POOR, SIGNED, node, sender
from tests.support.fakes.transport import HEAD_JSON, ScriptedTransport
from tests.support.signing import CANCEL, WALLET
from tests.support.text import raises_code

BASE_FEE_WEI = int(str(HEAD_JSON["baseFeePerGas"]), 16)
TX = replace(CANCEL, gas=50_000)


def simulated_requests(tx: UnsignedTx) -> list[dict[str, str]]:
    """Return the transaction as eth_call and eth_estimateGas get it."""
    requests: list[Any] = []

    def note(answer: str) -> Callable[[list[object]], str]:
        return lambda params: requests.append(params[0]) or answer

    NodeSender(ScriptedTransport(eth_call=note("0x"), eth_estimateGas=note("0x5208"))).simulate(tx, WALLET)
    return requests


def test_a_fee_of_exactly_the_base_fee_is_simulated() -> None:
    tx = replace(TX, max_fee_wei=BASE_FEE_WEI, max_priority_fee_wei=0)
    assert NodeSender(ScriptedTransport(eth_call="0x", eth_estimateGas="0x5208")).simulate(tx, WALLET).ok


def test_call_and_estimate_have_the_exact_gas_value_and_fees() -> None:
    tx = replace(TX, value_wei=5, max_fee_wei=9, max_priority_fee_wei=8)
    request = {"from": WALLET, "to": tx.to, "data": tx.data, "value": "0x5"}
    request |= {"gas": hex(50_000), "maxFeePerGas": "0x9", "maxPriorityFeePerGas": "0x8"}
    assert simulated_requests(tx) == [request, request]


def test_a_transaction_of_the_old_kind_has_one_gas_price() -> None:
    tx = replace(TX, max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=9)
    assert {"gasPrice": "0x9"}.items() <= simulated_requests(tx)[0].items()
    assert "maxFeePerGas" not in simulated_requests(tx)[0]


def test_without_a_gas_limit_no_fee_is_sent_with_it() -> None:
    assert set(simulated_requests(replace(TX, gas=0))[0]) == {"from", "to", "data", "value"}


@pytest.mark.parametrize(("gas", "reverted"), [(0, True), (50_000, False)])
def test_exceeded_gas__is_a_revert_only_if_the_node_chose_it(gas: int, reverted: bool) -> None:
    burning = ScriptedTransport(eth_call="0x", eth_estimateGas=RpcFault(-32000, "gas required exceeds allowance (30000000)"))
    assert NodeSender(burning).simulate(replace(TX, gas=gas), WALLET).reverted is reverted


@pytest.mark.parametrize(
    "fault",
    [
        RpcFault(3, "odd"),
        RpcFault(-32000, "odd", "0x08c379a0"),
        RpcFault(-32000, "Execution Reverted"),
        RpcFault(-32000, "out of gas"),
        RpcFault(-32015, "VM execution error"),
        RpcFault(-32000, "invalid opcode: INVALID"),
        RpcFault(-32003, "EVM error: StackUnderflow"),
    ],
)
def test_each_sign_of_a_revert_counts(fault: RpcFault) -> None:
    assert NodeSender(ScriptedTransport(eth_call=fault, eth_estimateGas="0x5208")).simulate(TX, WALLET).reverted


def test_a_lack_of_funds_is_no_revert() -> None:
    assert not NodeSender(ScriptedTransport(eth_call="0x", eth_estimateGas=POOR)).simulate(TX, WALLET).reverted


@pytest.mark.parametrize(("limit", "estimate"), [(50_000, 40_000), (0, 50_000)])
def test_operator_fee__is_that_of_the_larger_gas(limit: int, estimate: int) -> None:
    def call(params: list[Any]) -> str:
        data = params[0]["data"]
        return "0x" if params[0]["to"] == TX.to else "0x" + uint_word(0 if data.startswith("0xf1c7a58b") else int(data[10:], 16)).hex()

    rollup = NodeSender(ScriptedTransport(eth_call=call, eth_estimateGas=hex(estimate)), data_fee=DataFeeKind.OP_STACK)
    assert rollup.simulate(replace(TX, gas=limit), WALLET).data_fee_wei == 50_000


def counts(latest: int, pending: int) -> Callable[[list[object]], str]:
    return lambda params: hex(latest if params[1] == "latest" else pending)


def nonces(*answers: tuple[str, int, int], minimum: int = 1) -> tuple[int, int]:
    """Return what operators with these used and pending nonces say together."""
    return sender(*(node(name, eth_getTransactionCount=counts(*pair)) for name, *pair in answers), minimum=minimum).nonces(WALLET)


def test_one_operator__counts_by_its_lowest_used_nonce() -> None:
    assert nonces(("a", 5, 5), ("a", 7, 7)) == (5, 5)


def test_one_operator__counts_by_its_highest_pending_nonce() -> None:
    assert nonces(("a", 5, 6), ("a", 5, 8), ("a", 5, 5)) == (5, 8)


def test_a_pending_nonce_of_one_of_three_does_not_count() -> None:
    assert nonces(("a", 5, 9), ("b", 5, 5), ("c", 5, 5), minimum=2) == (5, 5)


def test_a_pending_nonce_of_two_of_three_counts_by_the_lower() -> None:
    assert nonces(("a", 5, 9), ("b", 5, 7), ("c", 5, 5), minimum=2) == (5, 7)


def test_a_pending_nonce_is_never_below_the_used_one() -> None:
    assert nonces(("a", 5, 4)) == (5, 5)


REVERT = RpcFault(3, "execution reverted")


def test_a_majority_of_reverts_is_a_revert() -> None:
    simulation = sender(node("a", eth_call=REVERT), node("b", eth_call=REVERT), node("c")).simulate(TX, WALLET)
    assert (simulation.ok, simulation.reverted) == (False, True)


def test_a_majority_of_refusals_with_one_revert_is_no_revert() -> None:
    nodes = node("a", eth_call=REVERT), node("b", eth_estimateGas=POOR), node("c", eth_estimateGas=POOR)
    simulation = sender(*nodes).simulate(TX, WALLET)
    assert (simulation.ok, simulation.reverted) == (False, False)


def test_gas__is_the_lowest_estimate_that_enough_accept() -> None:
    nodes = [node(name, eth_estimateGas=hex(gas)) for name, gas in (("a", 30_000), ("b", 40_000), ("c", 90_000))]
    assert sender(*nodes, minimum=3).simulate(TX, WALLET).gas == 90_000


@pytest.mark.parametrize("estimates", [(30_000, 40_000), (40_000, 30_000)])
def test_of_one_operator_s_endpoints_the_higher_estimate_counts(estimates: tuple[int, int]) -> None:
    nodes = [node("a", eth_estimateGas=hex(gas)) for gas in estimates]
    poll = [(endpoint, NodeSender(endpoint).simulate(TX, WALLET)) for endpoint in sender(*nodes, minimum=1)._endpoint_pool.endpoints]
    assert sender(*nodes, minimum=1)._agreed_simulation(poll).gas == 40_000


def test_a_block_that_one_of_two_does_not_have_is_undecided() -> None:
    with raises_code(Retryable, "quorum"):
        sender(node("a"), node("b", eth_getBlockByNumber=None)).block_hash(16)


def test_reason__is_raised_where_every_endpoint_needs_its_operator() -> None:
    error = OperatorNeeded("the key is refused", "renew it")
    with pytest.raises(OperatorNeeded, match="the key is refused"):
        sender(node("a", eth_sendRawTransaction=error), node("b", eth_sendRawTransaction=error)).send(SIGNED)


def test_outcome__is_unknown_where_one_endpoint_needs_its_operator() -> None:
    broken = node("a", eth_sendRawTransaction=OperatorNeeded("the key is refused", "renew it"))
    with raises_code(Retryable, "unknown_if_sent"):
        sender(broken, node("b", eth_sendRawTransaction=Retryable("down"))).send(SIGNED)


def test_a_refusal_counts_before_a_used_nonce() -> None:
    with pytest.raises(Exception, match="insufficient funds"):
        sender(node("a", eth_sendRawTransaction=LOW), node("b", eth_sendRawTransaction=POOR)).send(SIGNED)


def test_a_node_that_repeats_the_hash_in_capitals_has_accepted() -> None:
    NodeSender(ScriptedTransport(eth_sendRawTransaction=HASH.upper().replace("X", "x"))).send(SIGNED)
