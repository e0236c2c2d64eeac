"""The watch: silence is named, a question or a broadcast is no silence, and systemd is told the truth."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.observe.watch import SENDING_STAGE, SystemdNotifier, Watchdog
from tests.support.fakes.clock import FakeClock
from tests.support.text import mentions


def test_a_silence_longer_than_the_bound_is_named_with_its_stage() -> None:
    clock = FakeClock(0)
    watch = Watchdog(60, clock)
    watch.beat("Reading the chain")
    clock.time_s = 60
    assert watch.hang_text() is None
    clock.time_s = 61
    assert mentions(watch.hang_text(), "1 min 1 s", "1 min,", '"Reading the chain"')
    watch.beat("waiting")
    assert watch.hang_text() is None


def test_a_broadcast_is_never_cut_off_however_long_it_takes() -> None:
    clock = FakeClock(0)
    watch = Watchdog(60, clock)
    watch.beat(SENDING_STAGE)
    clock.time_s = 10_000
    assert watch.hang_text() is None
    watch.beat("after:send")
    clock.time_s = 20_000
    assert watch.hang_text() is not None


def test_a_person_may_think_as_long_as_he_likes() -> None:
    clock = FakeClock(0)
    watch = Watchdog(60, clock)
    with watch.asking():
        clock.time_s = 10_000
        assert watch.hang_text() is None
    clock.time_s = 10_060
    assert watch.hang_text() is None
    clock.time_s = 10_061
    assert watch.hang_text() is not None


def ask(watch: Watchdog, clock: FakeClock) -> None:
    with watch.asking():
        clock.time_s = 10_000


def send(watch: Watchdog, clock: FakeClock) -> None:
    watch.beat(SENDING_STAGE)
    clock.time_s = 10_000
    watch.beat("after:send")


@pytest.mark.parametrize("act", [ask, send], ids=["answer", "send"])
def test_check_at_the_end_of_a_long_wait__finds_no_hang(act: Callable[[Watchdog, FakeClock], None]) -> None:
    clock = FakeClock(0)
    hang_texts: list[str | None] = []

    def checking_clock() -> float:
        if watches and not is_checking:
            is_checking.append(True)
            hang_texts.append(watches[0].hang_text())  # a check of the other thread
            is_checking.clear()
        return clock()

    watches: list[Watchdog] = []
    is_checking: list[bool] = []
    watches.append(Watchdog(60, checking_clock))

    act(watches[0], clock)

    assert len(hang_texts) >= 1
    assert set(hang_texts) == {None}


def test_watch_thread__feeds_until_a_hang_then_reports_once() -> None:
    clock = FakeClock(0)
    reasons = list[str]()
    fed = threading.Event()
    heard = threading.Event()

    def hung(why: str) -> None:
        reasons.append(why)
        heard.set()

    watch = Watchdog(60, clock, period_s=0.01)
    with watch.watching(hung, fed.set):
        assert fed.wait(60)
        clock.time_s = 1_000
        assert heard.wait(60)
    assert len(reasons) == 1
    assert "starting" in reasons[0]


def test_watchdog__watches_again_after_its_first_context() -> None:
    clock = FakeClock(0)
    watch = Watchdog(60, clock, period_s=0.01)
    for start_s in (0, 10_000, 20_000):
        clock.time_s = start_s
        watch.beat("starting")
        has_checked = threading.Event()
        has_hung = threading.Event()
        with watch.watching(lambda _, event=has_hung: event.set(), has_checked.set):
            assert has_checked.wait(60)
            clock.time_s = start_s + 1_000
            assert has_hung.wait(60)


# systemd
def listening(path: str) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    line.bind(path)
    line.settimeout(60)
    return line


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_ready_alive_status_and_stopping(tmp_path: Path, abstract: bool) -> None:
    address = f"@trimtab-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with listening("\0" + address[1:] if abstract else address) as line:
        notifier = SystemdNotifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "120000000", "WATCHDOG_PID": str(os.getpid())})
        notifier.ready()
        notifier.alive()
        notifier.status("hold: «all»\nREADY=0")
        notifier.stopping()
        assert [line.recv(300).decode() for _ in range(4)] == ["READY=1", "WATCHDOG=1", "STATUS=hold: ?all? READY=0", "STOPPING=1"]
    assert notifier.watchdog_s == 60


@pytest.mark.parametrize("variables", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}, {"NOTIFY_SOCKET": "relative"}, {"WATCHDOG_USEC": "soon"}])
def test_without_a_service_manager_nothing_happens(variables: dict[str, str]) -> None:
    notifier = SystemdNotifier(variables)
    notifier.ready()
    assert notifier.watchdog_s is None


def test_the_watchdog_of_another_process_is_not_fed() -> None:
    assert SystemdNotifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog_s is None
