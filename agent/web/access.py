"""Who may open the dashboard: names and proxies, users, sessions, and the checks of each request.

Credentials are checked in a process of its own; this one knows the users' names and roles.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

from fastapi.exceptions import HTTPException
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as RoutingError

from agent.errors import PassingFault, TrimtabError
from agent.hosts import parse_origin
from agent.web import app_modules
from agent.web.api.gate import API_PREFIX, PROBE_PATHS, refusal_response
from agent.web.pages import CONTROL_PAGE, PAGES, page_environment
from agent.web.reach import PROXY_HEADER, Reach, forwarded_address, plain_address
from agent.web.reading import AppProcess
from agent.web.sessions import Session

if TYPE_CHECKING:
    from agent.ports.users import UsersPlace

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

READ_METHODS = ("GET", "HEAD")
ALL_METHODS = (*READ_METHODS, "POST")
LOGIN_PATH = "/login"
LOGOUT_PATH = "/logout"
RESTARTED_TEXT = "The dashboard was restarted, which ends all sessions. Log in again."
PAPER_RESTARTED_TEXT = (
    "The server was restarted, which ends this session. Open the last address that it has printed in"
    " its terminal."
)
SESSION_ENDED_TEXT = (
    "Your session has ended: 30 minutes after the last page, 12 hours after the login, or because its"
    " user was changed. Log in again."
)
UNSENT_FORM_QUERY = f"to={CONTROL_PAGE.path}&unsent=1"
"""Query of the login page to which a form without a session leads."""
RETURN_PATHS = frozenset(page.path for page in (*PAGES, CONTROL_PAGE)) - {"/"}
"""Pages to which a login leads back. No other address is ever a target."""
MAX_SESSIONS = 10
"""Sessions of a user; a further login ends the oldest."""
MAX_LOGIN_CHECKS = 8
"""Logins being checked or waiting to be checked; more are refused."""
LOGIN_NICENESS = 15
"""Niceness of the process that checks logins, so that hashing the passwords of many guesses delays
no cycle of the agent.
"""
log = logging.getLogger("trimtab.dashboard")
POLL_S = 2.0
SERVER_POLL_S = 10.0
"""Seconds between two reads of the users of a database, for which a removed user can still look."""
MAX_FORM_BYTES = 16_384
MAX_FIELDS = 100
FORM_TIMEOUT_S = 8.0
"""Time limit for reading a form: less than a connection has for a whole request, so that the answer
arrives.
"""
SECURITY_HEADERS = {
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


def content_policy(*, allows_forms: bool) -> str:
    """Return the content security policy: the dashboard's own files, no inline script or style."""
    form_action = "'self'" if allows_forms else "'none'"
    return (
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self';"
        " connect-src 'self'; img-src 'self'; manifest-src 'self'; base-uri 'none';"
        f" form-action {form_action}; frame-ancestors 'none'"
    )


class LoginResult(NamedTuple):
    """`session_id` is that of the new session, empty if the login is wrong or refused; `locked_s`
    are the remaining seconds of a lock-out.
    """

    session_id: str = ""
    locked_s: int = 0


class TooManyLogins(TrimtabError):
    """Raised if MAX_LOGIN_CHECKS logins are being checked."""

    def __init__(self) -> None:
        super().__init__("too many logins at once", "try again in a minute")


