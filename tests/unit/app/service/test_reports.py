"""What a run reports of each cycle: log, alerts, heartbeat and report, also if one of them, or the store, fails."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.app import service as run_service
from agent.app.controls.messages import control_alerts
from agent.app.records.run_report import RunRecorder
from agent.app.service import FAULT_ALERT_AFTER_S, RunEventHandler, StoppableClock, StopRequested, reported
from agent.errors import ConfigError, OperatorNeeded, PassingFault, Refused, Retryable, TrimtabError
from agent.model import Alert, AlertKind, Control, ControlKind, ControlOrigin, RunFigures, RunReport
from agent.observe.health import MAX_MISSED_CYCLES
from agent.store import Store, open_store
from agent.store.files.pause import KillSwitch
from tests.support.transactions import CHAIN_ID, START_S, WALLET

INTERVAL_S = 3_600
NO_ANSWER = Retryable("no answer", "check the endpoint", code="http")
CALM = Refused("a plan was refused", (), "see the log")
"""A cycle without a fault; its outcome has few parts."""
FULL_DISK = PassingFault("store: disk is full", "free space", code="store")


class FakeLog:
    """A log that keeps the names of its events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def _keep(self, event: str, **_fields: object) -> None:
        self.events.append(event)

    info = warning = error = _keep


@dataclass
class FakeNotifier:
    """A notifier that keeps alerts; with `error` it cannot record any."""

    alerts: list[Alert] = field(default_factory=list)
    last_alerts: list[Alert] = field(default_factory=list)
    unrecorded: list[Alert] = field(default_factory=list)
    sent_at_once: list[Alert] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    error: TrimtabError | None = None
    faults: list[str] = field(default_factory=list)
    """Calls that fail, each once."""

    def process_cycle_alerts(self, alerts: Sequence[Alert], _kinds: object, _now_s: int, is_last: bool = False) -> tuple[()]:
        if self.error is not None:
            raise self.error
        (self.last_alerts if is_last else self.alerts).extend(alerts)
        return ()

    def queue_unrecorded(self, alert: Alert, _now_s: int) -> None:
        self.unrecorded.append(alert)

    def send_now(self, alert: Alert, _now_s: int) -> None:
        self.sent_at_once.append(alert)

    def enqueue_undelivered(self) -> None:
        self._call("enqueue")

    def close(self) -> None:
        self._call("close")

    def _call(self, name: str) -> None:
        if name in self.faults:
            self.faults.remove(name)
            raise FULL_DISK
        self.calls.append(name)


class FakeHeartbeat:
    """A heartbeat that counts."""

    def __init__(self) -> None:
        self.beats = 0
        self.is_awaited = False

    def beat(self) -> None:
        self.beats += 1

    def wait_until_sent(self) -> None:
        self.is_awaited = True


