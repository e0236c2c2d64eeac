"""Commands around the life of a bot: stop, revoke, rehearse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import acting
from agent.cli.money import payment, show_remedies, show_sale, show_sent
from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Send, Verbose, Yes
from agent.cli.output import ask, cell, err, out, say
from agent.errors import EXITS, ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from agent.api import Agent
    from agent.api.ending import Ending
    from agent.api.rehearsing import Leg, Rehearsal
    from agent.api.revoking import Revoking

Document = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    for command in (stop, revoke, rehearse):
        app.command()(command)


def stop(
    keep: Annotated[bool, typer.Option("--keep", help="Keep all coins (default).")] = False,
    to_stable: Annotated[bool, typer.Option("--to-stable", help="Sell everything for the numeraire, after withdrawing liquidity.")] = False,
    send_to: Annotated[str | None, typer.Option("--send-to", help="Pay the remaining balances to this confirmed address.")] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Ends the bot: cancels pending transactions, sets allowances to zero, and sells and pays out if asked. Resumes an interrupted stop.

    run and rebalance then refuse until trimtab resume.
    """
    from agent.api import ending

    if keep and (to_stable or send_to is not None):
        raise ConfigError("--keep cannot be combined with --to-stable or --send-to", "use one of them")
    with acting.opened(config, send=send, yes=yes) as (agent, wait):

        def show(console: Console, document: Document) -> None:
            _show_ending(console, document, agent, verbose=verbose)

        def confirm(found: Ending) -> bool:
            if yes and not found.to_stable and found.to is None:
                return True  # an end that sells and pays nothing is never held up
            return acting.sure(agent, wait, _ending(found, agent), show, "Stop the bot like this?", yes=yes)

        found = ending.stop(agent, to_stable=to_stable, send_to=send_to, send=send, confirm=confirm, progress=wait.update)
        document = _ending(found, agent)
        acting.told(wait, document, show, as_json=as_json)
    raise typer.Exit(EXITS.get(document["state"], 0))


