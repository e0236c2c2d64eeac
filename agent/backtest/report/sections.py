"""Performance sections of a report: value against buy and hold and benchmarks, weights, drawdowns,
trades, risk, funding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from agent.backtest.funding import FundingCarry
from agent.backtest.report.page import (
    DASH,
    DASHED,
    DOTTED,
    PERCENT_FORMAT,
    PLAIN,
    STRONG,
    THIN,
    LineStyle,
    PlotlyDict,
    ReportSection,
    ReportTable,
    band_edge_trace,
    change_indices,
    format_day,
    format_money,
    format_percent,
    format_ratio,
    line_trace,
    marker_trace,
    round_duration,
    short_name,
    time_chart,
    to_milliseconds,
    values_at,
)
from agent.backtest.report.series import (
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
from agent.floats import FloatArray
from agent.units import DAY_S, minute_text, pluralize

CALENDAR_INTERVAL_S = 30 * DAY_S
MAX_PANELS = 12
MIN_EXCESS_RANGE = 0.001
"""Smallest range of the excess return's axis."""
MAX_SINGLE_ASSETS = 4
MAX_MARKED_TRADES = 400
"""Maximum number of marked trades per asset and direction. The largest are kept."""
PANEL_HEIGHT_PX = 210
PANEL_POINTS = 1_000
"""Points of a panel, which is at most half as wide as a chart."""
SINGLE_ASSET_COLOURS = ("--c2", "--c4", "--c6", "--c5")


@dataclass(frozen=True, slots=True)
class BacktestAnalysis:
    """A simulation with its growth series and risk metrics, which every section uses."""

    simulation_result: SimulationResult
    growth: GrowthSeries
    risk: RiskMetrics

    @property
    def ranked_columns(self) -> list[int]:
        """Return columns by mean weight, largest first."""
        mean_weights = np.nanmean(self.simulation_result.weights, axis=0)
        return sorted(
            range(len(self.simulation_result.symbols)),
            key=lambda column: (-float(mean_weights[column]), column),
        )


