"""Answers of the contracts that price a transaction's data: each number in its place, and none that is too large or falls with size."""

from __future__ import annotations

import pytest

from agent.chain.fees.data_fees import (
    ARB_GAS_INFO,
    FOUR_LEG_TX,
    GAS_PRICE_ORACLE,
    ONE_LEG_TX,
    constant_code,
    copied_fee_kind,
    fee_calls,
    fee_items,
    node_quote,
    read_quote,
)
from agent.chain.lens import CallStatus, LensAnswer, abi_encode, uint_word
from agent.chain.rpc import RpcFault
from agent.errors import ErrorCode, Retryable
from agent.model import DataFeeKind, DataFeeQuote
from agent.model.rollups import MAX_TX_BYTES, OPERATOR_SAMPLE_GAS
from tests.support.fakes.transport import ScriptedTransport

OP_STACKS = [DataFeeKind.OP_STACK, DataFeeKind.OP_STACK_COPY]
LARGEST = 2**128 - 1


def read(*fees: int) -> DataFeeQuote | CallStatus:
    return read_quote(DataFeeKind.OP_STACK, [uint_word(fee) for fee in fees])


def read_arbitrum(*prices: int) -> DataFeeQuote | CallStatus:
    return read_quote(DataFeeKind.ARBITRUM, [b"".join(map(uint_word, prices))])


def test_op_stack__four_fees_are_in_their_places() -> None:
    assert read(1, 2, 3, 4) == DataFeeQuote(1, 2, 3, 4, is_charged_as_gas=False)


@pytest.mark.parametrize("fees", [pytest.param((5, 5, 7, 7), id="both grow alike"), pytest.param((0, 0, 0, 0), id="no fees")])
def test_op_stack__fee_that_does_not_grow_with_size_is_read(fees: tuple[int, int, int, int]) -> None:
    assert read(*fees) == DataFeeQuote(*fees)


@pytest.mark.parametrize("fees", [pytest.param((6, 5, 7, 7), id="first falls"), pytest.param((5, 5, 8, 7), id="second falls")])
def test_op_stack__fee_that_falls_with_size_is_malformed(fees: tuple[int, int, int, int]) -> None:
    assert read(*fees) is CallStatus.MALFORMED


@pytest.mark.parametrize("position", [1, 3])
def test_op_stack__fee_of_128_bits_is_read_and_129_malformed(position: int) -> None:
    fees = [1, 2, 3, 4]
    fees[position] = LARGEST
    assert read(*fees) == DataFeeQuote(*fees)
    fees[position] = LARGEST + 1
    assert read(*fees) is CallStatus.MALFORMED


@pytest.mark.parametrize("first", [0, 2])
def test_op_stack__two_fees_of_129_bits_are_malformed(first: int) -> None:
    fees = [1, 2, 3, 4]
    fees[first : first + 2] = [LARGEST + 1, LARGEST + 1]
    assert read(*fees) is CallStatus.MALFORMED


@pytest.mark.parametrize("position", range(4))
def test_op_stack__failure_of_any_call_is_the_answer(position: int) -> None:
    answers: list[LensAnswer] = [uint_word(9)] * 4
    answers[position] = CallStatus.UNREAD
    assert read_quote(DataFeeKind.OP_STACK, answers) is CallStatus.UNREAD


def test_op_stack__first_of_two_failures_is_the_answer() -> None:
    answers: list[LensAnswer] = [uint_word(1), CallStatus.FAILED, CallStatus.UNREAD, uint_word(4)]
    assert read_quote(DataFeeKind.OP_STACK, answers) is CallStatus.FAILED


@pytest.mark.parametrize("data_fee", OP_STACKS)
def test_op_stack__fees_are_read_for_nothing_and_for_the_size(data_fee: DataFeeKind) -> None:
    """Selectors of getL1FeeUpperBound(uint256) and getOperatorFee(uint256), then of getL1Fee(bytes) with two typical swaps."""
    calls = [("f1c7a58b", 0), ("f1c7a58b", MAX_TX_BYTES), ("275aedd2", 0), ("275aedd2", OPERATOR_SAMPLE_GAS)]
    assert [(item.target, item.calldata.hex()) for item in fee_items(data_fee)] == [
        *((GAS_PRICE_ORACLE, f"{function}{argument:064x}") for function, argument in calls),
        *((GAS_PRICE_ORACLE, "49948e0e" + abi_encode(["bytes"], [swap]).hex()) for swap in (ONE_LEG_TX, FOUR_LEG_TX)),
    ]
    assert len(fee_calls(data_fee, "latest")) == 4, "before a send the bound alone is asked for"


