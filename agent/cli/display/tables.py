"""Tables and sentences for documents. Figures are never truncated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

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
    Document,
    WeightBar,
    out,
    safe_text,
    say,
)
from agent.figures import Column, columns, format_figure, pause_exceptions, stop_text
from agent.units import BPS, decimal_text, format_duration

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


NO_CELLS: Mapping[str, Callable[[Document], str | Text | WeightBar]] = {}


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
    rows: list[tuple[tuple[Text | WeightBar, ...], str]] = field(default_factory=list)

    def add_row(self, *cells: str | Text | WeightBar, style: str = "") -> None:
        """Add a row. Missing cells at its end are empty."""
        row_cells = [
            cell if isinstance(cell, Text | WeightBar) else safe_text(cell) for cell in cells
        ]
        self.rows.append(
            (tuple(row_cells + [Text()] * (len(self.column_names) - len(row_cells))), style)
        )

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        if self.heading.plain:
            yield self.heading
        bar_columns = {
            column_index
            for cells, _ in self.rows
            for column_index, cell in enumerate(cells)
            if isinstance(cell, WeightBar)
        }
        columns_without_bars = [
            column_index
            for column_index in range(len(self.column_names))
            if column_index not in bar_columns
        ]
        for column_indexes in (list(range(len(self.column_names))), columns_without_bars):
            if (widths := self._widths(column_indexes, options.max_width)) is not None:
                yield self._side_by_side(column_indexes, widths)
                break
        else:
            for cells, style in self.rows:
                yield from self._stacked(
                    [
                        (self.column_names[column_index], cells[column_index])
                        for column_index in columns_without_bars
                    ],
                    style,
                    options.max_width,
                )
        if self.note:
            yield safe_text(self.note, "italic dim")
        yield Text()

    def _widths(self, column_indexes: Sequence[int], max_width: int) -> list[int] | None:
        """Return the width of each column: its full width if there is room, else at least its
        minimum. None if even the minimums do not fit.
        """
        column_widths = [self._measure(column_index) for column_index in column_indexes]
        total_min = sum(min_width for min_width, _ in column_widths)
        spare_width = max_width - COLUMN_GAP * (len(column_indexes) - 1) - total_min
        max_growth = sum(full_width for _, full_width in column_widths) - total_min
        if spare_width < 0:
            return None
        if max_growth <= spare_width:
            return [full_width for _, full_width in column_widths]
        return [
            min_width + spare_width * (full_width - min_width) // max_growth
            for min_width, full_width in column_widths
        ]

    def _measure(self, column_index: int) -> tuple[int, int]:
        """Return minimum and full width of a column: figures do not wrap, free text wraps between
        words.
        """
        header = self.column_names[column_index] if self.show_header else ""
        column_cells = [row_cells[column_index] for row_cells, _ in self.rows]
        if any(isinstance(cell, WeightBar) for cell in column_cells):
            return MIN_BAR_CELLS, MAX_BAR_CELLS
        texts = [cell.plain for cell in column_cells if isinstance(cell, Text)]
        full_width = max(
            (cell_len(line) for text in (header, *texts) for line in text.splitlines()), default=0
        )
        min_width = _longest_word(header, *texts)
        if self.column_names[column_index] in self.figure_columns:
            return max(min_width, *map(cell_len, texts), 0), full_width
        return max(min_width, min(full_width, MIN_TEXT_WIDTH)), full_width

    def _side_by_side(self, column_indexes: Sequence[int], widths: Sequence[int]) -> Table:
        grid = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            header_style="dim",
        )
        grid.show_header = self.show_header
        for column_index, width in zip(column_indexes, widths, strict=True):
            grid.add_column(
                self.column_names[column_index],
                justify="right"
                if self.column_names[column_index] in self.figure_columns
                else "left",
                width=width,
                overflow="fold",
            )
        for cells, style in self.rows:
            grid.add_row(*(cells[column_index] for column_index in column_indexes), style=style)
        return grid

    def _stacked(
        self, named_cells: Sequence[tuple[str, Text | WeightBar]], style: str, max_width: int
    ) -> RenderResult:
        """Return one row as lines: its name, then each figure after its label, or below it if the
        line is too short.
        """
        named_texts = [
            (column_name.strip(), cell_text)
            for column_name, cell_text in named_cells
            if isinstance(cell_text, Text)
        ]
        title_index = next(
            (
                index
                for index, (column_name, _) in enumerate(named_texts)
                if column_name not in ("", "#")
            ),
            0,
        )
        title = Text(" ").join(text for _, text in named_texts[: title_index + 1] if text.plain)
        if named_texts and named_texts[title_index][0] in self.figure_columns and self.show_header:
            title = Text.assemble(f"{named_texts[title_index][0]} ", title)
        title.stylize(Style.combine([Style(bold=True), Style.parse(style)]))
        if title.plain:
            yield title
        labelled_texts: list[tuple[str, Text]] = []
        for column_name, cell_text in named_texts[title_index + 1 :]:
            if not column_name and labelled_texts and self.show_header:
                labelled_texts[-1] = (
                    labelled_texts[-1][0],
                    Text(" ").join(
                        text_part
                        for text_part in (labelled_texts[-1][1], cell_text)
                        if text_part.plain
                    ),
                )
            elif cell_text.plain:
                labelled_texts.append((column_name if self.show_header else "", cell_text))
        indent = (
            max(
                (
                    cell_len(column_name) + COLUMN_GAP
                    for column_name, _ in labelled_texts
                    if column_name
                ),
                default=0,
            )
            + COLUMN_GAP
        )
        for column_name, cell_text in labelled_texts:
            needed_width = (
                cell_len(cell_text.plain)
                if column_name in self.figure_columns
                else _longest_word(cell_text.plain)
            )
            if indent + needed_width <= max_width:
                grid = Table.grid(padding=(0, 0))
                grid.add_column(width=indent)
                grid.add_column(overflow="fold")
                grid.add_row(Text(" " * COLUMN_GAP + column_name, "dim"), cell_text, style=style)
                yield grid
                continue
            if column_name:
                yield Text(" " * COLUMN_GAP + column_name, "dim")
            yield Text.assemble(
                " " * min(COLUMN_GAP, max(0, max_width - needed_width)), cell_text, style=style
            )


def _longest_word(*texts: str) -> int:
    return max((cell_len(word) for text in texts for word in text.split()), default=0)


def table(
    title: str,
    text_columns: Sequence[str],
    figure_columns: Sequence[str] = (),
    *,
    column_order: Sequence[str] = (),
    rows: Iterable[Sequence[str | Text | WeightBar]] = (),
) -> FigureTable:
    """Create a table; `text_columns` and `figure_columns` name the columns by alignment,
    `column_order` is their order (text first by default).

    Figures belong in `figure_columns` and are not wrapped, free text and names in `text_columns`.
    """
    figure_table = FigureTable(
        safe_text(title, "bold"),
        tuple(column_order or (*text_columns, *figure_columns)),
        frozenset(figure_columns),
    )
    for row in rows:
        figure_table.add_row(*row)
    return figure_table


def document_table(
    title: str,
    shown_columns: Sequence[Column],
    rows: Iterable[Document],
    cell_functions: Mapping[str, Callable[[Document], str | Text | WeightBar]] = NO_CELLS,
    row_style: Callable[[Document], str] = lambda _: "",
) -> FigureTable:
    """Create a table of rows of a document, with the labels and formats that its type declares;
    `cell_functions` has functions of the row for the fields that are shown in another form.
    """
    figure_table = FigureTable(
        safe_text(title, "bold"),
        tuple(column.label for column in shown_columns),
        frozenset(column.label for column in shown_columns if not column.is_text),
    )
    for row in rows:
        figure_table.add_row(
            *(
                cell_functions[column.path](row)
                if column.path in cell_functions
                else figure_cell(row, column)
                for column in shown_columns
            ),
            style=row_style(row),
        )
    return figure_table


def figure_cell(row: Document, column: Column) -> str:
    """Return the text of a field of a row, in its declared format."""
    field_value: Any = row
    for name in column.path.split("."):
        field_value = None if field_value is None else field_value[name]
    return format_figure(field_value, column.figure, "-")


@dataclass(frozen=True, slots=True)
class Notice:
    """An important sentence: boxed at a terminal, one line when piped."""

    text: str
    title: str
    style: str
    prints_as_text: ClassVar[bool] = True

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        if not options.is_terminal:
            line = safe_text(f"{self.title}: {self.text}", self.style)
            line.overflow = None  # a piped line is never cut
            yield line
            return
        title = safe_text(self.title, f"bold {self.style}")
        yield Panel(
            safe_text(self.text),
            title=title,
            border_style=self.style,
            title_align="left",
            box=box.ROUNDED,
        )


def definition_grid(rows: Iterable[tuple[str, str]], min_width: int) -> Table:
    """Return names with their meanings beside them, without lines; names are min_width wide at
    least.
    """
    grid = Table.grid("", "", padding=(0, 2, 0, 0))
    grid.columns[0].min_width = min_width
    for row in rows:
        grid.add_row(*row)
    return grid


def bps_percent_text(bps: int) -> str:
    """Format basis points as percent: 4250 as 42.50 %."""
    return f"{bps / 100:.2f} %"


def amount(number_text: str, places: int = 6) -> str:
    """Format a decimal string with thousands separators, truncated to `places`. A result of zero
    has no sign.
    """
    whole, _, fraction = number_text.lstrip("-").partition(".")
    formatted = f"{int(whole or 0):,}"
    if fraction_digits := fraction[:places].rstrip("0"):
        formatted += f".{fraction_digits}"
    if number_text.startswith("-") and formatted != "0":
        return f"-{formatted}"
    return formatted


def cost_text(number_text: str) -> str:
    """Format a cost as money, or with two digits if that would read zero."""
    return format_figure(number_text, "cost", "-")


def money_text(number_text: str) -> str:
    """Format a decimal string with thousands separators, rounded to two places."""
    return format_figure(number_text, "money", "-")


def six_figures(number_text: str) -> str:
    """Format a decimal string with six significant figures and at least two places. The JSON has
    all digits.
    """
    return format_figure(number_text, "amount", "-")


def holdings_table(status_document: Document, title: str = "Holdings") -> FigureTable:
    """Return a table of balances, prices, weights against targets and bands."""
    total_text = f"{money_text(status_document['total_value'])} {status_document['numeraire']}"
    full_bps = max(
        (
            max(holding["weight_bps"], holding["target_bps"])
            for holding in status_document["holdings"]
        ),
        default=0,
    )

    def is_outside(holding: Document) -> bool:
        low_bps, high_bps = holding["band_bps"]
        return not low_bps <= holding["weight_bps"] <= high_bps

    exposures = status_document.get("futures", {}).get("exposures", ())
    net_by_symbol = {exposure["symbol"]: money_text(exposure["net"]) for exposure in exposures}
    net_columns = [Column("net", "net exposure", "money")] if net_by_symbol else []
    return document_table(
        f"{title} at block {status_document['block']}: {total_text}",
        [
            *columns("HoldingDocument", "symbol", "amount", "price", "value", "weight_bps"),
            *net_columns,
            *columns("HoldingDocument", "target_bps"),
            Column("band_bps", "band", "percent"),
            Column("bar", "", "text"),
        ],
        status_document["holdings"],
        {
            "weight_bps": lambda holding: safe_text(
                bps_percent_text(holding["weight_bps"]), "bold red" if is_outside(holding) else ""
            ),
            "net": lambda holding: net_by_symbol.get(holding["symbol"], ""),
            "band_bps": lambda holding: range_text(holding["band_bps"]),
            "bar": lambda holding: WeightBar(
                holding["weight_bps"], holding["target_bps"], full_bps, is_outside(holding)
            ),
        },
    )


def _show_margin(console: Console, status_document: Document) -> None:
    """Print whether values and weights include the margin account; nothing without one."""
    margin_texts = [
        f"{coins(holding['margin_raw'], holding['decimals'])} {holding['symbol']}"
        for holding in status_document["holdings"]
        if "margin_raw" in holding
    ]
    if margin_texts:
        console.print(
            safe_text(
                f"Values and weights include margin: {', '.join(margin_texts)} (trimtab margin)"
            )
        )
    futures_summary = status_document.get("futures")
    if (
        futures_summary
        and not futures_summary["margin_in_weights"]
        and futures_summary["value"] != "0"
    ):
        margin_text = f"{money_text(futures_summary['value'])} {futures_summary['unit']}"
        margin_note = (
            f"The total includes margin of {margin_text}; weights are of the spot portfolio alone"
        )
        console.print(safe_text(margin_note))


def show_status(console: Console, status_document: Document, *, is_safe: bool = False) -> None:
    """Print a whole status."""
    if status_document["holdings"]:
        console.print(holdings_table(status_document))
        position_texts = [
            f"{coins(holding['lp_raw'], holding['decimals'])} {holding['symbol']}"
            for holding in status_document["holdings"]
            if holding["lp_raw"] != "0"
        ]
        if position_texts:
            console.print(
                safe_text(
                    f"Values and weights include liquidity positions: {', '.join(position_texts)}"
                    " (trimtab lp)"
                )
            )
    if unvalued_holdings := status_document.get("unvalued"):
        console.print(
            table(
                f"Holdings at block {status_document['block']}: total unknown",
                ("asset",),
                ("amount", "price"),
                rows=(
                    (
                        holding["symbol"],
                        "not readable" if holding["amount"] is None else amount(holding["amount"]),
                        "missing"
                        if holding["price"] is None
                        else format_figure(holding["price"], "price"),
                    )
                    for holding in unvalued_holdings
                ),
            )
        )
    _show_margin(console, status_document)
    console.print(safe_text(native_text(status_document["native"], is_safe=is_safe)))
    console.print(safe_text(format_trigger(status_document["trigger"])))
    if (minimum_total := status_document["least_total"]) is not None:
        console.print(
            safe_text(minimum_total["text"], "yellow" if minimum_total["enough"] is False else "")
        )
    for unreadable_item in status_document["quarantined"]:
        console.print(
            safe_text(
                f"Not readable: {unreadable_item['item']} {unreadable_item['address']}: {unreadable_item['why']}",
                "yellow",
            )
        )
    for token in status_document["screen"]:
        console.print(
            safe_text(
                f"In quarantine: {token['symbol']} {token['why']}. {token['remedy']}", "yellow"
            )
        )
    _show_price_alerts(console, status_document)
    for warning in status_document["warnings"]:
        console.print(safe_text(f"Note: {warning}", "yellow"))
    if status_document["excluded"]:
        console.print(excluded_holdings_table(status_document["excluded"]))
    if status_document["flows"]:
        console.print(transfers_table(status_document["flows"]))
    for standstill_text in _standstill_texts(status_document):
        console.print(safe_text(standstill_text, "bold yellow"))
    if status_document["zone"] is not None:
        console.print(zone_table(status_document["zone"], status_document["numeraire"]))
    console.print(decision_notice(status_document))


def _standstill_texts(status_document: Document) -> Iterator[str]:
    """Yield why nothing is sent: a pause, and a stop."""
    if status_document["paused"]:
        hardness = " hard" if status_document["pause_hard"] else ""
        yield (
            f"Paused{hardness}: {status_document['pause_reason']}. Nothing is sent"
            f" until: trimtab resume{pause_exceptions(status_document)}"
        )
    if "stop" in status_document:
        yield f"{stop_text(status_document['stop'])}."


def _show_price_alerts(console: Console, status_document: Document) -> None:
    for holding in status_document["holdings"]:
        for alert_text in holding.get("price_alerts", ()):
            console.print(
                safe_text(f"Price alert: {alert_text}", "yellow" if ": fired" in alert_text else "")
            )


def native_text(native_document: Document, *, is_safe: bool = False) -> str:
    """Describe the native coin in one sentence."""
    text = f"Native coin: {amount(coins(native_document['native_wei'], 18))}"
    if native_document["kept_wei"] != "0":
        text += f", of which {coins(native_document['kept_wei'], 18)} are kept for gas"
    if native_document["counts_as_asset"]:
        wrapped_text = amount(coins(native_document["wrapped_raw"] or "0", 18))
        text += (
            f"; with {wrapped_text} wrapped it is the {native_document['symbol']} of the portfolio"
        )
    else:
        payer_text = (
            "who executes for the Safe pays the gas, and it" if is_safe else "it pays gas and"
        )
        text += f"; {payer_text} is not part of the portfolio"
    if native_document["top_up_wei"] is not None:
        text += f"; refilled up to {coins(native_document['top_up_wei'], 18)} by unwrapping"
    return text


def transactions_table(document: Document) -> FigureTable:
    """Return a table of sent transactions."""
    figure_table = table(
        "Transactions",
        ("kind", "status", "hash"),
        ("nonce", "block", "gas"),
        column_order=("kind", "nonce", "status", "block", "gas", "hash"),
    )
    for transaction in document["transactions"]:
        block_text = ""
        gas_text = ""
        if transaction["block"] is not None and transaction["block"] >= 0:
            block_text = str(transaction["block"])
            gas_text = f"{transaction['gas_used']:,}"
        figure_table.add_row(
            transaction["kind"],
            str(transaction["nonce"]),
            safe_text(transaction["status"], STATE_STYLES.get(transaction["status"], "yellow")),
            block_text,
            gas_text,
            transaction["hash"],
        )
    return figure_table


def realised_changes_table(document: Document, decimals_by_symbol: dict[str, int]) -> FigureTable:
    """Return a table of planned against realised change of each balance."""
    figure_table = table(
        "Planned against realised", ("token",), ("planned", "realised", "difference in base units")
    )
    for balance_change in document["realised"]:
        decimal_places = decimals_by_symbol[balance_change["symbol"]]
        planned_raw = balance_change["planned_raw"]
        actual_raw = balance_change["realised_raw"]
        figure_table.add_row(
            balance_change["symbol"],
            amount(coins(planned_raw, decimal_places)),
            amount(coins(actual_raw, decimal_places)),
            str(int(actual_raw) - int(planned_raw)),
        )
    return figure_table


def coins(raw: str, decimals: int) -> str:
    """Return base units as a decimal string of coins."""
    return decimal_text(int(raw), decimals)


WAITING_NOTE = (
    "Its range decides when an asset moves, not these costs: within the year prices move it on or"
    " back, and each trade pays its gas again"
)


def zone_table(zone_document: Document, numeraire: str) -> FigureTable:
    """Return a table of the zone: weight of each asset, beyond where it moves and what it is brought
    back to; cost of risk, of corrections, and the plan's trade-off.
    """
    risk_text = f"{cost_text(zone_document['risk'])} {numeraire} of risk within {format_duration(zone_document['horizon_s'])}"
    figure_table = document_table(
        f"Zone: drift from the targets costs {risk_text}",
        columns(
            "ZoneAssetDocument",
            "symbol",
            "weight_bps",
            "target_bps",
            "trigger_bps",
            "no_trade_bps",
        ),
        zone_document["assets"],
        {
            "trigger_bps": lambda asset: range_text(asset["trigger_bps"]),
            "no_trade_bps": lambda asset: range_text(asset["no_trade_bps"]),
        },
    )
    notes = [
        f"{asset['symbol']}: correcting costs {money_text(correction['cost'])} {numeraire},"
        f" waiting a year costs {money_text(correction['waiting_year'])}"
        for asset in zone_document["assets"]
        if (correction := asset["correction"]) is not None
    ]
    if notes:
        notes.append(WAITING_NOTE)
    plan = zone_document["plan"]
    if zone_document["measured"]:
        notes.append(zone_document["measured"])
    if plan is not None:
        cost_parts_text = ", ".join(
            f"{cost_name} {cost_text(plan[cost_name])}"
            for cost_name in ("fees", "impact", "skew", "gas", "approvals")
        )
        notes.append(
            f"A plan saves {cost_text(plan['saved_risk'])} {numeraire} of risk and costs"
            f" {cost_text(plan['cost'])}: {cost_parts_text}"
        )
    figure_table.note = "\n".join(notes)
    return figure_table


def range_text(edges_bps: Sequence[int] | None) -> str:
    """Format the edges of a band or range; "none" without one."""
    low_bps, high_bps = edges_bps or (0, BPS)
    if (low_bps, high_bps) == (0, BPS):
        return "none"
    return f"{low_bps / 100:g}-{high_bps / 100:g} %"


def decision_notice(document: Document) -> Notice:
    """Return the decision and its reason."""
    kind = document["decision"]["kind"]
    title = {"adjustliquidity": "liquidity", "adjustfutures": "futures"}.get(kind, kind)
    reason = document["decision"]["reason"].removeprefix(f"{title}: ")
    return Notice(reason, title, KIND_STYLES.get(kind, "white"))


def format_trigger(trigger_document: Document) -> str:
    """Describe the trigger in one line."""
    clauses = [f"Trigger: {trigger_document['text']}, to {trigger_document['destination']}"]
    if trigger_document["bands"]:
        clauses.append(f"bands of single assets: {trigger_document['bands']}")
    if trigger_document["only"]:
        clauses.append(f"only = {trigger_document['only']}: {trigger_document['only_text']}")
    if trigger_document["next"]:
        clauses.append(f"next {trigger_document['next']}")
    return "; ".join(clauses)


def excluded_holdings_table(holdings: Sequence[Document]) -> FigureTable:
    """Return a table of excluded holdings."""
    return table(
        "Excluded",
        ("asset", "why"),
        ("amount",),
        column_order=("asset", "amount", "why"),
        rows=((holding["symbol"], holding["amount"], holding["why"]) for holding in holdings),
    )


def past_result_text(
    past_result: Document, *, with_basis: bool = False, short: bool = False
) -> str:
    """Return the past result of a basket in one line, with its basis if asked; `short` for 80
    columns.
    """
    figure_texts = {
        figure_name: f"{float(past_result[figure_name]) * 100:+.1f} %"
        for figure_name in (
            "return",
            "return_of_holding",
            "max_drawdown",
            "max_drawdown_of_holding",
        )
    }
    drawdown_label = "drawdown" if short else "maximum drawdown"
    text = (
        f"{past_result['from'][:4]}: {figure_texts['return']} (held {figure_texts['return_of_holding']}),"
        f" {drawdown_label} {figure_texts['max_drawdown']} (held {figure_texts['max_drawdown_of_holding']})"
    )
    if with_basis:
        return f"{text}; {past_costs_text(past_result)}; {past_result['basis']}; not a forecast"
    return text


def past_years_text(year_results: Sequence[Document], *, short: bool = False) -> str:
    """Return the returns of a basket in several years in one line; `short` for 80 columns."""
    year_texts = []
    for year_result in year_results:
        year_text = f"{year_result['from'][:4]} {float(year_result['return']) * 100:+.1f} %"
        holding_text = f" (held {float(year_result['return_of_holding']) * 100:+.1f} %)"
        year_texts.append(year_text if short else year_text + holding_text)
    return ", ".join(year_texts)


def past_costs_text(past_result: Document) -> str:
    """Return the worst month, trades and costs of the past result of a basket in one line."""
    worst_text, holding_text = (
        f"{float(past_result[return_name]) * 100:+.1f} %"
        for return_name in ("worst_month_return", "worst_month_return_of_holding")
    )
    return (
        f"worst month {past_result['worst_month']} {worst_text} (held {holding_text}); trades {past_result['rebalances']}, costs"
        f" {past_result['costs']} of {int(past_result['value']):,}"
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


def _since_text(order: Document) -> str:
    fired_text = f", at {format_figure(order['fired_at'], 'price')}" if order["fired_at"] else ""
    return f"{order['since'] or ''}{fired_text}"


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
        {"stage": _stage_text, "since": _since_text, "level": _level_text},
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
    for line in orders_document["target_reasons"]:
        say(line)
    for line in orders_document["blocked_exits"]:
        out.print(safe_text(line, "bold red"))
    for line in (
        *orders_document["contradictions"],
        *filter(None, [orders_document.get("stopped")]),
    ):
        out.print(safe_text(f"Nothing is traded: {line}", "bold red"))


def figure_text(figure_name: str, figure_value: str | None) -> str:
    """Format a figure of a report: a Sharpe ratio as a number, any other in percent."""
    if figure_value is None:
        return "–"
    if figure_name == "sharpe":
        return f"{float(figure_value):.2f}"
    return f"{float(figure_value) * 100:.2f} %"
