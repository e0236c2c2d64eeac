"""Who may open the dashboard: names and proxies, users, sessions, and the checks of each request.

Credentials are checked in a process of its own; this one knows the users' names and roles.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from fastapi.requests import Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response

from agent.errors import TrimtabError
from agent.hosts import host_name
from agent.web.api.gate import PREFIX, PROBES, refusal_response
from agent.web.pages import CONTROL_PAGE, PAGES
from agent.web.reach import PROXY_HEADER, Reach, forwarded_address, plain_address
from agent.web.reading import ReadingProcess
from agent.web.sessions import Session

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

READ_VERBS = ("GET", "HEAD")
VERBS = (*READ_VERBS, "POST")
LOGIN, LOGOUT = "/login", "/logout"
UNSENT = f"to={CONTROL_PAGE.path}&unsent=1"
"""Query of the login page to which a form without a session leads."""
TARGETS = frozenset(page.path for page in (*PAGES, CONTROL_PAGE)) - {"/"}
"""Pages to which a login leads back. No other address is ever a target."""
MAX_SESSIONS = 10
"""Sessions of a user; a further login ends the oldest."""
MAX_CHECKS = 8
"""Logins being checked or waiting to be checked; more are refused."""
LOGIN_NICENESS = 15
"""Niceness of the process that checks logins, so that hashing the passwords of many guesses delays no
cycle of the agent.
"""
POLL_S = 2.0
MAX_FORM_BYTES = 16_384
MAX_FIELDS = 100
FORM_S = 8.0
"""Time limit for reading a form: less than a connection has for a whole request, so that the answer
arrives.
"""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
"""Headers of each answer, besides its content security policy. The referrer is needed, since
without one browsers omit the origin of a form too.
"""


def content_policy(*, forms: bool) -> str:
    """Return the content security policy: the dashboard's own files, no inline script or style."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        f" img-src 'self'; base-uri 'none'; form-action {chr(39)}{'self' if forms else 'none'}"
        f"{chr(39)}; frame-ancestors 'none'"
    )


