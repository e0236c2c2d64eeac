"""Tables and sentences for documents. Figures are never truncated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.panel import Panel
from rich.style import Style
from rich.table import Table
from rich.text import Text

from agent.cli.display.terminal import (
    MAX_BAR_CELLS,
    MIN_BAR_CELLS,
    Bar,
    Document,
    out,
    printable,
    safe_text,
    say,
)
from agent.units import decimal_text, gain_text

KIND_STYLES = {"hold": "green", "rebalance": "yellow", "adjustliquidity": "yellow", "halt": "red"}
STATE_STYLES = {
    "final": "green",
    "mined": "green",
    "reverted": "red",
    "cancelled": "yellow",
    "replaced": "red",
}
COLUMN_GAP = 2
"""Spaces between two columns."""
MIN_TEXT_WIDTH = 14
"""Minimum width of a wrapped text column; narrower tables are stacked."""


@dataclass(slots=True)
class FigureTable:
    """A table with a heading. Figures and names are never truncated.

    If the columns do not fit side by side, free text wraps between words, then bars are omitted,
    then each row is stacked: its first name, then a line for each figure.
    """

    heading: Text
    column_names: tuple[str, ...]
    figure_columns: frozenset[str]
    note: str = ""
    show_header: bool = True
    rows: list[tuple[tuple[Text | Bar, ...], str]] = field(default_factory=list)

    def add_row(self, *cells: str | Text | Bar, style: str = "") -> None:
        """Add a row. Missing cells at its end are empty."""
        texts = [value if isinstance(value, Text | Bar) else safe_text(value) for value in cells]
        self.rows.append((tuple(texts + [Text()] * (len(self.column_names) - len(texts))), style))

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        if self.heading.plain:
            yield self.heading
        bar_columns = {
            column
            for cells, _ in self.rows
            for column, value in enumerate(cells)
            if isinstance(value, Bar)
        }
        without_bars = [
            column for column in range(len(self.column_names)) if column not in bar_columns
        ]
        for columns in (list(range(len(self.column_names))), without_bars):
            if (widths := self._widths(columns, options.max_width)) is not None:
                yield self._side_by_side(columns, widths)
                break
        else:
            for cells, style in self.rows:
                yield from self._stacked(
                    [(self.column_names[column], cells[column]) for column in without_bars],
                    style,
                    options.max_width,
                )
        if self.note:
            yield safe_text(self.note, "italic dim")
        yield Text()

    def _widths(self, columns: Sequence[int], max_width: int) -> list[int] | None:
        """Return the width of each column: its full width if there is room, else at least its
        minimum. None if even the minimums do not fit.
        """
        column_widths = [self._measure(column) for column in columns]
        total_min = sum(min_width for min_width, _ in column_widths)
        spare_width = max_width - COLUMN_GAP * (len(columns) - 1) - total_min
        max_growth = sum(full_width for _, full_width in column_widths) - total_min
        if spare_width < 0:
            return None
        if max_growth <= spare_width:
            return [full_width for _, full_width in column_widths]
        return [
            min_width + spare_width * (full_width - min_width) // max_growth
            for min_width, full_width in column_widths
        ]

    def _measure(self, column: int) -> tuple[int, int]:
        """Return minimum and full width of a column: figures do not wrap, free text wraps between
        words.
        """
        header = self.column_names[column] if self.show_header else ""
        cells = [cells[column] for cells, _ in self.rows]
        if any(isinstance(value, Bar) for value in cells):
            return MIN_BAR_CELLS, MAX_BAR_CELLS
        texts = [value.plain for value in cells if isinstance(value, Text)]
        full_width = max(
            (cell_len(line) for text in (header, *texts) for line in text.splitlines()), default=0
        )
        min_width = _longest_word(header, *texts)
        if self.column_names[column] in self.figure_columns:
            return max(min_width, *map(cell_len, texts), 0), full_width
        return max(min_width, min(full_width, MIN_TEXT_WIDTH)), full_width

    def _side_by_side(self, columns: Sequence[int], widths: Sequence[int]) -> Table:
        grid = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            header_style="dim",
        )
        grid.show_header = self.show_header
        for column, width in zip(columns, widths, strict=True):
            grid.add_column(
                self.column_names[column],
                justify="right" if self.column_names[column] in self.figure_columns else "left",
                width=width,
                overflow="fold",
            )
        for cells, style in self.rows:
            grid.add_row(*(cells[column] for column in columns), style=style)
        return grid

    def _stacked(
        self, named_cells: Sequence[tuple[str, Text | Bar]], style: str, max_width: int
    ) -> RenderResult:
        """Return one row as lines: its name, then each figure after its label, or below it if the
        line is too short.
        """
        named_texts = [
            (name.strip(), value) for name, value in named_cells if isinstance(value, Text)
        ]
        title_index = next(
            (index for index, (name, _) in enumerate(named_texts) if name not in ("", "#")), 0
        )
        title = Text(" ").join(text for _, text in named_texts[: title_index + 1] if text.plain)
        if named_texts and named_texts[title_index][0] in self.figure_columns and self.show_header:
            title = Text.assemble(f"{named_texts[title_index][0]} ", title)
        title.stylize(Style.combine([Style(bold=True), Style.parse(style)]))
        if title.plain:
            yield title
        labelled_texts: list[tuple[str, Text]] = []
        for name, value in named_texts[title_index + 1 :]:
            if not name and labelled_texts and self.show_header:
                labelled_texts[-1] = (
                    labelled_texts[-1][0],
                    Text(" ").join(
                        text_part for text_part in (labelled_texts[-1][1], value) if text_part.plain
                    ),
                )
            elif value.plain:
                labelled_texts.append((name if self.show_header else "", value))
        indent = (
            max((cell_len(name) + COLUMN_GAP for name, _ in labelled_texts if name), default=0)
            + COLUMN_GAP
        )
        for name, value in labelled_texts:
            needed_width = (
                cell_len(value.plain) if name in self.figure_columns else _longest_word(value.plain)
            )
            if indent + needed_width <= max_width:
                grid = Table.grid(padding=(0, 0))
                grid.add_column(width=indent)
                grid.add_column(overflow="fold")
                grid.add_row(Text(" " * COLUMN_GAP + name, "dim"), value, style=style)
                yield grid
                continue
            if name:
                yield Text(" " * COLUMN_GAP + name, "dim")
            yield Text.assemble(
                " " * min(COLUMN_GAP, max(0, max_width - needed_width)), value, style=style
            )


def _longest_word(*texts: str) -> int:
    return max((cell_len(word) for text in texts for word in text.split()), default=0)


def table(
    title: str,
    text_columns: Sequence[str],
    figure_columns: Sequence[str] = (),
    *,
    order: Sequence[str] = (),
    rows: Iterable[Sequence[str | Text | Bar]] = (),
) -> FigureTable:
    """Create a table; `text_columns` and `figure_columns` name the columns by alignment, `order` is
    their order (text first by default).

    Figures belong in `figure_columns` and are not wrapped, free text and names in `text_columns`.
    """
    figure_table = FigureTable(
        safe_text(title, "bold"),
        tuple(order or (*text_columns, *figure_columns)),
        frozenset(figure_columns),
    )
    for row in rows:
        figure_table.add_row(*row)
    return figure_table


@dataclass(frozen=True, slots=True)
class Notice:
    """An important sentence: boxed at a terminal, one line when piped."""

    text: str
    title: str
    style: str
    is_text: ClassVar[bool] = True

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        if not options.is_terminal:
            yield Text(printable(f"{self.title}: {self.text}"), style=self.style)
            return
        title = safe_text(self.title, f"bold {self.style}")
        yield Panel(
            safe_text(self.text),
            title=title,
            border_style=self.style,
            title_align="left",
            box=box.ROUNDED,
        )


def word_grid(rows: Iterable[tuple[str, str]], min_width: int) -> Table:
    """Return names with their meanings beside them, without lines; names are min_width wide at least."""
    grid = Table.grid("", "", padding=(0, 2, 0, 0))
    grid.columns[0].min_width = min_width
    for row in rows:
        grid.add_row(*row)
    return grid


def percent_text(value: int) -> str:
    """Format basis points as percent: 4250 as 42.50 %."""
    return f"{value / 100:.2f} %"


def amount(text: str, places: int = 6) -> str:
    """Format a decimal string with thousands separators, truncated to `places`. A result of zero
    has no sign.
    """
    whole, _, fraction = text.lstrip("-").partition(".")
    formatted = f"{int(whole or 0):,}"
    if decimals := fraction[:places].rstrip("0"):
        formatted += f".{decimals}"
    if text.startswith("-") and formatted != "0":
        return f"-{formatted}"
    return formatted


def money(text: str) -> str:
    """Format a decimal string with thousands separators, truncated to two places."""
    return "{0}.{2:0<2}".format(*amount(text, 2).partition("."))


def gain_or_loss(text: str) -> str:
    """Format a profit like `money`, rounded down: a loss is rounded up in size."""
    return money(gain_text(text))


def brief(text: str) -> str:
    """Format a decimal string with six significant figures and at least two places. The JSON has
    all digits.
    """
    whole, _, fraction = text.lstrip("-").partition(".")
    leading_digits = len(whole) if int(whole or 0) else -(len(fraction) - len(fraction.lstrip("0")))
    return amount(text, max(2, 6 - leading_digits))


def holdings_table(document: Document, title: str = "Holdings") -> FigureTable:
    """Return a table of balances, prices, weights against targets and bands."""
    total_text = f"{money(document['total_value'])} {document['numeraire']}"
    full_bps = max(
        (max(holding["weight_bps"], holding["target_bps"]) for holding in document["holdings"]),
        default=0,
    )
    figure_names = ["amount", "price", "value", "weight", "target", "band"]
    exposures = document.get("futures", {}).get("exposures", ())
    net_by_symbol = {exposure["symbol"]: money(exposure["net"]) for exposure in exposures}
    if net_by_symbol:
        figure_names.insert(4, "net exposure")
    figure_table = table(
        f"{title} at block {document['block']}: {total_text}",
        ("token", ""),
        figure_names,
        order=("token", *figure_names, ""),
    )
    for holding in document["holdings"]:
        net_cells = (net_by_symbol.get(holding["symbol"], ""),) if net_by_symbol else ()
        low_bps, high_bps = holding["band_bps"]
        is_outside = not low_bps <= holding["weight_bps"] <= high_bps
        figure_table.add_row(
            holding["symbol"],
            amount(holding["amount"]),
            amount(holding["price"], 4),
            money(holding["value"]),
            safe_text(percent_text(holding["weight_bps"]), "bold red" if is_outside else ""),
            *net_cells,
            percent_text(holding["target_bps"]),
            "none"
            if (low_bps, high_bps) == (0, 10_000)
            else f"{low_bps / 100:g}-{high_bps / 100:g}",
            Bar(holding["weight_bps"], holding["target_bps"], full_bps, is_outside),
        )
    return figure_table


def _show_margin(console: Console, document: Document) -> None:
    """Print whether values and weights include the margin account; nothing without one."""
    margin_texts = [
        f"{coins(holding['margin_raw'], holding['decimals'])} {holding['symbol']}"
        for holding in document["holdings"]
        if "margin_raw" in holding
    ]
    if margin_texts:
        console.print(
            safe_text(
                f"Values and weights include margin: {', '.join(margin_texts)} (trimtab margin)"
            )
        )
    futures = document.get("futures")
    if futures and not futures["margin_in_weights"] and futures["value"] != "0":
        margin_text = f"{money(futures['value'])} {futures['unit']}"
        text = (
            f"The total includes margin of {margin_text}; weights are of the spot portfolio alone"
        )
        console.print(safe_text(text))


def show_status(console: Console, document: Document) -> None:
    """Print a whole status."""
    if document["holdings"]:
        console.print(holdings_table(document))
        position_texts = [
            f"{coins(holding['lp_raw'], holding['decimals'])} {holding['symbol']}"
            for holding in document["holdings"]
            if holding["lp_raw"] != "0"
        ]
        if position_texts:
            console.print(
                safe_text(
                    f"Values and weights include liquidity positions: {', '.join(position_texts)}"
                    " (trimtab lp)"
                )
            )
    _show_margin(console, document)
    console.print(safe_text(native_text(document["native"])))
    console.print(safe_text(format_trigger(document["trigger"])))
    if (minimum := document["least_total"]) is not None:
        console.print(safe_text(minimum["text"], "yellow" if minimum["enough"] is False else ""))
    for quarantined in document["quarantined"]:
        console.print(
            safe_text(
                f"Not readable: {quarantined['item']} {quarantined['address']}: {quarantined['why']}",
                "yellow",
            )
        )
    for token in document["screen"]:
        console.print(
            safe_text(
                f"In quarantine: {token['symbol']} {token['why']}. {token['remedy']}", "yellow"
            )
        )
    _show_price_alerts(console, document)
    for warning in document["warnings"]:
        console.print(safe_text(f"Note: {warning}", "yellow"))
    if document["excluded"]:
        console.print(excluded_table(document["excluded"]))
    if document["flows"]:
        console.print(transfers_table(document["flows"]))
    if document["paused"]:
        paused_text = (
            f"Paused{' hard' * document['pause_hard']}: {document['pause_reason']}. Nothing is sent"
            " until: trimtab resume"
        )
        console.print(safe_text(paused_text, "bold yellow"))
    if document["zone"] is not None:
        console.print(zone_table(document["zone"], document["numeraire"]))
    console.print(decision_notice(document))


def _show_price_alerts(console: Console, document: Document) -> None:
    for holding in document["holdings"]:
        for text in holding.get("price_alerts", ()):
            console.print(safe_text(f"Price alert: {text}", "yellow" if ": fired" in text else ""))


def native_text(document: Document) -> str:
    """Describe the native coin in one sentence."""
    text = f"Native coin: {amount(coins(document['native_wei'], 18))}"
    if document["kept_wei"] != "0":
        text += f", of which {coins(document['kept_wei'], 18)} are kept for gas"
    if document["counts_as_asset"]:
        wrapped_text = amount(coins(document["wrapped_raw"] or "0", 18))
        text += f"; with {wrapped_text} wrapped it is the {document['symbol']} of the portfolio"
    else:
        text += "; it pays gas and is not part of the portfolio"
    if document["top_up_wei"] is not None:
        text += f"; refilled up to {coins(document['top_up_wei'], 18)} by unwrapping"
    return text


def transactions_table(document: Document) -> FigureTable:
    """Return a table of sent transactions."""
    figure_table = table(
        "Transactions",
        ("kind", "status", "hash"),
        ("nonce", "block", "gas"),
        order=("kind", "nonce", "status", "block", "gas", "hash"),
    )
    for transaction in document["transactions"]:
        block, gas = "", ""
        if transaction["block"] is not None and transaction["block"] >= 0:
            block, gas = str(transaction["block"]), f"{transaction['gas_used']:,}"
        figure_table.add_row(
            transaction["kind"],
            str(transaction["nonce"]),
            safe_text(transaction["status"], STATE_STYLES.get(transaction["status"], "yellow")),
            block,
            gas,
            transaction["hash"],
        )
    return figure_table


def realised_table(document: Document, decimals: dict[str, int]) -> FigureTable:
    """Return a table of planned against realised change of each balance."""
    figure_table = table(
        "Planned against realised", ("token",), ("planned", "realised", "difference in base units")
    )
    for balance_change in document["realised"]:
        decimal_places = decimals[balance_change["symbol"]]
        planned, actual = balance_change["planned_raw"], balance_change["realised_raw"]
        figure_table.add_row(
            balance_change["symbol"],
            amount(coins(planned, decimal_places)),
            amount(coins(actual, decimal_places)),
            str(int(actual) - int(planned)),
        )
    return figure_table


def coins(raw: str, decimals: int) -> str:
    """Return base units as a decimal string of coins."""
    return decimal_text(int(raw), decimals)


def zone_table(document: Document, numeraire: str) -> FigureTable:
    """Return a table of the zone: no-trade interval and trigger edges of each asset, cost of risk,
    and the plan's trade-off.
    """
    risk_text = f"{amount(document['risk'], 4)} {numeraire} of risk within {document['horizon_s'] / 86_400:g} d"
    figure_table = table(
        f"Zone: drift from the targets costs {risk_text}",
        ("token",),
        ("no-trade zone", "trigger edges"),
    )
    for asset in document["assets"]:
        intervals_bps = (asset["no_trade_bps"], asset["trigger_bps"])
        figure_table.add_row(
            asset["symbol"],
            *(f"{low_bps / 100:g}-{high_bps / 100:g} %" for low_bps, high_bps in intervals_bps),
        )
    plan, notes = document["plan"], list[str]()
    if document["measured"]:
        notes.append(document["measured"])
    if plan is not None:
        cost_parts_text = ", ".join(
            f"{name} {amount(plan[name], 4)}"
            for name in ("fees", "impact", "skew", "gas", "approvals")
        )
        notes.append(
            f"A plan saves {amount(plan['saved_risk'], 4)} {numeraire} of risk and costs"
            f" {amount(plan['cost'], 4)}: {cost_parts_text}"
        )
    figure_table.note = "\n".join(notes)
    return figure_table


def decision_notice(document: Document) -> Notice:
    """Return the decision and its reason."""
    kind = document["decision"]["kind"]
    title = {"adjustliquidity": "liquidity", "adjustfutures": "futures"}.get(kind, kind)
    reason = document["decision"]["reason"].removeprefix(f"{title}: ")
    return Notice(reason, title, KIND_STYLES.get(kind, "white"))


def format_trigger(document: Document) -> str:
    """Describe the trigger in one line."""
    parts = [f"Trigger: {document['text']}, to {document['destination']}"]
    if document["bands"]:
        parts.append(f"bands of single assets: {document['bands']}")
    if document["only"]:
        parts.append(f"only = {document['only']}: {document['only_text']}")
    if document["next"]:
        parts.append(f"next {document['next']}")
    return "; ".join(parts)


def excluded_table(holdings: Sequence[Document]) -> FigureTable:
    """Return a table of excluded holdings."""
    return table(
        "Excluded",
        ("asset", "why"),
        ("amount",),
        order=("asset", "amount", "why"),
        rows=((holding["symbol"], holding["amount"], holding["why"]) for holding in holdings),
    )


def past_text(past: Document, *, with_basis: bool = False, short: bool = False) -> str:
    """Return the past result of a basket in one line, with its basis if asked; `short` for 80
    columns.
    """
    figures = {
        name: f"{float(past[name]) * 100:+.1f} %"
        for name in ("return", "return_of_holding", "max_drawdown", "max_drawdown_of_holding")
    }
    drawdown_label = "drawdown" if short else "maximum drawdown"
    text = (
        f"{past['from'][:4]}: {figures['return']} (held {figures['return_of_holding']}),"
        f" {drawdown_label} {figures['max_drawdown']} (held {figures['max_drawdown_of_holding']})"
    )
    if with_basis:
        return f"{text}; {past_costs_text(past)}; {past['basis']}; not a forecast"
    return text


def past_years_text(results: Sequence[Document], *, short: bool = False) -> str:
    """Return the returns of a basket in several years in one line; `short` for 80 columns."""
    years = []
    for result in results:
        text = f"{result['from'][:4]} {float(result['return']) * 100:+.1f} %"
        holding_text = f" (held {float(result['return_of_holding']) * 100:+.1f} %)"
        years.append(text if short else text + holding_text)
    return ", ".join(years)


def past_costs_text(past: Document) -> str:
    """Return the worst month, trades and costs of the past result of a basket in one line."""
    worst_text, holding_text = (
        f"{float(past[name]) * 100:+.1f} %"
        for name in ("worst_month_return", "worst_month_return_of_holding")
    )
    return (
        f"worst month {past['worst_month']} {worst_text} (held {holding_text}); trades {past['rebalances']}, costs"
        f" {past['costs']} of {int(past['value']):,}"
    )


def transfers_table(transfers: Sequence[Document]) -> FigureTable:
    """Return a table of transfers, newest first."""
    figure_table = table("Unexplained balance changes", ("id", "change", "status"))
    for transfer in transfers:
        status = (
            "counted as a loss until confirmed" if transfer["counts_as_loss"] else "unconfirmed"
        )
        figure_table.add_row(
            str(transfer["id"] or ""),
            safe_text(transfer["text"], "bold red" if transfer["halts"] else ""),
            transfer["kind"] or status,
        )
    return figure_table


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


def show_orders(document: Document) -> None:
    """Print all orders as tables."""
    if document["limit_orders"]:
        column_names = ("id", "order", "limit", "market", "distance", "until")
        limit_table = table(
            "Limit orders",
            (*column_names[:4], column_names[5]),
            column_names[4:5],
            order=column_names,
        )
        for order in document["limit_orders"]:
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
    if not document["orders"]:
        if document["limit_orders"]:
            return
        say(
            "No orders. To set entry, stop_loss, take_profit, trailing_stop or a price alert:"
            " trimtab orders set, or docs/orders.md"
        )
        return
    title = f"Orders at block {document['block']}, prices in {document['numeraire']}"
    figure_table = table(
        title, ("asset", "order", "stage", "since"), ("set", "level", "price", "distance")
    )
    for order in document["orders"]:
        since = order["since"] or ""
        if order["fired_at"]:
            since += f", at {amount(order['fired_at'], 4)}"
        level, price = (
            amount(order[name], 4) if order[name] else "" for name in ("level", "price")
        )
        if order["level_now"]:
            level = f"({amount(order['level_now'], 4)})"
        figure_table.add_row(
            order["subject"],
            order["kind"],
            _stage_text(order),
            since,
            order["terms"],
            level,
            price,
            _distance_text(order["distance_bps"]),
        )
    out.print(figure_table)
    _note_orders(document)


def _note_orders(document: Document) -> None:
    if any(order["stage"] == "waiting" for order in document["orders"]):
        say(
            "A waiting order watches no price until a cycle arms it: trimtab run, or once trimtab"
            " rebalance, also without --send."
        )
    if any(order["level_now"] for order in document["orders"]):
        say("A level in parentheses would apply if the order were armed now.")
    for line in document["target_reasons"]:
        say(line)
    for line in document["blocked_exits"]:
        out.print(safe_text(line, "bold red"))
    for line in document["contradictions"]:
        out.print(safe_text(f"Nothing is traded: {line}", "bold red"))


def figure_text(key: str, value: str | None) -> str:
    """Format a figure of a report: a Sharpe ratio as a number, any other in percent."""
    if value is None:
        return "–"
    return f"{float(value):.2f}" if key == "sharpe" else f"{float(value):.2%}"
