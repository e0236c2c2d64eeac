"""Prometheus metrics of a run, updated each cycle, and the HTTP server for metrics and health."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)

from agent.errors import ConfigError
from agent.hosts import host_name, is_loopback
from agent.observe.health import RunHealth

disable_created_metrics()  # type: ignore[no-untyped-call]  # untyped; the creation time of a counter is useless

OUTCOMES = (
    "hold",
    "halt",
    "planned",
    "refused",
    "declined",
    "done",
    "failed",
    "retryable",
    "error",
)
"""Outcomes of a cycle: those of a step; `retryable` or `error` if an error ended the cycle."""


@dataclass(frozen=True, slots=True)
class CycleFigures:
    """Figures of one cycle, None if unknown. `value` is in whole coins of the numeraire,
    `drifts_bps` by symbol.

    `loss_share` is the loss of 24 h as a share of limits.daily_loss, None if that limit is off;
    `endpoints` are (operator, score from 0 to 1).
    """

    outcome: str
    took_s: float
    paused: bool
    open_intents: int
    value: float | None = None
    drifts_bps: Mapping[str, int] | None = None
    head_s: int | None = None
    transactions: Mapping[str, int] | None = None
    gas_24h_wei: int | None = None
    loss_share: float | None = None
    endpoints: Sequence[tuple[str, float]] = ()


class Metrics:
    """Metrics in a registry of their own, so that no others are exported. `now_s` is the wall
    clock, Unix seconds.
    """

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry()
        self._now_s = now_s
        self._looks = self._counter("trimtab_looks_total", "Cycles by outcome", "outcome")
        for outcome in OUTCOMES:
            self._looks.labels(outcome)
        self._transactions = self._counter(
            "trimtab_transactions_total",
            "Transactions by state after the last cycle",
            "kind",
            "state",
        )
        self._gas = self._gauge(
            "trimtab_gas_spent_24h_wei", "Gas spent in the last 24 h of chain time, wei"
        )
        self._failures = self._counter("trimtab_heartbeat_failures_total", "Failed heartbeats")
        self._took = self._gauge("trimtab_look_seconds", "Duration of the last cycle")
        self._last = self._gauge(
            "trimtab_last_look_timestamp_seconds", "End of the last cycle, Unix seconds"
        )
        self._value = self._gauge(
            "trimtab_portfolio_value", "Value of the portfolio, whole coins of the numeraire"
        )
        self._drift = self._gauge(
            "trimtab_drift_bps", "Weight less target of each asset, bps", "symbol"
        )
        self._worst = self._gauge(
            "trimtab_worst_drift_bps", "Largest distance of a weight from its target, bps"
        )
        self._open = self._gauge("trimtab_open_intents", "Transactions that are not final")
        self._endpoint = self._gauge(
            "trimtab_endpoint_score",
            "Score of each operator's worst endpoint, from 0 to 1",
            "operator",
        )
        self._paused = self._gauge(
            "trimtab_paused", "1 while the kill switch is on or cannot be read"
        )
        self._loss = self._gauge(
            "trimtab_loss_budget_used",
            "Loss of 24 h as a share of limits.daily_loss; NaN if that is off",
        )
        self._healthy = self._gauge("trimtab_healthy", "1 while /health is green")
        self._head_s: int | None = None
        head_age = self._gauge(
            "trimtab_head_age_seconds", "Age of the head of the last snapshot; NaN before the first"
        )
        head_age.set_function(
            lambda: float("nan") if self._head_s is None else self._now_s() - self._head_s
        )

    def on_cycle(self, cycle: CycleFigures) -> None:
        """Set the figures of one cycle."""
        self._looks.labels(cycle.outcome).inc()
        self._took.set(cycle.took_s)
        self._last.set(self._now_s())
        self._paused.set(cycle.paused)
        self._open.set(cycle.open_intents)
        for name, count in (cycle.transactions or {}).items():
            kind, _, state = name.partition(" ")
            self._transactions.labels(kind, state).inc(count)
        if cycle.head_s is not None:
            self._head_s = cycle.head_s
        if cycle.gas_24h_wei is not None:
            self._gas.set(cycle.gas_24h_wei)
        if cycle.value is not None:
            self._value.set(cycle.value)
            self._loss.set(float("nan") if cycle.loss_share is None else cycle.loss_share)
        if cycle.drifts_bps is not None:
            for symbol, bps in cycle.drifts_bps.items():
                self._drift.labels(symbol).set(bps)
            self._worst.set(max((abs(bps) for bps in cycle.drifts_bps.values()), default=0))
        worst: dict[str, float] = {}
        for operator, score in cycle.endpoints:
            worst[operator] = min(score, worst.get(operator, 1.0))
        for operator, score in worst.items():
            self._endpoint.labels(operator).set(score)

    def heartbeat_failed(self) -> None:
        """Count a failed heartbeat."""
        self._failures.inc()

    def health(self, healthy: Callable[[], bool]) -> None:
        """Set the source of `trimtab_healthy`, which is called at each scrape."""
        self._healthy.set_function(lambda: float(healthy()))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, registry=self.registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(name, what, labels, registry=self.registry)


# --- HTTP server of /metrics, /health and /ready, on loopback unless the config allows another
# address.


_AT_ONCE = 32
"""Maximum number of concurrent clients, which bounds the number of threads."""
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
        self.loopback = is_loopback(address[0])
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle each client in a thread, up to the maximum."""
        if self.slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle one client in its own thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore client disconnects."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE_S
    server: _Server
    server_version = "trimtab"
    sys_version = ""
    wbufsize = 2**16
    """Headers and body are sent in one write, because a separate body would wait 40 ms (Nagle,
    delayed acknowledgements).
    """

    def do_GET(self) -> None:
        """Answer a GET."""
        self._write(self._answer())

    def _answer(self) -> Answer:
        # refuse DNS rebinding: a web page whose name resolves to this address
        if self.server.loopback and not is_loopback(host_name(self.headers.get("Host", ""))):
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
        """Log nothing for requests."""


@contextmanager
def serving(host: str, port: int, metrics: Metrics, health: RunHealth) -> Iterator[int]:
    """Serve inside the context; yield the port, which the system chooses for port 0. Raises
    ConfigError if it cannot listen.
    """
    try:
        server = _Server((host, port), lambda path: _answers(path, metrics, health))
    except OSError as error:
        raise ConfigError(
            f"service.listen: cannot listen on {host} port {port}: {error.strerror}",
            "choose a free port",
        ) from None
    thread = threading.Thread(
        target=server.serve_forever, args=(_POLL_S,), name="trimtab metrics", daemon=True
    )
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_PATIENCE_S)


def _answers(path: str, metrics: Metrics, health: RunHealth) -> Answer | None:
    match path:
        case "/metrics":
            return 200, CONTENT_TYPE_LATEST, metrics.text()
        case "/health":
            return _health_answer(health, health.unhealthy_reason())
        case "/ready":
            return _health_answer(health, health.not_ready_reason())
        case _:
            return None


def _health_answer(health: RunHealth, reasons: list[str]) -> Answer:
    code = 503 if reasons else 200
    return code, "application/json", json.dumps(health.document(reasons)).encode() + b"\n"
