"""Reports as pages: what a page is made of, and one self-contained HTML file or JSON document of it."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from agent.errors import plain

Figure = Mapping[str, Any]
"""A Plotly figure as plain data: `data` (traces of type scatter, bar or pie) and `layout`. Beside them, all optional: `title` (stands
above the chart; `layout.title` will do), `says` (one sentence on what is to be seen, read out to whoever does not see it), `height`
in pixels (320), `small` (true: several share a row).

Colours are named by role so that they fit the light and the dark page: "var(--c1)" to "var(--c8)" for series, "var(--ink)",
"var(--soft)", "var(--grid)", "var(--good)", "var(--bad)"; "var(--c1)/0.2" is one with an opacity. What is not coloured takes c1, c2, …
in turn. Fonts, grids, margins and hover boxes are the page's own where the layout leaves them open. Times are milliseconds since
1970, UTC, on an axis of type "date".

Every text is shown as it is. Only `hovertemplate` and `texttemplate` may hold <br>, <b> and <extra>: they are ours, and foreign text
comes into them by %{text}, %{customdata} or %{fullData.name}.
"""
TEMPLATES = ("hovertemplate", "texttemplate")
ALLOWED_TAGS = ("<br>", "<b>", "</b>", "<extra>", "</extra>")
DIGITS = 9
"""Significant digits of floats in figures."""
WHOLE_FROM = 1e9
"""Above it floats keep all of them: milliseconds are there."""


class Fact(NamedTuple):
    """A name and what it is, with a word on it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a header. Columns in which every cell is a number stand at the right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page: paragraphs, then figures, then tables."""

    title: str
    words: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A report. `summary` says in plain sentences what came out, `facts` are its few most important figures, `origin` is by what it
    can be repeated: parameters, hashes, seed, versions.
    """

    title: str
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...]
    summary: tuple[str, ...] = ()
    origin: tuple[Fact, ...] = ()
    kind: str = field(default="Backtest")


def write_page(page: Page, path: Path) -> None:
    """The page as one HTML file that asks no network and forbids it; the same bytes for the same page. Replaces the file in one step.

    Raises ConfigError where Plotly is not installed, OSError where the file cannot be written.
    """
    from agent.backtest.report_html import html

    _replace(path, html(page))


def write_document(page: Page, path: Path) -> None:
    """The page as JSON: its texts, figures and tables as they are. Replaces the file in one step. Raises OSError."""
    _replace(path, json.dumps(document(page), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def document(page: Page) -> dict[str, Any]:
    """The page as plain data; what is no finite number is null."""
    return {
        "kind": page.kind,
        "title": page.title,
        "summary": list(page.summary),
        "facts": [one._asdict() for one in page.facts],
        "sections": [
            {
                "title": one.title,
                "words": list(one.words),
                "figures": [as_data(figure) for figure in one.figures],
                "tables": [{"caption": t.caption, "header": list(t.header), "rows": [list(row) for row in t.rows]} for t in one.tables],
            }
            for one in page.sections
        ],
        "origin": [one._asdict() for one in page.origin],
    }


def as_data(value: Any) -> Any:
    """Numbers, texts, lists and dicts of whatever a figure holds, NumPy's too; floats to nine digits, null for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): as_data(one) for key, one in value.items()}
    if hasattr(value, "tolist"):
        return as_data(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_data(one) for one in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if abs(value) >= WHOLE_FROM else float(f"{value:.{DIGITS}g}")
    return value


def inert(value: Any, key: str = "") -> Any:
    """The same data with each text written so that Plotly shows it letter by letter: it reads a few tags and entities of HTML."""
    if isinstance(value, dict):
        return {plain(name): inert(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [inert(one, key) for one in value]
    if not isinstance(value, str):
        return value
    shown = (value if key in TEMPLATES else plain(value)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if key in TEMPLATES:
        for tag in ALLOWED_TAGS:
            shown = shown.replace(tag.replace("<", "&lt;").replace(">", "&gt;"), tag)
    return shown


def _replace(path: Path, text: str) -> None:
    """Written beside it and renamed, so that nobody reads half a file."""
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
