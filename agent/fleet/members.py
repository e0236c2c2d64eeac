"""A portfolio of a process that runs several: opened, looked at, left alone after a failure."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from secrets import SystemRandom

from agent import wiring
from agent.app.agent import Agent, open_agent, run_interval_s
from agent.app.alerting import run_hung_alert
from agent.app.config_versions import confirm_without_asking
from agent.app.controls.runner import ControlRunner
from agent.app.cycles import JITTER, AgentRun, Confirm, never_confirm
from agent.app.records.cycle_report import error_fields
from agent.app.service import (
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
from agent.errors import TrimtabError
from agent.execution.step_context import StepOutcome
from agent.fleet.chains import FleetChain, SharedConnections
from agent.observe.logs import Log, Redactor
from agent.observe.watch import SystemdNotifier, Watchdog
from agent.store.files.pause import pause_file
from agent.units import format_duration

FIRST_BACK_OFF_S = 60
LONGEST_BACK_OFF_S = 3_600
"""Pauses after a failure that only a person can mend: the first, and the longest of those that
double.
"""

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


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """Options of all portfolios. `offers` lets each plan wait for a confirmation at dashboard or
    phone.
    """

    every: str
    sends: bool = False
    offers: bool = False


class FleetMember:
    """A portfolio. Only one thread at a time opens it, looks, or closes it."""

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
        self.state = MemberState.WAITING
        self.due_s = time.monotonic()
        """Time of the next look, by the monotonic clock."""
        self.failure: TrimtabError | None = None
        """Why it backs off."""
        self.chain: FleetChain | None = None
        self.agent: Agent | None = None
        self._options = options
        self._interval_s = run_interval_s(options.every)
        self._connections = connections
        self._redactor = redactor
        self._show_result = show_result
        self._log = Log(portfolio=name)
        self._clock = StoppableClock(connections.clock)
        self._watchdog = Watchdog(LONGEST_BACK_OFF_S)
        self._resources = ExitStack()
        self._run: AgentRun | None = None
        self._service: RunEventHandler | None = None
        self._controls: ControlRunner | None = None
        self._back_off_s = 0
        self._watched_files = [config_path, config_path.with_name(".env")]
        self._seen_times: list[int] = []

    # --- Called by the thread of the process that decides when to look.

    def is_due(self, now_s: float, *, checks_files: bool) -> bool:
        """Return whether to look now: its time has come, or, with `checks_files`, a file that an
        owner or another program writes has changed while it waits or backs off.
        """
        if self.state in (MemberState.QUEUED, MemberState.LOOKING, MemberState.HUNG):
            return False
        is_its_time = now_s >= self.due_s and self.state is not MemberState.STOPPED
        return is_its_time or (checks_files and self._file_times() != self._seen_times)

    def queue(self) -> None:
        """Note that a look waits for a thread."""
        self.state = MemberState.QUEUED

    def hang_text(self) -> str | None:
        """Return how long its look has given no sign of life, if that is too long."""
        return self._watchdog.hang_text() if self.state is MemberState.LOOKING else None

    def mark_hung(self, hang_text: str) -> None:
        """Give the look up: its thread goes on alone, with the wallet's lock."""
        self.state = MemberState.HUNG
        position = self._watchdog.thread_position()
        why = f"{hang_text}; at {position}"
        self._log.error("hung", why=why)
        if self._service is None:
            return
        threading.Thread(target=self._report_hang, args=(self._service, why), daemon=True).start()

    def _report_hang(self, service: RunEventHandler, why: str) -> None:
        """Write it to the report of the run, and alert; store and network may take long."""
        service.recorder.on_hang(why)
        if service.alert_notifier is not None:
            service.alert_notifier.send_now(run_hung_alert(), int(time.time()))

    def request_stop(self) -> None:
        """Let the current look end at a safe point."""
        self._clock.request_stop()

    # --- Called by the thread of a look.

    def look(self) -> None:
        """Look once, and set the time of the next look. A failure never leaves the portfolio."""
        self.state = MemberState.LOOKING
        self._watchdog.watch_this_thread()
        try:
            is_waiting = self._run is not None and time.monotonic() < self.due_s
            if is_waiting and not self._ends_wait():
                self._wait_until(self.due_s)
            else:
                self._look_now()
        except StopRequested:
            self._wait_until(self.due_s)
        except TrimtabError as error:
            self._back_off(error)
        except Exception as error:
            self._back_off(
                TrimtabError(f"internal error: {type(error).__name__} at {_innermost_place(error)}")
            )

    def close(self) -> None:
        """Report the end, and close store and connections."""
        self._run = None
        self.agent = None
        self._resources.close()

    def _ends_wait(self) -> bool:
        return self._run is not None and self._run.ends_wait()

    def _look_now(self) -> None:
        if self._run is None:
            self._open()
        if self._run is None or self._service is None or self.agent is None:
            self._wait_for_owner()
            return
        result = self._run.cycle()
        if result is None:
            self._service.stopped_by = "trimtab stop"
            self.close()
            self._wait_for_owner()
            return
        self._service.on_cycle(result)
        if self._controls is not None and self._controls.has_offer:
            self._service.on_offer()
        self._show_result(self.name, self.agent, result)
        self._run.flush_store()
        self._service.pop_screen_notes()
        pause_s = self._run.urgent_pause_s
        if pause_s is None:
            pause_s = self._interval_s * (1 + SystemRandom().random() * JITTER)
        self._back_off_s = 0
        self.failure = None
        self._wait_until(time.monotonic() + pause_s)

    def _wait_for_owner(self) -> None:
        """Wait until the owner, who has stopped the portfolio, changes something."""
        self._wait_until(self.due_s)
        self.state = MemberState.STOPPED

    def _wait_until(self, due_s: float) -> None:
        self.due_s = due_s
        self._seen_times = self._file_times()
        self.state = MemberState.WAITING

    def _open(self) -> None:
        """Open config, store, endpoints and key, and report the beginning. Opens no run while the
        owner has stopped the portfolio.
        """
        loaded_config = load_config(self.config_path)
        self._redactor.add(secrets_of(loaded_config))
        self.chain = self._connections.chain(loaded_config.config)
        with ExitStack() as resources:
            resources.enter_context(self._connections.serving(loaded_config.config, self.name))
            agent = resources.enter_context(
                open_agent(loaded_config, transports=self.chain.transports, clock=self._clock)
            )
            self._watch_store(loaded_config)
            if self._options.sends and agent.context.store.requests.active_stop() is not None:
                return
            self.chain.share_time(agent.context)
            self._watchdog.max_silence_s = loaded_config.config.service.hang_after
            self._clock.set_watchdog(self._watchdog)
            surroundings = RunSurroundings(
                self._log, self._watchdog, SystemdNotifier({}), is_logging=True
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
        self.agent = agent
        self._service = service
        self._controls = controls
        self._run = run

    def _watch_store(self, loaded_config: LoadedConfig) -> None:
        store_path = wiring.store_file(loaded_config)
        wal_path = store_path.with_name(f"{store_path.name}-wal")
        self._watched_files[2:] = [store_path, wal_path, pause_file(store_path)]

    def _confirm(self, agent: Agent, controls: ControlRunner | None) -> Confirm:
        if controls is None:
            return never_confirm
        if self._options.offers:
            return controls.offer_and_decline
        return lambda _: confirm_without_asking(agent.context)

    def _back_off(self, error: TrimtabError) -> None:
        """Close the portfolio with the error, and let it wait, each time twice as long."""
        self.failure = error
        self._back_off_s = min(max(FIRST_BACK_OFF_S, 2 * self._back_off_s), LONGEST_BACK_OFF_S)
        self._log.error(
            "backing off", **error_fields(error), next_look=format_duration(self._back_off_s)
        )
        self._run = None
        self.agent = None
        resources = self._resources.pop_all()
        try:
            resources.__exit__(*sys.exc_info())
        except TrimtabError as closing_error:
            self._log.error("closing failed", **error_fields(closing_error))
        self._wait_until(time.monotonic() + self._back_off_s)
        self.state = MemberState.BACKING_OFF

    def _file_times(self) -> list[int]:
        """Return when the config, and what other programs write beside the store, changed last."""
        return [_changed_at(file) for file in self._watched_files]


def _changed_at(file: Path) -> int:
    """Return when a file changed last, in ns; 0 without one."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def _innermost_place(error: Exception) -> str:
    """Return the file and line that raised an error."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
