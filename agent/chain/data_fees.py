"""Reads of data and operator fees from the contracts of a rollup, by lens or by single calls."""

from __future__ import annotations

from collections.abc import Sequence

from agent.chain.lens import CallItem, CallStatus, LensAnswer, answer_words, uint_word
from agent.chain.rpc import RpcCall, hex_data, parse_bytes, require_result
from agent.errors import ErrorCode, Retryable
from agent.model import DataFee, DataFeeQuote
from agent.model.rollups import DATA_FEE_ITEM, MAX_TX_BYTES, OPERATOR_SAMPLE_GAS
from agent.signing.calldata import selector

GAS_PRICE_ORACLE = "0x420000000000000000000000000000000000000F"
"""Predeploy of the OP Stack (packages/contracts-bedrock/src/libraries/Predeploys.sol)."""
ARB_GAS_INFO = "0x000000000000000000000000000000000000006C"
"""Precompile of Arbitrum Nitro (contracts/src/precompiles/ArbGasInfo.sol)."""
_L1_FEE_UPPER_BOUND = selector("getL1FeeUpperBound(uint256)")
_OPERATOR_FEE = selector("getOperatorFee(uint256)")
_PRICES_IN_WEI = selector("getPricesInWei()")
_FEE_BITS = 128


def fee_items(data_fee: DataFee) -> list[CallItem]:
    """Return the calls whose answers `read_quote` takes; none for chains without a fee."""
    match data_fee:
        case DataFee.OP_STACK | DataFee.OP_STACK_COPY:
            function_calls = [
                (_L1_FEE_UPPER_BOUND, 0),
                (_L1_FEE_UPPER_BOUND, MAX_TX_BYTES),
                (_OPERATOR_FEE, 0),
                (_OPERATOR_FEE, OPERATOR_SAMPLE_GAS),
            ]
            return [
                CallItem(GAS_PRICE_ORACLE, function_selector + uint_word(argument))
                for function_selector, argument in function_calls
            ]
        case DataFee.ARBITRUM:
            return [CallItem(ARB_GAS_INFO, _PRICES_IN_WEI, max_answer_bytes=192)]
        case _:
            return []


def read_quote(data_fee: DataFee, answers: Sequence[LensAnswer]) -> DataFeeQuote | CallStatus:
    """Return the quote, or the first failure. Arbitrum's getPricesInWei begins with the fee of a
    simple transaction and that of a byte of calldata.
    """
    if data_fee is DataFee.ARBITRUM:
        prices = answer_words(answers[0], 2)
        if isinstance(prices, CallStatus):
            return prices
        fees_wei = [prices[0], prices[0] + prices[1] * MAX_TX_BYTES]
    else:
        words = [answer_words(answer, 1) for answer in answers]
        if failures := [
            answer_word for answer_word in words if isinstance(answer_word, CallStatus)
        ]:
            return failures[0]
        fees_wei = [
            answer_word[0] for answer_word in words if not isinstance(answer_word, CallStatus)
        ]
    if any(wei >> _FEE_BITS for wei in fees_wei) or any(
        without_data > with_data
        for without_data, with_data in zip(fees_wei[::2], fees_wei[1::2], strict=True)
    ):
        return CallStatus.MALFORMED
    return DataFeeQuote(*fees_wei, as_gas=data_fee is DataFee.ARBITRUM)


def fee_calls(data_fee: DataFee, block_tag: str) -> list[RpcCall]:
    """Return the same calls for one node, at a block tag."""
    return [
        ("eth_call", [{"to": item.target, "data": hex_data(item.data)}, block_tag])
        for item in fee_items(data_fee)
    ]


def node_quote(name: str, data_fee: DataFee, answers: Sequence[object]) -> DataFeeQuote | None:
    """Return the quote of one node's answers; None for chains without a fee. Raises Retryable if a
    call failed.
    """
    if not answers:
        return None
    quote = read_quote(
        data_fee,
        [
            parse_bytes(require_result(name, "eth_call", answer), "the data fee")
            for answer in answers
        ],
    )
    if isinstance(quote, CallStatus):
        raise Retryable(
            f"{name} cannot report the {DATA_FEE_ITEM}: {quote.why}", code=ErrorCode.ANSWER
        )
    return quote
