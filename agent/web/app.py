"""The web application: pages, static files, events and kept reports, behind the checks of each
request.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
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
from agent.errors import ConfigError, ErrorCode, TrimtabError
from agent.model import PlanLink
from agent.units import format_duration
from agent.web.access import (
    LOGIN_PATH,
    LOGOUT_PATH,
    PAGE_ERRORS,
    RETURN_PATHS,
    UNSENT_FORM_QUERY,
    Access,
    AccessMiddleware,
    Receive,
    RefusedRequest,
    Scope,
    Send,
    TooManyLogins,
    cookie_value,
    matches_token,
    read_form,
    read_session_form,
)
from agent.web.api.gate import API_PREFIX
from agent.web.api.routes import build_api, warm_up_controls
from agent.web.api.tokens import TokenFile
from agent.web.app_modules import dashboard, exports, kept_reports, queue
from agent.web.controls import ControlPages
from agent.web.document_cache import MAX_STREAMS, MAX_USER_STREAMS, CacheProcess, DocumentCache
from agent.web.pages import (
    CONTROL_PAGE,
    EXPORTS,
    PAGES,
    REPORT_PAGE,
    REVIEW_PAGE,
    STATIC_FILES,
    STEP_PAGE,
    Page,
    Renderer,
)
from agent.web.probes import Probes, documents_with_run
from agent.web.reach import Reach
from agent.web.sessions import Session

VERSION_PATTERN = re.compile(rb"[0-9]{1,15}")
STEP_ID_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
NONCE_PATTERN = re.compile(r"[A-Za-z0-9_-]{22}")
PLAN_HASH_PATTERN = re.compile(r"[0-9a-f]{16}")
UNIX_TIME_PATTERN = re.compile(r"[0-9]{1,12}")
MEDIA_TYPES = {
    "js": "text/javascript",
    "css": "text/css",
    "svg": "image/svg+xml",
    "png": "image/png",
    "webmanifest": "application/manifest+json",
}
MIN_GZIP_BYTES = 500
STOP_POLL_S = 0.2
UNCHECKED_TEXT = (
    "Logins cannot be checked now; trimtab user list says why, on the machine of the dashboard."
)
"""Shown instead of the error, which has paths and is for nobody who has not logged in."""
log = logging.getLogger("trimtab.dashboard")
FORM_NOT_SENT_TEXT = (
    "Your session has ended, and the form was not carried out. Log in and send it again."
)


class EventStream:
    """ASGI application of one event stream, with bounds on their number in all and by user."""

    def __init__(self, cache: DocumentCache, access: Access) -> None:
        self._cache = cache
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client or the server ends."""
        response: Any
        session: Session | None = scope["session"]
        user_id = None if session is None else session.user_id
        stream_counts = self._cache.streams
        if user_id is not None and stream_counts[user_id] >= MAX_USER_STREAMS:
            response = PlainTextResponse("429: too many open event streams of this user\n", 429)
            await response(scope, receive, send)
            return
        if stream_counts.total() >= MAX_STREAMS:
            response = PlainTextResponse("503: too many open event streams\n", 503)
            await response(scope, receive, send)
            return
        stream_counts[user_id] += 1
        try:
            version_text = scope["query_string"].removeprefix(b"seen=")
            events = self._cache.events(
                int(version_text) if VERSION_PATTERN.fullmatch(version_text) else 0,
                lambda: self._access.may_view(session),
            )
            response = StreamingResponse(events, media_type="text/event-stream")
            await response(scope, receive, send)
        finally:
            stream_counts[user_id] -= 1


