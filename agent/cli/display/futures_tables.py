"""Tables of futures: positions, margin, funding, and their lines in status and plan."""

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
        ("realised", "realised profit, unsettled"),
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
    _show_blocked(console, document)
    if document["plan"] is None:
        console.print(cell(f"No plan: {document['no_plan']}", "yellow"))
        return
    _show_plan(console, document["plan"], unit)


def _show_blocked(console: Console, document: Document) -> None:
    if document["blocked"]:
        console.print(cell(f"No order can be sent: {document['blocked']}", "bold red"))


def _show_plan(console: Console, plan: Document, unit: str) -> None:
    console.print(cell(f"Plan: {plan['reason']}"))
    if plan["top_up_raw"] != "0":
        console.print(cell(f"Deposit of collateral: {money(plan['top_up'])} {unit}"))
    if plan["orders"]:
        console.print(orders(plan, "Orders that the agent would plan now (not sent)"))
    for why in plan["refused"]:
        console.print(cell(f"Skipped: {why}", "yellow"))


def orders(plan: Document, title: str) -> FigureTable:
    """Table of the orders of a plan."""
    made = table(
        title,
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
    return made


def fills(found: list[Document]) -> FigureTable:
    """Table of filled futures orders."""
    made = table(
        f"Filled futures orders, in {found[0]['unit']}",
        ("market", "side"),
        ("size", "price", "notional", "fee", "realised"),
    )
    for item in found:
        made.add_row(
            cell(item["symbol"]),
            item["side"],
            amount(item["size"]),
            brief(item["price"]),
            money(item["notional"]),
            money(item["fee"]),
            money(item["realised"]),
        )
    return made


SALE_OR_HEDGE = (
    ("fees and gas", "sale_fees", "hedge_fees"),
    ("impact", "sale_impact", ""),
    ("tax", "sale_tax", ""),
    ("expected funding", "", "hedge_funding"),
    ("capital for margin", "", "hedge_capital"),
    ("total", "sale_cost", "hedge_cost"),
)


def comparison(item: Document, unit: str) -> FigureTable:
    """Table of the costs of a sale and a short of the same value."""
    made = table(
        f"{item['symbol']}: sale or short of {money(item['hedged'])} {unit} over {item['days']} days",
        ("cost",),
        ("sale", "short"),
    )
    for name, sale, short in SALE_OR_HEDGE:
        made.add_row(
            name,
            amount(item[sale], 2) if sale else "",
            amount(item[short], 2) if short else "",
            style="bold" if name == "total" else "",
        )
    made.note = f"{money(item['margin'])} {unit} of margin required; choice: {item['choice']}"
    if item["reason"]:
        made.note += f", {item['reason']}"
    return made


def show_comparisons(console: Console, document: Document) -> None:
    """Print the comparisons of sales and hedges of a plan."""
    for item in document.get("comparisons", ()):
        if item["hedged"] != "0":
            console.print(comparison(item, document["numeraire"]))


def show_funding(console: Console, document: Document) -> None:
    """Print the funding of each market; costs are positive."""
    unit, days = document["unit"], document["days"]
    made = table(
        f"Funding at block {document['block']}, in {unit}; positive: the account pays",
        ("market",),
        ("daily rate", "notional", "pending", "today", "a day", f"{days} days"),
    )
    for item in document["markets"]:
        made.add_row(
            cell(item["symbol"]),
            percent(item["daily_rate"], "+", 4),
            money(item["notional"]),
            money(item["pending"]),
            money(item["today"]),
            money(item["daily"]),
            money(item["expected"]),
        )
    made.add_row(
        "total",
        "",
        "",
        *(money(document[key]) for key in ("pending", "today", "daily", "expected")),
    )
    console.print(made)
    if document["recorded"]:
        past = table(
            f"Recorded by day (UTC), in {document['numeraire']}; positive: the account paid",
            ("day", "market"),
            ("paid", "mean daily rate", "readings"),
        )
        for item in document["recorded"]:
            past.add_row(
                item["day"],
                cell(item["symbol"]),
                money(item["paid"]),
                percent(item["daily_rate"], "+", 4),
                str(item["readings"]),
            )
        console.print(past)


def show_summary(console: Console, document: Document) -> None:
    """Print leverage and net exposure of spot and futures."""
    found = document["futures"]
    if found["unknown"]:
        console.print(cell(f"Futures: the margin account is not known: {found['unknown']}", "red"))
        return
    text = (
        f"Futures: leverage {multiple(found['leverage'])} of at most"
        f" {multiple(found['max_leverage'])}, gross notional {money(found['gross'])}"
        f" {found['unit']}, account value {money(found['value'])} {found['unit']}, utilisation"
        f" {share(found['utilisation'])} of at most {share(found['max_utilisation'])}"
    )
    if (near := found["liquidation"]) is not None:
        text += (
            f"; nearest liquidation: {near['symbol']} at {brief(near['price'])},"
            f" {percent(near['distance'], '+')} away"
        )
    if found["broken"]:
        text += f"; breached: {', '.join(found['broken'])} (trimtab margin)"
    console.print(cell(text, "bold red" if found["broken"] else ""))
    _show_blocked(console, found)
    if found["unnamed"]:
        held = ", ".join(found["unnamed"])
        text = (
            f"Positions that the config does not name: {held}. Nothing is opened (docs/futures.md)"
        )
        console.print(cell(text, "bold red"))
    if found["actions"] and not found["blocked"]:
        console.print(cell(f"It would {', '.join(found['actions'])} (trimtab margin)", "yellow"))
    shown = [
        f"{one['symbol']} {money(one['net'])} (spot {money(one['spot'])}, futures"
        f" {money(one['futures'])})"
        for one in found["exposures"]
        if one["futures"] != "0"
    ]
    if shown:
        console.print(cell(f"Net exposure in {document['numeraire']}: {'; '.join(shown)}"))


def show_approval(console: Console, document: Document) -> None:
    """Print the approval of an agent's key."""
    for name, text in (
        ("account", document["account"]),
        ("network", document["network"]),
        ("agent name", document["name"]),
        ("key", document["agent"] or "a new one"),
        ("kept in", document["key"]),
        ("may trade until", document["until"]),
        ("replaces", document["replaces"] or NONE),
    ):
        console.print(cell(f"{name}: {text}"))
    console.print(cell("The key trades for the account and cannot withdraw."))
    if document["kept"]:
        console.print(cell(f"The old key is in {document['kept']}."))
    match document["outcome"]:
        case "done":
            console.print(
                cell(
                    "done: approved. Restart a running trimtab run: it loads the key at its start."
                )
            )
        case "declined":
            console.print(cell("declined: not confirmed; nothing was sent"))
        case _:
            console.print(cell("Nothing was sent. --send creates, signs and sends."))


def share(text: str | None) -> str:
    """0.05 -> 5.00 %; none without a value."""
    return NONE if text is None else percent(text)


def multiple(text: str | None) -> str:
    """2.5 -> 2.50x."""
    return NONE if text is None else f"{float(text):.2f}x"


def percent(text: str, sign: str = "", places: int = 2) -> str:
    """0.05 -> 5.00 %."""
    return f"{float(text) * 100:{sign}.{places}f} %"
