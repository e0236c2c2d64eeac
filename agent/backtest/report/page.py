"""Self-contained report pages: HTML with all text escaped, scripts allowed by hash alone, and no network; charts and number formats."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from functools import lru_cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent import artifacts
from agent.backtest.report.series import Floats, Indices
from agent.errors import ConfigError, printable_text
from agent.units import floor_int

# --- Pages: their parts, and one self-contained HTML file or JSON document of each.


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


class ReportFact(NamedTuple):
    """A named figure with a comment."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReportTable:
    """Rows of text under a header. Columns of numbers are right-aligned."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A part of a page: paragraphs, then figures, then tables."""

    title: str
    words: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[ReportTable, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportPage:
    """A report. `summary` states the result in plain sentences, `facts` are its most important figures.

    `origin` has everything needed to repeat it: parameters, hashes, seed, versions.
    """

    title: str
    facts: tuple[ReportFact, ...]
    sections: tuple[ReportSection, ...]
    summary: tuple[str, ...] = ()
    origin: tuple[ReportFact, ...] = ()
    kind: str = field(default="Backtest")


def write_page(page: ReportPage, path: Path) -> None:
    """Write the page as one HTML file without network access; the same bytes for the same page. Replaces the file in one step.

    Raises ConfigError if Plotly is not installed, OSError if the file cannot be written.
    """
    from agent.backtest.report.page import render_html

    _replace(path, render_html(page))


def write_document(page: ReportPage, path: Path) -> None:
    """Write the page as JSON: its texts, figures and tables. Replaces the file in one step. Raises OSError."""
    _replace(path, json.dumps(report_document(page), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def report_document(page: ReportPage) -> dict[str, Any]:
    """The page as plain data; non-finite numbers are null."""
    return {
        "kind": page.kind,
        "title": page.title,
        "summary": list(page.summary),
        "facts": [one._asdict() for one in page.facts],
        "sections": [
            {
                "title": one.title,
                "words": list(one.words),
                "figures": [to_plain_data(figure) for figure in one.figures],
                "tables": [{"caption": t.caption, "header": list(t.header), "rows": [list(row) for row in t.rows]} for t in one.tables],
            }
            for one in page.sections
        ],
        "origin": [one._asdict() for one in page.origin],
    }


def to_plain_data(value: Any) -> Any:
    """Convert figures, NumPy values included, to plain data; floats to nine digits, null for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): to_plain_data(one) for key, one in value.items()}
    if hasattr(value, "tolist"):
        return to_plain_data(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_plain_data(one) for one in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if abs(value) >= WHOLE_FROM else float(f"{value:.{DIGITS}g}")
    return value


def escape_for_plotly(value: Any, key: str = "") -> Any:
    """Escape all text so that Plotly shows it literally: it interprets a few tags and entities of HTML."""
    if isinstance(value, dict):
        return {printable_text(name): escape_for_plotly(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [escape_for_plotly(one, key) for one in value]
    if not isinstance(value, str):
        return value
    shown = (value if key in TEMPLATES else printable_text(value)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if key in TEMPLATES:
        for tag in ALLOWED_TAGS:
            shown = shown.replace(tag.replace("<", "&lt;").replace(">", "&gt;"), tag)
    return shown


def _replace(path: Path, text: str) -> None:
    """Write beside the file and rename, so that no reader sees half a file."""
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


HEIGHT_PX = 320
LONG_FACT = 13
"""Characters of a fact beyond which it is set smaller."""
HOW_TO_READ = "Drag along a chart to look closer, double-click to go back. By keyboard: tab to a chart, arrow keys read its values."
NUMBER = re.compile(r"[+−-]?\d[\d,  ]*(\.\d+)?( ?(%|bps|×|points|days|bars|[A-Z]{2,6}))?")
LONG = 64
"""Entries of a list from which it is written once and shared."""
NOTHING = ("", "—", "–", "none")
_HERE = Path(__file__).parent / "page"


def render_html(page: ReportPage) -> str:
    """Render the whole file. Raises ConfigError if Plotly's bundle is missing."""
    style, script, plotly = _own("page.css"), _own("page.js"), _plotly()
    figures: list[Figure] = []
    body = "\n".join(_section(number, one, figures) for number, one in enumerate(page.sections))
    policy = (
        f"default-src 'none'; script-src {_hash(plotly)} {_hash(script)}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>{_text(page.title)}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">To the report</a>
<header>
<p class="kind">{_text(page.kind)}</p>
<h1>{_text(page.title)}</h1>
<div class="summary">{_paragraphs(page.summary)}</div>
{_facts(page.facts)}
{_contents(page)}
</header>
<main id="main" tabindex="-1">
{body}
{_origin(page.origin)}
</main>
<footer><p>{HOW_TO_READ}</p></footer>
<p id="spoken" class="unseen" role="status"></p>
<script type="application/json" id="figures">{_data(figures)}</script>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""


@lru_cache(maxsize=1)
def _plotly() -> str:
    path = artifacts.plotly_bundle()
    found = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    if re.search(r"</script|<!--", found, re.IGNORECASE):
        raise ConfigError(f"report: {path} cannot be written into a page", "install the locked version")
    return found


def _own(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _hash(script: str) -> str:
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"


def _text(value: str) -> str:
    return escape(printable_text(value), quote=True)


def _data(figures: list[Figure]) -> str:
    """JSON that cannot end a script element; a long list shared by several series is written once."""
    lists: dict[str, int] = {}

    def once(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: once(one) for key, one in value.items()}
        if isinstance(value, list):
            if len(value) < LONG:
                return [once(one) for one in value]
            return {"list": lists.setdefault(_json(value), len(lists))}
        return value

    drawn = [once(escape_for_plotly(to_plain_data({"data": one.get("data", []), "layout": _layout(one)}))) for one in figures]
    text = f'{{"lists":[{",".join(lists)}],"figures":{_json(drawn)}}}'
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _layout(figure: Figure) -> dict[str, Any]:
    return {key: one for key, one in figure.get("layout", {}).items() if key not in ("title", "height", "width", "images")}


def _paragraphs(words: tuple[str, ...]) -> str:
    return "".join(f"<p>{_text(one)}</p>" for one in words)


def _facts(facts: tuple[ReportFact, ...]) -> str:
    if not facts:
        return ""
    cells = []
    for one in facts:
        size = ' class="long"' if len(one.value) > LONG_FACT else ""
        note = f"<small>{_text(one.note)}</small>" if one.note else ""
        cells.append(f"<div><dt>{_text(one.name)}</dt><dd{size}>{_text(one.value)}{note}</dd></div>")
    return f'<dl class="facts">{"".join(cells)}</dl>'


def _contents(page: ReportPage) -> str:
    if len(page.sections) < 3:
        return ""
    links = [f'<li><a href="#s{number}">{_text(one.title)}</a></li>' for number, one in enumerate(page.sections)]
    if page.origin:
        links.append('<li><a href="#origin">Where it came from</a></li>')
    return f'<nav aria-label="Contents"><ul>{"".join(links)}</ul></nav>'


def _section(number: int, section: ReportSection, figures: list[Figure]) -> str:
    parts = []
    for one in section.figures:
        parts.append(_figure(len(figures), one))
        figures.append(one)
    parts += [_table(one, section.title) for one in section.tables]
    small = ' class="shown small"' if any(one.get("small") for one in section.figures) else ' class="shown"'
    return (
        f'<section id="s{number}" aria-labelledby="t{number}"><div class="said"><h2 id="t{number}">{_text(section.title)}</h2>'
        f"{_paragraphs(section.words)}</div><div{small}>{''.join(parts)}</div></section>"
    )


def _figure(number: int, figure: Figure) -> str:
    inside = figure.get("layout", {}).get("title", "")
    title = str(figure.get("title") or (inside.get("text", "") if isinstance(inside, dict) else inside))
    says = str(figure.get("says", ""))
    height = int(figure.get("height") or figure.get("layout", {}).get("height") or HEIGHT_PX)
    caption = f"<figcaption>{_text(title)}</figcaption>" if title else ""
    label = _text(". ".join(one.rstrip(".") for one in (title, says) if one) or "Chart")
    kind = "plot small" if figure.get("small") else "plot"
    return (
        f'<figure>{caption}<div class="{kind}" data-figure="{number}" style="height:{height}px" tabindex="0" role="application" '
        f'aria-roledescription="chart" aria-label="{label}. Arrow keys read values."></div></figure>'
    )


def _table(table: ReportTable, title: str) -> str:
    wide = len(table.header)
    columns = [[row[index] if index < len(row) else "" for row in table.rows] for index in range(wide)]
    right = [_numeric(cells) for cells in columns]

    def cell(index: int, value: str, head: bool) -> str:
        number = ' class="n"' if right[index] else ""
        if head:
            return f'<th scope="col"{number}>{_text(value)}</th>'
        return f'<th scope="row"{number}>{_text(value)}</th>' if index == 0 else f"<td{number}>{_text(value)}</td>"

    head = "".join(cell(index, value, True) for index, value in enumerate(table.header))
    rows = "".join(f"<tr>{''.join(cell(i, value, False) for i, value in enumerate(row[:wide]))}</tr>" for row in table.rows)
    caption = f"<caption>{_text(table.caption)}</caption>" if table.caption else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(table.caption or title)}"><table>{caption}'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _numeric(cells: list[str]) -> bool:
    shown = [one for one in cells if one not in NOTHING]
    return bool(shown) and all(NUMBER.fullmatch(one) for one in shown)


def _origin(origin: tuple[ReportFact, ...]) -> str:
    if not origin:
        return ""
    rows = "".join(
        f"<div><dt>{_text(one.name)}</dt><dd>{_text(one.value)}{f' <small>{_text(one.note)}</small>' if one.note else ''}</dd></div>"
        for one in origin
    )
    return (
        '<section id="origin" aria-labelledby="t-origin"><div class="said"><h2 id="t-origin">Where it came from</h2>'
        "<p>By these the run can be repeated, to the last digit.</p></div>"
        f'<div class="shown"><dl class="origin">{rows}</dl></div></section>'
    )


# --- Number and time formats of reports.


NONE = "—"
MINUS = "−"
LONGEST_NAME = 24


def short_name(symbol: str) -> str:
    """Symbol as shown in charts and headings; tables have all of it."""
    return symbol if len(symbol) <= LONGEST_NAME else f"{symbol[: LONGEST_NAME - 1]}…"


def format_money(value: Fraction, decimals: int) -> str:
    """Format exact base units as whole coins with thousands separators: two places from 1 on, else four significant digits, cut."""
    coins = abs(value) / Fraction(10) ** decimals
    places = 2
    if 0 < coins < 1:
        places = min(18, 4 - math.ceil(math.log10(coins)))
    units = floor_int(coins * 10**places)
    text = f"{units // 10**places:,}.{units % 10**places:0{places}d}"
    return f"{MINUS}{text}" if value < 0 and units else text


def format_percent(share: float, places: int = 1, signed: bool = False) -> str:
    """0.1234 as 12.3%; a dash for a non-finite number."""
    if not math.isfinite(share):
        return NONE
    text = f"{abs(share) * 100:,.{places}f}"
    if not any(digit not in "0.," for digit in text):
        return f"{text}%"
    return f"{MINUS if share < 0 else '+' if signed else ''}{text}%"


def format_ratio(value: float, places: int = 2) -> str:
    """A plain number; a dash for a non-finite one."""
    if not math.isfinite(value):
        return NONE
    text = f"{abs(value):,.{places}f}"
    return f"{MINUS if value < 0 and float(text.replace(',', '')) else ''}{text}"


def format_day(time_s: int) -> str:
    """4 Apr 2021, UTC."""
    at = datetime.fromtimestamp(time_s, UTC)
    return f"{at.day} {at:%b %Y}"


def format_date_range(first_s: int, last_s: int) -> str:
    """4 Apr 2021 to 31 Dec 2022, or one day."""
    first, last = format_day(first_s), format_day(last_s)
    return first if first == last else f"{first} to {last}"


def format_minute(time_s: int) -> str:
    """2021-04-04 13:00, UTC."""
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M}"


def format_duration(seconds: float) -> str:
    """Days; hours below two days, minutes below an hour."""
    days = seconds / 86_400
    if seconds < 3_600:
        return pluralize(round(seconds / 60), "minute")
    return pluralize(round(days), "day") if days >= 2 else pluralize(round(seconds / 3_600), "hour")


def pluralize(number: int, thing: str) -> str:
    """1 rebalance, 23 rebalances."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


# --- Charts: lines, bars and bands over the same thinned times.


Trace = dict[str, Any]
DATES = {"type": "date", "hoverformat": "%-d %b %Y %H:%M"}
PERCENT = ".1%"
THIN, MIDDLE, STRONG = 1.2, 1.6, 2.2
DOT = 7


def line_trace(  # noqa: PLR0913
    x: Any, y: Any, name: str, colour: str, *, width: float = MIDDLE, dash: str = "solid", form: str = "", step: bool = False
) -> Trace:
    """A line; `form` is the number format of its hover text."""
    drawn: Trace = {"color": f"var({colour})", "width": width, "dash": dash}
    if step:
        drawn["shape"] = "hv"
    found: Trace = {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": drawn}
    return found | ({"yhoverformat": form} if form else {})


def band_edge_trace(x: Any, y: Any, colour: str, *, filled: bool) -> Trace:
    """One edge of a band; the upper one fills down to the lower one before it."""
    drawn = {"color": f"var({colour})/0.45", "width": 1, "shape": "hv"}
    found: Trace = {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": drawn, "hoverinfo": "skip", "showlegend": False}
    return found | ({"fill": "tonexty", "fillcolor": f"var({colour})/0.12"} if filled else {})


def marker_trace(x: Any, y: Any, says: list[str], name: str, colour: str, symbol: str) -> Trace:
    """Markers with a text each."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": x,
        "y": y,
        "name": name,
        "text": says,
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": f"var({colour})", "symbol": symbol, "size": DOT, "line": {"color": "var(--paper)", "width": 1}},
    }


def bar_trace(x: Any, y: Any, name: str, colour: str, form: str) -> Trace:
    """Upright bars."""
    return {"type": "bar", "x": x, "y": y, "name": name, "marker": {"color": f"var({colour})"}, "yhoverformat": form}


def value_axis(unit: str, form: str = "") -> Trace:
    """An upright axis with its unit."""
    found: Trace = {"title": {"text": unit}}
    return found | ({"tickformat": form, "hoverformat": form} if form else {})


def time_chart(traces: list[Trace], unit: str, form: str = "", **more: Any) -> Trace:
    """A chart over time, without its title."""
    return {"data": traces, "layout": {"xaxis": dict(DATES), "yaxis": value_axis(unit, form), **more}}


def values_at(values: Floats, kept: Indices, digits: int = 6) -> list[float]:
    """Values at these indices, to that many significant digits."""
    return [float(f"{value:.{digits}g}") for value in values[kept].tolist()]


def to_milliseconds(times_s: NDArray[np.int64], kept: Indices) -> list[int]:
    """Times in the unit of the charts."""
    return [int(value) * 1_000 for value in times_s[kept].tolist()]


def change_indices(values: Floats) -> Indices:
    """Indices at which a stepwise series changes, and its ends."""
    changed = np.nonzero(np.diff(np.nan_to_num(values, nan=-1.0)))[0] + 1
    found: Indices = np.unique(np.concatenate([[0], changed, [len(values) - 1]]))
    return found
