"""The report of a search: JSON document, verdict, heat map, walk-forward, confidence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.backtest.report.page import Figure, ReportFact, ReportPage, ReportSection, ReportTable
from agent.backtest.tune.grid import PolicyChoice
from agent.backtest.tune.search import TuneResult
from agent.backtest.tune.statistics import (
    CONFIDENCE_LEVEL,
    RESAMPLE_COUNT,
    ConfidenceInterval,
    ExcessGrowth,
    HeatMap,
    Objective,
    format_signed_percent,
)
from agent.units import YEAR_S

Document = dict[str, Any]
RANKED_IN_DOCUMENT = 20
"""Number of settings in the document, best first; the files of --out have all."""


def tune_document(tuned: TuneResult) -> Document:
    """Return the document of a search."""
    search, heat_map = tuned.search, tuned.heat_map
    order = np.argsort(-tuned.scores, kind="stable")[:RANKED_IN_DOCUMENT]
    neighbours, overfitting, deflated = tuned.neighbours, tuned.overfitting, tuned.deflated
    return {
        "recommendation": _choice_document(tuned.choices[tuned.best]) if tuned.verdict.recommended else None,
        "verdict": list(tuned.verdict.sentences),
        "safe_default": tuned.verdict.safe_default,
        "best": _ranked_document(tuned, tuned.best),
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
        "calendar": _choice_document(search.calendar),
        "last_quarter": {
            "excess_intervals": [_excess_document(claim) for claim in tuned.claims],
            "final_value": _format_number(tuned.last_results[0].final_value),
            "calendar_value": _format_number(tuned.last_results[1].final_value),
            "hold_value": _format_number(tuned.last_hold_value),
            "settings_judged": tuned.settings_judged,
            "costs": _format_number(tuned.last_results[0].costs),
            "rebalances": tuned.last_results[0].rebalances,
        },
        "walk_forward": {
            "window_mode": search.walk.value,
            "folds": [
                {
                    "chosen": tuned.choices[fold_result.choice].label,
                    "in_sample": _format_number(fold_result.in_sample),
                    "out_of_sample": _format_number(fold_result.out_of_sample),
                    "over_hold": _format_number(yearly_mean(tuned, over_hold)),
                    "over_calendar": _format_number(yearly_mean(tuned, over_calendar)),
                    "periods": fold_result.fold.judged_to - fold_result.fold.judged_from,
                }
                for fold_result, over_hold, over_calendar in tuned.fold_results
            ],
            "excess_intervals": [_excess_document(growth) for growth in tuned.fold_claims],
        },
        "deflated_sharpe": None
        if deflated is None
        else {
            "sharpe": _format_number(deflated.sharpe),
            "threshold": _format_number(deflated.threshold),
            "trials": deflated.trials,
            "probability": _format_number(deflated.probability),
        },
        "overfitting": None
        if overfitting is None
        else {"probability": _format_number(overfitting.probability), "ways": overfitting.ways, "blocks": overfitting.blocks},
        "stability": {
            "row_name": heat_map.down.name,
            "column_name": heat_map.across.name,
            "rows": list(heat_map.down.labels),
            "columns": list(heat_map.across.labels),
            "values": [[None if np.isnan(value) else _format_number(value) for value in row] for row in heat_map.values.tolist()],
            "best": list(heat_map.best),
            "neighbours": None
            if neighbours is None
            else {
                "count": neighbours.count,
                "mean_fall": _format_number(neighbours.mean_decline),
                "largest_fall": _format_number(neighbours.largest_decline),
                "fall_to_median": _format_number(neighbours.median_decline),
            },
        },
        "ranked": [_ranked_document(tuned, int(choice_index)) for choice_index in order],
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


def _format_number(value: float) -> str:
    return f"{value:.6f}"


def _choice_document(choice: PolicyChoice) -> Document:
    band = choice.band
    return {
        "label": choice.label,
        "backtest_options": choice.options,
        "band_relative_bps": None if band is None else band.relative_bps,
        "band_absolute_bps": None if band is None else band.absolute_bps,
        "every_s": choice.every_s,
        "destination": choice.destination.value,
        "allocator": choice.allocator.value,
    }


def _ranked_document(tuned: TuneResult, choice_index: int) -> Document:
    run_result = tuned.results[choice_index]
    return {
        **_choice_document(tuned.choices[choice_index]),
        "objective": _format_number(float(tuned.scores[choice_index])),
        "over_hold": _format_number(float(tuned.excess[choice_index])),
        "final_value": _format_number(run_result.final_value),
        "turnover": _format_number(run_result.turnover),
        "costs": _format_number(run_result.costs),
        "rebalances": run_result.rebalances,
    }


def _excess_document(excess: ExcessGrowth) -> Document:
    interval: ConfidenceInterval | None = excess.interval
    if interval is None:
        return {
            "over": excess.rival,
            "mean": None,
            "low": None,
            "high": None,
            "level": str(CONFIDENCE_LEVEL),
            "periods": None,
            "bootstrap_block_length": None,
        }
    return {
        "over": excess.rival,
        "mean": _format_number(interval.mean),
        "low": _format_number(interval.low),
        "high": _format_number(interval.high),
        "level": str(CONFIDENCE_LEVEL),
        "periods": interval.periods,
        "bootstrap_block_length": f"{interval.block:.2f}",
    }


RANKED_ON_PAGE = 20
MAP_PX, MAX_CELL_PX, MIN_CELL_PX = 560, 34, 8
COLOUR_SCALE = ((0.0, "#7a3b69"), (0.5, "#d9d4cf"), (1.0, "#1f6f6b"))


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
        ways_text = f"{tuned.overfitting.ways:,} ways to halve the data"
        facts.append(
            ReportFact("Chance of over-fitting", f"{tuned.overfitting.probability:.0%}", ways_text)
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
        tuned.verdict.sentences,
        origin,
        kind="Tune",
    )


def tune_sections(tuned: TuneResult) -> tuple[ReportSection, ...]:
    """Return the sections on the holdout, the best settings, the neighbourhood of the best one,
    walk-forward, and confidence.
    """
    return (
        _last_quarter_section(tuned),
        _ranking_section(tuned),
        _stability_section(tuned),
        _walk_section(tuned),
        _confidence_section(tuned),
    )


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


def _format_objective(tuned: TuneResult, value: float) -> str:
    if tuned.search.objective is Objective.GROWTH:
        return format_signed_percent(value)
    return f"{value:.3f}"


def _last_quarter_section(tuned: TuneResult) -> ReportSection:
    times_ms = [time_s * 1000 for time_s in tuned.last_times_s.tolist()]
    values_by_name = (
        (tuned.choices[tuned.best].label, tuned.last_results[0].values),
        (f"calendar, {tuned.search.calendar.label}", tuned.last_results[1].values),
        ("hold", tuned.last_hold_path),
    )
    figure = {
        "title": "Growth in the last quarter",
        "says": "Growth of each portfolio in the last quarter of the data, from the same first bar.",
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "x": times_ms,
                "y": values / values[0] - 1,
                "name": name,
            }
            for name, values in values_by_name
        ],
        "layout": {"xaxis": {"type": "date"}, "yaxis": {"tickformat": ".0%"}},
    }
    return ReportSection(
        "The last quarter",
        ("The search did not use this quarter. All claims refer to it.",),
        (figure,),
    )


def _ranking_section(tuned: TuneResult) -> ReportSection:
    order = np.argsort(-tuned.scores, kind="stable")[:RANKED_ON_PAGE]
    rows = tuple(
        (
            tuned.choices[i].label,
            _format_objective(tuned, float(tuned.scores[i])),
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
    paragraphs = (
        (
            "Results on the first three quarters of the data, on which the setting was chosen; the"
            " best of many is overstated."
        ),
    )
    return ReportSection(
        "Settings tried",
        paragraphs,
        (),
        (ReportTable(header, rows, f"The best {len(rows)} of {len(tuned.choices):,}"),),
    )


def _stability_section(tuned: TuneResult) -> ReportSection:
    heat_map, neighbours = tuned.heat_map, tuned.neighbours
    paragraphs = []
    if neighbours is not None:
        paragraphs.append(
            f"One grid step from the best, over {neighbours.count} settings, the objective falls by"
            f" {_format_decline(tuned, neighbours.mean_decline)} on average and by"
            f" {_format_decline(tuned, neighbours.largest_decline)} at most; from the best to the median of all"
            f" settings it falls by {_format_decline(tuned, neighbours.median_decline)}."
        )
    paragraphs.append("Other parameters are those of the best setting, which is ringed.")
    return ReportSection(
        "Stability of the optimum",
        tuple(paragraphs),
        (heat_figure(heat_map, tuned.search.objective),),
    )


def _format_decline(tuned: TuneResult, value: float) -> str:
    if tuned.search.objective is Objective.GROWTH:
        return f"{value * 100:.2f} points a year"
    return f"{value:.3f}"


def heat_figure(heat_map: HeatMap, objective: Objective) -> Figure:
    """Draw a heat map as coloured squares; Plotly's basic bundle lacks heat maps."""
    down_indices, across_indices = np.nonzero(~np.isnan(heat_map.values))
    values = heat_map.values[down_indices, across_indices]
    axis_format, hover_format = ".2f", ".3f"
    if objective is Objective.GROWTH:
        axis_format, hover_format = "+.1%", "+.2%"
    cell_px = max(MIN_CELL_PX, min(MAX_CELL_PX, MAP_PX // max(len(heat_map.across.labels), 1)))
    hover_texts = [
        f"{heat_map.down.labels[i]}, {heat_map.across.labels[j]}"
        for i, j in zip(down_indices, across_indices, strict=True)
    ]
    marker: dict[str, Any] = {
        "symbol": "square",
        "size": cell_px,
        "color": values,
        "colorscale": [list(stop) for stop in COLOUR_SCALE],
        "showscale": True,
        "colorbar": {
            "tickformat": axis_format,
            "title": {"text": f"{objective.value} a year"},
        },
    }
    squares = {
        "type": "scatter",
        "mode": "markers",
        "x": [heat_map.across.labels[j] for j in across_indices],
        "y": [heat_map.down.labels[i] for i in down_indices],
        "text": hover_texts,
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
            "size": cell_px + 4,
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
        "height": max(320, 60 + (cell_px + 6) * len(heat_map.down.labels)),
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


def _walk_section(tuned: TuneResult) -> ReportSection:
    if not tuned.fold_results:
        return ReportSection("Walk-forward", ("The data are too short for the folds.",))
    start_ms, period_ms, rows = (
        int(tuned.search.table.times_s[0]) * 1000,
        round(tuned.period_s) * 1000,
        [],
    )
    times_ms: list[int] = []
    for fold_result, over_hold, over_calendar in tuned.fold_results:
        start, end = fold_result.fold.judged_from, fold_result.fold.judged_to
        excesses = (
            format_signed_percent(yearly_mean(tuned, excess))
            for excess in (over_hold, over_calendar)
        )
        rows.append(
            (
                tuned.choices[fold_result.choice].label,
                _format_date(start_ms + start * period_ms),
                *excesses,
            )
        )
        times_ms += [start_ms + (period + 1) * period_ms for period in range(start, end)]
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
                "x": times_ms,
                "y": np.cumsum(np.concatenate(excess_returns)),
                "name": name,
            }
            for name, excess_returns in (
                ("over hold", [fold[1] for fold in tuned.fold_results]),
                ("over the calendar rule", [fold[2] for fold in tuned.fold_results]),
            )
        ],
        "layout": {"xaxis": {"type": "date"}, "yaxis": {"tickformat": ".1%"}},
    }
    paragraphs = (
        "In each fold, the best setting of the past is evaluated on the periods that follow.",
        *(f"All folds together {claim.text}." for claim in tuned.fold_claims),
    )
    header = (
        "chosen",
        "evaluated from",
        "excess over holding, per year",
        "excess over the calendar rule, per year",
    )
    return ReportSection("Walk-forward", paragraphs, (figure,), (ReportTable(header, tuple(rows)),))