class Access:
    """Users, sessions and logins. Without users there is no login, and the dashboard only reads.
    After the first user is added, a login is needed until the process ends.
    """

    def __init__(
        self,
        reach: Reach,
        users_place: UsersPlace | None = None,
        clock_s: Callable[[], float] = time.monotonic,
        *,
        users: Mapping[int, tuple[str, bool]] | None = None,
        link_key: bytes = b"",
    ) -> None:
        """Set the users by id, and the key that proves signed links to the login."""
        self.reach = reach
        self.login_required = bool(users)
        self._users = users or {}
        self._given_users_place = users_place
        self._clock_s = clock_s
        self._users_stamp: object = None
        self._sessions: dict[bytes, Session] = {}
        self._login_process = AppProcess(LOGIN_NICENESS)
        self._login_check_count = 0
        self._form_secret = secrets.token_bytes(32)
        self._server_id = secrets.token_urlsafe(6)
        self.link_key = link_key

    @property
    def users_place(self) -> UsersPlace:
        """Where the users are. Raises ValueError for a dashboard that has none."""
        if self._given_users_place is None:
            raise ValueError("this dashboard has no place for users")
        return self._given_users_place

    def log_to(self, place: UsersPlace) -> None:
        """Log the controls of the set-up's only user into the audit log of a place."""
        [(name, _)] = self._users.values()
        self._given_users_place = place._replace(owner=name)

    async def watch(self) -> None:
        """Follow the users until cancelled. After an unexpected error all sessions end, and the
        watch goes on.
        """
        while True:
            try:
                await self.refresh()
            except Exception as error:  # its end would keep the sessions of removed users
                if self._users:
                    log.error("the users cannot be read: %s", type(error).__name__)
                self.set_users({})
            await asyncio.sleep(POLL_S)

    async def refresh(self) -> None:
        """Read the users if their file has changed, or those of a database after SERVER_POLL_S. End
        the sessions of users who were removed or whose role changed, and all sessions if the users
        cannot be read. While a database does not answer they stay: each control asks it again.
        """
        stamp = self._read_stamp()
        if stamp == self._users_stamp:
            return
        try:
            await self._read_users(stamp)
        except PassingFault:
            return
        except TrimtabError:
            self.set_users({})

    async def _read_users(self, stamp: object) -> None:
        """Read the users, whose stamp was read before. Raises the error if they cannot be read."""
        users = await self._login_process.call(app_modules.users.known_users, self.users_place)
        self._users_stamp = stamp
        self.set_users(users)

    def set_users(self, users: Mapping[int, tuple[str, bool]]) -> None:
        """Set the users by id, and end sessions that no longer match."""
        self._users = users
        self.login_required = self.login_required or bool(users)
        for session_key, session in list(self._sessions.items()):
            if users.get(session.user_id) != (session.name, session.read_only):
                self._end_session(session_key)

    async def log_in(self, name: str, password: str, code: str, address: str) -> LoginResult:
        """Check a login, and begin a session if it is right. Raises TooManyLogins beyond
        MAX_LOGIN_CHECKS, and TrimtabError if it cannot be checked.
        """
        if self._login_check_count >= MAX_LOGIN_CHECKS:
            raise TooManyLogins
        self._login_check_count += 1
        try:
            login_check = await self._login_process.call(
                app_modules.users.login,
                self.users_place,
                name,
                password,
                code,
                address,
                int(time.time()),
            )
        finally:
            self._login_check_count -= 1
        user_id = login_check["user"]
        if user_id is not None and user_id not in self._users:
            # added since the last read, perhaps within the same stamp
            await self._read_users(self._read_stamp())
        if user_id is None or user_id not in self._users:
            return LoginResult(locked_s=login_check["locked_s"])
        return LoginResult(self.begin_session(user_id))

    def begin_session(self, user_id: int) -> str:
        """Begin a session and return its new id, of which only a hash is kept."""
        now_s = self._clock_s()
        for session_key, session in list(self._sessions.items()):
            if not session.is_alive(now_s):
                self._end_session(session_key)
        user_session_keys = [
            session_key
            for session_key, session in self._sessions.items()
            if session.user_id == user_id
        ]
        for session_key in user_session_keys[: max(0, len(user_session_keys) - MAX_SESSIONS + 1)]:
            self._end_session(session_key)
        session_id = f"{self._server_id}.{secrets.token_urlsafe(32)}"
        self._sessions[_session_key(session_id)] = Session(
            user_id, *self._users[user_id], now_s, now_s
        )
        return session_id

    def find_session(self, session_id: str | None, *, touch: bool) -> Session | None:
        """Return the session of an id; `touch` resets its idle time."""
        session = self._sessions.get(_session_key(session_id or ""))
        if session is None:
            return None
        now_s = self._clock_s()
        if not session.is_alive(now_s):
            self._end_session(_session_key(session_id or ""))
            return None
        if touch:
            session.last_used_s = now_s
        return session

    def may_view(self, session: Session | None) -> bool:
        """Return whether pages may still be shown to the holder of a session."""
        return not self.login_required if session is None else session.is_alive(self._clock_s())

    def end_session(self, session_id: str | None) -> None:
        """End a session."""
        self._end_session(_session_key(session_id or ""))

    def ended_reason(self, session_id: str | None) -> str:
        """Return why a session of this id is no longer known; empty without an id."""
        if not session_id:
            return ""
        if session_id.startswith(f"{self._server_id}."):
            return SESSION_ENDED_TEXT
        return PAPER_RESTARTED_TEXT if self.reach.on_paper else RESTARTED_TEXT

    async def record_event(self, kind: str, user_name: str, address: str, detail: str = "") -> None:
        """Append an event to the audit log."""
        await self._login_process.call(
            app_modules.users.record_event, self.users_place, kind, user_name, address, detail
        )

    def login_form_token(self, nonce: str) -> str:
        """Return the token of a login form, bound to the cookie `nonce`."""
        return hmac.new(self._form_secret, nonce.encode(), hashlib.sha256).hexdigest()

    def close(self) -> None:
        """End the process of logins."""
        self._login_process.stop()

    def _end_session(self, session_key: bytes) -> None:
        if (session := self._sessions.pop(session_key, None)) is not None:
            session.is_ended = True

    def _read_stamp(self) -> object:
        """Return a value that changes when the users are to be read again."""
        place = self._given_users_place
        if place is None:
            return None
        if not place.file:
            return int(self._clock_s() / SERVER_POLL_S)
        try:
            file_stat = Path(place.file).stat()
        except OSError:
            return None
        return (file_stat.st_mtime_ns, file_stat.st_size, file_stat.st_ino)