def value_section(analysis: BacktestAnalysis) -> ReportSection:
    """Return the section on value against buy and hold, the calendar rule and single assets, and on
    excess return against buy and hold.
    """
    simulation_result = analysis.simulation_result
    growth_index = analysis.growth.unit_growth
    hold_growth_index = analysis.growth.hold_unit_growth
    first_targets = _first_target_shares(simulation_result)
    single_asset_columns = [
        column for column in analysis.ranked_columns if _has_price_moves(simulation_result, column)
    ][:MAX_SINGLE_ASSETS]
    calendar_values = with_owner_transfers(
        calendar_benchmark(
            simulation_result.prices, first_targets, simulation_result.times_s, CALENDAR_INTERVAL_S
        ),
        simulation_result,
    )
    single_asset_values = [
        with_owner_transfers(
            simulation_result.prices[:, column] / simulation_result.prices[0, column],
            simulation_result,
        )
        for column in single_asset_columns
    ]
    chart_rows = downsample_indices(
        [
            simulation_result.equity,
            simulation_result.hold_equity,
            calendar_values,
            *single_asset_values,
        ]
    )
    times_ms = to_milliseconds(simulation_result.times_s, chart_rows)
    number_format = ",.2f" if float(np.nanmax(simulation_result.equity)) < 100 else ",.0f"
    traces = [
        *(
            line_trace(
                times_ms,
                values_at(asset_values, chart_rows),
                f"{short_name(simulation_result.symbols[column])} alone",
                colour,
                style=THIN,
                number_format=number_format,
            )
            for asset_values, column, colour in zip(
                single_asset_values, single_asset_columns, SINGLE_ASSET_COLOURS, strict=False
            )
        ),
        line_trace(
            times_ms,
            values_at(calendar_values, chart_rows),
            "every 30 days, without costs",
            "--c3",
            style=DOTTED,
            number_format=number_format,
        )
        | {"legendrank": 30},
        line_trace(
            times_ms,
            values_at(simulation_result.equity, chart_rows),
            "rebalanced",
            "--c1",
            style=STRONG,
            number_format=number_format,
        )
        | {"legendrank": 10},
        line_trace(
            times_ms,
            values_at(simulation_result.hold_equity, chart_rows),
            "held",
            "--c8",
            style=DASHED,
            number_format=number_format,
        )
        | {"legendrank": 20},
    ]
    value_chart = time_chart(traces, simulation_result.numeraire) | {
        "title": f"Value, in {simulation_result.numeraire}",
        "says": (
            "Value of the rebalanced portfolio, of buy and hold and of the benchmarks over time"
        ),
        "height": 400,
    }
    excess_returns = growth_index / hold_growth_index - 1
    excess_rows = downsample_indices([excess_returns])
    excess_chart = time_chart(
        [
            line_trace(
                to_milliseconds(simulation_result.times_s, excess_rows),
                values_at(excess_returns, excess_rows),
                "excess return",
                "--c1",
                number_format="+.2%",
            )
        ],
        "",
        "+.1%",
    ) | {
        "title": "Excess return",
        "says": (
            "Excess return over time; it ends at "
            f"{format_percent(float(excess_returns[-1]), 2, signed=True)}; positive values favour rebalancing"
        ),
        "height": 220,
    }
    excess_chart["layout"]["yaxis"] |= {"zeroline": True}
    if not float(np.nanmax(np.abs(excess_returns), initial=0.0)) >= MIN_EXCESS_RANGE:
        excess_chart["layout"]["yaxis"]["range"] = [-MIN_EXCESS_RANGE, MIN_EXCESS_RANGE]
    excess_chart["layout"]["showlegend"] = False
    gas_text = (
        "gas included" if simulation_result.is_gas_counted else "except gas, which had no price"
    )
    paragraphs = [
        f"Held keeps the initial holdings. Rebalanced is net of all costs, {gas_text}.",
        f"The dotted line is rebalanced to the initial targets every {CALENDAR_INTERVAL_S // DAY_S} days"
        " without costs, which no real rule achieves.",
    ]
    if simulation_result.transfers:
        paragraphs.append(
            "Deposits and withdrawals are in every line, but not in the excess return."
        )
    return ReportSection("Value", tuple(paragraphs), (value_chart, excess_chart))


def weights_section(analysis: BacktestAnalysis) -> ReportSection:
    """Return a panel for each asset, with weight, target and band."""
    simulation_result = analysis.simulation_result
    columns = analysis.ranked_columns[:MAX_PANELS]
    panels = []
    for column in columns:
        chart_rows = downsample_indices([simulation_result.weights[:, column]], PANEL_POINTS)
        traces = [*_band_traces(simulation_result, column)]
        if len(simulation_result.targets):
            target_rows = change_indices(simulation_result.targets[:, column])
            traces.append(
                _stepped_without_hover(
                    line_trace(
                        to_milliseconds(simulation_result.times_s, target_rows),
                        values_at(simulation_result.targets[:, column], target_rows),
                        "target",
                        "--c8",
                        style=DOTTED,
                    )
                )
            )
        traces.append(
            line_trace(
                to_milliseconds(simulation_result.times_s, chart_rows),
                values_at(simulation_result.weights[:, column], chart_rows, 4),
                "weight",
                "--c1",
                number_format=PERCENT_FORMAT,
            )
        )
        lowest_weight = float(np.nanmin(simulation_result.weights[:, column]))
        highest_weight = float(np.nanmax(simulation_result.weights[:, column]))
        panels.append(
            time_chart(
                traces, "", ".0%" if highest_weight - lowest_weight > 0.04 else PERCENT_FORMAT
            )
            | {
                "title": short_name(simulation_result.symbols[column]),
                "says": f"Weight between {format_percent(lowest_weight)} and {format_percent(highest_weight)}",
                "small": True,
                "height": PANEL_HEIGHT_PX,
            }
        )
    paragraphs: tuple[str, ...] = (
        "Share of the portfolio. The shaded area is the band, the dotted line the target.",
    )
    omitted_count = len(simulation_result.symbols) - len(columns)
    if omitted_count:
        paragraphs = (
            *paragraphs,
            f"The {len(columns)} largest are drawn; {omitted_count} smaller ones are in the table.",
        )
    weight_rows = [
        _weight_row(simulation_result, column) for column in range(len(simulation_result.symbols))
    ]
    return ReportSection(
        "Weights",
        paragraphs,
        tuple(panels),
        (ReportTable(("asset", "target", "at the end", "least", "most"), tuple(weight_rows)),),
    )


