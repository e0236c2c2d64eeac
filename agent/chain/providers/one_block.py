"""web3 at one block: contract calls that stay at its hash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from web3.types import RPCEndpoint, RPCResponse

from agent.chain.providers.checked import CALL_METHOD, CheckedProvider
from agent.chain.rpc import RpcCall, Transport, block_ref_at_hash, parse_bytes
from agent.errors import ErrorCode, TrimtabError


class BlockProvider(CheckedProvider):
    """Provider of contract calls at the block `block_hash`. web3 would ask for the number of a hash
    and call at that. With `answer_sizes`, the calls of a batch return exactly these numbers of
    bytes.
    """

    def __init__(
        self, transport: Transport, block_hash: str, answer_sizes: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.name = transport.name
        self._transport = transport
        self._block_hash = block_hash
        self._answer_sizes = answer_sizes

    def move_to(self, transport: Transport, block_hash: str) -> None:
        """Call at another block from now on, by this transport."""
        self._transport = transport
        self._block_hash = block_hash

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """See Transport. Only recipient and data of a call are passed on."""
        block_ref = block_ref_at_hash(self._block_hash)
        answers = self._transport.batch(
            [
                (
                    method,
                    [
                        {call_field: params[0][call_field] for call_field in ("to", "data")},
                        block_ref,
                    ],
                )
                for method, params in calls
            ]
        )
        for answer, byte_count in zip(answers, self._answer_sizes, strict=False):
            if isinstance(answer, str):
                parse_bytes(answer, "a quote", byte_count)
        return answers

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """See web3's BaseProvider. The network id is always "1", because uniswap-python rejects
        unknown ids and does not use it otherwise. The nonce is always 0, because nothing is sent.
        """
        if method in _FIXED_ANSWERS:
            return {"jsonrpc": "2.0", "id": 1, "result": _FIXED_ANSWERS[method]}
        if method != CALL_METHOD:
            raise TrimtabError(
                f"the library called {method}, which is not allowed", code=ErrorCode.METHOD
            )
        return super().make_request(method, params)


_FIXED_ANSWERS = {"net_version": "1", "eth_getTransactionCount": "0x0"}