def revoke(
    tokens: Annotated[list[str] | None, typer.Argument(help="Symbols or addresses; every token of the config unless said.")] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Lists the allowances of routers, position managers and Permit2; with --send sets them to zero."""
    from agent.api import revoking

    with acting.opened(config, send=send, yes=yes) as (agent, wait):

        def confirm(found: Revoking) -> bool:
            if yes:
                return True
            with wait.aside():
                _show_revoking(err, _revoking(found))
                return ask("Set all of this to zero?")

        document = _revoking(revoking.revoke(agent, tokens or (), send=send, confirm=confirm, progress=wait.update))
        acting.told(wait, document, _show_revoking, as_json=as_json)
    raise typer.Exit(EXITS.get(document["state"], 0))


def rehearse(
    token: Annotated[str | None, typer.Option("--token", help="Asset to trade; default: the largest target.")] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Swaps the smallest allowed amount out and back, and compares both swaps with the prediction."""
    from agent.api import rehearsing

    with acting.opened(config, send=send, yes=yes) as (agent, wait):

        def show(console: Console, document: Document) -> None:
            _show_rehearsal(console, document, agent)

        def confirm(found: Rehearsal) -> bool:
            return acting.sure(agent, wait, _rehearsal(found, agent), show, "Trade this there and back?", yes=yes)

        if send:
            agent.require_not_stopped()
        document = _rehearsal(rehearsing.rehearse(agent, token, send=send, confirm=confirm, progress=wait.update), agent)
        acting.told(wait, document, show, as_json=as_json)
    raise typer.Exit(EXITS.get(document["state"], 0))


def _ending(found: Ending, agent: Agent) -> Document:
    from agent.cli import documents

    return {
        "state": found.state,
        "reason": found.reason,
        "to_stable": found.to_stable,
        "to": found.to,
        "cancel": [documents.transaction(one) for one in found.waiting],
        "revoke": [{"token": one.token, "symbol": one.label, "spender": one.spender, "holder": one.holder} for one in found.allowed],
        "sale": None if found.sale is None else documents.plan(found.sale),
        "payments": [payment(one, agent.portfolio) for one in found.payments],
        "verdicts": [documents.verdict(one) for one in found.verdicts],
        "remedies": list(found.remedies),
        "transactions": [documents.transaction(one) for one in found.transactions],
        "left": list(found.left),
        "block": found.step_input.snapshot.head.number,
    }


def _show_ending(console: Console, document: Document, agent: Agent, *, verbose: bool) -> None:
    from agent.cli import tables

    if document["state"] in ("planned", "refused"):
        made = tables.table("To stop", ("", "what"))
        for one in document["cancel"]:
            made.add_row(cell("cancel"), cell(one["note"]))
        for one in document["revoke"]:
            made.add_row(cell("to zero"), cell(f"allowance of {one['symbol']}, {one['holder']} {one['spender']}"))
        made.add_row(cell("sell"), cell("everything for the numeraire" if document["to_stable"] else "nothing"))
        for one in document["payments"]:
            made.add_row(cell("pay"), cell(f"{one['amount']} {one['symbol']} to {document['to']}"))
        console.print(made)
        if document["sale"] is not None:
            show_sale(console, document["sale"], agent, verbose=verbose)
    show_sent(console, document)
    for line in document["left"] if document["state"] not in ("planned", "refused", "declined") else ():
        console.print(cell(f"stays in the wallet: {line}"))
    if document["state"] == "planned":
        if console is out:
            say("Dry run: nothing was sent. Add --send to stop the bot.")
    else:
        console.print(cell(f"{document['state']}: {document['reason']}"))
    show_remedies(console, document)


def _revoking(found: Revoking) -> Document:
    from agent.cli import documents

    rows = [
        {
            "token": one.token,
            "symbol": one.label,
            "spender": one.spender,
            "holder": one.holder,
            "raw": None if one.raw is None else str(one.raw),
        }
        for one in found.found
    ]
    sent = [documents.transaction(one) for one in found.transactions]
    return {"state": found.state, "reason": found.reason, "allowances": rows, "transactions": sent}


def _show_revoking(console: Console, document: Document) -> None:
    from agent.cli import tables

    if document["allowances"]:
        made = tables.table("May be taken", ("token", "by", "spender"), ("base units",), order=("token", "base units", "by", "spender"))
        for one in document["allowances"]:
            made.add_row(cell(one["symbol"]), one["raw"] or "cannot be read", cell(one["holder"]), cell(one["spender"]))
        console.print(made)
    show_sent(console, document)
    told = {"clear": "No contract that is known here may take anything.", "planned": "Add --send to set this to zero."}
    console.print(cell(told.get(document["state"], f"{document['state']}: {document['reason']}")))


def _rehearsal(found: Rehearsal, agent: Agent) -> Document:
    from agent.cli import documents

    sent = [documents.transaction(one) for outcome in found.outcomes for one in outcome.transactions]
    return {
        "state": found.state,
        "verdict": found.verdict,
        "numeraire": agent.portfolio.numeraire.label,
        "plan": documents.plan(found.outcomes[0]),
        "ways": [_way(one, agent) for one in found.ways],
        "cost": documents.money(found.cost, agent.portfolio),
        "predicted_cost": documents.money(found.predicted, agent.portfolio),
        "transactions": sent,
    }


def _way(one: Leg, agent: Agent) -> Document:
    from agent.cli import documents

    return {
        "token_in": one.sold.label,
        "token_out": one.bought.label,
        "amount_in_raw": str(one.in_raw),
        "predicted_raw": str(one.predicted_raw),
        "realised_raw": str(one.got_raw),
        "slippage_bps": float(one.slippage_bps),
        "gas_predicted": one.gas_predicted,
        "gas_used": one.gas_used,
        "gas_value": documents.money(one.gas_value, agent.portfolio),
    }


def _show_rehearsal(console: Console, document: Document, agent: Agent) -> None:
    from agent.cli import documents, tables
    from agent.units import decimal_text

    if document["state"] in ("planned", "refused"):
        show_sale(console, document["plan"], agent)
    if document["ways"]:
        decimals = documents.decimals(agent.portfolio)
        heads = ("sold", "predicted", "realised", "slippage bps", "gas predicted", "gas used")
        made = tables.table("There and back", ("",), heads)
        for one in document["ways"]:
            out_of = decimals[one["token_out"]]
            made.add_row(
                cell(f"{one['token_in']} for {one['token_out']}"),
                decimal_text(int(one["amount_in_raw"]), decimals[one["token_in"]]),
                *(decimal_text(int(one[name]), out_of) for name in ("predicted_raw", "realised_raw")),
                f"{one['slippage_bps']:.2f}",
                str(one["gas_predicted"]),
                str(one["gas_used"]),
            )
        console.print(made)
        unit = document["numeraire"]
        console.print(
            cell(f"It cost {document['cost']} {unit}, gas and approvals included; predicted: {document['predicted_cost']} {unit}")
        )
    show_sent(console, document)
    if document["state"] == "planned":
        if console is out:
            say("Dry run: nothing was sent. Add --send to trade it there and back.")
    else:
        console.print(cell(f"{document['state']}: {document['verdict']}"))
