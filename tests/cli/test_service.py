"""trimtab run as a service: what it tells of itself, a look that hangs, SIGTERM at any place."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "prometheus_client"))) and not os.environ.get("CI"):
    pytest.skip("health and metrics are answered by the extra dashboard", allow_module_level=True)

from prometheus_client.parser import text_string_to_metric_families

from agent.config.tables import service as service_config
from agent.web import document_cache
from tests.cli.tools import SECRET, Desk, ForkedCommand, forked
from tests.support.api import Client
from tests.support.commands.endpoints import move_to
from tests.support.commands.interruption import require_sound
from tests.support.commands.sending import nonce
from tests.support.dashboards import InProcessDocumentCache, Served
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


def stderr_so_far(child: ForkedCommand) -> str:
    """What stands on its stderr so far."""
    return child.err.read_text() if child.err.exists() else ""


def until(child: ForkedCommand, done: Callable[[], bool]) -> None:
    end = time.monotonic() + 200
    while not done():
        assert time.monotonic() < end, stderr_so_far(child)
        assert '"hung"' not in stderr_so_far(child), stderr_so_far(child)
        time.sleep(0.02)


def logged(child: ForkedCommand) -> list[dict[str, Any]]:
    """Log lines so far; the last one only once it is whole."""
    return [json.loads(line) for line in stderr_so_far(child).splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")]


def events(child: ForkedCommand) -> list[str]:
    return [line["event"] for line in logged(child)]


@pytest.fixture
def stalling(desk: Desk) -> Iterator[threading.Event]:
    """The desk's endpoint behind one that answers nothing as long as the event is set."""
    stalled = threading.Event()
    over = threading.Event()
    passed = passing_on(desk.about["url"])

    def answer(request: Any) -> Reply:
        while stalled.is_set() and not over.wait(0.05):
            pass
        return passed(request)

    with serve(answer) as served:
        move_to(desk, served.url)
        yield stalled
        over.set()


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
def test_hanging_look__is_named_and_ends_with_its_own_code(desk: Desk, stalling: threading.Event) -> None:
    before = nonce(desk)
    with_service(desk, 'hang_after = "6s"', 'log_format = "json"')
    child = forked(desk, "run", "--every", "1s", "--send", "--yes")
    until(child, lambda: "look" in events(child))
    stalling.set()
    output = child.ended(120)
    assert output.code == 13, output
    (hung,) = [line for line in logged(child) if line["event"] == "hung"]
    assert mentions(hung["why"], "6 s", '"Reading the chain"')
    assert "chain/providers/" in hung["why"]
    assert SECRET not in output.err
    health_document = desk.ask("health", want=15)
    assert health_document["state"] == "gone"
    assert any(reason.startswith("cycle hangs: ") for reason in health_document["reasons"])
    stalling.clear()
    require_sound(desk, before)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_slow_broadcast__is_not_cut_off(desk: Desk) -> None:
    before = nonce(desk)
    passed = passing_on(desk.about["url"])
    slow = iter([8])

    def answer(request: Any) -> Reply:
        reply = passed(request)
        if "eth_sendRawTransaction" in json.dumps(request):
            reply.delay_s = next(slow, 0)
        return reply

    with serve(answer) as served:
        move_to(desk, served.url)
        desk.edit(('operator = "local"', 'operator = "local"\ntimeout = "60s"'))
        with_service(desk, 'hang_after = "6s"', 'log_format = "json"')
        child = forked(desk, "run", "--once", "--send", "--yes")
        output = child.ended(120)
        assert output.code == 0, output
        assert "hung" not in events(child)
        assert [line["state"] for line in logged(child) if line["event"] == "transaction"] == ["final", "final"]
        require_sound(desk, before)


def test_sigterm_during_a_read__ends_the_run_after_the_look(desk: Desk, stalling: threading.Event) -> None:
    before = nonce(desk)
    with_service(desk, 'log_format = "json"')
    child = forked(desk, "run", "--every", "1s", "--send", "--yes")
    until(child, lambda: "look" in events(child))
    stalling.set()
    time.sleep(1.2)
    child.told(signal.SIGTERM)
    stalling.clear()
    output = child.ended(120)
    assert output.code == 0, output
    assert events(child)[-1] == "stopped"
    require_sound(desk, before)


