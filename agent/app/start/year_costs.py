"""Rebalances and costs of a year of a new config, in words."""

from __future__ import annotations

from fractions import Fraction

from agent.app.documents.status import (
    DAY_NAMES,
    ORDINARY_DAY_INDEX,
    MinimumTotalDocument,
    coins_text,
    minimum_totals_of_config,
)
from agent.app.start.tracking_losses import year_estimates
from agent.config.schema import Config
from agent.figures import as_sentence
from agent.units import Value


def year_cost_lines(config: Config, numeraire_usd: Fraction, total: Value) -> list[str]:
    """Return two lines: the simulated rebalances and costs of a year with `total`, in whole coins, at
    the gas price of an ordinary day and at the others, or that it is not worth it; before them the
    settings that would change that.
    """
    minimum_totals = minimum_totals_of_config(config, numeraire_usd, total)
    if not minimum_totals:
        return []
    simulated_texts = [
        f"about {estimate.rebalances} rebalances and {estimate.costs} {config.portfolio.numeraire}"
        " a year, simulated,"
        for estimate in year_estimates(config, numeraire_usd, total)
    ] or [""] * len(minimum_totals)
    day_texts = list(map(_day_text, DAY_NAMES, minimum_totals, simulated_texts))
    ordinary_day_text = day_texts.pop(ORDINARY_DAY_INDEX)
    other_texts = "; ".join(filter(None, day_texts))
    ordinary_day = minimum_totals[ORDINARY_DAY_INDEX]
    lines = []
    if ordinary_day["changes"]:
        lines.append(f"To make it worth it: {'; or '.join(ordinary_day['changes'])}.")
    if ordinary_day_text:
        lines.append(f"With {coins_text(total)} {ordinary_day['unit']}: {ordinary_day_text}.")
    if other_texts:
        lines.append(f"{as_sentence(other_texts)}.")
    return lines


def _day_text(day_name: str, minimum_total: MinimumTotalDocument, simulated_text: str) -> str:
    """Return the rebalances and cost at the gas price of such days, or that it is not worth it there;
    empty if neither is known.
    """
    if minimum_total["enough"]:
        gas_text = f"at {minimum_total['gas_gwei']} gwei, the gas price of {day_name} days"
        return f"{simulated_text} {gas_text}" if simulated_text else ""
    return f"not worth it here {unworthy_text(minimum_total)}"


def unworthy_text(minimum_total: MinimumTotalDocument) -> str:
    """Return at which gas price and assumed pool fee a total is not worth it, and from which one it is."""
    gas_text = f"at {minimum_total['gas_gwei']} gwei and an assumed pool fee of {minimum_total['pool_fee_percent']} %"
    if minimum_total["total"] is None:
        return f"{gas_text}, whatever the total"
    least_text = f"{coins_text(Fraction(minimum_total['total']))} {minimum_total['unit']}"
    return f"{gas_text}, only from {least_text}"
