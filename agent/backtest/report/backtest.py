"""The backtest report: turnover, costs, rebalancing premium, tax and run log as sections of a
page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np

from agent.backtest.report import sections as report_sections
from agent.backtest.report.page import (
    NONE,
    ReportFact,
    ReportPage,
    ReportSection,
    ReportTable,
    Trace,
    bar_trace,
    format_date_range,
    format_day,
    format_duration,
    format_money,
    format_percent,
    format_ratio,
    pluralize,
    short_name,
    time_chart,
)
from agent.backtest.report.sections import BacktestAnalysis
from agent.backtest.report.series import DAY_S, drawdown_series, growth_series, risk_metrics
from agent.backtest.result import SimulationResult
from agent.backtest.settings import HealthRecord
from agent.units import YEAR_S, Value

KINDS = (("fees", "--c1"), ("impact", "--c2"), ("gas", "--c5"))
MOST_STEPS = 2_000
SHOWN = 0.00005
"""Smallest displayed value; smaller ones would print as zero."""
PERIODS = ((2 * DAY_S, "hour"), (100 * DAY_S, "day"), (4 * YEAR_S, "month"))


def costs_section(analysis: BacktestAnalysis) -> ReportSection:
    """Return costs by kind, cumulated over time, and their sums."""
    result = analysis.result
    scale, done = 10.0**result.decimals, result.rebalances
    if not done:
        return ReportSection("Costs", ("No trades, no costs.",))
    rows = np.unique(np.linspace(0, len(done) - 1, min(len(done), MOST_STEPS)).astype(np.int64))
    x = [
        int(result.times_s[0]) * 1_000,
        *(done[row].time_s * 1_000 for row in rows.tolist()),
        int(result.times_s[-1]) * 1_000,
    ]
    traces: list[Trace] = []
    for kind, colour in KINDS:
        paid = np.cumsum([float(getattr(record, kind)) / scale for record in done])
        y = [0.0, *(float(f"{paid[row]:.6g}") for row in rows), float(f"{paid[-1]:.6g}")]
        traces.append(_stacked(x, y, kind, colour))
    gas = "" if result.gas_counted else " Gas is not counted: it had no price."
    chart = time_chart(traces, result.numeraire) | {
        "title": f"Cumulative costs, in {result.numeraire}",
        "says": "Cumulative fees, impact and gas, stacked",
        "height": 280,
    }
    return ReportSection(
        "Costs",
        (
            (
                "Fees go to the pools, impact is the remaining loss against the reference price,"
                " gas includes approvals."
            ),
            f"Costs are valued at the prices of their block.{gas}",
        ),
        (chart,),
        (_cost_table(analysis),),
    )


def _stacked(x: list[int], y: list[float], name: str, colour: str) -> Trace:
    return {
        "type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "stackgroup": "costs", "yhoverformat": ",.2f",
        "line": {"color": f"var({colour})", "width": 1, "shape": "hv"}, "fillcolor": f"var({colour})/0.35",
    }  # fmt: skip


def _cost_table(analysis: BacktestAnalysis) -> ReportTable:
    result, years = analysis.result, max(analysis.growth.years, 1e-9)
    moved = sum((rebalance.turnover for rebalance in result.rebalances), Fraction(0))
    sums: tuple[tuple[str, Value], ...] = (
        ("fees", result.fees),
        ("impact", result.impact),
        ("gas", result.gas),
    )
    sums = (*sums, ("all", sum((value for _, value in sums), Fraction(0))))
    rows = []
    for name, value in sums:
        if name == "gas" and not result.gas_counted:
            rows.append((name, "not counted", NONE, NONE, NONE))
            continue
        share = float(value / result.start_value) if result.start_value else float("nan")
        bps = f"{float(value / moved) * 10_000:,.1f} bps" if moved else NONE
        rows.append(
            (
                name,
                format_money(value, result.decimals),
                format_percent(share, 2),
                format_percent(share / years, 2),
                bps,
            )
        )
    return ReportTable(
        ("kind", result.numeraire, "of the start value", "a year", "of turnover"), tuple(rows)
    )


def turnover_section(analysis: BacktestAnalysis) -> ReportSection:
    """Return the section on turnover by period."""
    result = analysis.result
    if not result.rebalances:
        return ReportSection("Turnover", ("No trades, no turnover.",))
    keys, width = _periods(result)
    moved, counts = np.zeros(len(keys)), np.zeros(len(keys), dtype=np.int64)
    scale = 10.0**result.decimals
    starts = np.array(keys)
    for rebalance in result.rebalances:
        row = int(np.searchsorted(starts, rebalance.time_s, side="right")) - 1
        moved[row] += float(rebalance.turnover) / scale / float(result.equity[rebalance.bar])
        counts[row] += rebalance.succeeded
    trace = bar_trace(
        [key * 1_000 for key in keys],
        [float(f"{turnover:.5g}") for turnover in moved],
        "turnover",
        "--c1",
        ".1%",
    )
    trace |= {
        "text": [pluralize(int(count), "rebalance") for count in counts],
        "hovertemplate": "%{y:.1%}, %{text}<extra></extra>",
    }
    trace |= {"textposition": "none"}
    chart = time_chart([trace], "", ".0%", showlegend=False, bargap=0.25) | {
        "title": f"Turnover of each {width}, as a share of the portfolio",
        "says": f"One bar for each {width}; the largest is {format_percent(float(moved.max()))}",
        "height": 220,
    }
    whole = float(result.turnover)
    words = (
        "Half of all purchases and sales over the portfolio's value.",
        (
            f"Total {format_percent(whole)},"
            f" {format_percent(whole / max(analysis.growth.years, 1e-9))} a year."
        ),
    )
    return ReportSection("Turnover", words, (chart,))


def _periods(result: SimulationResult) -> tuple[list[int], str]:
    """Return the starts of the UTC hours, days, months or years that cover the run, and the name of
    the period.
    """
    first, last = int(result.times_s[0]), int(result.times_s[-1])
    name = next((name for longest, name in PERIODS if last - first <= longest), "year")
    if name in ("hour", "day"):
        step = 3_600 if name == "hour" else DAY_S
        return list(range(first // step * step, last + 1, step)), name
    at = datetime.fromtimestamp(first, UTC)
    at = datetime(at.year, at.month if name == "month" else 1, 1, tzinfo=UTC)
    periods = []
    while at.timestamp() <= last:
        periods.append(int(at.timestamp()))
        months = at.month if name == "month" else 12
        at = datetime(at.year + months // 12, months % 12 + 1, 1, tzinfo=UTC)
    return periods, name


def premium_section(analysis: BacktestAnalysis) -> ReportSection | None:
    """Return the parts of the excess return against buy and hold."""
    premium = analysis.result.premium
    if premium is None or not any(rebalance.succeeded for rebalance in analysis.result.rebalances):
        return None
    ahead = math.log(float(analysis.growth.index[-1] / analysis.growth.hold_index[-1]))
    rest = ahead - premium.advantage
    outside = [_outside_part(analysis.result, rest)] if abs(rest) >= SHOWN else []
    parts: tuple[tuple[str, float, str], ...] = (
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
        *outside,
        ("excess return", ahead, "sum of the parts above"),
    )
    names, values = (
        [name for name, _, _ in parts][::-1],
        [float(f"{value:.6g}") for _, value, _ in parts][::-1],
    )
    colours = ["var(--ink)", *("var(--c1)" if value >= 0 else "var(--c2)" for value in values[1:])]
    trace = {
        "type": "bar", "orientation": "h", "x": values, "y": names, "name": "growth", "xhoverformat": "+.2%",
        "marker": {"color": colours},
        "text": [format_percent(value, 2, signed=True) for value in values],
        "textposition": "auto", "hoverinfo": "skip", "cliponaxis": False,
    }  # fmt: skip
    chart = {
        "data": [trace],
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
    words = (
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
    rows = tuple((name, format_percent(value, 2, signed=True), says) for name, value, says in parts)
    return ReportSection(
        "Return attribution",
        words,
        (chart,),
        (ReportTable(("part", "log growth", "meaning"), rows),),
    )


def _outside_part(result: SimulationResult, rest: float) -> tuple[str, float, str]:
    """Return the part of the excess return outside the premium: gas, and transfers, which change
    the weights of buy and hold.
    """
    gas = "gas money is held outside the portfolio and earns none of its returns"
    flows = "deposits and withdrawals changed the weights of buy and hold"
    if not result.flows:
        return "gas money", rest, gas
    if not result.gas:
        return "flows", rest, flows
    return "flows and gas money", rest, f"{flows}; {gas}"


def taxes_section(analysis: BacktestAnalysis) -> ReportSection | None:
    """Return the section on realised gains of each calendar year."""
    result = analysis.result
    if not result.taxes:
        return None
    rows = tuple(
        (str(gain.year), format_money(gain.realised, result.decimals)) for gain in result.taxes
    )
    total = sum((tax.realised for tax in result.taxes), Fraction(0))
    words = (
        (
            f"Realised gains less losses of each calendar year (UTC), by {result.lots}, in"
            f" {result.numeraire}, before tax rates. This is arithmetic, not advice."
        ),
    )
    table = ReportTable(
        ("year", f"realised ({result.numeraire})"),
        (*rows, ("all", format_money(total, result.decimals))),
    )
    tables = [table]
    if result.futures_taxes:
        tables.append(
            ReportTable(
                ("year", f"futures, less funding ({result.numeraire})"),
                tuple(
                    (str(futures_tax.year), format_money(futures_tax.realised, result.decimals))
                    for futures_tax in result.futures_taxes
                ),
                "Apart from the gains above and from year_limit",
            )
        )
    return ReportSection("Taxable gains", words, (), tuple(tables))


def run_log_section(analysis: BacktestAnalysis) -> ReportSection:
    """Return the section on bars evaluated, and reasons why the agent did not act."""
    result = analysis.result
    words = [
        f"{pluralize(result.bars, 'bar')}, {result.evaluated:,} of them evaluated by a full step;"
        " no trigger could fire at the others."
    ]
    if result.halted:
        words.append(
            f"{pluralize(result.halted, 'bar')} without a decision: stale or contradictory data."
        )
    else:
        words.append("Every bar had a decision.")
    failed = sum(not rebalance.succeeded for rebalance in result.rebalances)
    if failed:
        words.append(f"{pluralize(failed, 'swap')} reverted and only paid gas.")
    tables = [
        _counts("Plans refused, by reason", result.refused),
        _counts("Held although a trade was due, by setting", result.kept),
    ]
    notes = tuple((note,) for note in result.notes)
    if notes:
        tables.append(ReportTable(("about the data",), notes, "Notes"))
    return ReportSection(
        "Run log", tuple(words), (), tuple(table for table in tables if table is not None)
    )


def _counts(title: str, counts: Sequence[tuple[str, int]]) -> ReportTable | None:
    if not counts:
        return None
    return ReportTable(
        ("reason", "bars"),
        tuple(
            (why, f"{times:,}") for why, times in sorted(counts, key=lambda one: (-one[1], one[0]))
        ),
        title,
    )


def health_section(result: SimulationResult) -> ReportSection | None:
    """Return the health of strategies at the end, and each pause and return; None without
    strategies.
    """
    if not result.strategies:
        return None

    def ratio(record: HealthRecord) -> str:
        return NONE if record.sharpe_milli is None else format_ratio(record.sharpe_milli / 1_000)

    ends = tuple(
        (strategy.name, strategy.health, ratio(strategy)) for strategy in result.strategies
    )
    changes = tuple(
        (record.name, format_day(record.time_s), record.health, record.reason)
        for record in result.health
    )
    tables = [ReportTable(("strategy", "at the end", "Sharpe ratio"), ends)]
    if changes:
        tables.append(ReportTable(("strategy", "since", "health", "why"), changes))
    words = "A strategy whose Sharpe ratio stays below its limit is paused, as live."
    return ReportSection("Health of strategies", (words,), (), tuple(tables))


def total_costs(result: SimulationResult) -> Value:
    """Return fees, impact and gas, numeraire base units."""
    return result.fees + result.impact + result.gas


NO_DIFFERENCE = 0.0005
"""Smallest excess return that is reported as a difference."""
MOST_FLOWS = 24
MOST_NAMES = 6
OMITTED_VALUES = ("", "None", "()", "False")
NORMAL_95 = 1.96
FEWEST_FOR_INTERVAL = 60


def backtest_page(result: SimulationResult) -> ReportPage:
    """Build the page. Raises Refused if empyrical is not installed."""
    grown = growth_series(result)
    analysis = BacktestAnalysis(result, grown, risk_metrics(grown))
    sections = (
        report_sections.value_section(analysis),
        premium_section(analysis),
        report_sections.weights_section(analysis),
        report_sections.drawdown_section(analysis),
        report_sections.trades_section(analysis),
        turnover_section(analysis),
        costs_section(analysis),
        report_sections.funding_section(analysis),
        report_sections.risk_section(analysis),
        taxes_section(analysis),
        health_section(result),
        run_log_section(analysis),
    )
    return ReportPage(
        title=_names(result),
        kind=f"Backtest, {format_date_range(int(result.times_s[0]), int(result.times_s[-1]))}",
        facts=_facts(analysis),
        sections=tuple(section for section in sections if section is not None),
        summary=_summary(analysis),
        origin=_origin(result),
    )


def _names(result: SimulationResult) -> str:
    first = [short_name(symbol) for symbol in result.symbols[:MOST_NAMES]]
    if (left := len(result.symbols) - MOST_NAMES) > 0:
        return f"{', '.join(first)} and {left} more"
    return " and ".join(", ".join(first).rsplit(", ", 1))


def excess_return(analysis: BacktestAnalysis) -> float:
    """Return the growth of the rebalanced portfolio relative to buy and hold, minus one, without
    transfers.
    """
    return float(analysis.growth.index[-1] / analysis.growth.hold_index[-1]) - 1


def _summary(analysis: BacktestAnalysis) -> tuple[str, ...]:
    result, unit, ahead = analysis.result, analysis.result.numeraire, excess_return(analysis)
    done = sum(rebalance.succeeded for rebalance in result.rebalances)
    end, hold = (
        f"{format_money(value, result.decimals)} {unit}"
        for value in (result.final_value, result.hold_value)
    )
    if not done:
        reason = "no trigger fired"
        if result.refused or result.halted or result.kept:
            reason = "the reasons are listed below"
        first = (
            f"In {_span(result)} it never rebalanced: {reason}. It ended at {end}, buy and hold at"
            f" {hold}."
        )
    elif not math.isfinite(ahead):
        first = f"It ended at {end}; the result of buy and hold is unknown."
    elif abs(ahead) < NO_DIFFERENCE:
        first = f"Rebalancing made no difference here: it ended at {end}, buy and hold at {hold}."
    elif ahead > 0:
        first = (
            f"Rebalancing ended {format_percent(ahead, _places(ahead))} above buy and hold: at"
            f" {end} against {hold}, net of all costs."
        )
    else:
        first = (
            f"Rebalancing did not pay here: it ended at {end},"
            f" {format_percent(-ahead, _places(ahead))} below buy and hold, which ended at {hold}."
        )
    lines = [first]
    if done:
        gas = "" if result.gas_counted else ", gas not counted"
        lines.append(
            f"In {_span(result)} it traded {pluralize(done, 'time')}, with a turnover of"
            f" {format_ratio(float(result.turnover))} portfolios and costs of"
            f" {format_money(total_costs(result), result.decimals)} {unit}{gas}. Its maximum"
            f" drawdown was {format_percent(-_max_drawdown(analysis))}, that of buy and hold"
            f" {format_percent(-_max_drawdown(analysis, of_holding=True))}."
        )
    if result.flows:
        lines.append("Both include deposits and withdrawals; the excess return is time-weighted.")
    if done:
        lines.append(_chance(analysis))
    return tuple(lines)


def _places(ahead: float) -> int:
    return 1 if abs(ahead) >= 0.01 else 2


def _span(result: SimulationResult) -> str:
    return format_duration(float(result.times_s[-1] - result.times_s[0]))


def _chance(analysis: BacktestAnalysis) -> str:
    """Describe the 95 % interval of the mean yearly difference to buy and hold (normal
    distribution, independent samples).
    """
    edge, error = analysis.risk.edge, analysis.risk.edge_error
    if len(analysis.growth.returns) < FEWEST_FOR_INTERVAL or not (
        math.isfinite(edge) and error > 0
    ):
        return "This is one short history; it does not predict the future."
    low, high = (
        format_percent(edge + sign * NORMAL_95 * error, 1, signed=True) for sign in (-1, 1)
    )
    judged = "more than chance alone would explain, in this one history"
    if abs(edge) <= NORMAL_95 * error:
        judged = "chance alone could explain it"
    pace = "faster" if edge > 0 else "slower"
    return (
        f"Per year it grew {format_percent(abs(edge), 2)} {pace} than buy and hold. The 95% interval"
        f" of that mean is {low} to {high}: {judged}. It assumes independent days and does"
        " not predict the future."
    )


def _max_drawdown(analysis: BacktestAnalysis, of_holding: bool = False) -> float:
    index = analysis.growth.hold_index if of_holding else analysis.growth.index
    return float(drawdown_series(index).min())


def _facts(analysis: BacktestAnalysis) -> tuple[ReportFact, ...]:
    result, ahead = analysis.result, excess_return(analysis)
    done, spent = sum(rebalance.succeeded for rebalance in result.rebalances), total_costs(result)
    grown = float(analysis.growth.index[-1]) - 1
    share = float(spent / result.start_value) if result.start_value else math.nan
    cost = NONE
    if spent:
        cost = f"of the start: {format_money(spent, result.decimals)} {result.numeraire}"
        if not result.gas_counted:
            cost += ", without gas"
    started = (
        f"{format_percent(grown, signed=True)} from"
        f" {format_money(result.start_value, result.decimals)}"
    )
    return (
        ReportFact(
            f"Final value, {result.numeraire}",
            format_money(result.final_value, result.decimals),
            started,
        ),
        ReportFact(
            "Excess return",
            format_percent(ahead, 2, signed=True),
            f"held: {format_money(result.hold_value, result.decimals)}",
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
            "Rebalances", f"{done:,}", f"{format_ratio(float(result.turnover))} times the portfolio"
        ),
        ReportFact(
            "Costs",
            format_percent(share, 2),
            cost,
        ),
    )


def _origin(result: SimulationResult) -> tuple[ReportFact, ...]:
    parameters = {name: value for name, value in result.parameters if value not in OMITTED_VALUES}
    # longer lists are shown by their hash
    flows = result.flows if len(result.flows) <= MOST_FLOWS else ()
    if flows:
        parameters.pop("flows", None)
    first = result.targets[0] if len(result.targets) else result.weights[0]
    targets = ", ".join(
        f"{symbol} {format_percent(float(share), 2)}"
        for symbol, share in zip(result.symbols, first, strict=True)
    )
    policy, seed, funding = list[ReportFact](), list[ReportFact](), list[ReportFact]()
    if result.policy:
        policy.append(ReportFact("policy", result.policy))
    if "seed" not in parameters:
        seed.append(ReportFact("seed", str(result.seed)))
    if result.funding is not None:
        funding.append(ReportFact("funding hash", result.funding.digest, "SHA-256"))
    return (
        ReportFact("targets at the start", targets),
        *policy,
        *(ReportFact(name.replace("_", " "), value) for name, value in parameters.items()),
        *(
            ReportFact(
                f"flow, {format_day(flow.time_s)}",
                f"{format_money(flow.value, result.decimals)} {result.numeraire}",
            )
            for flow in flows
        ),
        *seed,
        ReportFact("config hash", result.config_hash, "SHA-256"),
        ReportFact("data hash", result.data_hash, "SHA-256"),
        *funding,
        *(ReportFact(name, version) for name, version in result.versions),
    )