class World:
    """The handler of a run's events on a real store, with fakes around it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store: Store = open_store(f"sqlite:///{folder}/trimtab.db", CHAIN_ID, WALLET)
        self.switch = KillSwitch(folder / "paused", self.store.pause_switch)
        self.now_s = START_S
        self.log = FakeLog()
        self.notifier = FakeNotifier()
        self.heartbeat = FakeHeartbeat()
        self.ready_times_s: list[int] = []
        limits = SimpleNamespace(native_floor=None)
        self.config = SimpleNamespace(alerts=SimpleNamespace(low_gas=None, digest=None), limits=limits)
        self.agent: Any = SimpleNamespace(
            context=SimpleNamespace(
                store=self.store,
                kill_switch=self.switch,
                clock=SimpleNamespace(now_s=lambda: self.now_s),
                config=self.config,
                loaded_config=SimpleNamespace(config=self.config, redacted_text="", digest="ab"),
            )
        )
        monkeypatch.setattr(run_service, "cycle_figures", lambda *_: RunFigures())
        monkeypatch.setattr(run_service, "agent_fields", lambda _: {})
        monkeypatch.setattr(run_service, "cycle_trouble", lambda result: "" if result is CALM else result.message)
        self.recorder = RunRecorder(self.store.run_reports, INTERVAL_S, sends=True, now_s=lambda: self.now_s)
        self.handler = self.open_handler(self.recorder)

    def open_handler(self, recorder: RunRecorder) -> RunEventHandler:
        surroundings: Any = SimpleNamespace(
            beat=lambda _: None,
            ready=lambda: self.ready_times_s.append(self.now_s),
            status=lambda _: None,
            stopping=lambda: self.notifier.calls.append("stopping"),
        )
        log: Any = self.log
        heartbeat: Any = self.heartbeat
        notifier: Any = self.notifier
        return RunEventHandler(self.agent, log, recorder, surroundings, surroundings, heartbeat, is_logging=True, alert_notifier=notifier)

    def cycle(self, result: TrimtabError, after_s: int = 0) -> None:
        self.now_s += after_s
        self.handler.on_cycle(result)

    @property
    def report(self) -> RunReport:
        """The newest report of the run."""
        report = self.store.run_reports.newest()
        assert report is not None
        return report

    def texts(self, kind: AlertKind) -> list[str]:
        return [alert.text for alert in self.notifier.alerts if alert.kind is kind]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    new_world = World(tmp_path, monkeypatch)
    yield new_world
    new_world.store.close()


def test_failing_cycles__are_alerted_after_their_time(world: World) -> None:
    world.cycle(NO_ANSWER)
    world.cycle(NO_ANSWER, FAULT_ALERT_AFTER_S - 1)
    assert world.texts(AlertKind.HEARTBEAT) == []
    world.cycle(NO_ANSWER, 1)
    assert world.texts(AlertKind.HEARTBEAT) == ["each look has failed for 5 min; the run goes on trying: see its log"]
    world.cycle(CALM, 1)
    world.cycle(NO_ANSWER, FAULT_ALERT_AFTER_S)
    assert len(world.texts(AlertKind.HEARTBEAT)) == 1, "a cycle in between begins anew"


def test_failing_cycles__are_alerted_though_the_clock_was_set_back(world: World) -> None:
    world.cycle(NO_ANSWER)
    world.cycle(NO_ANSWER, -(10**6))
    world.cycle(NO_ANSWER, FAULT_ALERT_AFTER_S)
    assert world.texts(AlertKind.HEARTBEAT) == ["each look has failed for 5 min; the run goes on trying: see its log"]


def test_failing_store__is_alerted_once_each_time_without_it(world: World) -> None:
    world.notifier.error = FULL_DISK
    for after_s in (0, FAULT_ALERT_AFTER_S, 1):
        world.cycle(NO_ANSWER, after_s)
    assert [alert.kind for alert in world.notifier.unrecorded] == [AlertKind.HEARTBEAT]
    assert world.log.events.count("reporting failed") == 3
    world.notifier.error = None
    world.cycle(CALM, 1)
    world.notifier.error = FULL_DISK
    for after_s in (0, FAULT_ALERT_AFTER_S):
        world.cycle(NO_ANSWER, after_s)
    assert len(world.notifier.unrecorded) == 2


def test_reporting__ends_the_run_only_for_a_damaged_store(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.notifier.error = OperatorNeeded("store: a row is damaged")
    with pytest.raises(OperatorNeeded, match="damaged"):
        world.cycle(CALM)
    monkeypatch.setattr(world.handler, "report_controls", lambda _: 1 // 0)
    world.notifier.error = None
    world.switch.pause("owner", START_S)
    world.cycle(CALM)
    assert world.texts(AlertKind.PAUSED), "what follows a part that fails is reported"


@pytest.mark.parametrize("is_readable", [True, False])
def test_pause__is_logged_at_its_beginning_and_its_end(world: World, monkeypatch: pytest.MonkeyPatch, is_readable: bool) -> None:
    """A switch that cannot be read pauses too."""
    world.cycle(CALM)
    with monkeypatch.context() as fault:
        if is_readable:
            world.switch.pause("owner", START_S)
        else:
            fault.setattr("agent.store.files.pause._exists", lambda _: (_ for _ in ()).throw(OSError("I/O error")))
        world.cycle(CALM)
        world.cycle(CALM)
    assert (world.log.events.count("paused"), len(world.texts(AlertKind.PAUSED))) == (1, 2)
    world.switch.resume("seen", START_S)
    world.cycle(CALM)
    assert (world.log.events.count("resumed"), len(world.texts(AlertKind.PAUSED))) == (1, 2)


def test_figures__cannot_be_read__the_run_is_reported_alive(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (FULL_DISK, ValueError("no such asset")):
        monkeypatch.setattr(run_service, "cycle_figures", lambda *_, error=error: (_ for _ in ()).throw(error))
        world.cycle(CALM, 1)
        assert world.report.written_s == world.now_s


@pytest.mark.parametrize("failed_cycles", [0, 1, 2])
def test_readiness__is_told_once_after_the_first_reported_look(world: World, monkeypatch: pytest.MonkeyPatch, failed_cycles: int) -> None:
    with monkeypatch.context() as fault:
        fault.setattr(run_service, "log_events", lambda *_: 1 // 0)
        for _ in range(failed_cycles):
            world.cycle(CALM, 1)
        assert world.ready_times_s == []
    for _ in range(2):
        world.cycle(CALM, 1)
    assert world.ready_times_s == [START_S + failed_cycles + 1]


def test_heartbeat__beats_for_a_healthy_run_that_has_the_report(world: World) -> None:
    world.cycle(CALM)
    assert world.heartbeat.beats == 1
    world.cycle(OperatorNeeded("nonce taken"), INTERVAL_S * (MAX_MISSED_CYCLES + 1))
    assert world.heartbeat.beats == 1
    world.cycle(CALM)
    assert world.heartbeat.beats == 2
    dry_run = world.open_handler(RunRecorder(world.store.run_reports, INTERVAL_S, sends=False, now_s=lambda: world.now_s))
    dry_run.on_cycle(CALM)
    assert world.heartbeat.beats == 2, "the report is that of the run that sends"


def test_missed_heartbeats__are_alerted_once_they_come_in_a_row(world: World) -> None:
    def cycles(*failures: int) -> int:
        before = len(world.texts(AlertKind.HEARTBEAT))
        for count in failures:
            world.handler.failed_heartbeats += count
            world.cycle(CALM)
        return len(world.texts(AlertKind.HEARTBEAT)) - before

    assert cycles(*[2] * (MAX_MISSED_CYCLES - 1)) == 0
    assert cycles(0, *[1] * (MAX_MISSED_CYCLES - 1)) == 0
    assert cycles(1) == 1


def control(number: int) -> Control:
    asked_s = START_S + number
    return Control(f"c{number}", ControlKind.PAUSE, (), "", "owner", ControlOrigin.CLI, asked_s, asked_s + 60, "")


def test_controls__are_each_reported_once(world: World) -> None:
    for number in range(3):
        world.store.controls.record_done(control(number))
    world.cycle(CALM)
    world.cycle(CALM)
    assert world.log.events.count("control") == 3
    assert len(world.handler.pop_screen_notes()) == 3
    assert len(world.texts(AlertKind.CONTROL)) == len(control_alerts(world.store.controls.events()))


@pytest.mark.parametrize("failed_cycles", [1, 2, 3])
def test_controls__a_failing_store_loses_no_alert(world: World, failed_cycles: int) -> None:
    for number in range(3):
        world.store.controls.record_done(control(number))
    world.notifier.error = FULL_DISK
    for _ in range(failed_cycles):
        world.cycle(CALM)
    world.notifier.error = None
    world.cycle(CALM)
    assert len(world.texts(AlertKind.CONTROL)) == len(control_alerts(world.store.controls.events())) == 3
    assert world.log.events.count("control") == 3
    assert len(world.handler.pop_screen_notes()) == 3


@pytest.mark.parametrize("failing", ["alerts", "ledger"])
def test_digest__a_failing_store_loses_none(world: World, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    errors = {"alerts": FULL_DISK} if failing == "alerts" else {"ledger": FULL_DISK}

    def digest(_config: object, _period: str, now_s: int) -> Iterator[Alert]:
        if "ledger" in errors:
            raise errors["ledger"]
        yield Alert(AlertKind.DIGEST, run_service.digest_key("day", now_s), "a day")

    monkeypatch.setattr(run_service, "digest_alert", digest)
    world.config.alerts.digest = "day"
    world.notifier.error = errors.get("alerts")
    world.switch.pause("owner", START_S)
    world.cycle(CALM)
    assert len(world.texts(AlertKind.PAUSED)) == int(failing == "ledger"), "the digest keeps no other alert back"
    world.notifier.error = None
    errors.clear()
    for _ in range(2):
        world.cycle(CALM)
    assert world.texts(AlertKind.DIGEST) == ["a day"]


def test_digest__is_asked_for_once_over_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    digests: list[int] = []

    def digest(_config: object, _period: str, now_s: int) -> Iterator[Alert]:
        digests.append(now_s)
        yield Alert(AlertKind.DIGEST, run_service.digest_key("day", now_s), "a day")

    monkeypatch.setattr(run_service, "digest_alert", digest)
    world.config.alerts.digest = "day"
    world.cycle(CALM)
    world.cycle(CALM)
    assert (len(digests), world.texts(AlertKind.DIGEST)) == (1, ["a day"])
    state: Any = SimpleNamespace(key=run_service.digest_key("day", world.now_s))
    monkeypatch.setattr(type(world.store.alerts), "states", lambda _: (state,))
    world.open_handler(world.recorder).on_cycle(CALM)
    assert len(digests) == 1


def edit_targets(world: World, notifier: FakeNotifier | TrimtabError) -> None:
    """Let the next cycle find another [alerts], whose targets are `notifier`, or cannot be opened."""

    def open_notifier() -> Any:
        if isinstance(notifier, TrimtabError):
            raise notifier
        return notifier

    world.config.alerts = SimpleNamespace(low_gas=None, digest=None, targets=["phone"])
    world.handler.open_notifier = open_notifier


def test_edited_targets__are_taken_up_after_the_old_got_a_report(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_service, "secrets_of", lambda _: ["json://secret.example/path"])
    control = Control("1" * 32, ControlKind.EDIT, (), "", "ann", ControlOrigin.DASHBOARD, START_S, START_S + 60)
    world.store.controls.record_done(control)
    new_notifier = FakeNotifier()
    edit_targets(world, new_notifier)
    world.cycle(CALM)
    world.cycle(CALM)
    assert [alert.kind for alert in world.notifier.alerts] == [AlertKind.CONTROL]
    assert world.notifier.calls == ["close"]
    assert new_notifier.calls == ["enqueue"]
    assert "secret" not in world.handler.redactor.redact("to json://secret.example/path")
    world.handler.on_error(OperatorNeeded("nonce taken"))
    assert (len(world.notifier.last_alerts), len(new_notifier.last_alerts)) == (0, 1)


def test_edited_targets__that_cannot_open__leave_the_old(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_service, "secrets_of", lambda _: [])
    edit_targets(world, ConfigError("alerts.targets.url_env: environment variable P is not set"))
    world.cycle(CALM)
    world.cycle(CALM)
    assert (world.handler.alert_notifier, world.notifier.calls) == (world.notifier, [])
    assert world.log.events.count("alert targets not taken up") == 1
    assert world.handler.pop_screen_notes() == (
        "Alert targets not taken up: alerts.targets.url_env: environment variable P is not set; each cycle tries again",
    )
    edit_targets(world, ConfigError(".env: other users can read it"))
    world.cycle(CALM)
    assert world.log.events.count("alert targets not taken up") == 2, "another reason"


@pytest.mark.parametrize("fault", ["close", "enqueue"])
def test_edited_targets__a_failing_store_leaves_no_message_behind(world: World, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """What the old targets did not deliver is queued for the new ones in the next cycle."""
    monkeypatch.setattr(run_service, "secrets_of", lambda _: [])
    new_notifier = FakeNotifier(faults=["enqueue"] if fault == "enqueue" else [])
    world.notifier.faults = ["close"] if fault == "close" else []
    edit_targets(world, new_notifier)
    for _ in range(3):
        world.cycle(CALM)
    assert world.handler.alert_notifier is new_notifier
    assert new_notifier.calls[-1:] == ["enqueue"]
    assert new_notifier.calls.count("enqueue") == 1


@pytest.mark.parametrize("has_former_targets", [True, False])
def test_edited_targets__are_taken_up_once_their_variable_is_set(
    world: World, monkeypatch: pytest.MonkeyPatch, has_former_targets: bool
) -> None:
    monkeypatch.setattr(run_service, "secrets_of", lambda _: [])
    if not has_former_targets:
        world.handler.alert_notifier = None
    edit_targets(world, ConfigError("alerts.targets.url_env: environment variable P is not set"))
    world.cycle(CALM)
    new_notifier = FakeNotifier()
    world.handler.open_notifier = lambda: new_notifier  # type: ignore[assignment,return-value]  # a fake
    world.cycle(CALM)
    assert world.handler.alert_notifier is new_notifier
    world.cycle(CALM)
    assert new_notifier.calls == ["enqueue"]


@pytest.mark.parametrize("is_store_broken", [False, True])
def test_end_by_an_error__is_reported_and_alerted_once(world: World, is_store_broken: bool) -> None:
    error = OperatorNeeded("nonce taken", "trimtab resync")
    if is_store_broken:
        world.notifier.error = OperatorNeeded("store: a row is damaged")
    with pytest.raises(OperatorNeeded, match="nonce taken"), reported(world.handler, "1m"):
        raise error
    recorded_count, sent_count = (0, 1) if is_store_broken else (1, 0)
    assert (len(world.notifier.last_alerts), len(world.notifier.sent_at_once)) == (recorded_count, sent_count)
    assert (world.report.end_error, world.report.ended_s) == ("nonce taken", START_S)
    assert world.notifier.calls == ["enqueue", "stopping", "close"]
    assert world.heartbeat.is_awaited


def test_hang__is_reported_and_alerted_before_the_process_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def exit_process(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("agent.app.service.os._exit", exit_process)
    monkeypatch.setattr("agent.app.service.logging.shutdown", lambda: None)
    with pytest.raises(SystemExit, match="13"):
        world.handler.on_hang("reading the chain since 10 min")
    assert world.report.hang_text == "reading the chain since 10 min"
    assert [alert.key for alert in world.notifier.sent_at_once] == ["hung"]


def test_signal__second_or_one_during_a_prompt_interrupts_at_once() -> None:
    clock = StoppableClock()
    with clock.interruptible(), pytest.raises(StopRequested):
        clock._on_signal(signal.SIGTERM, None)
    clock = StoppableClock()
    clock._on_signal(signal.SIGTERM, None)
    with pytest.raises(StopRequested):
        clock._on_signal(signal.SIGTERM, None)
