"""Ten thousand wallets in one process, simulated: the schedule is that of `trimtab run`, and each look
is a pause as long as a look on a chain lasts. Prints lateness and backlog as JSON.

Lateness is the time from when a look was due to its start, the backlog the looks that are due and have
not begun. The first round, which is spread over the interval, is counted too.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.app.cycles import AgentRun
from agent.app.service import StopRequested
from agent.fleet.chains import SharedConnections, SharedReadTimes
from agent.fleet.members import FleetMember, FleetOptions, MemberState
from agent.fleet.run import FleetRun, spread_starts
from agent.observe.logs import Redactor, configure
from agent.wiring import SystemClock

SHORTEST_LOOK_S = 0.1
LONGEST_LOOK_S = 0.6
"""About as long as looks last at an endpoint that is some way off."""


class WaitingRun:
    """A run of a portfolio that waits for its next look, and that nothing wakes."""

    urgent_pause_s = None

    def ends_wait(self) -> bool:
        """Return that nothing ends the wait."""
        return False


class SimulatedMember(FleetMember):
    """A portfolio whose looks are pauses."""

    generator = random.Random("looks")
    read_times = SharedReadTimes()
    late_s: list[float]

    def _look_now(self) -> MemberState:
        began_s = time.monotonic()
        self.late_s.append(began_s - self.due_s)
        self._run = cast(AgentRun, WaitingRun())
        self._read_times = self.read_times
        time.sleep(self.generator.uniform(SHORTEST_LOOK_S, LONGEST_LOOK_S))
        self._set_next_look(began_s, None)
        return MemberState.WAITING


class Backlog:
    """Counts each second how many looks are due and have not begun."""

    def __init__(self, members: Sequence[FleetMember], ends: threading.Event) -> None:
        self.counts: list[int] = []
        self._members = members
        self._ends = ends

    def watch(self) -> None:
        """Count until the end."""
        while not self._ends.wait(1):
            now_s = time.monotonic()
            self.counts.append(
                sum(
                    member.due_s <= now_s and member.state is not MemberState.LOOKING
                    for member in self._members
                )
            )


class EndingClock(SystemClock):
    """The system's clock, which stops the run at its end."""

    def __init__(self, end_s: float) -> None:
        self._end_s = end_s

    def sleep(self, seconds: float) -> None:
        """Sleep; raise StopRequested at the end."""
        if time.monotonic() >= self._end_s:
            raise StopRequested
        time.sleep(seconds)


def simulate(wallet_count: int, every_s: float, rounds: int, folder: Path) -> dict[str, Any]:
    """Let so many wallets look for some rounds; return the figures."""
    SimulatedMember.late_s = []
    connections = SharedConnections(SystemClock())
    options = FleetOptions(f"{every_s:.0f}s")
    members = []
    for number in range(wallet_count):
        path = folder / f"p{number}.toml"
        path.touch()
        members.append(
            SimulatedMember(path.stem, path, options, connections, Redactor(), lambda *_: None)
        )
    ends = threading.Event()
    backlog = Backlog(members, ends)
    spread_starts(members, every_s)
    end_s = time.monotonic() + rounds * every_s
    threading.Thread(target=backlog.watch, daemon=True).start()
    began_cpu_s = time.process_time()
    began_s = time.monotonic()
    FleetRun(members, cast(Any, EndingClock(end_s))).run()
    ends.set()
    late_s = sorted(SimulatedMember.late_s)
    return {
        "wallets": wallet_count,
        "every_s": every_s,
        "looks": len(late_s),
        "lateness_s": {
            "median": round(late_s[len(late_s) // 2], 3),
            "p99": round(late_s[int(0.99 * (len(late_s) - 1))], 3),
            "max": round(late_s[-1], 3),
        },
        "backlog": {"max": max(backlog.counts), "last": backlog.counts[-1]},
        "cpu_cores": round((time.process_time() - began_cpu_s) / (time.monotonic() - began_s), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wallets", type=int, default=10_000)
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two looks")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    configure(None)
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        figures = simulate(options.wallets, options.every, options.rounds, Path(folder))
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
