"""trimtab request and trimtab controls, beside a run in a process of its own that takes what is queued within two seconds."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cli.tools import Desk, ForkedCommand, forked
from tests.support.commands.controls import ended_control
from tests.support.commands.sending import nonce


def waiting_run(desk: Desk, *options: str) -> ForkedCommand:
    """A run that waits for its next cycle, an hour away."""
    run = forked(desk, "run", "--send", "--every", "1h", "--json", *options)
    end = time.monotonic() + 60
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
        request_document = desk.ask("request", "resume")
        assert (request_document["state"], request_document["kind"], request_document["origin"]) == ("queued", "resume", "cli")
        control = ended_control(desk, request_document["id"])
        assert control["state"] == "done", control
        assert control["changed_s"] - control["requested_s"] <= 2, control
        paused = desk.ask("request", "pause", "reason=smoke")
        assert paused["state"] == "done"
        assert desk.ask("status")["paused"] is True
    assert desk.ask("controls")["served"] is False
    assert "expire" in desk.run("controls").err


@pytest.mark.slow
def test_an_offered_plan_is_confirmed_by_request(desk: Desk) -> None:
    before = nonce(desk)
    with served(desk, "--offer"):
        request_document = desk.ask("request", "confirm", want=2)
        assert (request_document["state"], desk.ask("controls")["waiting"]) == ("planned", request_document)
        assert request_document["moves"]
        assert nonce(desk) == before, "a run that offers sends nothing by itself"
        for hash_, code in (("0" * 64, "not_shown"), (request_document["plan_hash"], "")):
            result = desk.run("request", "confirm", "--plan", hash_, "--json")
            assert (result.error["code"] if result.code else "") == code
        control = ended_control(desk, result.json["id"])
        assert control["state"] == "done", control
        assert nonce(desk) > before, control


@pytest.mark.slow
def test_a_stop_by_request_ends_the_run_which_says_so(desk: Desk) -> None:
    run = waiting_run(desk, "--yes")
    request_document = desk.ask("request", "stop")
    output = run.ended()
    assert output.code == 0, output.err
    assert "Control stop by" in output.err, output.err
    (control,) = desk.ask("controls")["controls"]
    assert (control["id"], control["state"]) == (request_document["id"], "done")
    assert desk.run("run", "--once", "--send", "--yes").code == 10


def test_a_request_that_is_wrong_names_its_field(desk: Desk) -> None:
    for args, field in (
        (("request", "withdraw", "amount=x"), "amount"), (("request", "dance"), "kind"), (("request", "invest", "flow"), ""),
        *((("request", kind, "--plan", "ab12"), "--plan") for kind in ("pause", "resume", "device", "stop")),
        (("run", "--offer"), "--offer"), (("run", "--send", "--yes", "--offer"), "--offer"),
    ):  # fmt: skip
        result = desk.run(*args)
        assert result.code == 2, result.err
        assert field in result.err, result.err
    assert desk.ask("controls")["controls"] == []
    assert "No controls" in desk.run("controls").out
