"""A run as a service: log, report, heartbeat and alerts of each cycle; a hung cycle ends the
process.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, NoReturn

from agent import wiring
from agent.app import alert_channels, alerting
from agent.app.agent import Agent
from agent.app.controls.messages import control_alerts, control_note
from agent.app.cycles import READING_STAGE, is_retried_soon
from agent.app.documents.past.step_history import rejection_hash, rejection_text
from agent.app.records.cycle_report import (
    agent_fields,
    cycle_figures,
    cycle_outcome,
    cycle_transactions,
    cycle_trouble,
    error_fields,
    log_events,
    nonempty_fields,
    status_line,
)
from agent.app.records.digest import digest_alert, digest_key
from agent.app.records.run_report import RunRecorder, pause_reason
from agent.config.redaction import config_diff
from agent.config.secrets.known import read_unset_variables, secrets_of
from agent.config.tables.fields import parse_duration_s
from agent.errors import EXIT_HUNG, ConfigError, PassingFault, TrimtabError, internal_error
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.step_context import StepOutcome
from agent.interrupts import INTERRUPTS
from agent.model import Alert, AlertKind, Delivery, IntentState
from agent.observe.health import MAX_MISSED_CYCLES
from agent.observe.logs import Log, LogStyle, Redactor, configure
from agent.observe.notify import AlertNotifier
from agent.observe.watch import Heartbeat, SystemdNotifier, Watchdog
from agent.ports import Clock, MonotonicClock
from agent.units import rough_duration


class StopRequested(KeyboardInterrupt):
    """Raised to end a run after a signal. Not an Exception, so that no `except Exception` catches
    it.
    """


class StoppableClock:
    """Clock whose sleep raises StopRequested after a signal.

    The agent sleeps only between cycles and while a journaled transaction is pending; in both cases
    the next run can resume. A second signal interrupts at once, and so does a signal during a
    prompt.

    A handler runs between any two bytecodes of the main thread, so it must not take a lock that the
    sleep holds. An Event would deadlock; `SimpleQueue.put` is reentrant.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        """Wrap `clock`, by default the system clock."""
        self._clock = clock or wiring.SystemClock()
        self._is_stopping = False
        self._signals: SimpleQueue[None] = SimpleQueue()
        self._is_interruptible = False
        self._watchdog: Watchdog | None = None

    def now_s(self) -> int:
        """Return the time in Unix seconds."""
        return self._clock.now_s()

    def monotonic_s(self) -> float:
        """Return seconds that no one sets, if the wrapped clock counts them."""
        clock = self._clock
        return clock.monotonic_s() if isinstance(clock, MonotonicClock) else clock.now_s()

    def sleep(self, seconds: float) -> None:
        """Sleep; raise StopRequested once a stop was requested."""
        if self._watchdog is not None:
            self._watchdog.beat("waiting")
        if not self._is_stopping:
            with suppress(Empty):
                self._signals.get(timeout=max(0.0, seconds))
        if self._is_stopping:
            raise StopRequested

    def raise_if_stopping(self) -> None:
        """Raise StopRequested if a stop was requested."""
        self.sleep(0)

    def set_watchdog(self, watchdog: Watchdog) -> None:
        """Report each sleep to the watchdog as a sign of life, and pause it during prompts."""
        self._watchdog = watchdog

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals inside the context. Call from the main thread."""
        old_handlers = {
            signal_number: signal.signal(signal_number, self._on_signal)
            for signal_number in INTERRUPTS
        }
        try:
            yield
        finally:
            for signal_number, old_handler in old_handlers.items():
                signal.signal(signal_number, old_handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let the first signal interrupt inside the context, where a prompt or a wait sends
        nothing.
        """
        self._is_interruptible = True
        try:
            with self._watchdog.asking() if self._watchdog is not None else nullcontext():
                yield
        finally:
            self._is_interruptible = False

    def request_stop(self) -> None:
        """Let the current sleep, or the next, raise StopRequested. May be called in any thread."""
        self._is_stopping = True
        self._signals.put(None)

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        is_second = self._is_stopping
        self.request_stop()
        if is_second or self._is_interruptible:
            raise StopRequested