class StaticFiles:
    """The served files, read once, and compressed at their first request: the middleware would
    compress them at each. No path of a request reaches the file system.
    """

    def __init__(self) -> None:
        self._files = {
            name: (artifacts.WEB_FOLDER / "static" / name).read_bytes() for name in STATIC_FILES
        }
        self._gzipped_files: dict[str, bytes] = {}

    async def answer(self, request: Request) -> Response:
        """Answer with the file of this name."""
        file_name = request.path_params["name"]
        if file_name not in self._files:
            raise RefusedRequest(404, "404: no such file\n")
        media_type = MEDIA_TYPES[file_name.rpartition(".")[2]]
        # names of vendored files carry their version
        max_age_s = 31_536_000 if file_name.startswith("vendor/") else 60
        headers = {
            "Cache-Control": f"max-age={max_age_s}",
            "Service-Worker-Allowed": "/",  # offline.js is for all pages
        }
        file_bytes = self._files[file_name]
        is_compressible = len(file_bytes) >= MIN_GZIP_BYTES and media_type != MEDIA_TYPES["png"]
        if is_compressible and "gzip" in request.headers.get("Accept-Encoding", ""):
            if file_name not in self._gzipped_files:
                self._gzipped_files[file_name] = gzip.compress(file_bytes)
            file_bytes = self._gzipped_files[file_name]
            headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return Response(file_bytes, 200, headers, media_type)


class LoginPages:
    """Login and logout."""

    def __init__(self, access: Access, renderer: Renderer, on_logout: Callable[[], None]) -> None:
        self._access = access
        self._renderer = renderer
        self._on_logout = on_logout

    async def show(self, request: Request) -> Response:
        """Answer with the login page."""
        if not self._access.login_required:
            raise RefusedRequest(404, "404: no such page\n")
        if request.scope["session"] is not None:
            return RedirectResponse(_return_path(request), 303)
        if request.url.query == UNSENT_FORM_QUERY:
            return self._page(request, 200, FORM_NOT_SENT_TEXT)
        if "sig" not in request.query_params:
            session_id = cookie_value(request, self._access.reach.cookie_name)
            return self._page(request, 200, self._access.ended_reason(session_id))
        if (plan_hash := self._linked_plan_hash(request)) is None:
            return self._page(request, 200, "This link is invalid. Log in to see waiting plans.")
        return self._page(request, 200, plan_hash=plan_hash)

    async def log_in(self, request: Request) -> Response:
        """Check a login; on success begin a session with a new id."""
        access = self._access
        fields = await read_form(request)
        nonce = cookie_value(request, self._form_cookie)
        if fields is None:
            return self._page(request, 400, "The form could not be read. Log in again.")
        if not nonce or not matches_token(fields.get("csrf"), access.login_form_token(nonce)):
            return self._page(request, 403, "This form is too old. Log in again.")
        name, password, code = (
            (fields.get(field_name) or [""])[0] for field_name in ("name", "password", "code")
        )
        try:
            login_result = await access.log_in(
                name.strip(), password, re.sub(r"\s", "", code), request.scope["address"]
            )
        except TooManyLogins as error:
            return self._page(request, 503, f"Logins cannot be checked now: {error}")
        except TrimtabError as error:
            log.error("logins cannot be checked: %s", error)
            return self._page(request, 503, UNCHECKED_TEXT)
        if login_result.locked_s:
            return self._page(
                request,
                429,
                f"Too many failed logins. Try again in {format_duration(login_result.locked_s)}; until then all are refused.",
                {"Retry-After": str(login_result.locked_s)},
            )
        if not login_result.session_id:
            return self._page(
                request,
                401,
                "Wrong name, password or code. A code works once: wait for the next one.",
            )
        response = RedirectResponse(_return_path(request), 303)
        self._set_cookie(response, access.reach.cookie_name, login_result.session_id)
        self._set_cookie(response, self._form_cookie, "", 0)
        return response

    async def log_out(self, request: Request) -> Response:
        """End the session on the server, and the cookie."""
        session, _ = await read_session_form(request)
        self._access.end_session(cookie_value(request, self._access.reach.cookie_name))
        self._on_logout()
        # with the times that the page without a connection shows
        response = RedirectResponse(LOGIN_PATH, 303, {"Clear-Site-Data": '"storage"'})
        self._set_cookie(response, self._access.reach.cookie_name, "", 0)
        with suppress(TrimtabError):
            await self._access.record_event("logout", session.name, request.scope["address"])
        return response

    def _linked_plan_hash(self, request: Request) -> str | None:
        """Return the plan of a genuine link that is still valid, else None."""
        plan_hash, until_text, signature = (
            request.query_params.get(parameter_name, "")
            for parameter_name in ("plan", "until", "sig")
        )
        if not (PLAN_HASH_PATTERN.fullmatch(plan_hash) and UNIX_TIME_PATTERN.fullmatch(until_text)):
            return None
        link = PlanLink(plan_hash, int(until_text))
        is_genuine = link.is_genuine(self._access.link_key, signature, time.time())
        return plan_hash if is_genuine else None

    @property
    def _form_cookie(self) -> str:
        return f"{self._access.reach.cookie_name}-form"

    def _page(
        self,
        request: Request,
        status: int,
        message: str = "",
        headers: Mapping[str, str] | None = None,
        plan_hash: str = "",
    ) -> Response:
        nonce = cookie_value(request, self._form_cookie) or ""
        if not NONCE_PATTERN.fullmatch(nonce):
            nonce = secrets.token_urlsafe(16)
        html = self._renderer.render_login(
            self._access.login_form_token(nonce), message, _return_path(request), plan_hash
        )
        response = HTMLResponse(html, status, dict(headers or {}))
        self._set_cookie(response, self._form_cookie, nonce)
        return response

    def _set_cookie(
        self, response: Response, name: str, value: str, max_age_s: int | None = None
    ) -> None:
        is_secure = self._access.reach.uses_tls
        response.set_cookie(
            name, value, max_age_s, path="/", secure=is_secure, httponly=True, samesite="strict"
        )


