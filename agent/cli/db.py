"""Commands about the store's file: db backup, restore, check, upgrade, adopt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.cli.adopting import adopt
from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath
from agent.cli.output import emit, say

Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]
group = typer.Typer(help="The store: back up, restore, check, upgrade.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds this module's commands; adopt keeps its old name too."""
    for command in (backup, restore, check, upgrade, adopt):
        group.command()(command)
    app.add_typer(group, name="db")
    app.command()(adopt)


def backup(
    path: Annotated[Path, typer.Argument(help="The file to write.")], config: ConfigPath = DEFAULT_CONFIG, force: Force = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Writes a consistent copy of the store, even during a run. It contains no key and no signed transaction."""
    from agent import api

    document = api.backup_store(config, path, force)
    emit(document, as_json, lambda: say(f"Copied to {document['backup']} ({document['bytes']:,} bytes)."))


def restore(
    path: Annotated[Path, typer.Argument(help="A file that db backup wrote.")], config: ConfigPath = DEFAULT_CONFIG, force: Force = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Restores a backup. Nothing is sent until trimtab adopt; with --force the old store is kept beside it."""
    from agent import api

    document = api.restore_store(config, path, force)

    def show() -> None:
        say(f"Restored to {document['store']}.")
        if document["kept"] is not None:
            say(f"The store before it is kept as {document['kept']}.")
        say("Nothing is sent from it until: trimtab db adopt")

    emit(document, as_json, show)


def check(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Checks the whole store for damage."""
    from agent import api

    document = api.check_store(config)
    copy = "" if document["copy"] is None else f", a copy ({document['copy']}) that nobody has adopted"
    text = f"{document['store']} is sound: version {document['version']}, wallet {document['wallet']}, chain {document['chain_id']}{copy}."
    emit(document, as_json, lambda: say(text))


def upgrade(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Upgrades the store to this version and keeps a copy. Any command does the same with an older store."""
    from agent import api

    document = api.upgrade_store(config)

    def show() -> None:
        if document["before"] == document["version"]:
            say(f"The store is of version {document['version']} already.")
            return
        say(f"The store went from version {document['before']} to {document['version']}; before is kept as {document['backup']}.")

    emit(document, as_json, show)
