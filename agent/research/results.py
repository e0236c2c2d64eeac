"""Result of a backtest: figures, frames, charts and the report."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from fractions import Fraction
from functools import cached_property
from html import escape
from itertools import cycle
from typing import Any, ClassVar, NoReturn

import numpy as np

from agent.backtest.report.backtest import backtest_page, provenance_facts
from agent.backtest.report.page import (
    Chart,
    ReportFact,
    ReportPage,
    ReportSection,
    ReportTable,
    line_trace,
    time_chart,
    to_milliseconds,
    values_at,
)
from agent.backtest.report.series import (
    MIN_SAMPLES,
    downsample_indices,
    drawdown_series,
    growth_series,
    simulation_performance,
)
from agent.backtest.result import RebalancingPremium, SimulationResult
from agent.calls import checked_call, unknown_name
from agent.errors import ConfigError
from agent.price_files.frames import load_polars
from agent.research.charts import load_plotly
from agent.research.prices import times
from agent.research.reported import ReportedResult
from agent.units import pluralize

CHART_WIDTH = 640
CHART_HEIGHT = 160
CHART_GUTTER = 90
"""Width of the values beside a chart."""
CHART_POINTS = 320
MARGIN = 20
SHARES = ("total_return", "hold_return", "cagr", "volatility", "max_drawdown")
RATIOS = ("sharpe", "turnover")
COMMON = ("start", "end", "numeraire", "start_value")


class ShownFigures:
    """Figures that are shown with their units: in a line, and in a notebook as a table."""

    __slots__ = ()
    attribute: ClassVar[str]
    """The name of these figures in a result."""

    def __call__(self) -> NoReturn:
        """Raise ConfigError: figures are read without a call."""
        raise ConfigError(
            f"{self.attribute}: it is no method",
            f"write result.{self.attribute} without parentheses",
        )

    def __repr__(self) -> str:
        figures = ", ".join(f"{name} {self.text(name)}" for name in self.names())
        return f"{type(self).__name__}({figures})"

    def _repr_html_(self) -> str:
        """Return the figures as a table for a notebook."""
        rows = "".join(
            f"<tr><th style='text-align:left'>{self.label(name)}</th>"
            f"<td style='text-align:right'>{escape(self.text(name))}</td></tr>"
            for name in self.names()
        )
        return f"<table>{rows}</table>"

    def names(self) -> list[str]:
        """Return the names of the figures in their order."""
        return [field.name for field in fields(self)]  # type: ignore[arg-type]  # subclasses are dataclasses

    def label(self, name: str) -> str:
        """Return the name of a figure in a table."""
        return name.replace("_", " ")

    @checked_call
    def text(self, name: str) -> str:
        """Return a figure as it is shown, with its unit. Raises ConfigError for another name.

        >>> result.summary.text("total_return")
        '12.78 %'
        >>> result.attribution.text("costs")
        '0.007 %'
        """
        if name not in self.names():
            raise unknown_name(str(name), self.names(), "figure")
        return self._text(name, getattr(self, name))

    def _text(self, name: str, figure: Any) -> str:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, repr=False)
class Attribution(ShownFigures, RebalancingPremium):
    """Log growth beyond buy and hold, by its sources; flows have no effect on it, while `hold_return`
    of the summary is that of a holding with the same flows. `advantage` is all of it, after costs.
    `excess_growth` comes from selling what rose, `off_target` from weights other than the first,
    and `dispersion` is what holding gains from winners that grow: advantage is the first two less the
    other and `costs`. The last two figures are per year, `expected_yearly` by a formula.
    """

    attribute = "attribution"

    def _text(self, _name: str, figure: float) -> str:
        return f"{figure * 100:,.3f} %"


@dataclass(frozen=True, slots=True, repr=False)
class BacktestSummary(ShownFigures):
    """Figures of a backtest. Money in whole coins of the numeraire, returns and shares as fractions.
    `total_return` and `hold_return`, that of buy and hold, are time-weighted: flows are no gains, so
    that with flows they are not `value` by `start_value`. `cagr` is the return to the power of a year
    of 365 days by the time from the first close to the last, NaN for less than 20 days. `volatility`
    and `sharpe` are of the last closes of each UTC day (of each bar if these are longer), times the
    root of how many of them a year has, without a risk-free rate; NaN for less than two.
    `max_drawdown` is below zero, and time-weighted, too. `trades` counts rebalances that succeeded.
    `turnover` is the sum over them of half the absolute changes of all holdings by the value of the
    portfolio after the trade: a switch of two coins through the numeraire counts once.

    >>> import polars
    >>> from agent import research
    >>> days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    >>> prices = polars.DataFrame({"time": days, "BTC": [100.0, 130.0, 125.0]})
    >>> result = research.backtest(prices, {"BTC": 0.5, "USD": 0.5}, research.band(0.1))
    >>> summary = result.summary
    >>> f"{summary.total_return:.1%} for {summary.costs:.2f} {summary.numeraire}"
    '12.8% for 0.75 USD'
    """

    attribute = "summary"

    start: datetime
    end: datetime
    numeraire: str
    start_value: float
    value: float
    hold_value: float
    total_return: float
    hold_return: float
    cagr: float
    volatility: float
    sharpe: float
    max_drawdown: float
    trades: int
    turnover: float
    fees: float
    impact: float
    gas: float

    @property
    def costs(self) -> float:
        """Fees, impact and gas together.

        >>> result.summary.costs == result.summary.fees + result.summary.impact + result.summary.gas
        True
        """
        return self.fees + self.impact + self.gas

    def names(self) -> list[str]:
        """Return the names of the figures, without the numeraire, their unit."""
        return [*(field.name for field in fields(self) if field.name != "numeraire"), "costs"]

    def label(self, name: str) -> str:
        """Return the name of a figure in a table; a return says that it is time-weighted."""
        kind_text = " (time-weighted)" if name.endswith("_return") else ""
        return f"{ShownFigures.label(self, name)}{kind_text}"

    def _text(self, name: str, figure: Any) -> str:
        if isinstance(figure, datetime):
            return f"{figure:%Y-%m-%d %H:%M} UTC"
        if isinstance(figure, int):
            return f"{figure:,}"
        if math.isnan(figure):
            return f"unknown: needs {MIN_SAMPLES} days" if name == "cagr" else "unknown"
        if name in SHARES:
            return f"{figure * 100:,.2f} %"
        return f"{figure:,.2f}" if name in RATIOS else f"{figure:,.2f} {self.numeraire}"


class Backtest(ReportedResult):
    """A finished backtest.

    >>> import polars
    >>> from agent import research
    >>> days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    >>> prices = polars.DataFrame({"time": days, "BTC": [100.0, 130.0, 125.0]})
    >>> result = research.backtest(prices, {"BTC": 0.5, "USD": 0.5}, research.band(0.1))
    >>> result.summary.trades
    1
    >>> result.frame().columns
    ['time', 'value', 'hold_value', 'drawdown']
    """

    def __init__(self, simulation_result: SimulationResult) -> None:
        self._result = simulation_result

    def __repr__(self) -> str:
        summary = self.summary
        notes = len(self.notes)
        notes_text = f", {notes} note{'s' * (notes > 1)}" if notes else ""
        kind_text = " time-weighted" if self._result.transfers else ""
        return (
            f"Backtest({summary.start:%Y-%m-%d} to {summary.end:%Y-%m-%d}, {summary.total_return * 100:+.2f} %"
            f"{kind_text} (held {summary.hold_return * 100:+.2f} %), {pluralize(summary.trades, 'trade')},"
            f" {summary.value:,.2f} {summary.numeraire}{notes_text})"
        )

    @cached_property
    def summary(self) -> BacktestSummary:
        """The figures.

        >>> result.summary.value > result.summary.hold_value
        True
        """
        result = self._result
        metrics, _ = simulation_performance(result)
        first, last = (datetime.fromtimestamp(int(result.times_s[index]), UTC) for index in (0, -1))
        return BacktestSummary(
            start=first,
            end=last,
            numeraire=result.numeraire,
            start_value=self._coins(result.start_value),
            value=self._coins(result.final_value),
            hold_value=self._coins(result.hold_value),
            total_return=result.twr,
            hold_return=result.hold_twr,
            cagr=metrics.cagr,
            volatility=metrics.volatility,
            sharpe=metrics.sharpe,
            max_drawdown=metrics.max_drawdown,
            trades=sum(rebalance.succeeded for rebalance in result.rebalances),
            turnover=float(result.turnover_ratio),
            fees=self._coins(result.fees),
            impact=self._coins(result.impact),
            gas=self._coins(result.gas),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader has to know of the prices and the run, such as gaps, probably wrong closes and
        rebalances that were due and could not trade.

        >>> result.notes
        ()
        """
        notes = tuple(note.replace(" (portfolio.weights.keep)", "") for note in self._result.notes)
        refusal_counts = self._result.refusal_counts
        if not refusal_counts:
            return notes
        reason, _ = max(refusal_counts, key=lambda refusal: refusal[1])
        bars_text = pluralize(sum(count for _, count in refusal_counts), "bar")
        return (
            *notes,
            f"no trade at {bars_text} at which it was due, mostly: {reason.partition(' (see ')[0]}",
        )

    @property
    def attribution(self) -> Attribution | None:
        """The growth beyond buy and hold by its sources, as log growth; None with futures.

        >>> result.attribution.advantage > 0
        True
        """
        premium = self._result.premium
        return None if premium is None else Attribution(**asdict(premium))

    def frame(self) -> Any:
        """Return a polars frame with a row for each bar: time, value, hold_value, and drawdown, which
        is zero or below, and takes no flow for a gain or a loss.

        >>> result.frame()["value"].round(2).to_list()
        [10000.0, 11499.25, 11278.11]
        """
        result = self._result
        return load_polars().DataFrame(
            {
                "time": times(result.times_s),
                "value": result.equity,
                "hold_value": result.hold_equity,
                "drawdown": drawdown_series(growth_series(result).unit_growth),
            }
        )

    @property
    def weights(self) -> Any:
        """A polars frame with the time and the share of each symbol after each bar.

        >>> result.weights["BTC"].round(4).to_list()
        [0.5, 0.5, 0.4902]
        """
        result = self._result
        columns = dict(zip(result.symbols, result.weights.T, strict=True))
        return load_polars().DataFrame({"time": times(result.times_s), **columns})

    @property
    def trades(self) -> Any:
        """A polars frame with a row for each rebalance: time, turnover (half the absolute changes of all
        holdings), fees, impact and gas in the numeraire, and whether it succeeded.

        >>> result.trades.select("turnover", "fees").row(0)
        (749.9999999999478, 0.750375468702979)
        """
        rebalances = self._result.rebalances
        amounts = {
            name: [self._coins(getattr(rebalance, name)) for rebalance in rebalances]
            for name in ("turnover", "fees", "impact", "gas")
        }
        polars = load_polars()
        return polars.DataFrame(
            {
                "time": times([rebalance.time_s for rebalance in rebalances]),
                **{name: polars.Series(amounts[name], dtype=polars.Float64) for name in amounts},
                "succeeded": polars.Series(
                    [rebalance.succeeded for rebalance in rebalances], dtype=polars.Boolean
                ),
            }
        )

    @property
    def swaps(self) -> Any:
        """A polars frame with a row for each swap in a pool, one or more for each rebalance of
        `trades` that succeeded: time (UTC), sold and bought (symbols), sold_amount and bought_amount
        (coins), value (of what was sold) and fee (of the pool) in the numeraire, and reason.

        >>> import polars
        >>> from agent import research
        >>> days = ["2024-01-01", "2024-01-02", "2024-01-03"]
        >>> prices = polars.DataFrame({"time": days, "BTC": [100.0, 130.0, 125.0]})
        >>> result = research.backtest(prices, {"BTC": 0.5, "USD": 0.5}, research.band(0.1))
        >>> result.swaps.select("sold", "bought", "value").rows()
        [('BTC', 'USD', 750.3754687029789)]
        """
        polars = load_polars()
        column_types = {
            "time": polars.Int64,
            "sold": polars.String,
            "bought": polars.String,
            **dict.fromkeys(("sold_amount", "bought_amount", "value", "fee"), polars.Float64),
            "reason": polars.String,
        }
        rows = [
            (
                rebalance.time_s,
                swap.sold.symbol,
                swap.bought.symbol,
                swap.sold_raw / swap.sold.unit,
                swap.bought_raw / swap.bought.unit,
                self._coins(swap.value),
                self._coins(swap.fee),
                rebalance.reason,
            )
            for rebalance in self._result.rebalances
            for swap in rebalance.swaps
        ]
        frame = polars.DataFrame(rows, schema=column_types, orient="row")
        return frame.with_columns(times(frame["time"]))

    def plot(self) -> Any:
        """Return a plotly figure of the value against buy and hold, and the drawdown. Raises
        ConfigError if plotly is not installed.

        >>> [line.name for line in result.plot().data]
        ['portfolio', 'buy and hold', 'drawdown']
        """
        graph_objects = load_plotly()
        from plotly.subplots import make_subplots

        frame = self.frame()
        figure = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.7, 0.3])
        for row, column, name in (
            (1, "value", "portfolio"),
            (1, "hold_value", "buy and hold"),
            (2, "drawdown", "drawdown"),
        ):
            line = graph_objects.Scatter(x=frame["time"], y=frame[column], name=name, mode="lines")
            figure.add_trace(line, row=row, col=1)
        figure.update_yaxes(
            title_text="drawdown", tickformat=".0%", hoverformat=".2%", row=2, col=1
        )
        return _dated(figure, "Value of the portfolio", self._result.numeraire)

    def _page(self) -> ReportPage:
        return backtest_page(self._result)

    def _repr_html_(self) -> str:
        """Return the figures and the chart of the value for a notebook."""
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<div>{self._chart()}{self.summary._repr_html_()}{notes}</div>"

    def _chart(self) -> str:
        """Return an SVG of the value (line) and of buy and hold (dashes), with its largest and least
        value, its first and last day, and a legend.
        """
        result = self._result
        picked = np.unique(np.linspace(0, len(result.equity) - 1, CHART_POINTS).astype(int))
        series = (result.equity[picked], result.hold_equity[picked])
        lowest = min(float(values.min()) for values in series)
        height = max(max(float(values.max()) for values in series) - lowest, 1e-9)
        lines = "".join(
            f'<polyline fill="none" stroke="{colour}" stroke-dasharray="{dashes}" points="'
            + " ".join(
                f"{index * CHART_WIDTH / max(len(values) - 1, 1):.1f},"
                f"{CHART_HEIGHT * (1 - (value - lowest) / height):.1f}"
                for index, value in enumerate(values)
            )
            + '"/>'
            for values, colour, dashes in zip(
                series, ("#1f6feb", "#8b949e"), ("none", "4 3"), strict=True
            )
        )
        summary = self.summary
        bottom = CHART_HEIGHT + 15
        digits = 0 if height >= 10 else 2 if height >= 0.1 else 6
        texts = "".join(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="12" fill="{colour}">{text}</text>'
            for x, y, anchor, colour, text in (
                (-6, 12, "end", "gray", f"{lowest + height:,.{digits}f}"),
                (-6, CHART_HEIGHT, "end", "gray", f"{lowest:,.{digits}f}"),
                (-6, -6, "end", "gray", escape(result.numeraire)),
                (0, bottom, "start", "gray", f"{summary.start:%Y-%m-%d}"),
                (CHART_WIDTH, bottom, "end", "gray", f"{summary.end:%Y-%m-%d}"),
                (CHART_WIDTH * 2 / 3, -6, "end", "#1f6feb", "portfolio"),
                (CHART_WIDTH, -6, "end", "#8b949e", "buy and hold"),
            )
        )
        width = CHART_WIDTH + CHART_GUTTER
        box = f"{-CHART_GUTTER} {-MARGIN} {width} {CHART_HEIGHT + 2 * MARGIN}"
        return (
            f'<svg viewBox="{box}" width="{width}" role="img"'
            f' aria-label="Value of the portfolio and of buy and hold">{lines}{texts}</svg>'
        )

    def _coins(self, amount: Fraction | int) -> float:
        return float(Fraction(amount) / 10**self._result.decimals)


