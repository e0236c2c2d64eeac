"""Health of a run, judged from its report and the time: by the run itself, by the server that
answers /health, and by `trimtab health`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from typing_extensions import TypedDict

from agent.model import RunReport
from agent.units import format_duration, rough_duration, utc_text

MAX_MISSED_CYCLES = 3
"""After this many intervals plus a minute without a good cycle a run is unhealthy. After this many
failed heartbeats in a row an alert is sent."""
CLOCK_TOLERANCE_S = 60
"""How far a report may be ahead of the clock, since two machines never agree to the second."""
RunState = Literal["none", "running", "stopped", "failed", "gone", "unknown"]
"""none: no run has ever reported; running; stopped: by the owner; failed: ended by an error; gone:
its process no longer exists; unknown: its report cannot be read.
"""


@dataclass(frozen=True, slots=True)
class RunHealth:
    """Health of a run: `reasons` why it is unhealthy, `obstacles` why no trade can happen now,
    which include the reasons. A paused run may be healthy.
    """

    state: RunState
    reasons: tuple[str, ...]
    obstacles: tuple[str, ...]

    @property
    def is_healthy(self) -> bool:
        """Return whether the run is healthy."""
        return not self.reasons

    @property
    def is_ready(self) -> bool:
        """Return whether the run can trade now."""
        return not self.obstacles


def judge_health(
    report: RunReport | None,
    now_s: float,
    *,
    is_process_alive: bool | None = None,
    known_for_s: float = 0,
) -> RunHealth:
    """Return the health of a run by its newest report, None if there is none.

    `is_process_alive` is whether its process exists, None if unknown; `known_for_s` the time for
    which the reader has known this report, by a clock that never goes back.
    """
    if report is None:
        return _unhealthy("none", "no continuous run (trimtab run --every) reports here")
    if report.ended_s is not None:
        if report.end_error:
            return _unhealthy(
                "failed", f"ended at {utc_text(report.ended_s)} UTC: {report.end_error}"
            )
        return _unhealthy("stopped", f"stopped at {utc_text(report.ended_s)} UTC")
    reasons = []
    if report.hang_text:
        reasons.append(f"cycle hangs: {report.hang_text}")
    if is_process_alive is False:
        reasons.append(
            f"the process of the run ended without a last report, after {utc_text(report.written_s)} UTC"
        )
        return RunHealth("gone", tuple(reasons), tuple(reasons))
    if report.trouble:
        reasons.append(report.trouble)
    if (ahead_s := report.written_s - now_s) > CLOCK_TOLERANCE_S:
        reasons.append(
            f"the clock is {rough_duration(int(ahead_s))} behind the last report of the run; set it"
        )
    if reason := silence_text(report, now_s, known_for_s):
        reasons.append(reason)
    obstacles = list(reasons)
    if not report.sends:
        obstacles.append("a dry run: it sends nothing; start it with --send")
    if report.last_good_cycle_at_s is None:
        obstacles.append("no successful cycle yet")
    if report.pause_reason:
        obstacles.append(f"paused: {report.pause_reason}")
    return RunHealth("running", tuple(reasons), tuple(obstacles))


def unreadable_health(error: Exception) -> RunHealth:
    """Return the health of a run whose report cannot be read."""
    return _unhealthy("unknown", f"the store cannot be read: {error}")


def silence_text(report: RunReport, now_s: float, known_for_s: float = 0) -> str:
    """Return the time since the last good cycle as text if it is too long; else empty."""
    silent_s = max(
        now_s
        - (
            report.started_s if report.last_good_cycle_at_s is None else report.last_good_cycle_at_s
        ),
        known_for_s,
    )
    silence_limit_s = MAX_MISSED_CYCLES * report.interval_s + 60
    if silent_s <= silence_limit_s:
        return ""
    return f"no successful cycle for {format_duration(int(silent_s))}, longer than {format_duration(int(silence_limit_s))}"


class HealthDocument(TypedDict):
    """Health of a run. `cycles` counts its cycles, `last_good_cycle_s` is the age of the last good
    one in seconds, None before the first. `next_cycle` is the earliest time of the next (ISO 8601),
    None while none is known and once it has passed. `reasons` are why it is not `ok`. `sends` is
    false for a dry run, None without a report.
    """

    ok: bool
    state: RunState
    reasons: list[str]
    cycles: int
    last_good_cycle_s: int | None
    next_cycle: str | None
    paused: bool
    sends: bool | None


def health_document(
    report: RunReport | None, health: RunHealth, reasons: Sequence[str], now_s: float
) -> HealthDocument:
    """Return the document of a health check that fails for these reasons."""
    last_good_cycle_at_s = None if report is None else report.last_good_cycle_at_s
    return {
        "ok": not reasons,
        "state": health.state,
        "reasons": list(reasons),
        "cycles": 0 if report is None else report.cycles,
        "last_good_cycle_s": None
        if last_good_cycle_at_s is None
        else max(0, int(now_s - last_good_cycle_at_s)),
        "next_cycle": None if report is None else _next_cycle_text(report, health, now_s),
        "paused": report is not None and bool(report.pause_reason),
        "sends": None if report is None else report.sends,
    }


def _unhealthy(state: RunState, reason: str) -> RunHealth:
    return RunHealth(state, (reason,), (reason,))


def process_identity() -> str:
    """Return a text that no other process has: machine, namespace of process ids, process id, and
    its start. Empty where /proc does not tell them.
    """
    namespace = _pid_namespace()
    start = _start_of(os.getpid())
    if not namespace or start is None:
        return ""
    return f"{os.uname().nodename}/{namespace}/{os.getpid()}/{start}"


def is_alive(identity: str) -> bool | None:
    """Return whether the process of a text by `process_identity` exists; None if that is unknown
    here, as for another machine or container.
    """
    process_prefix, _, start = identity.rpartition("/")
    machine_and_namespace, _, pid = process_prefix.rpartition("/")
    if not pid.isdecimal() or machine_and_namespace != f"{os.uname().nodename}/{_pid_namespace()}":
        return None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process
        pass
    current_start = _start_of(int(pid))
    return None if current_start is None else current_start == start


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _start_of(pid: int) -> str | None:
    """Return the start of a process: of its machine, and in clock ticks since then (proc(5), field
    22 of stat). Empty for one that has ended but was not yet collected by its parent; None if it
    cannot be read.
    """
    try:
        stat_fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "" if stat_fields[0] == "Z" else f"{_boot_id()}:{stat_fields[19]}"


def _boot_id() -> str:
    """Return the id of the machine's last start; empty if it cannot be read."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _next_cycle_text(report: RunReport, health: RunHealth, now_s: float) -> str | None:
    """Return when the next cycle begins at the earliest, which may be a tenth of the interval later;
    None if none is expected, or if that time has passed.
    """
    if health.state != "running" or report.last_cycle_s is None or report.trouble:
        return None
    next_cycle_s = report.last_cycle_s + report.interval_s
    return f"{utc_text(next_cycle_s).replace(' ', 'T')}Z" if next_cycle_s > now_s else None
