"""The metrics of a process that runs several portfolios, in a file for the textfile collector of
Prometheus' node exporter: the process opens no port, and hundreds of wallets are one scrape.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Histogram,
    disable_created_metrics,
    write_to_textfile,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from agent.errors import ConfigError
from agent.fleet.members import FleetMember, MemberState
from agent.foreign_text import failure_text
from agent.observe.logs import Log
from agent.observe.metrics import gauge, loss_share, metric_families

if TYPE_CHECKING:
    from agent.model import RunReport
    from agent.observe.health import RunHealth

WRITE_S = 15.0
"""Seconds between two writes of the file, the usual interval of a scrape."""
WORST_COUNT = 20
"""Number of portfolios whose own metrics are in the file."""
LATENESS_BUCKETS = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LOOK_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the classes of both histograms, in seconds."""


class FleetMetrics:
    """Counts since the process began, and the file that shows them, with the states of all
    portfolios and the metrics of the worst of them.
    """

    def __init__(self, path: Path) -> None:
        """Raise ConfigError if the file cannot be written."""
        self._path = path
        self._members: Sequence[FleetMember] = ()
        self._job_counts: Mapping[str, int] = {}
        self._looks: Counter[str] = Counter()
        self._written_s = 0.0
        self._is_failing = False
        self._log = Log()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._lateness = Histogram(
            "trimtab_fleet_lateness_seconds",
            "How long after its time a look began",
            buckets=LATENESS_BUCKETS,
            registry=self._registry,
        )
        self._durations = Histogram(
            "trimtab_fleet_look_seconds",
            "Duration of a look",
            buckets=LOOK_BUCKETS,
            registry=self._registry,
        )
        self._registry.register(self)
        try:
            write_to_textfile(str(path), self._registry)
        except OSError as error:
            raise ConfigError(
                f"--metrics-file {path}: it cannot be written: {error.strerror}",
                "name a file in a folder that this user may write, and whose name ends in .prom",
            ) from None

    def on_look(self, outcome: str, duration_s: float, late_s: float) -> None:
        """Count a look that has ended."""
        self._looks[outcome] += 1
        self._durations.observe(duration_s)
        self._lateness.observe(max(0.0, late_s))

    def write_if_due(
        self, members: Sequence[FleetMember], job_counts: Mapping[str, int] | None = None
    ) -> None:
        """Write the file if its time has come; `job_counts` are the numbers of jobs in the queue by
        state, for a worker. A failure is logged once, and ends nothing.
        """
        now_s = time.monotonic()
        if now_s - self._written_s < WRITE_S:
            return
        self._written_s = now_s
        self._members = members
        self._job_counts = job_counts or {}
        try:
            write_to_textfile(str(self._path), self._registry)
            self._is_failing = False
        except (OSError, ValueError) as error:
            if not self._is_failing:
                reason = failure_text(error)
                self._log.warning("metrics not written", file=str(self._path), why=reason)
            self._is_failing = True

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        now_s = time.time()
        figures = [
            (member.name, *member_figures)
            for member in self._members
            if (member_figures := member.run_figures) is not None
        ]
        yield _states(self._members)
        yield gauge(
            "trimtab_fleet_unhealthy",
            "Portfolios of this process whose run is not healthy",
            sum(not health.is_healthy for _, _, health in figures),
        )
        looks = CounterMetricFamily(
            "trimtab_fleet_looks_total", "Looks by outcome", labels=["outcome"]
        )
        for outcome, look_count in sorted(self._looks.items()):
            looks.add_metric([outcome], look_count)
        yield looks
        jobs = GaugeMetricFamily(
            "trimtab_fleet_jobs", "Jobs of all workers' queues by state", labels=["state"]
        )
        for state, job_count in self._job_counts.items():
            jobs.add_metric([state], job_count)
        yield jobs
        yield gauge(
            "trimtab_fleet_written_timestamp_seconds", "Time of this file, Unix seconds", now_s
        )
        worst_figures = sorted(figures, key=_rank)[:WORST_COUNT]
        yield from _families_by_portfolio(worst_figures, now_s)


def _states(members: Sequence[FleetMember]) -> Metric:
    family = GaugeMetricFamily(
        "trimtab_fleet_portfolios", "Portfolios by what they do", labels=["state"]
    )
    states = Counter(member.state for member in members)
    for state in MemberState:
        family.add_metric([state.value], states[state])
    return family


def _rank(figures: tuple[str, RunReport, RunHealth]) -> tuple[bool, float, float, str]:
    """Return the place of a portfolio among the worst: first those that are not healthy, then by the
    share of the day's loss that is used, then by the largest drift.
    """
    name, report, health = figures
    used_share = loss_share(report)
    worst_drift_bps = max((abs(drift) for _, drift in report.figures.drifts_bps), default=0)
    return (
        health.is_healthy,
        -(used_share if used_share >= 0 else 0.0),  # NaN is not above 0
        -worst_drift_bps,
        name,
    )


def _families_by_portfolio(
    figures: Sequence[tuple[str, RunReport, RunHealth]], now_s: float
) -> Iterator[Metric]:
    """Yield the metrics of a single run, with the name of the portfolio as a label."""
    family_by_name: dict[str, Metric] = {}
    for name, report, health in figures:
        for family in metric_families(report, health, now_s):
            merged = family_by_name.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            merged.samples += [
                sample._replace(labels={"portfolio": name, **sample.labels})
                for sample in family.samples
            ]
    yield from family_by_name.values()
