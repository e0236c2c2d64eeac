"""Ctrl-C ends a live command within seconds, whatever it waits for: a silent endpoint, a lock that nobody gives back, threads."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agent.chain.endpoints import Endpoint
from agent.chain.rpc import RpcCall
from agent.cli.display import terminal
from agent.cli.display.terminal import KILL_DELAY_S
from agent.store.database.connection import Database
from tests.cli.tools import CommandResult, Desk, ForkedCommand, forked
from tests.support.commands.interruption import pending, require_sound, until_something_waits
from tests.support.commands.sending import nonce

SOON_S = 1.5
"""For an end on the spot, on a busy machine too."""
HASTE_S = 1.0
"""What the processes of most tests take for KILL_DELAY_S and RUN_KILL_DELAY_S."""
TWO_THREADS = """
import signal, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=time.sleep, args=(30,)).start()
from agent.cli.main import main
main()
"""
"""The command in a process with a thread that its end waits for; a suite in the background hands on that Ctrl-C is ignored."""
SLOW_WATCH = """
import time
from agent.cli.display import terminal as interrupting
real = interrupting.select.select
class slow:
    select = staticmethod(lambda *given: (real(*given), time.sleep(0.5))[0])
interrupting.select = slow
"""
"""On a busy machine the thread that watches for Ctrl-C may come to it when the command is over."""


def for_ever(*_: object, **__: object) -> None:
    """What a leaked lock does: nothing wakes it, and an interruption only meets the next one."""
    while True:
        lock = threading.Lock()
        lock.acquire()
        try:
            lock.acquire()
        except KeyboardInterrupt:
            continue


def hasty() -> None:
    terminal.KILL_DELAY_S = terminal.RUN_KILL_DELAY_S = HASTE_S


def leaking_at_the_end() -> None:
    """Clean-up waits for a lock that is never given back."""
    hasty()
    Database.close = for_ever  # type: ignore[method-assign]


def leaking_at_once() -> None:
    """Each request waits for such a lock, and swallows what interrupts it."""
    hasty()
    Endpoint.batch = for_ever  # type: ignore[method-assign, assignment]


def waiting_for_workers() -> None:
    """Clean-up waits for the threads of a pool."""
    hasty()
    pool = ThreadPoolExecutor(1)
    pool.submit(time.sleep, 30)
    Database.close = lambda _: pool.shutdown()  # type: ignore[method-assign]


@pytest.fixture
def silent() -> Iterator[str]:
    """An endpoint that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def began(seconds: float = 1.5) -> None:
    """Waits until it surely is in the middle of it."""
    time.sleep(seconds)


def interrupted(child: ForkedCommand, presses: int = 1, within_s: float = HASTE_S + SOON_S) -> CommandResult:
    """What it said after so many Ctrl-C, half a second apart; fails unless it is over in time after the last."""
    for press in range(presses):
        time.sleep(0.5 * bool(press))
        child.told(signal.SIGINT)
    begun = time.monotonic()
    output = child.ended(within_s=within_s + 5)
    assert time.monotonic() - begun < within_s, output
    assert "Traceback" not in output.err
    return output


def require_told(result: CommandResult) -> None:
    """The exit code and the one document of an interrupted command."""
    assert result.code == 12
    assert result.error["exit"] == 12
    assert "next run" in result.error["message"]


@pytest.mark.slow
def test_ctrl_c_while_an_endpoint_is_silent_ends_it(desk: Desk, silent: str) -> None:
    before = nonce(desk)
    url = desk.about["url"]
    desk.edit((url, silent))
    child = forked(desk, "rebalance", "--send", "--yes", "--json")
    began()
    require_told(interrupted(child, within_s=KILL_DELAY_S + SOON_S))
    desk.edit((silent, url))
    require_sound(desk, before)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["status", "plan", "doctor"])
def test_reading_command__is_interrupted_at_a_silent_endpoint(desk: Desk, silent: str, command: str) -> None:
    url = desk.about["url"]
    desk.edit((url, silent))
    child = forked(desk, command, "--json")
    began()
    ended = interrupted(child, within_s=KILL_DELAY_S + SOON_S)
    desk.edit((silent, url))
    assert ended.code == 130
    assert ended.error["message"] == "interrupted: no transaction was sent"


@pytest.mark.parametrize(
    "first", [*(pytest.param(case, marks=pytest.mark.slow) for case in (leaking_at_the_end, leaking_at_once)), waiting_for_workers]
)
@pytest.mark.slow
def test_ctrl_c_ends_it_though_a_lock_stays_taken(desk: Desk, first: Callable[[], None]) -> None:
    before = nonce(desk)
    desk.node.rpc("evm_setAutomine", False)
    child = forked(desk, "rebalance", "--send", "--yes", "--json", first=first)
    if first is leaking_at_once:
        began()
    else:
        until_something_waits(desk, child)
    require_told(interrupted(child))
    require_sound(desk, before)


def test_a_second_ctrl_c_ends_it_on_the_spot(desk: Desk) -> None:
    child = forked(desk, "rebalance", "--send", "--yes", "--json", first=leaking_at_once)
    began()
    require_told(interrupted(child, presses=2, within_s=SOON_S))


@pytest.mark.parametrize(("presses", "within_s"), [(2, HASTE_S + SOON_S), pytest.param(3, SOON_S, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_stuck_run__ends_after_the_second_or_third_ctrl_c(desk: Desk, presses: int, within_s: float) -> None:
    child = forked(desk, "run", "--send", "--yes", first=leaking_at_once)
    began()
    child.told(signal.SIGINT)
    time.sleep(HASTE_S + 0.5)
    output = interrupted(child, presses - 1, within_s)
    assert output.code == 12
    assert "next run" in " ".join(output.err.split())


def test_a_run_still_ends_after_its_step_at_the_first_ctrl_c(desk: Desk) -> None:
    """However long that takes: the first Ctrl-C of a run arms no end."""
    before = nonce(desk)

    def slow() -> None:
        hasty()
        real = Endpoint.batch
        waits = [2 * HASTE_S]

        def slowly(self: Endpoint, calls: Sequence[RpcCall]) -> list[Any]:
            time.sleep(waits.pop() if waits else 0)
            return real(self, calls)

        Endpoint.batch = slowly  # type: ignore[method-assign]

    child = forked(desk, "run", "--send", "--yes", first=slow)
    began(HASTE_S)
    child.told(signal.SIGINT)
    output = child.ended()
    assert output.code == 0, output
    assert "Stopped" in output.err, output
    require_sound(desk, before)


@pytest.mark.parametrize("first", [pytest.param(watch, marks=pytest.mark.slow) for watch in (SLOW_WATCH, "")], ids=["busy", ""])
def test_threads__hold_no_end_back(desk: Desk, first: str) -> None:
    command = [sys.executable, "-c", first + TWO_THREADS, "rebalance", "--config", str(desk.config), "--send", "--yes", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        desk.node.rpc("evm_setAutomine", False)
        end = time.monotonic() + 60
        while not pending(desk):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=KILL_DELAY_S + 5)
    require_told(CommandResult(process.returncode, out, err))
