"""Reads of data and operator fees from the contracts of a rollup, by lens or by single calls."""

from __future__ import annotations

from collections.abc import Sequence

from agent.chain.lens import CallItem, CallStatus, LensAnswer, answer_words, uint_word
from agent.chain.rpc import RpcCall, Transport, hex_data, parse_bytes, require_result
from agent.errors import ErrorCode, Retryable
from agent.model import DataFeeKind, DataFeeQuote, data_fee_kind
from agent.model.rollups import DATA_FEE_ITEM, MAX_TX_BYTES, OPERATOR_SAMPLE_GAS
from agent.signing.calldata import selector

GAS_PRICE_ORACLE = "0x420000000000000000000000000000000000000F"
"""Predeploy of the OP Stack (packages/contracts-bedrock/src/libraries/Predeploys.sol)."""
ARB_GAS_INFO = "0x000000000000000000000000000000000000006C"
"""Precompile of Arbitrum Nitro (contracts/src/precompiles/ArbGasInfo.sol)."""
_L1_FEE_UPPER_BOUND = selector("getL1FeeUpperBound(uint256)")
_L1_FEE = selector("getL1Fee(bytes)")
_L1_FEE_GAS = 2_000_000
"""Gas cap of getL1Fee: it compresses the transaction, at some 200 gas a byte."""
_OPERATOR_FEE = selector("getOperatorFee(uint256)")
_PRICES_IN_WEI_SELECTOR = selector("getPricesInWei()")
_FEE_BITS = 128


def fee_items(data_fee_kind: DataFeeKind) -> list[CallItem]:
    """Return the calls for a snapshot, whose answers `read_quote` takes: bounds, and on the OP
    Stack the fees of typical swaps; none for chains without a fee.
    """
    call_items = _bound_items(data_fee_kind)
    if data_fee_kind in (DataFeeKind.OP_STACK, DataFeeKind.OP_STACK_COPY):
        call_items += [
            CallItem(
                GAS_PRICE_ORACLE,
                _bytes_call(_L1_FEE, swap_tx),
                gas_cap=_L1_FEE_GAS,
                likely_gas=500_000,
            )
            for swap_tx in (ONE_LEG_TX, FOUR_LEG_TX)
        ]
    return call_items


def _bytes_call(function_selector: bytes, argument: bytes) -> bytes:
    padding = bytes(-len(argument) % 32)
    return function_selector + uint_word(32) + uint_word(len(argument)) + argument + padding


def _bound_items(data_fee_kind: DataFeeKind) -> list[CallItem]:
    match data_fee_kind:
        case DataFeeKind.OP_STACK | DataFeeKind.OP_STACK_COPY:
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
        case DataFeeKind.ARBITRUM:
            return [CallItem(ARB_GAS_INFO, _PRICES_IN_WEI_SELECTOR, max_answer_bytes=192)]
        case _:
            return []


def read_quote(
    data_fee_kind: DataFeeKind, answers: Sequence[LensAnswer]
) -> DataFeeQuote | CallStatus:
    """Return the quote, or the first failure. Arbitrum's getPricesInWei begins with the fee of a
    simple transaction and that of a byte of calldata. Answers may end after the bounds, without the
    fees of typical swaps; one that failed fails the quote.
    """
    if data_fee_kind is DataFeeKind.ARBITRUM:
        prices_wei = answer_words(answers[0], 2)
        if isinstance(prices_wei, CallStatus):
            return prices_wei
        fees_wei = [prices_wei[0], prices_wei[0] + prices_wei[1] * MAX_TX_BYTES]
    else:
        word_results = [answer_words(answer, 1) for answer in answers]
        if failed_statuses := [
            word_result for word_result in word_results if isinstance(word_result, CallStatus)
        ]:
            return failed_statuses[0]
        fees_wei = [
            word_result[0]
            for word_result in word_results
            if not isinstance(word_result, CallStatus)
        ]
    if any(fee_wei >> _FEE_BITS for fee_wei in fees_wei) or any(
        fee_without_data_wei > fee_with_data_wei
        for fee_without_data_wei, fee_with_data_wei in zip(
            fees_wei[::2], fees_wei[1::2], strict=True
        )
    ):
        return CallStatus.MALFORMED
    return DataFeeQuote(*fees_wei, is_charged_as_gas=data_fee_kind is DataFeeKind.ARBITRUM)


def fee_calls(data_fee_kind: DataFeeKind, block_tag: str) -> list[RpcCall]:
    """Return the calls for bounds alone, for one node, at a block tag."""
    return [
        ("eth_call", [{"to": call_item.target, "data": hex_data(call_item.calldata)}, block_tag])
        for call_item in _bound_items(data_fee_kind)
    ]