def _return_path(request: Request) -> str:
    """Return the page to open after the login: the requested one if it is in RETURN_PATHS, else the
    first.
    """
    path = request.query_params.get("to", "")
    return path if path in RETURN_PATHS else "/"


async def show_phone_code(reach: Reach, request: Request) -> Response:
    """Answer with the QR code of this dashboard's address, without any secret."""
    import segno

    svg_buffer = io.BytesIO()
    dashboard_url = f"{reach.origin(request.headers['host'])}{reach.prefix}/"
    segno.make(dashboard_url, micro=False).save(svg_buffer, "svg", scale=5, light="white")
    return Response(svg_buffer.getvalue(), 200, media_type=MEDIA_TYPES["svg"])


async def _read_or_refuse(reading: Awaitable[Any], noun: str) -> Any:
    """Return what a page reads. Raises RefusedRequest: 404 if it does not exist."""
    try:
        return await reading
    except ConfigError as error:
        if error.code == ErrorCode.UNKNOWN:
            raise RefusedRequest(404, f"404: no such {noun}\n") from None
        raise RefusedRequest(409, f"409: {error}\n") from error
    except TrimtabError as error:
        raise RefusedRequest(503, f"503: {error}\n") from error


async def export_archive(cache: DocumentCache, request: Request) -> Response:
    """Answer with the export archive of this name."""
    file_name = request.path_params["name"]
    if file_name not in EXPORTS:
        raise RefusedRequest(404, "404: no such file\n")
    archive = await _read_or_refuse(
        cache.read_stored(exports.export_archive, file_name.removesuffix(".zip")), "file"
    )
    headers = {"Content-Disposition": f'attachment; filename="trimtab-{file_name}"'}
    return Response(archive, 200, headers, "application/zip")


def build_app(
    cache: DocumentCache, is_stopping: Callable[[], bool], access: Access | None = None
) -> AccessMiddleware:
    """Return the ASGI application of a document cache behind its checks, by default without
    users.
    """
    access = access or Access(Reach())
    return AccessMiddleware(build_unchecked_app(cache, is_stopping, access), access)


