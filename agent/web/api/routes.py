"""The API under /api/v1: the documents of the commands for programs that have a token.

Every answer is the JSON of a command, or a problem (RFC 9457) with a code and a remedy. Its OpenAPI
document is made from these routes and the declarations of the documents by scripts/make/openapi.py.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, Path, Query, Security
from fastapi.requests import Request
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from agent import artifacts
from agent.errors import TrimtabError
from agent.model import ControlArguments, ControlKind, ControlOrigin, ControlSubmission
from agent.web.api.gate import (
    API_PREFIX,
    EXCEPTION_HANDLERS,
    PROBE_PATHS,
    PROBLEM_MEDIA_TYPE,
    SPECIFICATION_PATH,
    ApiError,
    Gate,
    RequireScope,
)
from agent.web.api.tokens import TokenFile, TokenScope
from agent.web.app_modules import dashboard, ledger, queue, shown, shown_plans, step_history
from agent.web.document_cache import CacheProcess, DocumentCache
from agent.web.pages import TYPE_BY_DOCUMENT_PATH

MAX_PAGE_SIZE = 1_000
STEP_ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
CONTROL_ID_PATTERN = r"^[0-9a-f]{32}$"
ControlName = Literal[
    "pause", "resume", "rebalance", "confirm", "invest", "withdraw", "edit", "stop", "holdings"
]


class ControlArgument(BaseModel):
    """An option of the command of that name, without dashes; switches have the value "yes"."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern=r"^[a-z-]{1,32}$")
    value: str = Field(max_length=1_000)


class PreviewRequest(BaseModel):
    """A control to plan and show."""

    model_config = ConfigDict(extra="forbid")
    kind: ControlName
    arguments: list[ControlArgument] = Field(default=[], max_length=20)

    def argument_pairs(self) -> ControlArguments:
        """Return the arguments as a control has them."""
        return tuple((argument.name, argument.value) for argument in self.arguments)


class ControlRequest(PreviewRequest):
    """A control to queue; `plan_hash` is the hash of its previewed plan."""

    plan_hash: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    lifetime_s: int = Field(default=300, ge=1, le=900)


