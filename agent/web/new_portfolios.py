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

from agent.errors import TrimtabError
from agent.web.access import Access, RefusedRequest
from agent.web.app_modules import new_portfolios
from agent.web.controls import read_control_form
from agent.web.pages import page_environment
from agent.web.reading import AppProcess
from agent.web.sessions import Session
from agent.web.setup import SHARE_PREFIX, SetupPage, field_texts, without_urls

NEW_PAGE = SetupPage(
    "/portfolios/new",
    "New portfolio",
    "new",
    ("name", "network", "wallet", "endpoints", "basket", "cash", "ceiling", "alert"),
)
COPY_PAGE = SetupPage("/portfolios/copy", "Copy", "copy", ("name", "wallet"))
START_COMMANDS_PAGE = SetupPage("/portfolios/next", "A new portfolio", "next", ())
MAY_NOT_ADD_TEXT = (
    "403: only a user who may control a portfolio adds one. In a terminal: trimtab user add NAME, or"
    " trimtab init\n"
)


class NewPortfolioPages:
    """The pages, below the prefix of each portfolio with its users. `taken_names` returns the names
    that are served, `on_written` serves a new config.
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
        self._writing_process = AppProcess()
        self._template = page_environment().get_template("setup.html")

    def close(self) -> None:
        """End the process that checks and writes."""
        self._writing_process.stop()

    def add_to(self, app: FastAPI, access: Access, source_config: Path) -> None:
        """Add the pages to those of the portfolio of `source_config`."""
        for page in (NEW_PAGE, COPY_PAGE):
            app.add_route(page.path, partial(self._show, page, access, source_config), ["GET"])
            app.add_route(page.path, partial(self._submit, page, access, source_config), ["POST"])
        app.add_route(START_COMMANDS_PAGE.path, partial(self._show_start_commands, access), ["GET"])

    async def _show(
        self, page: SetupPage, access: Access, source_config: Path, request: Request
    ) -> Response:
        """Answer with the form, with the network, wallet and endpoints of the portfolio."""
        if not _may_add(request):
            return PlainTextResponse(MAY_NOT_ADD_TEXT, 403)
        checked_answers = await self._check(page, source_config, {})
        return self._html(
            request, page, access, {"typed": checked_answers["typed"], "answers": checked_answers}
        )

    async def _submit(
        self, page: SetupPage, access: Access, source_config: Path, request: Request
    ) -> Response:
        """Show what the answers would write, and write it if the form had just that."""
        session, fields = await read_control_form(request, access)
        text_by_field, refusal_by_field = field_texts(page, fields)
        text_by_field = {
            field_name: field_text.strip() for field_name, field_text in text_by_field.items()
        }
        checked_answers = await self._check(page, source_config, text_by_field)
        errors = {**checked_answers["errors"], **refusal_by_field}
        template_values = {"typed": without_urls(text_by_field, errors), "answers": checked_answers}
        if errors or "sha256" not in fields:
            status = 422 if errors else 200
            return self._html(request, page, access, {**template_values, "errors": errors}, status)
        name = text_by_field["name"]
        address = request.scope["address"]
        try:
            await access.record_event("control", session.name, address, f"{page.template} {name}")
            config_path = await self._writing_process.call(
                new_portfolios.write_portfolio,
                *self._portfolio_arguments(page, source_config, text_by_field),
                fields["sha256"][0],
            )
        except TrimtabError as error:
            return self._html(
                request, page, access, {**template_values, "errors": {"": str(error)}}, 409
            )
        self._written_paths[name] = Path(config_path)
        self._on_written(Path(config_path))
        return RedirectResponse(f"{START_COMMANDS_PAGE.path}?name={name}", 303)

    async def _show_start_commands(self, access: Access, request: Request) -> Response:
        """Answer with the commands that start a portfolio that was written here."""
        config_path = self._written_paths.get(request.query_params.get("name", ""))
        if config_path is None or not _may_add(request):
            raise RefusedRequest(404, "404: no such page\n")
        try:
            start_commands = await self._writing_process.call(
                new_portfolios.next_commands, str(config_path)
            )
        except TrimtabError as error:
            raise RefusedRequest(503, f"503: {error}\n") from error
        return self._html(
            request,
            START_COMMANDS_PAGE,
            access,
            {"document": start_commands, "config": str(config_path)},
        )

    async def _check(
        self, page: SetupPage, source_config: Path, text_by_field: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return the checked answers. Raises RefusedRequest if they cannot be checked."""
        try:
            checked_answers: dict[str, Any] = await self._writing_process.call(
                new_portfolios.check_portfolio,
                *self._portfolio_arguments(page, source_config, text_by_field),
            )
        except TrimtabError as error:
            raise RefusedRequest(503, f"503: {error}\n") from error
        return checked_answers

    def _portfolio_arguments(
        self, page: SetupPage, source_config: Path, text_by_field: Mapping[str, str]
    ) -> tuple[str, str, bool, dict[str, str], list[str]]:
        is_copy = page is COPY_PAGE
        taken_names = list(self._taken_names())
        return str(self._folder), str(source_config), is_copy, dict(text_by_field), taken_names

    def _html(
        self,
        request: Request,
        page: SetupPage,
        access: Access,
        template_values: Mapping[str, Any],
        status: int = 200,
    ) -> Response:
        session: Session = request.scope["session"]
        html = self._template.render(
            {"errors": {}, **template_values},
            title=f"{page.title} {access.reach.portfolio}" if page is COPY_PAGE else page.title,
            page=page._replace(path=access.reach.prefix + page.path),
            csrf=session.csrf,
            folder=str(Path.cwd()),
            share=SHARE_PREFIX,
        )
        return HTMLResponse(html, status)


def _may_add(request: Request) -> bool:
    session: Session | None = request.scope["session"]
    return session is not None and not session.read_only
