"""Who may call the API: tokens and their scopes, rates, and refusals as problem+json (RFC 9457)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import unquote_plus

from fastapi.exceptions import RequestValidationError
from fastapi.requests import Request
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from agent.errors import (
    ConfigError,
    ErrorCode,
    OperatorNeeded,
    Refused,
    Retryable,
    TrimtabError,
    internal_error,
    printable_text,
)
from agent.web.api.tokens import TOKEN_IN_URL_PATTERN, TokenFile, TokenScope

log = logging.getLogger("trimtab.dashboard")
API_PREFIX = "/api/v1"
PROBE_PATHS = ("/health", "/ready", "/metrics")
"""Paths for machines that watch a run, outside of API_PREFIX."""
SPECIFICATION_PATH = "/openapi.json"
"""The one path behind the gate that needs no token."""
CALLS_PER_MINUTE = 120
BURST = 60
"""Calls of one token."""
INVALID_CALLS_PER_MINUTE = 60
INVALID_BURST = 30
"""Calls without a token that is valid for their address, from all clients together. They never slow
down a valid token.
"""
UNCHECKED_TOKENS = (
    "tokens cannot be checked now",
    "trimtab token list says why, on the machine of the dashboard",
)
"""Message and remedy shown instead of the error, which has paths and comes before any check."""
MAX_BODY_BYTES = 262_144
"""Bytes; above the largest body that a route's model allows."""
BODY_TIMEOUT_S = 8.0
"""Less than a connection has for a whole request, so that the answer arrives."""
RETRY_AFTER_S = 10
PROBLEM_MEDIA_TYPE = "application/problem+json"
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class ApiProblem(BaseModel):
    """An error (RFC 9457). `code` is stable and meant for programs, `remedy` for people."""

    type: Literal["about:blank"] = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    remedy: str


class ApiError(TrimtabError):
    """A refusal of the API itself, with its status and headers."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        remedy: str,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        super().__init__(message, remedy, code=code)
        self.status = status
        self.headers = dict(headers)


class RateLimit:
    """A token bucket, by a monotonic clock."""

    def __init__(self, per_minute: int, burst: int, clock_s: Callable[[], float]) -> None:
        self._calls_per_s = per_minute / 60
        self._burst = float(burst)
        self._clock_s = clock_s
        self._remaining_calls = self._burst
        self._updated_s = clock_s()

    def count_call(self) -> int:
        """Count a call; return 0, or the seconds after which the next one is allowed."""
        now_s = self._clock_s()
        self._remaining_calls = min(
            self._burst, self._remaining_calls + (now_s - self._updated_s) * self._calls_per_s
        )
        self._updated_s = now_s
        if self._remaining_calls < 1:
            return int((1 - self._remaining_calls) / self._calls_per_s) + 1
        self._remaining_calls -= 1
        return 0


class Gate:
    """ASGI middleware of the API: admits requests with a valid token, within their rate, whose body
    is short and whose address holds no token.
    """

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        tokens: TokenFile,
        now_s: Callable[[], float] = time.time,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tokens = tokens
        self.app = app
        self._now_s = now_s
        self._clock_s = clock_s
        self._limits: dict[str, RateLimit] = {}
        self._invalid_call_limit = RateLimit(INVALID_CALLS_PER_MINUTE, INVALID_BURST, clock_s)

    async def __call__(
        self,
        scope: Message,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer one request."""
        try:
            self.refuse_token_in_address(scope)
            scope["state"] = {**scope.get("state", {}), "scopes": ()}
            if scope["path"] != scope.get("root_path", "") + SPECIFICATION_PATH:
                self.admit(scope)
            receive_buffered = await _buffer_body(receive)
        except TrimtabError as error:
            await problem_response(error)(scope, receive, send)
            return
        await self.app(scope, receive_buffered, send)

    def refuse_token_in_address(self, scope: Message) -> None:
        """Raise ApiError if the address of a request holds a token."""
        if TOKEN_IN_URL_PATTERN.search(
            scope["path"] + "?" + unquote_plus(scope["query_string"].decode("latin-1"))
        ):
            raise ApiError(
                400,
                "token_in_url",
                "the address holds a token, and addresses end up in logs",
                "revoke it: trimtab token revoke; send tokens as Authorization: Bearer TOKEN",
            )

    def admit(self, scope: Message, required_scope: TokenScope | None = None) -> None:
        """Count a request and note its token in the state of the scope. Raises ApiError without a
        valid token, beyond its rate, from an address that it does not serve, and if it lacks the
        scope `required_scope`.
        """
        credentials = [
            header_value
            for header_name, header_value in scope["headers"]
            if header_name == b"authorization"
        ]
        scheme, _, token_text = (
            credentials[0].decode("latin-1").partition(" ")
            if len(credentials) == 1
            else ("", "", "")
        )
        try:
            api_token = self.tokens.find(token_text.strip()) if scheme.lower() == "bearer" else None
        except TrimtabError as error:
            log.error("tokens cannot be checked: %s", error)
            raise ApiError(503, error.code, *UNCHECKED_TOKENS) from None
        code = "token_unknown" if credentials else "token_missing"
        reason = "no valid token"
        if api_token is not None:
            token_state = api_token.state(int(self._now_s()))
            code = f"token_{token_state}"
            reason = f"the token is {token_state}"
        if api_token is None or code != "token_active":
            if wait_s := self._invalid_call_limit.count_call():
                raise _rate_limit_error(wait_s)
            raise ApiError(
                401,
                code,
                reason,
                "add one: trimtab token add; send it as Authorization: Bearer TOKEN",
                {"WWW-Authenticate": 'Bearer realm="trimtab"'},
            )
        address = scope["address"]
        if not api_token.serves(address):
            if wait_s := self._invalid_call_limit.count_call():
                raise _rate_limit_error(wait_s)
            raise ApiError(
                403,
                "address",
                f"the token does not serve {address}",
                f"add a token with --from {address}, or call from an address of its list",
            )
        rate_limit = self._limits.setdefault(
            api_token.id, RateLimit(CALLS_PER_MINUTE, BURST, self._clock_s)
        )
        if wait_s := rate_limit.count_call():
            raise _rate_limit_error(wait_s)
        scope["state"] = {
            **scope.get("state", {}),
            "scopes": api_token.scopes,
            "token": api_token.name,
            "token_id": api_token.id,
        }
        if required_scope is not None and required_scope not in api_token.scopes:
            raise _scope_error(required_scope)


