"""Tables of futures: positions, margin, funding, their lines in status and plan; and of a simulated
futures book and its stress scenarios.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.cli.display.tables import (
    FigureTable,
    amount,
    document_table,
    figure_cell,
    figure_text,
    money_text,
    percent_text,
    table,
)
from agent.cli.display.terminal import Document, out, safe_text, say, spaced_time
from agent.figures import Column, columns, format_figure
from agent.units import minute_text

if TYPE_CHECKING:
    from rich.console import Console


NO_VALUE = "none"


FUTURES_TAX_NOTE = (
    "profit counts when realised, funding when settled (an assumed treatment: docs/ledger.md#taxes)"
)
"""The tax treatment of futures that all figures assume."""


def futures_positions_table(document: Document) -> FigureTable:
    """Return a table of open positions."""
    figure_table = document_table(
        f"Futures positions of {document['account']} at block {document['block']}, in {document['unit']}",
        columns(
            "FuturesPositionDocument",
            "symbol",
            "side",
            "size",
            "notional",
            "entry",
            "mark",
            "index",
            "unrealised",
            "funding_pending",
            "liquidation_price",
            "liquidation_distance",
        ),
        document["positions"],
    )
    if not document["positions"] and not document["unknown"]:
        figure_table.note = "no open positions"
    return figure_table


def show_margin(console: Console, margin_document: Document) -> None:
    """Print the margin account, its limits and the plan."""
    unit = margin_document["unit"]
    margin_figures = margin_document["margin"]
    if margin_figures is None:
        return
    figure_table = table(
        f"Margin account {margin_document['account']} at block {margin_document['block']}, in {unit}",
        ("figure",),
        ("value",),
    )
    figure_table.show_header = False
    for column in columns(
        "MarginFiguresDocument",
        "collateral",
        "realised",
        "unrealised",
        "funding_pending",
        "value",
        "free",
        "initial",
        "maintenance",
        "gross",
        "net",
        "spot_value",
        "leverage",
        "target_leverage",
        "utilisation",
    ):
        figure_table.add_row(column.label, figure_cell(margin_figures, column))
    if margin_figures["target_note"]:
        figure_table.note = f"target leverage {margin_figures['target_note']}"
    console.print(figure_table)
    limits_table = document_table(
        "Limits",
        columns("LimitDocument", "limit", "measured", "allowed"),
        margin_document["limits"],
        row_style=lambda limit: "bold red" if limit["broken"] else "",
    )
    if margin_document["limits"]:
        console.print(limits_table)
    _show_blocked_orders(console, margin_document)
    if margin_document["plan"] is None:
        console.print(safe_text(f"No plan: {margin_document['no_plan']}", "yellow"))
        return
    _show_plan(console, margin_document["plan"], unit)


def _target_leverage_text(futures_summary: Document) -> str:
    """Return the target leverage, with a note if it is not restored."""
    note_text = f" ({futures_summary['target_note']})" if futures_summary["target_note"] else ""
    return f"{multiple_text(futures_summary['target_leverage'])}{note_text}"


def _show_blocked_orders(console: Console, document: Document) -> None:
    if document["blocked"]:
        console.print(safe_text(f"No order can be sent: {document['blocked']}", "bold red"))


def _show_plan(console: Console, plan: Document, unit: str) -> None:
    console.print(safe_text(f"Plan: {plan['reason']}"))
    if plan["top_up_raw"] != "0":
        console.print(safe_text(f"Deposit of collateral: {money_text(plan['top_up'])} {unit}"))
    if plan["orders"]:
        title = (
            "Orders that wait" if plan["hold_reason"] else "Orders that the agent would send now"
        )
        console.print(orders_table(plan, title))
    if plan["hold_reason"]:
        console.print(safe_text(f"Nothing of this is sent: {plan['hold_reason']}", "yellow"))
    for reason in plan["refused"]:
        console.print(safe_text(f"Skipped: {reason}", "yellow"))


def orders_table(plan: Document, title: str) -> FigureTable:
    """Return a table of the orders of a plan."""
    return document_table(
        title,
        [
            *columns("FuturesOrderDocument", "symbol", "side", "size", "bound", "bound_price"),
            Column("reduce_only", "kind", "text"),
        ],
        plan["orders"],
        {
            "size": lambda order: amount(order["size"]),
            "reduce_only": lambda order: "reduce only" if order["reduce_only"] else "",
        },
    )


def fills_table(fills: list[Document]) -> FigureTable:
    """Return a table of filled futures orders."""
    return document_table(
        f"Filled futures orders, in {fills[0]['unit']}",
        columns(
            "FuturesFillDocument",
            "symbol",
            "side",
            "size",
            "price",
            "notional",
            "fee",
            "realised",
        ),
        fills,
        {"size": lambda order_fill: amount(order_fill["size"])},
    )


COMPARISON_ROWS = (
    ("fees and gas", "sale_fees", "hedge_fees"),
    ("impact", "sale_impact", ""),
    ("tax", "sale_tax", ""),
    ("expected funding", "", "hedge_funding"),
    ("capital for margin", "", "hedge_capital"),
    ("total", "sale_cost", "hedge_cost"),
)
"""(row, key of the sale's cost, key of the short's cost)."""


def comparison_table(comparison: Document, unit: str) -> FigureTable:
    """Return a table of the costs of a sale and a short of the same value."""
    figure_table = table(
        f"{comparison['symbol']}: sale or short of {money_text(comparison['hedged'])} {unit} over {comparison['days']} days",
        ("cost",),
        ("sale", "short"),
    )
    for cost_name, sale_key, short_key in COMPARISON_ROWS:
        figure_table.add_row(
            cost_name,
            money_text(comparison[sale_key]) if sale_key else "",
            money_text(comparison[short_key]) if short_key else "",
            style="bold" if cost_name == "total" else "",
        )
    figure_table.note = f"{money_text(comparison['margin'])} {unit} of margin required; choice: {comparison['choice']}"
    if comparison["reason"]:
        figure_table.note += f", {comparison['reason']}"
    return figure_table


def show_comparisons(console: Console, plan_document: Document) -> None:
    """Print the comparisons of sales and hedges of a plan."""
    for comparison in plan_document.get("comparisons", ()):
        if comparison["hedged"] != "0":
            console.print(comparison_table(comparison, plan_document["numeraire"]))


def show_funding(console: Console, funding_document: Document) -> None:
    """Print the funding of each market; costs are positive."""
    unit = funding_document["unit"]
    days = funding_document["days"]
    shown_columns = columns(
        "MarketFundingDocument",
        "symbol",
        "daily_rate",
        "notional",
        "pending",
        "today",
        "daily",
        "expected",
    )
    figure_table = document_table(
        f"Funding at block {funding_document['block']}, in {unit}, expected in {days} days; positive: the account pays",
        shown_columns,
        funding_document["markets"],
    )
    figure_table.add_row(
        "total", "", "", *(figure_cell(funding_document, column) for column in shown_columns[3:])
    )
    console.print(figure_table)
    if funding_document["recorded"]:
        console.print(
            document_table(
                f"Recorded by day (UTC), in {funding_document['numeraire']}; positive: the account paid",
                columns("FundingDayDocument", "day", "symbol", "paid", "daily_rate", "readings"),
                funding_document["recorded"],
            )
        )
        console.print(safe_text(f"Tax: {FUTURES_TAX_NOTE}", "dim"))


def show_futures_summary(console: Console, document: Document) -> None:
    """Print leverage and net exposure of spot and futures."""
    summary = document["futures"]
    if summary["unknown"]:
        console.print(
            safe_text(f"Futures: the margin account is not known: {summary['unknown']}", "red")
        )
        return
    line_text = (
        f"Futures: leverage {multiple_text(summary['leverage'])} of at most"
        f" {multiple_text(summary['max_leverage'])}, target {_target_leverage_text(summary)}, gross notional {money_text(summary['gross'])}"
        f" {summary['unit']}, account value {money_text(summary['value'])} {summary['unit']}, utilisation"
        f" {optional_percent_text(summary['utilisation'])} of at most {optional_percent_text(summary['max_utilisation'])}"
    )
    if (nearest_liquidation := summary["liquidation"]) is not None:
        line_text += (
            f"; nearest liquidation: {nearest_liquidation['symbol']} at {format_figure(nearest_liquidation['price'], 'price')},"
            f" {percent_text(nearest_liquidation['distance'], '+')} away"
        )
    if summary["broken"]:
        line_text += f"; breached: {', '.join(summary['broken'])} (trimtab margin)"
    console.print(safe_text(line_text, "bold red" if summary["broken"] else ""))
    _show_blocked_orders(console, summary)
    if summary["unnamed"]:
        unnamed_markets = ", ".join(summary["unnamed"])
        line_text = f"Positions that the config does not name: {unnamed_markets}. Nothing is opened (docs/futures.md)"
        console.print(safe_text(line_text, "bold red"))
    if summary["paused"]:
        line_text = (
            f"Paused by the venue: {', '.join(summary['paused'])}. No order there until it opens"
        )
        console.print(safe_text(line_text, "bold yellow"))
    for order in summary["open_orders"]:
        line_text = (
            f"Resting order: {order['side']} {order['size']} {order['symbol']} at"
            f" {format_figure(order['price'], 'price')}, {order['filled']} filled, until {spaced_time(order['expires'])}"
        )
        console.print(safe_text(line_text))
    if summary["actions"] and not summary["blocked"]:
        console.print(safe_text(f"Due: {', '.join(summary['actions'])} (trimtab margin)", "yellow"))
    exposure_texts = [
        f"{exposure['symbol']} {money_text(exposure['net'])} (spot {money_text(exposure['spot'])}, futures"
        f" {money_text(exposure['futures'])})"
        for exposure in summary["exposures"]
        if exposure["futures"] != "0"
    ]
    if exposure_texts:
        console.print(
            safe_text(f"Net exposure in {document['numeraire']}: {'; '.join(exposure_texts)}")
        )


def show_key_approval(console: Console, document: Document) -> None:
    """Print the approval of an agent's key."""
    for field_name, field_text in (
        ("account", document["account"]),
        ("network", document["network"]),
        ("agent name", document["name"]),
        ("key", document["agent"] or "a new one"),
        ("kept in", document["key"]),
        ("may trade until", document["until"]),
        ("replaces", document["replaces"] or NO_VALUE),
    ):
        console.print(safe_text(f"{field_name}: {field_text}"))
    console.print(safe_text("The key trades for the account and cannot withdraw."))
    if document["kept"]:
        console.print(safe_text(f"The old key is in {document['kept']}."))
    match document["outcome"]:
        case "done":
            console.print(
                safe_text(
                    "done: approved. Restart a running trimtab run: it loads the key at its start."
                )
            )
        case "declined":
            console.print(safe_text("declined: not confirmed; nothing was sent"))
        case _:
            console.print(safe_text("Nothing was sent. --send creates, signs and sends."))