def _weight_row(simulation_result: SimulationResult, column: int) -> tuple[str, ...]:
    weights = simulation_result.weights[:, column]
    target_weight = float("nan")
    if len(simulation_result.targets):
        target_weight = float(simulation_result.targets[-1, column])
    return (
        simulation_result.symbols[column],
        *(
            format_percent(float(weight))
            for weight in (target_weight, weights[-1], np.nanmin(weights), np.nanmax(weights))
        ),
    )


def drawdown_section(analysis: BacktestAnalysis) -> ReportSection:
    """Return the drawdown of both portfolios."""
    simulation_result = analysis.simulation_result
    rebalanced_drawdowns = drawdown_series(analysis.growth.unit_growth)
    hold_drawdowns = drawdown_series(analysis.growth.hold_unit_growth)
    chart_rows = downsample_indices([rebalanced_drawdowns, hold_drawdowns])
    times_ms = to_milliseconds(simulation_result.times_s, chart_rows)
    drawdown_line = line_trace(
        times_ms,
        values_at(rebalanced_drawdowns, chart_rows, 4),
        "rebalanced",
        "--c1",
        number_format=PERCENT_FORMAT,
    ) | {
        "fill": "tozeroy",
        "fillcolor": "var(--c1)/0.14",
    }
    chart = time_chart(
        [
            drawdown_line,
            line_trace(
                times_ms,
                values_at(hold_drawdowns, chart_rows, 4),
                "held",
                "--c8",
                style=DASHED,
                number_format=PERCENT_FORMAT,
            ),
        ],
        "",
        ".0%",
    ) | {
        "title": "Drawdown",
        "says": (
            f"Zero is a new high; the maximum drawdown is {format_percent(float(rebalanced_drawdowns.min()))}, held"
            f" {format_percent(float(hold_drawdowns.min()))}"
        ),
        "height": 260,
    }
    drawdown_rows = tuple(
        (
            portfolio_name,
            format_percent(float(drawdowns.min())),
            format_day(int(simulation_result.times_s[int(drawdowns.argmin())])),
            _longest_drawdown_text(drawdowns, simulation_result),
        )
        for portfolio_name, drawdowns in (
            ("rebalanced", rebalanced_drawdowns),
            ("held", hold_drawdowns),
        )
    )
    return ReportSection(
        "Drawdowns",
        ("Decline from the highest value so far, and time to recover.",),
        (chart,),
        (ReportTable(("portfolio", "maximum", "on", "longest"), drawdown_rows),),
    )


def _longest_drawdown_text(drawdowns: FloatArray, simulation_result: SimulationResult) -> str:
    """Return the longest time below a previous high."""
    high_bars = np.append(np.nonzero(drawdowns >= 0)[0], len(drawdowns) - 1)
    spans_s = np.diff(simulation_result.times_s[high_bars])
    if not len(spans_s) or float(drawdowns.min()) >= 0:
        return DASH
    return round_duration(float(spans_s.max()))


