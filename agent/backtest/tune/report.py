"""The report of a search: JSON document, verdict, heat map, walk-forward, confidence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.backtest.report.page import Figure, ReportFact, ReportPage, ReportSection, ReportTable
from agent.backtest.tune.grid import PolicyChoice
from agent.backtest.tune.search import TuneResult
from agent.backtest.tune.statistics import (
    DRAWS,
    LEVEL,
    ConfidenceInterval,
    ExcessGrowth,
    HeatMap,
    Objective,
    format_signed_percent,
)
from agent.units import YEAR_S

Document = dict[str, Any]
SHOWN = 20
"""Number of settings in the document, best first; the files of --out have all."""


def document(tuned: TuneResult) -> Document:
    """Return the document of a search."""
    search, stable = tuned.search, tuned.stability
    order = np.argsort(-tuned.score, kind="stable")[:SHOWN]
    near, risk, sure = tuned.neighbours, tuned.overfitting, tuned.deflated
    return {
        "recommendation": _choice(tuned.choices[tuned.best]) if tuned.verdict.recommended else None,
        "verdict": list(tuned.verdict.words),
        "safe_default": tuned.verdict.safe_default,
        "best": _setting(tuned, tuned.best),
        "settings": len(tuned.choices),
        "engines": dict(tuned.engines),
        "resumed": tuned.resumed,
        "objective": search.objective.value,
        "numeraire": search.backtest.portfolio.numeraire.symbol,
        "bars": search.table.bars,
        "from": int(search.table.times_s[0]),
        "last_quarter_from": tuned.last_from_s,
        "until": int(search.table.times_s[-1]),
        "period_s": round(tuned.period_s),
        "calendar": _choice(search.calendar),
        "last_quarter": {
            "claims": [_claim(claim) for claim in tuned.claims],
            "final_value": _number(tuned.last[0].final_value),
            "calendar_value": _number(tuned.last[1].final_value),
            "hold_value": _number(tuned.hold_final),
            "settings_judged": tuned.looks,
            "costs": _number(tuned.last[0].costs),
            "rebalances": tuned.last[0].rebalances,
        },
        "walk_forward": {
            "walk": search.walk.value,
            "folds": [
                {
                    "chosen": tuned.choices[fold_result.choice].label,
                    "inside": _number(fold_result.inside),
                    "outside": _number(fold_result.outside),
                    "over_hold": _number(yearly_mean(tuned, over_hold)),
                    "over_calendar": _number(yearly_mean(tuned, over_calendar)),
                    "periods": fold_result.fold.judged_to - fold_result.fold.judged_from,
                }
                for fold_result, over_hold, over_calendar in tuned.walk
            ],
            "claims": [_claim(growth) for growth in tuned.walk_claims],
        },
        "deflated_sharpe": None
        if sure is None
        else {
            "sharpe": _number(sure.sharpe),
            "threshold": _number(sure.threshold),
            "trials": sure.trials,
            "probability": _number(sure.probability),
        },
        "overfitting": None
        if risk is None
        else {"probability": _number(risk.probability), "ways": risk.ways, "blocks": risk.blocks},
        "stability": {
            "down": stable.down.name,
            "across": stable.across.name,
            "rows": list(stable.down.labels),
            "columns": list(stable.across.labels),
            "values": [[None if np.isnan(value) else _number(value) for value in row] for row in stable.values.tolist()],
            "best": list(stable.best),
            "neighbours": None
            if near is None
            else {
                "count": near.count,
                "mean_fall": _number(near.mean_decline),
                "largest_fall": _number(near.largest_decline),
                "spread": _number(near.spread),
            },
        },
        "ranked": [_setting(tuned, int(number)) for number in order],
        "notes": list(search.table.notes),
        "grid_hash": tuned.stamp["grid"],
        "config_hash": tuned.stamp["settings"],
        "data_hash": tuned.stamp["data"],
        "seed": search.settings.seed,
        "version": tuned.stamp["version"],
    }  # fmt: skip


def yearly_mean(tuned: TuneResult, returns: NDArray[np.float64]) -> float:
    """Return the annualised mean log return per period."""
    return float(returns.mean()) * YEAR_S / tuned.period_s


def _number(value: float) -> str:
    return f"{value:.6f}"


def _choice(choice: PolicyChoice) -> Document:
    band = choice.band
    return {
        "label": choice.label,
        "options": choice.options,
        "band_relative_bps": None if band is None else band.relative_bps,
        "band_absolute_bps": None if band is None else band.absolute_bps,
        "every_s": choice.every_s,
        "destination": choice.destination.value,
        "allocator": choice.allocator.value,
    }


def _setting(tuned: TuneResult, number: int) -> Document:
    run_result = tuned.results[number]
    return {
        **_choice(tuned.choices[number]),
        "objective": _number(float(tuned.score[number])),
        "over_hold": _number(float(tuned.excess[number])),
        "final_value": _number(run_result.final_value),
        "turnover": _number(run_result.turnover),
        "costs": _number(run_result.costs),
        "rebalances": run_result.rebalances,
    }


def _claim(claim: ExcessGrowth) -> Document:
    interval: ConfidenceInterval | None = claim.interval
    if interval is None:
        return {
            "over": claim.rival,
            "mean": None,
            "low": None,
            "high": None,
            "level": str(LEVEL),
            "periods": None,
            "block": None,
        }
    return {
        "over": claim.rival,
        "mean": _number(interval.mean),
        "low": _number(interval.low),
        "high": _number(interval.high),
        "level": str(LEVEL),
        "periods": interval.periods,
        "block": f"{interval.block:.2f}",
    }


LISTED = 20
CELL_PX, LARGEST_PX, SMALLEST_PX = 560, 34, 8
SCALE = ((0.0, "#7a3b69"), (0.5, "#d9d4cf"), (1.0, "#1f6f6b"))


def tune_page(tuned: TuneResult) -> ReportPage:
    """Build the whole report."""
    stamp, search = tuned.stamp, tuned.search
    verdict = "recommended" if tuned.verdict.recommended else "no edge"
    facts = [
        ReportFact("Verdict", verdict, tuned.choices[tuned.best].label),
        *(_claim_fact(claim) for claim in tuned.claims),
        ReportFact(
            "Settings tried",
            f"{len(tuned.choices):,}",
            ", ".join(f"{count} {name}" for name, count in tuned.engines),
        ),
    ]
    if tuned.overfitting is not None:
        ways = f"{tuned.overfitting.ways:,} ways to halve the data"
        facts.append(
            ReportFact("Chance of over-fitting", f"{tuned.overfitting.probability:.0%}", ways)
        )
    if tuned.deflated is not None:
        facts.append(
            ReportFact(
                "Deflated Sharpe ratio",
                f"{tuned.deflated.probability:.1%}",
                f"best of {tuned.deflated.trials} trials",
            )
        )
    origin = (
        ReportFact("version", stamp["version"]),
        ReportFact("grid", stamp["grid"]),
        ReportFact("config", stamp["settings"]),
        ReportFact("data", stamp["data"]),
        ReportFact("seed", str(search.settings.seed)),
        ReportFact("objective", search.objective.value),
        ReportFact("calendar rule", search.calendar.label),
        ReportFact("walk-forward", f"{search.walk.value}, {search.folds} folds"),
    )
    return ReportPage(
        "Search for a setting",
        tuple(facts),
        tune_sections(tuned),
        tuned.verdict.words,
        origin,
        kind="Tune",
    )


def tune_sections(tuned: TuneResult) -> tuple[ReportSection, ...]:
    """Return the sections on the holdout, the best settings, the neighbourhood of the best one,
    walk-forward, and confidence.
    """
    return _last(tuned), _ranked(tuned), _stability(tuned), _walk(tuned), _confidence_section(tuned)


def _claim_fact(claim: ExcessGrowth) -> ReportFact:
    interval = claim.interval
    rival = claim.rival.partition(" (")[0]
    if interval is None:
        return ReportFact(f"Over {rival}, last quarter", "–", "too few periods")
    return ReportFact(
        f"Over {rival}, last quarter",
        f"{format_signed_percent(interval.mean)} a year",
        f"{format_signed_percent(interval.low)} to {format_signed_percent(interval.high)}",
    )


def _shown(tuned: TuneResult, value: float) -> str:
    if tuned.search.objective is Objective.GROWTH:
        return format_signed_percent(value)
    return f"{value:.3f}"


def _last(tuned: TuneResult) -> ReportSection:
    times = [time_s * 1000 for time_s in tuned.last_times_s.tolist()]
    paths = (
        (tuned.choices[tuned.best].label, tuned.last[0].values),
        (f"calendar, {tuned.search.calendar.label}", tuned.last[1].values),
        ("hold", tuned.last_hold),
    )
    figure = {
        "title": "Growth in the last quarter",
        "says": "Growth of each portfolio in the last quarter of the data, from the same first bar.",
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "x": times,
                "y": values / values[0] - 1,
                "name": name,
            }
            for name, values in paths
        ],
        "layout": {"xaxis": {"type": "date"}, "yaxis": {"tickformat": ".0%"}},
    }
    return ReportSection(
        "The last quarter",
        ("The search did not use this quarter. All claims refer to it.",),
        (figure,),
    )


def _ranked(tuned: TuneResult) -> ReportSection:
    order = np.argsort(-tuned.score, kind="stable")[:LISTED]
    rows = tuple(
        (
            tuned.choices[i].label,
            _shown(tuned, float(tuned.score[i])),
            format_signed_percent(float(tuned.excess[i])),
            f"{tuned.results[i].turnover:.2f}",
            f"{tuned.results[i].costs:.2f}",
            str(tuned.results[i].rebalances),
        )
        for i in order
    )
    header = (
        "setting",
        f"{tuned.search.objective.value} a year",
        "excess over holding, per year",
        "turnover",
        "costs",
        "rebalances",
    )
    words = (
        (
            "Results on the first three quarters of the data, on which the setting was chosen; the"
            " best of many is overstated."
        ),
    )
    return ReportSection(
        "Settings tried",
        words,
        (),
        (ReportTable(header, rows, f"The best {len(rows)} of {len(tuned.choices):,}"),),
    )


def _stability(tuned: TuneResult) -> ReportSection:
    heat_map, near = tuned.stability, tuned.neighbours
    words = []
    if near is not None:
        words.append(
            f"One grid step from the best, over {near.count} settings, the objective falls by"
            f" {_fall(tuned, near.mean_decline)} on average and by"
            f" {_fall(tuned, near.largest_decline)} at most; from the best to the median of all"
            f" settings it falls by {_fall(tuned, near.spread)}."
        )
    words.append("Other parameters are those of the best setting, which is ringed.")
    return ReportSection(
        "Stability of the optimum", tuple(words), (heat_figure(heat_map, tuned.search.objective),)
    )


def _fall(tuned: TuneResult, value: float) -> str:
    if tuned.search.objective is Objective.GROWTH:
        return f"{value * 100:.2f} points a year"
    return f"{value:.3f}"


def heat_figure(heat_map: HeatMap, objective: Objective) -> Figure:
    """Draw a heat map as coloured squares; Plotly's basic bundle lacks heat maps."""
    down, across = np.nonzero(~np.isnan(heat_map.values))
    values = heat_map.values[down, across]
    axis_format, hover_format = ".2f", ".3f"
    if objective is Objective.GROWTH:
        axis_format, hover_format = "+.1%", "+.2%"
    size = max(SMALLEST_PX, min(LARGEST_PX, CELL_PX // max(len(heat_map.across.labels), 1)))
    named = [
        f"{heat_map.down.labels[i]}, {heat_map.across.labels[j]}"
        for i, j in zip(down, across, strict=True)
    ]
    marker: dict[str, Any] = {
        "symbol": "square",
        "size": size,
        "color": values,
        "colorscale": [list(stop) for stop in SCALE],
        "showscale": True,
        "colorbar": {
            "tickformat": axis_format,
            "title": {"text": f"{objective.value} a year"},
        },
    }
    squares = {
        "type": "scatter",
        "mode": "markers",
        "x": [heat_map.across.labels[j] for j in across],
        "y": [heat_map.down.labels[i] for i in down],
        "text": named,
        "marker": marker,
        "showlegend": False,
        "hovertemplate": f"%{{text}}<br>%{{marker.color:{hover_format}}}<extra></extra>",
    }
    ring = {
        "type": "scatter",
        "mode": "markers",
        "x": [heat_map.across.labels[heat_map.best[1]]],
        "y": [heat_map.down.labels[heat_map.best[0]]],
        "marker": {
            "symbol": "square-open",
            "size": size + 4,
            "color": "var(--ink)",
            "line": {"width": 2},
        },
        "showlegend": False,
        "hoverinfo": "skip",
    }
    axes = (("xaxis", heat_map.across), ("yaxis", heat_map.down))
    return {
        "title": f"{objective.value.capitalize()} by {heat_map.down.name} and {heat_map.across.name}",
        "says": (
            f"The objective for each {heat_map.down.name} and {heat_map.across.name}; the best setting is"
            " ringed."
        ),
        "height": max(320, 60 + (size + 6) * len(heat_map.down.labels)),
        "data": [squares, ring],
        "layout": {
            name: {
                "type": "category",
                "categoryorder": "array",
                "categoryarray": list(axis.labels),
                "title": {"text": axis.name},
            }
            for name, axis in axes
        },
    }


def _walk(tuned: TuneResult) -> ReportSection:
    if not tuned.walk:
        return ReportSection("Walk-forward", ("The data are too short for the folds.",))
    begins, step, rows = int(tuned.search.table.times_s[0]) * 1000, round(tuned.period_s) * 1000, []
    times: list[int] = []
    for fold_result, over_hold, over_calendar in tuned.walk:
        first, last = fold_result.fold.judged_from, fold_result.fold.judged_to
        excesses = (
            format_signed_percent(yearly_mean(tuned, excess))
            for excess in (over_hold, over_calendar)
        )
        rows.append(
            (tuned.choices[fold_result.choice].label, _shown_date(begins + first * step), *excesses)
        )
        times += [begins + (period + 1) * step for period in range(first, last)]
    figure = {
        "title": "Excess log growth, out of sample",
        "says": (
            "Cumulative excess log returns of each fold's choice, in the periods after those used"
            " to choose it."
        ),
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "x": times,
                "y": np.cumsum(np.concatenate(parts)),
                "name": name,
            }
            for name, parts in (
                ("over hold", [fold[1] for fold in tuned.walk]),
                ("over the calendar rule", [fold[2] for fold in tuned.walk]),
            )
        ],
        "layout": {"xaxis": {"type": "date"}, "yaxis": {"tickformat": ".1%"}},
    }
    words = (
        "In each fold, the best setting of the past is evaluated on the periods that follow.",
        *(f"All folds together {claim.words}." for claim in tuned.walk_claims),
    )
    header = (
        "chosen",
        "evaluated from",
        "excess over holding, per year",
        "excess over the calendar rule, per year",
    )
    return ReportSection("Walk-forward", words, (figure,), (ReportTable(header, tuple(rows)),))