class HeartbeatListener:
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


@contextmanager
def probing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """The dashboard's server over the desk's store, which reads it for each request. Its threads begin after the fork of a run."""
    monkeypatch.setattr(document_cache, "REPORT_AGE_S", 0)
    with Served(board=InProcessDocumentCache(str(desk.config), desk.config.with_name("trimtab.db"))) as served:
        yield Client(served)


def listening(pid: int) -> list[str]:
    """The local addresses of listening sockets of a process, from /proc; state 0A is listening (proc(5))."""
    names = {path.readlink().name for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in names]


def scraped(probes: Client) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(probes.ask("/metrics").body.decode())
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_run__reports_itself_opens_no_port_and_keeps_secrets(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hearts = HeartbeatListener()
    address = str(tmp_path / "notify")
    desk.ask("plan")
    assert desk.ask("health", want=15)["state"] == "none"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(120)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("TRIMTAB_HEART", hearts.url)
        with_service(desk, 'heartbeat_url_env = "TRIMTAB_HEART"', 'heartbeat_method = "POST"')
        child = forked(desk, "run", "--every", "1s", "--send", "--yes", "--log-format", "json")
        while (heard := manager.recv(300)) == b"WATCHDOG=1":  # a first look may take a while
            pass
        assert heard == b"READY=1"
        with probing(desk, monkeypatch) as probes:
            until(child, lambda: probes.ask("/ready").status == 200)
            until(child, lambda: len(hearts.heard) > 1)
            assert listening(child.pid) == []
            assert desk.run("health", "--ready").out.startswith("Ready: ")
            require_equal_figures(desk, probes)
            assert desk.run("pause", "--reason", "lunch").code == 0
            assert probes.ask("/ready").json["reasons"] == ["paused: lunch"], "at once, not with the next cycle"
            assert desk.ask("health", "--ready", want=15)["reasons"] == ["paused: lunch"]
            assert probes.ask("/health").status == 200
            assert desk.ask("health")["paused"]
            assert scraped(probes)[("trimtab_paused",)] == 1
            until(child, lambda: "paused" in events(child))
            child.told(signal.SIGTERM)
            output = child.ended(120)
            assert output.code == 0, output
            received = b""
            while b"STOPPING=1" not in received:
                received = manager.recv(300)
            stopped = probes.ask("/health")
            assert (stopped.status, stopped.json["state"]) == (503, "stopped")
            figures = probes.ask("/metrics").body.decode()
    hearts.line.close()
    assert desk.ask("health", want=15)["state"] == "stopped"
    assert {line.split()[0] for line in hearts.heard} == {"POST"}
    assert output.out == "", "the log has told it"
    assert all(line.startswith("{") for line in output.err.splitlines()), "nothing but the log"
    assert {"started", "look", "transaction", "paused", "stopped"} <= set(events(child))
    assert SECRET not in output.err + figures + (desk.config.with_name("trimtab.db").read_bytes().decode("latin-1"))


def require_equal_figures(desk: Desk, probes: Client) -> None:
    """Assert that /metrics has the figures of `trimtab status`."""
    figures = scraped(probes)
    status = desk.ask("status")
    assert figures[("trimtab_looks_total", "done")] == 1
    assert figures[("trimtab_transactions_total", "swap", "final")] == 1
    assert figures[("trimtab_portfolio_value",)] == float(status["total_value"])
    drifts = {item["symbol"]: item["drift_bps"] for item in status["holdings"]}
    assert {name[1]: value for name, value in figures.items() if name[0] == "trimtab_drift_bps"} == drifts
    assert figures[("trimtab_worst_drift_bps",)] == max(map(abs, drifts.values()))


def test_killed_run__is_dead_at_once_or_after_its_time_if_unseen(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    child = forked(desk, "run", "--every", "1s", "--log-format", "json")
    with probing(desk, monkeypatch) as probes:
        until(child, lambda: probes.ask("/health").json["last_good_cycle_s"] is not None)
        assert "dry run" in probes.ask("/ready").json["reasons"][0]
        assert "A dry run: it sends nothing." in desk.run("health").out
        child.told(signal.SIGKILL)
        assert child.ended().code == -signal.SIGKILL
        gone = probes.ask("/health")
        assert (gone.status, gone.json["state"]) == (503, "gone")
        assert desk.ask("health", want=15)["state"] == "gone"
        monkeypatch.setattr(document_cache, "is_alive", lambda _: None)
        assert probes.ask("/health").status == 200, "elsewhere it may still run"
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 64 + 30)
        late = probes.ask("/health")
        assert late.status == 503
        assert "no successful cycle for" in late.json["reasons"][0]


@pytest.mark.slow
def test_the_log_alone_says_what_ended_the_run(desk: Desk) -> None:
    child = forked(desk, "run", "--every", "1s", "--send", "--yes", "--log-format", "json")
    until(child, lambda: "look" in events(child))
    desk.ask("stop", "--send", "--yes")
    output = child.ended(120)
    assert output.code == 0, output
    assert logged(child)[-1]["by"] == "trimtab stop"
    assert events(child)[-1] == "stopped"
    assert all(line.startswith("{") for line in output.err.splitlines()), output.err


def test_a_store_that_cannot_be_read_is_red(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    child = forked(desk, "run", "--every", "1s", "--log-format", "json")
    store = desk.config.with_name("trimtab.db")
    with probing(desk, monkeypatch) as probes:
        until(child, lambda: probes.ask("/health").json["last_good_cycle_s"] is not None)
        child.told(signal.SIGTERM)
        assert child.ended(120).code == 0
        store.chmod(0o666)
        answer = probes.ask("/health")
        assert (answer.status, answer.json["state"]) == (503, "unknown")
        assert "others may write" in answer.json["reasons"][0]
        assert probes.ask("/metrics").status == 503
        assert desk.run("health").code == 2
        store.chmod(0o600)
        store.write_bytes(b"not a database" * 1_000)
        for end in ("-wal", "-shm"):
            store.with_name(store.name + end).unlink(missing_ok=True)
        assert probes.ask("/ready").status == 503
        assert desk.run("health").code == 12
        store.unlink()
        assert probes.ask("/ready").status == 503
        assert desk.ask("health", want=15)["state"] == "none"
        assert not store.exists(), "a check creates no store"


def test_a_single_cycle_and_paper_leave_no_report(desk: Desk) -> None:
    desk.ask("run", "--once", "--send", "--yes")
    desk.run("paper", "--once")
    assert desk.ask("health", want=15)["state"] == "none"


@pytest.mark.slow
def test_health__turns_red_without_the_endpoint_or_heartbeat(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    away = threading.Event()
    passed = passing_on(desk.about["url"])
    hearts = HeartbeatListener()
    with serve(lambda request: Reply(b"gone", status=503) if away.is_set() else passed(request)) as served:
        move_to(desk, served.url)
        with_service(desk, f'heartbeat_url = "{hearts.url}"')
        child = forked(desk, "run", "--every", "1s", "--log-format", "json")
        with probing(desk, monkeypatch) as probes:
            until(child, lambda: "look" in events(child))
            until(child, lambda: probes.ask("/health").status == 200)
            away.set()
            until(child, lambda: "look failed" in events(child))
            until(child, lambda: probes.ask("/health").status == 503)
            assert scraped(probes)[("trimtab_looks_total", "retryable")] >= 1
            heard = len(hearts.heard)
            until(child, lambda: events(child).count("look failed") > 2)
            assert len(hearts.heard) == heard
            away.clear()
            until(child, lambda: probes.ask("/health").status == 200)
        child.told(signal.SIGTERM)
        assert child.ended(120).code == 0
    hearts.line.close()