def trades_section(analysis: BacktestAnalysis) -> ReportSection:
    """Return the price of every asset with its purchases and sales."""
    simulation_result = analysis.simulation_result
    panel_columns = [
        column for column in analysis.ranked_columns if _has_price_moves(simulation_result, column)
    ][:MAX_PANELS]
    if not panel_columns:
        return ReportSection(
            "Trades on prices",
            (f"Only {simulation_result.numeraire} was held, so there are no prices to show.",),
        )
    unit_changes_by_bar = unit_changes(simulation_result)
    bars_traded = {
        rebalance.bar
        for rebalance in simulation_result.rebalances
        if rebalance.succeeded and rebalance.bar
    }
    rebalanced_bars = np.array(sorted(bars_traded), dtype=np.int64)
    unmarked_count = 0
    panels = []
    for column in panel_columns:
        prices = simulation_result.prices[:, column]
        asset_unit_changes = unit_changes_by_bar[:, column]
        chart_rows = downsample_indices([prices], PANEL_POINTS)
        traces = [
            line_trace(
                to_milliseconds(simulation_result.times_s, chart_rows),
                values_at(prices, chart_rows),
                "price",
                "--c8",
                style=THIN,
                number_format=",.6~g",
            )
        ]
        for direction, colour, symbol, sign in (
            ("bought", "--c1", "triangle-up", 1),
            ("sold", "--c2", "triangle-down", -1),
        ):
            direction_bars = rebalanced_bars[
                asset_unit_changes[rebalanced_bars] * sign > _MIN_UNIT_CHANGE
            ]
            marked_bars = np.sort(
                direction_bars[
                    np.argsort(-np.abs(asset_unit_changes[direction_bars]), kind="stable")[
                        :MAX_MARKED_TRADES
                    ]
                ]
            )
            unmarked_count += len(direction_bars) - len(marked_bars)
            hover_texts = [
                f"{direction} {format_percent(abs(float(asset_unit_changes[bar])))} of the holding"
                for bar in marked_bars
            ]
            traces.append(
                marker_trace(
                    to_milliseconds(simulation_result.times_s, marked_bars),
                    values_at(prices, marked_bars),
                    hover_texts,
                    direction,
                    colour,
                    symbol,
                )
            )
        panels.append(
            time_chart(traces, simulation_result.numeraire, "", hovermode="closest")
            | {
                "title": short_name(simulation_result.symbols[column]),
                "says": f"Price in {simulation_result.numeraire}, with {pluralize(len(rebalanced_bars), 'rebalance')} marked",
                "small": True,
                "height": PANEL_HEIGHT_PX + 20,
            }
        )
    paragraphs: tuple[str, ...] = (
        (
            f"Prices in {simulation_result.numeraire}. Triangles that point up are purchases, triangles that"
            " point down sales."
        ),
    )
    if unmarked_count:
        paragraphs = (
            *paragraphs,
            (
                f"The {MAX_MARKED_TRADES} largest purchases and sales of each asset are marked; {unmarked_count:,}"
                " smaller trades are not."
            ),
        )
    return ReportSection(
        "Trades on prices", paragraphs, tuple(panels), _largest_trades_tables(simulation_result)
    )


_MIN_UNIT_CHANGE = 1e-9
"""Floating-point residue of an asset without trades."""


MAX_TRADE_ROWS = 12


def _largest_trades_tables(simulation_result: SimulationResult) -> tuple[ReportTable, ...]:
    largest_rebalances = sorted(
        simulation_result.rebalances, key=lambda rebalance: (-rebalance.turnover, rebalance.bar)
    )[:MAX_TRADE_ROWS]
    rebalance_rows = tuple(
        (
            minute_text(large_rebalance.time_s),
            format_money(large_rebalance.turnover, simulation_result.decimals),
            format_money(
                large_rebalance.fees + large_rebalance.impact + large_rebalance.gas,
                simulation_result.decimals,
            ),
            "done" if large_rebalance.succeeded else "reverted",
        )
        for large_rebalance in largest_rebalances
    )
    if not rebalance_rows:
        return ()
    numeraire = simulation_result.numeraire
    column_names = ("time (UTC)", f"turnover ({numeraire})", f"cost ({numeraire})", "result")
    title = "All rebalances, largest first"
    if len(simulation_result.rebalances) > MAX_TRADE_ROWS:
        title = "The largest rebalances"
    return (ReportTable(column_names, rebalance_rows, title),)