def _shown_date(milliseconds: int) -> str:
    return str(np.datetime64(milliseconds // 1000, "s").astype("datetime64[D]"))


def _confidence_section(tuned: TuneResult) -> ReportSection:
    words = [
        "Intervals are of the mean excess log return per period of"
        f" {tuned.period_s / 3600:.0f} h, by {DRAWS:,} resamples of the stationary bootstrap"
        " (Politis & Romano 1994), widened for short series as docs/tune.md says. They apply"
        " to this market only."
    ]
    if tuned.deflated is not None:
        sharpe = tuned.deflated
        words.append(
            f"The Sharpe ratio of the excess over hold is {sharpe.sharpe:.4f} per period in the data"
            f" used to choose it; the best of {sharpe.trials} trials without skill would have an expected"
            f" {sharpe.threshold:.4f}. The true ratio is above that with probability"
            f" {sharpe.probability:.1%} (deflated Sharpe ratio, Bailey & López de Prado 2014)."
        )
    if tuned.overfitting is not None:
        risk = tuned.overfitting
        words.append(
            f"In {risk.probability:.0%} of {risk.ways:,} ways to halve the data, the best of one"
            " half was below the median in the other (probability of backtest over-fitting,"
            " Bailey, Borwein, López de Prado & Zhu 2017)."
        )
    return ReportSection("Confidence", tuple(words))
