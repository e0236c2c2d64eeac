"""Performance sections of a report: value against buy and hold and benchmarks, weights, drawdowns,
trades, risk, funding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.backtest.funding import FundingCarry
from agent.backtest.report.page import (
    NONE,
    PERCENT,
    STRONG,
    THIN,
    ReportSection,
    ReportTable,
    Trace,
    band_edge_trace,
    change_indices,
    format_day,
    format_duration,
    format_minute,
    format_money,
    format_percent,
    format_ratio,
    line_trace,
    marker_trace,
    short_name,
    time_chart,
    to_milliseconds,
    values_at,
)
from agent.backtest.report.series import (
    DAY_S,
    Floats,
    GrowthSeries,
    Indices,
    RiskMetrics,
    calendar_benchmark,
    downsample_indices,
    drawdown_series,
    unit_changes,
    with_owner_transfers,
)
from agent.backtest.result import SimulationResult

CALENDAR_S = 30 * DAY_S
MOST_PANELS = 12
NARROW = 0.001
"""Smallest range of the excess return's axis."""
MOST_ALONE = 4
MOST_MARKS = 400
"""Maximum number of marked trades per asset and direction. The largest are kept."""
PANEL_PX = 210
PANEL_POINTS = 1_000
"""Points of a panel, which is at most half as wide as a chart."""
ALONE = ("--c2", "--c4", "--c6", "--c5")


@dataclass(frozen=True, slots=True)
class BacktestAnalysis:
    """A simulation with its growth series and risk metrics, which every section uses."""

    result: SimulationResult
    growth: GrowthSeries
    risk: RiskMetrics

    @property
    def largest(self) -> list[int]:
        """Return columns by mean weight, largest first."""
        mean = np.nanmean(self.result.weights, axis=0)
        return sorted(
            range(len(self.result.symbols)), key=lambda column: (-float(mean[column]), column)
        )


def value_section(analysis: BacktestAnalysis) -> ReportSection:
    """Return the section on value against buy and hold, the calendar rule and single assets, and on
    excess return against buy and hold.
    """
    result, index, hold = analysis.result, analysis.growth.index, analysis.growth.hold_index
    shares = _first_targets(result)
    alone = [column for column in analysis.largest if _moves(result, column)][:MOST_ALONE]
    months = with_owner_transfers(
        calendar_benchmark(result.prices, shares, result.times_s, CALENDAR_S), result
    )
    singles = [
        with_owner_transfers(result.prices[:, column] / result.prices[0, column], result)
        for column in alone
    ]
    kept = downsample_indices([result.equity, result.hold, months, *singles])
    x = to_milliseconds(result.times_s, kept)
    form = ",.2f" if float(np.nanmax(result.equity)) < 100 else ",.0f"
    lines = [
        *(
            line_trace(
                x,
                values_at(path, kept),
                f"{short_name(result.symbols[column])} alone",
                colour,
                width=THIN,
                form=form,
            )
            for path, column, colour in zip(singles, alone, ALONE, strict=False)
        ),
        line_trace(
            x,
            values_at(months, kept),
            "every 30 days, without costs",
            "--c3",
            dash="dot",
            form=form,
        )
        | {"legendrank": 30},
        line_trace(x, values_at(result.equity, kept), "rebalanced", "--c1", width=STRONG, form=form)
        | {"legendrank": 10},
        line_trace(x, values_at(result.hold, kept), "held", "--c8", dash="dash", form=form)
        | {"legendrank": 20},
    ]
    equity = time_chart(lines, result.numeraire) | {
        "title": f"Value, in {result.numeraire}",
        "says": (
            "Value of the rebalanced portfolio, of buy and hold and of the benchmarks over time"
        ),
        "height": 400,
    }
    ahead = index / hold - 1
    near = downsample_indices([ahead])
    lead = time_chart(
        [
            line_trace(
                to_milliseconds(result.times_s, near),
                values_at(ahead, near),
                "excess return",
                "--c1",
                form="+.2%",
            )
        ],
        "",
        "+.1%",
    ) | {
        "title": "Excess return",
        "says": (
            "Excess return over time; it ends at "
            f"{format_percent(float(ahead[-1]), 2, signed=True)}; positive values favour rebalancing"
        ),
        "height": 220,
    }
    lead["layout"]["yaxis"] |= {"zeroline": True}
    if not float(np.nanmax(np.abs(ahead), initial=0.0)) >= NARROW:
        lead["layout"]["yaxis"]["range"] = [-NARROW, NARROW]
    lead["layout"]["showlegend"] = False
    gas = "gas included" if result.gas_counted else "except gas, which had no price"
    words = [
        f"Held keeps the initial holdings. Rebalanced is net of all costs, {gas}.",
        f"The dotted line is rebalanced to the initial targets every {CALENDAR_S // DAY_S} days"
        " without costs, which no real rule achieves.",
    ]
    if result.flows:
        words.append("Deposits and withdrawals are in every line, but not in the excess return.")
    return ReportSection("Value", tuple(words), (equity, lead))


