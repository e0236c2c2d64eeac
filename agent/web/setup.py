"""The guided set-up in the browser: the questions of `trimtab init` on pages. It needs the address
that the command printed, works on this machine only, never asks for a key, and refuses one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from agent import artifacts
from agent.errors import TrimtabError
from agent.web.access import LOGIN, Access, Checks, is_token, read_form
from agent.web.app import StaticFiles
from agent.web.pages import PACKAGE_EXTRA, format_figure
from agent.web.reach import Reach
from agent.web.reading import ReadingProcess
from agent.web.sessions import Session

OWNER_USER = {1: ("set-up", False)}
"""The one session's user."""
MAX_TEXT_CHARS = 500
SECRET = re.compile(r"[0-9a-fA-F]{60}|(?:[^\W\d_]+[\s\d,.;:()-]+){11,}[^\W\d_]+")
"""A private key, even truncated, or a recovery phrase, even with numbers or commas."""
KEY_TYPED = (
    "This may be a private key or a recovery phrase, so it was not kept. trimtab never needs one in"
    " the browser: type keys at trimtab wallet import only."
)
ADDRESS_TYPED = (
    "This is a URL, which may contain a secret, so it was not kept. Put it into an environment"
    " variable, and type the variable's name in the field that asks for one."
)
URL_FIELDS = frozenset({"endpoints", "alert"})
"""Fields for names of variables. Their URLs may be typed there by mistake."""
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}(=[\w.-]{0,16})?")
"""The name of a variable, with or without an operator."""
ANSWERS_CHANGED = "The answers changed after this page was opened. Compare them again."
SHARE_PREFIX = "share:"


class SetupPage(NamedTuple):
    """A page of questions, with its fields in their order."""

    path: str
    title: str
    template: str
    fields: tuple[str, ...]


QUESTIONS = (
    SetupPage("/setup/wallet", "Network and wallet", "wallet", ("network", "wallet", "endpoints")),
    SetupPage("/setup/basket", "Basket and weights", "basket", ("basket",)),
    SetupPage("/setup/cash", "Cash and alerts", "cash", ("cash", "ceiling", "alert")),
)
REVIEW = SetupPage("/setup/review", "Check and write", "review", ())
DONE = SetupPage("/setup/done", "The config is written", "done", ())
BEGIN = SetupPage(LOGIN, "New config", "begin", ())
NOT_OPENED = "403: open the address that trimtab serve --setup printed; it works once\n"
DEFAULTS = {"network": "ethereum", "share:USDC": "0"}