def build_unchecked_app(
    cache: DocumentCache, is_stopping: Callable[[], bool], access: Access
) -> FastAPI:
    """Return the application of a document cache without its checks, which must run before it.
    Event streams end once `is_stopping` returns True, so that they do not delay the shutdown.
    Raises ConfigError if Jinja2 is missing.
    """
    renderer = Renderer(access.reach, cache.config_file)
    tokens = TokenFile(cache.store_path)
    api = build_api(cache, tokens, access.reach.prefix)
    login_pages = LoginPages(access, renderer, cache.announce_change)
    control_pages = ControlPages(access, cache, renderer)
    report_pages = ReportPages(cache, renderer)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        coroutines = (
            cache.watch(),
            cache.watch_pause(),
            access.watch(),
            end_streams(),
            warm_up_controls(cache, tokens),
        )
        tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
        yield
        for task in tasks:
            task.cancel()
        cache.close()
        access.close()
        control_pages.close()

    async def end_streams() -> None:
        while not is_stopping():
            await asyncio.sleep(STOP_POLL_S)
        cache.end_streams()

    async def show_page(page: Page, request: Request) -> Response:
        session = request.scope["session"]
        if session is not None:
            cache.follow(queue.dashboard_controls)
        cache.read_if_old(*page.read_functions)
        documents = documents_with_run(cache)
        return HTMLResponse(
            renderer.render_page(page, documents, cache.read_errors, cache.version, session)
        )

    async def show_step(request: Request) -> Response:
        step_id = request.path_params["step"]
        if not STEP_ID_PATTERN.fullmatch(step_id):
            raise RefusedRequest(404, "404: no such step\n")
        step_documents = await _read_or_refuse(
            cache.read_stored(dashboard.step_document, step_id), "step"
        )
        documents = {**documents_with_run(cache), **step_documents}
        session = request.scope["session"]
        return HTMLResponse(renderer.render_page(STEP_PAGE, documents, {}, cache.version, session))

    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        exception_handlers=PAGE_ERRORS,
        redirect_slashes=False,  # its redirects would lose the prefix and the proxy's address
        routes=[
            Route(REPORT_PAGE.path, report_pages.show_list, methods=["GET"]),
            Route(f"{REPORT_PAGE.path}/{{report}}", report_pages.show_report, methods=["GET"]),
            *(Route(page.path, partial(show_page, page), methods=["GET"]) for page in PAGES),
            Route(STEP_PAGE.path, show_step, methods=["GET"]),
            Route("/export/{name}", partial(export_archive, cache), methods=["GET"]),
            Route("/phone.svg", partial(show_phone_code, access.reach), methods=["GET"]),
            Route(CONTROL_PAGE.path, control_pages.show_controls, methods=["GET"]),
            Route(REVIEW_PAGE.path, control_pages.show_review, methods=["GET"]),
            Route(REVIEW_PAGE.path, control_pages.confirm, methods=["POST"]),
            Route("/controls/{kind}", control_pages.handle_form, methods=["POST"]),
            Route("/alerts/test", control_pages.test_alert_target, methods=["POST"]),
            Route(LOGIN_PATH, login_pages.show, methods=["GET"]),
            Route(LOGIN_PATH, login_pages.log_in, methods=["POST"]),
            Route(LOGOUT_PATH, login_pages.log_out, methods=["POST"]),
            Route("/static/{name:path}", StaticFiles().answer, methods=["GET"]),
        ],
    )
    Probes(cache, access, api).add_to(app)
    app.mount(API_PREFIX, api)
    app.router.routes.append(Route("/events", EventStream(cache, access)))
    app.add_middleware(GZipMiddleware, minimum_size=MIN_GZIP_BYTES)
    return app


REPORT_HEADERS = {
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

    async def show_list(self, request: Request) -> Response:
        """Answer with the list of reports."""
        cache = self._cache
        # read at each request: a new report does not change the store
        cache.follow(kept_reports.dashboard_reports)
        documents = documents_with_run(cache)
        html = self._renderer.render_page(
            REPORT_PAGE, documents, cache.read_errors, cache.version, request.scope["session"]
        )
        return HTMLResponse(html)

    async def show_report(self, request: Request) -> Response:
        """Answer with a report."""
        reading = self._cache.call(
            CacheProcess.STORED, kept_reports.read_report, request.path_params["report"]
        )
        report = await _read_or_refuse(reading, "report")
        return Response(report, 200, REPORT_HEADERS, "text/html")