def weights_section(analysis: BacktestAnalysis) -> ReportSection:
    """Return a panel for each asset, with weight, target and band."""
    result, columns = analysis.result, analysis.largest[:MOST_PANELS]
    figures = []
    for column in columns:
        kept = downsample_indices([result.weights[:, column]], PANEL_POINTS)
        lines = [*_band(result, column)]
        if len(result.targets):
            goal = change_indices(result.targets[:, column])
            lines.append(
                _without_hover(
                    line_trace(
                        to_milliseconds(result.times_s, goal),
                        values_at(result.targets[:, column], goal),
                        "target",
                        "--c8",
                        dash="dot",
                    )
                )
            )
        lines.append(
            line_trace(
                to_milliseconds(result.times_s, kept),
                values_at(result.weights[:, column], kept, 4),
                "weight",
                "--c1",
                form=PERCENT,
            )
        )
        low = float(np.nanmin(result.weights[:, column]))
        high = float(np.nanmax(result.weights[:, column]))
        figures.append(
            time_chart(lines, "", ".0%" if high - low > 0.04 else PERCENT)
            | {
                "title": short_name(result.symbols[column]),
                "says": f"Weight between {format_percent(low)} and {format_percent(high)}",
                "small": True,
                "height": PANEL_PX,
            }
        )
    words: tuple[str, ...] = (
        "Share of the portfolio. The shaded area is the band, the dotted line the target.",
    )
    left = len(result.symbols) - len(columns)
    if left:
        words = (
            *words,
            f"The {len(columns)} largest are drawn; {left} smaller ones are in the table.",
        )
    rows = [_weight_row(result, column) for column in range(len(result.symbols))]
    return ReportSection(
        "Weights",
        words,
        tuple(figures),
        (ReportTable(("asset", "target", "at the end", "least", "most"), tuple(rows)),),
    )


def _weight_row(result: SimulationResult, column: int) -> tuple[str, ...]:
    path, target = result.weights[:, column], float("nan")
    if len(result.targets):
        target = float(result.targets[-1, column])
    return (
        result.symbols[column],
        *(
            format_percent(float(weight))
            for weight in (target, path[-1], np.nanmin(path), np.nanmax(path))
        ),
    )


def drawdown_section(analysis: BacktestAnalysis) -> ReportSection:
    """Return the drawdown of both portfolios."""
    result, own = analysis.result, drawdown_series(analysis.growth.index)
    hold = drawdown_series(analysis.growth.hold_index)
    kept = downsample_indices([own, hold])
    x = to_milliseconds(result.times_s, kept)
    below = line_trace(x, values_at(own, kept, 4), "rebalanced", "--c1", form=PERCENT) | {
        "fill": "tozeroy",
        "fillcolor": "var(--c1)/0.14",
    }
    chart = time_chart(
        [below, line_trace(x, values_at(hold, kept, 4), "held", "--c8", dash="dash", form=PERCENT)],
        "",
        ".0%",
    ) | {
        "title": "Drawdown",
        "says": (
            f"Zero is a new high; the maximum drawdown is {format_percent(float(own.min()))}, held"
            f" {format_percent(float(hold.min()))}"
        ),
        "height": 260,
    }
    rows = tuple(
        (
            name,
            format_percent(float(path.min())),
            format_day(int(result.times_s[int(path.argmin())])),
            _longest(path, result),
        )
        for name, path in (("rebalanced", own), ("held", hold))
    )
    return ReportSection(
        "Drawdowns",
        ("Decline from the highest value so far, and time to recover.",),
        (chart,),
        (ReportTable(("portfolio", "maximum", "on", "longest"), rows),),
    )


def _longest(path: Floats, result: SimulationResult) -> str:
    """Return the longest time below a previous high."""
    highs = np.append(np.nonzero(path >= 0)[0], len(path) - 1)
    spans = np.diff(result.times_s[highs])
    if not len(spans) or float(path.min()) >= 0:
        return NONE
    return format_duration(float(spans.max()))