def risk_section(analysis: BacktestAnalysis) -> ReportSection:
    """Return the section on rolling Sharpe ratio and tracking error, and the figures of the whole
    run.
    """
    simulation_result = analysis.simulation_result
    risk = analysis.risk
    window_samples = analysis.growth.window_samples
    charts: list[PlotlyDict] = []
    window_text = round_duration(window_samples / analysis.growth.samples_per_year * 365 * DAY_S)
    end_bars = analysis.growth.sample_bars[window_samples:]
    if window_samples and len(end_bars) and np.isfinite(risk.rolling_sharpe).any():
        times_ms = to_milliseconds(simulation_result.times_s, end_bars)
        chart_rows: Indices = np.arange(len(end_bars))
        charts.append(
            time_chart(
                [
                    line_trace(
                        times_ms,
                        values_at(risk.rolling_sharpe, chart_rows, 4),
                        "rebalanced",
                        "--c1",
                        style=STRONG,
                        number_format=".2f",
                    ),
                    line_trace(
                        times_ms,
                        values_at(risk.rolling_hold_sharpe, chart_rows, 4),
                        "held",
                        "--c8",
                        style=DASHED,
                        number_format=".2f",
                    ),
                ],
                "",
                ".1f",
            )
            | {
                "title": f"Sharpe ratio of the last {window_text}",
                "says": "Mean return divided by its standard deviation, per year",
                "height": 260,
            }
        )
        charts.append(
            time_chart(
                [
                    line_trace(
                        times_ms,
                        values_at(risk.rolling_tracking_error, chart_rows, 4),
                        "tracking error",
                        "--c4",
                        number_format=".2%",
                    )
                ],
                "",
                PERCENT_FORMAT,
                showlegend=False,
            )
            | {
                "title": f"Tracking error against holding, of the last {window_text}",
                "says": "Standard deviation of the difference, per year",
                "height": 200,
            }
        )
    sampling_text = "bar to bar" if analysis.growth.samples_per_year < 200 else "day to day"
    windows_text = "The run is too short for rolling windows."
    if charts:
        windows_text = f"Windows are {window_text} long and use only past data."
    paragraphs = (
        f"From returns of {sampling_text}, per year of 365 days, with a risk-free rate of zero.",
        windows_text,
    )
    risk_rows = (
        ("Sharpe ratio", format_ratio(risk.sharpe), format_ratio(risk.hold_sharpe)),
        ("volatility", format_percent(risk.volatility), format_percent(risk.hold_volatility)),
        ("tracking error", format_percent(risk.tracking_error, 2), DASH),
    )
    return ReportSection(
        "Risk over time",
        paragraphs,
        tuple(charts),
        (ReportTable(("per year", "rebalanced", "held"), risk_rows),),
    )


def _first_target_shares(simulation_result: SimulationResult) -> FloatArray:
    first_shares: FloatArray = simulation_result.weights[0]
    if len(simulation_result.targets) and np.nansum(simulation_result.targets[0]) > 0:
        first_shares = simulation_result.targets[0]
    finite_shares: FloatArray = np.nan_to_num(first_shares)
    scaled_shares: FloatArray = finite_shares / finite_shares.sum()
    return scaled_shares


def _has_price_moves(simulation_result: SimulationResult, column: int) -> bool:
    return bool(
        np.nanmax(simulation_result.prices[:, column])
        > np.nanmin(simulation_result.prices[:, column])
    )


def _band_traces(simulation_result: SimulationResult, column: int) -> list[PlotlyDict]:
    if not len(simulation_result.bands) or np.isnan(simulation_result.bands[:, column]).all():
        return []
    low_edges = simulation_result.bands[:, column, 0]
    high_edges = simulation_result.bands[:, column, 1]
    chart_rows = np.union1d(change_indices(low_edges), change_indices(high_edges))
    times_ms = to_milliseconds(simulation_result.times_s, chart_rows)
    return [
        band_edge_trace(times_ms, values_at(low_edges, chart_rows), filled=False),
        band_edge_trace(times_ms, values_at(high_edges, chart_rows), filled=True),
    ]


def _stepped_without_hover(trace: PlotlyDict) -> PlotlyDict:
    trace["line"]["shape"] = "hv"
    return trace | {"hoverinfo": "skip"}


