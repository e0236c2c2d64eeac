"""Tables of conditional orders and limit orders."""

from __future__ import annotations

from agent.cli.display import tables
from agent.cli.display.terminal import Document, cell, out, say


def _distance(bps: int | None) -> str:
    return "" if bps is None else f"{bps / 100:+.2f} %"


def _stage(item: Document) -> str:
    """Return the stored stage, and what comes next."""
    stage: str = item["stage"]
    if item["unconfirmed"]:
        return f"{stage} (not confirmed: {item['unconfirmed']})"
    if item["since"] is None:
        return f"{stage} for the first cycle"
    if item["next_stage"]:
        return f"{stage} (next cycle: {item['next_stage']})"
    return stage


def show_orders(document: Document) -> None:
    """Print all orders as tables."""
    if document["limit_orders"]:
        names = ("id", "order", "limit", "market", "distance", "until")
        waiting = tables.table("Limit orders", (*names[:4], names[5]), names[4:5], order=names)
        for item in document["limit_orders"]:
            market = "unknown" if item["market"] is None else item["market"][0]
            waiting.add_row(
                item["id"],
                cell(item["what"]),
                item["limit"][0],
                market,
                _distance(item["off_bps"]),
                item["until"],
            )
        out.print(waiting)
    if not document["orders"]:
        if document["limit_orders"]:
            return
        say(
            "No orders. To set entry, stop_loss, take_profit or trailing_stop: trimtab orders set,"
            " or docs/orders.md"
        )
        return
    title = f"Orders at block {document['block']}, prices in {document['numeraire']}"
    made = tables.table(
        title, ("asset", "order", "stage", "since"), ("set", "level", "price", "distance")
    )
    for item in document["orders"]:
        since = item["since"] or ""
        if item["fired_at"]:
            since += f", at {tables.amount(item['fired_at'], 4)}"
        level, price = (
            tables.amount(item[name], 4) if item[name] else "" for name in ("level", "price")
        )
        if item["level_now"]:
            level = f"({tables.amount(item['level_now'], 4)})"
        made.add_row(
            cell(item["subject"]),
            item["kind"],
            cell(_stage(item)),
            cell(since),
            item["terms"],
            level,
            price,
            _distance(item["distance_bps"]),
        )
    out.print(made)
    _note_orders(document)


def _note_orders(document: Document) -> None:
    if any(item["stage"] == "waiting" for item in document["orders"]):
        say(
            "A waiting order watches no price until a cycle arms it: trimtab run, or once trimtab"
            " rebalance, also without --send."
        )
    if any(item["level_now"] for item in document["orders"]):
        say("A level in parentheses would apply if the order were armed now.")
    for line in document["told"]:
        say(line)
    for line in document["stuck"]:
        out.print(cell(line, "bold red"))
    for line in document["contradictions"]:
        out.print(cell(f"Nothing is traded: {line}", "bold red"))
