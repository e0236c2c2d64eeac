"""Self-contained report pages: HTML with escaped text, scripts allowed by hash only, no network
access; charts and number formats.
"""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from functools import lru_cache
from hashlib import sha256
from itertools import count, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent import artifacts
from agent.backtest.report.series import Indices
from agent.errors import ConfigError, printable_text
from agent.files import replace_file
from agent.floats import FloatArray
from agent.units import DAY_S, HOUR_S, pluralize

if TYPE_CHECKING:
    from jinja2 import Environment


Chart = Mapping[str, Any]
"""A Plotly figure as plain data: `data` (traces of type scatter, bar or pie) and `layout`. Optional
keys: `title` (above the chart; `layout.title` works too), `says` (one sentence for screen readers),
`height` in pixels (320), `small` (true: several share a row).

Colours are named by role, to fit the light and the dark page: "var(--c1)" to "var(--c8)" for
series, "var(--ink)", "var(--soft)", "var(--grid)", "var(--good)", "var(--bad)"; "var(--c1)/0.2" has
an opacity. Uncoloured series take c1, c2, … in turn. Fonts, grids, margins and hover boxes are the
page's unless the layout sets them. Times are milliseconds since 1970, UTC, on an axis of type
"date". Every text is shown literally. Only `hovertemplate` and `texttemplate` may contain <br>, <b>
and <extra>; untrusted text enters them only through %{text}, %{customdata} or %{fullData.name}.
"""
TEMPLATE_KEYS = ("hovertemplate", "texttemplate")
ALLOWED_TAGS = ("<br>", "<b>", "</b>", "<extra>", "</extra>")
FLOAT_DIGITS = 9
"""Significant digits of floats in figures."""
NUMBER_PATTERN = re.compile(r"[+−-]?\d[\d,  ]*(\.\d+)?( ?(%|bps|×|points|days|bars|[A-Z]{2,6}))?")
NO_VALUE_TEXTS = ("", "—", "–", "none")
DEFAULT_HEIGHT_PX = 320
FULL_DIGITS_FROM = 1e9
"""Floats above this keep all digits, because they are milliseconds."""


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

    def numeric_columns(self) -> list[bool]:
        """Return for each column whether all its values are numbers."""
        columns = zip_longest(self.header, *self.rows, fillvalue="")
        cell_texts_by_column = [
            [cell_text for cell_text in column_texts[1:] if cell_text not in NO_VALUE_TEXTS]
            for column_texts in columns
        ]
        return [
            bool(column_texts)
            and all(NUMBER_PATTERN.fullmatch(cell_text) for cell_text in column_texts)
            for column_texts in cell_texts_by_column
        ]


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A part of a page: paragraphs, then figures, then tables."""

    title: str
    paragraphs: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[ReportTable, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportPage:
    """A report. `summary` states the result in plain sentences, `facts` are its most important
    figures.

    `provenance_facts` has everything needed to repeat it: parameters, hashes, seed, versions.
    """

    title: str
    facts: tuple[ReportFact, ...]
    sections: tuple[ReportSection, ...]
    summary: tuple[str, ...] = ()
    provenance_facts: tuple[ReportFact, ...] = ()
    subtitle: str = field(default="Backtest")


def write_page(page: ReportPage, path: Path) -> None:
    """Write the page as one HTML file without network access; the same bytes for the same page.
    Replaces the file in one step.

    Raises ConfigError if Plotly's bundle or Jinja2 is missing, OSError if the file cannot be
    written.
    """
    replace_file(path, render_html(page).encode())


def write_document(page: ReportPage, path: Path) -> None:
    """Write the page as JSON: its texts, figures and tables. Replaces the file in one step. Raises
    OSError.
    """
    document_json = (
        json.dumps(report_document(page), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )
    replace_file(path, document_json.encode())


def report_document(page: ReportPage) -> dict[str, Any]:
    """Return the page as plain data; non-finite numbers are null."""
    return {
        "kind": page.subtitle,
        "title": page.title,
        "summary": list(page.summary),
        "facts": [fact._asdict() for fact in page.facts],
        "sections": [
            {
                "title": section.title,
                "words": list(section.paragraphs),
                "figures": [to_plain_data(figure) for figure in section.charts],
                "tables": [
                    {
                        "caption": table.caption,
                        "header": list(table.header),
                        "rows": [list(row) for row in table.rows],
                    }
                    for table in section.tables
                ],
            }
            for section in page.sections
        ],
        "origin": [origin_fact._asdict() for origin_fact in page.provenance_facts],
    }


def to_plain_data(figure_value: Any) -> Any:
    """Convert figures, NumPy values included, to plain data; floats to nine digits, null for NaN
    and infinity.
    """
    if isinstance(figure_value, Mapping):
        return {str(key): to_plain_data(element) for key, element in figure_value.items()}
    if hasattr(figure_value, "tolist"):
        return to_plain_data(figure_value.tolist())
    if isinstance(figure_value, Sequence) and not isinstance(figure_value, str):
        return [to_plain_data(element) for element in figure_value]
    if isinstance(figure_value, float):
        if not math.isfinite(figure_value):
            return None
        if abs(figure_value) >= FULL_DIGITS_FROM:
            return figure_value
        return float(f"{figure_value:.{FLOAT_DIGITS}g}")
    return figure_value


def escape_for_plotly(plain_value: Any, plain_key: str = "") -> Any:
    """Escape all text for Plotly, which interprets a few HTML tags and entities."""
    if isinstance(plain_value, dict):
        return {
            printable_text(element_key): escape_for_plotly(element, element_key)
            for element_key, element in plain_value.items()
        }
    if isinstance(plain_value, list):
        return [escape_for_plotly(element, plain_key) for element in plain_value]
    if not isinstance(plain_value, str):
        return plain_value
    if plain_key not in TEMPLATE_KEYS:
        return _escape_html(printable_text(plain_value))
    escaped_text = _escape_html(plain_value)
    for tag in ALLOWED_TAGS:
        escaped_text = escaped_text.replace(_escape_html(tag), tag)
    return escaped_text


def _escape_html(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


MIN_SHARED_LENGTH = 64
"""Lists of at least this length are stored once and shared."""


class ChartFrame(NamedTuple):
    """Place of a chart in the page. Its data is embedded as JSON under this number."""

    number: int
    title: str
    label: str
    height_px: int
    is_small: bool


def render_html(page: ReportPage) -> str:
    """Return the whole HTML file. Raises ConfigError if Plotly's bundle or Jinja2 is missing."""
    scripts = (_plotly_script(), _read_static("report.js"))
    chart_numbers = count()
    return (
        _template_environment()
        .get_template("report.html")
        .render(
            page=page,
            title=page.title,
            charts=[
                [_chart_frame(next(chart_numbers), figure) for figure in section.charts]
                for section in page.sections
            ],
            data=_figures_json([chart for section in page.sections for chart in section.charts]),
            style=_read_static("report.css"),
            scripts=scripts,
            hashes=[_script_hash(script) for script in scripts],
        )
    )


