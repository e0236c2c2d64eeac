"""Endpoints for tests: HTTP servers on loopback with scripted answers or in front of a node, and scripted ones without a network."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

import rlp
from eth_utils.crypto import keccak

from agent.chain.pools.reading import PoolRef
from agent.chain.rpc import HASHED_HEADER_FIELDS, RpcCall, RpcFault, Transport
from agent.chain.snapshot import ChainReader
from agent.chain.tokens import read_tokens
from agent.chain.watch import SnapshotScope
from agent.errors import Retryable
from agent.localchain import LocalChain
from agent.localchain.nodes import LocalProvider
from agent.units import Token
from agent.venues.discovery import discover_pools
from agent.venues.kinds.uniswap_v2 import UniswapV2
from agent.venues.kinds.uniswap_v3 import UniswapV3
from tests.support.fakes.http_server import LoopbackHandler, listening
from tests.support.fakes.transport import AlterAnswer, RecordingTransport


@dataclass
class Reply:
    """Answer of the server: status and body. The body is sent after `delay_s`, in `parts` that are `pause_s` apart."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    parts: int = 1
    pause_s: float = 0.0
    claimed_length: int | None = None
    cut: str = ""
    """"close" closes the connection without an answer, "reset" with a TCP reset."""


Answerer = Callable[[Any], Reply]


def rpc_answer(request: Any, result: Callable[[str, list[Any]], Any]) -> Any:
    """Return a valid JSON-RPC answer to a request or batch, by a function of method and params."""
    if isinstance(request, list):
        return [rpc_answer(call, result) for call in request]
    return {"jsonrpc": "2.0", "id": request["id"], "result": result(request["method"], request["params"])}


def good(result: Callable[[str, list[Any]], Any] = lambda method, params: "0x1") -> Answerer:
    """Return the answers of a server that answers every call."""
    return lambda request: Reply(json.dumps(rpc_answer(request, result)).encode())


def erring(error: object, *, most: int | None = None, status: int = 200, **more: object) -> Answerer:
    """Return the answers of a server with this error for each call, or at most for so many of a batch; `more` are further fields."""

    def answer(request: Any) -> Reply:
        is_batch = isinstance(request, list)
        calls = request[:most] if is_batch else [request]
        answers = [{"jsonrpc": "2.0", "id": call["id"], "error": error, **more} for call in calls]
        return Reply(json.dumps(answers if is_batch else answers[0]).encode(), status)

    return answer


@dataclass
class Served:
    """A running server: its URL, and the parsed bodies and the headers of its requests."""

    url: str
    seen: list[Any]
    headers: list[Message]


