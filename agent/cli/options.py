"""Declaration of commands: headings of `trimtab help all`, and shared options."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import click
import typer

from agent import app as api
from agent.cli.display.hints import RunningCommand, completed_hints, running_command
from agent.errors import ConfigError, TrimtabError
from agent.fleet import configs
from agent.foreign_text import key_like_texts

if TYPE_CHECKING:
    from agent.config.loaded import LoadedConfig


Command = TypeVar("Command", bound=Callable[..., Any])


class Heading(Enum):
    """Headings of `trimtab help all`, in order."""

    TRY = "Try it, without a key"
    SET_UP = "Set up"
    LOOK = "Look"
    TRADE = "Trade: nothing is sent without --send"
    MONEY = "Deposits, withdrawals, shutdown"
    TROUBLE = "When something is wrong"
    TEST = "On recorded prices, and on paper"
    DATA = "Settings, data, accounting"


@dataclass(frozen=True, slots=True)
class GroupedOption:
    """An option that sets the fields of one concept: NAME=VALUE, with commas between, repeatable. A
    value may have commas and equals signs of its own, as in lot=BTC=0.001,ETH=0.01.

    Values of `numbers` are whole, in the range if there is one, those of `files` paths; those of `lists`
    are collected. Text before the first name is that of `unnamed`.
    """

    option: str
    names: tuple[str, ...]
    unnamed: str = ""
    numbers: Mapping[str, range | None] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()

    def parse(self, texts: Sequence[str] | None) -> dict[str, Any]:
        """Return the given values by name, "_" for "-"; the last of a name counts. Raises
        ConfigError.
        """
        values = dict[str, Any]()
        first_unnamed_text = ""
        for text in texts or ():
            unnamed_text, pairs = self._split(text)
            if unnamed_text:
                first_unnamed_text = first_unnamed_text or unnamed_text
                self._require_unnamed(unnamed_text, first_unnamed_text)
                pairs = [(self.unnamed, unnamed_text), *pairs]
            for name, value_text in pairs:
                key = name.replace("-", "_")
                value = self._value(name, value_text)
                values[key] = (*values.get(key, ()), value) if name in self.lists else value
        return values

    def _split(self, text: str) -> tuple[str, list[tuple[str, str]]]:
        """Return the text before the first name, and the names with their texts."""
        names_pattern = "|".join(map(re.escape, self.names))
        unnamed_text, *names_and_values = re.split(rf"(?:^|,)\s*({names_pattern})=", text)
        value_texts = [value_text.strip() for value_text in names_and_values[1::2]]
        return unnamed_text.strip(), list(zip(names_and_values[::2], value_texts, strict=True))

    def _require_unnamed(self, unnamed_text: str, first_unnamed_text: str) -> None:
        """Raise ConfigError for a text without a name if the option takes none, or a second one: it
        has a misspelt name.
        """
        if self.unnamed and unnamed_text == first_unnamed_text:
            return
        other_text = f" beside {first_unnamed_text[:60]!r}" if self.unnamed else ""
        raise ConfigError(
            f"{self.option}: {unnamed_text[:60]!r}{other_text}",
            f"write NAME=VALUE; the names are {', '.join(self.names)}",
        )

    def _value(self, name: str, value_text: str) -> str | int | Path:
        if name in self.files:
            return Path(value_text)
        if name not in self.numbers:
            return value_text
        bounds = self.numbers[name]
        if not re.fullmatch("-?[0-9]{1,18}", value_text) or (
            bounds is not None and int(value_text) not in bounds
        ):
            number_text = "a whole number"
            if bounds is not None:
                number_text += f" from {bounds.start} to {bounds.stop - 1:,}"
            raise ConfigError(f"{self.option} {name}: {value_text[:60]!r}", f"write {number_text}")
        return int(value_text)

    def with_names(self, *names: str) -> GroupedOption:
        """Return the option with these of its names."""
        return replace(self, names=names)

    def spelling_of(self, option: str) -> str | None:
        """Return how a name of this option that was written as an option is given; None if it is
        no such name.
        """
        name = option.removeprefix("--")
        return f"{self.option} {name}=VALUE" if name in self.names else None


@dataclass(frozen=True, slots=True)
class DeclaredCommand:
    """A command or a group of commands, ordered below its heading by `rank`, then by name."""

    heading: Heading
    rank: int
    name: str
    function_or_group: Callable[..., Any] | typer.Typer
    grouped_options: tuple[GroupedOption, ...] = ()

    @property
    def sort_key(self) -> tuple[int, int, str]:
        """Place in the list of commands."""
        return list(Heading).index(self.heading), self.rank, self.name


DEFAULT_CONFIG = configs.DEFAULT_CONFIG
DECLARED_COMMANDS: list[DeclaredCommand] = []


def command(
    heading: Heading, rank: int, *grouped_options: GroupedOption
) -> Callable[[Command], Command]:
    """Declare the decorated function as a command."""

    def declare(command_function: Command) -> Command:
        DECLARED_COMMANDS.append(
            DeclaredCommand(
                heading,
                rank,
                command_function.__name__.replace("_", "-"),
                command_function,
                grouped_options,
            )
        )
        return command_function

    return declare


def command_group(
    heading: Heading, rank: int, name: str, summary: str, *, has_default: bool = False
) -> typer.Typer:
    """Declare a group of commands. With `has_default` the name alone runs the group's callback,
    else it prints the help.
    """
    group = typer.Typer(
        help=summary, invoke_without_command=has_default, no_args_is_help=not has_default
    )
    DECLARED_COMMANDS.append(DeclaredCommand(heading, rank, name, group))
    return group


def config_option(help_text: str, show_default: bool | str = True) -> Any:
    """Return the option `--config`, which hints of the command name too."""
    return typer.Option(
        "--config", "-c", help=help_text, show_default=show_default, callback=_complete_hints
    )


def _complete_hints(context: typer.Context, config: Any) -> Any:
    paths = config if isinstance(config, list) else [config]
    path = paths[0] if len(paths) == 1 else None
    is_named = path is not None and not path.is_dir() and not key_like_texts(str(path))
    running_command.config = path if is_named else None
    root_command = context.find_root().command
    running_command.config_commands = frozenset(_commands_with("--config", root_command))
    return config


def _name_paper(context: typer.Context, paper: bool) -> bool:
    """Let the hints of the command name the paper portfolio, if it shows that."""
    running_command.on_paper = paper
    root_command = context.find_root().command
    running_command.paper_commands = frozenset(_commands_with("--paper", root_command))
    return paper


def paper_hints(config: Path) -> Callable[[str], str]:
    """Return a function that completes the hints of a text, so that typed anywhere they act on the
    paper portfolio of a config.
    """
    root_command = click.get_current_context().find_root().command
    config_commands, paper_commands = (
        frozenset(_commands_with(option, root_command)) for option in ("--config", "--paper")
    )
    command = RunningCommand(config.absolute(), True, config_commands, paper_commands)
    return partial(completed_hints, command=command)


def _commands_with(option: str, command: click.Command, name: str = "") -> Iterator[str]:
    """Yield the names of a command and of its subcommands that take an option."""
    if any(option in parameter.opts for parameter in command.params):
        yield name
    for subcommand_name, subcommand in getattr(command, "commands", {}).items():
        yield from _commands_with(option, subcommand, f"{name} {subcommand_name}".lstrip())


ConfigPath = Annotated[Path, config_option("The config file.")]
ConfigPaths = Annotated[
    list[Path] | None,
    config_option(
        "The config file; several, or a folder, for several portfolios.",
        show_default=str(DEFAULT_CONFIG),
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout; messages go to stderr.")
]
Send = Annotated[
    bool, typer.Option("--send", help="Sign and send. Without it nothing leaves this machine.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Show all guards, skipped moves, addresses and parameters."
    ),
]
OnPaper = Annotated[
    bool,
    typer.Option(
        "--paper",
        help="Use the paper-trading ledger instead of the live ledger.",
        callback=_name_paper,
    ),
]
RecordFolder = Annotated[
    Path | None,
    typer.Option(
        "--record", help="Record each step in this folder for trimtab replay; overrides record.dir."
    ),
]
PasswordEnv = Annotated[
    str | None,
    typer.Option(
        "--password-env", help="Name of the environment variable that holds the password."
    ),
]
PasswordDescriptor = Annotated[
    int | None,
    typer.Option("--password-fd", help="Open file descriptor to read the password from."),
]


@dataclass(frozen=True, slots=True)
class PrintStyle:
    """Style of printed outcomes: JSON or text, all details or the usual ones, each JSON document on
    one line or indented.
    """

    as_json: bool
    verbose: bool = False
    one_line: bool = False


AnyDocument = TypeVar("AnyDocument", bound=Mapping[str, Any])


def paper_or_live(config: Path, paper: bool) -> LoadedConfig | Path:
    """Return the live config, with a note on stderr if there is a paper store too; or the config with
    the paper store and a note. Raises ConfigError if there is no paper store.
    """
    from agent.cli.display.terminal import note

    if not paper:
        with suppress(TrimtabError):  # of the config, which the command raises itself
            api.paper_config(config)
            note(
                "LIVE: this is the wallet on the chain. The paper portfolio beside it: add --paper."
            )
        return config
    loaded_config = api.paper_config(config)
    note("PAPER: this is the paper-trading ledger, not the wallet's.")
    return loaded_config


def mark_paper(document: AnyDocument, paper: bool) -> AnyDocument:
    """Mark a document about paper trading as such."""
    return cast(AnyDocument, {**document, "book_kind": "paper"}) if paper else document
