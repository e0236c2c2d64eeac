"""A redirect ends no run and no thread: its target is never parsed, and its body not read to an end that may never come."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.app.records.published import download
from agent.errors import ConfigError
from agent.model import AlertDevice, AlertKind, AlertMessage
from agent.observe.notify import AlertChannel, apprise_sender
from agent.observe.push import PushSender, encode_base64
from agent.observe.watch import Heartbeat, HttpMethod
from agent.web.reach import PublicOptions
from tests.support.pages.certificates import certificate

__all__ = ["certificate"]

LOCATIONS = [
    "http://[",
    "//[::1",
    "http://x:99999999/",
    "\xff\xfe",
    "",
    "file:///etc/passwd",
    "http://xn--\xff/",
    "http://" + "a." * 200,
    "http://*/",
]
REDIRECTS = [301, 302, 303, 307, 308]


@contextmanager
def redirecting(location: str, status: int = 302, tls: PublicOptions | None = None, *, is_endless: bool = False) -> Iterator[str]:
    """Yield host and port of a server that redirects each request; with `is_endless` its body never ends."""
    has_ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            self.send_response(status)
            self.send_header("Location", location)
            if not is_endless:
                self.send_header("Content-Length", "0")
            self.end_headers()
            with contextlib.suppress(OSError):  # the reader leaves
                while is_endless and not has_ended.wait(0.05):
                    self.wfile.write(b" ")

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(tls.tls_cert), str(tls.tls_key))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"localhost:{server.server_port}"
    finally:
        has_ended.set()
        server.shutdown()
        server.server_close()


def heartbeat_failures(host: str, method: HttpMethod) -> list[str]:
    failures: list[str] = []
    heartbeat = Heartbeat(f"http://{host}/canary", method, failures.append, timeout_s=20)
    heartbeat.beat()
    heartbeat.wait_until_sent(20)
    return failures


def pushed(host: str) -> int | str:
    """Return the outcome of a message to a browser whose push service is at `host`."""
    public_key = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    device = AlertDevice(f"https://{host}/device", encode_base64(public_key), encode_base64(b"secret of device"), "/alerts", "ann", 0)
    assert device.auth not in repr(device)
    sender = PushSender.from_url(f"webpush://me:{'5eed' * 16}@example.org?service={host}", "P")
    return sender.send(device, {"title": "halted"}, 20)


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_heartbeat__redirect_to_nowhere__is_one_failure(method: HttpMethod, location: str) -> None:
    with redirecting(location) as host:
        assert heartbeat_failures(host, method) == ["localhost: HTTP 302"]


@pytest.mark.parametrize("location", LOCATIONS)
def test_push__redirect_to_nowhere__is_an_answer(location: str, certificate: PublicOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.tls_cert))
    with redirecting(location, 307, certificate) as host:
        assert pushed(host) == 307


@pytest.mark.parametrize("location", LOCATIONS)
def test_webhook__redirect_to_nowhere__is_one_failure(location: str) -> None:
    with redirecting(location) as host:
        channel = AlertChannel("hook", apprise_sender(f"json://{host}/canary", "H", 15), 1, "trimtab", first_retry_s=0.01)
        channel.put(AlertMessage(1, "hook", AlertKind.HALT, "halted", 1))
        channel.close(20)
    (delivery,) = channel.take_results()
    assert delivery.failure_reason
    assert "canary" not in delivery.failure_reason


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("location", LOCATIONS)
def test_download__redirect_to_nowhere__is_refused_by_its_status(location: str, status: int) -> None:
    with redirecting(location, status) as host, pytest.raises(ConfigError, match=f"data.x.source: the server answers {status}"):
        download(f"http://{host}/a.csv", "data.x.source", 1_000, "name a file")


def test_heartbeat__body_of_a_redirect_never_ends__fails_at_once() -> None:
    started_s = time.monotonic()
    with redirecting("http://127.0.0.1:9/", is_endless=True) as host:
        assert heartbeat_failures(host, "GET") == ["localhost: HTTP 302"]
    assert time.monotonic() - started_s < 10


def test_push__endless_redirect_body__keeps_no_device_waiting(certificate: PublicOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.tls_cert))
    outcomes: list[int | str] = []
    with redirecting("/", 307, certificate, is_endless=True) as host:
        delivery = threading.Thread(target=lambda: outcomes.append(pushed(host)), daemon=True)
        delivery.start()
        delivery.join(10)
        assert outcomes == [307]