ASSET_COLOURS = ("--c2", "--c4", "--c6", "--c5", "--c3", "--c7")
"""Colours of assets, largest sums first; the table has all assets."""


def funding_section(analysis: BacktestAnalysis) -> ReportSection | None:
    """Return the cumulative funding carry over time, with its totals; None without funding
    rates.
    """
    simulation_result = analysis.simulation_result
    if simulation_result.funding is None:
        return None
    carries = simulation_result.funding.carries
    raw_per_coin = 10.0**simulation_result.decimals
    times_s = np.unique(np.concatenate([carry.times_s for carry in carries]))
    carry_by_symbol = {
        carry.symbol: _cumulative_carry(carry, times_s, raw_per_coin) for carry in carries
    }
    total_carry: FloatArray = np.sum(list(carry_by_symbol.values()), axis=0)
    largest_carries: list[FundingCarry] = []
    if len(carries) > 1:
        largest_carries = sorted(carries, key=lambda carry: (-abs(carry.total), carry.symbol))[
            : len(ASSET_COLOURS)
        ]
    chart_rows = downsample_indices(
        [total_carry, *(carry_by_symbol[carry.symbol] for carry in largest_carries)]
    )
    times_ms = to_milliseconds(times_s, chart_rows)
    traces = [
        *(
            _carry_line(
                times_ms,
                carry_by_symbol[carry.symbol],
                chart_rows,
                short_name(carry.symbol),
                colour,
            )
            for carry, colour in zip(largest_carries, ASSET_COLOURS, strict=False)
        ),
        _carry_line(times_ms, total_carry, chart_rows, "all", "--c1", STRONG),
    ]
    chart = time_chart(traces, simulation_result.numeraire) | {
        "title": f"Cumulative funding, in {simulation_result.numeraire}",
        "says": (
            "Cumulative funding over time; the total ends at"
            f" {format_money(simulation_result.funding.total, simulation_result.decimals)}"
        ),
        "height": 280,
    }
    paragraphs = (
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
    funding_rows = tuple(
        (
            carry.symbol,
            format_money(carry.total, simulation_result.decimals),
            _format_yearly(carry.yearly_rate),
            format_money(carry.mean_notional, simulation_result.decimals),
            f"{len(carry.payments):,}",
        )
        for carry in carries
    )
    payment_count = sum(len(carry.payments) for carry in carries)
    funding_rows = (
        *funding_rows,
        (
            "all",
            format_money(simulation_result.funding.total, simulation_result.decimals),
            _format_yearly(simulation_result.funding.yearly_rate),
            DASH,
            f"{payment_count:,}",
        ),
    )
    column_names = (
        "asset",
        f"received ({simulation_result.numeraire})",
        "a year, of the holding",
        "mean holding",
        "times",
    )
    return ReportSection(
        "Funding of a full hedge", paragraphs, (chart,), (ReportTable(column_names, funding_rows),)
    )


def _cumulative_carry(carry: FundingCarry, times_s: Indices, raw_per_coin: float) -> FloatArray:
    """Return the cumulative carry in whole coins at each of these times."""
    cumulative_payments = np.concatenate(
        [[0.0], np.cumsum(np.array(carry.payments, dtype=np.float64) / raw_per_coin)]
    )
    carry_by_time: FloatArray = cumulative_payments[
        np.searchsorted(carry.times_s, times_s, side="right")
    ]
    return carry_by_time


def _carry_line(
    times_ms: list[int],
    cumulative_carry: FloatArray,
    chart_rows: Indices,
    name: str,
    colour: str,
    style: LineStyle = PLAIN,
) -> dict[str, object]:
    return line_trace(
        times_ms,
        values_at(cumulative_carry, chart_rows),
        name,
        colour,
        style=replace(style, is_stepped=True),
        number_format=",.2f",
    )


def _format_yearly(yearly_rate: float | None) -> str:
    return DASH if yearly_rate is None else format_percent(yearly_rate, 2, signed=True)
