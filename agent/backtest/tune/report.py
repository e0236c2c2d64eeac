"""The report of a search: JSON document, verdict, heat map, walk-forward, confidence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.backtest.report.page import Chart, ReportFact, ReportPage, ReportSection, ReportTable
from agent.backtest.tune.grid import NO_STOP, RULE, PolicyChoice
from agent.backtest.tune.loss import RISK_AVERSION
from agent.backtest.tune.search import RankedChoice, TuneResult, yearly_loss
from agent.backtest.tune.statistics import (
    CONFIDENCE_LEVEL,
    RESAMPLE_COUNT,
    ConfidenceInterval,
    Excess,
    HeatMap,
    Objective,
    format_bps,
    format_signed_percent,
)
from agent.units import BPS, HOUR_S, YEAR_S

Document = dict[str, Any]
RANKED_COUNT = 20
"""Number of best settings in the document and on the page; the files of --out have all."""


def tune_document(tune_result: TuneResult) -> Document:
    """Return the document of a search."""
    search = tune_result.spec
    heat_map = tune_result.heat_map
    ranked_documents = [
        _ranked_document(tune_result, ranked) for ranked in tune_result.shown_ranking(RANKED_COUNT)
    ]
    neighbours = tune_result.neighbours
    overfitting = tune_result.overfitting
    deflated_sharpe = tune_result.deflated_sharpe
    score_scale = _score_scale(tune_result)
    excess_scale = _excess_scale(tune_result)
    fold_scale = score_scale * search.objective.annual_factor(YEAR_S / tune_result.period_s)
    return {
        "recommendation": _choice_document(tune_result.recommended),
        "verdict": list(tune_result.verdict.sentences),
        "safe_default": tune_result.verdict.safe_default,
        "best": ranked_documents[0],
        "settings": len(tune_result.choices),
        "engines": dict(tune_result.run_counts_by_engine),
        "resumed": tune_result.resumed_run_count,
        "objective": search.objective.value,
        "numeraire": search.backtest.portfolio.numeraire.symbol,
        "bars": search.table.bar_count,
        "from": int(search.table.times_s[0]),
        "last_quarter_from": tune_result.last_quarter_start_s,
        "until": int(search.table.times_s[-1]),
        "period_s": round(tune_result.period_s),
        "baseline": _choice_document(search.baseline),
        "last_quarter": {
            "excess_intervals": [_excess_document(claim) for claim in tune_result.claims],
            "final_value": _format_number(tune_result.last_quarter_results[0].final_value),
            "baseline_value": _format_number(tune_result.last_quarter_results[1].final_value),
            "hold_value": _format_number(tune_result.last_hold_value),
            "settings_judged": tune_result.judged_setting_count,
            "costs": _format_number(tune_result.last_quarter_results[0].costs),
            "rebalances": tune_result.last_quarter_results[0].rebalance_count,
        },
        "walk_forward": {
            "window_mode": search.walk_forward_mode.value,
            "folds": [
                {
                    "chosen": tune_result.choices[fold_result.choice_index].label,
                    "in_sample": _format_number(fold_result.in_sample_score * fold_scale),
                    "out_of_sample": _format_number(fold_result.out_of_sample_score * fold_scale),
                    "over_hold": _format_number(yearly_mean(tune_result, excesses[0]))
                    if len(excesses) > 1
                    else None,
                    "over_baseline": _format_number(
                        yearly_mean(tune_result, excesses[-1]) * excess_scale
                    ),
                    "periods": fold_result.fold.evaluation_end - fold_result.fold.evaluation_start,
                }
                for fold_result, excesses in tune_result.fold_results_and_excesses
            ],
            "excess_intervals": [
                _excess_document(fold_claim) for fold_claim in tune_result.fold_claims
            ],
        },
        "deflated_sharpe": None
        if deflated_sharpe is None
        else {
            "sharpe": _format_number(deflated_sharpe.sharpe),
            "threshold": _format_number(deflated_sharpe.threshold),
            "trials": deflated_sharpe.trial_count,
            "probability": _format_number(deflated_sharpe.probability),
        },
        "overfitting": None
        if overfitting is None
        else {
            "probability": _format_number(overfitting.probability),
            "split_count": overfitting.split_count,
            "blocks": overfitting.block_count,
        },
        "stability": {
            "row_name": heat_map.row_axis.name,
            "column_name": heat_map.column_axis.name,
            "rows": list(heat_map.row_axis.labels),
            "columns": list(heat_map.column_axis.labels),
            "values": [
                [None if np.isnan(score) else _format_number(score * score_scale) for score in row]
                for row in heat_map.scores.tolist()
            ],
            "best": list(heat_map.best_cell),
            "neighbours": None
            if neighbours is None
            else {
                "count": neighbours.neighbour_count,
                "mean_fall": _format_number(neighbours.mean_decline * excess_scale),
                "largest_fall": _format_number(neighbours.largest_decline * excess_scale),
                "fall_to_median": _format_number(neighbours.median_decline * excess_scale),
            },
        },
        "ranked": ranked_documents,
        "notes": [
            *search.table.notes,
            *([LOSS_SENTENCE] if _is_by_loss(tune_result) else []),
            *stop_notes(tune_result),
            *tax_notes(tune_result),
        ],
        "grid_hash": tune_result.stamp["grid"],
        "config_hash": tune_result.stamp["settings"],
        "data_hash": tune_result.stamp["data"],
        "seed": search.settings.seed,
        "version": tune_result.stamp["version"],
    }


def _is_by_loss(tune_result: TuneResult) -> bool:
    return tune_result.spec.objective is Objective.TRACKING


def _excess_scale(tune_result: TuneResult) -> int:
    """Return the factor from differences of an objective to what is shown: bps of a loss."""
    return BPS if _is_by_loss(tune_result) else 1


def _score_scale(tune_result: TuneResult) -> int:
    """Return the factor from an objective to what is shown: a loss above zero, in bps."""
    return -BPS if _is_by_loss(tune_result) else 1


def stop_notes(tune_result: TuneResult) -> tuple[str, ...]:
    """Return what the figures of stops mean, and the best setting without one; empty for a search
    without stops.
    """
    stopped_counts = [
        result.stopped_asset_count
        for choice, result in zip(tune_result.choices, tune_result.run_results, strict=True)
        if choice.stop is not None and choice.stop.kind is not None
    ]
    if not stopped_counts:
        return ()
    best_index = max(
        (
            choice_index
            for choice_index, choice in enumerate(tune_result.choices)
            if choice.stop == NO_STOP
        ),
        key=lambda choice_index: float(tune_result.scores[choice_index]),
    )
    return (
        f"{len(stopped_counts):,} of {len(tune_result.choices):,} settings have a stop, each of them"
        f" a trial of its own; {sum(map(bool, stopped_counts)):,} of them had sold an asset and were"
        " still out of it at the end of the three quarters. As in live trading, a stop that fired"
        " stays out until the owner arms it again, which the search never does; in later folds it"
        " is judged as it stood.",
        f"The best setting without a stop is {tune_result.choices[best_index].label}:"
        f" {_format_objective(tune_result, float(tune_result.scores[best_index]))}, against"
        f" {_format_objective(tune_result, float(tune_result.scores[tune_result.best_index]))} for"
        " the best of all.",
        'The stop of a setting is a key of each asset in the config: stop_loss = "20%" or'
        ' trailing_stop = "20%".',
    )


def tax_notes(tune_result: TuneResult) -> tuple[str, ...]:
    """Return what a search net of tax counts, and its best settings with and without tax; empty
    without a tax rate.
    """
    tax = tune_result.spec.backtest.tax
    if not tax.rate_bps:
        return ()
    best_index = tune_result.best_index
    gross_index = int(tune_result.gross_scores.argmax())

    def scores_text(choice_index: int) -> str:
        net_text, gross_text = (
            _format_objective(tune_result, float(scores[choice_index]))
            for scores in (tune_result.scores, tune_result.gross_scores)
        )
        return f"{tune_result.choices[choice_index].label}, {net_text} net and {gross_text} before"

    taxes = [
        float(tune_result.run_results[index].tax_by_mark[-1])
        for index in range(len(tune_result.choices))
    ]
    gross_text = (
        "it is the best before tax too"
        if gross_index == best_index
        else f"the best before tax is {scores_text(gross_index)}"
    )
    return (
        f"All returns are net of {tax.rate_bps / 100:g} % tax on the gains that each calendar year"
        f" (UTC) realises by {tax.method.value}, less its losses. Holding realises none, and gains"
        " not realised at the end are untaxed for all: tax put off is the benefit of trading less."
        " Final values are before tax.",
        f"The best setting net of tax is {scores_text(best_index)}; {gross_text}. Its tax over"
        f" the three quarters is {taxes[best_index]:,.2f}, between {min(taxes):,.2f} and"
        f" {max(taxes):,.2f} for all settings.",
    )


def yearly_mean(tune_result: TuneResult, returns: NDArray[np.float64]) -> float:
    """Return the annualised mean log return per period."""
    return float(returns.mean()) * YEAR_S / tune_result.period_s


def _format_number(number: float) -> str:
    return f"{number:.6f}"


def _choice_document(choice: PolicyChoice) -> Document:
    band = choice.band
    return {
        "label": choice.label,
        "backtest_options": choice.backtest_options,
        "config": choice.config_text,
        "strictness": choice.strictness,
        "horizon_s": choice.horizon_s,
        "band_relative_bps": None if band is None else band.relative_bps,
        "band_absolute_bps": None if band is None else band.absolute_bps,
        "every_s": choice.every_s,
        "destination": choice.destination.value,
        "allocator": choice.allocator.value,
    }


def _ranked_document(tune_result: TuneResult, ranked: RankedChoice) -> Document:
    run_result = ranked.run_result
    loss = yearly_loss(run_result, tune_result.years)
    return {
        **_choice_document(ranked.choice),
        "objective": _format_number(ranked.score * _score_scale(tune_result)),
        "loss_bps": _format_number(loss.total * BPS),
        "costs_bps": _format_number(loss.costs * BPS),
        "drift_bps": _format_number(loss.drift * BPS),
        "trades_yearly": f"{run_result.rebalance_count / tune_result.years:.2f}",
        "over_hold": _format_number(ranked.excess_growth),
        "final_value": _format_number(run_result.final_value),
        "turnover": _format_number(run_result.turnover),
        "costs": _format_number(run_result.costs),
        "rebalances": run_result.rebalance_count,
    }


def _excess_document(claim: Excess) -> Document:
    interval: ConfidenceInterval | None = claim.interval
    if interval is not None and claim.is_loss:
        interval = interval.scaled(BPS)
    if interval is None:
        return {
            "benchmark": claim.benchmark,
            "mean": None,
            "low": None,
            "high": None,
            "level": str(CONFIDENCE_LEVEL),
            "periods": None,
            "bootstrap_block_length": None,
        }
    return {
        "benchmark": claim.benchmark,
        "mean": _format_number(interval.mean),
        "low": _format_number(interval.low),
        "high": _format_number(interval.high),
        "level": str(CONFIDENCE_LEVEL),
        "periods": interval.period_count,
        "bootstrap_block_length": f"{interval.mean_block_periods:.2f}",
    }


MAP_PX = 560
MAX_CELL_PX = 34
MIN_CELL_PX = 8
COLOUR_SCALE = ((0.0, "#7a3b69"), (0.5, "#d9d4cf"), (1.0, "#1f6f6b"))


def tune_page(tune_result: TuneResult) -> ReportPage:
    """Build the whole report."""
    stamp = tune_result.stamp
    search = tune_result.spec
    best_label = tune_result.choices[tune_result.best_index].label
    verdict_fact = ReportFact("Verdict", "no edge", best_label)
    if tune_result.verdict.is_recommended:
        verdict_fact = ReportFact("Verdict", "recommended", best_label)
    elif _is_by_loss(tune_result):
        verdict_fact = ReportFact("Verdict", "keep the rule", RULE.label)
    facts = [
        verdict_fact,
        *(_excess_fact(claim) for claim in tune_result.claims),
        ReportFact(
            "Settings tried",
            f"{len(tune_result.choices):,}",
            ", ".join(f"{count} {name}" for name, count in tune_result.run_counts_by_engine),
        ),
    ]
    if tune_result.overfitting is not None:
        splits_text = f"{tune_result.overfitting.split_count:,} ways to halve the data"
        facts.append(
            ReportFact(
                "Chance of over-fitting",
                f"{tune_result.overfitting.probability * 100:.0f} %",
                splits_text,
            )
        )
    if tune_result.deflated_sharpe is not None:
        facts.append(
            ReportFact(
                "Deflated Sharpe ratio",
                f"{tune_result.deflated_sharpe.probability * 100:.1f} %",
                f"best of {tune_result.deflated_sharpe.trial_count} trials",
            )
        )
    origin = (
        ReportFact("version", stamp["version"]),
        ReportFact("grid", stamp["grid"]),
        ReportFact("config", stamp["settings"]),
        ReportFact("data", stamp["data"]),
        ReportFact("seed", str(search.settings.seed)),
        ReportFact("objective", search.objective.value),
        ReportFact("baseline", search.baseline.label),
        ReportFact("walk-forward", f"{search.walk_forward_mode.value}, {search.fold_count} folds"),
    )
    return ReportPage(
        "Search for a setting",
        tuple(facts),
        tune_sections(tune_result),
        tune_result.verdict.sentences,
        origin,
        subtitle="Tune",
    )


def tune_sections(tune_result: TuneResult) -> tuple[ReportSection, ...]:
    """Return the sections on the holdout, the best settings, the neighbourhood of the best one,
    walk-forward, and confidence.
    """
    return (
        _last_quarter_section(tune_result),
        _ranking_section(tune_result),
        _stability_section(tune_result),
        _walk_forward_section(tune_result),
        _confidence_section(tune_result),
    )


def _excess_fact(claim: Excess) -> ReportFact:
    interval = claim.interval
    benchmark_name = claim.benchmark.partition(" (")[0]
    if interval is None:
        return ReportFact(f"Over {benchmark_name}, last quarter", "–", "too few periods")
    return ReportFact(
        f"Over {benchmark_name}, last quarter",
        f"{claim.amount_text(interval.mean)} a year",
        f"{claim.amount_text(interval.low)} to {claim.amount_text(interval.high)}",
    )


def _format_objective(tune_result: TuneResult, score: float) -> str:
    if tune_result.spec.objective is Objective.GROWTH:
        return format_signed_percent(score)
    if _is_by_loss(tune_result):
        return format_bps(-score)
    return f"{score:.3f}"


def _last_quarter_section(tune_result: TuneResult) -> ReportSection:
    times_ms = [time_s * 1000 for time_s in tune_result.last_quarter_times_s.tolist()]
    choices = (tune_result.choices[tune_result.best_index], tune_result.spec.baseline)
    runs = tune_result.last_quarter_results
    title = "Growth in the last quarter"
    explanation = (
        "Growth of each portfolio in the last quarter of the data, from the same first bar."
    )
    paths = [
        *(
            (choice.label, run.net_value_by_mark / run.net_value_by_mark[0] - 1)
            for choice, run in zip(choices, runs, strict=True)
        ),
        (
            "hold",
            tune_result.last_quarter_hold_values / tune_result.last_quarter_hold_values[0] - 1,
        ),
    ]
    if _is_by_loss(tune_result):
        title = "Loss in the last quarter"
        explanation = "Trading costs and ½·λ·TE² so far, from the same first bar, bps."
        paths = [
            (choice.label, np.append(0.0, np.cumsum(run.costs_and_tax + run.drifts)) * BPS)
            for choice, run in zip(choices, runs, strict=True)
        ]
    figure = {
        "title": title,
        "says": explanation,
        "data": [
            {"type": "scatter", "mode": "lines", "x": times_ms, "y": path, "name": name}
            for name, path in paths
        ],
        "layout": {
            "xaxis": {"type": "date"},
            "yaxis": {"tickformat": ".1f" if _is_by_loss(tune_result) else ".0%"},
        },
    }
    return ReportSection(
        "The last quarter",
        ("The search did not use this quarter. All claims refer to it.",),
        (figure,),
    )


LOSS_SENTENCE = (
    f"Loss is trading costs and ½·λ·TE² with λ = {RISK_AVERSION:g}, bps of the portfolio a year:"
    f" 1 % of tracking error is worth {RISK_AVERSION / 2:g} bps. TE is the annual volatility of the"
    " return less that of a portfolio which is always at the targets, without costs."
)


def _ranking_section(tune_result: TuneResult) -> ReportSection:
    numeraire = tune_result.spec.backtest.portfolio.numeraire.symbol
    header: tuple[str, ...] = (
        "setting",
        f"{tune_result.spec.objective.value} a year",
        "excess over holding, per year",
        f"turnover, {numeraire}",
        f"costs, {numeraire}",
        "rebalances",
    )
    row_texts = _growth_row
    paragraphs = [
        "Results on the first three quarters of the data, on which the setting was chosen; the"
        " best of many is overstated."
    ]
    if _is_by_loss(tune_result):
        header = ("setting", "loss, bps a year", "costs", "drift", "rebalances a year")
        row_texts = _loss_row
        paragraphs.insert(0, LOSS_SENTENCE)
    rows = tuple(
        row_texts(tune_result, ranked) for ranked in tune_result.shown_ranking(RANKED_COUNT)
    )
    return ReportSection(
        "Settings tried",
        (*paragraphs, *stop_notes(tune_result), *tax_notes(tune_result)),
        (),
        (ReportTable(header, rows, f"{len(rows)} of {len(tune_result.ranking):,}, best first"),),
    )


def _label(tune_result: TuneResult, choice: PolicyChoice) -> str:
    is_recommended = choice == tune_result.recommended
    return f"{choice.label} (recommended)" if is_recommended else choice.label


def _growth_row(tune_result: TuneResult, ranked: RankedChoice) -> tuple[str, ...]:
    run_result = ranked.run_result
    return (
        _label(tune_result, ranked.choice),
        _format_objective(tune_result, ranked.score),
        format_signed_percent(ranked.excess_growth),
        f"{run_result.turnover:.2f}",
        f"{run_result.costs:.2f}",
        str(run_result.rebalance_count),
    )


def _loss_row(tune_result: TuneResult, ranked: RankedChoice) -> tuple[str, ...]:
    loss = yearly_loss(ranked.run_result, tune_result.years)
    trades_yearly = ranked.run_result.rebalance_count / tune_result.years
    return (
        _label(tune_result, ranked.choice),
        *(f"{share * BPS:.2f}" for share in (loss.total, loss.costs, loss.drift)),
        f"{trades_yearly:.1f}",
    )


def _stability_section(tune_result: TuneResult) -> ReportSection:
    heat_map = tune_result.heat_map
    neighbours = tune_result.neighbours
    paragraphs = []
    change = "loss rises" if _is_by_loss(tune_result) else "objective falls"
    if neighbours is not None:
        paragraphs.append(
            f"One grid step from the best, over {neighbours.neighbour_count} settings, the {change} by"
            f" {_format_decline(tune_result, neighbours.mean_decline)} on average and by"
            f" {_format_decline(tune_result, neighbours.largest_decline)} at most; from the best to the median of all"
            f" settings it changes by {_format_decline(tune_result, neighbours.median_decline)}."
        )
    paragraphs.append("Other parameters are those of the best setting, which is ringed.")
    return ReportSection(
        "Stability of the optimum",
        tuple(paragraphs),
        (heat_figure(heat_map, tune_result.spec.objective),),
    )


def _format_decline(tune_result: TuneResult, decline: float) -> str:
    if tune_result.spec.objective is Objective.GROWTH:
        return f"{decline * 100:.2f} points a year"
    if _is_by_loss(tune_result):
        return f"{format_bps(decline)} a year"
    return f"{decline:.3f}"


def heat_figure(heat_map: HeatMap, objective: Objective) -> Chart:
    """Draw a heat map as coloured squares, a loss above zero in bps; Plotly's basic bundle lacks
    heat maps.
    """
    row_indices, column_indices = np.nonzero(~np.isnan(heat_map.scores))
    cell_scores = heat_map.scores[row_indices, column_indices]
    is_loss = objective is Objective.TRACKING
    score_name = "loss, bps" if is_loss else objective.value
    if is_loss:
        cell_scores = -cell_scores * BPS
    axis_format = ".2f"
    hover_format = ".3f"
    if objective is Objective.GROWTH:
        axis_format = "+.1%"
        hover_format = "+.2%"
    cell_px = max(MIN_CELL_PX, min(MAX_CELL_PX, MAP_PX // max(len(heat_map.column_axis.labels), 1)))
    hover_texts = [
        f"{heat_map.row_axis.labels[row]}, {heat_map.column_axis.labels[column]}"
        for row, column in zip(row_indices, column_indices, strict=True)
    ]
    marker: dict[str, Any] = {
        "symbol": "square",
        "size": cell_px,
        "color": cell_scores,
        "colorscale": [list(colour_stop) for colour_stop in COLOUR_SCALE],
        "reversescale": is_loss,
        "showscale": True,
        "colorbar": {
            "tickformat": axis_format,
            "title": {"text": f"{score_name} a year"},
        },
    }
    squares_trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [heat_map.column_axis.labels[column] for column in column_indices],
        "y": [heat_map.row_axis.labels[row] for row in row_indices],
        "text": hover_texts,
        "marker": marker,
        "showlegend": False,
        "hovertemplate": f"%{{text}}<br>%{{marker.color:{hover_format}}}<extra></extra>",
    }
    ring_trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [heat_map.column_axis.labels[heat_map.best_cell[1]]],
        "y": [heat_map.row_axis.labels[heat_map.best_cell[0]]],
        "marker": {
            "symbol": "square-open",
            "size": cell_px + 4,
            "color": "var(--ink)",
            "line": {"width": 2},
        },
        "showlegend": False,
        "hoverinfo": "skip",
    }
    names_and_axes = (("xaxis", heat_map.column_axis), ("yaxis", heat_map.row_axis))
    return {
        "title": f"{'Loss' if is_loss else objective.value.capitalize()} by {heat_map.row_axis.name} and {heat_map.column_axis.name}",
        "says": (
            f"The objective for each {heat_map.row_axis.name} and {heat_map.column_axis.name}; the best setting is"
            " ringed."
        ),
        "height": max(320, 60 + (cell_px + 6) * len(heat_map.row_axis.labels)),
        "data": [squares_trace, ring_trace],
        "layout": {
            axis_name: {
                "type": "category",
                "categoryorder": "array",
                "categoryarray": list(axis.labels),
                "title": {"text": axis.name},
            }
            for axis_name, axis in names_and_axes
        },
    }


def _walk_forward_section(tune_result: TuneResult) -> ReportSection:
    if not tune_result.fold_results_and_excesses:
        return ReportSection("Walk-forward", ("The data are too short for the folds.",))
    mark_times_ms = [time_s * 1000 for time_s in tune_result.mark_times_s.tolist()]
    fold_rows = []
    times_ms: list[int] = []
    for fold_result, excesses in tune_result.fold_results_and_excesses:
        evaluation_start = fold_result.fold.evaluation_start
        evaluation_end = fold_result.fold.evaluation_end
        excess_texts = (_format_excess(tune_result, excess) for excess in excesses)
        fold_rows.append(
            (
                tune_result.choices[fold_result.choice_index].label,
                _format_date(mark_times_ms[evaluation_start]),
                *excess_texts,
            )
        )
        times_ms += mark_times_ms[evaluation_start + 1 : evaluation_end + 1]
    is_by_loss = _is_by_loss(tune_result)
    excess_name = "loss saved, bps" if is_by_loss else "excess log growth"
    excess_traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": times_ms,
            "y": np.cumsum(np.concatenate(excesses)) * _excess_scale(tune_result),
            "name": f"over {benchmark_name}",
        }
        for benchmark_name, excesses in zip(
            tune_result.spec.benchmark_names,
            zip(*(excesses for _, excesses in tune_result.fold_results_and_excesses), strict=True),
            strict=True,
        )
    ]
    figure = {
        "title": f"{excess_name.capitalize()}, out of sample",
        "says": (
            f"Cumulative {excess_name} of each fold's choice, in the periods after those used to"
            " choose it."
        ),
        "data": excess_traces,
        "layout": {
            "xaxis": {"type": "date"},
            "yaxis": {"tickformat": ".2f" if is_by_loss else ".1%"},
        },
    }
    paragraphs = (
        "In each fold, the best setting of the past is evaluated on the periods that follow.",
        *(f"All folds together {claim.text}." for claim in tune_result.fold_claims),
    )
    header = (
        "chosen",
        "evaluated from",
        *(
            f"{excess_name} over {name.partition(' (')[0]}, per year"
            for name in tune_result.spec.benchmark_names
        ),
    )
    return ReportSection(
        "Walk-forward", paragraphs, (figure,), (ReportTable(header, tuple(fold_rows)),)
    )


def _format_excess(tune_result: TuneResult, excess: NDArray[np.float64]) -> str:
    format_mean = format_bps if _is_by_loss(tune_result) else format_signed_percent
    return format_mean(yearly_mean(tune_result, excess))


def _format_date(time_ms: int) -> str:
    return str(np.datetime64(time_ms // 1000, "s").astype("datetime64[D]"))


def _confidence_section(tune_result: TuneResult) -> ReportSection:
    paragraphs = [
        f"Intervals are of the mean {'loss saved' if _is_by_loss(tune_result) else 'excess log return'} per period of"
        f" {tune_result.period_s / HOUR_S:.0f} h, by {RESAMPLE_COUNT:,} resamples of the stationary bootstrap"
        " (Politis & Romano 1994), widened for short series as docs/tune.md says. They apply"
        " to this market only."
    ]
    if tune_result.deflated_sharpe is not None:
        deflated_sharpe = tune_result.deflated_sharpe
        paragraphs.append(
            f"The Sharpe ratio of the excess over hold is {deflated_sharpe.sharpe:.4f} per period in the data"
            f" used to choose it; the best of {deflated_sharpe.trial_count} trials without skill would have an expected"
            f" {deflated_sharpe.threshold:.4f}. The true ratio is above that with probability"
            f" {deflated_sharpe.probability * 100:.1f} % (deflated Sharpe ratio, Bailey & López de Prado 2014)."
        )
    if tune_result.overfitting is not None:
        overfitting = tune_result.overfitting
        paragraphs.append(
            f"In {overfitting.probability * 100:.0f} % of {overfitting.split_count:,} ways to halve the data, the best of one"
            " half was below the median in the other (probability of backtest over-fitting,"
            " Bailey, Borwein, López de Prado & Zhu 2017)."
        )
    return ReportSection("Confidence", tuple(paragraphs))
