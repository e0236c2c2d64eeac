"""The run of several portfolios in one process: who looks when, and the end."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent.app.agent import run_interval_s
from agent.app.service import StoppableClock, StopRequested
from agent.errors import EXIT_HUNG, ConfigError
from agent.fleet.chains import MAX_WALLETS_A_READ, FleetChain, SharedConnections
from agent.fleet.configs import portfolio_names
from agent.fleet.members import FleetMember, FleetOptions, MemberState, ShowResult
from agent.observe.logs import Log, Redactor
from agent.observe.watch import SystemdNotifier
from agent.ports import Clock
from agent.wiring import SystemClock
from agent.wiring.call_budgets import CallBudgets

if TYPE_CHECKING:
    from agent.fleet.metrics import FleetMetrics
    from agent.fleet.sharing import FleetShare
    from agent.fleet.wake_ups import WakeUps

TICK_S = 0.25
"""Seconds between two checks of who is due."""
FILE_CHECK_S = 1.0
"""Seconds between two checks whether an owner or another program has written something."""
READ_PATIENCE_S = 5.0
"""Time after which looks no longer wait for a read that they share."""
LONGEST_START_S = 60.0
"""Longest time over which the first looks of many portfolios are spread."""
READY_AFTER_S = 60.0
"""Time after which the process counts as started, although first looks go on."""
LONGEST_CLOSE_S = 60.0
"""Longest time that the process waits at its end until its portfolios are closed."""
MAX_HUNG = 3
"""Number of hung looks at which the process ends, so that its service manager starts it again."""


class FleetRun:
    """A run of several portfolios. A portfolio that fails waits by itself; the others go on: each
    look, release and closing has a thread of its own, a daemon, so that one that hangs holds up
    neither another nor the end of the process.
    """

    def __init__(
        self,
        members: Sequence[FleetMember],
        clock: StoppableClock,
        share: FleetShare | None = None,
        metrics: FleetMetrics | None = None,
        wake_ups: WakeUps | None = None,
    ) -> None:
        self.members = members
        self._clock = clock
        self._share = share
        self._metrics = metrics
        self._wake_ups = wake_ups
        self._log = Log()
        self._systemd_notifier = SystemdNotifier()
        self._began_s = time.monotonic()
        self._files_checked_s = 0.0
        self._ticks = 0
        self._queued_ticks: dict[FleetMember, int] = {}
        """When the looks that wait for a shared read were queued, in ticks: while the machine stands
        still, a read is not late.
        """
        self._waiting_by_chain: dict[FleetChain, list[FleetMember]] = {}
        """Those whose read has not begun."""
        self._shown_status = ""
        self._is_ready = False

    def run(self) -> None:
        """Let portfolios look until all were stopped by their owners, or the process is to stop:
        then each look ends at its next safe point. Ends the process if MAX_HUNG looks hang.
        """
        try:
            while any(member.state is not MemberState.STOPPED for member in self.members):
                self._give_up_hung_looks()
                if self._share is not None:
                    self._release_excess(self._share)
                self._begin_due_looks()
                self._report_status()
                if self._metrics is not None:
                    wake_ups = self._wake_ups
                    job_counts = None if wake_ups is None else wake_ups.job_counts
                    self._metrics.write_if_due(self.members, job_counts)
                self._clock.sleep(TICK_S)
                self._ticks += 1
        except StopRequested:
            self._log.info("stopping", looks=len(self._busy_members()))
        finally:
            self._end()

    def _free_places(self, share: FleetShare) -> int:
        """Return how many more portfolios this worker may serve; negative if it serves too many."""
        served_count = sum(
            member.is_served and not member.is_beyond_share for member in self.members
        )
        return share.largest_count() - served_count

    def _release_excess(self, share: FleetShare) -> None:
        """Leave to other workers what is beyond the share of this one: more than its part, and what
        it took because nobody served it, once another asks for it.
        """
        excess = -self._free_places(share)
        if excess >= 0:
            share.withdraw_requests()
        for member in self.members:
            if member.agent is None:
                continue
            if member.is_beyond_share:
                if share.is_requested(member.config_path) and member.begin_release():
                    _in_thread(member.release)
            elif excess > 0 and member.begin_release():
                excess -= 1
                _in_thread(member.release)

    def _may_take(self, member: FleetMember, share: FleetShare) -> bool:
        """Return whether this worker may begin to serve a portfolio: it has a free place, or nobody
        has served it for some time.
        """
        has_place = self._free_places(share) > 0
        member.is_beyond_share = not has_place and share.is_orphaned(member.config_path)
        return has_place or member.is_beyond_share

    def _begin_due_looks(self) -> None:
        now_s = time.monotonic()
        checks_files = now_s - self._files_checked_s >= FILE_CHECK_S
        if checks_files:
            self._files_checked_s = now_s
        for member in self.members:
            if not member.is_due(now_s, checks_files=checks_files):
                continue
            share = self._share
            if share is not None and not member.is_served and not self._may_take(member, share):
                continue
            member.queue()
            chain = member.chain
            if (
                chain is not None
                and member.agent is not None
                and now_s >= member.due_s
                and chain.can_share(waits=not member.is_urgent)
            ):
                self._queued_ticks[member] = self._ticks
                self._waiting_by_chain.setdefault(chain, []).append(member)
            else:
                _in_thread(member.look)
        self._begin_shared_reads()
        self._begin_impatient_looks()

    def _begin_shared_reads(self) -> None:
        """Begin a read for those who wait for one of their chain, unless another is under way."""
        for chain, waiting_members in self._waiting_by_chain.items():
            waiting_members[:] = [m for m in waiting_members if m in self._queued_ticks]
            if waiting_members and chain.begin_read():
                reading_members = waiting_members[:MAX_WALLETS_A_READ]
                del waiting_members[:MAX_WALLETS_A_READ]
                threading.Thread(
                    target=_read_and_look,
                    args=(chain, reading_members),
                    daemon=True,
                    name="trimtab reader",
                ).start()

    def _begin_impatient_looks(self) -> None:
        """Begin the looks whose shared read takes too long; they read by themselves."""
        for member, queued_tick in list(self._queued_ticks.items()):
            if member.state is not MemberState.QUEUED:
                del self._queued_ticks[member]
            elif (self._ticks - queued_tick) * TICK_S >= READ_PATIENCE_S:
                del self._queued_ticks[member]
                if member.chain is not None:
                    member.chain.is_slow = True
                _in_thread(member.look)

    def _give_up_hung_looks(self) -> None:
        for member in self.members:
            member.give_up_hung_look()
        hung_names = self._names(MemberState.HUNG)
        if len(hung_names) >= MAX_HUNG:
            self._log.error("hung", looks=hung_names, exit=EXIT_HUNG)
            self._systemd_notifier.status(f"hung: {', '.join(hung_names)}")
            logging.shutdown()
            os._exit(EXIT_HUNG)

    def _report_status(self) -> None:
        """Tell the service manager and the log how many portfolios run, whenever that changes."""
        if not self._is_ready and (
            all(member.has_looked for member in self.members)
            or time.monotonic() - self._began_s >= READY_AFTER_S
        ):
            self._systemd_notifier.ready()
            self._is_ready = True
        self._systemd_notifier.alive()
        backing_off = self._names(MemberState.BACKING_OFF)
        hung = self._names(MemberState.HUNG)
        stopped = self._names(MemberState.STOPPED)
        running_count = len(self.members) - len(backing_off) - len(hung) - len(stopped)
        if self._share is not None:
            running_count = sum(member.is_served for member in self.members) - len(hung)
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
            if member.state in (MemberState.QUEUED, MemberState.LOOKING, MemberState.RELEASING)
        ]

    def _end(self) -> None:
        """Wait for the looks that go on, and close every portfolio that does not hang."""
        self._systemd_notifier.stopping()
        for member in self.members:
            member.request_stop()
        if self._share is not None:
            self._share.leave()
            for member in self.members:
                if member.agent is not None and member.begin_release():
                    _in_thread(member.release)
        for member in self._queued_ticks:
            _in_thread(member.look)
        while self._busy_members():
            self._give_up_hung_looks()
            time.sleep(TICK_S)
        if self._wake_ups is not None:
            self._wake_ups.stop()
        closings = [
            _in_thread(partial(self._close, member))
            for member in self.members
            if member.state is not MemberState.HUNG
        ]
        end_s = time.monotonic() + LONGEST_CLOSE_S
        for closing in closings:
            closing.join(max(0.0, end_s - time.monotonic()))

    def _close(self, member: FleetMember) -> None:
        try:
            member.close()
        except Exception as error:
            self._log.error("closing failed", portfolio=member.name, kind=type(error).__name__)


def _in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True, name="trimtab look")
    thread.start()
    return thread


def _read_and_look(chain: FleetChain, members: Sequence[FleetMember]) -> None:
    contexts = [agent.context for member in members if (agent := member.agent) is not None]
    try:
        chain.read_ahead(contexts)
    finally:
        chain.end_read()
        for member in members:
            _in_thread(member.look)


def spread_starts(members: Sequence[FleetMember], interval_s: float) -> None:
    """Spread the first looks over the interval, at most LONGEST_START_S, in groups that are read
    together.
    """
    group_count = -(-len(members) // MAX_WALLETS_A_READ)
    for number, member in enumerate(members):
        group_number = number // MAX_WALLETS_A_READ
        member.due_s += min(interval_s, LONGEST_START_S) * group_number / group_count


def run_fleet(
    config_paths: Sequence[Path],
    options: FleetOptions,
    redactor: Redactor,
    show_result: ShowResult,
    clock: StoppableClock,
    machine_clock: Clock | None = None,
    *,
    metrics: FleetMetrics | None = None,
) -> None:
    """Run the portfolios of these configs until `clock` stops. `redactor`, that of the log, learns
    the secrets of each config; portfolios take the time from `machine_clock`, by default the
    system's; `metrics` is the file of figures, if one is written. Raises ConfigError for an invalid
    interval, and for a worker without its queue's package.
    """
    call_budgets = CallBudgets(None if options.share is None else options.share.engine)
    connections = SharedConnections(machine_clock or SystemClock(), call_budgets)
    names_and_slugs = portfolio_names(config_paths)
    names = [name for name, _ in names_and_slugs]
    members = [
        FleetMember(
            name if names.count(name) == 1 else slug,
            config_path,
            options,
            connections,
            redactor,
            show_result,
        )
        for config_path, (name, slug) in zip(config_paths, names_and_slugs, strict=True)
    ]
    spread_starts(members, run_interval_s(options.every))
    wake_ups = None if options.share is None else _open_wake_ups(options.share, members)
    Log().info("fleet started", portfolios=len(members), every=options.every)
    FleetRun(members, clock, options.share, metrics, wake_ups).run()


def _open_wake_ups(share: FleetShare, members: Sequence[FleetMember]) -> WakeUps:
    try:
        from agent.fleet.wake_ups import WakeUps  # loaded only for workers
    except ModuleNotFoundError:
        raise ConfigError(
            "trimtab worker: procrastinate, its queue in PostgreSQL, is not installed",
            "install trimtab with the extra fleet: pip install 'trimtab[fleet]'",
        ) from None
    return WakeUps(share, members)
