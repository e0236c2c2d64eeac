"""Commands about strategies over one wallet: strategies, strategies apply, strategies
deposits-to.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.display.output import (
    Document,
    ask,
    cell,
    emit,
    err,
    out,
    require_answerable,
    say,
    spinner,
)
from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Heading, Yes, command_group
from agent.errors import EXIT_REFUSED

if TYPE_CHECKING:
    from rich.console import Console


group = command_group(
    Heading.TRADE,
    50,
    "strategies",
    "Several strategies over one wallet: capital, returns, health.",
    has_default=True,
)


@group.callback()
def strategies(
    context: typer.Context, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False
) -> None:
    """Capital, share, unit value, return, Sharpe ratio and state of each strategy, and what they
    exchange among themselves.
    """
    if context.invoked_subcommand is not None:
        return
    from agent import app as api

    with spinner("Reading the chain"), api.open_agent(config) as agent:
        document = api.strategies(agent)
    emit(document, as_json, lambda: show(out, document))


@group.command()
def apply(config: ConfigPath = DEFAULT_CONFIG, yes: Yes = False, as_json: AsJson = False) -> None:
    """Reconciles the strategy books with wallet and config: closes, opens and splits in kind, after
    confirmation.
    """
    from agent import app as api

    with api.open_agent(config) as agent, spinner("Reading the chain") as wait:

        def sure(document: Document) -> bool:
            require_answerable(yes)  # only if there is something to ask
            if yes:
                return True
            with wait.aside():
                err.print(cell(document["why"]))
                show(err, document)
                return ask("Adopt these books?")

        document = api.take_over_strategies(agent, sure)
    emit(document, as_json, lambda: _applied(document))
    raise typer.Exit(0 if document["applied"] else EXIT_REFUSED)


@group.command("deposits-to")
def deposits_to(
    name: Annotated[str, typer.Argument(help="Name of a strategy, or all.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Sets the strategy that receives deposits and pays withdrawals; all shares them by capital."""
    from agent import app as api

    document = api.route_transfers(config, name)
    to = document["flows_to"]
    emit(
        document,
        as_json,
        lambda: say(
            "Shared by capital."
            if to is None
            else f"Deposits and withdrawals are of {to} from now on."
        ),
    )


def show(console: Console, document: Document) -> None:
    """Print a document of strategies."""
    from agent.cli.display import tables

    unit = document["numeraire"]
    standing = tables.table(
        f"Strategies at block {document['block']}: {tables.money(document['total_value'])} {unit}",
        ("strategy", "state", "since"),
        ("capital", "share", "wanted"),
        order=("strategy", "capital", "share", "wanted", "state", "since"),
    )
    doing = tables.table("How they do", ("strategy",), ("unit value", "return", "Sharpe", "costs"))
    for one in document["strategies"]:
        standing.add_row(
            cell(one["name"]),
            tables.money(one["capital"]),
            _share(one["share_bps"]),
            _share(one["target_share_bps"]),
            cell(one["state"], "yellow" if one["state"] == "paused" else "green"),
            datetime.fromtimestamp(one["since_s"], UTC).strftime("%Y-%m-%d %H:%M"),
        )
        doing.add_row(
            cell(one["name"]),
            "" if one["unit_value"] is None else tables.amount(one["unit_value"], 6),
            _share(one["return_bps"]),
            one["sharpe"] or "not known",
            tables.money(one["costs"]),
        )
    console.print(standing)
    console.print(doing)
    for one in document["strategies"]:
        console.print(holdings(one, unit))
        if one["why"]:
            console.print(cell(f"{one['name']} is {one['state']}: {one['why']}", "yellow"))
    if document["fault"]:
        console.print(cell(document["fault"], "bold red"))
    for line in netting_lines(document["together"], unit):
        console.print(cell(line))


def holdings(one: Document, unit: str) -> Any:
    """Table of one strategy's holdings against its weights."""
    from agent.cli.display import tables

    made = tables.table(one["name"], ("token",), ("amount", f"value in {unit}", "weight", "wanted"))
    for item in one["holdings"]:
        made.add_row(
            cell(item["symbol"]),
            tables.amount(item["amount"]),
            tables.money(item["value"]),
            _share(item["weight_bps"]),
            _share(item["target_bps"]),
        )
    return made


def netting_lines(found: Document | None, unit: str) -> list[str]:
    """Sentences on internal netting between strategies; empty without any."""
    if found is None:
        return []
    lines = [f"{name}: {reason}" for name, reason in found["reasons"].items()]
    lines += [
        f"Internal: {one['from']} gives {one['to']} {one['value']} {unit} of its capital"
        for one in found["capital_moved"]
    ]
    lines += [
        f"{one['symbol']}: {one['bought']} {unit} wanted, {one['sold']} offered; {one['crossed']}"
        f" netted internally, {one['net']} left for the market"
        for one in found["netted"]
    ]
    saved = found["saved_fees"]
    return lines + (
        [f"Exchanged inside: {found['crossed']} {unit}; pool fees saved: at least {saved} {unit}"]
        if saved != "0"
        else []
    )


def _applied(document: Document) -> None:
    show(out, document)
    say("The books are adopted." if document["applied"] else "Nothing was changed.")


def _share(value_bps: int | None) -> str:
    return "" if value_bps is None else f"{value_bps / 100:.2f} %"
