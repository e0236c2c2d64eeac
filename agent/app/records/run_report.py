"""The report of a run: written to the store by the run, and read there to judge its health."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from agent import codec, wiring
from agent.config.load import load_config
from agent.config.loaded import ConfigSource
from agent.model import Counts, RunFigures, RunReport, sum_counts
from agent.observe.health import (
    HealthDocument,
    RunHealth,
    health_document,
    is_alive,
    judge_health,
    process_identity,
    silence_text,
)
from agent.store.files.pause import KillSwitchState
from agent.store.runs import RunReportStore

HUNG_WRITE_TIMEOUT_S = 2.0
"""Longest time that writing the last report may delay the end of a hung process."""


def pause_reason(switch: KillSwitchState) -> str:
    """Return the reason of the kill switch; empty if it is off."""
    if switch.paused is False:
        return ""
    return switch.reason or "by its file"


class RunRecorder:
    """The report of a run, and its copy in the store: `store` is None for a run that reports
    nowhere. `redact` removes secrets from texts, `now_s` is the wall clock, Unix seconds.
    """

    def __init__(
        self,
        store: RunReportStore | None,
        interval_s: int,
        *,
        sends: bool,
        redact: Callable[[str], str] = str,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._redact = redact
        self._now_s = now_s
        self._spared_report_run_id = ""
        self._defers_to_other_run = False
        self._lock = threading.Lock()
        started_s = int(now_s())
        self._report = RunReport(
            secrets.token_hex(8), process_identity(), sends, interval_s, started_s, started_s
        )

    @property
    def report(self) -> RunReport:
        """The current report."""
        with self._lock:
            return self._report

    @property
    def defers_to_other_run(self) -> bool:
        """True if the store keeps the report of another run, whose health counts."""
        return self._defers_to_other_run

    def health(self) -> RunHealth:
        """Return the health of the run now."""
        return judge_health(self.report, self._now_s())

    def silence_text(self) -> str:
        """Return the time since the last good cycle as text if it is too long; else empty."""
        return silence_text(self.report, self._now_s())

    def on_cycle(self, outcome: str, trouble: str, pause_text: str, transactions: Counts) -> None:
        """Record the end of a cycle: good if `trouble` is empty; `pause_text` is the kill switch's
        reason, empty if it is off.
        """
        now_s = int(self._now_s())
        with self._lock:
            previous_report = self._report
            self._report = replace(
                previous_report,
                cycles=previous_report.cycles + 1,
                last_cycle_s=now_s,
                last_good_cycle_at_s=previous_report.last_good_cycle_at_s if trouble else now_s,
                trouble=self._redact(trouble),
                pause_reason=self._redact(pause_text),
                outcomes=sum_counts(previous_report.outcomes, ((outcome, 1),)),
                transactions=sum_counts(previous_report.transactions, transactions),
            )

    def on_figures(self, figures: RunFigures) -> None:
        """Record the figures after a cycle."""
        with self._lock:
            self._report = replace(self._report, figures=figures)

    def on_failed_heartbeat(self) -> None:
        """Count a failed heartbeat."""
        with self._lock:
            failure_count = self._report.failed_heartbeats + 1
            self._report = replace(self._report, failed_heartbeats=failure_count)

    def on_end(self, error_text: str = "") -> None:
        """Record the end of the run, by an error with this text or, if it is empty, by a stop."""
        with self._lock:
            now_s = int(self._now_s())
            self._report = replace(self._report, ended_s=now_s, end_error=self._redact(error_text))

    def on_hang(self, hang_text: str) -> None:
        """Record and write that a cycle hangs. If the store does not answer, its report stays as it
        was.
        """
        with self._lock:
            self._report = replace(self._report, hang_text=self._redact(hang_text))
        writer_thread = threading.Thread(target=self._write_quietly, daemon=True)
        writer_thread.start()
        writer_thread.join(HUNG_WRITE_TIMEOUT_S)

    def write(self) -> None:
        """Write the report to the store. A run that sends replaces every report but that of another
        sending run whose process is surely alive, since that one holds the wallet. A dry run
        never replaces the report of a healthy run. If that run sends, its report is also kept when
        it dies, so that the death stays visible, and is replaced only after it was stopped. Raises
        OperatorNeeded.
        """
        with self._lock:
            now_s = int(self._now_s())
            self._report = report = replace(self._report, written_s=now_s)

        def may_replace(stored_report: RunReport) -> bool:
            is_process_alive = is_alive(stored_report.process_identity)
            health_state = judge_health(
                stored_report, now_s, is_process_alive=is_process_alive
            ).state
            if report.sends:
                return not (stored_report.sends and health_state == "running" and is_process_alive)
            if health_state == "running" and not silence_text(stored_report, now_s):
                return False
            return health_state == "stopped" or stored_report.run_id != self._spared_report_run_id

        if self._store is None:
            return
        written_report = self._store.write(report, may_replace)
        self._defers_to_other_run = written_report is not report
        if written_report.sends and not report.sends:
            self._spared_report_run_id = written_report.run_id

    def _write_quietly(self) -> None:
        try:
            self.write()
        except Exception:  # the process ends now, and the log has the reason
            return


def newest_report(config: ConfigSource) -> RunReport | None:
    """Return the newest report of a run, with the present state of the kill switch; None without a
    store or a report. Raises the error if the config or the store cannot be read.
    """
    loaded_config = load_config(config)
    if not wiring.has_store(loaded_config):
        return None
    with wiring.open_store_offline(loaded_config, checks_and_migrates=False) as (store, switch):
        report = store.run_reports.newest()
        return None if report is None else replace(report, pause_reason=pause_reason(switch.read()))


def newest_report_json(config: ConfigSource) -> str | None:
    """Return `newest_report` as JSON."""
    report = newest_report(config)
    return None if report is None else codec.dumps(report)


def run_health(config: ConfigSource, *, ready: bool = False) -> HealthDocument:
    """Return the health of the run of this config, or with `ready` whether it can trade now."""
    report = newest_report(config)
    now_s = time.time()
    health = judge_health(
        report,
        now_s,
        is_process_alive=None if report is None else is_alive(report.process_identity),
    )
    reasons = health.obstacles if ready else health.reasons
    return health_document(report, health, reasons, now_s)
