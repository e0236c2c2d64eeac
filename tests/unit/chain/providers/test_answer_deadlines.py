"""A server that never ends the headers of its answer: each caller leaves after its time-out, whatever arrives meanwhile."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.providers.sessions import RedirectFreeSession, open_session
from agent.errors import ErrorCode, Retryable
from agent.observe.watch import Heartbeat
from tests.support.text import raises_code

TIMEOUT_S = 0.4
SOON_S = 5.0
UNENDING: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"", b""),
    "status line": (b"HTTP/1.1 200 O", b"K"),
    "header": (b"HTTP/1.1 200 OK\r\nServer: n", b"x"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"A: 1\r\n"),
    "continues": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}
"""What a server sends at first, and then again and again."""


@contextmanager
def unending_server(first: bytes, repeated: bytes) -> Iterator[str]:
    """Yield the address of a server that answers each connection without an end."""
    has_ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the caller leaves
            connection.sendall(first)
            while not has_ended.wait(0.05):
                connection.sendall(repeated)

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/canary"
    finally:
        has_ended.set()
        listener.close()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("answer", UNENDING.values(), ids=UNENDING.keys())
def test_endpoint__headers_never_end__is_a_time_out(answer: tuple[bytes, bytes]) -> None:
    with unending_server(*answer) as url:
        started_s = time.monotonic()
        with raises_code(Retryable, ErrorCode.UNREACHABLE, "did not answer within 0.4 s") as refusal:
            EndpointProvider(url, "a", TIMEOUT_S, attempts=1).batch([("eth_chainId", [])])
        assert time.monotonic() - started_s < SOON_S
    assert "canary" not in str(refusal.value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("answer", UNENDING.values(), ids=UNENDING.keys())
def test_heartbeat__headers_never_end__is_one_failure(answer: tuple[bytes, bytes]) -> None:
    failures: list[str] = []
    with unending_server(*answer) as url:
        heartbeat = Heartbeat(url, "GET", failures.append, timeout_s=TIMEOUT_S)
        heartbeat.beat()
        started_s = time.monotonic()
        heartbeat.wait_until_sent(20)
        assert time.monotonic() - started_s < SOON_S
    assert failures == ["127.0.0.1: no answer in time"]


@pytest.mark.timeout(20)
def test_session__endless_headers_behind_a_proxy__time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with unending_server(*UNENDING["header"]) as proxy_url:
        monkeypatch.setenv("http_proxy", proxy_url)
        session = open_session("http://node.example/")
        with pytest.raises(OSError, match="Read timed out"):
            session.get("http://node.example/", timeout=TIMEOUT_S)


def test_session__late_body_after_prompt_headers__is_read_whole() -> None:
    """The time-out of the headers is no time-out of the body, which its reader limits."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(10_000)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
            for letter in b"answer":
                time.sleep(0.1)
                connection.sendall(bytes([letter]))

    with listener, RedirectFreeSession() as session:
        threading.Thread(target=answer, daemon=True).start()
        response = session.get(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=TIMEOUT_S, stream=True)
        assert response.raw.connection.sock.gettimeout() == TIMEOUT_S, "each read of the body has the whole time"
        assert response.text == "answer"
