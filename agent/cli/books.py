"""Commands about what was done: history, explain."""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, OnPaper, books_of, marked
from agent.cli.output import cell, emit, note, out, say

if TYPE_CHECKING:
    from agent.cli.tables import FigureTable

LONGEST_REASON = 100
"""Characters of a reason in a list of steps; explain tells all of it."""


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    for command in (history, explain):
        app.command()(command)


def history(
    config: ConfigPath = DEFAULT_CONFIG,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Number of steps, newest first.")] = 20,
    configs: Annotated[bool, typer.Option("--configs", help="List config versions instead.")] = False,
    version: Annotated[int | None, typer.Option("--config-version", help="Show one config version and its changes.")] = None,
    paper: OnPaper = False,
    as_json: AsJson = False,
) -> None:
    """Lists past steps with decisions and transactions, or config versions without secrets."""
    from agent import api
    from agent.cli import ledger_tables, rounds

    if configs or version is not None:
        from agent.api import versions
        from agent.cli import config_versions

        if version is not None:
            one = versions.compared(books_of(config, paper), version)
            emit(one, as_json, lambda: config_versions.show_one(one))
        else:
            found = versions.history(books_of(config, paper), limit)
            emit(found, as_json, lambda: config_versions.show_all(found))
        return
    document = marked(api.history(books_of(config, paper), limit), paper)

    def show() -> None:
        out.print(steps(document))
        if out.is_terminal and any(len(row["reason"]) > LONGEST_REASON for row in document["steps"]):
            note("Reasons are cut. All of one: trimtab explain STEP")
        if document["corrections"]:
            out.print(rounds.corrections(document["corrections"]))
        ledger_tables.show_values(out, document)

    emit(document, as_json, show)


def explain(
    step: Annotated[str | None, typer.Argument(help="Id of a step, as history shows it; the newest if none is given.")] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    paper: OnPaper = False,
    as_json: AsJson = False,
) -> None:
    """Explains a past step: snapshot, decision, reason, transactions, result."""
    from agent import api

    document = marked(api.explain(books_of(config, paper), step), paper)

    def show() -> None:
        for line in document["words"]:
            say(line)

    emit(document, as_json, show)


def steps(document: dict[str, Any]) -> FigureTable:
    """Past steps; their reasons cut at a terminal, whole where they are piped."""
    from agent.cli.tables import table

    made = table("Steps, newest first", ("step", "time (UTC)", "outcome", "transactions", "reason"))
    for row in document["steps"]:
        sent = ", ".join(f"{item['kind']} {item['status']}" for item in row["transactions"])
        reason = shorten(row["reason"], LONGEST_REASON, placeholder=" …") if out.is_terminal else row["reason"]
        made.add_row(row["step"], row["time"], row["outcome"], cell(sent), cell(reason))
    return made