def trades_section(analysis: BacktestAnalysis) -> ReportSection:
    """Return the price of every asset with its purchases and sales."""
    result = analysis.result
    panels = [column for column in analysis.largest if _moves(result, column)][:MOST_PANELS]
    if not panels:
        return ReportSection(
            "Trades on prices",
            (f"Only {result.numeraire} was held, so there are no prices to show.",),
        )
    moved = unit_changes(result)
    bars_traded = {
        rebalance.bar for rebalance in result.rebalances if rebalance.succeeded and rebalance.bar
    }
    done = np.array(sorted(bars_traded), dtype=np.int64)
    hidden, figures = 0, []
    for column in panels:
        price, change = result.prices[:, column], moved[:, column]
        kept = downsample_indices([price], PANEL_POINTS)
        lines = [
            line_trace(
                to_milliseconds(result.times_s, kept),
                values_at(price, kept),
                "price",
                "--c8",
                width=THIN,
                form=",.6~g",
            )
        ]
        for name, colour, symbol, sign in (
            ("bought", "--c1", "triangle-up", 1),
            ("sold", "--c2", "triangle-down", -1),
        ):
            bars = done[change[done] * sign > _TINY]
            most = np.sort(bars[np.argsort(-np.abs(change[bars]), kind="stable")[:MOST_MARKS]])
            hidden += len(bars) - len(most)
            says = [
                f"{name} {format_percent(abs(float(change[bar])))} of the holding" for bar in most
            ]
            lines.append(
                marker_trace(
                    to_milliseconds(result.times_s, most),
                    values_at(price, most),
                    says,
                    name,
                    colour,
                    symbol,
                )
            )
        figures.append(
            time_chart(lines, result.numeraire, "", hovermode="closest")
            | {
                "title": short_name(result.symbols[column]),
                "says": f"Price in {result.numeraire}, with {len(done)} rebalances marked",
                "small": True,
                "height": PANEL_PX + 20,
            }
        )
    words: tuple[str, ...] = (
        (
            f"Prices in {result.numeraire}. Triangles that point up are purchases, triangles that"
            " point down sales."
        ),
    )
    if hidden:
        words = (
            *words,
            (
                f"The {MOST_MARKS} largest purchases and sales of each asset are marked; {hidden:,}"
                " smaller trades are not."
            ),
        )
    return ReportSection("Trades on prices", words, tuple(figures), _largest_trades(result))


_TINY = 1e-9
"""Floating-point residue of an asset without trades."""


def _largest_trades(result: SimulationResult, most: int = 12) -> tuple[ReportTable, ...]:
    ranked = sorted(result.rebalances, key=lambda one: (-one.turnover, one.bar))[:most]
    rows = tuple(
        (
            format_minute(record.time_s),
            format_money(record.turnover, result.decimals),
            format_money(record.fees + record.impact + record.gas, result.decimals),
            "done" if record.succeeded else "reverted",
        )
        for record in ranked
    )
    if not rows:
        return ()
    unit = result.numeraire
    head = ("time (UTC)", f"turnover ({unit})", f"cost ({unit})", "result")
    title = "All rebalances, largest first"
    if len(result.rebalances) > most:
        title = "The largest rebalances"
    return (ReportTable(head, rows, title),)


def risk_section(analysis: BacktestAnalysis) -> ReportSection:
    """Return the section on rolling Sharpe ratio and tracking error, and the figures of the whole
    run.
    """
    result, risk, window = analysis.result, analysis.risk, analysis.growth.window
    figures: list[Trace] = []
    span = format_duration(window / analysis.growth.per_year * 365 * DAY_S)
    ends = analysis.growth.samples[window:]
    if window and len(ends) and np.isfinite(risk.rolling_sharpe).any():
        x = to_milliseconds(result.times_s, ends)
        every: Indices = np.arange(len(ends))
        figures.append(
            time_chart(
                [
                    line_trace(
                        x,
                        values_at(risk.rolling_sharpe, every, 4),
                        "rebalanced",
                        "--c1",
                        width=STRONG,
                        form=".2f",
                    ),
                    line_trace(
                        x,
                        values_at(risk.rolling_hold_sharpe, every, 4),
                        "held",
                        "--c8",
                        dash="dash",
                        form=".2f",
                    ),
                ],
                "",
                ".1f",
            )
            | {
                "title": f"Sharpe ratio of the last {span}",
                "says": "Mean return divided by its standard deviation, per year",
                "height": 260,
            }
        )
        figures.append(
            time_chart(
                [
                    line_trace(
                        x,
                        values_at(risk.rolling_tracking_error, every, 4),
                        "tracking error",
                        "--c4",
                        form=".2%",
                    )
                ],
                "",
                PERCENT,
                showlegend=False,
            )
            | {
                "title": f"Tracking error against holding, of the last {span}",
                "says": "Standard deviation of the difference, per year",
                "height": 200,
            }
        )
    sampling = "bar to bar" if analysis.growth.per_year < 200 else "day to day"
    windows = "The run is too short for rolling windows."
    if figures:
        windows = f"Windows are {span} long and use only past data."
    words = (
        f"From returns of {sampling}, per year of 365 days, with a risk-free rate of zero.",
        windows,
    )
    rows = (
        ("Sharpe ratio", format_ratio(risk.sharpe), format_ratio(risk.hold_sharpe)),
        ("volatility", format_percent(risk.volatility), format_percent(risk.hold_volatility)),
        ("tracking error", format_percent(risk.tracking_error, 2), NONE),
    )
    return ReportSection(
        "Risk over time",
        words,
        tuple(figures),
        (ReportTable(("per year", "rebalanced", "held"), rows),),
    )