def _format_date(milliseconds: int) -> str:
    return str(np.datetime64(milliseconds // 1000, "s").astype("datetime64[D]"))


def _confidence_section(tuned: TuneResult) -> ReportSection:
    paragraphs = [
        "Intervals are of the mean excess log return per period of"
        f" {tuned.period_s / 3600:.0f} h, by {RESAMPLE_COUNT:,} resamples of the stationary bootstrap"
        " (Politis & Romano 1994), widened for short series as docs/tune.md says. They apply"
        " to this market only."
    ]
    if tuned.deflated is not None:
        deflated = tuned.deflated
        paragraphs.append(
            f"The Sharpe ratio of the excess over hold is {deflated.sharpe:.4f} per period in the data"
            f" used to choose it; the best of {deflated.trials} trials without skill would have an expected"
            f" {deflated.threshold:.4f}. The true ratio is above that with probability"
            f" {deflated.probability:.1%} (deflated Sharpe ratio, Bailey & López de Prado 2014)."
        )
    if tuned.overfitting is not None:
        overfitting = tuned.overfitting
        paragraphs.append(
            f"In {overfitting.probability:.0%} of {overfitting.ways:,} ways to halve the data, the best of one"
            " half was below the median in the other (probability of backtest over-fitting,"
            " Bailey, Borwein, López de Prado & Zhu 2017)."
        )
    return ReportSection("Confidence", tuple(paragraphs))