class SetupPages:
    """The answers typed so far, the pages that ask for them, and the writing of the config."""

    def __init__(self, access: Access, config: Path) -> None:
        self._access = access
        self._config = config
        self._token = secrets.token_urlsafe(32)
        self._answers: dict[str, str] = dict(DEFAULTS)
        self._answered_paths: set[str] = set()
        self._document: Mapping[str, Any] | None = None
        self._writing = asyncio.Lock()
        self._process = ReadingProcess()
        self._template = artifacts.template_environment(PACKAGE_EXTRA).get_template("setup.html")

    @property
    def opening(self) -> str:
        """Path and query that begin the one session."""
        return f"{LOGIN.removeprefix('/')}?token={self._token}"

    def close(self) -> None:
        """End the process that checks and writes."""
        self._process.stop()

    def application(self) -> Checks:
        """Return the ASGI application."""
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
        app.add_route("/", self._go_to_next_page, ["GET"])
        app.add_route(LOGIN, self._show_begin, ["GET"])
        app.add_route(LOGIN, self._begin_session, ["POST"])
        app.add_route("/setup/{name}", self._show, ["GET"])
        app.add_route("/setup/{name}", self._submit_page, ["POST"])
        app.add_route("/static/{name:path}", StaticFiles().answer, ["GET"])
        return Checks(app, self._access)

    async def _show_begin(self, request: Request) -> Response:
        """Answer the printed address with the form that begins the session. A GET neither uses up
        the token nor changes the cookie.
        """
        if request.scope["session"] is not None:
            return RedirectResponse("/", 303)
        if not is_token(request.query_params.getlist("token"), self._token):
            return PlainTextResponse(NOT_OPENED, 403)
        text = self._template.render(title=BEGIN.title, page=BEGIN, errors={}, token=self._token)
        return HTMLResponse(text)

    async def _begin_session(self, request: Request) -> Response:
        """Begin the one session."""
        fields = await read_form(request)
        if fields is None or not is_token(fields.get("token"), self._token):
            return PlainTextResponse(NOT_OPENED, 403)
        self._token = secrets.token_urlsafe(32)  # so that the printed one no longer works
        answer = RedirectResponse("/", 303)
        session_id = self._access.begin(next(iter(OWNER_USER)))
        cookie = self._access.reach.cookie
        answer.set_cookie(cookie, session_id, path="/", httponly=True, samesite="strict")
        return answer

    async def _go_to_next_page(self, _: Request) -> Response:
        return RedirectResponse((await self._next()).path, 303)

    async def _show(self, request: Request) -> Response:
        page = _requested_page(request)
        if page is None:
            return PlainTextResponse("404: no such page\n", 404)
        check = await self._check(self._answers)
        if isinstance(check, Response):
            return check
        next_page = await self._next(check)
        if page is DONE or next_page is DONE:
            if page is not next_page:
                return RedirectResponse(next_page.path, 303)
        elif _page_index(page) > _page_index(next_page):
            return RedirectResponse(next_page.path, 303)
        return self._html(request, page, check, {})

    async def _submit_page(self, request: Request) -> Response:
        """Answer a form: keep its answers, and go on to the next page if they are valid."""
        session: Session = request.scope["session"]
        fields = await read_form(request)
        if fields is None or not is_token(fields.get("csrf"), session.csrf):
            return PlainTextResponse("403: the form is not from this session\n", 403)
        page = _requested_page(request)
        if page is None or page is DONE:
            return PlainTextResponse("404: no such page\n", 404)
        if self._document is not None:
            return RedirectResponse(DONE.path, 303)
        if page is REVIEW:
            return await self._write(request, fields)
        texts, refusals = _field_texts(page, fields)
        check = await self._check({**self._answers, **texts})
        if isinstance(check, Response):
            return check
        self._answers |= _without_urls(texts, check["errors"])
        errors = {name: check["errors"][name] for name in page.fields if name in check["errors"]}
        if errors := {**errors, **refusals}:
            self._answered_paths.discard(page.path)
            return self._html(request, page, check, errors, 422)
        self._answered_paths.add(page.path)
        return RedirectResponse((await self._next(check)).path, 303)

    async def _write(self, request: Request, fields: Mapping[str, list[str]]) -> Response:
        answers = dict(self._answers)  # another form may change them meanwhile
        check = await self._check(answers)
        if isinstance(check, Response):
            return check
        if (next_page := await self._next(check)) is not REVIEW:
            return RedirectResponse(next_page.path, 303)
        if not is_token(fields.get("shown"), _digest(check)):
            return self._html(request, REVIEW, check, {"": ANSWERS_CHANGED}, 409)
        async with self._writing:
            if self._document is None:
                try:
                    self._document = await self._process.call(
                        "start.guide.write_setup", str(self._config), answers
                    )
                except TrimtabError as error:
                    return self._html(request, REVIEW, check, {"": str(error)}, 409)
        return RedirectResponse(DONE.path, 303)

    async def _check(self, answers: Mapping[str, str]) -> dict[str, Any] | Response:
        """Return the checked answers with their errors, or a response if the check failed."""
        try:
            document: dict[str, Any] = await self._process.call(
                "start.guide.check_setup", dict(answers)
            )
        except TrimtabError as error:
            return PlainTextResponse(f"503: {error}\n", 503)
        return document

    async def _next(self, check: Mapping[str, Any] | None = None) -> SetupPage:
        """Return the first page that lacks a valid answer, else the review; DONE once written."""
        if self._document is not None:
            return DONE
        if check is None:
            checked = await self._check(self._answers)
            check = {"errors": {}} if isinstance(checked, Response) else checked
        for page in QUESTIONS:
            if page.path not in self._answered_paths or any(
                field in check["errors"] for field in page.fields
            ):
                return page
        return REVIEW

    def _html(
        self,
        request: Request,
        page: SetupPage,
        check: Mapping[str, Any],
        errors: Mapping[str, str],
        status: int = 200,
    ) -> Response:
        session: Session = request.scope["session"]
        text = self._template.render(
            title=page.title,
            page=page,
            pages=(*QUESTIONS, REVIEW),
            typed=self._answers,
            errors=errors,
            found=check,
            csrf=session.csrf,
            shown=_digest(check),
            config=str(self._config.absolute()),
            folder=str(Path.cwd()),
            document=self._document,
            percent=lambda value: format_figure(value, "ratio+"),
            share=SHARE_PREFIX,
        )
        return HTMLResponse(text, status)


def _requested_page(request: Request) -> SetupPage | None:
    return next(
        (page for page in (*QUESTIONS, REVIEW, DONE) if page.path == request.scope["path"]), None
    )


def _page_index(page: SetupPage) -> int:
    return (*QUESTIONS, REVIEW, DONE).index(page)


def _field_texts(
    page: SetupPage, fields: Mapping[str, list[str]]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the texts of a page's fields, and the errors of those that may be a key or an address,
    which are dropped at once.
    """
    texts: dict[str, str] = {}
    refusals: dict[str, str] = {}
    for name, values in fields.items():
        if name in page.fields or (name.startswith(SHARE_PREFIX) and "basket" in page.fields):
            texts[name] = values[0][:MAX_TEXT_CHARS]
            why = KEY_TYPED if SECRET.search(texts[name]) else ""
            if why := why or (ADDRESS_TYPED if "://" in texts[name] else ""):
                texts[name], refusals[name if name in page.fields else "basket"] = "", why
    return texts, refusals


def _without_urls(texts: Mapping[str, str], errors: Mapping[str, str]) -> dict[str, str]:
    """Return the texts, without those that may be part of a URL: a page must not repeat them."""
    return {
        name: text
        if name not in URL_FIELDS
        or name not in errors
        or all(map(VARIABLE.fullmatch, text.replace(",", " ").split()))
        else ""
        for name, text in texts.items()
    }


def _digest(check: Mapping[str, Any]) -> str:
    """Return a hash of the answers that the last page shows, and of the baskets and tokens."""
    shown_parts = [
        check.get("shown"),
        check.get("outlook"),
        check.get("baskets"),
        check.get("tokens"),
    ]
    return hashlib.sha256(json.dumps(shown_parts, sort_keys=True).encode()).hexdigest()


def setup_access(reach: Reach) -> Access:
    """Return the access of the one session, which lasts as long as the process."""
    access = Access(reach, clock=lambda: 0.0)
    access.set_users(OWNER_USER)
    return access
