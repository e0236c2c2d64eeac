"""The picture of loss against the width of the range, as a section of a report."""

from __future__ import annotations

from agent.backtest.loss.backtests import BacktestLoss
from agent.backtest.loss.estimates import portfolio_tax, untaxed_reason
from agent.backtest.loss.picture import LossCurve, loss_curve
from agent.backtest.loss.simulation import MAX_YEARS
from agent.backtest.loss.taxes import TAXED_GROWTH, LossTax
from agent.backtest.report.page import PlotlyDict, ReportSection, ReportTable
from agent.units import BPS

MIN_AXIS_FACTOR = 4
"""The axis of losses ends no lower than this multiple of the rule's."""


def loss_section(loss: BacktestLoss | None) -> ReportSection | None:
    """Return the section; None without what it is drawn from."""
    if loss is None:
        return None
    tax = portfolio_tax(loss.portfolio, loss.tax)
    curve = loss_curve(loss.portfolio, loss.policy, tax)
    return ReportSection(
        "Loss against the width of the range",
        (
            "About what is lost a year against a portfolio that is always on target at no cost, on"
            " simulated prices with usual volatilities and without tax, not on the prices of this"
            " report: trading costs, which fall with the width, and drift (\u00bd\u00b7\u03bb\u00b7TE\u00b2), which rises with it. The"
            " areas are the tracking rule with all its ranges narrower or wider.",
            *_tax_paragraphs(loss, tax),
        ),
        (_chart(curve),),
        (_policy_table(curve) if tax is None else _taxed_table(curve),),
    )


def _tax_paragraphs(loss: BacktestLoss, tax: LossTax | None) -> tuple[str, ...]:
    reason = untaxed_reason(loss.portfolio, loss.tax)
    if reason:
        return (f"Tax is not simulated: {reason}.",)
    if tax is None:
        return ()
    return (
        f"The table is with tax, the mean of {MAX_YEARS:g} years: {tax.rate * 100:g} % of the gains of"
        f" each year, lots by {tax.method.value}, with coins that grow by {TAXED_GROWTH * 100:g} % a"
        " year. Where plans of tracking pay their whole tax, it hardly sells, and drifts further than"
        " in the picture; its range after tax depends on the gains and has no mark.",
    )


def _policy_table(curve: LossCurve) -> ReportTable:
    rows = [
        (
            mark.name,
            *_figures(mark.loss.costs, mark.loss.drift, mark.loss.total),
            f"{mark.loss.trades:.1f}",
        )
        for mark in curve.marks
    ]
    columns = ("policy", "costs", "drift", "loss, bps a year", "rebalances a year")
    return ReportTable(columns, tuple(rows))


def _taxed_table(curve: LossCurve) -> ReportTable:
    rows = []
    for mark in curve.marks:
        loss = mark.taxed_loss or mark.loss
        bps_texts = _figures(loss.costs, loss.drift, loss.tax, loss.total, loss.total_if_sold)
        rows.append((mark.name, *bps_texts, f"{loss.trades:.1f}"))
    columns = (
        "policy",
        "costs",
        "drift",
        "tax",
        "loss and tax, bps a year",
        "with all gains sold",
        "rebalances a year",
    )
    return ReportTable(columns, tuple(rows))


def _figures(*shares: float) -> list[str]:
    return [f"{share * BPS:.1f}" for share in shares]


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
