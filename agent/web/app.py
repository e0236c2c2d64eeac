"""The web application: pages, static files, events and kept reports, behind the checks of each request."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.requests import Request
from fastapi.responses import (
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route

from agent import artifacts
from agent.errors import ConfigError, TrimtabError
from agent.model import PlanLink
from agent.units import format_duration
from agent.web.access import (
    LOGIN,
    LOGOUT,
    TARGETS,
    UNSENT,
    Access,
    Checks,
    Receive,
    Scope,
    Send,
    cookie,
    is_token,
    read_form,
)
from agent.web.api.gate import PREFIX
from agent.web.api.routes import build_api, load_controls
from agent.web.api.tokens import TokenFile
from agent.web.controls import ControlPages
from agent.web.document_cache import MAX_STREAMS, MAX_USER_STREAMS, DocumentCache
from agent.web.pages import (
    ASSETS,
    CONTROL_PAGE,
    CONTROLS,
    EXPORTS,
    PAGES,
    REPORT_PAGE,
    REPORTS,
    REVIEW,
    STEP,
    Page,
    Renderer,
)
from agent.web.probes import Probes, run_document
from agent.web.reach import Reach
from agent.web.sessions import Session

VERSION = re.compile(rb"[0-9]{1,15}")
STEP_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
NONCE = re.compile(r"[A-Za-z0-9_-]{22}")
SHORT_PLAN_HASH, UNIX_TIME = re.compile(r"[0-9a-f]{16}"), re.compile(r"[0-9]{1,12}")
MEDIA_TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
MIN_GZIP_BYTES = 500
STOP_POLL_S = 0.2
NOT_SENT = "Your session has ended, and the form was not carried out. Log in and send it again."


class EventStream:
    """ASGI application of one event stream, with bounds on their number in all and by user."""

    def __init__(self, cache: DocumentCache, access: Access) -> None:
        self._cache = cache
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client or the server ends."""
        answer: Any
        session: Session | None = scope["session"]
        user, streams = None if session is None else session.user, self._cache.streams
        if user is not None and streams[user] >= MAX_USER_STREAMS:
            answer = PlainTextResponse("429: too many open event streams of this user\n", 429)
            await answer(scope, receive, send)
            return
        if streams.total() >= MAX_STREAMS:
            answer = PlainTextResponse("503: too many open event streams\n", 503)
            await answer(scope, receive, send)
            return
        streams[user] += 1
        try:
            version = scope["query_string"].removeprefix(b"seen=")
            events = self._cache.events(
                int(version) if VERSION.fullmatch(version) else 0,
                lambda: self._access.alive(session),
            )
            answer = StreamingResponse(events, media_type="text/event-stream")
            await answer(scope, receive, send)
        finally:
            streams[user] -= 1


class StaticFiles:
    """The served files, read once. No path of a request reaches the file system."""

    def __init__(self) -> None:
        self._files = {
            name: (artifacts.WEB_FOLDER / "static" / name).read_bytes() for name in ASSETS
        }

    async def answer(self, request: Request) -> Response:
        """Answer with the file of this name."""
        name = request.path_params["name"]
        if name not in self._files:
            return PlainTextResponse("404: no such file\n", 404)
        media_type = MEDIA_TYPES[name.rpartition(".")[2]]
        # names of vendored files carry their version
        age_s = 31_536_000 if name.startswith("vendor/") else 60
        return Response(self._files[name], 200, {"Cache-Control": f"max-age={age_s}"}, media_type)


