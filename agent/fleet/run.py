"""The run of several portfolios in one process: who looks when, in which thread, and the end."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue

from agent.app.service import StoppableClock, StopRequested
from agent.errors import EXIT_HUNG
from agent.fleet.chains import FleetChain, SharedConnections
from agent.fleet.configs import portfolio_names
from agent.fleet.members import FleetMember, FleetOptions, MemberState, ShowResult
from agent.observe.logs import Log, Redactor
from agent.observe.watch import SystemdNotifier
from agent.ports import Clock
from agent.wiring import SystemClock

THREADS = 16
"""Looks that run at the same time; they wait for endpoints most of the time."""
TICK_S = 0.25
"""Seconds between two checks of who is due."""
FILE_CHECK_S = 1.0
"""Seconds between two checks whether an owner or another program has written something."""
MAX_HUNG = 3
"""Number of hung looks at which the process ends, so that its service manager starts it again."""


class LookThreads:
    """Threads that run looks in the order in which they are put. They are daemons: one that hangs
    does not keep the process alive.
    """

    def __init__(self, count: int) -> None:
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        for _ in range(count):
            self.add()

    def add(self) -> None:
        """Start a further thread, in place of one that hangs."""
        threading.Thread(target=self._work, daemon=True, name="trimtab look").start()

    def put(self, job: Callable[[], None]) -> None:
        """Run a job once a thread is free."""
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            self._jobs.get()()


class FleetRun:
    """A run of several portfolios. A portfolio that fails waits by itself; the others go on."""

    def __init__(self, members: Sequence[FleetMember], clock: StoppableClock) -> None:
        self.members = members
        self._clock = clock
        self._log = Log()
        self._threads = LookThreads(THREADS)
        self._systemd_notifier = SystemdNotifier()
        self._shown_status = ""
        self._is_ready = False
        self._files_checked_s = 0.0

    def run(self) -> None:
        """Let portfolios look until all were stopped by their owners, or the process is to stop:
        then each look ends at its next safe point. Ends the process if MAX_HUNG looks hang.
        """
        try:
            while any(member.state is not MemberState.STOPPED for member in self.members):
                self._give_up_hung_looks()
                self._begin_due_looks()
                self._report_status()
                self._clock.sleep(TICK_S)
        except StopRequested:
            self._log.info("stopping", looks=len(self._busy_members()))
        finally:
            self._end()

    def _begin_due_looks(self) -> None:
        now_s = time.monotonic()
        checks_files = now_s - self._files_checked_s >= FILE_CHECK_S
        if checks_files:
            self._files_checked_s = now_s
        due_by_chain: dict[FleetChain, list[FleetMember]] = {}
        for member in self.members:
            if not member.is_due(now_s, checks_files=checks_files):
                continue
            if member.agent is None or member.chain is None:
                member.queue()
                self._threads.put(member.look)
            elif not member.chain.is_reading:
                due_by_chain.setdefault(member.chain, []).append(member)
        for chain, due_members in due_by_chain.items():
            for member in due_members:
                member.queue()
            threading.Thread(
                target=self._read_and_look,
                args=(chain, due_members),
                daemon=True,
                name="trimtab reader",
            ).start()

    def _read_and_look(self, chain: FleetChain, members: Sequence[FleetMember]) -> None:
        contexts = [member.agent.context for member in members if member.agent is not None]
        try:
            chain.read_ahead(contexts)
        finally:
            for member in members:
                self._threads.put(member.look)

    def _give_up_hung_looks(self) -> None:
        for member in self.members:
            if (hang_text := member.hang_text()) is not None:
                member.mark_hung(hang_text)
                self._threads.add()
        hung_names = self._names(MemberState.HUNG)
        if len(hung_names) >= MAX_HUNG:
            self._log.error("hung", looks=hung_names, exit=EXIT_HUNG)
            self._systemd_notifier.status(f"hung: {', '.join(hung_names)}")
            logging.shutdown()
            os._exit(EXIT_HUNG)

    def _report_status(self) -> None:
        """Tell the service manager and the log how many portfolios run, whenever that changes."""
        if not self._is_ready and not self._busy_members():
            self._systemd_notifier.ready()
            self._is_ready = True
        self._systemd_notifier.alive()
        backing_off = self._names(MemberState.BACKING_OFF)
        hung = self._names(MemberState.HUNG)
        stopped = self._names(MemberState.STOPPED)
        running_count = len(self.members) - len(backing_off) - len(hung) - len(stopped)
        status_text = f"{running_count} of {len(self.members)} portfolios run"
        for label, names in (("backing off", backing_off), ("hung", hung), ("stopped", stopped)):
            if names:
                status_text += f"; {label}: {', '.join(names)}"
        if status_text != self._shown_status:
            self._log.info("fleet", status=status_text)
            self._systemd_notifier.status(status_text)
            self._shown_status = status_text

    def _names(self, state: MemberState) -> list[str]:
        return [member.name for member in self.members if member.state is state]

    def _busy_members(self) -> list[FleetMember]:
        return [
            member
            for member in self.members
            if member.state in (MemberState.QUEUED, MemberState.LOOKING)
        ]

    def _end(self) -> None:
        """Wait for the looks that go on, and close every portfolio whose look does not hang."""
        self._systemd_notifier.stopping()
        for member in self.members:
            member.request_stop()
        while self._busy_members():
            self._give_up_hung_looks()
            time.sleep(TICK_S)
        for member in self.members:
            if member.state is not MemberState.HUNG:
                member.close()


def run_fleet(
    config_paths: Sequence[Path],
    options: FleetOptions,
    redactor: Redactor,
    show_result: ShowResult,
    clock: StoppableClock,
    machine_clock: Clock | None = None,
) -> None:
    """Run the portfolios of these configs until `clock` stops. `redactor`, that of the log, learns
    the secrets of each config; portfolios take the time from `machine_clock`, by default the
    system's. Raises ConfigError for an invalid interval.
    """
    connections = SharedConnections(machine_clock or SystemClock())
    members = [
        FleetMember(name, config_path, options, connections, redactor, show_result)
        for config_path, (name, _) in zip(config_paths, portfolio_names(config_paths), strict=True)
    ]
    Log().info("fleet started", portfolios=len(members), every=options.every)
    FleetRun(members, clock).run()
