"""trimtab run as a service: what it tells of itself, a look that hangs, SIGTERM at any place."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from agent.config import service as service_config
from tests.cli.test_endpoints import move_to
from tests.cli.test_interruption import require_sound
from tests.cli.test_sending import nonce
from tests.cli.tools import SECRET, Desk, Forked, forked
from tests.support.endpoints import Reply, passing_on, serve
from tests.support.text import mentions


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, desk: Desk) -> None:
    """Children of this process take a bound of seconds, which the config refuses otherwise; imports are paid before they start."""
    monkeypatch.setattr(service_config, "SHORTEST_HANG_S", 1)
    desk.ask("plan")


def with_service(desk: Desk, *lines: str) -> None:
    """The config with these keys in [service]."""
    text = desk.config.read_text().partition("\n[service]")[0]
    desk.config.write_text("\n".join((text, "", "[service]", *lines, "")))


def shown(child: Forked) -> str:
    """What stands on its stderr so far."""
    return child.err.read_text() if child.err.exists() else ""


def until(child: Forked, done: Callable[[], bool]) -> None:
    end = time.monotonic() + 200
    while not done():
        assert time.monotonic() < end, shown(child)
        assert '"hung"' not in shown(child), shown(child)
        time.sleep(0.02)


def logged(child: Forked) -> list[dict[str, Any]]:
    """Log lines so far; the last one only once it is whole."""
    return [json.loads(line) for line in shown(child).splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")]


def events(child: Forked) -> list[str]:
    return [line["event"] for line in logged(child)]


@pytest.fixture
def stalling(desk: Desk) -> Iterator[threading.Event]:
    """The desk's endpoint behind one that answers nothing as long as the event is set."""
    stalled, over = threading.Event(), threading.Event()
    passed = passing_on(desk.about["url"])

    def answer(asked: Any) -> Reply:
        while stalled.is_set() and not over.wait(0.05):
            pass
        return passed(asked)

    with serve(answer) as served:
        move_to(desk, served.url)
        yield stalled
        over.set()


@pytest.mark.usefixtures("quick")
def test_a_look_that_hangs_is_named_and_ends_the_process_with_its_own_code(desk: Desk, stalling: threading.Event) -> None:
    before = nonce(desk)
    with_service(desk, 'hang_after = "6s"', 'log_format = "json"')
    child = forked(desk, "run", "--every", "1s", "--send", "--yes")
    until(child, lambda: "look" in events(child))
    stalling.set()
    said = child.ended(120)
    assert said.code == 13, said
    (hung,) = [line for line in logged(child) if line["event"] == "hung"]
    assert mentions(hung["what"], "6 s", '"Reading the chain"')
    assert "chain/rpc.py" in hung["what"]
    assert SECRET not in said.err
    stalling.clear()
    require_sound(desk, before)


@pytest.mark.usefixtures("quick")
def test_a_broadcast_that_takes_longer_than_the_bound_is_not_cut_off(desk: Desk) -> None:
    before = nonce(desk)
    passed, slow = passing_on(desk.about["url"]), iter([8])

    def answer(asked: Any) -> Reply:
        reply = passed(asked)
        if "eth_sendRawTransaction" in json.dumps(asked):
            reply.delay_s = next(slow, 0)
        return reply

    with serve(answer) as served:
        move_to(desk, served.url)
        desk.edit(('operator = "local"', 'operator = "local"\ntimeout = "60s"'))
        with_service(desk, 'hang_after = "6s"', 'log_format = "json"')
        child = forked(desk, "run", "--once", "--send", "--yes")
        said = child.ended(120)
        assert said.code == 0, said
        assert "hung" not in events(child)
        assert [line["state"] for line in logged(child) if line["event"] == "transaction"] == ["final", "final"]
        require_sound(desk, before)


