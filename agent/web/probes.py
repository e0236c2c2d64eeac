"""Answers for machines that watch a run: /health, /ready and /metrics. They judge the report that
the run writes to the store; the run itself opens no port.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from fastapi import FastAPI
from fastapi.requests import Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from agent.errors import ErrorCode, TrimtabError
from agent.model import PPM, RunReport
from agent.observe.health import RunHealth, health_document, unreadable_health
from agent.web.access import Access
from agent.web.api.gate import PROBLEM_MEDIA_TYPE, ApiError, Gate, problem_response
from agent.web.api.tokens import TokenScope
from agent.web.document_cache import DocumentCache

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


class Probes:
    """The three answers of one portfolio. Without a login or a token of the scope `read`, health is
    `ok` alone, and metrics are refused, once there are users.
    """

    def __init__(self, cache: DocumentCache, access: Access, gate: Gate) -> None:
        self._cache = cache
        self._access = access
        self._gate = gate

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        for path, answer_request, summary, media_type in (
            ("/health", self.health, "Whether the run is healthy", "application/json"),
            ("/ready", self.ready, "Whether the run can trade now", "application/json"),
            ("/metrics", self.metrics, "Metrics of the run for Prometheus", "text/plain"),
        ):
            route_options = _route_options(path, media_type)
            response_class = PlainTextResponse if path == "/metrics" else JSONResponse
            app.add_api_route(
                path,
                answer_request,
                summary=summary,
                operation_id=path[1:],
                response_class=response_class,
                **route_options,
            )
            app.add_route(path, answer_request, ["HEAD"])

    async def health(self, request: Request) -> Response:
        """Answer 200 if the run is healthy, else 503."""
        return await self._health_answer(request, lambda health: health.reasons)

    async def ready(self, request: Request) -> Response:
        """Answer 200 if the run can trade now, else 503."""
        return await self._health_answer(request, lambda health: health.obstacles)

    async def metrics(self, request: Request) -> Response:
        """Answer with the metrics."""
        try:
            self._gate.refuse_token_in_address(request.scope)
            self._require_reader(request)
            report, health = await _read_health(self._cache)
        except TrimtabError as error:
            return problem_response(error)
        return Response(metrics_text(report, health, time.time()), 200, {}, CONTENT_TYPE_LATEST)

    async def _health_answer(
        self, request: Request, reasons_of: Callable[[RunHealth], Sequence[str]]
    ) -> Response:
        try:
            self._gate.refuse_token_in_address(request.scope)
        except TrimtabError as error:
            return problem_response(error)
        try:
            report, health = await _read_health(self._cache)
        except TrimtabError as error:
            report = None
            health = unreadable_health(error)
        probe_document = health_document(report, health, reasons_of(health), time.time())
        try:
            self._require_reader(request)
        except TrimtabError:
            return health_response({"ok": probe_document["ok"]})
        return health_response(probe_document)

    def _require_reader(self, request: Request) -> None:
        """Raise ApiError unless the request may read figures."""
        if self._access.login_required and request.scope["session"] is None:
            self._gate.admit(request.scope, TokenScope.READ)


async def is_healthy(cache: DocumentCache, *, ready: bool) -> bool:
    """Return whether the run is healthy, or with `ready` can trade now; False if that cannot be
    read.
    """
    try:
        _, health = await _read_health(cache)
    except TrimtabError:
        return False
    return health.is_ready if ready else health.is_healthy


async def _read_health(cache: DocumentCache) -> tuple[RunReport | None, RunHealth]:
    """Return the newest report with its health. Raises ApiError 503 if it cannot be read."""
    try:
        seen_report = await cache.run_report()
    except TrimtabError as error:
        code = error.code or ErrorCode.STORE
        raise ApiError(503, code, error.message, error.remedy) from None
    return seen_report.report, seen_report.health(time.time())


def run_health_document(cache: DocumentCache) -> dict[str, Any]:
    """Return the health of the run as `run`, judged now from the report read last; empty before the
    first.
    """
    if (health := cache.run_health()) is None:
        return {}
    return {"run": health_document(cache.newest_report, health, health.reasons, time.time())}


def health_response(document: Mapping[str, object]) -> Response:
    """Return the answer of a health check: 200 if it is ok, else 503."""
    document_bytes = json.dumps(document).encode() + b"\n"
    return Response(document_bytes, 200 if document["ok"] else 503, {}, "application/json")


def _route_options(path: str, media_type: str) -> dict[str, Any]:
    """Return the keyword arguments of a route, for the OpenAPI document. Its address lacks the
    prefix of the API.
    """
    problem_content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ApiProblem"}}}
    access_text = "Scope `read` or a login, if there are users."
    if path == "/metrics":
        schema: dict[str, Any] = {"type": "string"}
        description = access_text
        failed_description = "The store cannot be read."
        failed_content = problem_content
    else:
        schema = {"$ref": "#/components/schemas/ProbeDocument"}
        description = f"{access_text} Without them the answer is `ok` alone."
        failed_description = "Not `ok`."
        failed_content = {media_type: {"schema": schema}}
    return {
        "description": description,
        "openapi_extra": {"servers": [{"url": "/"}], "security": [{"HTTPBearer": []}, {}]},
        "responses": {
            200: {"description": "The answer.", "content": {media_type: {"schema": schema}}},
            503: {"description": failed_description, "content": failed_content},
            "default": {"description": "Any other error.", "content": problem_content},
        },
    }


def metrics_text(report: RunReport | None, health: RunHealth, now_s: float) -> bytes:
    """Return the metrics of a run in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_MetricsCollector(report, health, now_s))
    return generate_latest(registry)