class SingleStopClock(StoppableClock):
    """StoppableClock on which further signals interrupt nothing, so that the demo removes what it
    started.
    """

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._is_stopping:
            super()._on_signal(number, frame)


FAULT_ALERT_AFTER_S = 300
"""Time of failed cycles in a row after which an alert is sent, at any interval."""
MAX_CONTROL_LINES = 20
"""Maximum number of lines about controls that one cycle logs and shows."""
NORMAL_CONTROL_STATES = ("queued", "taken", "done")


@dataclass
class RunEventHandler:
    """Handler of a run's events: it updates log, report, alerts and watchdog."""

    agent: Agent
    log: Log
    recorder: RunRecorder
    watchdog: Watchdog
    systemd_notifier: SystemdNotifier
    heartbeat: Heartbeat | None
    is_logging: bool
    alert_notifier: AlertNotifier | None = None
    open_notifier: Callable[[], AlertNotifier | None] = lambda: None
    """Opens the targets of the present [alerts]."""
    redactor: Redactor = field(default_factory=Redactor)
    """That of the log."""
    cycle_began_s: float = field(default_factory=time.monotonic)
    is_ready: bool = False
    """Whether the service manager knows that a look was reported."""
    is_paused: bool = False
    failed_heartbeats: int = 0
    failed_heartbeats_in_row: int = 0
    failing_since_s: int | None = None
    """End of the first of the cycles in a row that failed, Unix seconds; None after a good one."""
    is_fault_alert_queued: bool = False
    """Whether an alert about these cycles was queued without the store."""
    screen_notes: tuple[str, ...] = ()
    """Lines for the screen, until it shows them."""
    digest_key: str = ""
    """Key of the newest digest that was due; its ledger is not read again."""
    control_log_end: int = 0
    """Number of the newest reported line of the log of controls."""
    stopped_by: str = ""
    """Command that stopped the run; empty for a signal."""
    proposal: Mapping[str, Any] | None = None
    """The proposal that waited at the last look."""

    def __post_init__(self) -> None:
        self._last_config = self.agent.context.loaded_config
        self._last_alerts = self.agent.context.config.alerts
        self._targets_fault = ""
        self.control_log_end, _ = self.agent.context.store.controls.log_number_and_time()

    def on_stage(self, stage: str) -> None:
        """Handle the next stage of the run."""
        if stage == READING_STAGE:
            self.cycle_began_s = time.monotonic()
        self.watchdog.beat(stage)

    def on_cycle(self, outcome_or_error: StepOutcome | TrimtabError) -> None:
        """Handle the end of a cycle. Only a damaged store ends the run; other reporting errors are
        logged.
        """
        if not is_retried_soon(outcome_or_error):
            self.failing_since_s = None
            self.is_fault_alert_queued = False
        else:
            now_s = self.agent.context.clock.now_s()
            # A clock set back lets the failing begin anew.
            self.failing_since_s = min(self.failing_since_s or now_s, now_s)
        for report_part in (
            self._report,
            self._report_proposal,
            self.report_controls,
            self._take_up_targets,
            self._alert,
        ):
            try:
                report_part(outcome_or_error)
            except PassingFault as fault:
                self.log.error("reporting failed", kind=fault.code, why=fault.message)
            except TrimtabError:
                raise
            except Exception as error:
                self.log.error("reporting failed", kind=type(error).__name__)

    def _report(self, outcome_or_error: StepOutcome | TrimtabError) -> None:
        duration_s = time.monotonic() - self.cycle_began_s
        self.watchdog.beat("reporting of the last cycle")
        if (loaded_config := self.agent.context.loaded_config) != self._last_config:
            config_changes = config_diff(
                self._last_config.redacted_text, loaded_config.redacted_text
            ) or ("only comments",)
            self.log.info("config reloaded", digest=loaded_config.digest, changes=config_changes)
            self._note(f"Now running the edited config: {'; '.join(config_changes)}")
            self._last_config = loaded_config
        switch_state = self.agent.context.kill_switch.read()
        is_paused = switch_state.paused is not False
        trouble_text = cycle_trouble(outcome_or_error)
        recorder = self.recorder
        recorder.on_cycle(
            cycle_outcome(outcome_or_error),
            trouble_text,
            pause_reason(switch_state),
            cycle_transactions(outcome_or_error),
        )
        try:
            recorder.on_figures(
                cycle_figures(self.agent, outcome_or_error, duration_s, recorder.report.figures)
            )
        except PassingFault as fault:
            self.log.warning("report failed", why=fault.message)
        finally:  # without figures the run is still alive
            self.write_report()
        if is_paused is not self.is_paused:
            self.log.warning(
                "paused" if is_paused else "resumed",
                **nonempty_fields(reason=switch_state.reason, hard=switch_state.hard or None),
            )
            self.is_paused = is_paused
        log_event = self.log.warning if trouble_text else self.log.info
        for event_name, log_fields in log_events(self.agent, outcome_or_error, duration_s):
            log_event(event_name, **log_fields)
        if not self.is_ready:
            self.systemd_notifier.ready()
            self.is_ready = True
        self.systemd_notifier.status(trouble_text or status_line(outcome_or_error))
        is_healthy = self.recorder.health().is_healthy and not self.recorder.defers_to_other_run
        if self.heartbeat is not None and is_healthy:
            self.heartbeat.beat()

    def write_report(self) -> None:
        """Write the report of the run to the store. A failure is logged; if the store stays broken,
        the next cycle fails by its own writes.
        """
        try:
            self.recorder.write()
        except TrimtabError as error:
            self.log.warning("report failed", why=error.message)

    def report_controls(self, _: StepOutcome | TrimtabError | None = None) -> None:
        """Queue alerts about each change of a control, log it, and keep lines for the screen; of
        many only the first. If the store fails, the next call reports them.
        """
        store = self.agent.context.store
        now_s = self.agent.context.clock.now_s()
        control_events = store.controls.events(after=self.control_log_end)
        if not control_events:
            return
        alerts = control_alerts(control_events)
        if self.alert_notifier is not None and alerts:
            self.alert_notifier.process_cycle_alerts(alerts, frozenset(), now_s)
        self.control_log_end = control_events[-1].sequence_number
        for control_event in control_events[:MAX_CONTROL_LINES]:
            log_event = (
                self.log.info if control_event.state in NORMAL_CONTROL_STATES else self.log.warning
            )
            log_fields = {
                "kind": control_event.kind,
                "origin": control_event.origin,
                "code": control_event.code or None,
            }
            log_event("control", state=control_event.state, **nonempty_fields(**log_fields))
            if control_event.state not in {"queued", "taken"}:
                self._note(control_note(control_event))
        if (unshown_count := len(control_events) - MAX_CONTROL_LINES) > 0:
            self.log.warning("controls", more=unshown_count)

    def _take_up_targets(self, _: StepOutcome | TrimtabError) -> None:
        """Open the targets of an edited [alerts]. Those before keep what is queued for them, also
        the report of the edit, and stay in use while one of the new ones cannot be opened; each
        cycle tries again.
        """
        alerts_table = self.agent.context.config.alerts
        if alerts_table == self._last_alerts and not self._targets_fault:
            return
        self.redactor.add(secrets_of(self.agent.context.loaded_config))
        former_notifier = self.alert_notifier
        try:
            self.alert_notifier = self.open_notifier()
        except ConfigError as error:
            self._last_alerts = alerts_table
            if error.message != self._targets_fault:
                self._targets_fault = error.message
                self._note(f"Alert targets not taken up: {error.message}; each cycle tries again")
                self.log.error("alert targets not taken up", **error_fields(error))
            return
        if former_notifier is not None:
            former_notifier.close()
        if self.alert_notifier is not None:
            self.alert_notifier.enqueue_undelivered()
        self._last_alerts = alerts_table
        self._targets_fault = ""

    def _alert(self, outcome_or_error: StepOutcome | TrimtabError) -> None:
        """Queue the cycle's alerts for delivery, without waiting."""
        alert_notifier = self.alert_notifier
        if alert_notifier is None:
            return
        if self.failed_heartbeats:
            self.failed_heartbeats_in_row += 1
        else:
            self.failed_heartbeats_in_row = 0
        self.failed_heartbeats = 0
        now_s = self.agent.context.clock.now_s()
        silence_text = self.recorder.silence_text() or self._fault_text(now_s)
        if not silence_text and self.failed_heartbeats_in_row >= MAX_MISSED_CYCLES:
            silence_text = (
                f"the heartbeat did not arrive {self.failed_heartbeats_in_row} times in a row"
            )
        try:
            self._queue_alerts(alert_notifier, outcome_or_error, silence_text, now_s)
        except PassingFault:
            if silence_text and not self.is_fault_alert_queued:
                alert = Alert(AlertKind.HEARTBEAT, "heartbeat", silence_text)
                alert_notifier.queue_unrecorded(alert, now_s)
                self.is_fault_alert_queued = True
            raise
        self._queue_digest(alert_notifier, now_s)

    def _fault_text(self, now_s: int) -> str:
        """Return for how long cycles have failed as text if that is too long; else empty."""
        if self.failing_since_s is None or now_s - self.failing_since_s < FAULT_ALERT_AFTER_S:
            return ""
        failing_text = rough_duration(now_s - self.failing_since_s)
        return f"each look has failed for {failing_text}; the run goes on trying: see its log"

    def _queue_alerts(
        self,
        alert_notifier: AlertNotifier,
        outcome_or_error: StepOutcome | TrimtabError,
        silence_text: str,
        now_s: int,
    ) -> None:
        context = self.agent.context
        newest_input = (
            outcome_or_error.input_after or outcome_or_error.step_input
            if isinstance(outcome_or_error, StepOutcome)
            else None
        )
        run_facts = alerting.RunFacts(
            self.is_paused,
            silence_text,
            alert_channels.low_gas_wei(context.loaded_config),
            alert_channels.unreported_shortfalls(context.store, context.store.alerts, now_s),
            alert_channels.unsettled_orders(
                context.store, None if newest_input is None else newest_input.snapshot, now_s
            ),
        )
        alerts = alerting.cycle_alerts(outcome_or_error, run_facts)
        judged_kinds = alerting.covered_kinds(outcome_or_error)
        self._process_alerts(alert_notifier, alerts, judged_kinds, now_s)

    def _process_alerts(
        self,
        alert_notifier: AlertNotifier,
        alerts: Iterable[Alert],
        judged_kinds: frozenset[AlertKind],
        now_s: int,
    ) -> None:
        for alert_state in alert_notifier.process_cycle_alerts(alerts, judged_kinds, now_s):
            self.log.info("alert", about=alert_state.kind.value, text=alert_state.text)

    def _queue_digest(self, alert_notifier: AlertNotifier, now_s: int) -> None:
        """Queue the digest that is due and not sent yet; if the store fails, the next cycle does."""
        context = self.agent.context
        period_kind = context.config.alerts.digest
        if period_kind is None or (due_key := digest_key(period_kind, now_s)) == self.digest_key:
            return
        if due_key not in {alert_state.key for alert_state in context.store.alerts.states()}:
            alerts = [*digest_alert(context.loaded_config, period_kind, now_s)]
            self._process_alerts(alert_notifier, alerts, frozenset(), now_s)
        self.digest_key = due_key

    def on_error(self, error: TrimtabError) -> None:
        """Report that the run ends with an error."""
        self.log.error("ended", **error_fields(error))
        self.recorder.on_end(error.message)
        if self.alert_notifier is None:
            return
        alert = alerting.run_ended_alert(error)
        now_s = self.agent.context.clock.now_s()
        with suppress(Exception):  # if the store failed, send the alert without recording it
            self.alert_notifier.process_cycle_alerts((alert,), frozenset(), now_s, is_last=True)
            return
        self.alert_notifier.send_now(alert, now_s)

    def on_offer(self) -> None:
        """Report that the plan of the last cycle waits for a confirmation."""
        self.log.info("offered")
        self._note("The plan waits for a confirmation: trimtab request confirm")

    def _report_proposal(self, outcome_or_error: StepOutcome | TrimtabError) -> None:
        """Report what became of the proposal that waited, once it does not."""
        if self.proposal is not None:
            proposal_id = self.proposal["id"]
            store = self.agent.context.store
            intents = store.journal.intents()
            intent = next((intent for intent in intents if intent.id == proposal_id), None)
            if intent is not None and intent.state is IntentState.PLANNED:
                return  # also if this cycle failed before it looked
            end_text = "was not executed"
            if intent is not None and intent.tx_hash is not None:
                end_text = f"was executed in {intent.tx_hash}"
            elif intent is not None and (rejection := rejection_hash(store, intent)):
                end_text = rejection_text(rejection)
            end_note = f"The proposal {proposal_id} {end_text}: {self.proposal['description']}"
            self.log.info("proposal ended", proposal=proposal_id, why=end_note)
            self._note(end_note)
            self.proposal = None
        if isinstance(outcome_or_error, AwaitingExternalSignature):
            self.proposal = outcome_or_error.proposal

    def _note(self, line: str) -> None:
        self.screen_notes += (line,)

    def pop_screen_notes(self) -> tuple[str, ...]:
        """Return the lines since the last call for the screen, in the order of their events."""
        screen_notes = self.screen_notes
        self.screen_notes = ()
        return screen_notes

    def on_unrecorded(self, why: str) -> None:
        """Report that a step could not be written to its file. The run continues."""
        self.log.warning("record failed", why=why)
        self._note(why)

    def on_hang(self, why: str) -> NoReturn:
        """Report the hung stage and end the process, so that its service manager restarts it.

        Called from the watchdog's thread. Sent transactions are in the journal, so the exit is as
        safe as a power failure between two actions.
        """
        self.log.error("hung", why=why, exit=EXIT_HUNG)
        self.recorder.on_hang(why)
        if self.alert_notifier is not None:
            self.alert_notifier.send_now(alerting.run_hung_alert(), int(time.time()))
        self.systemd_notifier.status(f"hung: {why}")
        logging.shutdown()
        os._exit(EXIT_HUNG)