class Logins:
    """Login and logout."""

    def __init__(self, access: Access, renderer: Renderer, on_logout: Callable[[], None]) -> None:
        self._access = access
        self._renderer = renderer
        self._on_logout = on_logout

    async def show(self, request: Request) -> Response:
        """Answer with the login page."""
        if not self._access.login_required:
            return PlainTextResponse("404: no such page\n", 404)
        if request.scope["session"] is not None:
            return RedirectResponse(_return_path(request), 303)
        if request.url.query == UNSENT:
            return self._page(request, 200, NOT_SENT)
        if "sig" not in request.query_params:
            return self._page(request, 200)
        if (plan := self._linked_plan(request)) is None:
            return self._page(request, 200, "This link is invalid. Log in to see waiting plans.")
        return self._page(request, 200, plan=plan)

    async def log_in(self, request: Request) -> Response:
        """Check a login; on success begin a session with a new id."""
        access, fields = self._access, await read_form(request)
        nonce = cookie(request, self._form_cookie)
        if fields is None:
            return self._page(request, 400, "The form could not be read. Log in again.")
        if not nonce or not is_token(fields.get("csrf"), access.login_token(nonce)):
            return self._page(request, 403, "This form is too old. Log in again.")
        name, password, code = (
            (fields.get(key) or [""])[0] for key in ("name", "password", "code")
        )
        try:
            login_result = await access.log_in(
                name.strip(), password, re.sub(r"\s", "", code), request.scope["address"]
            )
        except TrimtabError as error:
            return self._page(request, 503, f"Logins cannot be checked now: {error}")
        if isinstance(login_result, int):
            if login_result:
                return self._page(
                    request,
                    429,
                    f"Too many failed logins. Try again in {format_duration(login_result)}; until then all are refused.",
                    {"Retry-After": str(login_result)},
                )
            return self._page(
                request,
                401,
                "Wrong name, password or code. A code works once: wait for the next one.",
            )
        answer = RedirectResponse(_return_path(request), 303)
        self._set_cookie(answer, access.reach.cookie, login_result)
        self._set_cookie(answer, self._form_cookie, "", 0)
        return answer

    async def log_out(self, request: Request) -> Response:
        """End the session on the server, and the cookie."""
        session: Session = request.scope["session"]
        fields = await read_form(request)
        if fields is None or not is_token(fields.get("csrf"), session.csrf):
            return PlainTextResponse("403: the form is not from this session\n", 403)
        self._access.end(cookie(request, self._access.reach.cookie))
        self._on_logout()
        answer = RedirectResponse(LOGIN, 303)
        self._set_cookie(answer, self._access.reach.cookie, "", 0)
        with suppress(TrimtabError):
            await self._access.record("logout", session.name, request.scope["address"])
        return answer

    def _linked_plan(self, request: Request) -> str | None:
        """Return the plan of a genuine link that is still valid, else None."""
        plan, until, signature = (
            request.query_params.get(key, "") for key in ("plan", "until", "sig")
        )
        if not (SHORT_PLAN_HASH.fullmatch(plan) and UNIX_TIME.fullmatch(until)):
            return None
        link = PlanLink(plan, int(until))
        is_genuine = link.is_genuine(self._access.link_key, signature, time.time())
        return plan if is_genuine else None

    @property
    def _form_cookie(self) -> str:
        return f"{self._access.reach.cookie}-form"

    def _page(
        self,
        request: Request,
        status: int,
        why: str = "",
        headers: Mapping[str, str] | None = None,
        plan: str = "",
    ) -> Response:
        nonce = cookie(request, self._form_cookie) or ""
        if not NONCE.fullmatch(nonce):
            nonce = secrets.token_urlsafe(16)
        text = self._renderer.login(
            self._access.login_token(nonce), why, _return_path(request), plan
        )
        answer = HTMLResponse(text, status, dict(headers or {}))
        self._set_cookie(answer, self._form_cookie, nonce)
        return answer

    def _set_cookie(
        self, answer: Response, name: str, value: str, age_s: int | None = None
    ) -> None:
        secure = self._access.reach.secure
        answer.set_cookie(
            name, value, age_s, path="/", secure=secure, httponly=True, samesite="strict"
        )


def _return_path(request: Request) -> str:
    """Return the page to open after the login: the requested one if it is in TARGETS, else the
    first.
    """
    path = request.query_params.get("to", "")
    return path if path in TARGETS else "/"


async def export_archive(cache: DocumentCache, request: Request) -> Response:
    """Answer with the export archive of this name."""
    name = request.path_params["name"]
    if name not in EXPORTS:
        return PlainTextResponse("404: no such file\n", 404)
    try:
        archive = await cache.stored("records.exports.export_archive", name.removesuffix(".zip"))
    except ConfigError as error:
        return PlainTextResponse(f"409: {error}\n", 409)
    except TrimtabError as error:
        return PlainTextResponse(f"503: {error}\n", 503)
    headers = {"Content-Disposition": f'attachment; filename="trimtab-{name}"'}
    return Response(archive, 200, headers, "application/zip")


def build(
    cache: DocumentCache, is_stopping: Callable[[], bool], access: Access | None = None
) -> Checks:
    """Return the ASGI application of a document cache behind its checks, by default without users."""
    access = access or Access(Reach())
    return Checks(build_pages(cache, is_stopping, access), access)


