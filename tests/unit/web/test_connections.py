"""Connections that are idle, slow or many leave the dashboard reachable, and with it the remote pause."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.config.load import load_config
from agent.errors import ConfigError
from agent.store import open_store
from agent.web import connections
from agent.web.access import Access, AccessMiddleware
from agent.web.connections import MAX_CONNECTIONS, MAX_CONNECTIONS_PER_NETWORK, REQUEST_TIMEOUT_S
from agent.web.document_cache import MAX_STREAMS, MAX_USER_STREAMS
from agent.web.reach import PROXY_HEADER, PublicOptions, reach_of, require_tls_access
from agent.web.server import _ending_quietly, _listen
from tests.support import agents
from tests.support.dashboards import PATIENCE_S, Served, until
from tests.support.pages.certificates import certificate
from tests.support.sites import PROXY_SECRET, READ_ONLY, Site, behind_proxy
from tests.support.text import raises_field

__all__ = ["certificate"]
HALF_OPEN = """
import resource, socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, hard))
links = []
for number in range(count):
    links.append(link := socket.create_connection(("127.0.0.1", port), timeout=60))
    try:
        link.sendall([b"", b"G", b"POST /login HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 9\\r\\n\\r\\n"][number % 3])
    except OSError:
        pass  # closed already, to make room
print("open", flush=True)
sys.stdin.read()
"""
HALVES = {
    "nothing": b"", "a part of the line": b"GET /lo", "headers without an end": b"GET /login HTTP/1.1\r\nHost: localhost\r\n",
    "a request without its body": b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nab",
    "a second request": b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\nGET /lo",
}  # fmt: skip


@contextmanager
def half_open(port: int, count: int) -> Iterator[None]:
    """Connections of another process, none of which sends a whole request."""
    with subprocess.Popen([sys.executable, "-c", HALF_OPEN, str(port), str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout.readline() == b"open\n"
            yield
        finally:
            child.kill()


@pytest.fixture
def few_files() -> Iterator[None]:
    """The usual limit of open files, whatever it is here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def opened(served: Served, sent: bytes = b"") -> socket.socket:
    link = socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_S)
    link.sendall(sent)
    return link


def is_closed(link: socket.socket) -> bool:
    """Read what there is; return whether the connection has ended."""
    link.setblocking(False)
    with suppress(BlockingIOError):
        try:
            while link.recv(65_536):
                pass
        except ConnectionError:
            pass
        return True
    return False


@pytest.mark.slow
@pytest.mark.usefixtures("few_files")
def test_1500_idle_connections__leave_the_pause_reachable(tmp_path: Path) -> None:
    config = agents.config(tmp_path)
    with Site(tmp_path / "mine.db.users", config=str(config)) as site:
        cookie = site.enter()
        token = site.token(cookie)
        with half_open(site.port, 1_500):
            began = time.monotonic()
            code, headers, _ = site.post("/controls/pause", {"csrf": token, "reason": "smoke", "hard": ""}, cookie)
            took_s = time.monotonic() - began
            assert (code, headers["location"]) == (303, "/controls")
            assert len(site.server.server_state.connections) <= MAX_CONNECTIONS_PER_NETWORK < MAX_CONNECTIONS < 1_024
            assert REQUEST_TIMEOUT_S == 10
    loaded = load_config(config)
    store = open_store(loaded.store_url, 1, loaded.config.wallet.address, loaded.config.chain.wrapped_native)
    assert store.pause_switch.read().reason == "smoke"
    store.close()
    assert took_s < PATIENCE_S


@pytest.mark.parametrize("sent", HALVES.values(), ids=HALVES)
def test_a_connection_without_a_whole_request_is_closed(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.3)
    with Served() as served, opened(served, sent) as link, served.stream() as stream:
        until(lambda: is_closed(link))
        time.sleep(0.5)
        assert not is_closed(stream), "a request that is being answered takes as long as it needs"


