"""The guided set-up in the browser: the questions of `trimtab init` on pages. It needs the address
that the command printed, works on this machine only, never asks for a key, and refuses one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from agent.errors import TrimtabError
from agent.figures import format_figure
from agent.ports.paper import PaperConfig
from agent.web.access import (
    LOGIN_PATH,
    PAGE_ERRORS,
    VARIABLE_PATTERN,
    Access,
    AccessMiddleware,
    Receive,
    RefusedRequest,
    Scope,
    Send,
    matches_token,
    read_form,
    read_session_form,
    secret_refusal,
)
from agent.web.app import StaticFiles, build_unchecked_app
from agent.web.app_modules import guide, paper_run, practice
from agent.web.document_cache import DocumentCache
from agent.web.pages import page_environment
from agent.web.reach import Reach
from agent.web.reading import AppProcess, ServingProcess
from agent.web.sessions import Session

SETUP_USERS = {1: ("owner", False)}
"""The one session's user: whoever opened the printed address."""
MAX_TEXT_CHARS = 500
VARIABLE_FIELDS = frozenset({"endpoints", "alert"})
"""Fields for names of variables. Their URLs may be typed there by mistake."""
MAIL_PATTERN = re.compile(r"[A-Za-z0-9._+-]{1,40}@([A-Za-z0-9-]+\.)+[A-Za-z]{2,}")
ANSWERS_CHANGED_TEXT = "The answers changed after this page was opened. Compare them again."
SHARE_PREFIX = "share:"
OWN_BASKET = "own"


class SetupPage(NamedTuple):
    """A page of questions, with its fields in their order."""

    path: str
    title: str
    template: str
    fields: tuple[str, ...]


QUESTION_PAGES = (
    SetupPage("/setup/wallet", "Network and wallet", "wallet", ("network", "wallet", "endpoints")),
    SetupPage("/setup/basket", "Basket and weights", "basket", ("basket",)),
    SetupPage("/setup/cash", "Cash and alerts", "cash", ("cash", "ceiling", "alert")),
)
REVIEW_PAGE = SetupPage("/setup/review", "Check and write", "review", ())
DONE_PAGE = SetupPage("/setup/done", "The config is written", "done", ())
PAPER_PAGE = SetupPage("/setup/done", "Your portfolio on paper", "paper", ())
BEGIN_PAGE = SetupPage(LOGIN_PATH, "New config", "begin", ())
NOT_OPENED_TITLE = "Not opened"
SETUP_PATHS = ("/setup/", LOGIN_PATH)
"""Beginnings of the paths that stay those of the set-up once a paper portfolio is served."""
RUNNING = "running"
ENDED_TEXT = "The paper run has ended."
"""State of a paper run that was stopped, which is no failure."""
AGAIN_FIELD = "again"
"""Field of the button that takes the config back."""
MOVE_FIELD = "move"
"""Field of the button that moves a price of the chain of practice."""
PRACTICE = "practice"
"""Answer for the network that is a chain beside this server."""
PRACTICE_NAME = "Practice: a chain on this machine, no account, no money"
PRACTICE_BANNER = (
    "Practice: invented prices on a chain of this machine. Not the market of today, and no real"
    " money."
)
OWN_OF_PRACTICE = {"wallet": "", "endpoints": ""}
"""Answers that the chain of practice has itself, whatever was typed for another network."""
DEFAULT_ANSWERS = {"network": "", "share:USDC": "0"}