def _scope_error(scope: TokenScope) -> ApiError:
    return ApiError(
        403, "scope", f"the token lacks the scope {scope}", f"add a token with --scope {scope}"
    )


def _rate_limit_error(wait_s: int) -> ApiError:
    return ApiError(
        429,
        ErrorCode.RATE_LIMIT,
        "too many calls",
        f"wait {wait_s} s",
        {"Retry-After": str(wait_s)},
    )


async def _buffer_body(receive: Receive) -> Receive:
    """Return a `receive` of the whole body, read in advance. Raises ApiError if the body is longer
    than MAX_BODY_BYTES or incomplete after BODY_TIMEOUT_S.
    """
    body = bytearray()
    is_incomplete = True
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while is_incomplete:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    error_text = f"the body is longer than {MAX_BODY_BYTES} bytes"
                    raise ApiError(413, "body", error_text, "shorten it")
                is_incomplete = message.get("more_body", False)
    except TimeoutError:
        raise ApiError(408, "body", "the body did not arrive", "send it at once") from None
    # one message, as many small ones take more memory than they carry
    pending_messages = [{**message, "body": bytes(body)} if "body" in message else message]

    async def receive_buffered() -> Message:
        return pending_messages.pop(0) if pending_messages else await receive()

    return receive_buffered


class RequireScope:
    """Dependency of a route: the token must have this scope, and the query only parameters of the
    route, each once.
    """

    def __init__(self, scope: TokenScope) -> None:
        self.scope = scope

    def __call__(self, request: Request) -> None:
        """Raise ApiError if the scope is missing or the query is invalid."""
        if self.scope not in request.state.scopes:
            raise _scope_error(self.scope)
        allowed_parameters = {
            parameter.alias for parameter in request.scope["route"].dependant.query_params
        }
        parameter_names = [name for name, _ in request.query_params.multi_items()]
        if not allowed_parameters.issuperset(parameter_names) or len(parameter_names) != len(
            {*parameter_names}
        ):
            raise ApiError(
                422,
                "parameter",
                "query: an unknown parameter, or one given twice",
                f"use {', '.join(sorted(allowed_parameters))}" if allowed_parameters else "omit it",
            )


def problem_response(error: TrimtabError) -> Response:
    """Return an error as problem+json."""
    headers: dict[str, str] = {}
    match error:
        case ApiError():
            status = error.status
            code = error.code
            headers = error.headers
        case ConfigError() if error.code == ErrorCode.UNKNOWN:
            status = 404
            code = error.code
        case ConfigError():
            status = 409
            code = error.code or error.field or "config"
        case Refused():
            status = 409
            code = error.code or "refused"
        case Retryable():
            status = 503
            code = error.code or "retry"
            headers = {"Retry-After": str(RETRY_AFTER_S)}
        case OperatorNeeded():
            status = 503
            code = error.code or "operator"
        case _:
            status = 500
            code = error.code or "internal"
    return _problem_response(status, code, error.message, error.remedy, headers)


def _problem_response(
    status: int, code: str, detail: str, remedy: str = "", headers: dict[str, str] | None = None
) -> Response:
    title = HTTPStatus(status).phrase
    problem = ApiProblem(title=title, status=status, detail=detail, code=code, remedy=remedy)
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(problem.model_dump_json(), status, headers, PROBLEM_MEDIA_TYPE)


def refusal_response(refusal: Response) -> Response:
    """Return a refusal of the dashboard, whose text begins with its status, as problem+json."""
    status = HTTPStatus(refusal.status_code)
    detail = bytes(refusal.body).decode().partition(": ")[2].strip()
    return _problem_response(status, status.name.lower(), detail)


async def validation_error_response(_: Request, error: Any) -> Response:
    """Return the first invalid parameter, without its value, as problem+json."""
    first_error = error.errors()[0]
    parameter_path = ".".join(str(location_part) for location_part in first_error["loc"])
    return _problem_response(
        422,
        "parameter",
        printable_text(f"{parameter_path}: {first_error['msg']}"),
        "see docs/api.md",
    )


async def routing_error_response(_: Request, error: Any) -> Response:
    """Return an error of the router, such as an unknown path or method, as problem+json."""
    status = HTTPStatus(error.status_code)
    remedy = (
        f"GET {API_PREFIX}{SPECIFICATION_PATH} lists the calls"
        if status.value in (404, 405)
        else ""
    )
    return _problem_response(
        status, status.name.lower(), status.phrase, remedy, dict(error.headers or {})
    )


async def failure_response(_: Request, error: Exception) -> Response:
    """Return a TrimtabError as problem+json, and any other error without its text."""
    if isinstance(error, TrimtabError):
        return problem_response(error)
    defect = internal_error(error)
    return _problem_response(500, "internal", defect.message, defect.remedy)


EXCEPTION_HANDLERS: dict[Any, Any] = {
    RequestValidationError: validation_error_response,
    HTTPException: routing_error_response,
    TrimtabError: failure_response,
    Exception: failure_response,
}
"""Exception handlers of the API."""
