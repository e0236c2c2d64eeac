"""Pages of one more portfolio, from a basket or as a copy: the form, what it would write, and the
commands that start it. A config is written into the served folder, and nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from agent import artifacts
from agent.errors import TrimtabError
from agent.web.access import Access
from agent.web.controls import read_control
from agent.web.pages import PACKAGE_EXTRA, format_figure
from agent.web.reading import ReadingProcess
from agent.web.sessions import Session
from agent.web.setup import SHARE_PREFIX, SetupPage, field_texts, without_urls

NEW_PAGE = SetupPage(
    "/portfolios/new",
    "New portfolio",
    "new",
    ("name", "network", "wallet", "endpoints", "basket", "cash", "ceiling", "alert"),
)
COPY_PAGE = SetupPage("/portfolios/copy", "Copy", "copy", ("name", "wallet"))
NEXT_PAGE = SetupPage("/portfolios/next", "A new portfolio", "next", ())
MAY_NOT_ADD = (
    "403: only a user who may control a portfolio adds one. In a terminal: trimtab user add NAME, or"
    " trimtab init\n"
)


class NewPortfolios:
    """The pages, below the prefix of each portfolio with its users. `taken_names` returns the names that
    are served, `on_written` serves a new config.
    """

    def __init__(
        self,
        folder: Path,
        taken_names: Callable[[], Sequence[str]],
        on_written: Callable[[Path], None],
    ) -> None:
        self._folder = folder
        self._taken_names = taken_names
        self._on_written = on_written
        self._written_paths: dict[str, Path] = {}
        self._process = ReadingProcess()
        self._template = artifacts.template_environment(PACKAGE_EXTRA).get_template("setup.html")

    def close(self) -> None:
        """End the process that checks and writes."""
        self._process.stop()

    def add_to(self, pages: FastAPI, access: Access, source: Path) -> None:
        """Add the pages to those of the portfolio `source`."""
        for page in (NEW_PAGE, COPY_PAGE):
            pages.add_route(page.path, partial(self._show, page, access, source), ["GET"])
            pages.add_route(page.path, partial(self._submit, page, access, source), ["POST"])
        pages.add_route(NEXT_PAGE.path, partial(self._show_next, access), ["GET"])

    async def _show(
        self, page: SetupPage, access: Access, source: Path, request: Request
    ) -> Response:
        """Answer with the form, with the network, wallet and endpoints of the portfolio."""
        if not _may_add(request):
            return PlainTextResponse(MAY_NOT_ADD, 403)
        document = await self._check(page, source, {})
        if isinstance(document, Response):
            return document
        return self._html(request, page, access, {"typed": document["typed"], "answers": document})

    async def _submit(
        self, page: SetupPage, access: Access, source: Path, request: Request
    ) -> Response:
        """Show what the answers would write, and write it if the form had just that."""
        session_and_fields = await read_control(request, access)
        if isinstance(session_and_fields, Response):
            return session_and_fields
        session, fields = session_and_fields
        text_by_field, refusal_by_field = field_texts(page, fields)
        text_by_field = {name: text.strip() for name, text in text_by_field.items()}
        document = await self._check(page, source, text_by_field)
        if isinstance(document, Response):
            return document
        errors = {**document["errors"], **refusal_by_field}
        form_values = {"typed": without_urls(text_by_field, errors), "answers": document}
        if errors or "sha256" not in fields:
            status = 422 if errors else 200
            return self._html(request, page, access, {**form_values, "errors": errors}, status)
        name, address = text_by_field["name"], request.scope["address"]
        try:
            await access.record_event("control", session.name, address, f"{page.template} {name}")
            path = await self._process.call(
                "settings.new_portfolios.write_portfolio",
                *self._arguments(page, source, text_by_field),
                fields["sha256"][0],
            )
        except TrimtabError as error:
            return self._html(
                request, page, access, {**form_values, "errors": {"": str(error)}}, 409
            )
        self._written_paths[name] = Path(path)
        self._on_written(Path(path))
        return RedirectResponse(f"{NEXT_PAGE.path}?name={name}", 303)

    async def _show_next(self, access: Access, request: Request) -> Response:
        """Answer with the commands that start a portfolio that was written here."""
        path = self._written_paths.get(request.query_params.get("name", ""))
        if path is None or not _may_add(request):
            return PlainTextResponse("404: no such page\n", 404)
        try:
            commands = await self._process.call("settings.new_portfolios.next_commands", str(path))
        except TrimtabError as error:
            return PlainTextResponse(f"503: {error}\n", 503)
        return self._html(request, NEXT_PAGE, access, {"document": commands, "config": str(path)})

    async def _check(
        self, page: SetupPage, source: Path, text_by_field: Mapping[str, str]
    ) -> dict[str, Any] | Response:
        """Return the checked answers, or a response if they cannot be checked."""
        try:
            document: dict[str, Any] = await self._process.call(
                "settings.new_portfolios.check_portfolio",
                *self._arguments(page, source, text_by_field),
            )
        except TrimtabError as error:
            return PlainTextResponse(f"503: {error}\n", 503)
        return document

    def _arguments(
        self, page: SetupPage, source: Path, text_by_field: Mapping[str, str]
    ) -> tuple[object, ...]:
        is_copy, taken_names = page is COPY_PAGE, list(self._taken_names())
        return str(self._folder), str(source), is_copy, dict(text_by_field), taken_names

    def _html(
        self,
        request: Request,
        page: SetupPage,
        access: Access,
        shown: Mapping[str, Any],
        status: int = 200,
    ) -> Response:
        session: Session = request.scope["session"]
        html = self._template.render(
            {"errors": {}, **shown},
            title=f"{page.title} {access.reach.portfolio}" if page is COPY_PAGE else page.title,
            page=page._replace(path=access.reach.prefix + page.path),
            csrf=session.csrf,
            folder=str(Path.cwd()),
            percent=lambda value: format_figure(value, "ratio+"),
            share=SHARE_PREFIX,
        )
        return HTMLResponse(html, status)


def _may_add(request: Request) -> bool:
    session: Session | None = request.scope["session"]
    return session is not None and not session.read_only
