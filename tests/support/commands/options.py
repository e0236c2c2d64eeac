"""Every command and its options."""

from __future__ import annotations

import click
from typer.main import get_command

from agent.cli.main import app

ENDLESS = {"localchain", "demo", "serve", "mcp", "docs"}
"""Commands that make a chain of their own, which read no config, no key and no endpoint, the dashboard, the
server of assistants and that of the documentation: their answers have tests of their own
(tests/unit/web/test_dashboard.py, tests/cli/test_assistant.py, tests/cli/test_docs_command.py)."""


def every_command() -> list[tuple[str, ...]]:
    """Every command by its words, those below others too."""
    commands: list[tuple[str, ...]] = []

    def collect(command: click.Command, words: tuple[str, ...]) -> None:
        below = getattr(command, "commands", {})
        if words and (not below or getattr(command, "invoke_without_command", False)):
            commands.append(words)
        for name, sub in below.items():
            collect(sub, (*words, name))

    collect(get_command(app), ())
    return [words for words in commands if words[0] not in ENDLESS]


def takes(words: tuple[str, ...], option: str) -> bool:
    command: click.Command = get_command(app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]  # a group, by `every_command`
    return any(option in param.opts for param in command.params)
