"""Commands of the kill switch: pause, softly or hard, and resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Send, Yes
from agent.cli.output import ask, cell, emit, err, note, out, require_answerable, say, waiting
from agent.errors import EXIT_REFUSED, EXIT_RETRYABLE, ConfigError

if TYPE_CHECKING:
    from agent.api import Halted, TakenBack
    from agent.cli.tables import FigureTable

Document = dict[str, Any]

HANDED_OVER = "a run takes them back once it has the wallet; where none goes on, nobody does: do this again when the wallet is free"
"""Who has the wallet may be a command as well, which only ends."""


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    for command in (pause, resume):
        app.command()(command)


def pause(
    reason: Annotated[str, typer.Option("--reason", help="Reason, shown with the pause.")] = "paused by the owner",
    hard: Annotated[bool, typer.Option("--hard", help="Also cancel pending transactions and set allowances to zero.")] = False,
    send: Send = False,
    yes: Yes = False,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Stops all sending at once, until resume. Sent transactions are still watched.

    With --hard it also shows what waits for a block and what contracts may still take, and with --send takes both back; a
    trimtab that runs does it instead of this command.
    """
    from agent import api

    if not hard:
        if send or yes:
            raise ConfigError("--send and --yes go with --hard: a soft pause sends nothing", "leave them out, or add --hard")
        paused = api.pause(config, reason)
        emit(paused, as_json, lambda: say(f"Paused: {paused['reason']}. Nothing is sent until: trimtab resume"))
        if "store" in paused:
            note(f"Only the file says so: {paused['store']}")
        return
    if send:
        require_answerable(yes)
    with waiting("Paused. Reading the chain") as wait:

        def confirm(found: TakenBack) -> bool:
            if not found.waiting and not found.allowed:
                return True
            with wait.aside():
                err.print(_table(_waits(found)))
                return ask("Paused. Take all of this back?")

        halted = api.pause_hard(config, reason, send=send, sure=yes, confirm=confirm, progress=wait.update)
    document = _document(halted, send)
    emit(document, as_json, lambda: _show(document))
    raise typer.Exit({"declined": EXIT_REFUSED, "failed": EXIT_RETRYABLE, "handed over": EXIT_RETRYABLE}.get(document["outcome"], 0))


def resume(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Lifts the pause."""
    from agent import api

    document = api.resume(config)
    emit(document, as_json, lambda: say("Resumed."))


def _waits(found: TakenBack) -> Document:
    from agent.cli import documents

    return {
        "cancel": [documents.transaction(intent) for intent in found.waiting],
        "revoke": [{"token": one.token, "symbol": one.label, "spender": one.spender, "holder": one.holder} for one in found.allowed],
    }


def _document(halted: Halted, send: bool) -> Document:
    """`outcome`: planned, declined, clear (nothing was left), done, failed (something stays), or handed over: a run will, where one is."""
    from agent.cli import documents

    found = _waits(halted.found)
    clear = not found["cancel"] and not found["revoke"]
    if halted.outcome is not None:
        outcome, told = halted.outcome.kind.value.replace("halt", "clear"), halted.outcome.reason
    elif halted.held and not clear:
        outcome, told = "handed over", f"{halted.held}; {HANDED_OVER}"
    elif clear:
        outcome, told = "clear", "nothing waits, and nothing may be taken"
    else:
        outcome = "declined" if send else "planned"
        told = "not confirmed; paused all the same" if send else "paused; to take this back: trimtab pause --hard --send"
    sent = () if halted.outcome is None else halted.outcome.transactions
    return {
        "paused": True,
        "hard": halted.hard,
        "reason": halted.reason,
        "outcome": outcome,
        "told": told,
        **found,
        "transactions": [documents.transaction(intent) for intent in sent],
    }


def _show(document: Document) -> None:
    from agent.cli import tables

    if document["outcome"] in ("planned", "declined", "handed over"):
        out.print(_table(document))
    if document["transactions"]:
        out.print(tables.transactions(document))
    say(f"Paused ({'hard' if document['hard'] else 'soft'}): {document['reason']}. {document['outcome']}: {document['told']}")
    say("Nothing is traded until: trimtab resume")


def _table(document: Document) -> FigureTable:
    """What would be taken back."""
    from agent.cli import tables

    made = tables.table("Takes back", ("", "what", "of"))
    for item in document["cancel"]:
        made.add_row(cell("cancel"), cell(item["note"]), cell(f"{item['hash'] or 'never signed'}, nonce {item['nonce']}"))
    for item in document["revoke"]:
        made.add_row(cell("to zero"), cell(f"allowance of {item['symbol']}"), cell(f"{item['holder']} {item['spender']}"))
    return made
