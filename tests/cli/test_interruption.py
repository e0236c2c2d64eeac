"""Ctrl-C and SIGTERM at any moment: the journal is whole, the next command goes on from there, nothing is sent twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from agent.cli.display import terminal
from tests.cli.tools import Desk, at_terminal, forked
from tests.support.commands.interruption import require_sound, until_something_waits
from tests.support.commands.sending import nonce


def test_ctrl_c_at_a_waiting_transaction__leaves_it_to_the_next(desk: Desk) -> None:
    before = nonce(desk)
    desk.node.rpc("evm_setAutomine", False)
    child = forked(desk, "rebalance", "--send", "--yes")
    until_something_waits(desk, child)
    child.told(signal.SIGINT)
    output = child.ended()
    assert output.code == 12
    assert "Traceback" not in output.err
    assert "next run" in " ".join(output.err.split())
    require_sound(desk, before)


@pytest.mark.parametrize("moments", [range(0, 12, 2), pytest.param(range(12), marks=pytest.mark.slow)], ids=len)
def test_ctrl_c_at_any_moment_is_safe(desk: Desk, moments: range) -> None:
    before = nonce(desk)
    codes = set()
    for moment in moments:
        child = forked(desk, "rebalance", "--send", "--yes", "--json")
        time.sleep(0.01 + 0.06 * moment)
        child.told(signal.SIGINT)
        output = child.ended()
        assert output.code in (0, 12), output
        assert "Traceback" not in output.err
        codes.add(output.code)
    assert 12 in codes, "no moment was early enough to interrupt anything"
    require_sound(desk, before)


LOSES_THE_INTERRUPT = """
import os, signal, sys
from agent.cli import main
class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
def app(standalone_mode):
    if "finalized" in sys.argv:
        Finalized()
    try:
        if "pressed" in sys.argv:
            os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        pass
    raise SystemError("<built-in function call> returned NULL without setting an exception")
main.app = app
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background ignores it
main.main()
"""


@pytest.mark.parametrize(
    ("words", "code"), [(["pressed", "--send"], 12), (["finalized", "--send"], 12), (["pressed"], 130), (["--send"], 1)]
)
def test_dropped_interrupt__is_an_interruption(words: list[str], code: int) -> None:
    completed = subprocess.run([sys.executable, "-c", LOSES_THE_INTERRUPT, *words], capture_output=True, text=True, timeout=60, check=False)
    assert completed.returncode == code, completed.stderr
    assert ("Traceback" in completed.stderr) == (code == 1)
    assert ("next run" in completed.stderr) == (code == 12)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        pytest.param(["status", "--json"], 130, "interrupted: no transaction was sent", id="reading command"),
        pytest.param(["rebalance", "--config", "a.toml"], 130, "interrupted: no transaction was sent", id="dry rebalance"),
        pytest.param(["orders", "set", "WETH"], 130, "interrupted: no transaction was sent", id="orders"),
        pytest.param([], 130, "interrupted: no transaction was sent", id="no command"),
        pytest.param(["telegram"], 130, "the bot has stopped; requests that it queued stay in the queue", id="telegram bot"),
        pytest.param(
            ["stop", "--to-stable", "--send"],
            12,
            "interrupted. Sent transactions are in the journal; the next run settles them",
            id="stop with send",
        ),
        pytest.param(
            ["proposal", "execute", "--key", "test_account=0", "--send"],
            12,
            "interrupted. Run the same command again: it waits for an execution that was sent, and sends one otherwise",
            id="execution of a proposal",
        ),
        pytest.param(
            ["run", "--send", "--yes"],
            12,
            "interrupted. Sent transactions are in the journal; the next run settles them",
            id="run with send",
        ),
    ],
)
def test_interrupted_command__speaks_of_sending_only_with_send(arguments: list[str], exit_code: int, message: str) -> None:
    error = terminal.command_exit(arguments).error
    assert (error.exit_code, error.message) == (exit_code, message)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_run_told_to_stop_at_a_waiting_transaction__ends_well(desk: Desk, number: int) -> None:
    before = nonce(desk)
    desk.node.rpc("evm_setAutomine", False)
    child = forked(desk, "run", "--send", "--yes")
    until_something_waits(desk, child)
    child.told(number)
    output = child.ended()
    assert output.code == 0, output
    assert "Stopped" in output.err
    assert "Traceback" not in output.err
    require_sound(desk, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_ends_between_two_looks(desk: Desk, number: int) -> None:
    child = forked(desk, "run", "--every", "1h", "--json")
    end = time.monotonic() + 60
    while not child.out.exists() or not child.out.read_text().endswith("\n"):
        assert time.monotonic() < end, child.err.read_text()
        time.sleep(0.01)
    child.told(number)
    output = child.ended()
    assert output.code == 0
    assert len(output.out.splitlines()) == 1
    assert output.json["outcome"] == "planned"
    assert "This dry run sent nothing" in output.err
    assert "journal" not in output.err


def test_run__prints_a_line_for_each_look(desk: Desk) -> None:
    child = forked(desk, "run", "--every", "1s", "--send", "--yes", "--json")
    end = time.monotonic() + 60
    while not child.out.exists() or child.out.read_text().count("\n") < 2:
        assert time.monotonic() < end, child.err.read_text()
        time.sleep(0.02)
    assert desk.ask("rebalance", "--send", "--yes")["outcome"] == "hold", "the wallet is free between two looks"
    child.told(signal.SIGTERM)
    lines = child.ended().out.splitlines()
    assert '"outcome": "done"' in lines[0]
    assert '"outcome": "hold"' in lines[1]


@pytest.mark.slow
def test_a_run_outlives_an_endpoint_that_is_away_and_a_pause(desk: Desk) -> None:
    assert desk.run("pause", "--reason", "lunch").code == 0
    child = forked(desk, "run", "--every", "1s", "--send", "--yes", "--json")
    end = time.monotonic() + 60
    while not child.out.exists() or child.out.read_text().count("\n") < 1:
        assert time.monotonic() < end, child.err.read_text()
        time.sleep(0.02)
    assert desk.run("resume").code == 0
    while '"outcome": "done"' not in child.out.read_text():
        assert time.monotonic() < end, child.err.read_text()
        time.sleep(0.02)
    child.told(signal.SIGTERM)
    output = child.ended()
    assert output.code == 0
    assert "lunch" in output.out.splitlines()[0]


def test_ctrl_c_at_the_question_sends_nothing(desk: Desk) -> None:
    before = nonce(desk)
    code, screen = at_terminal(desk, "\x03", "rebalance", "--send")
    assert code == 12, screen
    assert "Traceback" not in screen
    code, screen = at_terminal(desk, "\x03", "run", "--send")
    assert code == 0, screen
    assert "Stopped" in screen
    assert nonce(desk) == before