@contextmanager
def report_run(
    agent: Agent,
    clock: StoppableClock,
    every: str,
    *,
    sends: bool = False,
    once: bool = False,
    log_format: LogStyle | None = None,
    complete: Callable[[str], str] = str,
) -> Iterator[RunEventHandler]:
    """Report the only run of this process inside the context: its log, its watchdog and its service
    manager are the process's. `log_format` overrides the config, the rest is as in `event_handler`.
    """
    service_table = agent.context.config.service
    log_style = log_format or service_table.log_format
    redactor = Redactor(secrets_of(agent.context.loaded_config))
    log = configure(log_style, redactor)
    systemd_notifier = SystemdNotifier()
    watchdog = Watchdog(service_table.hang_after, period_s=systemd_notifier.watchdog_s)
    service = event_handler(
        agent,
        RunSurroundings(
            log,
            watchdog,
            systemd_notifier,
            is_logging=log_style is not None,
            redactor=redactor,
            complete=complete,
        ),
        every,
        sends=sends,
        once=once,
    )
    clock.set_watchdog(watchdog)
    with (
        watchdog.watching(service.on_hang, systemd_notifier.alive),
        reported(service, every),
    ):
        yield service


@dataclass(frozen=True, slots=True)
class RunSurroundings:
    """What a run writes to and is watched by. `is_logging` is False if the log is off; `redactor`
    hides the secrets of the run's config. `complete` adds the config to the commands that an alert
    names.
    """

    log: Log
    watchdog: Watchdog
    systemd_notifier: SystemdNotifier
    is_logging: bool
    redactor: Redactor
    complete: Callable[[str], str] = str


