"""Renders a table at the widths that terminals have, and says what of it is cut."""

from __future__ import annotations

import io

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from agent.cli.display.tables import FigureTable

WIDTHS = (40, 60, 80, 120)


class MeasuringConsole(Console):
    """A console for that alone."""


def drawing_of(table: FigureTable, width: int) -> str:
    """The table as a terminal of that width shows it."""
    file = io.StringIO()
    MeasuringConsole(file=file, width=width, highlight=False).print(table)
    return file.getvalue()


def cut(table: FigureTable) -> list[str]:
    """What does not appear whole at some width: figures in one piece, of names and free text each word that a line has room for."""
    mistakes = []
    for width in WIDTHS:
        drawing = drawing_of(table, width)
        lines = drawing.splitlines()
        mistakes += [f"{width}: a line of {cell_len(line)}: {line}" for line in lines if cell_len(line) > width]
        texts = [
            (name, cell.plain)
            for cells, _ in table.rows
            for name, cell in zip(table.column_names, cells, strict=True)
            if isinstance(cell, Text)
        ]
        for name, text in texts:
            pieces = [text] if name in table.figure_columns and cell_len(text) <= width else text.split()
            mistakes += [
                f"{width}: {piece!r} of {name!r}"
                for piece in pieces
                if cell_len(piece) <= width and not any(piece in line for line in lines)
            ]
        here = sum(text.count("…") for _, text in texts) + sum(map(table.heading.plain.count, "…")) + table.note.count("…")
        mistakes += [f"{width}: an ellipsis"] if drawing.count("…") > here else []
    return mistakes
