"""`trimtab replay`: recorded steps, decided again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.cli.interrupting import interruptible
from agent.cli.options import AsJson
from agent.cli.output import cell, emit, out, say, waiting

Document = dict[str, Any]
LONGEST = 120
"""Signs of a value that are shown to people; the document has all of it."""
STYLES = {"same": "green", "different": "bold red", "by hand": "dim", "unreadable": "yellow"}


def register(app: typer.Typer) -> None:
    """Adds this module's command."""
    app.command()(interruptible(replay))


def replay(
    folder: Annotated[Path, typer.Argument(help="A folder of recorded steps: record.dir, or run --record DIR.")],
    as_json: AsJson = False,
) -> None:
    """Replays recorded steps with this version and reports differences. Needs only the files: no config, no chain.

    Exit code 0 if all decisions match, 14 if one differs, 2 if a file is not a step and none differs.
    """
    from agent import api

    with waiting("Deciding again"):
        document = api.replay(folder)
    emit(document, as_json, lambda: _show(document))
    raise typer.Exit(int(document["exit"]))


def _show(document: Document) -> None:
    from agent.cli import tables

    shown = tables.table(
        "Recorded steps", ("file", "asked by", "decided", "now"), ("block",), order=("file", "block", "asked by", "decided", "now")
    )
    for step in document["steps"]:
        result = step["result"]
        told = (cell(step.get(key) or "") for key in ("asked", "decision"))
        shown.add_row(cell(step["file"]), str(step.get("block", "")), *told, cell(result, STYLES[result]))
    out.print(shown)
    for step in document["steps"]:
        if step["result"] == "unreadable":
            say(f"{step['file']}: {step['why']}")
        for one in step.get("differs", ()):
            say(f"{step['file']}: {one['what']} was {_short(one['recorded'])}, is {_short(one['now'])}")
        if step.get("more"):
            say(f"{step['file']}: and {step['more']} more")
    say(
        f"{document['same']} same, {document['different']} different, {document['by_hand']} by hand and not decided again, "
        f"{document['unreadable']} unreadable."
    )


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