class AccessMiddleware:
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
            **SECURITY_HEADERS,
            "Content-Security-Policy": content_policy(allows_forms=self._access.login_required),
        }
        if self._access.reach.uses_tls:
            headers["Strict-Transport-Security"] = "max-age=31536000"

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                header_names = {header_name.lower() for header_name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (header_name.lower().encode(), header_value.encode())
                        for header_name, header_value in headers.items()
                        if header_name.lower().encode() not in header_names
                    ),
                ]
            await send(message)

        responder: Any = self._check_request(scope)
        if responder is not None and scope["path"].startswith(API_PREFIX + "/"):
            responder = refusal_response(responder)
        responder = responder or self._app
        await responder(scope, receive, send_with_headers)

    def _check_request(self, scope: Scope) -> Response | None:
        """Return the answer that refuses or redirects a request. Otherwise return None, with its
        session and address in the scope.
        """
        access = self._access
        reach = self._access.reach
        method = scope["method"]
        request = Request(scope)
        host_headers = request.headers.getlist("host")
        if len(host_headers) != 1 or reach.origin(host_headers[0]) is None:
            canonical_host = min(reach.host_names, key=lambda host: (host != "localhost", host))
            port_text = "" if reach.public_port is None else f":{reach.public_port}"
            return PlainTextResponse(
                f"421: open the dashboard as {canonical_host}{port_text}\n", 421
            )
        client_address = plain_address(scope["client"][0]) if scope.get("client") else ""
        if reach.proxies:
            if (refusal := _proxy_refusal(request, reach, client_address)) is not None:
                return refusal
            client_address = (
                forwarded_address(request.headers.getlist("x-forwarded-for")) or client_address
            )
        scope["address"] = client_address
        scope["session"] = None
        if scope["path"].startswith(API_PREFIX + "/"):
            return None  # the API checks tokens and ignores sessions
        if scope["path"] in PROBE_PATHS and method in READ_METHODS:
            # they check logins and tokens themselves, and keep no session from expiring
            scope["session"] = access.find_session(
                cookie_value(request, reach.cookie_name), touch=False
            )
            return None
        allowed_methods = (
            ALL_METHODS
            if access.login_required and scope["path"] not in PROBE_PATHS
            else READ_METHODS
        )
        if method not in allowed_methods:
            error_text = (
                "is not a verb of the dashboard"
                if access.login_required
                else "the dashboard only reads"
            )
            headers = {"Allow": ", ".join(allowed_methods)}
            return PlainTextResponse(f"405: {error_text}\n", 405, headers)
        if not access.login_required:
            return None
        if method == "POST" and not _is_own_form(request, reach):
            own_origin = reach.origin(request.headers["host"])
            return PlainTextResponse(
                f"403: the form is not from this dashboard, {own_origin}; behind a proxy on another"
                " port write --proxy NAME:PORT\n",
                403,
            )
        is_background_request = "hx-request" in request.headers or scope["path"] == "/events"
        session = access.find_session(
            cookie_value(request, reach.cookie_name), touch=not is_background_request
        )
        scope["session"] = session
        if session or scope["path"] == LOGIN_PATH or scope["path"].startswith("/static/"):
            return None
        path = scope["path"]
        if is_background_request:
            reason = access.ended_reason(cookie_value(request, reach.cookie_name)) or "log in"
            return PlainTextResponse(f"401: {reason}\n", 401, {"HX-Redirect": LOGIN_PATH})
        if method == "POST":
            return RedirectResponse(
                LOGIN_PATH if path == LOGOUT_PATH else f"{LOGIN_PATH}?{UNSENT_FORM_QUERY}", 303
            )
        return RedirectResponse(
            f"{LOGIN_PATH}?to={path}" if path in RETURN_PATHS else LOGIN_PATH, 303
        )


