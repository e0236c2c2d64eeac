"""Metrics of a run in Prometheus' format."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from agent.model import PPM, RunReport
from agent.observe.health import RunHealth

CYCLE_OUTCOMES = (
    "hold",
    "halt",
    "planned",
    "refused",
    "declined",
    "done",
    "failed",
    "retryable",
    "error",
)
"""Outcomes of a cycle: those of a step; `retryable` or `error` if an error ended the cycle."""
NAN = float("nan")


def metrics_text(report: RunReport | None, health: RunHealth, now_s: float) -> bytes:
    """Return the metrics of a run in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_MetricsCollector(report, health, now_s))
    return generate_latest(registry)


def metric_families(report: RunReport | None, health: RunHealth, now_s: float) -> Iterator[Metric]:
    """Yield the metrics of a run; those not measured by any cycle yet are NaN or have no sample."""
    yield gauge("trimtab_healthy", "1 while /health is green", float(health.is_healthy))
    if report is None:
        return
    figures = report.figures
    outcomes = {**dict.fromkeys(CYCLE_OUTCOMES, 0), **dict(report.outcomes)}
    yield _counter("trimtab_looks_total", "Cycles by outcome", ["outcome"], outcomes.items())
    yield _counter(
        "trimtab_transactions_total",
        "Transactions by state after the last cycle",
        ["kind", "state"],
        report.transactions,
    )
    yield gauge(
        "trimtab_gas_spent_24h_wei",
        "Gas spent in the last 24 h of chain time, wei",
        figures.gas_24h_wei,
    )
    heartbeat_failures = CounterMetricFamily(
        "trimtab_heartbeat_failures_total", "Failed heartbeats"
    )
    heartbeat_failures.add_metric([], report.failed_heartbeats)
    yield heartbeat_failures
    cycle_ms = figures.took_ms
    yield gauge(
        "trimtab_look_seconds",
        "Duration of the last cycle",
        None if cycle_ms is None else cycle_ms / 1_000,
    )
    yield gauge(
        "trimtab_last_look_timestamp_seconds",
        "End of the last cycle, Unix seconds",
        report.last_cycle_s,
    )
    yield gauge("trimtab_run_sends", "1 if the run sends, 0 for a dry run", float(report.sends))
    yield gauge(
        "trimtab_run_start_timestamp_seconds",
        "Start of the run, at which counters begin, Unix seconds",
        report.started_s,
    )
    yield gauge(
        "trimtab_portfolio_value",
        "Value of the portfolio, whole coins of the numeraire",
        None if figures.value is None else float(figures.value),
    )
    drift_family = GaugeMetricFamily(
        "trimtab_drift_bps", "Weight less target of each asset, bps", labels=["symbol"]
    )
    for symbol, drift_bps in figures.drifts_bps:
        drift_family.add_metric([symbol], drift_bps)
    yield drift_family
    yield gauge(
        "trimtab_worst_drift_bps",
        "Largest distance of a weight from its target, bps",
        max((abs(drift_bps) for _, drift_bps in figures.drifts_bps), default=None),
    )
    yield gauge("trimtab_open_intents", "Transactions that are not final", figures.open_intents)
    endpoint_scores = GaugeMetricFamily(
        "trimtab_endpoint_score",
        "Score of each operator's worst endpoint, from 0 to 1",
        labels=["operator"],
    )
    for operator, score_ppm in figures.endpoint_scores_ppm:
        endpoint_scores.add_metric([operator], score_ppm / PPM)
    yield endpoint_scores
    yield gauge(
        "trimtab_paused",
        "1 while the kill switch is on or cannot be read",
        float(bool(report.pause_reason)),
    )
    yield gauge(
        "trimtab_loss_budget_used",
        "Loss of 24 h as a share of limits.daily_loss; NaN if that is off",
        loss_share(report),
    )
    yield gauge(
        "trimtab_head_age_seconds",
        "Age of the head of the last snapshot; NaN before the first",
        None if figures.head_s is None else now_s - figures.head_s,
    )


class _MetricsCollector:
    """Collector of the metrics of one scrape."""

    def __init__(self, report: RunReport | None, health: RunHealth, now_s: float) -> None:
        self._family_arguments = report, health, now_s

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        return metric_families(*self._family_arguments)


def gauge(name: str, description: str, gauge_value: float | None) -> GaugeMetricFamily:
    """Return a gauge without labels; NaN for None."""
    return GaugeMetricFamily(name, description, value=NAN if gauge_value is None else gauge_value)


def _counter(
    name: str, description: str, labels: Sequence[str], samples: Iterable[tuple[str, int]]
) -> CounterMetricFamily:
    """Return a counter by labels, whose values are the words of each row's name."""
    counter_family = CounterMetricFamily(name, description, labels=labels)
    for label_text, sample_count in samples:
        counter_family.add_metric(
            label_text.split(" ") if len(labels) > 1 else [label_text], sample_count
        )
    return counter_family


def loss_share(report: RunReport) -> float:
    """Return the loss of 24 h as a share of its limit; NaN without either."""
    loss_text = report.figures.loss_24h
    limit_text = report.figures.loss_limit
    if loss_text is None or limit_text is None:
        return NAN
    if Fraction(limit_text) == 0:
        return math.inf
    return float(Fraction(loss_text) / Fraction(limit_text))
