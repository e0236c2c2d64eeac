"""The page of kept reports, and the reports. Their scripts reach neither session nor network."""

from __future__ import annotations

from fastapi.requests import Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from agent.errors import ConfigError, TrimtabError
from agent.web.board import Board
from agent.web.pages import REPORT_PAGE, REPORTS, Renderer

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

    def __init__(self, board: Board, renderer: Renderer) -> None:
        self._board = board
        self._renderer = renderer

    async def overview(self, request: Request) -> Response:
        """Answer with the list of reports."""
        board = self._board
        board.follow(REPORTS)  # read at each request: a new report does not change the store
        text = self._renderer.page(
            REPORT_PAGE, board.documents, board.failed, board.version, request.scope["session"]
        )
        return HTMLResponse(text)

    async def open(self, request: Request) -> Response:
        """Answer with a report."""
        try:
            found = await self._board.call("stored", READ_REPORT, request.path_params["report"])
        except ConfigError:
            return PlainTextResponse("404: no such report\n", 404)
        except TrimtabError as error:
            return PlainTextResponse(f"503: {error}\n", 503)
        return Response(found, 200, HEADERS, "text/html")