def optional_percent_text(share: str | None) -> str:
    """0.05 -> 5.00 %; none without a value."""
    return NO_VALUE if share is None else percent_text(share)


def multiple_text(multiple: str | None) -> str:
    """2.5 -> 2.50x."""
    return NO_VALUE if multiple is None else f"{float(multiple):.2f}x"


PROFIT_PARTS = (
    ("price", ""),
    ("slippage", "-"),
    ("funding", "-"),
    ("fees", "-"),
    ("penalties", "-"),
    ("insured", ""),
)
"""Components of a profit, with "-" for those that reduce it."""
PART_LABELS = {"penalties": "liquidation penalties", "insured": "the venue's insurance"}
BOOK_NAMES = ("agent", "held")
"""Keys and columns of the book with the agent, and of its initial positions without it."""


def show_futures_book(document: Document) -> None:
    """Print the books with and without the agent."""
    books = [document[book_name] for book_name in BOOK_NAMES]
    figure_table = table(f"Futures, {document['bars']} bars", ("what",), BOOK_NAMES)
    figure_table.add_row("start value", *(money_text(document["start_value"]) for _ in books))
    figure_table.add_row("final value", *(money_text(book["final_value"]) for book in books))
    for name, sign in PROFIT_PARTS:
        part_texts = [book["profit"][name] for book in books]
        if sign or any(part_text != "0" for part_text in part_texts):
            signed_texts = [_negated(part_text) if sign else part_text for part_text in part_texts]
            figure_table.add_row(
                f"from {PART_LABELS.get(name, name)}", *map(money_text, signed_texts)
            )
    for name, figure_key in (("Sharpe ratio", "sharpe"), ("maximum drawdown", "max_drawdown")):
        figure_table.add_row(
            name, *(figure_text(figure_key, book["figures"][figure_key]) for book in books)
        )
    figure_table.add_row(
        "highest leverage", *(leverage_text(book["max_leverage"]) for book in books)
    )
    figure_table.add_row(
        f"bars above {leverage_text(document['max_leverage'])}",
        *(
            f"{book['bars_above_limit']} ({book['longest_above_limit']} consecutive)"
            for book in books
        ),
    )
    figure_table.add_row("orders filled", *(str(len(book["fills"])) for book in books))
    figure_table.add_row("liquidations", *(str(len(book["liquidations"])) for book in books))
    out.print(figure_table)
    for name, book in zip(BOOK_NAMES, books, strict=True):
        _show_book_events(name, book)
    for hedge in document["hedges"]:
        _show_hedge(hedge)
    for note in document["notes"]:
        say(note)
    say(
        f"futures config {document['config_hash'][:16]}, data {document['data_hash'][:16]},"
        f" seed {document['seed']}"
    )


