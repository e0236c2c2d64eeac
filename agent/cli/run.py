"""The command that goes on and on: run."""

from __future__ import annotations

from contextlib import closing
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Send, Yes
from agent.cli.output import fail, note, require_answerable, waiting
from agent.cli.portfolio import READING, STOPPED_BY, confirmer, show_outcome
from agent.errors import EXIT_REFUSED, TrimtabError

if TYPE_CHECKING:
    from agent.api import Agent
    from agent.execution.outcome import Outcome
    from agent.observe.logs import Format


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Adds this module's command."""
    app.command()(run)


def run(
    config: ConfigPath = DEFAULT_CONFIG,
    once: Annotated[bool, typer.Option("--once", help="One step, then exit.")] = False,
    every: Annotated[str, typer.Option("--every", help="How often to look, such as 10m.")] = "10m",
    send: Send = False,
    yes: Yes = False,
    as_json: AsJson = False,
    log_format: Annotated[
        LogFormat | None, typer.Option("--log-format", help="Log lines on stderr; goes before service.log_format.")
    ] = None,
) -> None:
    """Steps on and on until stopped. Errors that may pass are waited out; what needs a person ends the run.

    With --json each look prints one document on a line of its own; with log lines and without --json nothing else is printed.
    SIGTERM and Ctrl-C end the run with exit code 0 where nothing is lost: between two looks, or while a transaction that is
    written down waits for its block. Exit code 13: a look hung for longer than service.hang_after; start it again.
    """
    from agent import api

    if send:
        require_answerable(yes)
    clock = api.StoppableClock()
    code = 0
    style: Format | None = None if log_format is None else log_format.value
    try:
        with (
            clock.listening(),
            api.open_agent(config, clock=clock) as agent,
            api.serve(agent, clock, every, once=once, log_format=style) as service,
            waiting(READING) as wait,
        ):

            def progress(stage: str) -> None:
                service.heard(stage)
                wait.update(stage)

            confirm = confirmer(agent, yes, wait, clock)
            with closing(agent.run(send=send, confirm=confirm, every=every, once=once, progress=progress)) as looks:
                for found in looks:
                    service.looked(found)
                    with wait.aside():
                        code = _tell(found, agent, as_json, send, lines=not once, logged=service.logs)
                    clock.check()
    except api.Stopped:
        note("Stopped. What was sent stands in the journal; the next run goes on from there.")
        code = 0
    raise typer.Exit(code)


def _tell(found: Outcome | TrimtabError, agent: Agent, as_json: bool, send: bool, *, lines: bool, logged: bool) -> int:
    """Prints a look, unless the log has told it and nobody asked for documents; returns its exit code."""
    if logged and not as_json:
        return found.exit_code if isinstance(found, TrimtabError) else EXIT_REFUSED if found.kind.value in STOPPED_BY else 0
    if isinstance(found, TrimtabError):
        return fail(found, as_json, lines=lines)
    return show_outcome(found, as_json, agent, sent=send, lines=lines)
