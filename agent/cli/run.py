"""The command that goes on and on: run, and the same on paper."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Record, Send, Verbose, Yes
from agent.cli.output import Waiting, fail, note, require_answerable, waiting
from agent.cli.portfolio import READING, confirmer, show_outcome
from agent.errors import EXITS, TrimtabError

if TYPE_CHECKING:
    from agent.api import Agent, StoppableClock
    from agent.execution.outcome import Outcome
    from agent.observe.logs import Format


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


LogLines = Annotated[LogFormat | None, typer.Option("--log-format", help="Log format on stderr; overrides service.log_format.")]


def register(app: typer.Typer) -> None:
    """Adds this module's command."""
    app.command()(run)


def run(
    config: ConfigPath = DEFAULT_CONFIG,
    once: Annotated[bool, typer.Option("--once", help="Run one step, then exit.")] = False,
    every: Annotated[str, typer.Option("--every", help="Interval between looks, such as 10m.")] = "10m",
    send: Send = False,
    yes: Yes = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
    log_format: LogLines = None,
    record: Record = None,
) -> None:
    """Runs until stopped. Retries transient errors; stops when an operator is needed.

    With --json each look prints one document on one line; with log lines and without --json nothing else is printed. SIGTERM and
    Ctrl-C end the run with exit code 0 at a safe point: between two looks, or while a recorded transaction is pending. Exit code 13:
    a look hung for longer than service.hang_after; start the run again.
    """
    from agent import api

    if send:
        require_answerable(yes)
    clock = api.StoppableClock()

    def confirming(agent: Agent, wait: Waiting) -> Callable[[Outcome], bool]:
        return confirmer(agent, yes, wait, clock, verbose=verbose)

    opened = api.open_agent(config, clock=clock, record=record)
    code = looking(opened, clock, confirming, send=send, every=every, once=once, as_json=as_json, log_format=log_format, verbose=verbose)
    raise typer.Exit(code)


def looking(
    opened: AbstractContextManager[Agent],
    clock: StoppableClock,
    confirming: Callable[[Agent, Waiting], Callable[[Outcome], bool]],
    *,
    send: bool,
    every: str,
    once: bool,
    as_json: bool,
    log_format: LogFormat | None,
    verbose: bool = False,
) -> int:
    """Looks with an agent until it is stopped, and tells of each look; returns the exit code: 0 once stopped, else that of the last."""
    from agent import api

    code = 0
    style: Format | None = None if log_format is None else log_format.value
    try:
        with (
            clock.listening(),
            opened as agent,
            api.serve(agent, clock, every, once=once, log_format=style) as service,
            waiting(READING) as wait,
        ):

            def progress(stage: str) -> None:
                service.heard(stage)
                wait.update(stage)

            confirm = confirming(agent, wait)
            with closing(agent.run(send=send, confirm=confirm, every=every, once=once, progress=progress)) as looks:
                for found in looks:
                    service.looked(found)
                    with wait.aside():
                        code = _tell(found, agent, as_json, send, lines=not once, logged=service.logs, verbose=verbose)
                        if service.taken_up:
                            note(f"The edited config was taken up: {'; '.join(service.taken_up)}")
                            service.taken_up = ()
                        if service.unwritten:
                            note(service.unwritten)
                            service.unwritten = ""
                    clock.check()
        if not once:  # looks end by themselves for one reason alone
            note("The bot was stopped (trimtab stop), so this run ends. trimtab resume starts it again.")
            code = 0
    except api.Stopped:
        note("Stopped. Sent transactions are in the journal; the next run settles them.")
        code = 0
    return code


def _tell(found: Outcome | TrimtabError, agent: Agent, as_json: bool, send: bool, *, lines: bool, logged: bool, verbose: bool) -> int:
    """Prints a look, unless the log has told it and nobody asked for documents; returns its exit code."""
    if logged and not as_json:
        return found.exit_code if isinstance(found, TrimtabError) else EXITS.get(found.kind.value, 0)
    if isinstance(found, TrimtabError):
        return fail(found, as_json, lines=lines)
    return show_outcome(found, as_json, agent, sent=send, lines=lines, verbose=verbose)
