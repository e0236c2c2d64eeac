"""Commands about liquidity positions: lp, lp take, lp forget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.display.output import Document, cell, emit, out, say, spinner
from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Heading, command_group

if TYPE_CHECKING:
    from agent.cli.display.tables import FigureTable


group = command_group(Heading.TRADE, 60, "lp", "Liquidity positions.", has_default=True)


@group.callback()
def lp(
    context: typer.Context, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False
) -> None:
    """Liquidity positions: value, impermanent loss so far and expected, fees, loss against
    rebalancing; and what is ignored.
    """
    if context.invoked_subcommand is not None:
        return
    from agent import app as api
    from agent.app.documents.positions import liquidity_document

    with spinner("Reading the chain"), api.open_agent(config) as agent:
        found = api.liquidity(agent)
    document = liquidity_document(found)
    emit(document, as_json, lambda: show(document))


@group.command()
def take(
    number: Annotated[str, typer.Argument(help="Number of a V3 position of the wallet.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Starts counting a position as the agent's own, for example after restoring a store."""
    from agent import app as api

    with spinner("Reading the chain"), api.open_agent(config) as agent:
        document = api.take_position(agent, number)
    emit(document, as_json, lambda: say(f"{document['position']} counts from here on."))


@group.command()
def forget(
    which: Annotated[str, typer.Argument(help="Number of a V3 position, or address of a pair.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Stops counting a position that was given away or should be ignored. Sends nothing."""
    from agent import app as api

    document = api.forget_position(config, which)
    emit(document, as_json, lambda: say(f"{document['position']} is no longer counted."))


def show(document: Document) -> None:
    """Print positions, forecasts, sums against their limits, and ignored positions."""
    if document["positions"]:
        out.print(_positions(document))
        out.print(_payable(document))
        out.print(_forecasts(document))
    else:
        say(
            "No confirmed liquidity position could be read."
            if document["unreadable"]
            else "No liquidity position is confirmed in the config."
        )
    if document["targets"]:
        out.print(_targets(document))
    for name, title in (("expected_loss", "Expected loss"), ("weight", "In liquidity")):
        say(f"{title}: {_sum(document[name], document['numeraire'])}")
    for text in (*document["unreadable"], *document["warnings"]):
        out.print(cell(f"Note: {text}", "yellow"))
    for item in document["ignored"]:
        tokens = " and ".join(item["tokens"])
        out.print(
            cell(
                f"Ignored, not confirmed in the config: {item['position']}, liquidity"
                f" {item['liquidity']} of {tokens}",
                "yellow",
            )
        )
    if document["ignored_more"]:
        out.print(
            cell(
                f"Ignored: {document['ignored_more']} more tokens of the position manager", "yellow"
            )
        )


def _positions(document: Document) -> FigureTable:
    from agent.cli.display import tables

    made = tables.table(
        f"Liquidity at block {document['block']}, in {document['numeraire']}",
        ("position", "state"),
        ("value", "if held", "loss", "fees", "LVR a day"),
    )
    for item in document["positions"]:
        figures = (tables.amount(item[key], 2) for key in ("value", "hold_value", "loss", "fees"))
        made.add_row(
            _short(item), cell(item["state"]), *figures, tables.amount(item["lvr_per_day"], 4)
        )
    return made


def _targets(document: Document) -> FigureTable:
    from agent.cli.display import tables

    order = ("pool", "share", "has", "value", "fees", "now")
    made = tables.table("Liquidity targets", ("pool", "now"), order[1:-1], order=order)
    for item in document["targets"]:
        has = (
            "unknown" if item["weight_bps"] is None else f"{float(item['weight_bps']) / 100:.2f} %"
        )
        now = (
            "; ".join((*item["asks"], *(f"left: {why}" for why in item["leaves"])))
            or "at its share"
        )
        figures = (tables.amount(item[key], 2) for key in ("value", "fees"))
        pool = cell(f"{'/'.join(item['tokens'])} {item['fee_pips'] / 10_000:g} %")
        made.add_row(pool, f"{item['share_bps'] / 100:g} %", has, *figures, cell(now))
    return made


def _payable(document: Document) -> FigureTable:
    from agent.cli.display import tables

    made = tables.table(
        "What taking them out would pay now, in base units",
        ("position", "token"),
        ("liquidity", "uncollected fees"),
    )
    for item in document["positions"]:
        for symbol in item["tokens"]:
            made.add_row(
                _short(item), cell(symbol), item["redeemable_raw"][symbol], item["fees_raw"][symbol]
            )
    return made


def _forecasts(document: Document) -> FigureTable:
    from agent.cli.display import tables

    moves = [
        f"{item['move_bps'] / 100:+g} %"
        for item in next((p["forecasts"] for p in document["positions"] if p["forecasts"]), [])
    ]
    made = tables.table(
        f"Impermanent loss from now on, in {document['numeraire']}",
        ("position", "if moves"),
        (*moves, "expected"),
    )
    for item in document["positions"]:
        if item["forecasts"]:
            lost = (tables.amount(part["loss"], 2) for part in item["forecasts"])
            made.add_row(
                _short(item),
                cell(item["forecasts"][0]["moving"]),
                *lost,
                tables.amount(item["expected_loss"], 2),
            )
    return made


def _sum(found: Document, numeraire: str) -> str:
    from agent.cli.display import tables

    if found["value"] is None or found["share_bps"] is None:
        return "unknown"
    limit = "no limit" if found["limit_bps"] is None else f"limit {found['limit_bps'] / 100:g} %"
    over = "" if found["within"] else ": over it"
    return (
        f"{tables.amount(found['value'], 2)} {numeraire}, {float(found['share_bps']) / 100:.2f} %"
        f" of the portfolio, {limit}{over}"
    )


def _short(item: Document) -> Any:
    venue = item["venue"].removeprefix("uniswap_")
    number = "" if item["token_id"] is None else f" #{item['token_id']}"
    return cell(f"{'/'.join(item['tokens'])} {venue}{number}")