def _first_targets(result: SimulationResult) -> Floats:
    first: Floats = result.weights[0]
    if len(result.targets) and np.nansum(result.targets[0]) > 0:
        first = result.targets[0]
    known: Floats = np.nan_to_num(first)
    shares: Floats = known / known.sum()
    return shares


def _moves(result: SimulationResult, column: int) -> bool:
    return bool(np.nanmax(result.prices[:, column]) > np.nanmin(result.prices[:, column]))


def _band(result: SimulationResult, column: int) -> list[Trace]:
    if not len(result.bands) or np.isnan(result.bands[:, column]).all():
        return []
    low, high = result.bands[:, column, 0], result.bands[:, column, 1]
    kept = np.union1d(change_indices(low), change_indices(high))
    x = to_milliseconds(result.times_s, kept)
    return [
        band_edge_trace(x, values_at(low, kept), "--c1", filled=False),
        band_edge_trace(x, values_at(high, kept), "--c1", filled=True),
    ]


def _without_hover(trace: Trace) -> Trace:
    trace["line"]["shape"] = "hv"
    return trace | {"hoverinfo": "skip"}


LINES = ("--c2", "--c4", "--c6", "--c5", "--c3", "--c7")
"""Colours of assets, largest sums first; the table has all assets."""


def funding_section(analysis: BacktestAnalysis) -> ReportSection | None:
    """Return the cumulative funding carry over time, with its totals; None without funding rates."""
    result = analysis.result
    if result.funding is None:
        return None
    carries, scale = result.funding.carries, 10.0**result.decimals
    times_s = np.unique(np.concatenate([part.times_s for part in carries]))
    paths = {carry.symbol: _so_far(carry, times_s, scale) for carry in carries}
    whole: Floats = np.sum(list(paths.values()), axis=0)
    largest: list[FundingCarry] = []
    if len(carries) > 1:
        largest = sorted(carries, key=lambda part: (-abs(part.total), part.symbol))[: len(LINES)]
    kept = downsample_indices([whole, *(paths[part.symbol] for part in largest)])
    x = to_milliseconds(times_s, kept)
    traces = [
        *(
            _line(x, paths[part.symbol], kept, short_name(part.symbol), colour)
            for part, colour in zip(largest, LINES, strict=False)
        ),
        _line(x, whole, kept, "all", "--c1", STRONG),
    ]
    chart = time_chart(traces, result.numeraire) | {
        "title": f"Cumulative funding, in {result.numeraire}",
        "says": (
            "Cumulative funding over time; the total ends at"
            f" {format_money(result.funding.total, result.decimals)}"
        ),
        "height": 280,
    }
    words = (
        (
            "Funding that a short perpetual of each holding's size would have received: at each"
            " funding time, the holding's value at the newest bar times the rate. Negative funding"
            " is paid."
        ),
        (
            "This is separate arithmetic: no position, margin, liquidation, fee or basis is"
            " simulated, and the portfolio's value excludes it."
        ),
    )
    rows = tuple(
        (
            funding_carry.symbol,
            format_money(funding_carry.total, result.decimals),
            _share(funding_carry.yearly),
            format_money(funding_carry.notional, result.decimals),
            f"{len(funding_carry.payments):,}",
        )
        for funding_carry in carries
    )
    times = sum(len(part.payments) for part in carries)
    rows = (
        *rows,
        (
            "all",
            format_money(result.funding.total, result.decimals),
            _share(result.funding.yearly),
            NONE,
            f"{times:,}",
        ),
    )
    head = (
        "asset",
        f"received ({result.numeraire})",
        "a year, of the holding",
        "mean holding",
        "times",
    )
    return ReportSection("Funding of a full hedge", words, (chart,), (ReportTable(head, rows),))


def _so_far(carry: FundingCarry, times_s: Indices, scale: float) -> Floats:
    """Return the cumulative carry in whole coins at each of these times."""
    sums = np.concatenate([[0.0], np.cumsum(np.array(carry.payments, dtype=np.float64) / scale)])
    paid: Floats = sums[np.searchsorted(carry.times_s, times_s, side="right")]
    return paid


def _line(
    x: list[int], path: Floats, kept: Indices, name: str, colour: str, width: float = 1.6
) -> dict[str, object]:
    return line_trace(x, values_at(path, kept), name, colour, width=width, form=",.2f", step=True)


def _share(yearly: float | None) -> str:
    return NONE if yearly is None else format_percent(yearly, 2, signed=True)
