"""Commands about what was done, and the kill switch: history, explain, pause, resume."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath
from agent.cli.output import emit, out, say


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    for command in (history, explain, pause, resume):
        app.command()(command)


def history(
    config: ConfigPath = DEFAULT_CONFIG,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many steps, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Past steps with their decisions, and the transactions they sent."""
    from agent import api
    from agent.cli import tables

    document = api.history(config, limit)
    emit(document, as_json, lambda: out.print(tables.steps(document)))


def explain(
    step: Annotated[str, typer.Argument(help="Id of a step, as history shows it.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """A past step in words: what was seen, what was decided and why, what was sent and what came of it."""
    from agent import api

    document = api.explain(config, step)

    def show() -> None:
        for line in document["words"]:
            say(line)

    emit(document, as_json, show)


def pause(
    reason: Annotated[str, typer.Option("--reason", help="Shown wherever the pause stops something.")] = "paused by the owner",
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Stops everything that sends, at once and until resume. Transactions already sent are still watched."""
    from agent import api

    document = api.pause(config, reason)
    emit(document, as_json, lambda: say(f"Paused: {reason}. Nothing is sent until: trimtab resume"))


def resume(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Lifts the pause."""
    from agent import api

    document = api.resume(config)
    emit(document, as_json, lambda: say("Resumed."))
