"""The picture of loss against the width of the range, as a section of a report."""

from __future__ import annotations

from agent.backtest.loss.backtests import BacktestLoss
from agent.backtest.loss.picture import LossCurve, LossMark, loss_curve
from agent.backtest.report.page import PlotlyDict, ReportSection, ReportTable
from agent.units import BPS

MIN_AXIS_FACTOR = 4
"""The axis of losses ends no lower than this multiple of the rule's."""


def loss_section(loss: BacktestLoss | None) -> ReportSection | None:
    """Return the section; None without what it is drawn from."""
    if loss is None:
        return None
    curve = loss_curve(loss.portfolio, loss.policy)
    return ReportSection(
        "Loss against the width of the range",
        (
            "About what is lost a year against a portfolio that is always on target at no cost, on"
            " simulated prices with usual volatilities and without tax, not on the prices of this"
            " report: trading costs, which fall with the width, and drift (\u00bd\u00b7\u03bb\u00b7TE\u00b2), which rises with it. The"
            " areas are the tracking rule with all its ranges narrower or wider.",
        ),
        (_chart(curve),),
        (
            ReportTable(
                ("policy", "costs", "drift", "loss, bps a year", "trades a year"),
                tuple(_row(mark) for mark in curve.marks),
            ),
        ),
    )


def _row(mark: LossMark) -> tuple[str, ...]:
    loss = mark.loss
    figures = (loss.costs * BPS, loss.drift * BPS, loss.total * BPS, loss.trades)
    return (mark.name, *(f"{figure:.1f}" for figure in figures))


def _chart(curve: LossCurve) -> PlotlyDict:
    widths = [factor for factor, _ in curve.points]
    costs = [loss.costs * BPS for _, loss in curve.points]
    drifts = [loss.drift * BPS for _, loss in curve.points]
    placed = [
        (mark.width_factor, mark.loss.total * BPS, mark.name)
        for mark in curve.marks
        if mark.width_factor is not None
    ]
    highest_bps = max(bps for _, bps, _ in placed)
    return {
        "data": [
            _area(widths, costs, "costs", "--c1"),
            _area(widths, drifts, "drift", "--c2"),
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": "policies",
                "x": [factor for factor, _, _ in placed],
                "y": [bps for _, bps, _ in placed],
                "text": [f"{name}: {bps:.0f}" for _, bps, name in placed],
                "textposition": "top right",
                "marker": {"color": "var(--ink)", "size": 9},
            },
        ],
        "layout": {
            "xaxis": {
                "type": "log",
                "title": {"text": "width of the range beside the rule's"},
                "tickvals": [0.25, 0.5, 1, 2, 4],
                "ticktext": ["\u00d7\u00bc", "\u00d7\u00bd", "\u00d71", "\u00d72", "\u00d74"],
            },
            "yaxis": {
                "title": {"text": "bps a year"},
                "range": [0, max(highest_bps * 1.15, placed[0][1] * MIN_AXIS_FACTOR)],
            },
        },
        "title": "Loss, bps of the portfolio a year",
        "says": "Costs and drift of the rule by the width of its ranges, stacked, with marks of policies",
    }


def _area(widths: list[float], losses: list[float], name: str, colour: str) -> PlotlyDict:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": widths,
        "y": losses,
        "name": name,
        "stackgroup": "loss",
        "yhoverformat": ",.1f",
        "line": {"color": f"var({colour})", "width": 1},
        "fillcolor": f"var({colour})/0.35",
    }