def event_handler(
    agent: Agent,
    surroundings: RunSurroundings,
    every: str,
    *,
    sends: bool,
    once: bool = False,
) -> RunEventHandler:
    """Return the handler of a run's events. `sends` is False for a dry run.

    With `once` there is no report in the store, since health is that of a run that goes on. Paper
    trading reports into its own store, and sends neither alerts nor heartbeats.
    """
    service_table = agent.context.config.service
    on_paper = agent.context.loaded_config.is_paper
    log = surroundings.log
    recorder = RunRecorder(
        None if once else agent.context.store.run_reports,
        parse_duration_s(every, "--every"),
        sends=sends,
        redact=surroundings.redactor.redact,
    )

    def on_failed_heartbeat(why: str) -> None:
        recorder.on_failed_heartbeat()
        service.failed_heartbeats += 1
        log.warning("heartbeat failed", why=why)

    def on_failed_delivery(delivery: Delivery) -> None:
        log.warning(
            "alert failed",
            target=delivery.message.target,
            why=delivery.failure_reason,
            about=delivery.message.kind.value,
        )

    def open_notifier() -> AlertNotifier | None:
        if on_paper:
            return None
        context = agent.context
        alerts_table = context.config.alerts
        read_unset_variables(
            context.loaded_config, (target.url_env for target in alerts_table.targets)
        )
        surroundings.redactor.add(secrets_of(context.loaded_config))
        return alert_channels.open_notifier(
            alerts_table, context.store.alerts, on_failed_delivery, surroundings.complete
        )

    heartbeat = None
    if not on_paper and (heartbeat_url := service_table.read_heartbeat_url()) is not None:
        heartbeat = Heartbeat(heartbeat_url, service_table.heartbeat_method, on_failed_heartbeat)
    service = RunEventHandler(
        agent,
        log,
        recorder,
        surroundings.watchdog,
        surroundings.systemd_notifier,
        heartbeat,
        surroundings.is_logging,
        alert_notifier=open_notifier(),
        open_notifier=open_notifier,
        redactor=surroundings.redactor,
    )
    if agent.context.recorder is not None:
        agent.context.recorder.report_failure = service.on_unrecorded
    return service


@contextmanager
def reported(service: RunEventHandler, every: str) -> Iterator[None]:
    """Report the beginning and the end of a run around the context."""
    recorder = service.recorder
    service.log.info("started", **agent_fields(service.agent), every=every)
    service.write_report()
    try:
        if service.alert_notifier is not None:
            service.alert_notifier.enqueue_undelivered()
        yield
    except TrimtabError as error:
        service.on_error(error)
        raise
    except Exception as error:
        recorder.on_end(internal_error(error).message)
        raise
    finally:
        if recorder.report.ended_s is None:
            recorder.on_end()
        service.write_report()
        service.systemd_notifier.stopping()
        if service.alert_notifier is not None:
            with suppress(TrimtabError):  # delivered messages may be sent again
                service.alert_notifier.close()
        if service.heartbeat is not None:
            service.heartbeat.wait_until_sent()
        stop_fields = nonempty_fields(by=service.stopped_by or None)
        service.log.info("stopped", cycles=recorder.report.cycles, **stop_fields)
