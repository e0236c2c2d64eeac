"""Commands about the ledger: pnl, export, books check, books journal, books open."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, OnPaper, books_of, marked
from agent.cli.output import emit, out, say, waiting

Document = dict[str, Any]
group = typer.Typer(help="The double-entry ledger: check, list, restart.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    app.command()(pnl)
    app.command()(export)
    for command in (check, journal, open_books):
        group.command("open" if command is open_books else None)(command)
    app.add_typer(group, name="books")


def pnl(
    period: Annotated[str, typer.Option("--period", help="day, week, month, year or all.")] = "all",
    benchmark: Annotated[str | None, typer.Option("--benchmark", help="Held token as benchmark; default: the numeraire.")] = None,
    last: Annotated[int, typer.Option("--last", min=1, max=400, help="Number of newest periods.")] = 12,
    now: Annotated[bool, typer.Option("--now", help="Read the chain first and record the current value.")] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    paper: OnPaper = False,
    as_json: AsJson = False,
) -> None:
    """Shows profit and loss per period against holding and a benchmark, with costs, realised and unrealised gains."""
    from agent import api
    from agent.cli import ledger_tables

    books = books_of(config, paper)
    if now:
        with waiting("Reading the chain"), api.open_agent(books) as agent:
            api.refresh(agent)
    document = marked(api.pnl(books, period, benchmark, last), paper)
    emit(document, as_json, lambda: ledger_tables.show_pnl(out, document))


def export(
    folder: Annotated[str, typer.Option("--out", help="Output folder.")],
    kind: Annotated[str, typer.Option("--format", help="rotki, csv or parquet.")] = "csv",
    native: Annotated[
        str | None, typer.Option("--native-asset", help="rotki's name of the native coin; required unless it is ETH.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    paper: OnPaper = False,
    as_json: AsJson = False,
) -> None:
    """Writes the books to files: rotki's generic trades and events, plain CSV, or Parquet."""
    from agent import api

    document = marked(api.export(books_of(config, paper), kind, folder, force, native), paper)

    def show() -> None:
        for file in document["files"]:
            say(f"{document['folder']}/{file['name']}: {file['rows']} rows")

    emit(document, as_json, show)


def check(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Rewrite entries that differ from their receipts.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Read only the store, not the chain.")] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Checks that each entry balances, matches its receipt, and that the sum matches the chain.

    Exit code 0 if all match, 12 if not.
    """
    from agent import api
    from agent.cli import ledger_tables
    from agent.errors import EXIT_OPERATOR

    document = api.check_books(config, rebuild)
    document["chain"] = None
    if not offline:
        with waiting("Reading the chain"), api.open_agent(config) as agent:
            document["chain"] = api.against_chain(agent)
        document["sound"] = document["sound"] and not document["chain"]["disagreement"]
    emit(document, as_json, lambda: ledger_tables.show_check(document))
    raise typer.Exit(0 if document["sound"] else EXIT_OPERATOR)


def journal(
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="Number of entries, newest first.")] = 20,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Lists the newest entries with their postings. Reads only the store."""
    from agent import api
    from agent.cli import ledger_tables

    document = api.journal_of_books(config, limit)
    emit(document, as_json, lambda: ledger_tables.show_journal(out, document))


def open_books(
    note: Annotated[str, typer.Option("--note", help="Why, for the record.")] = "",
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Restarts the ledger at the balances of the next look. Earlier entries are kept but no longer compared."""
    from agent import api

    document = api.open_books(config, note)
    emit(document, as_json, lambda: say(f"Book {document['number']} is open; it begins at the balances of the next look."))