def show_futures_stress(stress_document: Document) -> None:
    """Print losses and liquidations of both books by scenario."""
    figure_table = table(
        f"Futures, {stress_document['bars']} bars; losses of {', '.join(BOOK_NAMES)} as shares of the start value",
        ("case",),
        (
            "paths",
            *(
                f"{measure} {book_name}"
                for measure in ("mean", "worst", "liquidated")
                for book_name in BOOK_NAMES
            ),
        ),
    )
    for case in stress_document["cases"]:
        books = [case[book_name] for book_name in BOOK_NAMES]
        figure_table.add_row(
            case["name"],
            str(case["paths"]),
            *(
                f"{float(book[loss_key]) * 100:.2f} %"
                for loss_key in ("mean_loss", "worst_loss")
                for book in books
            ),
            *(str(book["liquidated_paths"]) for book in books),
        )
    out.print(figure_table)
    worst_case = max(
        stress_document["cases"], key=lambda case: int(case["agent"]["longest_above_limit"])
    )
    say(
        f"The agent's book was above {leverage_text(stress_document['max_leverage'])} for"
        f" {worst_case['agent']['longest_above_limit']} consecutive bars at most ({worst_case['name']})."
    )
    say(
        f"futures config {stress_document['config_hash'][:16]}, data {stress_document['data_hash'][:16]},"
        f" seed {stress_document['seed']}"
    )