def _dated(figure: Any, title: str, numeraire: str) -> Any:
    """Return the figure with its title, and axes of values above and of times below."""
    figure.update_yaxes(
        title_text=f"value, {numeraire}", tickformat=",", hoverformat=",.2f", row=1, col=1
    )
    figure.update_xaxes(title_text="time, UTC", row=2, col=1)
    figure.update_layout(title=title, hovermode="x unified", margin={"t": 56, "r": 16})
    return figure


class Comparison(dict[str, Backtest], ReportedResult):
    """Backtests by the names of their triggers.

    >>> import polars
    >>> from agent import research
    >>> days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    >>> prices = polars.DataFrame({"time": days, "BTC": [100.0, 130.0, 125.0]})
    >>> triggers = {"band": research.band(0.1), "weekly": research.every("7d")}
    >>> results = research.compare(prices, {"BTC": 0.5, "USD": 0.5}, triggers)
    >>> results.frame().select("name", "trades", "costs").rows()
    [('band', 1, 0.7509374060621431), ('weekly', 0, 0.0)]
    """

    def __repr__(self) -> str:
        lines = (f"  {name}: {result!r}" for name, result in self.items())
        return "\n".join((f"Comparison of {len(self)}", *lines))

    def frame(self) -> Any:
        """Return a polars frame with a row for each trigger: name, the figures of `summary`, costs.

        >>> results = Comparison(monthly=result)
        >>> results.frame()["name"].to_list()
        ['monthly']
        """
        figures = [field.name for field in fields(BacktestSummary)]
        return load_polars().DataFrame(
            [
                {
                    "name": name,
                    **{figure: getattr(result.summary, figure) for figure in (*figures, "costs")},
                }
                for name, result in self.items()
            ]
        )

    def plot(self) -> Any:
        """Return a plotly figure of the value of each backtest and of buy and hold, and below of the
        difference of each to buy and hold. Raises ConfigError if plotly is not installed.

        >>> results = Comparison(monthly=result)
        >>> [line.name for line in results.plot().data]
        ['monthly', 'monthly', 'buy and hold']
        """
        graph_objects = load_plotly()
        from plotly.colors import DEFAULT_PLOTLY_COLORS
        from plotly.subplots import make_subplots

        figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.06)

        def add_line(row: int, name: str, bar_times: Any, values: Any, color: str) -> None:
            line = graph_objects.Scatter(
                x=bar_times,
                y=values,
                name=name,
                legendgroup=name,
                showlegend=row == 1,
                mode="lines",
                line={"color": color},
            )
            figure.add_trace(line, row=row, col=1)

        frames = [result.frame() for result in self.values()]
        for name, frame, color in zip(self, frames, cycle(DEFAULT_PLOTLY_COLORS), strict=False):
            add_line(1, name, frame["time"], frame["value"], color)
            add_line(2, name, frame["time"], frame["value"] - frame["hold_value"], color)
        for frame in frames[:1]:
            add_line(1, "buy and hold", frame["time"], frame["hold_value"], "gray")
        numeraires = {result.summary.numeraire for result in self.values()}
        numeraire = next(iter(numeraires), "")
        figure.update_yaxes(
            title_text=f"beyond holding, {numeraire}",
            tickformat=",",
            hoverformat=",.2f",
            row=2,
            col=1,
        )
        return _dated(figure, "Value by trigger", numeraire)

    def _page(self) -> ReportPage:
        first = next(iter(self.values()))
        figures = [name for name in first.summary.names() if name not in COMMON]
        rows = [
            (
                first.summary.label(figure),
                *(result.summary.text(figure) for result in self.values()),
            )
            for figure in figures
        ]
        facts_by_name = {name: provenance_facts(result._result) for name, result in self.items()}
        common_facts = [
            fact
            for fact in facts_by_name[next(iter(self))]
            if all(fact in facts for facts in facts_by_name.values())
        ]
        own_facts = [
            fact._replace(name=f"{name}: {fact.name}")
            for name, facts in facts_by_name.items()
            for fact in facts
            if fact not in common_facts
        ]
        notes = dict.fromkeys(note for result in self.values() for note in result.notes)
        return ReportPage(
            f"{pluralize(len(self), 'backtest')} side by side",
            tuple(
                ReportFact(
                    name, result.summary.text("total_return"), f"{result.summary.trades:,} trades"
                )
                for name, result in self.items()
            ),
            (
                ReportSection(
                    "Value",
                    tuple(notes),
                    (self._value_chart(),),
                    (ReportTable(("figure", *self), tuple(rows)),),
                ),
            ),
            (f"Buy and hold: {first.summary.text('hold_return')}.",),
            (*common_facts, *own_facts),
            subtitle=f"Comparison, {first.summary.start:%Y-%m-%d} to {first.summary.end:%Y-%m-%d}",
        )

    def _value_chart(self) -> Chart:
        """Return the chart of the value of each backtest, and of buy and hold."""
        first = next(iter(self.values()))._result
        lines = [(name, result._result, result._result.equity) for name, result in self.items()]
        lines.append(("buy and hold", first, first.hold_equity))
        traces = []
        for (name, result, values), number in zip(lines, cycle(range(1, 9)), strict=False):
            points = downsample_indices([values])
            times_ms = to_milliseconds(result.times_s, points)
            traces.append(line_trace(times_ms, values_at(values, points), name, f"--c{number}"))
        says = "The value of each backtest, and of buy and hold, over time"
        return time_chart(traces, first.numeraire) | {"title": "Value", "says": says}

    def _repr_html_(self) -> str:
        """Return the figures of each backtest for a notebook, and once what all have in common."""
        frame = self.frame()
        if len(frame.select(COMMON).unique()) != 1:
            return f"<div>{frame._repr_html_()}</div>"
        summary = next(iter(self.values())).summary
        rows = "".join(
            f"<tr><th style='text-align:left'>{summary.label(name)}</th>"
            + "".join(f"<td>{escape(result.summary.text(name))}</td>" for result in self.values())
            + "</tr>"
            for name in frame.columns
            if name not in ("name", *COMMON)
        )
        head = "".join(f"<th>{escape(name)}</th>" for name in self)
        title = (
            f"{summary.start:%Y-%m-%d} to {summary.end:%Y-%m-%d},"
            f" {summary.start_value:,.2f} {summary.numeraire} at the start"
        )
        return f"<div><p>{escape(title)}</p><table><tr><th></th>{head}</tr>{rows}</table></div>"
