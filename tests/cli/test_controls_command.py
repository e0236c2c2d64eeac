"""trimtab request and trimtab controls, beside a run in a process of its own that takes what is queued within two seconds."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cli.tools import Desk, Forked, forked
from tests.support.commands.controls import ended_control
from tests.support.commands.sending import nonce


def waiting_run(desk: Desk, *options: str) -> Forked:
    """A run that waits for its next cycle, an hour away."""
    run, end = forked(desk, "run", "--send", "--every", "1h", "--json", *options), time.monotonic() + 60
    while not (run.out.exists() and run.out.read_text().count("\n")):
        assert time.monotonic() < end, run.err.read_text()
        time.sleep(0.05)
    return run


@contextmanager
def served(desk: Desk, *options: str) -> Iterator[None]:
    """The same, ended by a signal."""
    run = waiting_run(desk, *options)
    try:
        assert desk.ask("controls")["served"] is True
        yield
    finally:
        run.told(signal.SIGTERM)
        assert run.ended().code == 0


@pytest.mark.slow
def test_a_waiting_run_takes_a_request_within_two_seconds(desk: Desk) -> None:
    with served(desk, "--yes"):
        asked = desk.ask("request", "resume")
        assert (asked["state"], asked["kind"], asked["origin"]) == ("queued", "resume", "cli")
        found = ended_control(desk, asked["id"])
        assert found["state"] == "done", found
        assert found["changed_s"] - found["requested_s"] <= 2, found
        paused = desk.ask("request", "pause", "reason=smoke")
        assert paused["state"] == "done"
        assert desk.ask("status")["paused"] is True
    assert desk.ask("controls")["served"] is False
    assert "expire" in desk.run("controls").err


@pytest.mark.slow
def test_an_offered_plan_is_confirmed_by_request(desk: Desk) -> None:
    before = nonce(desk)
    with served(desk, "--offer"):
        shown = desk.ask("request", "confirm")
        assert (shown["state"], desk.ask("controls")["waiting"]) == ("planned", shown)
        assert shown["moves"]
        assert nonce(desk) == before, "a run that offers sends nothing by itself"
        for hash_, code in (("0" * 64, "not_shown"), (shown["plan_hash"], "")):
            said = desk.run("request", "confirm", "--plan", hash_, "--json")
            assert (said.error["code"] if said.code else "") == code
        found = ended_control(desk, said.json["id"])
        assert found["state"] == "done", found
        assert nonce(desk) > before, found


@pytest.mark.slow
def test_a_stop_by_request_ends_the_run_which_says_so(desk: Desk) -> None:
    run = waiting_run(desk, "--yes")
    asked = desk.ask("request", "stop")
    said = run.ended()
    assert said.code == 0, said.err
    assert "Control stop by" in said.err, said.err
    (found,) = desk.ask("controls")["controls"]
    assert (found["id"], found["state"]) == (asked["id"], "done")
    assert desk.run("run", "--once", "--send", "--yes").code == 10


def test_a_request_that_is_wrong_names_its_field(desk: Desk) -> None:
    for args, field in (
        (("request", "withdraw", "amount=x"), "amount"), (("request", "dance"), "kind"), (("request", "invest", "flow"), ""),
        (("run", "--offer"), "--offer"), (("run", "--send", "--yes", "--offer"), "--offer"),
    ):  # fmt: skip
        said = desk.run(*args)
        assert said.code == 2, said.err
        assert field in said.err, said.err
    assert desk.ask("controls")["controls"] == []
    assert "No controls" in desk.run("controls").out
