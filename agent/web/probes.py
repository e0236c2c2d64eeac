"""Answers for machines that watch a run: /health, /ready and /metrics. They judge the report that
the run writes to the store; the run itself opens no port.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.requests import Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from agent.errors import ErrorCode, TrimtabError
from agent.model import RunReport
from agent.observe.health import RunHealth, health_document, unreadable_health
from agent.observe.metrics import metrics_text
from agent.web.access import Access
from agent.web.api.gate import PROBLEM_MEDIA_TYPE, ApiError, Gate, problem_response
from agent.web.api.tokens import TokenScope
from agent.web.document_cache import DocumentCache


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


def documents_with_run(cache: DocumentCache) -> dict[str, Any]:
    """Return the documents read so far, with the health of the run as `run`, judged now from the
    report read last; without it before the first.
    """
    if (health := cache.run_health()) is None:
        return dict(cache.documents)
    run = health_document(cache.newest_report, health, health.reasons, time.time())
    return {**cache.documents, "run": run}


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
