"""The command that changes a running bot's config: edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from agent.cli.money import show_sent
from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Verbose, Yes
from agent.cli.output import ask, cell, emit, err, interactive, out, require_answerable, say, waiting
from agent.errors import EXIT_REFUSED, ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from agent.api import Agent
    from agent.api.editing import Editing
    from agent.api.removing import Removing
    from agent.execution.outcome import Outcome

Document = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Adds this module's command."""
    app.command()(edit)


def edit(
    sets: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, such as policy.cooldown=2h.")] = None,
    targets: Annotated[list[str] | None, typer.Option("--target", help="SYMBOL=SHARE, such as WETH=40%.")] = None,
    adds: Annotated[list[str] | None, typer.Option("--add", help="SYMBOL=ADDRESS:SHARE, a new asset.")] = None,
    removes: Annotated[list[str] | None, typer.Option("--remove", help="SYMBOL; its target is set to 0 % while it is held.")] = None,
    confirm: Annotated[bool, typer.Option("--confirm", help="Confirm the file after a manual change.")] = False,
    in_rounds: Annotated[bool, typer.Option("--in-rounds", help="Allow a transition in parts, each within the limits.")] = False,
    keep_holdings: Annotated[bool, typer.Option("--keep-holdings", help="Keep the balance of a removed asset in the wallet.")] = False,
    send: Annotated[bool, typer.Option("--send", help="With --remove: sell the balance, then remove the asset.")] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    yes: Yes = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Changes tokens, weights and parameters: shows the transition, asks, and writes the whole config. Without options it opens $EDITOR.

    Nothing is sent without --send; a run uses the new config at its next look. Without a terminal it only shows the change, unless --yes.
    """
    from agent.api import editing, removing
    from agent.cli import documents
    from agent.cli.portfolio import confirmer
    from agent.config.edits import applied, parse_changes

    changes = parse_changes(sets or (), targets or (), adds or (), removes or ())
    if confirm and changes.any:
        raise ConfigError("--confirm takes no other option", "omit the others")
    if not confirm and not changes.any and not interactive():
        raise ConfigError("no change given, and no terminal for an editor", "use --set, --target, --add, --remove or --confirm")

    if send and not changes.removes:
        raise ConfigError("--send needs --remove", "omit --send; a run uses the edited config at its next look")
    if send:
        require_answerable(yes)

    def make(text: str) -> str:
        if confirm:
            return text
        return applied(text, changes) if changes.any else _edited(text)

    asking = yes or interactive()
    with waiting("Reading the chain") as wait:

        def answer(found: Editing, agent: Agent) -> bool:
            if yes:
                return editing.trusted(found, agent)
            with wait.aside():
                show_editing(err, editing_document(found), documents.decimals(agent.portfolio), verbose=verbose)
                return ask("Confirm this?" if confirm else "Write this?")

        asked = answer if asking else None
        if changes.removes:

            def sale(agent: Agent, outcome: Outcome) -> bool:
                return confirmer(agent, yes, wait, verbose=verbose)(outcome)

            removed = removing.remove(
                config,
                changes,
                in_rounds=in_rounds,
                keep_holdings=keep_holdings,
                unseen=yes,
                confirm=asked,
                send=send,
                confirm_sale=sale,
                progress=wait.update,
            )
            found, document = removed.edited, removing_document(removed)
        else:
            found = editing.edit(config, make, in_rounds=in_rounds, keep_holdings=keep_holdings, pins=True, unseen=yes, confirm=asked)
            document = editing_document(found)
        with wait.aside():
            known = documents.decimals(found.transition.step_input.portfolio) if verbose and found.transition is not None else None
            shown = known if document["state"] == "planned" else None
            emit(document, as_json, lambda: show_editing(out, document, shown, verbose=verbose))
    raise typer.Exit(EXIT_REFUSED if document["state"] in ("declined", "unfinished") else 0)


def _edited(text: str) -> str:
    """What the owner makes of it in his editor, in a file for his eyes alone; the same where he saves nothing."""
    try:
        return click.edit(text, extension=".toml") or text
    except click.ClickException as error:
        raise ConfigError(f"$EDITOR: {error.format_message()}", "nothing was changed; set EDITOR, or use --set") from None


def editing_document(found: Editing) -> Document:
    """An edit as a document."""
    from agent.cli import documents

    return {
        "state": found.state,
        "changes": list(found.changes),
        "by_hand": list(found.by_hand),
        "transition": None if found.transition is None else documents.plan(found.transition),
        "first_round": None if found.first is None else documents.plan(found.first),
        "rounds": found.rounds,
        "warnings": list(found.warnings),
        "next": list(found.following),
        "taken_in": list(found.taken_in.told),
        "contracts": list(found.taken_in.rows),
        "backup": found.backup,
        "reason": "",
        "transactions": [],
    }


def removing_document(found: Removing) -> Document:
    """The same of an asset that leaves, with what was sent for it."""
    from agent.cli import documents

    sent = [documents.transaction(one) for one in found.transactions]
    return editing_document(found.edited) | {"state": found.state, "reason": found.reason, "transactions": sent}


def show_editing(console: Console, document: Document, decimals: dict[str, int] | None, *, verbose: bool = False) -> None:
    """An edit for people; with the decimals of its tokens its plan too."""
    from agent.api.naming import named
    from agent.cli import plan_tables, tables

    if document["state"] == "unchanged":
        console.print(cell("Nothing changes."))
        for line in document["warnings"]:
            console.print(cell(f"note: {line}", "yellow"))
        return
    for title, lines in (("Changed by hand before, and confirmed with this:", document["by_hand"]), ("Changes:", document["changes"])):
        if lines:
            console.print(title)
        for line in lines:
            console.print(cell(line, "green" if line.startswith("+") else "red"))
    for line in document["taken_in"]:
        console.print(cell(line))
    if document["contracts"]:
        made = tables.table("Contracts of what comes in", ("state", "address", "what", "liquidity", "code hash"))
        for row in document["contracts"]:
            style = "" if row["state"] == "unchanged" else "yellow" if row["state"] == "new" else "bold red"
            made.add_row(cell(row["state"], style), cell(row["address"]), cell(row["what"]), row["liquidity"], cell(row["code_hash"]))
        console.print(made)
    plan = document["transition"]
    if decimals is not None and plan is not None and plan["legs"]:
        plan_tables.show_plan(console, plan, decimals, verbose=verbose, more="--verbose")
    if plan is not None:
        unit, cost = plan["numeraire"], named(plan["reason"], plan["pools"])
        if plan["legs"]:
            cost = f"{tables.money(plan['turnover'])} {unit} of turnover for {tables.amount(plan['cost']['total'], 4)} {unit}"
        console.print(cell(f"The transition: {cost}; rebalances within limits.turnover: {document['rounds']}"))
    for line in document["warnings"]:
        console.print(cell(f"note: {line}", "yellow"))
    show_sent(console, document)
    if document["state"] == "unfinished":
        console.print(cell(document["reason"], "yellow"))
    elif document["state"] in ("written", "removed"):
        kept = "" if document["backup"] is None else f"; the file before is {document['backup']}"
        console.print(cell(f"Written{kept}. A run that goes on takes it up before it acts again."))
        for line in document["next"]:
            console.print(cell(f"Next: {line}"))
    elif console is out:
        say("Nothing was written. Add --yes, or run it in a terminal." if document["state"] == "planned" else "Nothing was written.")
