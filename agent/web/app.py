"""The web application: pages, static files and events, behind checks that answer before any page."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route

from agent import artifacts
from agent.errors import ConfigError, TrimtabError
from agent.web.board import MAX_STREAMS, Board
from agent.web.pages import ASSETS, PAGES, STEP, Page, Renderer

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Names under which the dashboard answers. Any other Host header may be a rebound DNS name."""
READ_VERBS = ("GET", "HEAD")
SEEN = re.compile(rb"[0-9]{1,15}")
STEP_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
KINDS = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
MIN_GZIP_BYTES = 500
STOP_POLL_S = 0.2
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Checks:
    """ASGI middleware: refuses foreign hosts and every verb that is not a read, and adds the
    headers of security to each answer.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Connections that are not HTTP are closed."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def checked(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                known = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.lower().encode(), value.encode())
                        for name, value in {**HEADERS, "Cache-Control": "no-store"}.items()
                        if name.lower().encode() not in known
                    ),
                ]
            await send(message)

        answer: Any = self._app
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or host_name(hosts[0].decode("latin-1")) not in LOOPBACK:
            answer = PlainTextResponse("421: open the dashboard as localhost\n", 421)
        elif scope["method"] not in READ_VERBS:
            answer = PlainTextResponse(
                "405: the dashboard only reads\n", 405, {"Allow": ", ".join(READ_VERBS)}
            )
        await answer(scope, receive, checked)


def host_name(header: str) -> str:
    """Return the name in a Host header without its port, in lower case."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?", header)
    return "" if found is None else found[1].strip("[]").lower()


class EventStream:
    """ASGI application of one event stream, with a bound on their number."""

    def __init__(self, board: Board) -> None:
        self._board = board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client or the server ends."""
        answer: Any
        if self._board.streams >= MAX_STREAMS:
            answer = PlainTextResponse("503: too many open event streams\n", 503)
            await answer(scope, receive, send)
            return
        self._board.streams += 1
        try:
            seen = scope["query_string"].removeprefix(b"seen=")
            events = self._board.events(int(seen) if SEEN.fullmatch(seen) else 0)
            answer = StreamingResponse(events, media_type="text/event-stream")
            await answer(scope, receive, send)
        finally:
            self._board.streams -= 1


class StaticFiles:
    """The served files, read once. No path of a request reaches the file system."""

    def __init__(self) -> None:
        self._files = {name: (artifacts.WEB / "static" / name).read_bytes() for name in ASSETS}

    async def answer(self, request: Request) -> Response:
        """Answer with the file of this name."""
        name = request.path_params["name"]
        if name not in self._files:
            return PlainTextResponse("404: no such file\n", 404)
        kind = KINDS[name.rpartition(".")[2]]
        # names of vendored files carry their version
        age_s = 31_536_000 if name.startswith("vendor/") else 60
        return Response(self._files[name], 200, {"Cache-Control": f"max-age={age_s}"}, kind)


def build(board: Board, stopping: Callable[[], bool]) -> Any:
    """Return the ASGI application over a board. Event streams end once `stopping` returns True, so
    that they do not delay the end. Raises ConfigError if Jinja2 is missing.
    """
    renderer = Renderer()

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(one) for one in (board.watch(), end_streams())]
        yield
        for task in tasks:
            task.cancel()
        board.close()

    async def end_streams() -> None:
        while not stopping():
            await asyncio.sleep(STOP_POLL_S)
        board.end_streams()

    async def show(page: Page, request: Request) -> Response:
        board.wanted(*page.reads)
        return HTMLResponse(renderer.page(page, board.documents, board.failed, board.version))

    async def step(request: Request) -> Response:
        name = request.path_params["step"]
        if not STEP_ID.fullmatch(name):
            return PlainTextResponse("404: no such step\n", 404)
        try:
            found = await board.step(name)
        except ConfigError:
            return PlainTextResponse("404: no such step\n", 404)
        except TrimtabError as error:
            return PlainTextResponse(f"503: {error}\n", 503)
        shown = {**board.documents, **found}
        return HTMLResponse(renderer.page(STEP, shown, {}, board.version))

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    for page in PAGES:
        app.add_route(page.path, partial(show, page), ["GET"])
    app.add_route(STEP.path, step, ["GET"])
    app.add_route("/static/{name:path}", StaticFiles().answer, ["GET"])
    app.router.routes.append(Route("/events", EventStream(board)))
    app.add_middleware(GZipMiddleware, minimum_size=MIN_GZIP_BYTES)
    return Checks(app)
