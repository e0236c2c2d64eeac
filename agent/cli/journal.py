"""Commands about transactions: txs, cancel, reconcile."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Send, Yes
from agent.cli.output import ask, cell, emit, err, note, out, require_answerable, say, waiting
from agent.errors import EXIT_REFUSED, EXIT_RETRYABLE

Document = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    for command in (txs, cancel, reconcile):
        app.command()(command)


def txs(
    config: ConfigPath = DEFAULT_CONFIG,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Number of rows, newest first.")] = 20,
    open_only: Annotated[bool, typer.Option("--open", help="Only pending transactions.")] = False,
    as_json: AsJson = False,
) -> None:
    """Lists recorded transactions with their outcome, and those still pending. Reads only the store; sends nothing."""
    from agent import api

    document = api.transactions(config, limit, open_only)
    emit(document, as_json, lambda: _show(document, "open" if open_only else "written down"))


def cancel(config: ConfigPath = DEFAULT_CONFIG, send: Send = False, yes: Yes = False, as_json: AsJson = False) -> None:
    """Cancels pending transactions (same nonce, higher fee). Without --send it only shows them.

    Exit code 0 if nothing is pending, 11 while a cancel is unmined.
    """
    from agent import api

    found = api.waiting(config)
    if not found["transactions"] or not send:
        emit(found, as_json, lambda: _shown(found, "To cancel them: trimtab cancel --send"))
        raise typer.Exit
    if not yes:
        require_answerable(yes)
        err.print(_table(found))
        if not ask("Cancel this?"):
            emit(found, as_json, lambda: say("Nothing was sent."))
            raise typer.Exit(EXIT_REFUSED)
    with api.open_agent(config) as agent, waiting("Cancelling") as wait:
        document = api.cancel(agent, progress=wait.update)
    emit(document, as_json, lambda: _shown(document, "Some still wait: trimtab cancel --send once more, or trimtab reconcile"))
    raise typer.Exit(EXIT_RETRYABLE if document["waiting"] else 0)


def reconcile(config: ConfigPath = DEFAULT_CONFIG, send: Send = False, yes: Yes = False, as_json: AsJson = False) -> None:
    """Settles the journal against the chain and books what was mined. With --send it resends or cancels lost and late transactions.

    Exit code 0 if nothing is pending, 11 if a transaction is, 12 if an operator is needed.
    """
    from agent import api

    if send and not yes:
        require_answerable(yes)
        found = api.waiting(config)
        if found["transactions"]:
            err.print(_table(found))
        if not ask("Send again what is lost, and cancel what is late?"):
            emit(found, as_json, lambda: say("Nothing was sent."))
            raise typer.Exit(EXIT_REFUSED)
    with api.open_agent(config) as agent, waiting("Reading the chain") as wait:
        document = api.reconcile(agent, send=send, progress=wait.update)
    emit(document, as_json, lambda: _shown(document, "To send again what is lost, and cancel what is late: trimtab reconcile --send"))
    raise typer.Exit(EXIT_RETRYABLE if document["waiting"] else 0)


def _shown(document: Document, hint: str) -> None:
    """What was open, what is left, and what can be done."""
    if document["transactions"]:
        _show(document)
    if document.get("booked"):
        say(f"Booked: {document['booked']}.")
    if document["waiting"]:
        note(hint)
    else:
        say("Nothing waits.")


def _show(document: Document, which: str = "written down") -> None:
    if not document["transactions"]:
        say(f"No transaction is {which}.")
        return
    out.print(_table(document))
    say(f"{document['waiting']} waiting, {document['confirming']} waiting for confirmations.")


def _table(document: Document) -> Any:
    from agent.cli import tables

    made = tables.table(
        "Transactions",
        ("kind", "status", "hash", "what"),
        ("nonce", "block", "gwei"),
        order=("nonce", "kind", "status", "gwei", "block", "what", "hash"),
    )
    for item in document["transactions"]:
        status = item["status"]
        made.add_row(
            str(item["nonce"]),
            item["kind"],
            cell(status, tables.STATE_STYLES.get(status, "yellow")),
            f"{int(item['max_fee_wei']) / 10**9:.3g}",
            "" if item["block"] is None else str(item["block"]),
            cell(item["note"]),
            cell(item["hash"]),
        )
    return made
