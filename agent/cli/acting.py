"""What every command of the owner has in common that may act: opened, shown, asked, told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.output import Waiting, asked, emit, err, out, require_answerable, waiting
from agent.cli.portfolio import READING

if TYPE_CHECKING:
    from rich.console import Console

    from agent.api import Agent

Document = dict[str, Any]
Show = Callable[["Console", Document], None]
"""Prints a document: on stderr before a question, on stdout in the end."""


@contextmanager
def opened(config: Path, *, send: bool, yes: bool) -> Iterator[tuple[Agent, Waiting]]:
    """The agent, and where progress is shown. Raises ConfigError before any work where nobody could answer the question to come."""
    from agent import api

    if send:
        require_answerable(yes)
    with api.open_agent(config) as agent, waiting(READING) as wait:
        yield agent, wait


def sure(agent: Agent, wait: Waiting, document: Document, show: Show, question: str, *, yes: bool) -> bool:
    """The owner's answer to what is shown to him, changes of the config by hand among it; with `yes` nobody is asked."""
    from agent.api import versions

    if yes:
        return versions.trusted(agent)
    with wait.aside():
        show(err, document)
        return versions.confirmed(agent, lambda lines: asked(lines, question))


def told(wait: Waiting, document: Document, show: Show, *, as_json: bool) -> None:
    """The end of a command, for people or machines."""
    with wait.aside():
        emit(document, as_json, lambda: show(out, document))
