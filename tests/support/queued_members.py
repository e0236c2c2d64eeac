"""Portfolios of a worker without a chain, whose looks are jobs of a queue in the database."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
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
        self._cycle = cycle
        self._is_exit = is_exit

    def _open(self) -> None:
        def cycle() -> object:
            self.looks_s.append(time.monotonic())
            self._cycle()
            return SimpleNamespace()

        self.agent = Mock()
        self.chain = Mock(can_share=lambda *, waits: False)
        self._service = Mock()
        self._run = Mock(
            cycle=cycle, urgent_pause_s=0.5 if self._is_exit else None, is_protection_due=self._is_exit, ends_wait=lambda: False
        )


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
