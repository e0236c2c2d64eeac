"""A portfolio of a process that runs several: opened, looked at, left alone after a failure."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agent import wiring
from agent.app import alert_channels, alerting
from agent.app.agent import Agent, open_agent, run_interval_s
from agent.app.config_versions import confirm_without_asking
from agent.app.controls.runner import ControlRunner
from agent.app.cycles import JITTER, AgentRun, Confirm, never_confirm, retry_pause_s
from agent.app.records.cycle_report import cycle_outcome, error_fields
from agent.app.service import (
    FAULT_ALERT_AFTER_S,
    RunEventHandler,
    RunSurroundings,
    StoppableClock,
    StopRequested,
    event_handler,
    reported,
)
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.config.secrets.known import secrets_of
from agent.errors import ErrorCode, PassingFault, Retryable, TrimtabError, internal_error
from agent.execution.step_context import StepOutcome
from agent.fleet.chains import FleetChain, SharedConnections, SharedReadTimes
from agent.model import Alert, AlertKind
from agent.observe.logs import Log, Redactor
from agent.observe.watch import SystemdNotifier, Watchdog
from agent.store.files.locks import LockHeld
from agent.store.files.pause import pause_file
from agent.units import rough_duration

if TYPE_CHECKING:
    from agent.fleet.sharing import FleetShare
    from agent.model import RunReport
    from agent.observe.health import RunHealth

FIRST_BACK_OFF_S = 60
LONGEST_BACK_OFF_S = 3_600
"""Pauses after a failure that only a person can mend: the first, and the longest of those that
double. Other failures pass, and are tried again as a run does.
"""
USUAL_HANG_S = 600
"""Silence of a look that counts as a hang until the config with service.hang_after is loaded."""
STANDBY_CHECK_S = 2.0
"""Seconds between two looks whether the worker that serves a portfolio has left it."""
RELEASE_S = 10.0
"""Seconds in which a portfolio that was left to other workers is not taken back."""
OWNER_CHECK_S = 60
"""Seconds between two looks whether the owner has resumed a stopped portfolio."""
GATHERING_S = 2.0
"""Longest time that an opened portfolio waits for others, so that their first looks share a read."""
WAIT_CHECK_S = 10
"""Seconds between two looks whether a wait ends early, beside changes of files."""
JOB_PATIENCE_S = 5.0
"""Time after which a look no longer waits for its job of the queue."""

ShowResult = Callable[[str, Agent, StepOutcome | TrimtabError], None]
"""Shows the result of a cycle of the portfolio with this name."""


class MemberState(Enum):
    """What a portfolio of the process does."""

    WAITING = "waiting"
    QUEUED = "queued"
    LOOKING = "looking"
    BACKING_OFF = "backing off"
    HUNG = "hung"
    STOPPED = "stopped"
    RELEASING = "releasing"
    STANDING_BY = "standing by"
    """Another worker serves it."""


BUSY_STATES = (
    MemberState.QUEUED,
    MemberState.LOOKING,
    MemberState.HUNG,
    MemberState.RELEASING,
)
IDLE_STATES = (
    MemberState.WAITING,
    MemberState.BACKING_OFF,
    MemberState.STOPPED,
    MemberState.STANDING_BY,
)


class LookCounter(Protocol):
    """Counts the looks of all portfolios."""

    def on_look(self, outcome: str, duration_s: float, late_s: float) -> None:
        """Count a look that has ended; it began `late_s` after its time."""


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """Options of all portfolios. `offers` lets each plan wait for a confirmation at dashboard or
    phone.
    """

    every: str
    sends: bool = False
    offers: bool = False
    share: FleetShare | None = None
    """The part of the portfolios that this worker may serve; None if the process serves all."""
    look_counter: LookCounter | None = None
    """Counts looks; None if nothing does."""
    complete: Callable[[str, Path], str] = lambda text, _: text
    """Adds a config to the commands that an alert names."""


class FleetMember:
    """A portfolio. Only one thread at a time opens it, looks, or closes it: the one that began its
    look, and after the end of all looks the one that ends the process.
    """

    def __init__(
        self,
        name: str,
        config_path: Path,
        options: FleetOptions,
        connections: SharedConnections,
        redactor: Redactor,
        show_result: ShowResult,
    ) -> None:
        self.name = name
        self.config_path = config_path
        self.due_s = time.monotonic()
        """Time of the next look, by the monotonic clock."""
        self.has_looked = False
        self.is_beyond_share = False
        """Whether it was taken because no other worker served it."""
        self.awaits_job = False
        """Whether a job of the queue will say that its time has come."""
        self.on_end: Callable[[FleetMember], None] = lambda _: None
        """Called at the end of each look and release, and when one is given up."""
        self.chain: FleetChain | None = None
        self.agent: Agent | None = None
        self._state = MemberState.WAITING
        self._state_lock = threading.Lock()
        self._options = options
        self._interval_s = run_interval_s(options.every)
        self._connections = connections
        self._redactor = redactor
        self._show_result = show_result
        self._log = Log(portfolio=name)
        self._clock = StoppableClock(connections.clock)
        self._watchdog = Watchdog(USUAL_HANG_S)
        self._resources = ExitStack()
        self._run: AgentRun | None = None
        self._service: RunEventHandler | None = None
        self._controls: ControlRunner | None = None
        self._failures_in_row = 0
        self._failing_since_s = 0.0
        self._is_failure_told = False
        self._wait_checked_s = 0.0
        self._read_times = SharedReadTimes()
        self._watched_files = [config_path, config_path.with_name(".env")]
        self._seen_times = self._file_times()

    @property
    def state(self) -> MemberState:
        """What it does now."""
        return self._state

    def _change_state(self, old_state: MemberState, new_state: MemberState) -> bool:
        """Change the state unless another thread has; return whether it was changed."""
        with self._state_lock:
            if self._state is not old_state:
                return False
            self._state = new_state
            return True

    # --- Called by the thread of the process that decides when to look.

    def is_due(self, now_s: float, *, checks_files: bool) -> bool:
        """Return whether to look now: its time has come, or, with `checks_files`, a file that an
        owner or another program writes has changed, or its wait was not checked for some time.
        """
        if self._state not in IDLE_STATES:
            return False
        is_wait_unchecked = (
            self._state is MemberState.WAITING
            and self._run is not None
            and now_s < self.due_s
            and now_s - self._wait_checked_s >= WAIT_CHECK_S
        )
        patience_s = JOB_PATIENCE_S if self.awaits_job else 0.0
        return now_s >= self.due_s + patience_s or (
            checks_files and (is_wait_unchecked or self._file_times() != self._seen_times)
        )

    def queue(self) -> None:
        """Note that its look waits for a thread, perhaps for a read of its chain before."""
        self._watchdog.beat("queued")
        self._change_state(self._state, MemberState.QUEUED)

    def give_up_hung_look(self) -> bool:
        """Leave a look or release that has given no sign of life for too long to its thread, and
        its wallet to a worker on another machine, and tell the owner. Return whether there was one.
        """
        hang_text = self._watchdog.hang_text()
        if hang_text is None or not any(
            self._change_state(state, MemberState.HUNG)
            for state in (MemberState.LOOKING, MemberState.RELEASING)
        ):
            return False
        why = f"{hang_text}; at {self._watchdog.thread_position()}"
        self._log.error("hung", why=why)
        service = self._service
        if service is None or service.recorder.report.ended_s is not None:  # no run is open
            threading.Thread(target=self._tell, args=(HUNG_ALERT,), daemon=True).start()
        else:
            service.recorder.on_hang(why)
            if service.alert_notifier is not None:
                service.alert_notifier.queue_unrecorded(HUNG_ALERT, int(time.time()))
        agent = self.agent
        if agent is not None:  # in a thread, since the database may not answer
            threading.Thread(target=agent.context.store.db.give_up, daemon=True).start()
        self.on_end(self)
        return True

    @property
    def is_served(self) -> bool:
        """Whether this process serves it now, or is about to."""
        return self.agent is not None or self._state in BUSY_STATES

    @property
    def is_urgent(self) -> bool:
        """Whether its next look does not wait for the interval, such as one for a due exit."""
        run = self._run
        return run is not None and run.urgent_pause_s is not None

    @property
    def is_exit_due(self) -> bool:
        """Whether its next look is for an exit or another protection that is due."""
        run = self._run
        return run is not None and run.is_protection_due

    @property
    def run_figures(self) -> tuple[RunReport, RunHealth] | None:
        """The report of its newest run and its health; None before the first, and after one that its
        owner stopped or that this process left to another worker.
        """
        service = self._service
        if service is None:
            return None
        return service.recorder.report, service.recorder.health()

    def begin_release(self) -> bool:
        """Note that it is left to other workers, which `release` does; False if it is looked at."""
        is_begun = self._change_state(MemberState.WAITING, MemberState.RELEASING)
        if is_begun:
            self._watchdog.beat("releasing")
        return is_begun

    def request_stop(self) -> None:
        """Let the current look end at a safe point, and begin no other."""
        self._clock.request_stop()

    # --- Called by the thread of a look.

    def look(self) -> None:
        """Look once, if no other thread has begun it, and set the time of the next look. A failure
        never leaves the portfolio.
        """
        if not self._change_state(MemberState.QUEUED, MemberState.LOOKING):
            return
        self._watchdog.watch_this_thread()
        next_state = MemberState.WAITING
        try:
            next_state = self._look_or_back_off()
        finally:
            self.has_looked = True
            if not self._change_state(MemberState.LOOKING, next_state):
                self._return_from_hang()
            self.on_end(self)

    def release(self) -> None:
        """Close it, so that another worker may serve it."""
        self._log.info("left to another worker")
        self._watchdog.watch_this_thread()
        with suppress(Exception):
            self.close()
        self.due_s = time.monotonic() + RELEASE_S
        self.is_beyond_share = False
        if not self._change_state(MemberState.RELEASING, MemberState.STANDING_BY):
            self._change_state(MemberState.HUNG, MemberState.STANDING_BY)
        self.on_end(self)

    def close(self) -> None:
        """Report the end, and close store and connections."""
        self._run = None
        try:
            self._resources.pop_all().close()
        finally:  # until then a hang gives up the locks of its store
            self.agent = None
            self._service = None

    def _return_from_hang(self) -> None:
        """Close the portfolio after a look that was given up, and let it be opened anew."""
        self._log.warning("goes on")
        with suppress(Exception):
            self.close()
        self.due_s = time.monotonic()
        self._change_state(MemberState.HUNG, MemberState.WAITING)

    def _look_or_back_off(self) -> MemberState:
        # before the first read: what is written during the look is seen after it
        self._seen_times = self._file_times()
        self._wait_checked_s = time.monotonic()
        try:
            self._clock.raise_if_stopping()
            is_waiting = self._run is not None and time.monotonic() < self.due_s
            if is_waiting and self._run is not None and not self._run.ends_wait():
                return MemberState.WAITING
            return self._look_now()
        except StopRequested:
            return MemberState.WAITING
        except LockHeld as error:
            if self._options.share is None:
                return self._back_off(error)
            with suppress(Exception):
                self.close()
            self.due_s = time.monotonic() + STANDBY_CHECK_S
            return MemberState.STANDING_BY
        except Exception as error:
            return self._back_off(error)

    def _look_now(self) -> MemberState:
        was_closed = self._run is None
        if was_closed:
            self._open()
        if self._run is None or self._service is None or self.agent is None:
            return self._wait_for_owner()
        if was_closed and self.chain is not None:
            now_s = time.monotonic()
            self.due_s = self._read_times.join(now_s, now_s + GATHERING_S)
            return MemberState.WAITING
        if self._options.share is not None:
            self.agent.context.store.db.require_held()
        began_s = time.monotonic()
        late_s = began_s - self.due_s
        result = self._run.cycle()
        if result is None:
            self._service.stopped_by = "trimtab stop"
            self.close()
            return self._wait_for_owner()
        self._service.on_cycle(result)
        if self._options.look_counter is not None:
            duration_s = time.monotonic() - began_s
            self._options.look_counter.on_look(cycle_outcome(result), duration_s, late_s)
        if self._controls is not None and self._controls.has_offer:
            self._service.on_offer()
        self._run.flush_store()
        self._show_result(self.name, self.agent, result)
        self._service.pop_screen_notes()
        self._failures_in_row = 0
        self._is_failure_told = False
        self._set_next_look(began_s, self._run.urgent_pause_s)
        return MemberState.WAITING

    def _set_next_look(self, began_s: float, urgent_pause_s: float | None) -> None:
        """Set the time of the look after the one that began at a time: an interval after it was
        due, up to a tenth later, together with those of others, which may once be sooner. One that
        was late by more, or still lasts then, is not made up for.
        """
        now_s = time.monotonic()
        if urgent_pause_s is not None:
            self.due_s = now_s + urgent_pause_s
            return
        longest_delay_s = self._interval_s * JITTER
        planned_s = min(began_s, max(self.due_s, began_s - longest_delay_s))
        earliest_s = max(planned_s + self._interval_s, now_s)
        latest_s = earliest_s + longest_delay_s
        self.due_s = self._read_times.join(earliest_s, latest_s, self.due_s)

    def _wait_for_owner(self) -> MemberState:
        """Rest until the owner, who has stopped the portfolio, resumes it."""
        self.close()
        self.due_s = time.monotonic() + OWNER_CHECK_S
        return MemberState.STOPPED

    def _open(self) -> None:
        """Open config, store, endpoints and key, and report the beginning. Opens no run while the
        owner has stopped the portfolio.
        """
        loaded_config = load_config(self.config_path)
        self._redactor.add(secrets_of(loaded_config))
        self._watchdog.max_silence_s = loaded_config.config.service.hang_after
        self._watch_store(loaded_config)
        share = self._options.share
        if share is not None and self._options.sends:
            wiring.require_key_outside_environment(loaded_config)
        if share is not None and share.is_served_elsewhere(self.config_path):
            if not self.is_beyond_share and self._failures_in_row == 0:
                share.request(self.config_path)
            raise LockHeld("another worker serves this portfolio", code=ErrorCode.WALLET_SERVED)
        with ExitStack() as resources:
            resources.enter_context(self._connections.serving(loaded_config.config, self.name))
            self.chain = self._connections.chain(loaded_config.config)
            self._read_times = self.chain.read_times
            agent = resources.enter_context(
                open_agent(loaded_config, transports=self.chain.transports, clock=self._clock)
            )
            self.agent = agent
            if self._options.sends and agent.context.store.requests.active_stop() is not None:
                return
            self.chain.share_time(agent.context)
            self._clock.set_watchdog(self._watchdog)
            surroundings = RunSurroundings(
                self._log,
                self._watchdog,
                SystemdNotifier({}),
                is_logging=True,
                redactor=self._redactor,
                complete=self._complete,
            )
            options = self._options
            service = event_handler(agent, surroundings, options.every, sends=options.sends)
            resources.enter_context(reported(service, options.every))
            controls = ControlRunner(agent) if options.sends else None
            run = resources.enter_context(
                agent.open_run(
                    send=options.sends,
                    confirm=self._confirm(agent, controls),
                    interval_s=self._interval_s,
                    progress=service.on_stage,
                    controls=controls,
                    asks_passphrase=False,
                )
            )
            self._resources = resources.pop_all()
        self._service = service
        self._controls = controls
        self._run = run

    def _watch_store(self, loaded_config: LoadedConfig) -> None:
        store_path = wiring.store_file(loaded_config)
        wal_path = store_path.with_name(f"{store_path.name}-wal")
        self._watched_files[2:] = [store_path, wal_path, pause_file(store_path)]
        self._seen_times = self._file_times()

    def _confirm(self, agent: Agent, controls: ControlRunner | None) -> Confirm:
        if controls is None:
            return never_confirm
        if self._options.offers:
            return controls.offer_and_decline
        return lambda _: confirm_without_asking(agent.context)

    def _back_off(self, error: Exception) -> MemberState:
        """Close the portfolio with the error, and let it wait: after a fault that passes as a run
        does, else longer each time.
        """
        failure = error
        if not isinstance(failure, TrimtabError):
            failure = internal_error(error)
        now_s = time.monotonic()
        if self._failures_in_row == 0:
            self._failing_since_s = now_s
        self._failures_in_row += 1
        is_passing = isinstance(failure, Retryable | PassingFault)
        pause_s: float = retry_pause_s(self._interval_s, self._failures_in_row)
        if not is_passing:
            doublings = min(self._failures_in_row - 1, 16)
            pause_s = min(FIRST_BACK_OFF_S * 2**doublings, LONGEST_BACK_OFF_S)
        self._log.error(
            "backing off", **error_fields(failure), next_look=rough_duration(int(pause_s))
        )
        was_open = self._run is not None
        self._run = None
        try:
            self._resources.pop_all().__exit__(*sys.exc_info())
        except Exception as closing_error:
            self._log.error("closing failed", kind=type(closing_error).__name__)
        self.agent = None
        if was_open:  # the end of its run was told
            self._is_failure_told = True
        elif not is_passing or now_s - self._failing_since_s >= FAULT_ALERT_AFTER_S:
            self._tell_failure(failure)
        self.due_s = time.monotonic() + pause_s
        return MemberState.BACKING_OFF

    def _tell_failure(self, failure: TrimtabError) -> None:
        """Alert the owner once that the portfolio cannot be opened, if config and store allow."""
        if not self._is_failure_told:
            self._is_failure_told = self._tell(alerting.run_ended_alert(failure))

    def _tell(self, alert: Alert) -> bool:
        """Alert the owner while no run is open; return whether config and store allow it."""
        with suppress(Exception), ExitStack() as resources:
            loaded_config = load_config(self.config_path)
            store, _ = resources.enter_context(wiring.open_store_offline(loaded_config))
            notifier = alert_channels.open_notifier(
                loaded_config.config.alerts, store.alerts, lambda _: None, self._complete
            )
            if notifier is not None:
                notifier.send_now(alert, int(time.time()))
            return True
        return False

    def _complete(self, text: str) -> str:
        return self._options.complete(text, self.config_path)

    def _file_times(self) -> list[int]:
        """Return when the config, and what other programs write beside the store, changed last."""
        return [_changed_at(file) for file in self._watched_files]


HUNG_ALERT = Alert(
    AlertKind.ERROR,
    "hung",
    "A look hangs: this process does not look at this portfolio until it goes on or trimtab is"
    " restarted.",
)


def _changed_at(file: Path) -> int:
    """Return when a file changed last, in ns; 0 without one."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0
