"""A portfolio among several: when it looks again after a look, a failure, a hang, and what its owner did meanwhile."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from unittest.mock import Mock

import pytest

from agent.cli.display.hints import with_config
from agent.errors import ConfigError, OperatorNeeded, PassingFault, Retryable, TrimtabError
from agent.fleet import members as fleet_members
from agent.fleet.chains import SharedConnections
from agent.fleet.members import FleetMember, FleetOptions, MemberState
from agent.model import Alert
from agent.observe.logs import Redactor, configure
from agent.wiring import SystemClock

WAIT_S = 20
DONE = Retryable("as a result: the look was made")


class FakeRun:
    """A run whose cycles do what a test says; `ends_wait` is whether something waits for it."""

    def __init__(self, cycle: Callable[[], object] = lambda: DONE) -> None:
        self.cycle = cycle
        self.urgent_pause_s: float | None = None
        self.something_waits = False

    def ends_wait(self) -> bool:
        return self.something_waits

    def flush_store(self) -> None:
        pass


class FakeService:
    """Takes the events of a run."""

    stopped_by = ""
    alert_notifier = None

    def __init__(self) -> None:
        self.recorder = Mock()
        self.recorder.report.ended_s = None

    def on_cycle(self, result: object) -> None:
        pass

    def pop_screen_notes(self) -> None:
        pass


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure("json", Redactor(), stream)
    yield stream
    configure(None)


@pytest.fixture
def member(tmp_path: Path) -> FleetMember:
    path = tmp_path / "p.toml"
    path.write_text("")
    return FleetMember("p", path, FleetOptions("1h"), SharedConnections(SystemClock()), Redactor(), lambda *_: None)


def opened_with(monkeypatch: pytest.MonkeyPatch, open_run: Callable[[FleetMember], Any]) -> None:
    """Let members open the run that `open_run` returns, or fail as it does."""

    def open_member(member: FleetMember) -> None:
        member._run = open_run(member)
        member._service = FakeService()  # type: ignore[assignment]  # a fake
        member.agent = Mock()

    monkeypatch.setattr(FleetMember, "_open", open_member)


def look(member: FleetMember) -> None:
    member.queue()
    member.look()


def is_due(member: FleetMember) -> bool:
    return member.is_due(time.monotonic(), checks_files=True)


def pauses(log: io.StringIO) -> list[str]:
    return [line["next_look"] for line in map(json.loads, log.getvalue().splitlines()) if line["event"] == "backing off"]


def test_a_look_sets_the_next_one_after_the_interval(monkeypatch: pytest.MonkeyPatch, member: FleetMember) -> None:
    opened_with(monkeypatch, lambda _: FakeRun())
    assert is_due(member)
    look(member)
    assert member.state is MemberState.WAITING
    assert not is_due(member)
    assert 3_590 < member.due_s - time.monotonic() < 3_600 * 1.1


def test_what_an_owner_writes_during_a_look_is_seen_after_it(monkeypatch: pytest.MonkeyPatch, member: FleetMember) -> None:
    runs: list[FakeRun] = []

    def cycle() -> object:
        later = time.time() + 5
        os.utime(member.config_path, (later, later))
        runs[0].something_waits = True
        return DONE

    def open_run(_: FleetMember) -> FakeRun:
        runs.append(FakeRun(cycle))
        return runs[0]

    opened_with(monkeypatch, open_run)
    look(member)
    assert is_due(member)
    looked: list[int] = []
    runs[0].cycle = lambda: looked.append(1) or DONE  # type: ignore[func-returns-value]  # notes the look
    look(member)
    assert looked == [1]


def test_endless_wait__makes_no_look_when_a_file_changes(monkeypatch: pytest.MonkeyPatch, member: FleetMember) -> None:
    looked: list[int] = []
    opened_with(monkeypatch, lambda _: FakeRun(lambda: looked.append(1) or DONE))  # type: ignore[func-returns-value]  # notes the look
    look(member)
    later = time.time() + 5
    os.utime(member.config_path, (later, later))
    assert is_due(member)
    look(member)
    assert looked == [1]
    assert not is_due(member)


def test_what_changes_no_file_ends_a_wait_within_seconds(monkeypatch: pytest.MonkeyPatch, member: FleetMember) -> None:
    opened_with(monkeypatch, lambda _: FakeRun())
    look(member)
    assert not member.is_due(time.monotonic() + 9, checks_files=True)
    assert member.is_due(time.monotonic() + 11, checks_files=True)


def test_look__waits_some_seconds_for_its_job_of_the_queue(monkeypatch: pytest.MonkeyPatch, member: FleetMember) -> None:
    """One whose job comes early begins at its time."""
    opened_with(monkeypatch, lambda _: FakeRun())
    look(member)
    for awaits_job, begins_s in ((True, fleet_members.JOB_PATIENCE_S), (False, 0.0)):
        member.awaits_job = awaits_job
        assert not member.is_due(member.due_s + begins_s - 0.1, checks_files=awaits_job)
        assert member.is_due(member.due_s + begins_s, checks_files=False)


@pytest.mark.parametrize("error", [Retryable("slow"), PassingFault("a web page")])
def test_a_fault_that_passes_waits_a_minute_at_most(
    monkeypatch: pytest.MonkeyPatch, member: FleetMember, log: io.StringIO, error: TrimtabError
) -> None:
    def fail(_: FleetMember) -> FakeRun:
        raise error

    opened_with(monkeypatch, fail)
    for _ in range(7):
        look(member)
        assert member.state is MemberState.BACKING_OFF
    assert pauses(log) == ["5 s", "10 s", "20 s", "40 s", "1 min", "1 min", "1 min"]


@pytest.mark.parametrize("error", [ConfigError("a mistake"), OperatorNeeded("a locked key"), KeyError("a bug")])
def test_what_a_person_must_mend_waits_up_to_an_hour(
    monkeypatch: pytest.MonkeyPatch, member: FleetMember, log: io.StringIO, error: Exception
) -> None:
    def fail(_: FleetMember) -> FakeRun:
        raise error

    opened_with(monkeypatch, fail)
    for _ in range(8):
        look(member)
    assert pauses(log) == ["1 min", "2 min", "4 min", "8 min", "16 min", "32 min", "1 h", "1 h"]
    assert not is_due(member)
    later = time.time() + 5
    os.utime(member.config_path, (later, later))
    assert is_due(member), "its owner has changed the config"


def test_a_stop_begins_no_further_look(monkeypatch: pytest.MonkeyPatch, member: FleetMember) -> None:
    looked: list[int] = []
    opened_with(monkeypatch, lambda _: FakeRun(lambda: looked.append(1) or DONE))  # type: ignore[func-returns-value]  # notes the look
    member.queue()
    member.request_stop()
    member.look()
    assert looked == []
    assert member.state is MemberState.WAITING


def test_a_look_that_was_begun_is_not_begun_twice(monkeypatch: pytest.MonkeyPatch, member: FleetMember) -> None:
    looked: list[int] = []
    opened_with(monkeypatch, lambda _: FakeRun(lambda: looked.append(1) or DONE))  # type: ignore[func-returns-value]  # notes the look
    member.queue()
    member.look()
    member.look()
    assert looked == [1]


def test_a_hung_look_that_goes_on_is_closed_and_opened_anew(monkeypatch: pytest.MonkeyPatch, member: FleetMember, log: io.StringIO) -> None:
    released = threading.Event()
    opened: list[FakeRun] = []

    def open_run(_: FleetMember) -> FakeRun:
        opened.append(FakeRun(lambda: released.wait(WAIT_S) and DONE))
        return opened[-1]

    opened_with(monkeypatch, open_run)
    member.queue()
    thread = threading.Thread(target=member.look)
    thread.start()
    while member.state is not MemberState.LOOKING:
        time.sleep(0.01)
    assert not member.give_up_hung_look(), "it has begun just now"
    member._watchdog.max_silence_s = -1
    assert member.give_up_hung_look()
    assert member.state is MemberState.HUNG
    assert not is_due(member)
    released.set()
    thread.join(WAIT_S)
    assert member.state is MemberState.WAITING
    assert member._run is None
    look(member)
    assert len(opened) == 2


def test_hung_release__is_given_up_with_its_locks(monkeypatch: pytest.MonkeyPatch, member: FleetMember, log: io.StringIO) -> None:
    ended = threading.Event()
    given_up = threading.Event()
    opened_with(monkeypatch, lambda _: FakeRun())
    look(member)
    member.agent.context.store.db.give_up = given_up.set  # type: ignore[union-attr]  # a mock
    member._resources.callback(lambda: ended.wait(WAIT_S))
    member._watchdog._last_event_s -= 10_000
    assert member.begin_release()
    thread = threading.Thread(target=member.release)
    thread.start()
    assert not member.give_up_hung_look(), "it has begun just now"
    member._watchdog.max_silence_s = -1
    assert member.give_up_hung_look()
    assert member.state is MemberState.HUNG
    assert given_up.wait(WAIT_S)
    ended.set()
    thread.join(WAIT_S)
    assert member.state is MemberState.STANDING_BY
    assert member.agent is None


@pytest.mark.parametrize("was_open", [False, True], ids=["at first", "anew"])
def test_hang_while_opening__is_told_and_given_up_with_its_locks(
    monkeypatch: pytest.MonkeyPatch, member: FleetMember, log: io.StringIO, was_open: bool
) -> None:
    """A key service that does not answer, for example."""
    begun = threading.Event()
    released = threading.Event()
    given_up = threading.Event()
    alerts: SimpleQueue[Alert] = SimpleQueue()
    agent = Mock()
    agent.context.store.db.give_up = given_up.set

    def hang(*_: object, **__: object) -> None:
        begun.set()
        released.wait(WAIT_S)
        raise OperatorNeeded("no key")

    loaded_config = Mock()
    loaded_config.config.service.hang_after = 1_000
    monkeypatch.setattr(fleet_members, "load_config", lambda _: loaded_config)
    monkeypatch.setattr(fleet_members, "secrets_of", lambda _: ())
    monkeypatch.setattr(fleet_members, "open_agent", lambda *_, **__: nullcontext(agent))
    monkeypatch.setattr(fleet_members, "event_handler", hang)
    monkeypatch.setattr(SharedConnections, "serving", lambda *_: nullcontext())
    monkeypatch.setattr(SharedConnections, "chain", lambda *_: Mock())
    monkeypatch.setattr(FleetMember, "_watch_store", lambda *_: None)
    monkeypatch.setattr(FleetMember, "_tell", lambda _, alert: alerts.put(alert))
    ended_service = FakeService()
    ended_service.recorder.report.ended_s = 1
    if was_open:
        member._service = ended_service  # type: ignore[assignment]  # a fake
    member.queue()
    thread = threading.Thread(target=member.look)
    thread.start()
    assert begun.wait(WAIT_S)
    member._watchdog.max_silence_s = -1
    assert member.give_up_hung_look()
    assert given_up.wait(WAIT_S)
    assert alerts.get(timeout=WAIT_S) is fleet_members.HUNG_ALERT
    released.set()
    thread.join(WAIT_S)
    assert not ended_service.recorder.on_hang.called
    assert (member.state, member.agent) == (MemberState.WAITING, None)


def test_begin_release__of_a_look_is_no_sign_of_life(monkeypatch: pytest.MonkeyPatch, member: FleetMember, log: io.StringIO) -> None:
    opened_with(monkeypatch, lambda _: FakeRun())
    look(member)
    member._state = MemberState.LOOKING
    member._watchdog._last_event_s -= 10_000
    assert not member.begin_release()
    assert member.give_up_hung_look()


def test_a_look_that_ends_is_never_taken_for_hung(monkeypatch: pytest.MonkeyPatch, member: FleetMember) -> None:
    opened_with(monkeypatch, lambda _: FakeRun())
    look(member)
    member._watchdog.max_silence_s = -1
    assert not member.give_up_hung_look()
    assert member.state is MemberState.WAITING


def test_a_failure_while_closing_leaves_it_waiting(monkeypatch: pytest.MonkeyPatch, member: FleetMember, log: io.StringIO) -> None:
    def fail() -> object:
        member._resources.callback(lambda: (_ for _ in ()).throw(OSError("the disk is gone")))
        raise OperatorNeeded("a damaged store")

    opened_with(monkeypatch, lambda _: FakeRun(fail))
    look(member)
    assert member.state is MemberState.BACKING_OFF
    assert "closing failed" in log.getvalue()


def test_stopped_portfolio__looks_each_minute_for_a_resume(monkeypatch: pytest.MonkeyPatch, member: FleetMember) -> None:
    opened_with(monkeypatch, lambda _: FakeRun(lambda: None))
    look(member)
    assert member.state is MemberState.STOPPED
    assert not is_due(member)
    assert member.is_due(time.monotonic() + fleet_members.OWNER_CHECK_S, checks_files=False)
    assert member.run_figures is None, "it is not unhealthy"


def test_figures__are_those_of_the_newest_run_until_it_is_closed(monkeypatch: pytest.MonkeyPatch, member: FleetMember) -> None:
    assert member.run_figures is None
    cycles = iter([DONE, OperatorNeeded("a damaged store")])

    def cycle() -> object:
        result = next(cycles)
        if result is DONE:
            return result
        raise result

    opened_with(monkeypatch, lambda _: FakeRun(cycle))
    look(member)
    assert member.run_figures is not None
    member.due_s = time.monotonic()
    look(member)
    assert member.state is MemberState.BACKING_OFF
    assert member.run_figures is not None, "the end by an error counts as unhealthy"
    member.close()
    assert member.run_figures is None


def test_a_fault_that_passes_is_told_after_five_minutes(monkeypatch: pytest.MonkeyPatch, member: FleetMember, log: io.StringIO) -> None:
    errors: list[TrimtabError] = []

    def fail(_: FleetMember) -> FakeRun:
        raise Retryable("slow")

    opened_with(monkeypatch, fail)
    monkeypatch.setattr(FleetMember, "_tell_failure", lambda _, failure: errors.append(failure))
    look(member)
    member._failing_since_s -= fleet_members.FAULT_ALERT_AFTER_S - 30
    look(member)
    assert errors == []
    member._failing_since_s -= 30
    look(member)
    assert [failure.message for failure in errors] == ["slow"]


def test_alert_of_a_portfolio_that_is_not_open__names_its_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    options = FleetOptions("1h", complete=lambda text, config_path: with_config(text, config_path, {"doctor"}))
    member = FleetMember("p", path, options, SharedConnections(SystemClock()), Redactor(), lambda *_: None)
    texts: list[str] = []

    def open_notifier(_table: object, _store: object, _on_failed: object, complete: Callable[[str], str]) -> None:
        texts.append(complete("See the log and trimtab doctor."))

    monkeypatch.setattr(fleet_members, "load_config", Mock())
    monkeypatch.setattr(fleet_members.wiring, "open_store_offline", lambda _: nullcontext((Mock(), None)))
    monkeypatch.setattr(fleet_members.alert_channels, "open_notifier", open_notifier)
    member._tell(fleet_members.HUNG_ALERT)
    assert texts == [f"See the log and trimtab doctor --config {path}."]