def test_op_stack__fees_of_typical_swaps_are_read_and_must_grow() -> None:
    assert read(1, 9, 3, 4, 5, 6) == DataFeeQuote(1, 9, 3, 4, one_swap_wei=5, four_swaps_wei=6)
    assert read(1, 9, 3, 4, 6, 5) is CallStatus.MALFORMED


def test_arbitrum__byte_s_price_counts_for_every_byte() -> None:
    assert read_arbitrum(1_400, 10, 3, 4, 5, 6) == DataFeeQuote(1_400, 1_400 + 10 * MAX_TX_BYTES, is_charged_as_gas=True)


def test_arbitrum__two_words_are_enough_and_one_is_malformed() -> None:
    assert read_arbitrum(1_400, 10) == DataFeeQuote(1_400, 1_400 + 10 * MAX_TX_BYTES, is_charged_as_gas=True)
    assert read_arbitrum(1_400) is CallStatus.MALFORMED


def test_arbitrum__free_data_is_read() -> None:
    assert read_arbitrum(0, 0) == DataFeeQuote(0, 0, is_charged_as_gas=True)


def test_arbitrum__largest_fee_is_that_of_all_bytes() -> None:
    assert read_arbitrum(LARGEST - MAX_TX_BYTES, 1) == DataFeeQuote(LARGEST - MAX_TX_BYTES, LARGEST, is_charged_as_gas=True)
    assert read_arbitrum(LARGEST - MAX_TX_BYTES + 1, 1) is CallStatus.MALFORMED


def test_arbitrum__failure_is_the_answer() -> None:
    assert read_quote(DataFeeKind.ARBITRUM, [CallStatus.UNREAD]) is CallStatus.UNREAD


def test_arbitrum__answer_may_have_all_six_words() -> None:
    assert [item.max_answer_bytes for item in fee_items(DataFeeKind.ARBITRUM)] == [6 * 32]


def test_node__calls_are_the_lens_s_at_the_block() -> None:
    assert fee_calls(DataFeeKind.ARBITRUM, "0x7") == [("eth_call", [{"to": ARB_GAS_INFO, "data": "0x41b247a8"}, "0x7"])]


def test_node__answers_are_read_like_the_lens_s() -> None:
    answers = [f"0x{fee:064x}" for fee in (1, 2, 3, 4)]
    assert node_quote("endpoint 'a'", DataFeeKind.OP_STACK, answers) == DataFeeQuote(1, 2, 3, 4)


def test_node__chain_without_a_fee_has_no_quote() -> None:
    assert node_quote("endpoint 'a'", DataFeeKind.PLAIN, []) is None


def test_node__malformed_quote_may_be_asked_again() -> None:
    answers = [f"0x{fee:064x}" for fee in (2, 1, 3, 4)]
    with pytest.raises(Retryable, match="endpoint 'a' cannot report") as error:
        node_quote("endpoint 'a'", DataFeeKind.OP_STACK, answers)
    assert error.value.code is ErrorCode.ANSWER


def test_node__failed_call_may_be_asked_again() -> None:
    with pytest.raises(Retryable):
        node_quote("endpoint 'a'", DataFeeKind.OP_STACK, [RpcFault(-32000, "execution reverted"), *["0x" + "00" * 32] * 3])


PRICES = bytes(31) + b"\x07" + bytes(31) + b"\x02" + bytes(128)
"""Six words of ArbGasInfo.getPricesInWei."""


@pytest.mark.parametrize(
    ("chain_id", "answer", "kind"),
    [
        (42161, "0x" + PRICES.hex(), DataFeeKind.ARBITRUM),
        (42161, "0x", DataFeeKind.PLAIN),
        (42161, RpcFault(-32000, "invalid opcode"), DataFeeKind.PLAIN),
        (10, RpcFault(-32000, "not asked"), DataFeeKind.OP_STACK_COPY),
        (1, RpcFault(-32000, "not asked"), DataFeeKind.PLAIN),
    ],
    ids=["stands in", "no code", "no precompile", "op stack", "plain"],
)
def test_a_copy_of_arbitrum_has_the_fee_where_its_node_stands_in(chain_id: int, answer: object, kind: DataFeeKind) -> None:
    node = ScriptedTransport(eth_call=answer)
    assert copied_fee_kind(chain_id, node) is kind
    assert bool(node.asked) == (chain_id == 42161)


def test_a_stand_in_of_a_precompile_answers_with_its_words() -> None:
    stores = "".join(f"7f{PRICES[32 * number : 32 * number + 32].hex()}60{32 * number:02x}52" for number in range(6))
    assert constant_code(PRICES).hex() == f"{stores}60c06000f3"