def build_pages(cache: DocumentCache, is_stopping: Callable[[], bool], access: Access) -> FastAPI:
    """Return the application of a document cache without its checks, which must run before it. Event streams
    end once `is_stopping` returns True, so that they do not delay the shutdown. Raises ConfigError if
    Jinja2 is missing.
    """
    renderer = Renderer(access.reach.prefix, access.reach.portfolio, access.reach.banner)
    tokens = TokenFile(cache.store)
    api = build_api(cache, tokens, access.reach.prefix)
    logins = Logins(access, renderer, cache.announce)
    controls, reports = ControlPages(access, cache, renderer), ReportPages(cache, renderer)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        coroutines = cache.watch(), access.watch(), end_streams(), load_controls(cache, tokens)
        tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
        yield
        for task in tasks:
            task.cancel()
        cache.close()
        access.close()
        controls.close()

    async def end_streams() -> None:
        while not is_stopping():
            await asyncio.sleep(STOP_POLL_S)
        cache.end_streams()

    async def show(page: Page, request: Request) -> Response:
        session = request.scope["session"]
        if session is not None:
            cache.follow(CONTROLS)
        cache.read_if_old(*page.reads)
        documents = {**cache.documents, **run_document(cache)}
        return HTMLResponse(renderer.page(page, documents, cache.failed, cache.version, session))

    async def step(request: Request) -> Response:
        name = request.path_params["step"]
        if not STEP_ID.fullmatch(name):
            return PlainTextResponse("404: no such step\n", 404)
        try:
            document = await cache.stored("step_document", name)
        except ConfigError:
            return PlainTextResponse("404: no such step\n", 404)
        except TrimtabError as error:
            return PlainTextResponse(f"503: {error}\n", 503)
        documents = {**cache.documents, **document}
        session = request.scope["session"]
        return HTMLResponse(renderer.page(STEP, documents, {}, cache.version, session))

    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        redirect_slashes=False,  # its redirects would lose the prefix and the proxy's address
    )
    app.add_route(REPORT_PAGE.path, reports.overview, ["GET"])
    app.add_route(f"{REPORT_PAGE.path}/{{report}}", reports.open, ["GET"])
    for page in PAGES:
        app.add_route(page.path, partial(show, page), ["GET"])
    app.add_route(STEP.path, step, ["GET"])
    app.add_route("/export/{name}", partial(export_archive, cache), ["GET"])
    app.add_route(CONTROL_PAGE.path, controls.overview, ["GET"])
    app.add_route(REVIEW.path, controls.show, ["GET"])
    app.add_route(REVIEW.path, controls.confirm, ["POST"])
    app.add_route("/controls/{kind}", controls.ask, ["POST"])
    app.add_route(LOGIN, logins.show, ["GET"])
    app.add_route(LOGIN, logins.log_in, ["POST"])
    app.add_route(LOGOUT, logins.log_out, ["POST"])
    app.add_route("/static/{name:path}", StaticFiles().answer, ["GET"])
    Probes(cache, access, api).add_to(app)
    app.mount(PREFIX, api)
    app.router.routes.append(Route("/events", EventStream(cache, access)))
    app.add_middleware(GZipMiddleware, minimum_size=MIN_GZIP_BYTES)
    return app


READ_REPORT = "research.kept_reports.read_report"
HEADERS = {
    "Content-Security-Policy": (
        "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src"
        " 'unsafe-inline'; img-src data: blob:; connect-src 'none'; base-uri 'none'; form-action"
        " 'none'; frame-ancestors 'none'"
    ),
    # browsers refuse a sandboxed page that asks for a browsing context group of its own
    "Cross-Origin-Opener-Policy": "unsafe-none",
    "Referrer-Policy": "no-referrer",
}
"""Headers of a report, in place of those of the dashboard's pages. Its scripts run in an origin of
their own.
"""


class ReportPages:
    """The list of reports, and each report by its name; a reading process reads both."""

    def __init__(self, cache: DocumentCache, renderer: Renderer) -> None:
        self._cache = cache
        self._renderer = renderer

    async def overview(self, request: Request) -> Response:
        """Answer with the list of reports."""
        cache = self._cache
        cache.follow(REPORTS)  # read at each request: a new report does not change the store
        text = self._renderer.page(
            REPORT_PAGE, cache.documents, cache.failed, cache.version, request.scope["session"]
        )
        return HTMLResponse(text)

    async def open(self, request: Request) -> Response:
        """Answer with a report."""
        try:
            report = await self._cache.call("stored", READ_REPORT, request.path_params["report"])
        except ConfigError:
            return PlainTextResponse("404: no such report\n", 404)
        except TrimtabError as error:
            return PlainTextResponse(f"503: {error}\n", 503)
        return Response(report, 200, HEADERS, "text/html")
