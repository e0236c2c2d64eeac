"""trimtab pause --hard: pauses at once, shows what it would take back, and takes it back when that is confirmed."""

from __future__ import annotations

import signal
import time

import pytest

from tests.cli.tools import Desk, at_terminal, forked
from tests.support.commands.sending import nonce
from tests.support.commands.waiting import something_waits, waiting_hashes


def test_a_hard_pause_shows_first_and_sends_nothing(desk: Desk) -> None:
    before = nonce(desk)
    pause_document = desk.ask("pause", "--hard", "--reason", "holiday")
    assert (pause_document["paused"], pause_document["hard"], pause_document["outcome"]) == (True, False, "clear")
    assert desk.ask("rebalance", "--send", "--yes", want=10)["outcome"] == "refused"
    assert nonce(desk) == before
    assert "is sent" in desk.run("pause", "--hard").out


def test_a_hard_pause_cancels_what_waits(desk: Desk) -> None:
    before = something_waits(desk)
    planned = desk.ask("pause", "--hard")
    assert (planned["outcome"], planned["hard"], len(planned["cancel"])) == ("planned", False, 1)
    assert desk.run("pause", "--hard").out.startswith("Paused (soft; hard only once confirmed with --send): "), (
        "above the table of what --send would cancel"
    )
    assert nonce(desk) == before
    original = planned["cancel"][0]["hash"]
    child = forked(desk, "pause", "--hard", "--send", "--yes", "--json")
    end = time.monotonic() + 60
    while waiting_hashes(desk) <= {original}:
        assert time.monotonic() < end, child.err.read_text()
        time.sleep(0.01)
    desk.node.rpc("evm_setAutomine", True)
    desk.node.mine(1)
    output = child.ended()
    assert output.code == 0, output.why
    done = output.json
    assert (done["outcome"], done["hard"]) == ("done", True)
    assert [(item["kind"], item["status"]) for item in done["transactions"]] == [("approve", "cancelled"), ("cancel", "final")]
    assert desk.ask("status")["paused"] is True
    assert desk.ask("pause", "--hard", "--send", "--yes")["outcome"] == "clear"
    assert desk.ask("resume")["hard"] is False
    assert desk.ask("rebalance", "--send", "--yes")["outcome"] == "done"


@pytest.mark.slow
def test_run_with_the_wallet__takes_back_instead_of_the_command(desk: Desk) -> None:
    child = forked(desk, "run", "--every", "1h", "--send", "--yes", "--json")
    end = time.monotonic() + 60
    while not child.out.exists() or child.out.read_text().count("\n") < 1:
        assert time.monotonic() < end, child.err.read_text()
        time.sleep(0.02)
    assert desk.ask("pause", "--hard", "--send", "--yes")["outcome"] == "clear"
    while child.out.read_text().count("\n") < 2:
        assert time.monotonic() < end, child.err.read_text()
        time.sleep(0.02)
    child.told(signal.SIGTERM)
    assert '"outcome": "halt"' in child.ended().out.splitlines()[1]


@pytest.mark.slow
def test_hard_pause_question__stays_soft_after_a_no(desk: Desk) -> None:
    before = something_waits(desk)
    code, screen = at_terminal(desk, "n\n", "pause", "--hard", "--send")
    assert code == 10
    assert "allowance" in screen or "cancel" in screen
    pause_document = desk.ask("pause", "--hard")
    assert (pause_document["paused"], pause_document["hard"], pause_document["outcome"]) == (True, False, "planned")
    assert nonce(desk) == before


def test_sending_goes_with_hard_alone(desk: Desk) -> None:
    assert "--hard" in desk.ask("pause", "--send", want=2)["error"]["message"]
    assert desk.ask("status")["paused"] is False
