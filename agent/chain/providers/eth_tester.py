"""Transport to an in-process eth-tester chain that answers in a node's JSON format."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from web3 import EthereumTesterProvider, Web3
from web3.datastructures import NamedElementOnion
from web3.types import RPCEndpoint

from agent.chain.lens import address_bytes
from agent.chain.providers.checked import CheckedProvider
from agent.chain.rpc import RpcCall, RpcFault, parse_fault, scrub
from agent.errors import Retryable
from agent.foreign_text import failure_text

CALL_GAS = 25_000_000


def storage_at(tester: Any, address: str, slot: str, block_number: int) -> bytes:
    """Return the 32 bytes at a storage slot (0x-hex) after a block; `tester` is an
    EthereumTester.
    """
    chain_state = _vm(tester, block_number).state
    return int(chain_state.get_storage(address_bytes(address), int(slot, 16))).to_bytes(32, "big")


def call_as(tester: Any, tx: dict[str, Any], block_number: int) -> bytes:
    """Return the output of a contract call from any address `tx["from"]`, on the state after block
    `block_number`, with at most `tx["gas"]`. Raises eth-tester's TransactionFailed.
    """
    from eth_tester.exceptions import TransactionFailed

    vm = _vm(tester, block_number)
    sender = address_bytes(tx["from"])
    recipient = address_bytes(tx["to"])
    calldata = bytes.fromhex(str(tx.get("data", "0x"))[2:])
    computation = vm.execute_bytecode(
        origin=sender,
        gas_price=0,
        gas=min(CALL_GAS, int(str(tx.get("gas", hex(CALL_GAS))), 16)),
        to=recipient,
        sender=sender,
        value=0,
        data=calldata,
        code=vm.state.get_code(recipient),
        code_address=recipient,
    )
    if computation.is_error:
        raise TransactionFailed(repr(bytes(computation.output)))
    return bytes(computation.output)


def _vm(tester: Any, block_number: int) -> Any:
    chain = tester.backend.chain
    return chain.get_vm(at_header=chain.get_canonical_block_header_by_number(block_number))


def find_logs(
    tester: Any, event_filter: dict[str, Any], first_block: int, last_block: int
) -> list[dict[str, Any]]:
    """Return events of `event_filter["address"]` with its topics (None: any) in a block range.

    Bloom filters select the blocks, since eth-tester would scan every receipt.
    """
    from eth_bloom.bloom import BloomFilter

    chain = tester.backend.chain
    address = address_bytes(event_filter["address"])
    expected_topics = [
        None if topic is None else int(topic, 16) for topic in event_filter.get("topics", ())
    ]
    events = []
    for block_number in range(first_block, last_block + 1):
        block = chain.get_canonical_block_by_number(block_number)
        if address not in BloomFilter(block.header.bloom):
            continue
        events += [
            {
                "address": event_filter["address"],
                "blockNumber": block_number,
                "data": bytes(log.data),
                "topics": [topic.to_bytes(32, "big") for topic in log.topics],
            }
            for receipt in block.get_receipts(chain.chaindb)
            for log in receipt.logs
            if log.address == address and _topics_match(log.topics, expected_topics)
        ]
    return events


def _topics_match(topics: tuple[int, ...], expected_topics: list[int | None]) -> bool:
    return len(topics) >= len(expected_topics) and all(
        expected_topic in (None, topic)
        for topic, expected_topic in zip(topics, expected_topics, strict=False)
    )


REVERTED_CODE = 3
UNKNOWN_BLOCK_CODE = -32001
_NEGATIVE_GAS_MESSAGE = "gas cannot be negative"
"""py-evm 0.12's message for a gas limit below intrinsic gas; 0.10 has "Insufficient gas"."""
_UNKNOWN_TX_FIELDS = ("type", "chainId")


