"""Futures commands: positions, margin, funding. They read only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from agent.cli.display.output import READING, cell, emit, err, out, spinner
from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Heading, command
from agent.errors import EXIT_OK, EXIT_REFUSED

if TYPE_CHECKING:
    from agent.app.documents.futures import FuturesReport
    from agent.cli.display.output import Document


@command(Heading.LOOK, 70)
def positions(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Lists open futures positions with entry, mark, profit, funding and liquidation price."""
    from agent.app.documents import futures as documents
    from agent.cli.display import futures_tables

    document: Document = documents.positions(_read(config))
    emit(document, as_json, lambda: out.print(futures_tables.positions(document)))
    raise typer.Exit(_known(document, as_json))


@command(Heading.LOOK, 80)
def margin(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Shows the margin account beside its limits, and the orders that it asks for. Sends nothing."""
    from agent.app.documents import futures as documents
    from agent.cli.display import futures_tables

    document: Document = documents.margin_account(_read(config))
    emit(document, as_json, lambda: futures_tables.show_margin(out, document))
    raise typer.Exit(_known(document, as_json))


@command(Heading.LOOK, 90)
def funding(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Shows the funding of each market: daily rate, pending, and expected over 30 days."""
    from agent.app.documents import futures as documents
    from agent.cli.display import futures_tables

    document: Document = documents.funding(_read(config))
    emit(document, as_json, lambda: futures_tables.show_funding(out, document))
    raise typer.Exit(_known(document, as_json))


def _read(config: Path) -> FuturesReport:
    from agent import app as api

    with spinner(READING), api.open_agent(config) as agent:
        return api.futures_layer(agent)


def _known(document: Document, as_json: bool) -> int:
    """Return the exit code; if the account is unknown, print the reason first."""
    if not document["unknown"]:
        return EXIT_OK
    if not as_json:
        err.print(cell(f"The margin account is not known: {document['unknown']}", "bold red"))
    return EXIT_REFUSED
