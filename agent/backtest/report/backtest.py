"""The backtest report: turnover, costs, rebalancing premium, tax and run log as sections of a
page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction
from operator import itemgetter

import numpy as np

from agent.backtest.report import sections as report_sections
from agent.backtest.report.futures import futures_section
from agent.backtest.report.losses import loss_section
from agent.backtest.report.page import (
    DASH,
    PlotlyDict,
    ReportFact,
    ReportPage,
    ReportSection,
    ReportTable,
    format_date_range,
    format_day,
    format_money,
    format_percent,
    format_ratio,
    round_duration,
    short_name,
    time_chart,
)
from agent.backtest.report.sections import BacktestAnalysis
from agent.backtest.report.series import drawdown_series, growth_series, risk_metrics
from agent.backtest.result import SimulationResult
from agent.backtest.settings import HealthRecord
from agent.units import DAY_S, HOUR_S, YEAR_S, Value, pluralize

COST_KIND_COLOURS = (("fees", "--c1"), ("impact", "--c2"), ("gas", "--c5"))
MAX_CHART_POINTS = 2_000
"""Maximum number of transactions drawn in the chart of costs."""
MIN_SHOWN_GROWTH = 0.00005
"""Smallest displayed value; smaller ones would print as zero."""
PERIOD_BY_MAX_SPAN_S = ((2 * DAY_S, "hour"), (100 * DAY_S, "day"), (4 * YEAR_S, "month"))


def costs_section(analysis: BacktestAnalysis) -> ReportSection:
    """Return costs by kind, cumulated over time, and their sums."""
    simulation_result = analysis.simulation_result
    raw_per_coin = 10.0**simulation_result.decimals
    no_cost = Fraction(0)
    costs = sorted(
        (
            *(
                (rebalance.time_s, rebalance.fees, rebalance.impact, no_cost)
                for rebalance in simulation_result.rebalances
            ),
            *((time_s, no_cost, no_cost, gas) for time_s, gas in simulation_result.gas_costs),
        ),
        key=itemgetter(0),
    )
    if not costs:
        return ReportSection("Costs", ("No trades, no costs.",))
    drawn_indices = np.unique(
        np.linspace(0, len(costs) - 1, min(len(costs), MAX_CHART_POINTS)).astype(np.int64)
    ).tolist()
    times_ms = [
        int(simulation_result.times_s[0]) * 1_000,
        *(costs[index][0] * 1_000 for index in drawn_indices),
        int(simulation_result.times_s[-1]) * 1_000,
    ]
    traces: list[PlotlyDict] = []
    for column, (cost_kind, colour) in enumerate(COST_KIND_COLOURS, start=1):
        running_costs = np.cumsum([float(cost[column]) / raw_per_coin for cost in costs])
        drawn_costs = [
            0.0,
            *(float(f"{running_costs[index]:.6g}") for index in drawn_indices),
            float(f"{running_costs[-1]:.6g}"),
        ]
        traces.append(_stacked_trace(times_ms, drawn_costs, cost_kind, colour))
    gas_text = "" if simulation_result.is_gas_counted else " Gas is not counted: it had no price."
    chart = time_chart(traces, simulation_result.numeraire) | {
        "title": f"Cumulative costs, in {simulation_result.numeraire}",
        "says": "Cumulative fees, impact and gas, stacked",
        "height": 280,
    }
    return ReportSection(
        "Costs",
        (
            (
                "Fees go to the pools, impact is the remaining loss against the reference price,"
                " gas is that of all transactions."
            ),
            f"Costs are valued at the prices of their block.{gas_text}",
        ),
        (chart,),
        (_cost_table(analysis),),
    )


def _stacked_trace(
    times_ms: list[int], cumulative_costs: list[float], name: str, colour: str
) -> PlotlyDict:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": times_ms,
        "y": cumulative_costs,
        "name": name,
        "stackgroup": "costs",
        "yhoverformat": ",.2f",
        "line": {"color": f"var({colour})", "width": 1, "shape": "hv"},
        "fillcolor": f"var({colour})/0.35",
    }


def _cost_table(analysis: BacktestAnalysis) -> ReportTable:
    simulation_result = analysis.simulation_result
    years = max(analysis.growth.years, 1e-9)
    turnover = sum((rebalance.turnover for rebalance in simulation_result.rebalances), Fraction(0))
    sums_by_kind: tuple[tuple[str, Value], ...] = (
        ("fees", simulation_result.fees),
        ("impact", simulation_result.impact),
        ("gas", simulation_result.gas),
    )
    sums_by_kind = (
        *sums_by_kind,
        ("all", sum((cost_value for _, cost_value in sums_by_kind), Fraction(0))),
    )
    cost_rows = []
    for cost_kind, cost_value in sums_by_kind:
        if cost_kind == "gas" and not simulation_result.is_gas_counted:
            cost_rows.append((cost_kind, "not counted", DASH, DASH, DASH))
            continue
        cost_share = (
            float(cost_value / simulation_result.start_value)
            if simulation_result.start_value
            else float("nan")
        )
        bps_text = f"{float(cost_value / turnover) * 10_000:,.1f} bps" if turnover else DASH
        cost_rows.append(
            (
                cost_kind,
                format_money(cost_value, simulation_result.decimals),
                format_percent(cost_share, 2),
                format_percent(cost_share / years, 2),
                bps_text,
            )
        )
    return ReportTable(
        ("kind", simulation_result.numeraire, "of the start value", "a year", "of turnover"),
        tuple(cost_rows),
    )


def turnover_section(analysis: BacktestAnalysis) -> ReportSection:
    """Return the section on turnover by period."""
    simulation_result = analysis.simulation_result
    if not simulation_result.rebalances:
        return ReportSection("Turnover", ("No trades, no turnover.",))
    period_starts_s, period = _period_starts(simulation_result)
    turnovers = np.zeros(len(period_starts_s))
    rebalance_counts = np.zeros(len(period_starts_s), dtype=np.int64)
    raw_per_coin = 10.0**simulation_result.decimals
    start_times_s = np.array(period_starts_s)
    for rebalance in simulation_result.rebalances:
        period_index = int(np.searchsorted(start_times_s, rebalance.time_s, side="right")) - 1
        turnovers[period_index] += (
            float(rebalance.turnover)
            / raw_per_coin
            / float(simulation_result.equity[rebalance.bar])
        )
        rebalance_counts[period_index] += rebalance.succeeded
    turnover_trace: PlotlyDict = {
        "type": "bar",
        "x": [start_s * 1_000 for start_s in period_starts_s],
        "y": [float(f"{turnover:.5g}") for turnover in turnovers],
        "name": "turnover",
        "marker": {"color": "var(--c1)"},
        "yhoverformat": ".1%",
        "text": [
            pluralize(int(rebalance_count), "rebalance") for rebalance_count in rebalance_counts
        ],
        "hovertemplate": "%{y:.1%}, %{text}<extra></extra>",
        "textposition": "none",
    }
    chart = time_chart([turnover_trace], "", ".0%", showlegend=False, bargap=0.25) | {
        "title": f"Turnover of each {period}, as a share of the portfolio",
        "says": f"One bar for each {period}; the largest is {format_percent(float(turnovers.max()))}",
        "height": 220,
    }
    total_turnover = float(simulation_result.turnover_ratio)
    paragraphs = (
        "Half of all purchases and sales over the portfolio's value.",
        (
            f"Total {format_percent(total_turnover)},"
            f" {format_percent(total_turnover / max(analysis.growth.years, 1e-9))} a year."
        ),
    )
    return ReportSection("Turnover", paragraphs, (chart,))


def _period_starts(simulation_result: SimulationResult) -> tuple[list[int], str]:
    """Return the starts of the UTC hours, days, months or years that cover the run, and the name of
    the period.
    """
    first_s = int(simulation_result.times_s[0])
    last_s = int(simulation_result.times_s[-1])
    period = next(
        (period for max_span_s, period in PERIOD_BY_MAX_SPAN_S if last_s - first_s <= max_span_s),
        "year",
    )
    if period in ("hour", "day"):
        period_s = HOUR_S if period == "hour" else DAY_S
        return list(range(first_s // period_s * period_s, last_s + 1, period_s)), period
    period_start = datetime.fromtimestamp(first_s, UTC)
    period_start = datetime(
        period_start.year, period_start.month if period == "month" else 1, 1, tzinfo=UTC
    )
    starts_s = []
    while period_start.timestamp() <= last_s:
        starts_s.append(int(period_start.timestamp()))
        months_ahead = period_start.month if period == "month" else 12
        period_start = datetime(
            period_start.year + months_ahead // 12, months_ahead % 12 + 1, 1, tzinfo=UTC
        )
    return starts_s, period


def premium_section(analysis: BacktestAnalysis) -> ReportSection | None:
    """Return the parts of the excess return against buy and hold."""
    premium = analysis.simulation_result.premium
    if premium is None or not any(
        rebalance.succeeded for rebalance in analysis.simulation_result.rebalances
    ):
        return None
    excess_log_growth = math.log(
        float(analysis.growth.unit_growth[-1] / analysis.growth.hold_unit_growth[-1])
    )
    unattributed_growth = excess_log_growth - premium.advantage
    unattributed_parts = (
        [_unattributed_part(analysis.simulation_result, unattributed_growth)]
        if abs(unattributed_growth) >= MIN_SHOWN_GROWTH
        else []
    )
    return_parts: tuple[tuple[str, float, str], ...] = (
        (
            "excess growth",
            premium.excess_growth,
            "gain from rebalancing winners into losers, bar by bar",
        ),
        (
            "off target",
            premium.off_target,
            "gain from weights other than the initial weights",
        ),
        ("dispersion", -premium.dispersion, "gain of buy and hold from growing winners"),
        ("costs", -premium.costs, "fees, impact and gas"),
        *unattributed_parts,
        ("excess return", excess_log_growth, "sum of the parts above"),
    )
    part_names = [name for name, _, _ in return_parts][::-1]
    part_growths = [float(f"{part_growth:.6g}") for _, part_growth, _ in return_parts][::-1]
    colours = [
        "var(--ink)",
        *("var(--c1)" if part_growth >= 0 else "var(--c2)" for part_growth in part_growths[1:]),
    ]
    parts_trace = {
        "type": "bar",
        "orientation": "h",
        "x": part_growths,
        "y": part_names,
        "name": "growth",
        "xhoverformat": "+.2%",
        "marker": {"color": colours},
        "text": [format_percent(part_growth, 2, signed=True) for part_growth in part_growths],
        "textposition": "auto",
        "hoverinfo": "skip",
        "cliponaxis": False,
    }
    chart = {
        "data": [parts_trace],
        "layout": {
            "xaxis": {
                "tickformat": "+~%",
                "showgrid": True,
                "showline": False,
                "zeroline": True,
                "title": {"text": "log growth"},
            },
            "yaxis": {"showgrid": False},
            "showlegend": False,
            "hovermode": False,
            "bargap": 0.35,
        },
        "title": "Attribution of the excess return",
        "says": "Bars that add up to the last bar, in log growth",
        "height": 260,
    }
    paragraphs = (
        (
            "Excess growth is the growth that rebalancing adds to the mean growth of the assets"
            " (Fernholz 2002, Stochastic Portfolio Theory, 1.1.20). The corresponding gain of buy"
            " and hold is dispersion. All parts are log growth, so that they add up."
        ),
        (
            f"Excess growth was {format_percent(premium.excess_growth_yearly, 2)} a year; the"
            f" formula gives {format_percent(premium.expected_yearly, 2)} for the first weights and"
            " the covariance of these prices."
        ),
    )
    part_rows = tuple(
        (name, format_percent(part_growth, 2, signed=True), meaning)
        for name, part_growth, meaning in return_parts
    )
    return ReportSection(
        "Return attribution",
        paragraphs,
        (chart,),
        (ReportTable(("part", "log growth", "meaning"), part_rows),),
    )


def _unattributed_part(
    simulation_result: SimulationResult, unattributed_growth: float
) -> tuple[str, float, str]:
    """Return the part of the excess return outside the premium: gas money, which earns no return,
    and transfers, which change the weights of buy and hold.
    """
    gas_text = "gas money is held outside the portfolio and earns none of its returns"
    flows_text = "deposits and withdrawals changed the weights of buy and hold"
    if not simulation_result.transfers:
        return "gas money", unattributed_growth, gas_text
    if not simulation_result.gas:
        return "flows", unattributed_growth, flows_text
    return "flows and gas money", unattributed_growth, f"{flows_text}; {gas_text}"


def taxes_section(analysis: BacktestAnalysis) -> ReportSection | None:
    """Return the section on realised gains of each calendar year."""
    simulation_result = analysis.simulation_result
    if not simulation_result.yearly_gains:
        return None
    year_rows = tuple(
        (str(gain.year), format_money(gain.realised, simulation_result.decimals))
        for gain in simulation_result.yearly_gains
    )
    total_gain = sum(
        (year_gains.realised for year_gains in simulation_result.yearly_gains), Fraction(0)
    )
    paragraphs = (
        (
            f"Realised gains less losses of each calendar year (UTC), by {simulation_result.lot_rule}, in"
            f" {simulation_result.numeraire}, before tax rates. This is arithmetic, not advice."
        ),
    )
    gains_table = ReportTable(
        ("year", f"realised ({simulation_result.numeraire})"),
        (*year_rows, ("all", format_money(total_gain, simulation_result.decimals))),
    )
    tables = [gains_table]
    if simulation_result.futures_yearly_gains:
        tables.append(
            ReportTable(
                ("year", f"futures, less funding ({simulation_result.numeraire})"),
                tuple(
                    (
                        str(futures_gains.year),
                        format_money(futures_gains.realised, simulation_result.decimals),
                    )
                    for futures_gains in simulation_result.futures_yearly_gains
                ),
                "Apart from the gains above and from year_limit",
            )
        )
    return ReportSection("Taxable gains", paragraphs, (), tuple(tables))


def run_log_section(analysis: BacktestAnalysis) -> ReportSection:
    """Return the section on bars evaluated, and reasons why the agent did not act."""
    simulation_result = analysis.simulation_result
    paragraphs = [
        f"{pluralize(simulation_result.bar_count, 'bar')}, {simulation_result.evaluated_bar_count:,} of them evaluated by a full step;"
        " no trigger could fire at the others."
    ]
    if simulation_result.halted_bar_count:
        paragraphs.append(
            f"{pluralize(simulation_result.halted_bar_count, 'bar')} without a decision, for the reasons in the notes."
        )
    else:
        paragraphs.append("Every bar had a decision.")
    reverted_count = sum(not rebalance.succeeded for rebalance in simulation_result.rebalances)
    if reverted_count:
        paragraphs.append(f"{pluralize(reverted_count, 'swap')} reverted and only paid gas.")
    tables = [
        _count_table("Plans refused, by reason", simulation_result.refusal_counts),
        _count_table(
            "Held although a trade was due, by setting", simulation_result.holds_by_setting
        ),
    ]
    note_rows = tuple((note,) for note in simulation_result.notes)
    if note_rows:
        tables.append(ReportTable(("about the data",), note_rows, "Notes"))
    return ReportSection(
        "Run log", tuple(paragraphs), (), tuple(table for table in tables if table is not None)
    )


def _count_table(title: str, bar_counts_by_reason: Sequence[tuple[str, int]]) -> ReportTable | None:
    if not bar_counts_by_reason:
        return None
    return ReportTable(
        ("reason", "bars"),
        tuple(
            (reason, f"{bar_count:,}")
            for reason, bar_count in sorted(
                bar_counts_by_reason,
                key=lambda reason_and_count: (-reason_and_count[1], reason_and_count[0]),
            )
        ),
        title,
    )


def health_section(simulation_result: SimulationResult) -> ReportSection | None:
    """Return the health of strategies at the end, and each pause and return; None without
    strategies.
    """
    if not simulation_result.final_health:
        return None

    def ratio_text(health_record: HealthRecord) -> str:
        return (
            DASH
            if health_record.sharpe_milli is None
            else format_ratio(health_record.sharpe_milli / 1_000)
        )

    final_rows = tuple(
        (strategy.name, strategy.health, ratio_text(strategy))
        for strategy in simulation_result.final_health
    )
    change_rows = tuple(
        (
            health_change.name,
            format_day(health_change.time_s),
            health_change.health,
            health_change.reason,
        )
        for health_change in simulation_result.health_changes
    )
    tables = [ReportTable(("strategy", "at the end", "Sharpe ratio"), final_rows)]
    if change_rows:
        tables.append(ReportTable(("strategy", "since", "health", "why"), change_rows))
    paragraph = "A strategy whose Sharpe ratio stays below its limit is paused, as live."
    return ReportSection("Health of strategies", (paragraph,), (), tuple(tables))


def total_costs(simulation_result: SimulationResult) -> Value:
    """Return fees, impact and gas, numeraire base units."""
    return simulation_result.fees + simulation_result.impact + simulation_result.gas


MIN_DIFFERENCE = 0.0005
"""Smallest excess return that is reported as a difference."""
MAX_SHOWN_FLOWS = 24
"""Maximum number of transfers listed one by one; more are shown by their hash."""
MAX_TITLE_SYMBOLS = 6
OMITTED_VALUES = ("", "None", "()", "False")
NORMAL_95_QUANTILE = 1.96
MIN_SAMPLES_FOR_INTERVAL = 60


def backtest_page(simulation_result: SimulationResult) -> ReportPage:
    """Build the page. Raises Refused if empyrical is not installed."""
    growth = growth_series(simulation_result)
    analysis = BacktestAnalysis(simulation_result, growth, risk_metrics(growth))
    sections = (
        report_sections.value_section(analysis),
        premium_section(analysis),
        report_sections.weights_section(analysis),
        report_sections.drawdown_section(analysis),
        report_sections.trades_section(analysis),
        turnover_section(analysis),
        costs_section(analysis),
        loss_section(simulation_result.loss),
        report_sections.funding_section(analysis),
        report_sections.risk_section(analysis),
        taxes_section(analysis),
        health_section(simulation_result),
        run_log_section(analysis),
        None if simulation_result.futures is None else futures_section(simulation_result.futures),
    )
    return ReportPage(
        title=_title(simulation_result),
        subtitle=f"Backtest, {format_date_range(int(simulation_result.times_s[0]), int(simulation_result.times_s[-1]))}",
        facts=_headline_facts(analysis),
        sections=tuple(section for section in sections if section is not None),
        summary=_summary(analysis),
        provenance_facts=provenance_facts(simulation_result),
    )


def _title(simulation_result: SimulationResult) -> str:
    short_names = [short_name(symbol) for symbol in simulation_result.symbols[:MAX_TITLE_SYMBOLS]]
    if (unnamed_count := len(simulation_result.symbols) - MAX_TITLE_SYMBOLS) > 0:
        return f"{', '.join(short_names)} and {unnamed_count} more"
    return " and ".join(", ".join(short_names).rsplit(", ", 1))


def excess_return(analysis: BacktestAnalysis) -> float:
    """Return the growth of the rebalanced portfolio relative to buy and hold, minus one, without
    transfers.
    """
    return float(analysis.growth.unit_growth[-1] / analysis.growth.hold_unit_growth[-1]) - 1


def _summary(analysis: BacktestAnalysis) -> tuple[str, ...]:
    simulation_result = analysis.simulation_result
    numeraire = analysis.simulation_result.numeraire
    excess_share = excess_return(analysis)
    rebalance_count = sum(rebalance.succeeded for rebalance in simulation_result.rebalances)
    end_text, hold_text = (
        f"{format_money(portfolio_value, simulation_result.decimals)} {numeraire}"
        for portfolio_value in (simulation_result.final_value, simulation_result.hold_value)
    )
    if not rebalance_count:
        reason = "no trigger fired"
        if (
            simulation_result.refusal_counts
            or simulation_result.halted_bar_count
            or simulation_result.holds_by_setting
        ):
            reason = "the reasons are listed below"
        result_text = (
            f"In {_span_text(simulation_result)} it never rebalanced: {reason}. It ended at {end_text}, buy and hold at"
            f" {hold_text}."
        )
    elif not math.isfinite(excess_share):
        result_text = f"It ended at {end_text}; the result of buy and hold is unknown."
    elif abs(excess_share) < MIN_DIFFERENCE:
        result_text = f"Rebalancing made no difference here: it ended at {end_text}, buy and hold at {hold_text}."
    elif excess_share > 0:
        result_text = (
            f"Rebalancing ended {format_percent(excess_share, _percent_places(excess_share))} above buy and hold: at"
            f" {end_text} against {hold_text}, net of all costs."
        )
    else:
        result_text = (
            f"Rebalancing did not pay here: it ended at {end_text},"
            f" {format_percent(-excess_share, _percent_places(excess_share))} below buy and hold, which ended at {hold_text}."
        )
    sentences = [result_text]
    if rebalance_count:
        gas_text = "" if simulation_result.is_gas_counted else ", gas not counted"
        sentences.append(
            f"In {_span_text(simulation_result)} it traded {pluralize(rebalance_count, 'time')}, with a turnover of"
            f" {format_ratio(float(simulation_result.turnover_ratio))} portfolios and costs of"
            f" {format_money(total_costs(simulation_result), simulation_result.decimals)} {numeraire}{gas_text}. Its maximum"
            f" drawdown was {format_percent(-_max_drawdown(analysis))}, that of buy and hold"
            f" {format_percent(-_max_drawdown(analysis, of_holding=True))}."
        )
    if simulation_result.transfers:
        sentences.append(
            "Both include deposits and withdrawals; the excess return is time-weighted."
        )
    if rebalance_count:
        sentences.append(_confidence_text(analysis))
    return tuple(sentences)


def _percent_places(share: float) -> int:
    return 1 if abs(share) >= 0.01 else 2


def _span_text(simulation_result: SimulationResult) -> str:
    return round_duration(float(simulation_result.times_s[-1] - simulation_result.times_s[0]))


def _confidence_text(analysis: BacktestAnalysis) -> str:
    """Describe the 95 % interval of the mean yearly difference to buy and hold (normal
    distribution, independent samples).
    """
    mean_excess = analysis.risk.mean_excess
    standard_error = analysis.risk.mean_excess_error
    if len(analysis.growth.returns) < MIN_SAMPLES_FOR_INTERVAL or not (
        math.isfinite(mean_excess) and standard_error > 0
    ):
        return "This is one short history; it does not predict the future."
    low_text, high_text = (
        format_percent(mean_excess + sign * NORMAL_95_QUANTILE * standard_error, 1, signed=True)
        for sign in (-1, 1)
    )
    chance_text = "more than chance alone would explain, in this one history"
    if abs(mean_excess) <= NORMAL_95_QUANTILE * standard_error:
        chance_text = "chance alone could explain it"
    comparison = "above" if mean_excess > 0 else "below"
    return (
        f"Its log growth was {format_percent(abs(mean_excess), 2)} a year {comparison} that of buy and hold."
        f" The 95 % interval of that mean is {low_text} to {high_text}: {chance_text}. It assumes"
        " independent returns and does"
        " not predict the future."
    )


def _max_drawdown(analysis: BacktestAnalysis, of_holding: bool = False) -> float:
    growth_index = analysis.growth.hold_unit_growth if of_holding else analysis.growth.unit_growth
    return float(drawdown_series(growth_index).min())


def _headline_facts(analysis: BacktestAnalysis) -> tuple[ReportFact, ...]:
    simulation_result = analysis.simulation_result
    excess_share = excess_return(analysis)
    rebalance_count = sum(rebalance.succeeded for rebalance in simulation_result.rebalances)
    costs = total_costs(simulation_result)
    total_return = float(analysis.growth.unit_growth[-1]) - 1
    cost_share = (
        float(costs / simulation_result.start_value) if simulation_result.start_value else math.nan
    )
    cost_text = DASH
    if costs:
        cost_text = f"of the start: {format_money(costs, simulation_result.decimals)} {simulation_result.numeraire}"
        if not simulation_result.is_gas_counted:
            cost_text += ", without gas"
    growth_text = (
        f"{format_percent(total_return, signed=True)} from"
        f" {format_money(simulation_result.start_value, simulation_result.decimals)}"
    )
    return (
        ReportFact(
            f"Final value, {simulation_result.numeraire}",
            format_money(simulation_result.final_value, simulation_result.decimals),
            growth_text,
        ),
        ReportFact(
            "Excess return",
            format_percent(excess_share, 2, signed=True),
            f"held: {format_money(simulation_result.hold_value, simulation_result.decimals)}",
        ),
        ReportFact(
            "Maximum drawdown",
            format_percent(_max_drawdown(analysis)),
            f"held: {format_percent(_max_drawdown(analysis, of_holding=True))}",
        ),
        ReportFact(
            "Sharpe ratio",
            format_ratio(analysis.risk.sharpe),
            f"held: {format_ratio(analysis.risk.hold_sharpe)}",
        ),
        ReportFact(
            "Rebalances",
            f"{rebalance_count:,}",
            f"{format_ratio(float(simulation_result.turnover_ratio))} times the portfolio",
        ),
        ReportFact(
            "Costs",
            format_percent(cost_share, 2),
            cost_text,
        ),
    )


def provenance_facts(simulation_result: SimulationResult) -> tuple[ReportFact, ...]:
    """Return what repeats a simulation: its parameters, hashes, seed and versions."""
    parameter_texts = {
        name: parameter_text
        for name, parameter_text in simulation_result.parameters
        if parameter_text not in OMITTED_VALUES
    }
    # longer lists are shown by their hash
    flows = (
        simulation_result.transfers if len(simulation_result.transfers) <= MAX_SHOWN_FLOWS else ()
    )
    if flows:
        parameter_texts.pop("flows", None)
    first_targets = (
        simulation_result.targets[0]
        if len(simulation_result.targets)
        else simulation_result.weights[0]
    )
    targets_text = ", ".join(
        f"{symbol} {format_percent(float(share), 2)}"
        for symbol, share in zip(simulation_result.symbols, first_targets, strict=True)
    )
    policy_facts = list[ReportFact]()
    seed_facts = list[ReportFact]()
    funding_facts = list[ReportFact]()
    if simulation_result.policy_json:
        policy_facts.append(ReportFact("policy", simulation_result.policy_json))
    if "seed" not in parameter_texts:
        seed_facts.append(ReportFact("seed", str(simulation_result.seed)))
    if simulation_result.funding is not None:
        funding_facts.append(
            ReportFact("funding hash", simulation_result.funding.digest, "SHA-256")
        )
    return (
        ReportFact("targets at the start", targets_text),
        *policy_facts,
        *(
            ReportFact(name.replace("_", " "), parameter_text)
            for name, parameter_text in parameter_texts.items()
        ),
        *(
            ReportFact(
                f"flow, {format_day(flow.time_s)}",
                f"{format_money(flow.value, simulation_result.decimals)} {simulation_result.numeraire}",
            )
            for flow in flows
        ),
        *seed_facts,
        ReportFact("config hash", simulation_result.config_hash, "SHA-256"),
        ReportFact("data hash", simulation_result.data_hash, "SHA-256"),
        *funding_facts,
        *(ReportFact(name, version) for name, version in simulation_result.versions),
    )