class EthTesterTransport(CheckedProvider):
    """Provider over eth-tester, whose own answers are Python values. A batch counts as one request;
    CCIP-read is disabled.
    """

    def __init__(self, provider: EthereumTesterProvider, operator: str = "eth-tester") -> None:
        super().__init__()
        # The provider's middleware maps RPC names to eth-tester's; web3's validation and CCIP
        # layers are skipped.
        client = Web3(provider)
        provider.global_ccip_read_enabled = False
        self._request = provider.request_func(client, NamedElementOnion([]))
        self._tester: Any = provider.ethereum_tester
        self._caller = client.eth.accounts[-1]
        self.operator = operator
        self.name = f"endpoint {operator!r} in process"
        self.request_count = 0

    def __repr__(self) -> str:
        return f"EthTesterTransport({self.name})"

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """See Transport."""
        self.request_count += 1
        return [self._answer(method, params) for method, params in calls]

    def _answer(self, method: str, params: list[Any]) -> Any:
        from eth_tester.exceptions import BlockNotFound, TransactionFailed
        from web3.exceptions import ContractPanicError, OffchainLookup

        try:
            if method == "eth_getStorageAt":
                return _json_value(
                    storage_at(
                        self._tester, params[0], params[1], self._block_number(method, params[2])
                    )
                )
            # A call without fees or value may have any sender; eth-tester knows only its own.
            if method == "eth_call" and set(params[0]) - {"gas"} == {"from", "to", "data"}:
                return _json_value(
                    call_as(self._tester, params[0], self._block_number(method, params[1]))
                )
            if method == "eth_getLogs" and isinstance(params[0].get("address"), str):
                first_block, last_block = (
                    self._block_number(method, params[0].get(range_end, "latest"))
                    for range_end in ("fromBlock", "toBlock")
                )
                return _json_value(find_logs(self._tester, params[0], first_block, last_block))
            response = self._request(
                RPCEndpoint(method), [self._converted_param(method, param) for param in params]
            )
        except (TransactionFailed, OffchainLookup, ContractPanicError) as error:
            return _revert_fault(error)
        except _BlockUnknown as error:
            return RpcFault(UNKNOWN_BLOCK_CODE, str(error))
        except BlockNotFound:
            return RpcFault(UNKNOWN_BLOCK_CODE, "block not found")
        except Exception as error:  # eth-tester raises many types for bad input
            message = failure_text(error)
            return RpcFault(
                -32000,
                "intrinsic gas too low" if _NEGATIVE_GAS_MESSAGE in message else scrub(message),
            )
        if "error" in response:
            return parse_fault(response["error"])
        return _json_value(response.get("result"))

    def _block_number(self, method: str, block_ref: object) -> int:
        """Return the block number of a parameter. Raises _BlockUnknown for one after the head."""
        converted_ref = str(self._converted_param(method, block_ref))
        head_number: int = self._tester.backend.chain.get_canonical_head().block_number
        if converted_ref in _HEAD_TAGS:
            return head_number
        block_number = 0 if converted_ref == "earliest" else int(converted_ref, 16)
        if block_number > head_number:
            raise _BlockUnknown("block not found")
        return block_number

    def _converted_param(self, method: str, param: object) -> object:
        """Convert a block-hash parameter (EIP-1898), unknown to eth-tester, to the canonical
        block's number.
        """
        if isinstance(param, Mapping) and "blockHash" in param and method in _METHODS_AT_BLOCK:
            block = self._answer("eth_getBlockByHash", [param["blockHash"], False])
            if not isinstance(block, Mapping):
                raise _BlockUnknown("block hash is unknown")
            canonical_block = self._answer("eth_getBlockByNumber", [block["number"], False])
            if not isinstance(canonical_block, Mapping) or canonical_block["hash"] != block["hash"]:
                raise _BlockUnknown("block hash is not canonical")
            return block["number"]
        if isinstance(param, Mapping) and method in ("eth_call", "eth_estimateGas"):
            tx = {
                tx_field: field_value
                for tx_field, field_value in param.items()
                if tx_field not in _UNKNOWN_TX_FIELDS
            }
            # eth-tester charges the caller; use its last account, because tests may empty the first
            if "to" not in tx:
                tx["from"] = self._caller
            tx.setdefault("from", self._caller)
            if "input" in tx:
                tx["data"] = tx.pop("input")
            return tx
        return param


_HEAD_TAGS = ("latest", "pending", "safe", "finalized")
_METHODS_AT_BLOCK = frozenset(
    {"eth_call", "eth_getBalance", "eth_getCode", "eth_getTransactionCount", "eth_getStorageAt"}
)


class _BlockUnknown(Retryable):
    """The requested block is unknown or no longer on the chain."""


def _revert_fault(error: Exception) -> RpcFault:
    """Return revert data, which eth-tester puts into the message as the text of a Python bytes
    literal.
    """
    message = str(error.args[0]) if error.args else ""
    revert_literal = message.removeprefix("execution reverted: ")
    error_data = getattr(error, "data", None)
    if isinstance(error_data, str) and error_data.startswith("0x"):
        return RpcFault(REVERTED_CODE, "execution reverted", error_data)
    try:
        revert_data = ast.literal_eval(revert_literal)
    except (ValueError, SyntaxError):
        revert_data = None
    if isinstance(revert_data, bytes):
        return RpcFault(REVERTED_CODE, "execution reverted", "0x" + revert_data.hex())
    return RpcFault(REVERTED_CODE, scrub(f"execution reverted: {revert_literal}"))


def _json_value(python_value: Any) -> object:
    """Convert eth-tester's Python values to JSON-RPC values."""
    match python_value:
        case bool() | None | str():
            return python_value
        case int():
            return hex(python_value)
        case bytes():
            return "0x" + python_value.hex()
        case Mapping():
            return {str(key): _json_value(element) for key, element in python_value.items()}
        case list() | tuple():
            return [_json_value(element) for element in python_value]
        case _:
            return str(python_value)
