"""`trimtab help`: the commands of daily use on one screen, all with `trimtab help all`. Options that
were renamed are still read under their old names.
"""

from __future__ import annotations

from itertools import chain

import click
from rich.padding import Padding
from typer.core import TyperGroup

from agent.cli.display.tables import definition_grid
from agent.cli.display.terminal import note, out, safe_text, say

DAILY_COMMANDS = {
    "Start": ("demo", "init", "doctor"),
    "Look": ("status", "plan", "pnl", "history", "serve"),
    "Act: nothing is sent without --send": (
        "rebalance",
        "run",
        "edit",
        "invest",
        "withdraw",
        "pause",
        "resume",
    ),
}
RENAMED_OPTIONS = {
    ("pnl", "--last"): "--limit",
    ("books open", "--note"): "--reason",
}
"""Present name of an option, by its command and its old name; the next version drops the old ones."""
SUMMARY_LENGTH = 1_000
"""Longest first sentence of a command's help: none is cut."""
_SHOWS_ALL_KEY = f"{__name__}.shows_all"


class CommandLine(TyperGroup):
    """All commands. `trimtab help COMMAND` is `trimtab COMMAND --help`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options before the command, and rewrite the words of help and of renamed options."""
        if args[:1] == ["help"]:
            ctx.meta[_SHOWS_ALL_KEY] = args[1:2] == ["all"]
            command_words = [] if args[1:2] in (["all"], ["help"]) else args[1:]
            args = [*command_words, "--help"]
        return super().parse_args(ctx, with_present_names(args))

    def format_help(self, ctx: click.Context, _formatter: click.HelpFormatter) -> None:
        """Print the commands below their headings, one line each where the terminal is wide enough."""
        rows_by_heading: dict[str, list[tuple[str, str]]] = {}
        shows_all = ctx.meta.get(_SHOWS_ALL_KEY, False)
        if shows_all:
            for command_name, command in self.commands.items():
                heading = getattr(command, "rich_help_panel", "")
                rows_by_heading.setdefault(heading, []).append((command_name, _summary(command)))
            option_records = (parameter.get_help_record(ctx) for parameter in self.get_params(ctx))
            rows_by_heading["Options"] = [
                option_record for option_record in option_records if option_record is not None
            ]
        else:
            for heading, command_names in DAILY_COMMANDS.items():
                rows_by_heading[heading] = [
                    (command_name, _summary(self.commands[command_name]))
                    for command_name in command_names
                ]
        say(f"Usage: {ctx.command_path} COMMAND [OPTIONS]")
        say(f"{self.help}\n")
        name_width = max(map(len, chain(*DAILY_COMMANDS.values())))
        for heading, heading_rows in rows_by_heading.items():
            out.print(safe_text(heading, "bold"))
            out.print(Padding.indent(definition_grid(heading_rows, name_width), 2))
        say("All commands: trimtab help all. One of them: trimtab help COMMAND")


def _summary(command: click.Command) -> str:
    """Return the first sentence of a command's help."""
    return command.get_short_help_str(SUMMARY_LENGTH).removesuffix(".")


def with_present_names(args: list[str]) -> list[str]:
    """Return a command's words with options by their present names; an old name is noted on stderr."""
    present_args = list(args)
    for (command, old_name), new_name in RENAMED_OPTIONS.items():
        command_words = command.split()
        if args[: len(command_words)] != command_words:
            continue
        for word_index in range(len(command_words), len(args)):
            option, equals_sign, option_value = args[word_index].partition("=")
            if option == old_name:
                note(f"{old_name} is now {new_name}")
                present_args[word_index] = f"{new_name}{equals_sign}{option_value}"
    return present_args