class SetupPages:
    """The answers typed so far, the pages that ask for them, and the writing of the config."""

    def __init__(self, access: Access, config: Path, *, continues: bool = False) -> None:
        """With `continues` the config and its paper ledger are there already, and the paper run goes
        on with the server.
        """
        self._access = access
        self._config = config
        self._continues = continues
        self._paper_process = AppProcess()
        self._paper_run: Future[None] | None = None
        self._chain_process: ServingProcess | None = None
        self._chain_lock = asyncio.Lock()
        self._new_beginning: asyncio.Task[None] | None = None
        self._practice: Mapping[str, Any] | None = None
        self._chain_file = ""
        self._kept_ledger = ""
        self._move_text = ""
        self._moved_symbol = ""
        self._cache: DocumentCache | None = None
        self._dashboard: FastAPI | None = None
        self._stack = AsyncExitStack()
        self._opening_token = secrets.token_urlsafe(32)
        self._is_address_used = False
        self._was_opened = False
        self._show_address: Callable[[], None] | None = None
        self._answers: dict[str, str] = dict(DEFAULT_ANSWERS)
        self._answered_paths: set[str] = set()
        self._written_document: Mapping[str, Any] | None = None
        self._write_lock = asyncio.Lock()
        self._writing_process = AppProcess()
        environment = page_environment(access.reach.complete_hints)
        self._template = environment.get_template("setup.html")
        access.reach = replace(access.reach, has_paper_run=lambda: self._paper_state == RUNNING)

    @property
    def opening_path(self) -> str:
        """Path and query that begin the one session."""
        return f"{LOGIN_PATH.removeprefix('/')}?token={self._opening_token}"

    def show_address(self, show: Callable[[str], None], server_address: str) -> None:
        """Show the address that begins the session; once it was used, a new one as soon as a browser
        without a session asks.
        """
        show(server_address + self.opening_path)
        self._show_address = partial(self.show_address, show, server_address)
        self._is_address_used = False

    def close(self) -> None:
        """End the processes that check and write, run on paper, and serve the chain."""
        self._writing_process.stop()
        self._paper_process.stop()
        self._stop_chain()

    def _stop_chain(self) -> None:
        if self._chain_process is not None:
            self._chain_process.stop()

    def application(self, is_stopping: Callable[[], bool]) -> AccessMiddleware:
        """Return the ASGI application. Event streams end once `is_stopping` returns True."""

        @asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[None]:
            async with self._stack:
                if self._continues:
                    await self._go_on(is_stopping)
                try:
                    yield
                finally:
                    self._stop_chain()

        app = FastAPI(
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
            redirect_slashes=False,
            lifespan=lifespan,
            exception_handlers=PAGE_ERRORS,
            routes=[
                Route(
                    DONE_PAGE.path,
                    partial(self._start_on_paper, is_stopping=is_stopping),
                    methods=["POST"],
                ),
                Route("/", self._go_to_next_page, methods=["GET"]),
                Route(LOGIN_PATH, self._show_begin, methods=["GET"]),
                Route(LOGIN_PATH, self._begin_session, methods=["POST"]),
                Route("/setup/{name}", self._show, methods=["GET"]),
                Route("/setup/{name}", self._submit_page, methods=["POST"]),
                Route("/static/{name:path}", StaticFiles().answer, methods=["GET"]),
            ],
        )

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope.get("path", "")
            if self._dashboard is None or path.startswith(SETUP_PATHS):
                await app(scope, receive, send)
            else:
                await self._dashboard(scope, receive, send)

        return AccessMiddleware(answer, self._access)

    async def _start_on_paper(
        self, request: Request, *, is_stopping: Callable[[], bool]
    ) -> Response:
        """Begin the paper portfolio, or run it again, and lead to its Overview."""
        _, fields = await read_session_form(request)
        if not self._is_written:
            return RedirectResponse("/", 303)
        async with self._write_lock:
            try:
                if AGAIN_FIELD in fields:
                    return await self._ask_again()
                if MOVE_FIELD in fields:
                    return await self._move_price(fields)
                await self._begin_on_paper(is_stopping)
            except TrimtabError as error:
                return self._html(request, self._done_page, {}, {"": str(error)}, 409)
        return RedirectResponse("/", 303)

    async def _go_on(self, is_stopping: Callable[[], bool]) -> None:
        """Run the paper portfolio of an earlier server again. That of practice begins anew, once
        its chain is served.
        """
        if await self._read_practice():
            self._new_beginning = asyncio.create_task(self._begin_anew(is_stopping))
        else:
            await self._run_on_paper(is_stopping)

    async def _begin_anew(self, is_stopping: Callable[[], bool]) -> None:
        """Begin the paper portfolio; an error is shown on its page."""
        async with self._write_lock:
            try:
                await self._begin_on_paper(is_stopping)
            except TrimtabError as error:
                self._paper_run = Future()
                self._paper_run.set_exception(error)

    async def _begin_on_paper(self, is_stopping: Callable[[], bool]) -> None:
        """Open the paper ledger, and run. Raises TrimtabError."""
        if await self._read_practice():
            await self._open_chain()
            self._kept_ledger = await self._writing_process.call(
                practice.kept_ledger, str(self._config)
            )
            self._access.reach = replace(self._access.reach, banner=PRACTICE_BANNER)
        await self._writing_process.call(paper_run.begin_on_paper, str(self._config))
        await self._run_on_paper(is_stopping)

    async def _read_practice(self) -> bool:
        """Return whether the config is one of practice."""
        self._practice = await self._writing_process.call(
            practice.practice_document, str(self._config)
        )
        return self._practice is not None

    async def _open_chain(self) -> None:
        """Start the chain of practice, unless it is served already. Raises TrimtabError."""
        async with self._chain_lock:
            if not self._chain_is_served:
                self._chain_process = ServingProcess(practice.serve_practice, str(self._config))
                self._chain_file = await asyncio.to_thread(self._chain_process.wait)

    @property
    def _chain_is_served(self) -> bool:
        """Whether this server's chain of practice goes on, or starts."""
        return self._chain_process is not None and self._chain_process.is_alive

    async def _move_price(self, fields: Mapping[str, list[str]]) -> Response:
        """Move a price of the chain of practice. Raises TrimtabError."""
        symbol = fields.get("token", [""])[0]
        self._moved_symbol = symbol
        price_usd = await self._writing_process.call(
            practice.move_price, str(self._config), symbol, fields[MOVE_FIELD][0]
        )
        documents = {}
        if self._cache is not None:
            self._cache.refresh()
            documents = self._cache.documents
        self._move_text = (
            f"{symbol} moved to {format_figure(price_usd, 'price')} USD. The pages show it at once;"
            f" the paper run acts on it {next_reading_text(self._paper_state, documents)}."
        )
        return RedirectResponse(DONE_PAGE.path, 303)

    async def _ask_again(self) -> Response:
        """Take back the config that this server wrote, and lead to its questions with the answers.
        Raises ConfigError.
        """
        if self._written_document is not None:
            sha256 = self._written_document["sha256"]
            await self._writing_process.call(guide.take_back_setup, str(self._config), sha256)
            self._written_document = None
        return RedirectResponse(QUESTION_PAGES[0].path, 303)

    async def _run_on_paper(self, is_stopping: Callable[[], bool]) -> None:
        """Run the paper portfolio, unless it runs already, and serve its pages."""
        config_path = str(self._config)
        store_file, users_place = await self._writing_process.call(
            paper_run.paper_books, config_path
        )
        if self._paper_run is None or self._paper_run.done():
            self._paper_run = self._paper_process.submit(paper_run.run_on_paper, config_path)
        if self._dashboard is None:
            self._access.log_to(users_place)
            cache = DocumentCache(PaperConfig(config_path), Path(store_file))
            dashboard = build_unchecked_app(cache, is_stopping, self._access)
            await self._stack.enter_async_context(dashboard.router.lifespan_context(dashboard))
            self._dashboard = dashboard
            self._cache = cache

    @property
    def _is_written(self) -> bool:
        return self._continues or self._written_document is not None

    @property
    def _done_page(self) -> SetupPage:
        """The page after the config is written: with what was written, or in a later server without
        it.
        """
        return PAPER_PAGE if self._written_document is None else DONE_PAGE

    @property
    def _paper_state(self) -> str:
        """Whether the paper run goes on, or why it ended; empty before it began."""
        if self._paper_run is None:
            return ""
        if not self._paper_run.done():
            return RUNNING
        error = self._paper_run.exception()
        return ENDED_TEXT if error is None else f"{ENDED_TEXT[:-1]}: {error}"

    async def _show_begin(self, request: Request) -> Response:
        """Answer the printed address with the form that begins the session. A GET neither uses up
        the token nor changes the cookie.
        """
        if request.scope["session"] is not None:
            return RedirectResponse("/", 303)
        if not matches_token(request.query_params.getlist("token"), self._opening_token):
            return self._refuse_opening()
        html = self._template.render(
            title=self._done_page.title if self._is_written else BEGIN_PAGE.title,
            page=BEGIN_PAGE,
            errors={},
            token=self._opening_token,
            config=str(self._config.absolute()) if self._is_written else "",
            was_opened=self._was_opened,
            practice=self._practice,
            kept_ledger=self._kept_ledger,
        )
        return HTMLResponse(html)

    def _refuse_opening(self) -> Response:
        """Answer an address whose token is not the printed one, or was used; then a new one is
        printed.
        """
        if self._is_address_used and self._show_address is not None:
            self._show_address()
        html = self._template.render(
            title=NOT_OPENED_TITLE, page=BEGIN_PAGE, errors={}, token="", practice=self._practice
        )
        return HTMLResponse(html, 403)

    async def _begin_session(self, request: Request) -> Response:
        """Begin the one session."""
        fields = await read_form(request)
        if fields is None or not matches_token(fields.get("token"), self._opening_token):
            return self._refuse_opening()
        self._opening_token = secrets.token_urlsafe(32)  # so that the printed one no longer works
        self._is_address_used = True
        self._was_opened = True
        response = RedirectResponse("/", 303)
        session_id = self._access.begin_session(next(iter(SETUP_USERS)))
        cookie_name = self._access.reach.cookie_name
        response.set_cookie(cookie_name, session_id, path="/", httponly=True, samesite="strict")
        return response

    async def _go_to_next_page(self, _: Request) -> Response:
        checked_answers = await self._check_answers(self._answers)
        return RedirectResponse(self._next_page(checked_answers).path, 303)

    async def _show(self, request: Request) -> Response:
        page = _requested_page(request)
        if page is None:
            raise RefusedRequest(404, "404: no such page\n")
        checked_answers = await self._check_answers(self._answers)
        next_page = self._next_page(checked_answers)
        if page is DONE_PAGE or self._is_written:
            if page is not DONE_PAGE or not self._is_written:
                return RedirectResponse(next_page.path, 303)
            page = next_page
        elif _page_index(page) > _page_index(next_page):
            return RedirectResponse(next_page.path, 303)
        return self._html(request, page, checked_answers, {})

    async def _submit_page(self, request: Request) -> Response:
        """Answer a form: keep its answers, and go on to the next page if they are valid."""
        _, fields = await read_session_form(request)
        page = _requested_page(request)
        if page is None or page is DONE_PAGE:
            raise RefusedRequest(404, "404: no such page\n")
        if self._is_written:
            return RedirectResponse(DONE_PAGE.path, 303)
        if page is REVIEW_PAGE:
            return await self._write(request, fields)
        text_by_field, refusal_by_field = field_texts(page, fields)
        if text_by_field.get("network", "").strip().lower() == PRACTICE:
            text_by_field["network"] = PRACTICE
            try:
                await self._open_chain()
                text_by_field |= OWN_OF_PRACTICE
            except TrimtabError as error:
                refusal_by_field["network"] = str(error)
        text_by_field = without_left_weights(self._answers, text_by_field)
        checked_answers = await self._check_answers({**self._answers, **text_by_field})
        self._answers |= without_urls(text_by_field, checked_answers["errors"])
        errors = {
            field_name: checked_answers["errors"][field_name]
            for field_name in page.fields
            if field_name in checked_answers["errors"]
        }
        if errors := {**errors, **refusal_by_field}:
            self._answered_paths.discard(page.path)
            return self._html(request, page, checked_answers, errors, 422)
        self._answered_paths.add(page.path)
        return RedirectResponse(self._next_page(checked_answers).path, 303)

    async def _write(self, request: Request, fields: Mapping[str, list[str]]) -> Response:
        answers = dict(self._answers)  # another form may change them meanwhile
        checked_answers = await self._check_answers(answers)
        if (next_page := self._next_page(checked_answers)) is not REVIEW_PAGE:
            return RedirectResponse(next_page.path, 303)
        if not matches_token(fields.get("answers_hash"), _answers_hash(checked_answers)):
            return self._html(
                request, REVIEW_PAGE, checked_answers, {"": ANSWERS_CHANGED_TEXT}, 409
            )
        async with self._write_lock:
            if self._written_document is None:
                try:
                    self._written_document = await self._writing_process.call(
                        guide.write_setup, str(self._config), self._with_chain_file(answers)
                    )
                    await self._read_practice()
                except TrimtabError as error:
                    return self._html(request, REVIEW_PAGE, checked_answers, {"": str(error)}, 409)
        return RedirectResponse(DONE_PAGE.path, 303)

    async def _check_answers(self, answers: Mapping[str, str]) -> dict[str, Any]:
        """Return the checked answers with their errors. Raises RefusedRequest if the check failed."""
        try:
            checked_answers: dict[str, Any] = await self._writing_process.call(
                guide.check_setup, self._with_chain_file(answers)
            )
        except TrimtabError as error:
            raise RefusedRequest(503, f"503: {error}\n") from error
        if answers.get("network") == PRACTICE and "network" not in checked_answers["errors"]:
            checked_answers["answer_texts"]["network"] = PRACTICE_NAME
        return checked_answers

    def _with_chain_file(self, answers: Mapping[str, str]) -> dict[str, str]:
        """Return the answers with the config file of the chain of practice, if that is chosen."""
        if answers.get("network") == PRACTICE and self._chain_file:
            return {**answers, "network": self._chain_file}
        return dict(answers)

    def _next_page(self, checked_answers: Mapping[str, Any]) -> SetupPage:
        """Return the first page that lacks a valid answer, else the review; DONE once written."""
        if self._is_written:
            return self._done_page
        for page in QUESTION_PAGES:
            if page.path not in self._answered_paths or any(
                field_name in checked_answers["errors"] for field_name in page.fields
            ):
                return page
        return REVIEW_PAGE

    def _open_paths(self, page: SetupPage, checked_answers: Mapping[str, Any]) -> list[str]:
        """Return the paths of the pages that can be opened from a page of questions: those up to the
        first that lacks an answer.
        """
        if page not in QUESTION_PAGES and page is not REVIEW_PAGE:
            return []
        last_page = max(page, self._next_page(checked_answers), key=_page_index)
        return [
            open_page.path
            for open_page in (*QUESTION_PAGES, REVIEW_PAGE)
            if _page_index(open_page) <= _page_index(last_page)
        ]

    def _html(
        self,
        request: Request,
        page: SetupPage,
        checked_answers: Mapping[str, Any],
        errors: Mapping[str, str],
        status: int = 200,
    ) -> Response:
        session: Session = request.scope["session"]
        move_text = self._move_text
        self._move_text = ""
        is_on_paper = page is DONE_PAGE and self._dashboard is not None
        html = self._template.render(
            title=PAPER_PAGE.title if is_on_paper else page.title,
            page=page,
            pages=(*QUESTION_PAGES, REVIEW_PAGE),
            open_paths=self._open_paths(page, checked_answers),
            typed=self._answers,
            errors=errors,
            answers=checked_answers,
            csrf=session.csrf,
            answers_hash=_answers_hash(checked_answers),
            config=str(self._config.absolute()),
            folder=str(Path.cwd()),
            document=self._written_document,
            paper_state=self._paper_state,
            ended_text=ENDED_TEXT,
            chain_starts=self._new_beginning is not None and not self._new_beginning.done(),
            move_text=move_text,
            moved_symbol=self._moved_symbol,
            chain_is_served=self._chain_is_served,
            has_pages=self._dashboard is not None,
            share=SHARE_PREFIX,
            practice=self._practice,
            kept_ledger=self._kept_ledger,
            practice_name=PRACTICE_NAME,
            own_of_practice=OWN_OF_PRACTICE,
        )
        return HTMLResponse(html, status)


