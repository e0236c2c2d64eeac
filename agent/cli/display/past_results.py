"""Past results of a basket as one line each."""

from __future__ import annotations

from collections.abc import Sequence

from agent.cli.display.tables import percent_text
from agent.cli.display.terminal import Document


def past_result_text(
    past_result: Document, *, with_basis: bool = False, short: bool = False
) -> str:
    """Return the past result of a basket in one line, with its basis if asked; `short` for 80
    columns.
    """
    figure_texts = {
        figure_name: percent_text(past_result[figure_name], "+", 1)
        for figure_name in (
            "return",
            "return_of_holding",
            "max_drawdown",
            "max_drawdown_of_holding",
        )
    }
    drawdown_label = "drawdown" if short else "maximum drawdown"
    text = (
        f"{past_result['from'][:4]}: {figure_texts['return']} (held {figure_texts['return_of_holding']}),"
        f" {drawdown_label} {figure_texts['max_drawdown']} (held {figure_texts['max_drawdown_of_holding']})"
    )
    if with_basis:
        return f"{text}; {past_costs_text(past_result)}; {past_result['basis']}; not a forecast"
    return text


def past_years_text(year_results: Sequence[Document], *, short: bool = False) -> str:
    """Return the returns of a basket in several years in one line; `short` for 80 columns."""
    year_texts = []
    for year_result in year_results:
        year_text = f"{year_result['from'][:4]} {percent_text(year_result['return'], '+', 1)}"
        holding_text = f" (held {percent_text(year_result['return_of_holding'], '+', 1)})"
        year_texts.append(year_text if short else year_text + holding_text)
    return ", ".join(year_texts)


def past_costs_text(past_result: Document) -> str:
    """Return the worst month, trades and costs of the past result of a basket in one line."""
    worst_text, holding_text = (
        percent_text(past_result[return_name], "+", 1)
        for return_name in ("worst_month_return", "worst_month_return_of_holding")
    )
    return (
        f"worst month {past_result['worst_month']} {worst_text} (held {holding_text}); trades {past_result['rebalances']}, costs"
        f" {past_result['costs']} of {int(past_result['value']):,}"
    )
