"""Endpoints for tests: HTTP servers on loopback that answer as scripted or pass on to a node, and scripted ones without a network."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

from agent.chain.rpc import CallFailed, RpcCall, RpcFault


@dataclass
class Reply:
    """What the server sends: a status and a body; the body's parts come `pause_s` apart, after `delay_s`."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    parts: int = 1
    pause_s: float = 0.0
    claimed_length: int | None = None
    cut: str = ""
    """"close" ends the connection without a word, "reset" with a TCP reset."""


Answerer = Callable[[Any], Reply]


def answered(asked: Any, result: Callable[[str, list[Any]], Any]) -> Any:
    """A proper JSON-RPC answer to a request or batch, by a function of method and params."""
    if isinstance(asked, list):
        return [answered(one, result) for one in asked]
    return {"jsonrpc": "2.0", "id": asked["id"], "result": result(asked["method"], asked["params"])}


def good(result: Callable[[str, list[Any]], Any] = lambda method, params: "0x1") -> Answerer:
    """A server that answers every call."""
    return lambda asked: Reply(json.dumps(answered(asked, result)).encode())


@dataclass
class Served:
    """A running server: its URL, and the parsed bodies and the headers of the requests it got."""

    url: str
    seen: list[Any]
    headers: list[Message]


@contextmanager
def serve(answer: Answerer) -> Iterator[Served]:
    """An HTTP server on loopback that answers every POST by `answer`."""
    seen: list[Any] = []
    headers: list[Message] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each body waits 40 ms for the other side to acknowledge its headers

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append(asked)
            headers.append(self.headers)
            reply = answer(asked)
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
                pass  # the client had enough, which is what some tests are about
            if reply.claimed_length is not None:
                self.close_connection = True

        def _cut(self, how: str) -> None:
            if how == "reset":  # with no time to linger the kernel sends RST instead of FIN
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            self.close_connection = True

        def finish(self) -> None:
            with contextlib.suppress(OSError, ValueError):  # of a connection that was reset nothing is left to flush
                super().finish()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{server.server_port}", seen, headers)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def passing_on(url: str) -> Answerer:
    """A server that hands every request to the node at `url`, so that requests can be counted."""
    session = requests.Session()
    return lambda asked: Reply(session.post(url, json=asked, timeout=30).content)


BLOCK = "0x" + "cd" * 32
HEAD_JSON = {"number": "0x10", "hash": BLOCK, "timestamp": "0x64", "baseFeePerGas": "0x7"}


class Script:
    """A node that answers by method what the test says; a function of the params may answer, an exception is raised."""

    def __init__(self, operator: str = "script", **answers: object) -> None:
        self.operator = operator
        self.name = f"endpoint {operator!r}"
        self.answers: dict[str, object] = {"eth_chainId": "0x7a69", "eth_getBlockByNumber": HEAD_JSON, **answers}
        self.asked: list[str] = []

    @property
    def requests(self) -> int:
        return len(self.asked)

    def batch(self, calls: Sequence[RpcCall]) -> list[object]:
        self.asked += [method for method, _ in calls]
        return [self._answer(method, params) for method, params in calls]

    def call(self, method: str, params: list[object]) -> object:
        answer = self.batch([(method, params)])[0]
        if isinstance(answer, RpcFault):
            raise CallFailed(f"refused: {answer.message}", answer)
        return answer

    def _answer(self, method: str, params: list[Any]) -> object:
        answer = self.answers[method]
        if callable(answer):
            answer = answer(params)
        if isinstance(answer, Exception):
            raise answer
        return answer


def altered(url: str, alter: Callable[[str, list[Any], Any], Any]) -> Answerer:
    """A server in front of the node at `url` that makes of each call's result what `alter` says."""
    forward = passing_on(url)

    def answer(asked: Any) -> Reply:
        said = json.loads(forward(asked).body)
        calls, answers = (asked, said) if isinstance(asked, list) else ([asked], [said])
        by_id = {call["id"]: call for call in calls}
        for one in answers:
            if "result" in one:
                call = by_id[one["id"]]
                one["result"] = alter(call["method"], call["params"], one["result"])
        return Reply(json.dumps(said).encode())

    return answer


def methods(asked: Any) -> list[str]:
    """Methods of a request or batch."""
    return [call["method"] for call in (asked if isinstance(asked, list) else [asked])]
