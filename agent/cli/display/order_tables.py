"""Tables of orders, and what their states mean."""

from __future__ import annotations

from agent.cli.display.tables import document_table, table
from agent.cli.display.terminal import Document, out, safe_text, say
from agent.figures import columns, format_figure


def _distance_text(distance_bps: int | None) -> str:
    return "" if distance_bps is None else f"{distance_bps / 100:+.2f} %"


def _stage_text(order: Document) -> str:
    """Return the stored stage, and what comes next."""
    stage: str = order["stage"]
    if order["unconfirmed"]:
        return f"{stage} ({order['unconfirmed']} once confirmed)"
    if order["since"] is None:
        return f"{stage} for the first cycle"
    if order["next_stage"]:
        return f"{stage} (next cycle: {order['next_stage']})"
    return stage


def _since_text(order: Document) -> str:
    fired_text = f", at {format_figure(order['fired_at'], 'price')}" if order["fired_at"] else ""
    return f"{order['since'] or ''}{fired_text}"


def _terms_text(order: Document) -> str:
    """Return the terms, of a level in percent with the price from which it counts."""
    terms: str = order["terms"]
    base_price = order["highest" if order["kind"] == "trailing_stop" else "basis"]
    if not terms.endswith("%") or base_price is None:
        return terms
    return f"{terms} from {format_figure(base_price, 'price')}"


def _level_text(order: Document) -> str:
    """Return the level, in parentheses if it would only apply once the order is armed."""
    if order["level_now"]:
        return f"({format_figure(order['level_now'], 'price')})"
    return format_figure(order["level"], "price")


def show_orders(orders_document: Document) -> None:
    """Print all orders as tables."""
    if orders_document["limit_orders"]:
        limit_table = table(
            "Limit orders",
            ("id", "order", "limit", "market", "until"),
            ("distance",),
            column_order=("id", "order", "limit", "market", "distance", "until"),
        )
        for order in orders_document["limit_orders"]:
            market_text = "unknown" if order["market"] is None else order["market"][0]
            limit_table.add_row(
                order["id"],
                order["note"],
                order["limit"][0],
                market_text,
                _distance_text(order["off_bps"]),
                order["until"],
            )
        out.print(limit_table)
    if not orders_document["orders"]:
        if orders_document["limit_orders"]:
            return
        say(
            "No orders. To set entry, stop_loss, take_profit, trailing_stop or a price alert:"
            " trimtab orders set, or docs/orders.md"
        )
        return
    title = f"Orders at block {orders_document['block']}, prices in {orders_document['numeraire']}"
    figure_table = document_table(
        title,
        columns(
            "ConditionalOrderDocument",
            "subject",
            "kind",
            "stage",
            "since",
            "terms",
            "level",
            "price",
            "distance_bps",
        ),
        orders_document["orders"],
        {
            "stage": _stage_text,
            "since": _since_text,
            "terms": _terms_text,
            "level": _level_text,
        },
    )
    out.print(figure_table)
    _note_orders(orders_document)


def _note_orders(orders_document: Document) -> None:
    if any(order["stage"] == "waiting" for order in orders_document["orders"]):
        say(
            "A waiting order watches no price until a cycle arms it: trimtab run, or once trimtab"
            " rebalance, also without --send."
        )
    if any(order["level_now"] for order in orders_document["orders"]):
        say("A level in parentheses would apply if the order were armed now.")
    if any(" from " in _terms_text(order) for order in orders_document["orders"]):
        say(
            "A level in percent counts from the price behind it, not from what was paid, also if it"
            " was bought only later; trimtab orders arm SYMBOL arms it anew."
        )
    for line in orders_document["target_reasons"]:
        say(line)
    for line in orders_document["blocked_exits"]:
        out.print(safe_text(line, "bold red"))
    for line in orders_document["contradictions"]:
        out.print(safe_text(line, "bold red"))
    if stop_reason := orders_document.get("stopped"):
        out.print(safe_text(f"Nothing is traded: {stop_reason}", "bold red"))
