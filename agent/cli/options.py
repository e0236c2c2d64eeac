"""Declaration of commands: headings of `trimtab help all`, and shared options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

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
class DeclaredCommand:
    """A command or a group of commands, ordered below its heading by `rank`."""

    heading: Heading
    rank: int
    name: str
    function_or_group: Callable[..., Any] | typer.Typer

    @property
    def sort_key(self) -> tuple[int, int]:
        """Place in the list of commands."""
        return list(Heading).index(self.heading), self.rank


DECLARED_COMMANDS: list[DeclaredCommand] = []


def command(heading: Heading, rank: int) -> Callable[[Command], Command]:
    """Declare the decorated function as a command."""

    def declare(command_function: Command) -> Command:
        DECLARED_COMMANDS.append(
            DeclaredCommand(
                heading, rank, command_function.__name__.replace("_", "-"), command_function
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


ConfigPath = Annotated[
    Path, typer.Option("--config", "-c", help="The config file.", show_default=True)
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
    bool, typer.Option("--paper", help="Use the paper-trading ledger instead of the live ledger.")
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
DEFAULT_CONFIG = Path("trimtab.toml")


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
    """Return the live config, or the config with the paper store and a note on stderr. Raises
    ConfigError if there is no paper store.
    """
    if not paper:
        return config
    from agent import app as api
    from agent.cli.display.terminal import note

    loaded_config = api.paper_config(config)
    note("PAPER: this is the paper-trading ledger, not the wallet's.")
    return loaded_config


def mark_paper(document: AnyDocument, paper: bool) -> AnyDocument:
    """Mark a document about paper trading as such."""
    return cast(AnyDocument, {**document, "book_kind": "paper"}) if paper else document
