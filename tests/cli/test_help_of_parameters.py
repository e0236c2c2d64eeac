"""`--help` of every command says what each argument and option is: a version of click left out arguments, markup left out [words]."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest
import typer.main
from typer.testing import CliRunner

from agent.cli.main import app


def commands(group: click.Group, *words: str) -> Iterator[tuple[str, ...]]:
    """The words of each command."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *words, name)
        else:
            yield (*words, name)


GROUP = typer.main.get_command(app)
COMMANDS = list(commands(GROUP))  # type: ignore[arg-type]  # a group of typer's


def parameters(words: tuple[str, ...]) -> list[click.Parameter]:
    command: click.Command = GROUP
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]  # a group
    return [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]


def letters(text: str) -> str:
    """The text without what lays it out."""
    return re.sub(r"[\s│]", "", text)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_parameter_has_its_help(words: tuple[str, ...]) -> None:
    help_letters = letters(CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "240", "NO_COLOR": "1"}).output)
    for parameter in parameters(words):
        text = getattr(parameter, "help", None)
        assert text, parameter.name
        assert letters(text.replace("\\[", "[")) in help_letters, parameter.name
