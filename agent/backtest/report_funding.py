"""What funding would have brought shorts of the holdings, as a section: adding up over time, and by asset."""

from __future__ import annotations

import numpy as np

from agent.backtest.funding import Carry
from agent.backtest.report import Section, Table
from agent.backtest.report_figures import STRONG, at, line, milliseconds, over_time
from agent.backtest.report_sections import Found
from agent.backtest.report_series import Floats, Indices, thinned
from agent.backtest.report_words import NONE, money, named, percent

LINES = ("--c2", "--c4", "--c6", "--c5", "--c3", "--c7")
"""Colours of single assets, the largest sums first; the table has all of them."""


def funding(found: Found) -> Section | None:
    """Carry adding up over time, and its sums; nothing where no rates were given."""
    result = found.result
    if result.funding is None:
        return None
    carries, scale = result.funding.carries, 10.0**result.decimals
    times_s = np.unique(np.concatenate([one.times_s for one in carries]))
    paths = {one.symbol: _so_far(one, times_s, scale) for one in carries}
    whole: Floats = np.sum(list(paths.values()), axis=0)
    shown = sorted(carries, key=lambda one: (-abs(one.total), one.symbol))[: len(LINES)] if len(carries) > 1 else []
    kept = thinned([whole, *(paths[one.symbol] for one in shown)])
    x = milliseconds(times_s, kept)
    traces = [
        *(_line(x, paths[one.symbol], kept, named(one.symbol), colour) for one, colour in zip(shown, LINES, strict=False)),
        _line(x, whole, kept, "all", "--c1", STRONG),
    ]
    chart = over_time(traces, result.numeraire) | {
        "title": f"Funding so far, in {result.numeraire}",
        "says": f"Lines of what funding adds up to over time; all of it ends at {money(result.funding.total, result.decimals)}",
        "height": 280,
    }
    words = (
        "What a short perpetual as large as each holding would have got as funding, had it stood beside the portfolio all the time: at "
        "each time of the rates the holding after the newest bar, at that bar's price, times the rate. Below zero is paid.",
        "It is arithmetic beside the simulation: no position, margin, liquidation, fee or basis is simulated, and nothing of it is in the "
        "worth of the portfolio.",
    )
    rows = tuple(
        (
            one.symbol,
            money(one.total, result.decimals),
            _share(one.yearly),
            money(one.notional, result.decimals),
            f"{len(one.payments):,}",
        )
        for one in carries
    )
    times = sum(len(one.payments) for one in carries)
    rows = (*rows, ("all", money(result.funding.total, result.decimals), _share(result.funding.yearly), NONE, f"{times:,}"))
    head = ("asset", f"got ({result.numeraire})", "a year, of what was held", "held on average", "times")
    return Section("Funding of a full hedge", words, (chart,), (Table(head, rows),))


def _so_far(one: Carry, times_s: Indices, scale: float) -> Floats:
    """Whole coins until each of these times."""
    sums = np.concatenate([[0.0], np.cumsum(np.array(one.payments, dtype=np.float64) / scale)])
    found: Floats = sums[np.searchsorted(one.times_s, times_s, side="right")]
    return found


def _line(x: list[int], path: Floats, kept: Indices, name: str, colour: str, width: float = 1.6) -> dict[str, object]:
    return line(x, at(path, kept), name, colour, width=width, form=",.2f", step=True)


def _share(yearly: float | None) -> str:
    return NONE if yearly is None else percent(yearly, 2, signed=True)
