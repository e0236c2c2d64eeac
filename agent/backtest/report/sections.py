"""What became of the money, as sections: worth against holding and benchmarks, weights in their bands, falls, trades on prices, risk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.backtest.report.page import (
    NONE,
    PERCENT,
    STRONG,
    THIN,
    Section,
    Table,
    Trace,
    at,
    corners,
    day,
    edge,
    length,
    line,
    marks,
    milliseconds,
    minute,
    money,
    named,
    over_time,
    percent,
    ratio,
)
from agent.backtest.report.series import DAY_S, Course, Floats, Indices, Risk, calendar, fallen, moved_units, thinned, with_flows
from agent.backtest.result import SimulationResult

CALENDAR_S = 30 * DAY_S
MOST_PANELS = 12
NARROW = 0.001
"""A difference below it is drawn as none."""
MOST_ALONE = 4
MOST_MARKS = 400
"""Of one asset: those that moved the most are shown."""
PANEL_PX = 210
PANEL_POINTS = 1_000
"""A panel is half as wide as a chart, or less."""
ALONE = ("--c2", "--c4", "--c6", "--c5")


@dataclass(frozen=True, slots=True)
class Found:
    """A simulation with what every section needs of it."""

    result: SimulationResult
    course: Course
    risk: Risk

    @property
    def largest(self) -> list[int]:
        """Columns by their mean weight, the largest first."""
        mean = np.nanmean(self.result.weights, axis=0)
        return sorted(range(len(self.result.symbols)), key=lambda column: (-float(mean[column]), column))


def worth(found: Found) -> Section:
    """Equity against holding, the calendar rule and single assets; and how far ahead of holding it was."""
    result, index, hold = found.result, found.course.index, found.course.hold_index
    shares, alone = _first_targets(result), [column for column in found.largest if _moves(result, column)][:MOST_ALONE]
    months = with_flows(calendar(result.prices, shares, result.times_s, CALENDAR_S), result)
    singles = [with_flows(result.prices[:, column] / result.prices[0, column], result) for column in alone]
    kept = thinned([result.equity, result.hold, months, *singles])
    x, form = milliseconds(result.times_s, kept), ",.2f" if float(np.nanmax(result.equity)) < 100 else ",.0f"
    lines = [
        *(
            line(x, at(path, kept), f"{named(result.symbols[column])} alone", colour, width=THIN, form=form)
            for path, column, colour in zip(singles, alone, ALONE, strict=False)
        ),
        line(x, at(months, kept), "every 30 days, free of cost", "--c3", dash="dot", form=form) | {"legendrank": 30},
        line(x, at(result.equity, kept), "rebalanced", "--c1", width=STRONG, form=form) | {"legendrank": 10},
        line(x, at(result.hold, kept), "held", "--c8", dash="dash", form=form) | {"legendrank": 20},
    ]
    equity = over_time(lines, result.numeraire) | {
        "title": f"Worth, in {result.numeraire}",
        "says": "Lines of what the rebalanced portfolio, the held one and the benchmarks were worth over time",
        "height": 400,
    }
    ahead = index / hold - 1
    near = thinned([ahead])
    lead = over_time([line(milliseconds(result.times_s, near), at(ahead, near), "ahead of holding", "--c1", form="+.2%")], "", "+.1%") | {
        "title": "Ahead of holding",
        "says": f"A line that ends at {percent(float(ahead[-1]), 2, signed=True)}; above zero rebalancing is ahead",
        "height": 220,
    }
    lead["layout"]["yaxis"] |= {"zeroline": True}
    if not float(np.nanmax(np.abs(ahead), initial=0.0)) >= NARROW:
        lead["layout"]["yaxis"]["range"] = [-NARROW, NARROW]
    lead["layout"]["showlegend"] = False
    words: tuple[str, ...] = (
        "Held is the first bar's holdings, left alone. Rebalanced has every cost taken off, "
        f"{'gas included' if result.gas_counted else 'gas excepted: it had no price'}.",
        f"The dotted line is brought to the first targets every {CALENDAR_S // DAY_S} days and pays nothing for it: no real rule does.",
    )
    if result.flows:
        words = (*words, "Deposits and withdrawals enter every line alike; Ahead of holding leaves them out.")
    return Section("Worth", words, (equity, lead))


def weights(found: Found) -> Section:
    """A panel for each asset: its weight, its target, its band."""
    result, shown = found.result, found.largest[:MOST_PANELS]
    figures = []
    for column in shown:
        kept = thinned([result.weights[:, column]], PANEL_POINTS)
        lines = [*_band(result, column)]
        if len(result.targets):
            goal = corners(result.targets[:, column])
            lines.append(
                _quiet(line(milliseconds(result.times_s, goal), at(result.targets[:, column], goal), "target", "--c8", dash="dot"))
            )
        lines.append(line(milliseconds(result.times_s, kept), at(result.weights[:, column], kept, 4), "weight", "--c1", form=PERCENT))
        low, high = float(np.nanmin(result.weights[:, column])), float(np.nanmax(result.weights[:, column]))
        figures.append(
            over_time(lines, "", ".0%" if high - low > 0.04 else PERCENT)
            | {
                "title": named(result.symbols[column]),
                "says": f"Weight between {percent(low)} and {percent(high)}",
                "small": True,
                "height": PANEL_PX,
            }
        )
    words: tuple[str, ...] = ("Share of the portfolio. The shaded band is where it may drift; the dotted line is the target.",)
    left = len(result.symbols) - len(shown)
    if left:
        words = (*words, f"The {len(shown)} largest are drawn; {left} smaller ones are in the table.")
    rows = [_weight_row(result, column) for column in range(len(result.symbols))]
    return Section("Weights", words, tuple(figures), (Table(("asset", "target", "at the end", "least", "most"), tuple(rows)),))


def _weight_row(result: SimulationResult, column: int) -> tuple[str, ...]:
    path, target = result.weights[:, column], float(result.targets[-1, column]) if len(result.targets) else float("nan")
    return (result.symbols[column], *(percent(float(one)) for one in (target, path[-1], np.nanmin(path), np.nanmax(path))))


def falls(found: Found) -> Section:
    """Drawdown of both."""
    result, own, hold = found.result, fallen(found.course.index), fallen(found.course.hold_index)
    kept = thinned([own, hold])
    x = milliseconds(result.times_s, kept)
    below = line(x, at(own, kept, 4), "rebalanced", "--c1", form=PERCENT) | {"fill": "tozeroy", "fillcolor": "var(--c1)/0.14"}
    chart = over_time([below, line(x, at(hold, kept, 4), "held", "--c8", dash="dash", form=PERCENT)], "", ".0%") | {
        "title": "Below its highest so far",
        "says": f"Zero is a new high; at the deepest {percent(float(own.min()))}, held {percent(float(hold.min()))}",
        "height": 260,
    }
    rows = tuple(
        (name, percent(float(path.min())), day(int(result.times_s[int(path.argmin())])), _longest(path, result))
        for name, path in (("rebalanced", own), ("held", hold))
    )
    return Section(
        "Falls",
        ("How far below its highest value it stood, and how long it took to get back.",),
        (chart,),
        (Table(("portfolio", "deepest", "on", "longest below"), rows),),
    )


def _longest(path: Floats, result: SimulationResult) -> str:
    """The longest time below a high."""
    highs = np.append(np.nonzero(path >= 0)[0], len(path) - 1)
    spans = np.diff(result.times_s[highs])
    return length(float(spans.max())) if len(spans) and float(path.min()) < 0 else NONE


def trades(found: Found) -> Section:
    """Every asset's price with where it was bought and sold."""
    result = found.result
    shown = [column for column in found.largest if _moves(result, column)][:MOST_PANELS]
    if not shown:
        return Section("Trades on prices", (f"Nothing but {result.numeraire} was held: no price moved.",))
    moved, done = moved_units(result), np.array(sorted({one.bar for one in result.rebalances if one.succeeded and one.bar}), dtype=np.int64)
    hidden, figures = 0, []
    for column in shown:
        price, change = result.prices[:, column], moved[:, column]
        kept = thinned([price], PANEL_POINTS)
        lines = [line(milliseconds(result.times_s, kept), at(price, kept), "price", "--c8", width=THIN, form=",.6~g")]
        for name, colour, symbol, sign in (("bought", "--c1", "triangle-up", 1), ("sold", "--c2", "triangle-down", -1)):
            bars = done[change[done] * sign > _TINY]
            most = np.sort(bars[np.argsort(-np.abs(change[bars]), kind="stable")[:MOST_MARKS]])
            hidden += len(bars) - len(most)
            says = [f"{name} {percent(abs(float(change[bar])))} of what was held" for bar in most]
            lines.append(marks(milliseconds(result.times_s, most), at(price, most), says, name, colour, symbol))
        figures.append(
            over_time(lines, result.numeraire, "", hovermode="closest")
            | {
                "title": named(result.symbols[column]),
                "says": f"Price in {result.numeraire}, with {len(done)} rebalances marked",
                "small": True,
                "height": PANEL_PX + 20,
            }
        )
    words: tuple[str, ...] = (f"Prices in {result.numeraire}. A triangle that points up is a purchase, one that points down a sale.",)
    if hidden:
        words = (*words, f"Of each asset the {MOST_MARKS} largest of either are marked; {hidden:,} smaller ones are not.")
    return Section("Trades on prices", words, tuple(figures), _largest_trades(result))