def copied_fee_kind(chain_id: int, node: Transport) -> DataFeeKind:
    """Return the data fee of a local copy of a chain. A copy of Arbitrum has the fee only where its
    node stands in for the precompile. Raises Retryable if the node cannot answer.
    """
    if data_fee_kind(chain_id) is not DataFeeKind.ARBITRUM:
        return data_fee_kind(chain_id, is_copy=True)
    answers = node.batch(fee_calls(DataFeeKind.ARBITRUM, "latest"))
    try:
        node_quote(node.name, DataFeeKind.ARBITRUM, answers)
    except Retryable:
        return data_fee_kind(chain_id, is_copy=True)
    return DataFeeKind.ARBITRUM


def node_quote(
    node_name: str, data_fee_kind: DataFeeKind, answers: Sequence[object]
) -> DataFeeQuote | None:
    """Return the quote of one node's answers; None for chains without a fee. Raises Retryable if a
    call failed.
    """
    if not answers:
        return None
    quote = read_quote(
        data_fee_kind,
        [
            parse_bytes(require_result(node_name, "eth_call", answer), "the data fee")
            for answer in answers
        ],
    )
    if isinstance(quote, CallStatus):
        raise Retryable(
            f"{node_name} cannot report the {DATA_FEE_ITEM}: {quote.why}", code=ErrorCode.ANSWER
        )
    return quote


ONE_LEG_TX = bytes.fromhex("""
02f9017182210582058a8391e6708409f861208307bbd594fd08dcda15d783befc5b5f9b3f3c918ae0c67dde80b90144
b269add30000000000000000000000000000000000000000000000000000000000000020000000000000000000000000
00000000000000000000000000000000000000f1006825f05e020201ffffffffffffffffffffffffe15b1d486546252d
738237fc3a9b539f8536dd184e35026c3edba90c3f38f9e2b0b8c3dc8aa997fb4c97800a000000000000000001a24f5b
eefa5a5fd914bfe6c6844483ffffffffffffffffffffffff4b4c32940000000000000000027c0bef4b76a6c87cc126bd
62585b27000000000000000000000015626f7fa800dcb265f9213a1fc8182c0cdd9e929d459aa67f3296e8ac4277198f
f8b6f785478aa9a39f403cb768dd02cbee326c3e7da348845f000000010000000bb80000000000000000000000000000
00b4b3cd6c000000000000000000000015626f7fa8000000000000000000000000000000c0
""")
"""A typical swap of one leg: an unsigned transaction to the Rebalancer, which pays more
for its data than one to SwapRouter02, as agent/venues/calldata.py
encodes it, with invented addresses and amounts of usual size, which compress like real ones.
"""
FOUR_LEG_TX = bytes.fromhex("""
02f902b18221058206198311b021840a075a47830594409486424bf45a57e1550bb43ba19885ca597fa7a4bd80b90284
b269add30000000000000000000000000000000000000000000000000000000000000020000000000000000000000000
000000000000000000000000000000000000022200667a492b040402ffffffffffffffffffffffffd7450ed3e5a04059
1e8ec965c174eb38e1dca9c9c26e4c2a06159c8b4014516844495b65279376bd53594cfef16d75b23042c00207a764ca
2c32fb0cccf6e838fade5744a8bcaf44c14ddd6b34a43ff24f5ab8900000000000000000971a27e7833a0f4e044d7531
63020b7bffffffffffffffffffffffffb917e3c20000000000000000000000000007be1430efc87647a2658b00000000
0000014165402c13b5b7d8e10000000000000000000000000004195d7b03e9f126b6370bffffffffffffff119ed7ca82
6f64000000000000000000000000000000ae7bdd5c57c0de9b37e30dfffffffffffffff102b66dd508d7144601c927a8
c9a593d03fd38bf32d65667c48cabf0fb6e34f199b19b2b4f47f68442619d555527d244f78a3297ea89325f843f87b8b
5400dcb265f9213a1fc8182c0cdd9e929d459aa67f3296e8ac4277198ff8b6f785478aa9a39f403cb768dd02cbee326c
3e7da348845f00000001000000006400000000000000000000000000000046e81c3e0000000000000041a4b9797d8355
2de000000201000000006400000000000000000000426831cc57287c000000000000000000687cce934d2418e90f0000
0203000000006400000000000000000000abf8f66926682000000000000000000027089c5f60814d1446000103010000
000064000000000000000000003605e5f18b78760000000000000000009743b81f490e49c1f200000000000000000000
0000000000000000000000000000000000000000c0
""")
"""The same, of four legs."""
