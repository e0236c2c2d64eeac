"""Every question of a command has its way without a terminal: an option that answers it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

import agent.cli
from agent.cli.main import app

QUESTIONS = {"ask", "ask_with_changes", "hidden_prompt", "guided_init", "require_answerable"}
"""Functions of agent/cli/display that ask."""
ASKING_MODULES = {"money", "portfolio", "spinner", "terminal"}
WAYS = {
    "edit": "--set",
    "init": "--wallet",
    "proposal execute": "--key",
    "proposal sign": "--key",
    "tune": "--yes",
    "user add": "--password-env",
    "wallet change-password": "--new-password-env",
    "wallet create": "--password-env",
    "wallet import": "--password-env",
    "wallet address": "--password-env",
}
"""Options that answer what `--yes` does not: a key, a password, a text."""


def top_functions() -> Iterator[ast.FunctionDef]:
    folder = Path(agent.cli.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        if path.parent.name != "display":
            yield from (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))


def is_yes(keyword: ast.keyword) -> bool:
    return keyword.arg == "yes" and isinstance(keyword.value, ast.Constant)


def called_names(function: ast.FunctionDef) -> set[str]:
    """Names of the functions that a function calls, those of other modules only if these ask."""
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    called = [call.func for call in calls if not any(is_yes(keyword) for keyword in call.keywords)]
    names = {name.id for name in called if isinstance(name, ast.Name)}
    attributes = [attribute for attribute in called if isinstance(attribute, ast.Attribute)]
    return names | {
        attribute.attr for attribute in attributes if isinstance(attribute.value, ast.Name) and attribute.value.id in ASKING_MODULES
    }


def asking_functions() -> set[str]:
    """Functions of the command line that ask, by themselves or by others."""
    calls = {function.name: called_names(function) for function in top_functions()}
    asking = set(QUESTIONS)
    while more := {name for name, called in calls.items() if called & asking} - asking:
        asking |= more
    return asking


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, (*path, name))
    else:
        yield " ".join(path), group


def asking_commands() -> dict[str, set[str]]:
    """Commands that ask, with their options."""
    asking = asking_functions()
    return {
        path: {option for parameter in command.params for option in parameter.opts}
        for path, command in commands(typer.main.get_command(app))
        if command.callback is not None and command.callback.__name__ in asking
    }


ASKING_COMMANDS = asking_commands()


@pytest.mark.parametrize("path", sorted(ASKING_COMMANDS))
def test_command_that_asks__has_an_option_that_answers(path: str) -> None:
    assert WAYS.get(path, "--yes") in ASKING_COMMANDS[path]


def test_table_of_ways__names_commands_that_ask() -> None:
    assert WAYS.keys() <= ASKING_COMMANDS.keys()
    assert {"trust", "withdraw", "pause", "resume", "run", "proposal sign", "stress"} <= ASKING_COMMANDS.keys()
