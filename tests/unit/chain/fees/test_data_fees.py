"""Tests of agent/chain/fees/data_fees.py: what rollups are asked about the fee of a transaction's data, and which answers count."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agent.chain.fees.data_fees import (
    ARB_GAS_INFO,
    FOUR_LEG_TX,
    GAS_PRICE_ORACLE,
    ONE_LEG_TX,
    copied_fee_kind,
    fee_calls,
    fee_items,
    node_quote,
    read_quote,
)
from agent.chain.lens import CallStatus, LensAnswer, abi_encode, uint_word
from agent.chain.rpc import RpcFault
from agent.errors import Retryable
from agent.model import DataFeeKind, DataFeeQuote
from agent.model.rollups import MAX_TX_BYTES, OPERATOR_SAMPLE_GAS
from tests.support.fakes.transport import ScriptedTransport

OP_STACK = DataFeeKind.OP_STACK
ARBITRUM = DataFeeKind.ARBITRUM
LARGEST = 2**128 - 1
L1_FEE_UPPER_BOUND = "f1c7a58b"
OPERATOR_FEE = "275aedd2"
L1_FEE = "49948e0e"
"""Selectors of getL1FeeUpperBound(uint256), getOperatorFee(uint256) and getL1Fee(bytes)."""
BOUNDS = ((L1_FEE_UPPER_BOUND, 0), (L1_FEE_UPPER_BOUND, MAX_TX_BYTES), (OPERATOR_FEE, 0), (OPERATOR_FEE, OPERATOR_SAMPLE_GAS))


def bounds_calldata() -> list[str]:
    return [f"{function}{argument:064x}" for function, argument in BOUNDS]


# --- What is asked


@pytest.mark.parametrize("kind", [OP_STACK, DataFeeKind.OP_STACK_COPY])
def test_fee_items_of_the_op_stack_are_bounds_and_typical_swaps(kind: DataFeeKind) -> None:
    items = fee_items(kind)

    swaps = [L1_FEE + abi_encode(["bytes"], [swap_tx]).hex() for swap_tx in (ONE_LEG_TX, FOUR_LEG_TX)]
    assert [item.calldata.hex() for item in items] == [*bounds_calldata(), *swaps]
    assert {item.target for item in items} == {GAS_PRICE_ORACLE}
    assert [item.gas_cap for item in items[4:]] == [2_000_000] * 2, "compression takes some 200 gas a byte"


def test_fee_items_of_arbitrum_are_its_prices() -> None:
    (item,) = fee_items(ARBITRUM)

    assert (item.target, item.calldata.hex(), item.max_answer_bytes) == (ARB_GAS_INFO, "41b247a8", 6 * 32)


def test_fee_items_of_other_chains_are_none() -> None:
    assert fee_items(DataFeeKind.PLAIN) == []
    assert fee_calls(DataFeeKind.PLAIN, "latest") == []


@pytest.mark.parametrize(
    ("kind", "target", "calldata"),
    [
        pytest.param(OP_STACK, GAS_PRICE_ORACLE, bounds_calldata(), id="op stack"),
        pytest.param(ARBITRUM, ARB_GAS_INFO, ["41b247a8"], id="arbitrum"),
    ],
)
def test_fee_calls_ask_one_node_for_bounds_at_a_block(kind: DataFeeKind, target: str, calldata: list[str]) -> None:
    assert fee_calls(kind, "0x7") == [("eth_call", [{"to": target, "data": f"0x{data}"}, "0x7"]) for data in calldata]


# --- Quotes of the OP Stack


def op_stack_quote(*fees: int | CallStatus) -> DataFeeQuote | CallStatus:
    return read_quote(OP_STACK, [fee if isinstance(fee, CallStatus) else uint_word(fee) for fee in fees])


@pytest.mark.parametrize(
    "fees",
    [
        pytest.param((1, 2, 3, 4), id="each in its place"),
        pytest.param((5, 5, 7, 7), id="no growth"),
        pytest.param((0, 0, 0, 0), id="free"),
        pytest.param((1, LARGEST, 3, 4), id="data fee of 128 bits"),
        pytest.param((1, 2, 3, LARGEST), id="operator fee of 128 bits"),
        pytest.param((1, 9, 3, 4, 5, 6), id="with typical swaps"),
        pytest.param((1, 9, 3, 4, 5, 5), id="swaps alike"),
    ],
)
def test_op_stack_quote_has_each_fee(fees: tuple[int, ...]) -> None:
    assert op_stack_quote(*fees) == DataFeeQuote(*fees, is_charged_as_gas=False)


@pytest.mark.parametrize(("kind", "is_charged_as_gas"), [(OP_STACK, False), (DataFeeKind.OP_STACK_COPY, False), (ARBITRUM, True)])
def test_quote_is_charged_as_gas_on_arbitrum_alone(kind: DataFeeKind, is_charged_as_gas: bool) -> None:
    quote = read_quote(kind, [uint_word(1) + uint_word(2)] if kind is ARBITRUM else [uint_word(1)] * 4)

    assert isinstance(quote, DataFeeQuote)
    assert quote.is_charged_as_gas is is_charged_as_gas


@pytest.mark.parametrize(
    "fees",
    [
        pytest.param((6, 5, 7, 7), id="data fee falls"),
        pytest.param((5, 5, 8, 7), id="operator fee falls"),
        pytest.param((1, 9, 3, 4, 6, 5), id="fee of swaps falls"),
        pytest.param((1, LARGEST + 1, 3, 4), id="data fee of 129 bits"),
        pytest.param((1, 2, 3, LARGEST + 1), id="operator fee of 129 bits"),
        pytest.param((LARGEST + 1, LARGEST + 1, 3, 4), id="both data fees"),
        pytest.param((1, 2, LARGEST + 1, LARGEST + 1), id="both operator fees"),
    ],
)
def test_op_stack_quote_of_impossible_fees_is_malformed(fees: tuple[int, ...]) -> None:
    assert op_stack_quote(*fees) is CallStatus.MALFORMED


@pytest.mark.parametrize(
    ("fees", "status"),
    [
        pytest.param((CallStatus.UNREAD, 2, 3, 4), CallStatus.UNREAD, id="first"),
        pytest.param((1, CallStatus.NO_CODE, 3, 4), CallStatus.NO_CODE, id="second"),
        pytest.param((1, 2, CallStatus.UNREAD, 4), CallStatus.UNREAD, id="third"),
        pytest.param((1, 2, 3, CallStatus.FAILED), CallStatus.FAILED, id="fourth"),
        pytest.param((1, 2, 3, 4, CallStatus.FAILED, 6), CallStatus.FAILED, id="fee of a swap"),
        pytest.param((1, CallStatus.FAILED, CallStatus.UNREAD, 4), CallStatus.FAILED, id="first of two"),
    ],
)
def test_op_stack_quote_without_an_answer_is_its_failure(fees: tuple[int | CallStatus, ...], status: CallStatus) -> None:
    assert op_stack_quote(*fees) is status


# --- Quotes of Arbitrum


def arbitrum_quote(*prices: int) -> DataFeeQuote | CallStatus:
    return read_quote(ARBITRUM, [b"".join(map(uint_word, prices))])


@pytest.mark.parametrize(
    ("prices", "fees"),
    [
        pytest.param((1_400, 10, 3, 4, 5, 6), (1_400, 1_400 + 10 * MAX_TX_BYTES), id="all six prices"),
        pytest.param((1_400, 10), (1_400, 1_400 + 10 * MAX_TX_BYTES), id="two words"),
        pytest.param((0, 0), (0, 0), id="free"),
        pytest.param((LARGEST - MAX_TX_BYTES, 1), (LARGEST - MAX_TX_BYTES, LARGEST), id="largest"),
    ],
)
def test_arbitrum_quote_prices_a_transaction_and_its_bytes(prices: tuple[int, ...], fees: tuple[int, int]) -> None:
    assert arbitrum_quote(*prices) == DataFeeQuote(*fees, is_charged_as_gas=True)


@pytest.mark.parametrize("prices", [(1_400,), (LARGEST - MAX_TX_BYTES + 1, 1)], ids=["one word", "129 bits for all bytes"])
def test_arbitrum_quote_of_impossible_prices_is_malformed(prices: tuple[int, ...]) -> None:
    assert arbitrum_quote(*prices) is CallStatus.MALFORMED


def test_arbitrum_quote_without_an_answer_is_its_failure() -> None:
    answers: list[LensAnswer] = [CallStatus.UNREAD]

    assert read_quote(ARBITRUM, answers) is CallStatus.UNREAD


# --- One node


def words(*fees: int) -> list[object]:
    return [f"0x{fee:064x}" for fee in fees]


@pytest.mark.parametrize(
    ("kind", "answers", "quote"),
    [
        pytest.param(OP_STACK, words(1, 2, 3, 4), DataFeeQuote(1, 2, 3, 4), id="op stack"),
        pytest.param(OP_STACK, words(0, 0, 0, 0), DataFeeQuote(0, 0, 0, 0), id="free"),
        pytest.param(DataFeeKind.PLAIN, [], None, id="no fee"),
    ],
)
def test_node_quote_reads_the_answers(kind: DataFeeKind, answers: Sequence[object], quote: DataFeeQuote | None) -> None:
    assert node_quote("endpoint 'a'", kind, answers) == quote


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        pytest.param(words(2, 1, 3, 4), "endpoint 'a' cannot report the data fee", id="malformed"),
        pytest.param([RpcFault(-32000, "execution reverted"), *words(0, 0, 0)], "endpoint 'a' refused eth_call", id="failed call"),
        pytest.param(["", *words(0, 0, 0)], "the data fee is not data", id="no data"),
        pytest.param([None, None, None, None], "the data fee is not data", id="null"),
    ],
)
def test_node_quote_of_a_failure_may_be_asked_again(answers: Sequence[object], reason: str) -> None:
    with pytest.raises(Retryable, match=reason):
        node_quote("endpoint 'a'", OP_STACK, answers)


# --- Copies of chains


PRICES = bytes(31) + b"\x07" + bytes(31) + b"\x02" + bytes(128)
"""Six words of ArbGasInfo.getPricesInWei."""


@pytest.mark.parametrize(
    ("chain_id", "answer", "kind"),
    [
        pytest.param(42161, "0x" + PRICES.hex(), ARBITRUM, id="stands in"),
        pytest.param(42161, "0x", DataFeeKind.PLAIN, id="no code"),
        pytest.param(42161, RpcFault(-32000, "invalid opcode"), DataFeeKind.PLAIN, id="no precompile"),
        pytest.param(10, RpcFault(-32000, "not asked"), DataFeeKind.OP_STACK_COPY, id="op stack"),
        pytest.param(1, RpcFault(-32000, "not asked"), DataFeeKind.PLAIN, id="plain"),
    ],
)
def test_copy_of_arbitrum_has_the_fee_where_its_node_stands_in(chain_id: int, answer: object, kind: DataFeeKind) -> None:
    node = ScriptedTransport(eth_call=answer)

    assert copied_fee_kind(chain_id, node) is kind
    assert node.calls == (fee_calls(ARBITRUM, "latest") if chain_id == 42161 else [])
