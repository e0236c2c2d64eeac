"""Options shared by many commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from agent.config.load import LoadedConfig


ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The config file.", show_default=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; messages go to stderr.")]
Send = Annotated[bool, typer.Option("--send", help="Sign and send. Without it nothing leaves this machine.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation (for machines).")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show all guards, skipped moves, addresses and parameters.")]
OnPaper = Annotated[bool, typer.Option("--paper", help="Use the paper-trading books instead of the live ones.")]
Record = Annotated[Path | None, typer.Option("--record", help="Record each step in this folder for trimtab replay; overrides record.dir.")]
DEFAULT_CONFIG = Path("trimtab.toml")


def paper_or_live(config: Path, paper: bool) -> LoadedConfig | Path:
    """The live config, or that of the paper store, with a note on stderr. Raises ConfigError if there is no paper store."""
    if not paper:
        return config
    from agent import app as api
    from agent.cli.display.output import note

    found = api.on_paper(config)
    note("PAPER: these are the books of trimtab paper, not of the wallet.")
    return found


def mark_paper(document: dict[str, Any], paper: bool) -> dict[str, Any]:
    """Mark a document about paper trading as such."""
    return {**document, "books": "paper"} if paper else document