_TINY = 1e-9
"""What floats leave where nothing was traded."""


def _largest_trades(result: SimulationResult, most: int = 12) -> tuple[Table, ...]:
    ranked = sorted(result.rebalances, key=lambda one: (-one.turnover, one.bar))[:most]
    rows = tuple(
        (
            minute(one.time_s),
            money(one.turnover, result.decimals),
            money(one.fees + one.impact + one.gas, result.decimals),
            "done" if one.succeeded else "reverted",
        )
        for one in ranked
    )
    head = ("time (UTC)", f"moved ({result.numeraire})", f"cost ({result.numeraire})", "result")
    return (
        (Table(head, rows, "The largest rebalances" if len(result.rebalances) > most else "Every rebalance, the largest first"),)
        if rows
        else ()
    )


def risks(found: Found) -> Section:
    """Rolling Sharpe ratio and tracking error, and the figures of the whole run."""
    result, risk, window = found.result, found.risk, found.course.window
    figures: list[Trace] = []
    span = length(window / found.course.per_year * 365 * DAY_S)
    ends = found.course.samples[window:]
    if window and len(ends) and np.isfinite(risk.rolling_sharpe).any():
        x = milliseconds(result.times_s, ends)
        every: Indices = np.arange(len(ends))
        figures.append(
            over_time(
                [
                    line(x, at(risk.rolling_sharpe, every, 4), "rebalanced", "--c1", width=STRONG, form=".2f"),
                    line(x, at(risk.rolling_hold_sharpe, every, 4), "held", "--c8", dash="dash", form=".2f"),
                ],
                "",
                ".1f",
            )
            | {"title": f"Sharpe ratio of the last {span}", "says": "Mean over spread of returns, per year", "height": 260}
        )
        figures.append(
            over_time(
                [line(x, at(risk.rolling_tracking_error, every, 4), "tracking error", "--c4", form=".2%")], "", PERCENT, showlegend=False
            )
            | {"title": f"Tracking error against holding, of the last {span}", "says": "Spread of the difference, per year", "height": 200}
        )
    words: tuple[str, ...] = ("Of returns from day to day, per year of 365 days, with a risk-free rate of zero.",)
    if found.course.per_year < 200:
        words = ("Of returns from bar to bar, per year of 365 days, with a risk-free rate of zero.",)
    words = (
        *words,
        f"Windows are {span} long and know nothing after their end." if figures else "The run is too short for rolling windows.",
    )
    rows = (
        ("Sharpe ratio", ratio(risk.sharpe), ratio(risk.hold_sharpe)),
        ("volatility", percent(risk.volatility), percent(risk.hold_volatility)),
        ("tracking error", percent(risk.tracking_error, 2), NONE),
    )
    return Section("Risk over time", words, tuple(figures), (Table(("per year", "rebalanced", "held"), rows),))


def _first_targets(result: SimulationResult) -> Floats:
    first: Floats = result.targets[0] if len(result.targets) else result.weights[0]
    known: Floats = np.nan_to_num(first if np.nansum(first) > 0 else result.weights[0])
    shares: Floats = known / known.sum()
    return shares


def _moves(result: SimulationResult, column: int) -> bool:
    return bool(np.nanmax(result.prices[:, column]) > np.nanmin(result.prices[:, column]))


def _band(result: SimulationResult, column: int) -> list[Trace]:
    if not len(result.bands) or np.isnan(result.bands[:, column]).all():
        return []
    low, high = result.bands[:, column, 0], result.bands[:, column, 1]
    kept = np.union1d(corners(low), corners(high))
    x = milliseconds(result.times_s, kept)
    return [edge(x, at(low, kept), "--c1", filled=False), edge(x, at(high, kept), "--c1", filled=True)]


def _quiet(trace: Trace) -> Trace:
    trace["line"]["shape"] = "hv"
    return trace | {"hoverinfo": "skip"}
