"""Answers /metrics, /health and /ready over HTTP, on loopback unless another address was allowed by name."""

from __future__ import annotations

import ipaddress
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST

from agent.errors import ConfigError
from agent.observe.health import Health
from agent.observe.metrics import Metrics

_AT_ONCE = 32
"""Visitors at the same time; more are turned away, so that nobody fills the process with threads."""
_PATIENCE_S = 2.0
_POLL_S = 0.05
Answer = tuple[int, str, bytes]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 2 * _AT_ONCE

    def __init__(self, address: tuple[str, int], answers: Callable[[str], Answer | None]) -> None:
        self.address_family = AF_INET6 if ":" in address[0] else self.address_family
        self.answers = answers
        self.slots = threading.BoundedSemaphore(_AT_ONCE)
        self.loopback = ipaddress.ip_address(address[0]).is_loopback
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for each visitor, as long as there are few."""
        if self.slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One visitor, in a thread of its own."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A visitor who hangs up in the middle is no news."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE_S
    server: _Server
    server_version = "trimtab"
    sys_version = ""
    wbufsize = 2**16  # headers and body leave in one write: apart, the body waits 40 ms (Nagle, delayed acknowledgements)

    def do_GET(self) -> None:
        """Answers a GET."""
        self._write(self._answer())

    def _answer(self) -> Answer:
        if self.server.loopback and not _names_loopback(self.headers.get("Host", "")):  # a web page that was lent our address by DNS
            return 421, "text/plain", b"ask for a loopback address\n"
        found = self.server.answers(self.path.partition("?")[0])
        return found or (404, "text/plain", b"/metrics, /health, /ready\n")

    def _write(self, answer: Answer) -> None:
        code, kind, body = answer
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Visits are no events."""


def _names_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    name = name.strip("[]")
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@contextmanager
def serving(host: str, port: int, metrics: Metrics, health: Health) -> Iterator[int]:
    """Serves while inside; yields the port, which the system chooses for port 0. Raises ConfigError when it cannot listen."""
    try:
        server = _Server((host, port), lambda path: _answers(path, metrics, health))
    except OSError as error:
        raise ConfigError(f"service.listen: cannot listen on {host} port {port}: {error.strerror}", "choose a free port") from None
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_S,), name="trimtab metrics", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_PATIENCE_S)


def _answers(path: str, metrics: Metrics, health: Health) -> Answer | None:
    match path:
        case "/metrics":
            return 200, CONTENT_TYPE_LATEST, metrics.text()
        case "/health":
            return _told(health, health.red())
        case "/ready":
            return _told(health, health.unready())
        case _:
            return None


def _told(health: Health, reasons: list[str]) -> Answer:
    return (503 if reasons else 200), "application/json", json.dumps(health.document(reasons)).encode() + b"\n"