def next_reading_text(paper_state: str, documents: Mapping[str, Any]) -> str:
    """Return when the paper run acts on prices next."""
    if paper_state != RUNNING:
        return "once it is started again"
    next_cycle = documents.get("run", {}).get("next_cycle")
    return f"at the next check{f', at {next_cycle[11:19]} UTC' if next_cycle else ''}"


def _requested_page(request: Request) -> SetupPage | None:
    return next(
        (
            page
            for page in (*QUESTION_PAGES, REVIEW_PAGE, DONE_PAGE)
            if page.path == request.scope["path"]
        ),
        None,
    )


def _page_index(page: SetupPage) -> int:
    return (*QUESTION_PAGES, REVIEW_PAGE, DONE_PAGE).index(page)


def field_texts(
    page: SetupPage, fields: Mapping[str, list[str]]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the texts of a page's fields, and the errors of those that may be a key or an address,
    which are dropped at once.
    """
    text_by_field: dict[str, str] = {}
    refusal_by_field: dict[str, str] = {}
    for field_name, typed_texts in fields.items():
        if field_name in page.fields or (
            field_name.startswith(SHARE_PREFIX) and "basket" in page.fields
        ):
            text_by_field[field_name] = typed_texts[0][:MAX_TEXT_CHARS]
            refusal = secret_refusal(text_by_field[field_name])
            if refusal:
                text_by_field[field_name] = ""
                refusal_by_field[field_name if field_name in page.fields else "basket"] = refusal
    return text_by_field, refusal_by_field


def without_left_weights(
    earlier_texts: Mapping[str, str], text_by_field: Mapping[str, str]
) -> dict[str, str]:
    """Return the texts of a form, without typed weights that it had before another basket was chosen
    in it: those that are typed beside a basket contradict it.
    """
    weights = {
        field: text for field, text in text_by_field.items() if field.startswith(SHARE_PREFIX)
    }
    basket = text_by_field.get("basket", "")
    is_chosen_since = basket not in ("", OWN_BASKET, earlier_texts.get("basket"))
    if is_chosen_since and all(
        text == earlier_texts.get(field, "") for field, text in weights.items()
    ):
        return {**text_by_field, **dict.fromkeys(weights, "")}
    return dict(text_by_field)


def without_urls(text_by_field: Mapping[str, str], errors: Mapping[str, str]) -> dict[str, str]:
    """Return the texts, without those that may be part of a URL: a page must not repeat them. The
    mail address of an alert is no secret.
    """
    kept_texts = dict(text_by_field)
    for field_name in VARIABLE_FIELDS & text_by_field.keys() & errors.keys():
        text = text_by_field[field_name]
        parts = text.replace(",", " ").split()
        is_mail = field_name == "alert" and MAIL_PATTERN.fullmatch(text.strip())
        if not is_mail and not all(map(VARIABLE_PATTERN.fullmatch, parts)):
            kept_texts[field_name] = ""
    return kept_texts


def _answers_hash(checked_answers: Mapping[str, Any]) -> str:
    """Return a hash of the answers that the last page shows, and of the baskets and tokens."""
    shown_parts = [
        checked_answers.get("answer_texts"),
        checked_answers.get("costs"),
        checked_answers.get("baskets"),
        checked_answers.get("tokens"),
    ]
    return hashlib.sha256(json.dumps(shown_parts, sort_keys=True).encode()).hexdigest()


def setup_access(reach: Reach) -> Access:
    """Return the access of the one session, which lasts as long as the process."""
    paper_reach = replace(reach, on_paper=True)  # of the pages after a start on paper
    return Access(paper_reach, clock_s=lambda: 0.0, users=SETUP_USERS)
