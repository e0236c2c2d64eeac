"""Commands about conditional orders: orders, orders set, orders arm, orders disarm."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli.display.output import (
    Document,
    ask,
    cell,
    emit,
    note,
    out,
    require_answerable,
    say,
    spinner,
)
from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Heading, command_group
from agent.errors import EXIT_REFUSED, ConfigError

READING = "Reading the chain"
group = command_group(
    Heading.TRADE,
    70,
    "orders",
    "Entry prices, stop losses, take profits and trailing stops.",
    has_default=True,
)
Subject = Annotated[str, typer.Argument(help="Symbol of an asset, portfolio, or all.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation (for machines).")]
Level = Annotated[
    str | None,
    typer.Option(help='A price in the numeraire such as 1500, a distance such as 10%, or "off".'),
]


@group.callback()
def orders(
    context: typer.Context, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False
) -> None:
    """Every order: its level, the price now, the distance between them, its stage and since when.
    Changes nothing.
    """
    if context.invoked_subcommand is not None:
        return
    from agent import app as api

    with spinner(READING), api.open_agent(config) as agent:
        document = api.standing_orders(agent)
    emit(document, as_json, lambda: show(document))


@group.command("set")
def set_(
    subject: Annotated[str, typer.Argument(help="Symbol of an asset, or portfolio.")],
    entry: Level = None,
    stop_loss: Level = None,
    take_profit: Level = None,
    trailing_stop: Level = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Writes order levels to the config file. A run uses them before it acts again; trimtab orders
    lists them.
    """
    from agent import app as api

    given = {
        "entry": entry,
        "stop_loss": stop_loss,
        "take_profit": take_profit,
        "trailing_stop": trailing_stop,
    }
    levels = {kind: level for kind, level in given.items() if level is not None}
    if not levels:
        raise ConfigError(
            "orders set: no level is given",
            f"for example: trimtab orders set {subject} --stop-loss 10%",
        )
    document = api.set_orders(config, subject, levels)

    def message() -> None:
        for kind, (before, after) in document["changes"].items():
            say(f"{kind} of {subject}: {before or 'off'} -> {after or 'off'}")
        if not document["changes"]:
            say("The config has this value already.")
        else:
            note("A running trimtab run applies it before it acts again.")

    emit(document, as_json, message)


@group.command()
def arm(
    subject: Subject, config: ConfigPath = DEFAULT_CONFIG, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Re-arms orders. The next rebalance buys the asset back; levels count from its price then."""
    _change_orders("arm", subject, config, yes, as_json)


@group.command()
def disarm(
    subject: Subject,
    kind: Annotated[
        list[str] | None,
        typer.Option("--only", help="entry, stop_loss, take_profit or trailing_stop; repeatable."),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Disarms orders until re-armed. The next rebalance buys back what they kept out."""
    _change_orders("disarm", subject, config, yes, as_json, kind or ())


def _change_orders(
    verb: str,
    subject: str,
    config: ConfigPath,
    yes: bool,
    as_json: bool,
    kinds: list[str] | tuple[str, ...] = (),
) -> None:
    from agent import app as api
    from agent.model import OrderKind

    names = [kind.value for kind in OrderKind]
    if strange := [kind for kind in kinds if kind not in names]:
        raise ConfigError(
            f"--only: {strange[0]!r} is not a kind of order", f"choose from {', '.join(names)}"
        )
    require_answerable(yes)
    with spinner(READING) as wait, api.open_agent(config) as agent:
        with wait.aside():
            if not yes and not ask(
                f"{verb} the orders of {subject}; what they kept out is bought back by the next"
                " rebalance"
            ):
                raise typer.Exit(EXIT_REFUSED)
        document: Document
        if verb == "arm":
            document = api.arm_orders(agent, subject)
        else:
            document = api.disarm_orders(agent, subject, [OrderKind(kind) for kind in kinds])
        with wait.aside():
            emit(document, as_json, lambda: _show_change(document))


def _show_change(document: Document) -> None:
    armed = "armed" in document
    for item in document["armed" if armed else "disarmed"]:
        state = "is armed at the next cycle" if armed else "is out of force"
        say(f"{item['kind']} of {item['subject']} {state}")
    for subject in document["back_in"]:
        say(f"{subject} comes back in by the next rebalance")


def show(document: Document) -> None:
    """Print all orders as tables."""
    from agent.cli.display import tables

    if document["limit_orders"]:
        names = ("id", "order", "limit", "market", "off", "until")
        waiting = tables.table("Limit orders", (*names[:4], names[5]), names[4:5], order=names)
        for item in document["limit_orders"]:
            off = "" if item["off_bps"] is None else f"{item['off_bps'] / 100:+.2f} %"
            market = "not known" if item["market"] is None else item["market"][0]
            waiting.add_row(
                item["id"], cell(item["what"]), item["limit"][0], market, off, item["until"]
            )
        out.print(waiting)
    if not document["orders"]:
        if document["limit_orders"]:
            return
        say(
            "There are no orders. Write entry, stop_loss, take_profit or trailing_stop: trimtab"
            " orders set, or docs/orders.md"
        )
        return
    title = f"Orders at block {document['block']}, prices in {document['numeraire']}"
    made = tables.table(title, ("of", "order", "stage", "since"), ("set", "level", "price", "away"))
    for item in document["orders"]:
        away = "" if item["distance_bps"] is None else f"{item['distance_bps'] / 100:+.2f}%"
        stage = (
            f"{item['stage']} ({item['unconfirmed']}, not confirmed)"
            if item["unconfirmed"]
            else item["stage"]
        )
        since = item["since"] + (
            f", at {tables.amount(item['fired_at'], 4)}" if item["fired_at"] else ""
        )
        figures = [
            tables.amount(item[name], 4) if item[name] else "" for name in ("level", "price")
        ]
        made.add_row(
            cell(item["subject"]),
            item["kind"],
            cell(stage),
            cell(since),
            item["terms"],
            *figures,
            away,
        )
    out.print(made)
    for line in document["told"]:
        say(line)
    for line in document["stuck"]:
        out.print(cell(line, "bold red"))
    for line in document["contradictions"]:
        out.print(cell(f"Nothing is traded: {line}", "bold red"))
