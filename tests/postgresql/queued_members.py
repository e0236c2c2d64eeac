"""Portfolios of a worker without a chain, whose looks are jobs of a queue in the database."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import Mock

from sqlalchemy import Engine

from agent.app.service import StoppableClock
from agent.fleet import wake_ups
from agent.fleet.chains import SharedConnections
from agent.fleet.members import FleetMember, FleetOptions
from agent.fleet.run import FleetRun
from agent.fleet.sharing import FleetShare
from agent.observe.logs import Redactor
from agent.wiring import SystemClock

WAIT_S = 30.0


class QueuedMember(FleetMember):
    """A portfolio whose looks do what a test says."""

    def __init__(self, name: str, cycle: Callable[[], object] = lambda: None, every: str = "2s", *, is_exit: bool = False) -> None:
        options = FleetOptions(every)
        super().__init__(name, Path(f"{name}.toml"), options, SharedConnections(SystemClock()), Redactor(), lambda *_: None)
        self.looks_s: list[float] = []
        self.cycle = cycle
        self._is_exit = is_exit

    def _open(self) -> None:
        def cycle() -> object:
            self.looks_s.append(time.monotonic())
            self.cycle()
            return SimpleNamespace()

        self.agent = Mock()
        self.chain = Mock(can_share=lambda *, waits: False)
        self._service = Mock()
        self._run = Mock(cycle=cycle, ends_wait=lambda: False)
        self.let_exit_be_due(is_due=self._is_exit)

    def look_now(self, cycle: Callable[[], object]) -> None:
        """Let a look of this kind begin before its time."""
        usual_cycle = self.cycle

        def cycle_once() -> None:
            self.cycle = usual_cycle
            cast(Mock, self._run).ends_wait = lambda: False
            cycle()

        self.cycle = cycle_once
        cast(Mock, self._run).ends_wait = lambda: True
        self._seen_times = []

    def let_exit_be_due(self, *, is_due: bool) -> None:
        """Let looks from now on find that an exit is due, or none."""
        run = cast(Mock, self._run)
        run.urgent_pause_s = 0.5 if is_due else None
        run.is_protection_due = is_due


def key_of(member: FleetMember) -> str:
    return f"31337:{member.name}"


@contextmanager
def served(engine: Engine, members: Sequence[FleetMember]) -> Iterator[wake_ups.WakeUps]:
    """Serve these portfolios as the only worker; yield its queue."""
    share = FleetShare(engine, {member.config_path: key_of(member) for member in members}, len(members))
    clock = StoppableClock()
    queue = wake_ups.WakeUps(share, members)
    run = FleetRun(members, clock, share, wake_ups=queue)
    thread = threading.Thread(target=run.run)
    thread.start()
    try:
        yield queue
    finally:
        clock.request_stop()
        thread.join(WAIT_S)
        assert not thread.is_alive()