def document_response(
    request: Request,
    document: Any,
    age_s: float | None = None,
    extra_headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a document with its entity tag; 304 if the client has it."""
    document_bytes = json.dumps(document, separators=(",", ":")).encode()
    etag = f'W/"{hashlib.sha256(document_bytes).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", **(extra_headers or {})}
    if age_s is not None:
        headers["Age"] = str(int(age_s))
    client_etags = request.headers.get("If-None-Match", "")
    if client_etags == "*" or etag.removeprefix("W/") in re.findall(r'"[^"]*"', client_etags):
        return Response(None, 304, headers)
    return Response(document_bytes, 200, headers, "application/json")


@functools.cache
def specification(prefix: str = "") -> bytes:
    """Return the OpenAPI document of the API below a prefix."""
    document_json = (artifacts.WEB_FOLDER / "api" / "openapi.json").read_bytes()
    if not prefix:
        return document_json
    openapi_document = json.loads(document_json)
    openapi_document["servers"] = [{"url": prefix + API_PREFIX}]
    for path in PROBE_PATHS:
        openapi_document["paths"][path]["get"]["servers"] = [{"url": prefix}]
    return json.dumps(openapi_document).encode()


def _route_options(
    schema: str, scope: TokenScope, *, paged: bool = False, post_status: int = 0
) -> dict[str, Any]:
    """Return the keyword arguments of a route that answers with a document; `post_status` is the
    status of an answer to POST.
    """
    headers = {"ETag": {"schema": {"type": "string"}, "description": "For If-None-Match."}}
    if paged:
        headers["Link"] = {"schema": {"type": "string"}, "description": 'rel="next": older steps.'}
    json_content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    common_options = {
        "dependencies": [Security(HTTPBearer(auto_error=False)), Security(RequireScope(scope))],
        "description": f"Scope `{scope}`.",
    }
    if post_status:
        responses = {
            post_status: {"description": "The document.", "content": json_content},
            **PROBLEM_RESPONSES,
        }
        return {**common_options, "status_code": post_status, "responses": responses}
    return {
        **common_options,
        "responses": {
            200: {"description": "The document.", "headers": headers, "content": json_content},
            304: {"description": "Not modified: the ETag is that of If-None-Match."},
            **PROBLEM_RESPONSES,
        },
    }


PROBLEM_CONTENT = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ApiProblem"}}}
PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": PROBLEM_CONTENT}
    for status, description in (
        (400, "The address holds a token, or the request is not HTTP."),
        (401, "No valid token."),
        (403, "The token lacks the scope."),
        (404, "Not found."),
        (408, "The body did not arrive in time."),
        (409, "The portfolio, its config or the queue does not permit it."),
        (413, "The body is too long."),
        (422, "A parameter is invalid."),
        (429, "Too many calls: Retry-After."),
        (500, "An error of trimtab."),
        (503, "It cannot be read now: Retry-After, or an operator is needed."),
        ("default", "Any other error."),
    )
}
LIVE_DOCUMENT_TITLES = {
    "status": "Holdings, weights, bands and the decision now",
    "orders": "Stop loss, take profit and other conditional orders",
    "alerts": "Alert prices, targets and open alerts",
    "positions": "Futures positions",
    "lp": "Liquidity positions with their losses, and targets",
    "margin": "Margin, leverage and limits of the futures account",
    "funding": "Funding by market, and by day of the last week",
}
"""Titles of the documents that are read from the chain."""


def build_api(cache: DocumentCache, tokens: TokenFile, prefix: str = "") -> Gate:
    """Return the application that is mounted at API_PREFIX; clients see `prefix` before it."""
    app = FastAPI(
        title="trimtab",
        version="1",
        summary="The JSON documents of the trimtab commands.",
        servers=[{"url": API_PREFIX}],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers=EXCEPTION_HANDLERS,
    )
    _add_live_routes(app, cache)
    _add_stored_routes(app, cache)
    _add_control_routes(app, cache)

    @app.get(SPECIFICATION_PATH, include_in_schema=False)
    async def openapi(_: Request) -> Response:
        return Response(specification(prefix), 200, {}, "application/json")

    return Gate(app, tokens)


def _add_live_routes(app: FastAPI, cache: DocumentCache) -> None:
    """Add the routes of documents that are read from the chain."""

    async def live_response(
        request: Request, document_name: str, document_key: str | None = None
    ) -> Response:
        documents = await cache.read_fresh(dashboard.live_documents)
        if document_name not in documents:
            config_table = "[lp]" if document_name == "lp" else "[futures]"
            raise ApiError(
                404,
                "not_configured",
                f"no {document_name}: no {config_table}",
                f"add {config_table}",
            )
        if "raised" in (document := documents[document_name]):
            raise document["raised"].with_traceback(None)
        age_s = time.monotonic() - cache.read_s_by_function[dashboard.live_documents]
        return document_response(
            request, {document_key: document[document_key]} if document_key else document, age_s
        )

    def add_live_route(
        name: str, schema: str, title: str, document_name: str, document_key: str | None = None
    ) -> None:
        async def read_live(request: Request) -> Response:
            return await live_response(request, document_name, document_key)

        route_options = _route_options(schema, TokenScope.READ)
        app.add_api_route(f"/{name}", read_live, summary=title, operation_id=name, **route_options)

    for name, title in LIVE_DOCUMENT_TITLES.items():
        add_live_route(name, TYPE_BY_DOCUMENT_PATH[name], title, name)
    add_live_route(
        "endpoints", "EndpointsDocument", "Health of the endpoints", "status", "endpoints"
    )

    @app.get(
        "/plan",
        summary="A dry run now: legs, cost, worst case, verdicts",
        operation_id="plan",
        **_route_options("LivePlanDocument", TokenScope.PLAN),
    )
    async def plan(request: Request) -> Response:
        documents = await cache.read_fresh(dashboard.plan_document)
        return document_response(
            request,
            documents["plan"],
            time.monotonic() - cache.read_s_by_function[dashboard.plan_document],
        )


def _add_stored_routes(app: FastAPI, cache: DocumentCache) -> None:
    """Add the routes of documents that are read from the store alone."""

    @app.get(
        "/history",
        summary="Past steps, newest first, with transactions and costs",
        operation_id="history",
        **_route_options("HistoryDocument", TokenScope.READ, paged=True),
    )
    async def history(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = 20,
        before: Annotated[str | None, Query(pattern=STEP_ID_PATTERN)] = None,
    ) -> Response:
        history_document = await cache.read_stored(step_history.history, limit, before)
        steps = history_document["steps"]
        link_header = {}
        if len(steps) == limit:
            next_url = f"{API_PREFIX}/history?limit={limit}&before={steps[-1]['step']}"
            link_header = {"Link": f'<{next_url}>; rel="next"'}
        return document_response(request, history_document, extra_headers=link_header)

    @app.get(
        "/explain",
        summary="The newest step in sentences",
        operation_id="explain",
        **_route_options("ExplanationDocument", TokenScope.READ),
    )
    async def explain(request: Request) -> Response:
        return document_response(request, await cache.read_stored(step_history.explain))

    @app.get(
        "/explain/{step}",
        summary="A past step in sentences",
        operation_id="explain_step",
        **_route_options("ExplanationDocument", TokenScope.READ),
    )
    async def explain_step(
        request: Request, step: Annotated[str, Path(pattern=STEP_ID_PATTERN)]
    ) -> Response:
        return document_response(request, await cache.read_stored(step_history.explain, step))

    @app.get(
        "/pnl",
        summary="Profit and loss per period against holding and a benchmark",
        operation_id="pnl",
        **_route_options("ProfitDocument", TokenScope.READ),
    )
    async def pnl(
        request: Request,
        period: Literal["day", "week", "month", "year", "all"] = "all",
        benchmark: Annotated[str | None, Query(max_length=64)] = None,
        last: Annotated[int, Query(ge=1, le=400)] = 12,
    ) -> Response:
        return document_response(
            request, await cache.read_stored(ledger.pnl, period, benchmark, last)
        )

    @app.get(
        "/settings",
        summary="The settings in force, without secrets",
        operation_id="settings",
        **_route_options("SettingsDocument", TokenScope.READ),
    )
    async def settings(request: Request) -> Response:
        return document_response(request, await cache.read_stored(shown.settings_document))


async def warm_up_controls(cache: DocumentCache, tokens: TokenFile) -> None:
    """Start the process that queues controls if any token may queue them, so that a pause does not
    wait for its start.
    """
    with suppress(TrimtabError):
        if any(token.permits(TokenScope.CONTROL, int(time.time())) for token in tokens.tokens()):
            await cache.call(CacheProcess.CONTROLS, queue.warm_up)


def _add_control_routes(app: FastAPI, cache: DocumentCache) -> None:
    """Add the routes of controls, which are queued for the run and never carried out here."""

    @app.get(
        "/controls",
        summary="The queue of controls and the plan that waits for a confirmation",
        operation_id="controls",
        **_route_options("ControlsDocument", TokenScope.READ),
    )
    async def controls(
        request: Request, limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = 100
    ) -> Response:
        controls_document = await cache.call(CacheProcess.CONTROLS, queue.list_controls, limit)
        return document_response(request, controls_document)

    @app.get(
        "/controls/{control}",
        summary="A control with its state and result",
        operation_id="control",
        **_route_options("ControlDocument", TokenScope.READ),
    )
    async def control(
        request: Request, control: Annotated[str, Path(pattern=CONTROL_ID_PATTERN)]
    ) -> Response:
        control_document = await cache.call(CacheProcess.CONTROLS, queue.find_control, control)
        return document_response(request, control_document)

    @app.post(
        "/controls/preview",
        summary="Plan a control now and show it; its hash binds the control",
        operation_id="preview_control",
        **_route_options("ShownPlanDocument", TokenScope.CONTROL, post_status=200),
    )
    async def preview(body: PreviewRequest) -> Response:
        shown_plan = await cache.call(
            CacheProcess.LIVE,
            shown_plans.preview_control,
            ControlKind(body.kind),
            body.argument_pairs(),
        )
        return _uncached_response(200, shown_plan)

    @app.post(
        "/controls",
        summary="Queue a control for the run, which carries it out under its guards",
        operation_id="request_control",
        **_route_options("ControlDocument", TokenScope.CONTROL, post_status=202),
    )
    async def submit(
        request: Request,
        body: ControlRequest,
        idempotency_key: Annotated[
            str, Header(alias="Idempotency-Key", pattern=r"^[A-Za-z0-9_.:-]{1,64}$")
        ],
    ) -> Response:
        submission = ControlSubmission(
            ControlKind(body.kind),
            body.argument_pairs(),
            request.state.token,
            ControlOrigin.API,
            body.plan_hash,
            f"{request.state.token_id}:{idempotency_key}",
            body.lifetime_s,
        )
        control_document = await cache.call(CacheProcess.CONTROLS, queue.submit_request, submission)
        location_header = {"Location": f"{API_PREFIX}/controls/{control_document['id']}"}
        return _uncached_response(202, control_document, location_header)


def _uncached_response(
    status: int, document: Any, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an answer with a document that no cache may store."""
    no_store_headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(json.dumps(document).encode(), status, no_store_headers, "application/json")