def _show_book_events(book_name: str, book: Document) -> None:
    for liquidation in book["liquidations"][:1]:
        say(f"{book_name}: first liquidated on {minute_text(liquidation['time'])} UTC")
    if book["deposited"] != "0":
        say(f"{book_name}: {money_text(book['deposited'])} deposited from the wallet")
    for reason, order_count in book["unfilled"].items():
        say(f"{book_name}: {order_count} orders unfilled: {reason}")
    for reason, order_count in book["refused"].items():
        say(f"{book_name}: {order_count} orders cut or left out: {reason}")


def _show_hedge(hedge: Document) -> None:
    end_text = "still open"
    if hedge["closed"] is not None:
        end_text = f"closed {minute_text(hedge['closed'])} UTC: {hedge['end']}"
    profit_text = (
        "unknown: part was liquidated" if hedge["profit"] is None else money_text(hedge["profit"])
    )
    say(
        f"hedge of {hedge['size'].lstrip('-')} {hedge['symbol']}, opened {minute_text(hedge['opened'])} UTC,"
        f" {end_text}; earned excluding funding: {profit_text}"
    )


def _negated(amount_text: str) -> str:
    if amount_text == "0":
        return amount_text
    return amount_text.removeprefix("-") if amount_text.startswith("-") else f"-{amount_text}"


def leverage_text(leverage: str | None) -> str:
    """2.5 -> 2.50x; unlimited without equity."""
    return "unlimited" if leverage is None else f"{float(leverage):.2f}x"
