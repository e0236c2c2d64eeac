"""A command line whose options exist."""

from __future__ import annotations

from typer.main import get_command

from agent.cli.main import app


def require_command(words: list[str]) -> None:
    """`trimtab` with these words is a command with options that exist, and the values they take."""
    command = get_command(app).commands[words[0]]  # type: ignore[attr-defined]  # click's Group, which Typer makes of several commands
    command.make_parser(command.context_class(command)).parse_args(words[1:])
    options = {option: param for param in command.params for option in param.opts}
    assert all(word in options for word in words[1:] if word.startswith("-")), words