def _proxy_refusal(request: Request, reach: Reach, client_address: str) -> Response | None:
    """Return the answer to a request that does not come by HTTPS through the proxy, or by a prefix
    that it removed from the path; None if it does.
    """
    is_by_proxy = reach.is_proxy(client_address, request.headers.getlist(PROXY_HEADER))
    if not is_by_proxy or request.headers.getlist("x-forwarded-proto") != ["https"]:
        return PlainTextResponse("403: only by HTTPS through the proxy\n", 403)
    if any(prefix.strip("/ ") for prefix in request.headers.getlist("x-forwarded-prefix")):
        return PlainTextResponse("421: a path prefix of the proxy is not supported\n", 421)
    return None


def _is_own_form(request: Request, reach: Reach) -> bool:
    """Return whether a request comes from a page of the dashboard, by its origin."""
    own_origin = reach.origin(request.headers["host"])
    page_origins = [parse_origin(origin) for origin in request.headers.getlist("origin")]
    fetch_site = request.headers.get("sec-fetch-site", "same-origin")
    return own_origin is not None and page_origins == [own_origin] and fetch_site == "same-origin"


KEY_PATTERN = re.compile(r"[0-9a-fA-F]{60}")
"""A private key, even truncated, in a text without its punctuation."""
PUNCTUATION_PATTERN = re.compile(r"0[xX]|[\W_]")
WORD_PATTERN = re.compile(r"[^\W\d_]{3,}|[^\W\d_a-zA-Z]")
"""A word of a recovery phrase. Runs of letters in an address are shorter, or fewer than a phrase's."""
MIN_PHRASE_WORDS = 12
PATH_STARTS = ("/", "./", "../", "~/")
"""How a path begins that is not a name alone, such as that of a local chain's config."""
KEY_TYPED_TEXT = (
    "This may be a private key or a recovery phrase, so it was not kept. trimtab never needs one in"
    " the browser: type keys at trimtab wallet import only."
)
URL_TYPED_TEXT = (
    "This is a URL, which may contain a secret, so it was not kept. Put it into an environment"
    " variable, and type the variable's name in the field that asks for one."
)
VARIABLE_PATTERN = re.compile(r"[A-Z_][A-Z0-9_]{0,63}(=[\w.-]{0,16})?")
"""The name of a variable, with or without an operator."""


