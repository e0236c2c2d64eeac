"""Lines, bars and bands as a report's charts draw them, all over the same thinned times."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.backtest.report_series import Floats, Indices

Trace = dict[str, Any]
DATES = {"type": "date", "hoverformat": "%-d %b %Y %H:%M"}
PERCENT = ".1%"
THIN, MIDDLE, STRONG = 1.2, 1.6, 2.2
DOT = 7


def line(
    x: Any, y: Any, name: str, colour: str, *, width: float = MIDDLE, dash: str = "solid", form: str = "", step: bool = False
) -> Trace:
    """A line; `form` is how values are written when pointed at."""
    drawn: Trace = {"color": f"var({colour})", "width": width, "dash": dash}
    if step:
        drawn["shape"] = "hv"
    found: Trace = {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": drawn}
    return found | ({"yhoverformat": form} if form else {})


def edge(x: Any, y: Any, colour: str, *, filled: bool) -> Trace:
    """One edge of a band; the upper one fills down to the lower one before it."""
    drawn = {"color": f"var({colour})/0.45", "width": 1, "shape": "hv"}
    found: Trace = {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": drawn, "hoverinfo": "skip", "showlegend": False}
    return found | ({"fill": "tonexty", "fillcolor": f"var({colour})/0.12"} if filled else {})


def marks(x: Any, y: Any, says: list[str], name: str, colour: str, symbol: str) -> Trace:
    """Marks with a text each."""
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


def bars(x: Any, y: Any, name: str, colour: str, form: str) -> Trace:
    """Upright bars."""
    return {"type": "bar", "x": x, "y": y, "name": name, "marker": {"color": f"var({colour})"}, "yhoverformat": form}


def axis(unit: str, form: str = "") -> Trace:
    """An upright axis with its unit."""
    found: Trace = {"title": {"text": unit}}
    return found | ({"tickformat": form, "hoverformat": form} if form else {})


def over_time(traces: list[Trace], unit: str, form: str = "", **more: Any) -> Trace:
    """A chart over time, without its title."""
    return {"data": traces, "layout": {"xaxis": dict(DATES), "yaxis": axis(unit, form), **more}}


def at(values: Floats, kept: Indices, digits: int = 6) -> list[float]:
    """Values at these indices, to so many significant digits."""
    return [float(f"{value:.{digits}g}") for value in values[kept].tolist()]


def milliseconds(times_s: NDArray[np.int64], kept: Indices) -> list[int]:
    """Times as the charts count them."""
    return [int(value) * 1_000 for value in times_s[kept].tolist()]


def corners(values: Floats) -> Indices:
    """Where a stepwise series changes, and its ends."""
    changed = np.nonzero(np.diff(np.nan_to_num(values, nan=-1.0)))[0] + 1
    found: Indices = np.unique(np.concatenate([[0], changed, [len(values) - 1]]))
    return found