@lru_cache(maxsize=1)
def _template_environment() -> Environment:
    return artifacts.template_environment("analysis")


@lru_cache(maxsize=1)
def _plotly_script() -> str:
    bundle_path = artifacts.plotly_bundle()
    bundle_js = bundle_path.read_text(encoding="utf-8").replace("\r\n", "\n")
    if re.search(r"</script|<!--", bundle_js, re.IGNORECASE):
        raise ConfigError(
            f"report: {bundle_path} cannot be embedded in a page", "install the locked version"
        )
    return bundle_js


def _read_static(file_name: str) -> str:
    return (
        (artifacts.WEB_FOLDER / "static" / file_name)
        .read_text(encoding="utf-8")
        .replace("\r\n", "\n")
    )


def _script_hash(script: str) -> str:
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"


def _figures_json(figures: list[Chart]) -> str:
    """Return JSON that cannot close a script element; a long list shared by several series is
    written once.
    """
    index_by_list: dict[str, int] = {}

    def share_long_lists(plain_value: Any) -> Any:
        if isinstance(plain_value, dict):
            return {key: share_long_lists(element) for key, element in plain_value.items()}
        if isinstance(plain_value, list):
            if len(plain_value) < MIN_SHARED_LENGTH:
                return [share_long_lists(element) for element in plain_value]
            return {"list": index_by_list.setdefault(_json(plain_value), len(index_by_list))}
        return plain_value

    plain_figures = [
        share_long_lists(
            escape_for_plotly(
                to_plain_data({"data": figure.get("data", []), "layout": _layout(figure)})
            )
        )
        for figure in figures
    ]
    figures_json = f'{{"lists":[{",".join(index_by_list)}],"figures":{_json(plain_figures)}}}'
    return figures_json.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _json(plain_value: Any) -> str:
    return json.dumps(plain_value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _layout(figure: Chart) -> dict[str, Any]:
    return {
        key: setting
        for key, setting in figure.get("layout", {}).items()
        if key not in ("title", "height", "width", "images")
    }


def _chart_frame(chart_number: int, figure: Chart) -> ChartFrame:
    layout = figure.get("layout", {})
    title = layout.get("title", "")
    if isinstance(title, dict):
        title = title.get("text", "")
    title = str(figure.get("title") or title)
    label_parts = [
        label_part.rstrip(".") for label_part in (title, str(figure.get("says", ""))) if label_part
    ]
    height_px = int(figure.get("height") or layout.get("height") or DEFAULT_HEIGHT_PX)
    return ChartFrame(
        chart_number, title, ". ".join(label_parts) or "Chart", height_px, bool(figure.get("small"))
    )


DASH = "—"
MINUS = "−"
MAX_NAME_LENGTH = 24


def short_name(symbol: str) -> str:
    """Return the symbol as shown in charts and headings; tables have the full symbol."""
    return symbol if len(symbol) <= MAX_NAME_LENGTH else f"{symbol[: MAX_NAME_LENGTH - 1]}…"


def format_money(base_units: Fraction, decimals: int) -> str:
    """Format exact base units as whole coins with thousands separators: two decimals for values of
    at least 1, else four significant digits, rounded half-even as in `value_text`.
    """
    coins = abs(base_units) / Fraction(10) ** decimals
    places = 2
    if 0 < coins < 1:
        while places < 18 and coins * 10**places < 1_000:
            places += 1
    rounded_units = round(coins * 10**places)
    amount_text = f"{rounded_units // 10**places:,}.{rounded_units % 10**places:0{places}d}"
    return f"{MINUS}{amount_text}" if base_units < 0 and rounded_units else amount_text


def format_percent(share: float, places: int = 1, signed: bool = False) -> str:
    """Format 0.1234 as 12.3 %; a dash for a non-finite number."""
    if not math.isfinite(share):
        return DASH
    percent_text = f"{abs(share) * 100:,.{places}f} %"
    if not any(digit in "123456789" for digit in percent_text):
        return percent_text
    if share < 0:
        return f"{MINUS}{percent_text}"
    return f"+{percent_text}" if signed else percent_text


def format_ratio(ratio: float, places: int = 2) -> str:
    """Format a plain number; a dash for a non-finite number."""
    if not math.isfinite(ratio):
        return DASH
    ratio_text = f"{abs(ratio):,.{places}f}"
    if ratio < 0 and float(ratio_text.replace(",", "")):
        return f"{MINUS}{ratio_text}"
    return ratio_text


def format_day(time_s: int) -> str:
    """Format a day in UTC: 4 Apr 2021."""
    day = datetime.fromtimestamp(time_s, UTC)
    return f"{day.day} {day:%b %Y}"


def format_date_range(first_s: int, last_s: int) -> str:
    """Format a range of days: 4 Apr 2021 to 31 Dec 2022, or one day."""
    first_day = format_day(first_s)
    last_day = format_day(last_s)
    return first_day if first_day == last_day else f"{first_day} to {last_day}"


def round_duration(seconds: float) -> str:
    """Format a duration in days; in hours below two days, in minutes below an hour."""
    if seconds < HOUR_S:
        return f"{round(seconds / 60)} min"
    if seconds < 2 * DAY_S:
        return f"{round(seconds / HOUR_S)} h"
    return pluralize(round(seconds / DAY_S), "day")


PlotlyDict = dict[str, Any]
DATE_AXIS = {"type": "date", "hoverformat": "%-d %b %Y %H:%M"}
PERCENT_FORMAT = ".1%"
MARKER_PX = 7


@dataclass(frozen=True, slots=True)
class LineStyle:
    """How a line is drawn; a stepped one keeps its value until the next point."""

    width: float = 1.6
    dash: str = "solid"
    is_stepped: bool = False


PLAIN = LineStyle()
THIN = LineStyle(width=1.2)
STRONG = LineStyle(width=2.2)
DASHED = LineStyle(dash="dash")
DOTTED = LineStyle(dash="dot")


def line_trace(
    x: Any,
    y: Any,
    name: str,
    colour: str,
    *,
    style: LineStyle = PLAIN,
    number_format: str = "",
) -> PlotlyDict:
    """Return a line; `number_format` is the number format of its hover text."""
    line_style: PlotlyDict = {
        "color": f"var({colour})",
        "width": style.width,
        "dash": style.dash,
    }
    if style.is_stepped:
        line_style["shape"] = "hv"
    trace: PlotlyDict = {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "name": name,
        "line": line_style,
    }
    return trace | ({"yhoverformat": number_format} if number_format else {})


def band_edge_trace(x: Any, y: Any, *, filled: bool) -> PlotlyDict:
    """Return one edge of a band; the upper one fills down to the lower one before it."""
    line_style = {"color": "var(--c1)/0.45", "width": 1, "shape": "hv"}
    trace: PlotlyDict = {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "line": line_style,
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return trace | ({"fill": "tonexty", "fillcolor": "var(--c1)/0.12"} if filled else {})


def marker_trace(
    x: Any, y: Any, hover_texts: list[str], name: str, colour: str, symbol: str
) -> PlotlyDict:
    """Return markers, each with its own text."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": x,
        "y": y,
        "name": name,
        "text": hover_texts,
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": f"var({colour})",
            "symbol": symbol,
            "size": MARKER_PX,
            "line": {"color": "var(--paper)", "width": 1},
        },
    }


def value_axis(unit: str, number_format: str = "") -> PlotlyDict:
    """Return a vertical axis with its unit."""
    axis_layout: PlotlyDict = {"title": {"text": unit}}
    return axis_layout | (
        {"tickformat": number_format, "hoverformat": number_format} if number_format else {}
    )


def time_chart(
    traces: list[PlotlyDict], unit: str, number_format: str = "", **layout: Any
) -> PlotlyDict:
    """Return a chart over time, without its title."""
    return {
        "data": traces,
        "layout": {"xaxis": dict(DATE_AXIS), "yaxis": value_axis(unit, number_format), **layout},
    }


def values_at(series: FloatArray, indices: Indices, digits: int = 6) -> list[float]:
    """Return the values at the indices, with `digits` significant digits."""
    return [float(f"{level:.{digits}g}") for level in series[indices].tolist()]


def to_milliseconds(times_s: NDArray[np.int64], indices: Indices) -> list[int]:
    """Return the times at the indices in milliseconds, the unit of the charts."""
    return [int(time_s) * 1_000 for time_s in times_s[indices].tolist()]


def change_indices(series: FloatArray) -> Indices:
    """Return the indices at which a stepwise series changes, and both ends."""
    changed_indices = np.nonzero(np.diff(np.nan_to_num(series, nan=-1.0)))[0] + 1
    end_and_change_indices: Indices = np.unique(
        np.concatenate([[0], changed_indices, [len(series) - 1]])
    )
    return end_and_change_indices