@contextmanager
def serve(answer: Answerer) -> Iterator[Served]:
    """Run an HTTP server on loopback that answers every POST by `answer`."""
    requests: list[Any] = []
    headers: list[Message] = []

    class Handler(LoopbackHandler):
        def parse_request(self) -> bool:
            """Parse plain headers like Python's mail parser, in a fifth of its time."""
            self.requestline = str(self.raw_requestline, "latin-1").strip()
            self.command, self.path, self.request_version = self.requestline.split()
            self.headers, self.close_connection = Message(), False
            while line := str(self.rfile.readline(), "latin-1").strip():
                name, _, value = line.partition(":")
                self.headers[name] = value.strip()
            return True

        def do_POST(self) -> None:
            request = json.loads(self.body())
            requests.append(request)
            headers.append(self.headers)
            reply = answer(request)
            time.sleep(reply.delay_s)
            if reply.cut:
                self._cut(reply.cut)
                return
            try:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                length = len(reply.body) if reply.claimed_length is None else reply.claimed_length
                self.send_header("Content-Length", str(length))
                self.end_headers()
                size = -(-len(reply.body) // reply.parts)
                for start in range(0, len(reply.body), max(1, size)):
                    self.wfile.write(reply.body[start : start + size])
                    self.wfile.flush()
                    time.sleep(reply.pause_s)
            except OSError:
                pass  # the client closed the connection, as some tests intend
            if reply.claimed_length is not None:
                self.close_connection = True

        def _cut(self, how: str) -> None:
            if how == "reset":  # with a linger time of zero the kernel sends RST instead of FIN
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            self.close_connection = True

        def finish(self) -> None:
            with contextlib.suppress(OSError, ValueError):  # after a reset there is nothing left to flush
                super().finish()

    with listening(Handler) as port:
        yield Served(f"http://127.0.0.1:{port}", requests, headers)


def passing_on(url: str) -> Answerer:
    """Return the answers of the node at `url`, so that requests can be counted."""
    node = LocalProvider(url)
    return lambda request: Reply(node.post(json.dumps(request).encode()))


def altering_answerer(url: str, alter: Callable[[str, list[Any], Any], Any]) -> Answerer:
    """Return the answers of the node at `url`, with each call's result changed by `alter`."""
    forward = passing_on(url)

    def answer(request: Any) -> Reply:
        document = json.loads(forward(request).body)
        calls, answers = (request, document) if isinstance(request, list) else ([request], [document])
        by_id = {call["id"]: call for call in calls}
        for answer_document in answers:
            if "result" in answer_document:
                call = by_id[answer_document["id"]]
                answer_document["result"] = alter(call["method"], call["params"], answer_document["result"])
        return Reply(json.dumps(document).encode())

    return answer


def methods(request: Any) -> list[str]:
    """Return the methods of a request or batch."""
    return [call["method"] for call in (request if isinstance(request, list) else [request])]


# --- An endpoint with switchable faults, and one that remembers every sent transaction.


Alter = Callable[[Any], Any]
SEND = "eth_sendRawTransaction"


def _more(by: int) -> Alter:
    return lambda answer: hex(int(answer, 16) + by)


def _field(name: str, change: Alter) -> Alter:
    return lambda answer: {**answer, name: change(answer[name])} if isinstance(answer, dict) and answer.get(name) else answer


def _flipped(at: int) -> Alter:
    """Return a change that flips a bit of one byte of the data, at `at` thousandths of its length."""

    def alter(answer: Any) -> Any:
        if not isinstance(answer, str) or len(answer) < 4:
            return answer
        raw = bytearray.fromhex(answer[2:])
        raw[min(len(raw) - 1, len(raw) * at // 1_000)] ^= 1
        return "0x" + raw.hex()

    return alter


LIES: dict[str, tuple[str, Alter]] = {
    "another chain": ("eth_chainId", lambda _: "0x1"),
    "a nonce too many": ("eth_getTransactionCount", _more(1)),
    "no nonce used": ("eth_getTransactionCount", lambda _: "0x0"),
    "no native coin": ("eth_getBalance", lambda _: "0x0"),
    "a head in the future": ("eth_getBlockByNumber", _field("timestamp", _more(3_600))),
    "a head of long ago": ("eth_getBlockByNumber", _field("timestamp", _more(-3_600))),
    "another block": ("eth_getBlockByNumber", _field("hash", lambda _: "0x" + "ab" * 32)),
    "a high base fee": ("eth_getBlockByNumber", _field("baseFeePerGas", _more(10**12))),
    "other state, early in the page": ("eth_call", _flipped(60)),
    "other state, late in the page": ("eth_call", _flipped(700)),
    "no state": ("eth_call", lambda _: "0x"),
    "a dear call": ("eth_estimateGas", _more(10**7)),
    "a call that fails": ("eth_estimateGas", lambda _: RpcFault(3, "execution reverted", "0x")),
    "a revert": ("eth_getTransactionReceipt", _field("status", lambda _: "0x0")),
    "no receipt": ("eth_getTransactionReceipt", lambda _: None),
    "a receipt without logs": ("eth_getTransactionReceipt", _field("logs", lambda _: [])),
    "unknown transaction": ("eth_getTransactionByHash", lambda _: None),
    "an object for a number": ("eth_getTransactionCount", lambda _: {"a": []}),
    "a number without end": ("eth_gasPrice", lambda _: "0x" + "f" * 5_000),
    "nonsense": ("eth_getBlockByNumber", lambda _: [[], None]),
}
"""Faulty answers by name: the method, and the change of its answers."""
SENDING = ("takes it and says so to nobody", "says that it took it, and did not", "says that the nonce is used")
MOODS = ("honest", "down", "every third request fails", *SENDING, *LIES)


class EndpointFaults:
    """Faults of the endpoint `transport`, which is truthful while `mood` is "honest"."""

    def __init__(self, line: Transport, operator: str) -> None:
        self.mood = "honest"
        self.transport = RecordingTransport(line, operator, self._change, intercept=self._intercept)

    def _intercept(self, calls: Sequence[RpcCall]) -> list[Any] | None:
        if self.mood == "down" or (self.mood == "every third request fails" and self.transport.request_count % 3 == 0):
            raise Retryable(f"{self.transport.name} cannot be reached")
        return [self._send(*calls[0])] if calls[0][0] == SEND and self.mood in SENDING else None

    def _change(self, method: str, params: list[Any], answer: Any) -> Any:
        of, alter = LIES.get(self.mood, ("", lambda answer: answer))
        return alter(answer) if method == of and not isinstance(answer, RpcFault) else answer

    def _send(self, method: str, params: list[Any]) -> Any:
        if self.mood == SENDING[0]:
            self.transport.line.call(method, params)
            raise Retryable(f"{self.transport.name} closed the connection during its answer")
        return "0x" + bytes(keccak(hexstr=params[0])).hex() if self.mood == SENDING[1] else RpcFault(-32000, "nonce too low")


def remembering(line: Transport, operator: str, sent: list[str]) -> RecordingTransport:
    """Return an endpoint that notes the hash of every transaction sent through it."""

    def note(calls: Sequence[RpcCall]) -> None:
        sent.extend("0x" + bytes(keccak(hexstr=params[0])).hex() for method, params in calls if method == SEND)

    return RecordingTransport(line, operator, intercept=note)


# --- Transports between the agent and a truthful chain that alter single answers.


def newest(**changes: Callable[[int], int]) -> AlterAnswer:
    """Return a change of quantities of the newest header only; by number and by hash it stays true."""

    def alter(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getBlockByNumber" and params[0] == "latest":
            return answer | {field: hex(change(int(answer[field], 16))) for field, change in changes.items()}
        return answer

    return alter


def forged_header(header: Mapping[str, Any], ahead: int) -> dict[str, Any]:
    """Return a header `ahead` blocks later whose hash is that of its fields, as anybody can make one up."""
    block = {**header, "number": hex(int(header["number"], 16) + ahead)}
    fields = [
        int(block[name], 16) if is_number else bytes.fromhex(block[name][2:])
        for name, is_number in HASHED_HEADER_FIELDS
        if block.get(name) is not None
    ]
    return block | {"hash": "0x" + keccak(rlp.encode(fields)).hex()}


# --- Shared by tests of reading: the scope of a whole local chain, and endpoints that lie, lag or limit gas.


FEE_TIERS = (100, 500, 3000, 10_000)
TWAP_WINDOW_S = 1_800


def venues(chain: LocalChain, v2_pools: Sequence[str] | None = None, v3_pools: Sequence[str] | None = None) -> tuple[UniswapV2, UniswapV3]:
    """Return both venues of the local chain."""
    at = chain.addresses
    v3 = UniswapV3("uniswap_v3", at.v3_factory, fee_tiers=FEE_TIERS, pools=v3_pools)
    return UniswapV2("uniswap_v2", at.v2_factory, pools=v2_pools), v3


def tokens(chain: LocalChain) -> tuple[Token, ...]:
    """Read the tokens of the world from the chain."""
    return read_tokens(chain.transport, [token.address for token in chain.tokens.values()])


def pools(chain: LocalChain) -> tuple[PoolRef, ...]:
    """Discover all pools of the world."""
    return discover_pools(chain.transport, venues(chain), tokens(chain), ())


def watch(chain: LocalChain, **changes: Any) -> SnapshotScope:
    """Return the scope of everything on the chain."""
    at = chain.addresses
    parts: dict[str, Any] = {
        "owner": chain.wallet.address,
        "tokens": tokens(chain),
        "spenders": (at.swap_router_02,),
        "pools": changes.get("pools") or pools(chain),
        "feeds": tuple(chain.feed_addresses.values()),
        "code_addresses": (at.swap_router_02, at.v3_factory),
        "twap_window_s": TWAP_WINDOW_S,
        "impact_bps": 100,
        **changes,
    }
    return SnapshotScope(**parts)


def reader(chain: LocalChain, *lines: Transport, min_operators: int = 1, chain_id: int | None = None, **changes: Any) -> ChainReader:
    """Return a reader of everything on the chain, by default through its own transport."""
    return ChainReader(lines or (chain.transport,), chain_id or chain.chain_id, watch(chain, **changes), chain.clock, min_operators)