def test_sigterm_while_the_chain_is_read_ends_the_run_after_the_look(desk: Desk, stalling: threading.Event) -> None:
    before = nonce(desk)
    with_service(desk, 'log_format = "json"')
    child = forked(desk, "run", "--every", "1s", "--send", "--yes")
    until(child, lambda: "look" in events(child))
    stalling.set()
    time.sleep(1.2)
    child.told(signal.SIGTERM)
    stalling.clear()
    said = child.ended(120)
    assert said.code == 0, said
    assert events(child)[-1] == "stopped"
    require_sound(desk, before)


class Hearts:
    """Listens for heartbeats on a socket of its own."""

    def __init__(self) -> None:
        self.line = socket.create_server(("127.0.0.1", 0))
        self.heard: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.line.getsockname()[1]}/ping/{SECRET}"

    def _serve(self) -> None:
        while True:
            try:
                visitor, _ = self.line.accept()
            except OSError:
                return
            self.heard.append(visitor.recv(4096).split(b"\r\n")[0].decode())
            visitor.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            visitor.close()


def test_a_run_tells_of_itself_and_keeps_its_secrets(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hearts, address = Hearts(), str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(120)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("TRIMTAB_HEART", hearts.url)
        with_service(desk, 'listen = "127.0.0.1:0"', 'heartbeat_url_env = "TRIMTAB_HEART"', 'heartbeat_method = "POST"')
        child = forked(desk, "run", "--every", "1s", "--send", "--yes", "--log-format", "json")
        while (heard := manager.recv(300)) == b"WATCHDOG=1":  # a first look may take a while
            pass
        assert heard == b"READY=1"
        port = next(line["port"] for line in logged(child) if line["event"] == "listening")
        until(child, lambda: requests.get(f"http://127.0.0.1:{port}/ready", timeout=60).status_code == 200)
        until(child, lambda: len(hearts.heard) > 1)
        figures = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text
        assert 'trimtab_looks_total{outcome="done"} 1.0' in figures
        assert 'trimtab_transactions_total{kind="swap",state="final"} 1.0' in figures
        assert desk.run("pause", "--reason", "lunch").code == 0
        until(child, lambda: requests.get(f"http://127.0.0.1:{port}/ready", timeout=60).json()["reasons"] == ["paused: lunch"])
        assert requests.get(f"http://127.0.0.1:{port}/health", timeout=60).status_code == 200
        child.told(signal.SIGTERM)
        said = child.ended(120)
        assert said.code == 0, said
        told = b""
        while b"STOPPING=1" not in told:
            told = manager.recv(300)
    hearts.line.close()
    assert {line.split()[0] for line in hearts.heard} == {"POST"}
    assert said.out == "", "the log has told it"
    assert {"listening", "started", "look", "transaction", "paused", "stopped"} <= set(events(child))
    assert SECRET not in said.err + figures


def test_health_turns_red_while_the_endpoint_is_away_and_no_heartbeat_goes_out(desk: Desk) -> None:
    away = threading.Event()
    passed = passing_on(desk.about["url"])
    hearts = Hearts()
    with serve(lambda asked: Reply(b"gone", status=503) if away.is_set() else passed(asked)) as served:
        move_to(desk, served.url)
        with_service(desk, 'listen = "127.0.0.1:0"', f'heartbeat_url = "{hearts.url}"')
        child = forked(desk, "run", "--every", "1s", "--log-format", "json")
        until(child, lambda: "look" in events(child))
        port = next(line["port"] for line in logged(child) if line["event"] == "listening")
        away.set()
        until(child, lambda: "look failed" in events(child))
        until(child, lambda: requests.get(f"http://127.0.0.1:{port}/health", timeout=60).status_code == 503)
        heard = len(hearts.heard)
        until(child, lambda: events(child).count("look failed") > 2)
        assert len(hearts.heard) == heard
        away.clear()
        until(child, lambda: requests.get(f"http://127.0.0.1:{port}/health", timeout=60).status_code == 200)
        child.told(signal.SIGTERM)
        assert child.ended(120).code == 0
    hearts.line.close()
