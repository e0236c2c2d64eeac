"""Receipts of rollups: data and operator fee, missing and misplaced ones; and chains that are refused."""

from __future__ import annotations

import pytest

from agent import codec
from agent.chain.endpoints import EndpointPool
from agent.chain.receipts import parse_receipt
from agent.chain.safe import SafeContract, SafeSender
from agent.chain.sender import QuorumSender
from agent.config.networks.presets import require_known_fees
from agent.errors import Retryable
from agent.model import DataFeeKind, Receipt, data_fee_kind, unsupported_chain_reason
from agent.model.rollups import ARBITRUM_CHAINS, OP_STACK_CHAINS, PLAIN_CHAINS, UNSUPPORTED_CHAINS
from tests.support.builders import OWNER
from tests.support.fakes.transport import ScriptedTransport

HASH = "0x" + "ab" * 32
RAW = {
    "transactionHash": HASH,
    "status": "0x1",
    "blockNumber": "0x10",
    "blockHash": "0x" + "cd" * 32,
    "gasUsed": hex(100_000),
    "effectiveGasPrice": hex(1_000_000),
    "logs": [],
}
L1_FEE = 123_456_789_012


def cost(data_fee: DataFeeKind, **named: str) -> int:
    return parse_receipt({**RAW, **named}, HASH, data_fee).gas_cost_wei - 100_000 * 1_000_000


def test_the_data_fee_of_a_receipt_is_part_of_its_cost() -> None:
    assert cost(DataFeeKind.OP_STACK, l1Fee=hex(L1_FEE)) == L1_FEE
    assert cost(DataFeeKind.OP_STACK_COPY, l1Fee=hex(L1_FEE)) == L1_FEE
    assert cost(DataFeeKind.PLAIN, l1Fee="0x0") == 0
    assert cost(DataFeeKind.OP_STACK_COPY) == 0


@pytest.mark.parametrize(
    ("named", "more"),
    [
        # Isthmus: gas · scalar / 10^6 + constant, rounded down. Jovian: gas · scalar · 100 + constant.
        ({"operatorFeeScalar": "0x7", "operatorFeeConstant": "0x5"}, 100_000 * 7 // 10**6 + 5),
        ({"operatorFeeScalar": hex(25), "operatorFeeConstant": "0x5"}, 2 + 5),
        ({"operatorFeeScalar": hex(25), "operatorFeeConstant": "0x5", "daFootprintGasScalar": "0x190"}, 100_000 * 25 * 100 + 5),
        ({"operatorFeeScalar": "0x0", "operatorFeeConstant": "0x0"}, 0),
    ],
)
def test_the_operator_fee_follows_the_rules_of_its_upgrade(named: dict[str, str], more: int) -> None:
    assert cost(DataFeeKind.OP_STACK, l1Fee=hex(L1_FEE), **named) == L1_FEE + more


@pytest.mark.parametrize(
    ("data_fee", "named", "reason"),
    [
        pytest.param(DataFeeKind.OP_STACK, {}, "lacks the data fee", id="missing"),
        pytest.param(DataFeeKind.OP_STACK, {"l1Fee": "many"}, "l1Fee is not a number", id="a word"),
        pytest.param(
            DataFeeKind.OP_STACK,
            {"l1Fee": "0x1", "operatorFeeScalar": "0x1"},
            "operatorFeeConstant is not a number",
            id="operator without constant",
        ),
        pytest.param(
            DataFeeKind.OP_STACK,
            {"l1Fee": "0x1", "operatorFeeConstant": "0x1"},
            "operatorFeeScalar is not a number",
            id="operator without scalar",
        ),
        pytest.param(DataFeeKind.PLAIN, {"l1Fee": "0x1"}, "does not charge", id="on a plain chain"),
        pytest.param(DataFeeKind.ARBITRUM, {"l1Fee": "0x1"}, "does not charge", id="on Arbitrum"),
    ],
)
def test_a_receipt_that_contradicts_its_chain_is_not_settled(data_fee: DataFeeKind, named: dict[str, str], reason: str) -> None:
    with pytest.raises(Retryable, match=reason):
        cost(data_fee, **named)


def test_a_stored_receipt_keeps_its_data_fee_or_none() -> None:
    plain = parse_receipt(RAW, HASH)
    assert codec.loads(Receipt, codec.dumps(plain)) == plain
    paid = parse_receipt({**RAW, "l1Fee": hex(L1_FEE)}, HASH, DataFeeKind.OP_STACK)
    assert codec.loads(Receipt, codec.dumps(paid)) == paid


def test_an_endpoint_that_names_another_data_fee_is_outvoted() -> None:
    def node(name: str, fee: int) -> ScriptedTransport:
        return ScriptedTransport(name, eth_getTransactionReceipt={**RAW, "l1Fee": hex(fee)}, eth_getTransactionByHash=None)

    def status(*nodes: ScriptedTransport) -> Receipt | None:
        pool = EndpointPool(nodes, 2, grace_s=0.02, data_fee_kind=DataFeeKind.OP_STACK)
        return QuorumSender(pool, 10).status_of(HASH).receipt

    agreed = status(node("a", L1_FEE), node("b", 1), node("c", L1_FEE))
    assert agreed is not None
    assert agreed.data_fee_wei == L1_FEE
    assert status(node("a", L1_FEE), node("b", 1)) is None


def test_a_safe_pays_neither_gas_nor_data_fee_of_its_executor() -> None:
    node = ScriptedTransport("a", eth_getTransactionReceipt={**RAW, "l1Fee": hex(L1_FEE)}, eth_getTransactionByHash=None)
    sender = QuorumSender(EndpointPool([node], 1, data_fee_kind=DataFeeKind.OP_STACK), 10)
    receipt = SafeSender(sender, SafeContract(node, OWNER), EndpointPool([node], 1), "").status_of(HASH).receipt
    assert receipt is not None
    assert receipt.gas_cost_wei == 0


def test_each_chain_has_one_kind_and_unknown_ones_send_nothing() -> None:
    known = [*OP_STACK_CHAINS, *ARBITRUM_CHAINS, *PLAIN_CHAINS, *UNSUPPORTED_CHAINS]
    assert len(known) == len(set(known))
    assert data_fee_kind(10) is DataFeeKind.OP_STACK
    assert data_fee_kind(10, is_copy=True) is DataFeeKind.OP_STACK_COPY
    assert data_fee_kind(42161) is DataFeeKind.ARBITRUM
    assert data_fee_kind(42161, is_copy=True) is DataFeeKind.PLAIN
    assert data_fee_kind(1) is data_fee_kind(31337) is DataFeeKind.PLAIN
    assert not unsupported_chain_reason(8453)
    assert not unsupported_chain_reason(1)
    assert "does not know whether" in unsupported_chain_reason(777)
    with pytest.raises(ValueError, match="Scroll"):
        require_known_fees(534352, local=False)
    require_known_fees(534352, local=True)