def metric_families(report: RunReport | None, health: RunHealth, now_s: float) -> Iterator[Metric]:
    """Yield the metrics of a run; those not measured by any cycle yet are NaN or have no sample."""
    yield _gauge("trimtab_healthy", "1 while /health is green", float(health.is_healthy))
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
    yield _gauge(
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
    yield _gauge(
        "trimtab_look_seconds",
        "Duration of the last cycle",
        None if cycle_ms is None else cycle_ms / 1_000,
    )
    yield _gauge(
        "trimtab_last_look_timestamp_seconds",
        "End of the last cycle, Unix seconds",
        report.last_cycle_s,
    )
    yield _gauge("trimtab_run_sends", "1 if the run sends, 0 for a dry run", float(report.sends))
    yield _gauge(
        "trimtab_run_start_timestamp_seconds",
        "Start of the run, at which counters begin, Unix seconds",
        report.started_s,
    )
    yield _gauge(
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
    yield _gauge(
        "trimtab_worst_drift_bps",
        "Largest distance of a weight from its target, bps",
        max((abs(drift_bps) for _, drift_bps in figures.drifts_bps), default=None),
    )
    yield _gauge("trimtab_open_intents", "Transactions that are not final", figures.open_intents)
    endpoint_scores = GaugeMetricFamily(
        "trimtab_endpoint_score",
        "Score of each operator's worst endpoint, from 0 to 1",
        labels=["operator"],
    )
    for operator, score_ppm in figures.endpoint_scores_ppm:
        endpoint_scores.add_metric([operator], score_ppm / PPM)
    yield endpoint_scores
    yield _gauge(
        "trimtab_paused",
        "1 while the kill switch is on or cannot be read",
        float(bool(report.pause_reason)),
    )
    yield _gauge(
        "trimtab_loss_budget_used",
        "Loss of 24 h as a share of limits.daily_loss; NaN if that is off",
        _loss_share(report),
    )
    yield _gauge(
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


def _gauge(name: str, description: str, gauge_value: float | None) -> GaugeMetricFamily:
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


def _loss_share(report: RunReport) -> float:
    loss_text = report.figures.loss_24h
    limit_text = report.figures.loss_limit
    if loss_text is None or limit_text is None:
        return NAN
    if Fraction(limit_text) == 0:
        return math.inf
    return float(Fraction(loss_text) / Fraction(limit_text))
