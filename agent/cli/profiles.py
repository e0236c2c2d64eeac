"""Commands about whole portfolios: templates to start from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agent.cli.options import AsJson
from agent.cli.output import cell, emit, out, say

Document = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    app.command()(templates)


def templates(
    network: Annotated[str, typer.Option("--network", help="Which chain.")] = "ethereum",
    as_json: AsJson = False,
) -> None:
    """Lists the ready portfolios of init --template: what they hold, when they act, what binds them."""
    from agent import api
    from agent.cli import tables

    document = api.templates(network)

    def show() -> None:
        made = tables.table(f"Templates on {network}", ("name", "what it holds", "when it acts", "limits"))
        for one in document["templates"]:
            held = ", ".join(f"{token['symbol']} {token['target']}" for token in one["tokens"])
            classes = ", ".join(f"{name} {bps / 100:g}%" for name, bps in one["shares_bps"].items())
            trigger = ", ".join(f"{name} {value}" for name, value in one["policy"]["trigger"].items() if name != "kind")
            when = f"{trigger}; to {one['policy']['destination']}; cooldown {one['policy']['cooldown']}"
            limits = ", ".join(f"{name} {value}" for name, value in one["limits"].items())
            notional = f"\nfutures at most {one['futures_notional']} of spot" if one["futures_notional"] else ""
            chosen = f"\nthen chosen by {one['weights']['kind']} every {one['weights']['every']}" if one["weights"] else ""
            made.add_row(cell(one["name"], "bold"), cell(f"{one['about']}\n{classes}\n{held}{chosen}"), cell(when), cell(limits + notional))
        out.print(made)
        say(f"Futures: {document['futures']}.")
        say("To start from one: trimtab init --template NAME --wallet ADDRESS --rpc VARIABLE=OPERATOR")

    emit(document, as_json, show)
