"""Tables of documents, notices, and the texts of their figures. Figures are never truncated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    safe_text,
)
from agent.figures import Column, format_figure
from agent.units import BPS, decimal_text, format_bps

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


def bps_percent_text(bps: int | None) -> str:
    """Format basis points as percent: 4250 as 42.50 %; empty without a value."""
    return "" if bps is None else f"{bps / 100:.2f} %"


def percent_text(fraction: str, sign: str = "", places: int = 2) -> str:
    """0.05 -> 5.00 %."""
    return f"{float(fraction) * 100:{sign}.{places}f} %"


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


def coins(raw: str, decimals: int) -> str:
    """Return base units as a decimal string of coins."""
    return decimal_text(int(raw), decimals)


def range_text(edges_bps: Sequence[int] | None) -> str:
    """Format the edges of a band or range; "none" without one."""
    low_bps, high_bps = edges_bps or (0, BPS)
    if (low_bps, high_bps) == (0, BPS):
        return "none"
    return f"{low_bps / 100:g}-{format_bps(high_bps)}"


def figure_text(figure_name: str, figure_value: str | None) -> str:
    """Format a figure of a report: a Sharpe ratio as a number, any other in percent."""
    if figure_value is None:
        return "–"
    if figure_name == "sharpe":
        return f"{float(figure_value):.2f}"
    return percent_text(figure_value)
