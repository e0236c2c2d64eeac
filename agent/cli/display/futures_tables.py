"""Tables of the futures layer: positions, margin, funding, and its lines in status and plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.cli.display.output import cell
from agent.cli.display.tables import FigureTable, amount, brief, money, table

if TYPE_CHECKING:
    from rich.console import Console

    from agent.cli.display.output import Document

NONE = "none"


def positions(document: Document) -> FigureTable:
    """Table of open positions."""
    unit = document["unit"]
    made = table(
        f"Futures positions of {document['account']} at block {document['block']}, in {unit}",
        ("market", "side"),
        (
            "size",
            "notional",
            "entry",
            "mark",
            "index",
            "unrealised",
            "funding",
            "liquidation",
            "distance",
        ),
    )
    for item in document["positions"]:
        price, distance = item["liquidation_price"], item["liquidation_distance"]
        made.add_row(
            cell(item["symbol"]),
            item["side"],
            amount(item["size"]),
            money(item["notional"]),
            brief(item["entry"]),
            brief(item["mark"]),
            brief(item["index"]),
            money(item["unrealised"]),
            money(item["funding_pending"]),
            NONE if price is None else brief(price),
            NONE if distance is None else percent(distance, "+"),
        )
    if not document["positions"] and not document["unknown"]:
        made.note = "no open positions"
    return made


def show_margin(console: Console, document: Document) -> None:
    """Print the margin account, its limits and the plan."""
    unit, found = document["unit"], document["margin"]
    if found is None:
        return
    made = table(
        f"Margin account {document['account']} at block {document['block']}, in {unit}",
        ("figure",),
        ("value",),
    )
    made.show_header = False
    for key, name in (
        ("collateral", "collateral"),
        ("realised", "realised profit, not settled"),
        ("unrealised", "unrealised profit"),
        ("funding_pending", "pending funding"),
        ("value", "account value"),
        ("free", "free margin"),
        ("initial", "initial margin"),
        ("maintenance", "maintenance margin"),
        ("gross", "gross notional"),
        ("net", "net notional"),
        ("spot_value", "spot portfolio"),
    ):
        made.add_row(name, NONE if found[key] is None else money(found[key]))
    made.add_row("leverage", multiple(found["leverage"]))
    used = found["utilisation"]
    made.add_row("utilisation", NONE if used is None else percent(used))
    console.print(made)
    limits = table("Limits", ("limit",), ("measured", "allowed"))
    for item in document["limits"]:
        style = "bold red" if item["broken"] else ""
        limits.add_row(item["limit"], item["measured"], item["allowed"], style=style)
    if document["limits"]:
        console.print(limits)
    if document["plan"] is None:
        console.print(cell(f"No plan: {document['no_plan']}", "yellow"))
        return
    _show_plan(console, document["plan"], unit)


def _show_plan(console: Console, plan: Document, unit: str) -> None:
    console.print(cell(f"Plan: {plan['reason']}"))
    if plan["top_up_raw"] != "0":
        console.print(cell(f"Deposit of collateral: {money(plan['top_up'])} {unit}"))
    if plan["orders"]:
        made = table(
            "Orders that the agent would plan now; none is sent",
            ("market", "side", "kind"),
            ("size", "bound", "bound price"),
            order=("market", "side", "size", "bound", "bound price", "kind"),
        )
        for item in plan["orders"]:
            made.add_row(
                cell(item["symbol"]),
                item["side"],
                amount(item["size"]),
                money(item["bound"]),
                brief(item["bound_price"]),
                "reduce only" if item["reduce_only"] else "",
            )
        console.print(made)
    for why in plan["refused"]:
        console.print(cell(f"Not ordered: {why}", "yellow"))


def show_funding(console: Console, document: Document) -> None:
    """Print the funding of each market; costs are positive."""
    unit, days = document["unit"], document["days"]
    made = table(
        f"Funding at block {document['block']}, in {unit}; positive: the account pays",
        ("market",),
        ("daily rate", "notional", "pending", "a day", f"{days} days"),
    )
    for item in document["markets"]:
        made.add_row(
            cell(item["symbol"]),
            percent(item["daily_rate"], "+", 4),
            money(item["notional"]),
            money(item["pending"]),
            money(item["daily"]),
            money(item["expected"]),
        )
    made.add_row(
        "total", "", "", *(money(document[key]) for key in ("pending", "daily", "expected"))
    )
    console.print(made)


def show_summary(console: Console, document: Document) -> None:
    """Print leverage and net exposure of spot and futures."""
    found = document["futures"]
    if found["unknown"]:
        console.print(cell(f"Futures: the margin account is not known: {found['unknown']}", "red"))
        return
    text = (
        f"Futures: leverage {multiple(found['leverage'])} of at most"
        f" {multiple(found['max_leverage'])}, gross notional {money(found['gross'])}"
        f" {found['unit']}, account value {money(found['value'])} {found['unit']}"
    )
    if found["broken"]:
        text += f"; broken: {', '.join(found['broken'])} (trimtab margin)"
    console.print(cell(text, "bold red" if found["broken"] else ""))
    shown = [
        f"{one['symbol']} {money(one['net'])} (spot {money(one['spot'])}, futures"
        f" {money(one['futures'])})"
        for one in found["exposures"]
    ]
    if shown:
        console.print(cell(f"Net exposure in {document['numeraire']}: {'; '.join(shown)}"))


def multiple(text: str | None) -> str:
    """2.5 -> 2.50x."""
    return NONE if text is None else f"{float(text):.2f}x"


def percent(text: str, sign: str = "", places: int = 2) -> str:
    """0.05 -> 5.00 %."""
    return f"{float(text) * 100:{sign}.{places}f} %"