class Access:
    """Users, sessions and logins. Without users there is no login, and the dashboard only reads.
    After the first user is added, a login is needed until the process ends.
    """

    def __init__(
        self,
        reach: Reach,
        users_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reach = reach
        self.login_required = False
        self._users: dict[int, tuple[str, bool]] = {}
        self._users_file = users_file
        self._clock = clock
        self._stamp: object = None
        self._sessions: dict[bytes, Session] = {}
        self._process = ReadingProcess(LOGIN_NICENESS)
        self._checks = 0
        self._secret = secrets.token_bytes(32)
        self.link_key = b""
        """Key that proves signed links to the login; set with the users."""

    @property
    def users_file(self) -> str:
        """The file of users."""
        return str(self._users_file)

    async def watch(self) -> None:
        """Follow the file of users until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_S)

    async def refresh(self) -> None:
        """Read the users if their file has changed. End the sessions of users who were removed or
        whose role changed, and all sessions if the file cannot be read.
        """
        if (stamp := self._stamp_of_file()) == self._stamp:
            return
        try:
            users = await self._call("known_users")
        except TrimtabError:
            self.set_users({})
        else:
            self._stamp = stamp
            self.set_users(users)

    def set_users(self, users: dict[int, tuple[str, bool]]) -> None:
        """Set the users by id, and end sessions that no longer match."""
        self._users = users
        self.login_required = self.login_required or bool(users)
        for key, session in list(self._sessions.items()):
            if users.get(session.user) != (session.name, session.read_only):
                self._drop(key)

    async def log_in(self, name: str, password: str, code: str, address: str) -> str | int:
        """Return the id of a new session, or the seconds of a lock-out; 0 if the login is wrong.

        Raises TrimtabError if it cannot be checked.
        """
        if self._checks >= MAX_CHECKS:
            raise TrimtabError("too many logins at once", "try again in a minute")
        self._checks += 1
        try:
            login_result = await self._call("login", name, password, code, address)
        finally:
            self._checks -= 1
        if login_result["user"] not in self._users:
            await self.refresh()  # the user may have been added since the last refresh
        if login_result["user"] not in self._users:
            return int(login_result["locked_s"])
        return self.begin(login_result["user"])

    def begin(self, user: int) -> str:
        """Begin a session and return its new id, of which only a hash is kept."""
        now_s = self._clock()
        for key, session in list(self._sessions.items()):
            if not session.alive(now_s):
                self._drop(key)
        own_keys = [key for key, session in self._sessions.items() if session.user == user]
        for key in own_keys[: max(0, len(own_keys) - MAX_SESSIONS + 1)]:
            self._drop(key)
        session_id = secrets.token_urlsafe(32)
        self._sessions[_session_key(session_id)] = Session(user, *self._users[user], now_s, now_s)
        return session_id

    def find(self, session_id: str | None, *, touch: bool) -> Session | None:
        """Return the session of an id; `touch` resets its idle time."""
        session = self._sessions.get(_session_key(session_id or ""))
        if session is None:
            return None
        now_s = self._clock()
        if not session.alive(now_s):
            self._drop(_session_key(session_id or ""))
            return None
        if touch:
            session.used_s = now_s
        return session

    def alive(self, session: Session | None) -> bool:
        """Return whether pages may still be shown to the holder of a session."""
        return not self.login_required if session is None else session.alive(self._clock())

    def end(self, session_id: str | None) -> None:
        """End a session."""
        self._drop(_session_key(session_id or ""))

    async def record(self, kind: str, user: str, address: str, detail: str = "") -> None:
        """Append an event to the audit log."""
        await self._call("record_event", kind, user, address, detail)

    def login_token(self, nonce: str) -> str:
        """Return the token of a login form, bound to the cookie `nonce`."""
        return hmac.new(self._secret, nonce.encode(), hashlib.sha256).hexdigest()

    def close(self) -> None:
        """End the process of logins."""
        self._process.stop()

    def _drop(self, key: bytes) -> None:
        if (session := self._sessions.pop(key, None)) is not None:
            session.ended = True

    def _stamp_of_file(self) -> object:
        try:
            stat = self._users_file.stat() if self._users_file is not None else None
        except OSError:
            return None
        return stat and (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    async def _call(self, function: str, *arguments: str) -> Any:
        return await self._process.call(f"settings.users.{function}", self.users_file, *arguments)


class Checks:
    """ASGI middleware: refuses foreign hosts, foreign proxies, other verbs and forms of other
    pages, redirects requests without a session to the login, and adds the security headers to each
    answer.
    """

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], access: Access
    ) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Connections that are not HTTP are closed."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {
            **HEADERS,
            "Content-Security-Policy": content_policy(forms=self._access.login_required),
        }
        if self._access.reach.secure:
            headers["Strict-Transport-Security"] = "max-age=31536000"

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                header_names = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.lower().encode(), value.encode())
                        for name, value in headers.items()
                        if name.lower().encode() not in header_names
                    ),
                ]
            await send(message)

        responder: Any = self._refusal(scope)
        if responder is not None and scope["path"].startswith(PREFIX + "/"):
            responder = refusal_response(responder)
        responder = responder or self._app
        await responder(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer that refuses or redirects a request. Otherwise return None, with its
        session and address in the scope.
        """
        access, reach, method = self._access, self._access.reach, scope["method"]
        request = Request(scope)
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) not in reach.host_names:
            name = min(reach.host_names, key=lambda host: (host != "localhost", host))
            return PlainTextResponse(f"421: open the dashboard as {name}\n", 421)
        peer = plain_address(scope["client"][0]) if scope.get("client") else ""
        if reach.proxies:
            protocols = request.headers.getlist("x-forwarded-proto")
            proxy_secrets = request.headers.getlist(PROXY_HEADER)
            if not reach.is_proxy(peer, proxy_secrets) or protocols != ["https"]:
                return PlainTextResponse("403: only by HTTPS through the proxy\n", 403)
            peer = forwarded_address(request.headers.getlist("x-forwarded-for")) or peer
        scope["address"], scope["session"] = peer, None
        if scope["path"].startswith(PREFIX + "/"):
            return None  # the API checks tokens and ignores sessions
        if scope["path"] in PROBES and method in READ_VERBS:
            # they check logins and tokens themselves, and keep no session from expiring
            scope["session"] = access.find(cookie(request, reach.cookie), touch=False)
            return None
        verbs = VERBS if access.login_required and scope["path"] not in PROBES else READ_VERBS
        if method not in verbs:
            why = (
                "is not a verb of the dashboard"
                if access.login_required
                else "the dashboard only reads"
            )
            headers = {"Allow": ", ".join(verbs)}
            return PlainTextResponse(f"405: {why}\n", 405, headers)
        if not access.login_required:
            return None
        if method == "POST" and not _is_own_form(request, reach):
            return PlainTextResponse("403: the form is not from this dashboard\n", 403)
        in_background = "hx-request" in request.headers or scope["path"] == "/events"
        session = access.find(cookie(request, reach.cookie), touch=not in_background)
        scope["session"] = session
        if session or scope["path"] == LOGIN or scope["path"].startswith("/static/"):
            return None
        path = scope["path"]
        if in_background:
            return PlainTextResponse("401: log in\n", 401, {"HX-Redirect": LOGIN})
        if method == "POST":
            return RedirectResponse(LOGIN if path == LOGOUT else f"{LOGIN}?{UNSENT}", 303)
        return RedirectResponse(f"{LOGIN}?to={path}" if path in TARGETS else LOGIN, 303)


def _is_own_form(request: Request, reach: Reach) -> bool:
    """Return whether a request comes from a page of the dashboard, by its origin."""
    scheme = "https" if reach.secure else "http"
    origins = request.headers.getlist("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    return origins == [f"{scheme}://{request.headers['host']}"] and site == "same-origin"


async def read_form(request: Request) -> dict[str, list[str]] | None:
    """Return the fields of a form; None if the body is not a form, too large or too slow."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    length = request.headers.get("content-length", "")
    if kind != "application/x-www-form-urlencoded" or not re.fullmatch("[0-9]{1,9}", length):
        return None
    if int(length) > MAX_FORM_BYTES:
        return None
    try:
        body = await asyncio.wait_for(request.body(), FORM_S)
        pairs = parse_qsl(body.decode(), True, max_num_fields=MAX_FIELDS)
    except (TimeoutError, ValueError):
        return None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields


def is_token(values: list[str] | None, expected_token: str) -> bool:
    """Return whether a form has exactly this token."""
    return len(values or ()) == 1 and hmac.compare_digest(
        (values or [""])[0].encode(), expected_token.encode()
    )


def cookie(request: Request, name: str) -> str | None:
    """Return the value of a cookie; None if it is missing, given twice or malformed."""
    values = []
    for header in request.headers.getlist("cookie"):
        for part in header.split(";"):
            key, separator, value = part.strip().partition("=")
            if separator and key == name:
                values.append(value)
    return values[0] if len(values) == 1 else None


def _session_key(session_id: str) -> bytes:
    return hashlib.sha256(session_id.encode()).digest()
