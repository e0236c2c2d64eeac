"""Metrics and health over HTTP on loopback, and the heartbeat that goes out: neither can harm the run."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from agent.config.service import ServiceTable
from agent.errors import ConfigError
from agent.observe.health import Heartbeat, RunHealth
from agent.observe.metrics import OUTCOMES, CycleFigures, Metrics, serving
from tests.support.text import raises_field

LOOK = CycleFigures(
    "done", 1.5, False, 1, value=1000.5, drifts_bps={"WETH": -30, "USDC": 30}, head_s=1_000, transactions={"swap final": 1},
    gas_24h_wei=7, loss_share=0.25, endpoints=[("a", 1.0), ("a", 0.5), ("b", 0.9)],
)  # fmt: skip


def asked(port: int, path: str, **headers: str) -> requests.Response:
    return requests.get(f"http://127.0.0.1:{port}{path}", headers=headers, timeout=60)


def values(metrics: Metrics) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(metrics.text().decode())
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_a_look_sets_every_figure() -> None:
    metrics = Metrics(now_s=lambda: 1_012.0)
    metrics.on_cycle(LOOK)
    found = values(metrics)
    assert found[("trimtab_looks_total", "done")] == 1
    assert found[("trimtab_transactions_total", "swap", "final")] == 1
    assert found[("trimtab_portfolio_value",)] == 1000.5
    assert found[("trimtab_drift_bps", "WETH")] == -30
    assert found[("trimtab_worst_drift_bps",)] == 30
    assert found[("trimtab_head_age_seconds",)] == 12
    assert found[("trimtab_gas_spent_24h_wei",)] == 7
    assert found[("trimtab_loss_budget_used",)] == 0.25
    assert found[("trimtab_endpoint_score", "a")] == 0.5
    assert found[("trimtab_open_intents",)] == 1
    assert found[("trimtab_paused",)] == 0
    metrics.on_cycle(CycleFigures("retryable", 0.1, True, 0))
    found = values(metrics)
    assert found[("trimtab_portfolio_value",)] == 1000.5, "what a failed look does not know stays"
    assert found[("trimtab_paused",)] == 1
    assert {name[1] for name in found if name[0] == "trimtab_looks_total"} == set(OUTCOMES)


def test_headers_and_body_arrive_together() -> None:
    """Apart, the body waits 40 ms for the other side to acknowledge the headers (Nagle, delayed acknowledgements)."""
    with serving("127.0.0.1", 0, Metrics(), RunHealth(600)) as port:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as visitor:
                visitor.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                head, _, body = visitor.recv(2**20).partition(b"\r\n\r\n")
                assert f"Content-Length: {len(body)}".encode() in head


def test_health_ready_and_metrics_are_answered_and_nothing_else() -> None:
    metrics, health = Metrics(), RunHealth(600)
    metrics.health(lambda: not health.unhealthy_reason())
    with serving("127.0.0.1", 0, metrics, health) as port:
        assert asked(port, "/health").status_code == 200
        assert asked(port, "/ready").status_code == 503
        health.on_cycle("", "")
        assert asked(port, "/ready").status_code == 200
        health.on_cycle("halt: a token is quarantined", "")
        red = asked(port, "/health?verbose")
        assert (red.status_code, red.json()["reasons"]) == (503, ["halt: a token is quarantined"])
        assert "trimtab_healthy 0.0" in asked(port, "/metrics").text
        assert asked(port, "/").status_code == 404
        assert requests.post(f"http://127.0.0.1:{port}/health", timeout=60).status_code == 501
    with pytest.raises(requests.ConnectionError):
        asked(port, "/health")


@pytest.mark.parametrize(
    ("host", "code"), [("evil.example", 421), ("evil.example:80", 421), ("localhost:1", 200), ("[::1]:1", 200), ("127.1.2.3", 200)]
)
def test_a_web_page_that_was_lent_our_address_reads_nothing(host: str, code: int) -> None:
    with serving("127.0.0.1", 0, Metrics(), RunHealth(600)) as port:
        assert asked(port, "/metrics", Host=host).status_code == code


def test_visitors_who_say_nothing_or_hang_up_hold_up_nobody() -> None:
    with serving("127.0.0.1", 0, Metrics(), RunHealth(600)) as port:
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        rude = socket.create_connection(("127.0.0.1", port))
        rude.sendall(b"GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        rude.close()
        assert asked(port, "/health").status_code == 200
        for line in silent:
            line.close()


def test_a_taken_port_is_told() -> None:
    with (
        serving("127.0.0.1", 0, Metrics(), RunHealth(600)) as port,
        raises_field("service.listen", "127.0.0.1", port),
        serving("127.0.0.1", port, Metrics(), RunHealth(600)),
    ):
        pass


# the heartbeat
class Listener(BaseHTTPRequestHandler):
    """Writes down who asked what; answers as its server says."""

    def do_GET(self) -> None:
        self.server.heard.append((self.command, self.path))  # type: ignore[attr-defined]  # set below
        self.send_response(self.server.answer)  # type: ignore[attr-defined]  # set below
        self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def listener(answer: int) -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Listener)
    server.heard, server.answer = [], answer  # type: ignore[attr-defined]  # for the handler
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("answer", "failures"), [(200, 0), (204, 0), (302, 1), (404, 1), (500, 1)])
def test_a_heartbeat_asks_once_follows_nothing_and_tells_failures_without_its_url(method: str, answer: int, failures: int) -> None:
    told: list[str] = []
    with listener(answer) as server:
        heart = Heartbeat(f"http://127.0.0.1:{server.server_port}/ping/canary7f3a", method, told.append, timeout_s=60)  # type: ignore[arg-type]  # one of the two
        heart.beat()
        heart.settle(60)
        assert server.heard == [(method, "/ping/canary7f3a")]  # type: ignore[attr-defined]  # set above
    assert len(told) == failures
    assert "canary" not in "".join(told) + repr(heart)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/canary7f3a", "http://nowhere.invalid/canary7f3a", "http://[/canary7f3a", "http://\ud800/canary7f3a"]
)
def test_an_address_that_nobody_answers_is_told_and_harms_nothing(url: str) -> None:
    told: list[str] = []
    heart = Heartbeat(url, "GET", told.append)
    heart.beat()
    heart.settle(60)
    assert len(told) == 1
    assert "canary" not in told[0]


def test_a_listener_that_never_answers_holds_up_no_look() -> None:
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        heart = Heartbeat(f"http://127.0.0.1:{deaf.getsockname()[1]}/", "GET", told.append, timeout_s=2)
        heart.beat()
        heart.beat()
        assert len(told) == 1 and "heartbeat" in told[0]
        heart.settle(60)
        assert len(told) == 2


# the config
def table(**keys: object) -> ServiceTable:
    return ServiceTable.model_validate(keys)


@pytest.mark.parametrize("listen", ["127.0.0.1:9464", "localhost:1", "[::1]:9464", "127.9.9.9:0"])
def test_loopback_may_be_listened_on(listen: str) -> None:
    assert table(listen=listen).address is not None


@pytest.mark.parametrize(("listen", "host"), [("0.0.0.0:9464", "0.0.0.0"), ("10.1.2.3:1", "10.1.2.3"), ("[::]:9464", "::")])
def test_any_other_address_has_to_be_named_twice(listen: str, host: str) -> None:
    with pytest.raises(ValueError, match="other machines"):
        table(listen=listen)
    with pytest.raises(ValueError, match="other machines"):
        table(listen=listen, listen_beyond_loopback="10.9.9.9")
    assert table(listen=listen, listen_beyond_loopback=host).address == (host, int(listen.rpartition(":")[2]))


@pytest.mark.parametrize(
    "keys",
    [
        {"listen": "9464"},
        {"listen": "example.org:80"},
        {"listen": "127.0.0.1:99999"},
        {"listen": "127.0.0.1:-1"},
        {"listen_beyond_loopback": "0.0.0.0"},
        {"heartbeat_url": "ftp://x"},
        {"heartbeat_url": "https://x", "heartbeat_url_env": "X"},
        {"heartbeat_method": "PUT"},
        {"hang_after": "5s"},
        {"wallet_wait": "2h"},
        {"wallet_wait": "0s"},
        {"log_format": "xml"},
        {"keep_steps": 1},
        {"unknown": 1},
    ],
)
def test_mistakes_are_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        table(**keys)


def test_the_heartbeats_url_comes_from_the_environment_and_is_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    found = table(heartbeat_url_env="HEARTBEAT")
    monkeypatch.setenv("HEARTBEAT", "https://hc.example/canary7f3a")
    assert found.heartbeat() == "https://hc.example/canary7f3a"
    monkeypatch.setenv("HEARTBEAT", "canary7f3a")
    with pytest.raises(ConfigError) as told:
        found.heartbeat()
    assert "canary" not in str(told.value)
    assert "canary" not in repr(table(heartbeat_url="https://hc.example/canary7f3a")) + json.dumps(str(found))