def test_a_tls_handshake_that_stalls_is_closed(certificate: PublicOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.3)
    with Served(None, ssl_certfile=certificate.tls_cert, ssl_keyfile=certificate.tls_key) as served:
        context = ssl.create_default_context(cafile=str(certificate.tls_cert))
        with (
            opened(served) as silent,
            opened(served, b"\x16\x03\x01") as slow,
            context.wrap_socket(opened(served), server_hostname="localhost") as link,
        ):
            link.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            until(lambda: is_closed(silent) and is_closed(slow))
            assert b"text/event-stream" in link.recv(65_536)


def test_a_slow_trickle_does_not_lengthen_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.4)
    with Served() as served, opened(served, b"GET / HTTP/1.1\r\n") as link:
        began = time.monotonic()
        while not is_closed(link):
            with suppress(OSError):
                link.sendall(b"X: y\r\n")
            time.sleep(0.05)
            assert time.monotonic() - began < PATIENCE_S


LARGE = 40_000_000


class Large(Served):
    """A server of large answers, each in a number of parts, which waits until it may begin."""

    def __init__(self, answer_bytes: int = LARGE, part_count: int = 1, **options: Any) -> None:
        self.part = b"x" * (answer_bytes // part_count)
        self.part_count = part_count
        self.may_answer = threading.Event()
        self.requests = 0
        super().__init__(**options)

    def application(self, access: Access | None) -> Any:
        async def answer(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                for done in ("startup", "shutdown"):
                    await receive()
                    await send({"type": f"lifespan.{done}.complete"})
                return
            self.requests += 1
            await asyncio.to_thread(self.may_answer.wait, PATIENCE_S)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for number in range(self.part_count):
                await send({"type": "http.response.body", "body": self.part, "more_body": number + 1 < self.part_count})

        return answer


@pytest.mark.slow
def test_client_that_reads_nothing__is_closed_and_a_slow_one_not(monkeypatch: pytest.MonkeyPatch) -> None:
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with Large() as served, opened(served, request) as slow, opened(served, request):
        until(lambda: served.requests == 2)
        monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.3)
        monkeypatch.setattr(connections, "ANSWER_TIMEOUT_S", 3)
        served.may_answer.set()
        byte_count = 0
        while part := slow.recv(400_000):
            byte_count += len(part)
            time.sleep(0.01)
        assert byte_count > LARGE
        until(lambda: not served.server.server_state.connections)


REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
UNREAD_ANSWERS = {
    "many answers": (LARGE // 20, 1, 20 * REQUEST),
    "an answer in parts": (LARGE, 20, REQUEST),
    "answers in parts": (LARGE // 4, 5, 4 * REQUEST),
}
"""Bytes and parts of an answer, and the requests of a client."""


@pytest.mark.slow
@pytest.mark.parametrize(("answer_bytes", "part_count", "requests"), UNREAD_ANSWERS.values(), ids=UNREAD_ANSWERS)
def test_client_that_reads_nothing_of_what_waits_for_it__is_closed(
    answer_bytes: int, part_count: int, requests: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "ANSWER_TIMEOUT_S", 1)
    with Large(answer_bytes, part_count) as served, opened(served, requests) as slow, opened(served, requests) as unread:
        served.may_answer.set()
        byte_count = 0
        while byte_count < LARGE:
            byte_count += len(part := slow.recv(400_000))
            assert part, "a client that reads is not closed"
            time.sleep(0.02)
        until(lambda: unread.getsockname() not in served.door._connection_by_peer)


@pytest.mark.slow
@pytest.mark.parametrize("part_count", [1, 20], ids=["whole", "in parts"])
def test_client_that_reads_slowly_over_tls__is_not_closed(
    part_count: int, certificate: PublicOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.3)
    monkeypatch.setattr(connections, "ANSWER_TIMEOUT_S", 1)
    context = ssl.create_default_context(cafile=str(certificate.tls_cert))
    with (
        Large(part_count=part_count, ssl_certfile=certificate.tls_cert, ssl_keyfile=certificate.tls_key) as served,
        context.wrap_socket(opened(served), server_hostname="localhost") as slow,
    ):
        slow.sendall(REQUEST)
        served.may_answer.set()
        byte_count = 0
        while byte_count < LARGE:
            byte_count += len(part := slow.recv(400_000))
            assert part, "a client that reads is not closed"
            time.sleep(0.001)


@pytest.mark.parametrize(("answer_bytes", "part_count", "requests"), UNREAD_ANSWERS.values(), ids=UNREAD_ANSWERS)
def test_client_that_reads_nothing__makes_room(
    answer_bytes: int, part_count: int, requests: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS_PER_NETWORK", 1)
    with Large(answer_bytes, part_count) as served, opened(served, requests) as unread:
        served.may_answer.set()
        until(
            lambda: bool(served.door._connection_by_peer) and all(link.is_write_paused for link in served.door._connection_by_peer.values())
        )
        with opened(served, REQUEST) as link:
            assert link.recv(4_096).startswith(b"HTTP/1.1 200 OK")
        until(lambda: is_closed(unread))


@pytest.mark.parametrize("bound", ["MAX_CONNECTIONS_PER_NETWORK", "MAX_CONNECTIONS"])
def test_the_oldest_connection_without_a_request_makes_room(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, bound, 4)
    with ExitStack() as ended, Served() as served:
        stream = ended.enter_context(served.stream())
        until(lambda: served.board.streams.total() == 1)
        idle = [ended.enter_context(opened(served)) for _ in range(3)]
        until(lambda: len(served.server.server_state.connections) == 4)
        assert served.ask("/")[0] == 200
        until(lambda: is_closed(idle[0]))
        assert not any(map(is_closed, (*idle[1:], stream)))


@pytest.mark.parametrize("bound", ["MAX_CONNECTIONS_PER_NETWORK", "MAX_CONNECTIONS"])
def test_answered_connections__refuse_the_new_one(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, bound, 3)
    with ExitStack() as ended, Served() as served:
        streams = [ended.enter_context(served.stream()) for _ in range(3)]
        until(lambda: served.board.streams.total() == 3)
        with opened(served) as link:
            until(lambda: is_closed(link))
        assert not any(map(is_closed, streams))
        streams[0].close()
        until(lambda: served.board.streams.total() == 2)
        assert served.ask("/")[0] == 200


def test_streams_of_one_user_leave_room_for_the_owner(tmp_path: Path) -> None:
    with ExitStack() as ended, Site(tmp_path / "a.users") as site:
        reader = site.enter(READ_ONLY)
        owner = site.enter()
        streams = [ended.enter_context(site.stream(cookie=reader)) for _ in range(MAX_STREAMS)]
        heads = [stream.recv(4_096).split(b"\r\n")[0] for stream in streams]
        assert (heads.count(b"HTTP/1.1 200 OK"), heads.count(b"HTTP/1.1 429 Too Many Requests")) == (MAX_USER_STREAMS, 80)
        assert b"200 OK" in ended.enter_context(site.stream(cookie=owner)).recv(4_096)
        assert site.ask("/", Cookie=owner)[0] == 200
        streams[heads.index(b"HTTP/1.1 200 OK")].close()
        until(lambda: site.board.streams[READ_ONLY] == MAX_USER_STREAMS - 1)
        assert b"200 OK" in ended.enter_context(site.stream(cookie=reader)).recv(4_096)


def test_a_port_is_free_again_at_once_after_a_restart() -> None:
    with _listen("127.0.0.1", 0) as door:
        assert door.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0
        assert door.getsockname()[0] == "127.0.0.1"


def test_networks_of_addresses() -> None:
    assert connections._network("192.0.2.1") == connections._network("::ffff:192.0.2.1") == "192.0.2.1"
    assert connections._network("2001:db8::1") == connections._network("2001:db8::ffff%eth0") != connections._network("2001:db8:0:1::1")


# --- The proxy.


@pytest.fixture
def proxied(tmp_path: Path) -> PublicOptions:
    return behind_proxy(tmp_path)


@pytest.mark.parametrize(
    "proofs", [[], [""], ["x" * len(PROXY_SECRET)], [PROXY_SECRET[:-1]], [PROXY_SECRET] * 2, [PROXY_SECRET.upper()], ["é"]], ids=str
)  # fmt: skip
def test_a_local_account_cannot_pose_as_the_proxy(proofs: list[str], proxied: PublicOptions) -> None:
    reach = reach_of("127.0.0.1", 1, proxied)
    assert PROXY_SECRET not in repr(reach)
    checks = AccessMiddleware(None, Access(reach))  # type: ignore[arg-type]
    headers = [(b"host", b"dash.example.org"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-for", b"203.0.113.5")]
    scope = {"type": "http", "method": "GET", "path": "/", "client": ("127.0.0.1", 1)}
    genuine = (PROXY_HEADER.encode(), PROXY_SECRET.encode())
    assert checks._check_request({**scope, "headers": [*headers, genuine]}) is None
    forged = [(PROXY_HEADER.encode(), proof.encode("latin-1")) for proof in proofs]
    refused = checks._check_request({**scope, "headers": [*headers, *forged]})
    assert refused.status_code == 403
    refused = checks._check_request({**scope, "headers": [*headers, genuine], "client": ("192.0.2.9", 1)})
    assert refused.status_code == 403


def test_the_secret_of_the_proxy_is_needed_long_and_private(proxied: PublicOptions) -> None:
    file = proxied.proxy_secret_file
    require_tls_access("127.0.0.1", 1, proxied)
    for options in (PublicOptions(proxy="dash.example.org"), PublicOptions(proxy_secret_file=file)):
        with pytest.raises(ConfigError, match="--proxy-secret: needed with --proxy"):
            require_tls_access("127.0.0.1", 1, options)
    file.chmod(0o640)
    with pytest.raises(ConfigError) as error:
        require_tls_access("127.0.0.1", 1, proxied)
    assert error.value.remedy == f"chmod 600 {file}"
    file.chmod(0o600)
    for text in ("", "short", PROXY_SECRET + " x", "é" * 40):
        file.write_text(text)
        with pytest.raises(ConfigError) as error:
            require_tls_access("127.0.0.1", 1, proxied)
        assert "openssl rand" in error.value.remedy
        assert not text or text not in str(error.value)
    file.unlink()
    with raises_field("--proxy-secret"):
        require_tls_access("127.0.0.1", 1, proxied)


def test_the_connections_of_the_proxy_are_bounded_in_all_only(proxied: PublicOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS_PER_NETWORK", 2)
    with ExitStack() as ended, Served(Access(reach_of("127.0.0.1", 1, proxied))) as served:
        links = [ended.enter_context(opened(served)) for _ in range(6)]
        until(lambda: len(served.server.server_state.connections) == 6)
        assert not any(map(is_closed, links))


@pytest.mark.parametrize(
    ("error", "stops", "is_logged"),
    [
        pytest.param(None, True, False, id="answers cancelled"),
        pytest.param(asyncio.CancelledError(), True, False, id="answer cancelled"),
        pytest.param(ValueError(), True, True, id="another error"),
        pytest.param(asyncio.CancelledError(), False, True, id="cancelled without a stop"),
    ],
)
def test_stop__ends_without_the_traceback_of_a_cancelled_answer(
    caplog: pytest.LogCaptureFixture, error: BaseException | None, stops: bool, is_logged: bool
) -> None:
    with _ending_quietly(lambda: stops):
        logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)
    assert bool(caplog.records) is is_logged