def secret_refusal(field_text: str) -> str:
    """Return why a text may not be kept: it may be a key, a recovery phrase, however they are
    punctuated, or a URL; empty if it may. Names of variables and folders are not words of a phrase.
    """
    is_path = field_text.startswith(PATH_STARTS)
    words = [
        word
        for part in field_text.replace(",", " ").split()
        if not (
            ("_" in part or "=" in part)
            and VARIABLE_PATTERN.fullmatch(part)
            and len(WORD_PATTERN.findall(part)) < MIN_PHRASE_WORDS
        )
        for word in WORD_PATTERN.findall(part)
    ]
    is_key = KEY_PATTERN.search(PUNCTUATION_PATTERN.sub("", field_text)) is not None
    if is_key or (len(words) >= MIN_PHRASE_WORDS and not is_path):
        return KEY_TYPED_TEXT
    return URL_TYPED_TEXT if "://" in field_text else ""


async def read_form(request: Request) -> dict[str, list[str]] | None:
    """Return the fields of a form; None if the body is not a form, too large or too slow."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip()
    length_text = request.headers.get("content-length", "")
    if media_type != "application/x-www-form-urlencoded" or not re.fullmatch(
        "[0-9]{1,9}", length_text
    ):
        return None
    if int(length_text) > MAX_FORM_BYTES:
        return None
    try:
        form_bytes = await asyncio.wait_for(request.body(), FORM_TIMEOUT_S)
        name_value_pairs = parse_qsl(form_bytes.decode(), True, max_num_fields=MAX_FIELDS)
    except (TimeoutError, ValueError):
        return None
    fields: dict[str, list[str]] = {}
    for field_name, field_text in name_value_pairs:
        fields.setdefault(field_name, []).append(field_text)
    return fields


class RefusedRequest(HTTPException):
    """Request that a page refuses: status and text of the answer, which `answer_refused` sends."""


ROUTING_TEXTS = {
    404: "404: no such page\n",
    405: "405: this address takes a form only; nothing was carried out\n",
}


async def answer_refused(request: Request, refused: Any) -> Response:
    """Answer a RefusedRequest, or a path that is none of a page: a browser with a page that leads
    home, any other client with the text.
    """
    status = refused.status_code
    text = refused.detail
    if not isinstance(refused, RefusedRequest):
        text = ROUTING_TEXTS.get(status, f"{status}: {text}\n")
    if "text/html" not in request.headers.get("Accept", ""):
        return PlainTextResponse(text, status, refused.headers)
    template = page_environment().get_template("refused.html")
    return HTMLResponse(
        template.render(title="Not found" if status == 404 else "Refused", text=text),
        status,
        refused.headers,
    )


PAGE_ERRORS: dict[Any, Any] = {RoutingError: answer_refused}
"""Exception handlers of the pages."""


async def read_session_form(request: Request) -> tuple[Session, dict[str, list[str]]]:
    """Return session and fields of a form. Raises RefusedRequest if the session did not show it."""
    session: Session | None = request.scope["session"]
    if session is None:
        raise RefusedRequest(404, "404: no such page\n")
    fields = await read_form(request)
    if fields is None or not matches_token(fields.get("csrf"), session.csrf):
        raise RefusedRequest(403, "403: the form is not from this session\n")
    return session, fields


def matches_token(token_values: list[str] | None, expected_token: str) -> bool:
    """Return whether a form has exactly this token."""
    return len(token_values or ()) == 1 and hmac.compare_digest(
        (token_values or [""])[0].encode(), expected_token.encode()
    )


def cookie_value(request: Request, wanted_name: str) -> str | None:
    """Return the value of a cookie; None if it is missing, given twice or malformed."""
    cookie_texts = []
    for header in request.headers.getlist("cookie"):
        for cookie_pair in header.split(";"):
            cookie_name, separator, cookie_text = cookie_pair.strip().partition("=")
            if separator and cookie_name == wanted_name:
                cookie_texts.append(cookie_text)
    return cookie_texts[0] if len(cookie_texts) == 1 else None


def _session_key(session_id: str) -> bytes:
    return hashlib.sha256(session_id.encode()).digest()
