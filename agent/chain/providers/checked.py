"""web3 over the agent's endpoints: raw answers are checked by method before web3 formats them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any, TypeVar

from web3 import Web3
from web3.eth import Eth
from web3.method import Method
from web3.module import Module
from web3.net import Net
from web3.providers.base import JSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from agent.chain.rpc import (
    RpcCall,
    hex_data,
    parse_bytes,
    parse_head,
    parse_quantity,
    require_result,
)

T = TypeVar("T")

QUANTITY_METHODS = {
    "eth_blockNumber": "block number",
    "eth_chainId": "chain id",
    "eth_gasPrice": "gas price",
    "eth_getBalance": "native balance",
    "eth_getTransactionCount": "nonce",
    "eth_maxPriorityFeePerGas": "priority fee",
}
CALL_METHOD = "eth_call"
STORAGE_METHOD = "eth_getStorageAt"
BLOCK_METHOD = "eth_getBlockByNumber"
HEADER_FIELDS = ("number", "hash", "timestamp", "baseFeePerGas")
"""Fields of a block that are read."""


def checked_answer(method: str, answer: object) -> object:
    """Return a raw answer in its canonical form: of a block the header, without fields that nobody
    checked. web3 would take `-0x1`, `0x_1`, odd hex, null and a block without hash. Raises
    Retryable.
    """
    if method == BLOCK_METHOD:
        head = parse_head(answer, 0)
        base_fee = None if head.base_fee_wei is None else hex(head.base_fee_wei)
        header_values = (hex(head.number), head.hash, hex(head.timestamp_s), base_fee)
        return {
            field_name: header_value
            for field_name, header_value in zip(HEADER_FIELDS, header_values, strict=True)
            if header_value
        }
    if method == CALL_METHOD:
        return hex_data(parse_bytes(answer, "a contract call"))
    if method == STORAGE_METHOD:
        return hex_data(parse_quantity(answer, "a storage slot").to_bytes(32, "big"))
    return hex(parse_quantity(answer, QUANTITY_METHODS[method]))


class CheckedProvider(JSONBaseProvider):
    """Base of our providers, each also a Transport: `batch` returns raw answers, web3 gets checked
    ones. web3 can neither send nor use a method whose answers have no check.
    """

    global_ccip_read_enabled = False
    name: str

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """See Transport."""
        raise NotImplementedError

    def call(self, method: str, params: list[Any]) -> Any:
        """See Transport."""
        return require_result(self.name, method, self.batch([(method, params)])[0])

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """See web3's BaseProvider. Raises CallFailed and the errors of Transport, not web3's."""
        return self.make_batch_request([(method, params)])[0]

    def make_batch_request(self, calls: Sequence[tuple[RPCEndpoint, Any]]) -> list[RPCResponse]:
        """See web3's JSONBaseProvider: all calls in one HTTP request. Raises as `make_request`."""
        for method, _ in calls:
            if method not in (BLOCK_METHOD, CALL_METHOD, STORAGE_METHOD, *QUANTITY_METHODS):
                raise NotImplementedError(f"{method} is not for web3: its answers have no check")
        answers = self.batch([(str(method), list(params)) for method, params in calls])
        return [
            {
                "jsonrpc": "2.0",
                "id": request_id,
                "result": checked_answer(method, require_result(self.name, method, answer)),
            }
            for request_id, ((method, _), answer) in enumerate(zip(calls, answers, strict=True))
        ]


def open_web3(provider: CheckedProvider) -> Web3:
    """Return web3 over a provider, without middleware, which would send requests of its own."""
    return Web3(provider, middleware=[], modules={"eth": Eth, "net": Net})


_UNFORMATTED_METHODS: dict[str, Method[Any]] = {
    method: Method(
        RPCEndpoint(method),
        request_formatters=lambda method: None,
        result_formatters=lambda method, module: None,
    )
    for method in (BLOCK_METHOD, CALL_METHOD, STORAGE_METHOD, *QUANTITY_METHODS)
}
"""Methods whose parameters and answers web3 leaves as they are."""


def read_batch(provider: CheckedProvider, calls: Sequence[RpcCall]) -> list[Any]:
    """Return the checked answers to `calls`, read by web3 in one batch. Raises as `make_request`."""
    module = Module(Web3(provider, middleware=[], modules={}))

    def read() -> list[Any]:
        with module.w3.batch_requests() as batch:
            for method, params in calls:
                batch.add(_UNFORMATTED_METHODS[method].__get__(module)(*params))
            return list(batch.execute())

    return run_batch(read)


def run_batch(read: Callable[[], T]) -> T:
    """Return `read()`, which reads a batch of web3. It runs in a copy of the context: web3 sets a
    variable of each provider there, which the thread's own context would keep for ever.
    """
    return copy_context().run(read)
