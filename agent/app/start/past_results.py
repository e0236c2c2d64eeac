"""Stored past results of the templates on each network, written by scripts/make/past_results.py."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES, SMALL_TEMPLATE
from agent.figures import format_figure

if TYPE_CHECKING:
    from agent.app.documents.owner import PastResultDocument


def past_basis(prices: str) -> str:
    """Return what a past result rests on; `prices` says whose they are."""
    return (
        f"backtested on daily prices {prices}, 0.3 % fees, the network's ordinary gas and data fee"
    )


PAST_BASIS = past_basis("of 2021")
OTHER_YEARS_BASIS = past_basis("of Binance, a USDC counted as a USDT")
OTHER_TOKENS_NETWORK = "ethereum"
"""Network on which every template has a past result."""
SMALL_MONEY_USD = 500
TEMPLATE_RESULTS_FILE = Path(__file__).parents[2] / "backtest" / "sample" / "baskets.json"
OTHER_YEARS_FILE = TEMPLATE_RESULTS_FILE.with_name("other_years.json")


def template_result(network: str, name: str) -> PastResultDocument | None:
    """Return the stored result of a template on a network (scripts/make/past_results.py writes it); None
    if the packaged prices lack a token.
    """
    return stored_results().get(network, {}).get(name)


def other_year_results(network: str, name: str) -> list[PastResultDocument]:
    """Return the results of a template on a network in the other recorded years, oldest first; only
    those of which each asset has prices.
    """
    return stored_other_year_results().get(network, {}).get(name, [])


def past_falls_text(network: str, name: str) -> str:
    """Return the largest falls of a template within each year of which every template has prices, on
    a network, or else with the tokens of Ethereum; empty without a result.
    """
    place = network if template_result(network, name) is not None else OTHER_TOKENS_NETWORK
    falls = _falls_by_year(place, name)
    falls_text = " and ".join(
        f"{format_figure(falls[year].lstrip('-'), 'ratio')} in {year}"
        for year in _common_years()
        if year in falls
    )
    if not falls_text:
        return ""
    place_text = "" if place == network else ", with the tokens of Ethereum: those here lack prices"
    return f"Fell at worst by {falls_text}{place_text}"


def _common_years() -> list[str]:
    """Return the years of which every template has prices, oldest first."""
    years = [set(_falls_by_year(OTHER_TOKENS_NETWORK, name)) for name in PORTFOLIO_TEMPLATES]
    return sorted(set.intersection(*years))


def _falls_by_year(network: str, name: str) -> dict[str, str]:
    """Return the largest fall of a template within each recorded year."""
    result = template_result(network, name)
    results = [*([] if result is None else [result]), *other_year_results(network, name)]
    return {past["from"][:4]: past["max_drawdown"] for past in results}


def small_money_year_text(network: str) -> str:
    """Return the measured rebalances and cost of a year of the template for small money; empty on a
    network without a stored result.
    """
    stored_result = template_result(network, SMALL_TEMPLATE)
    if stored_result is None:
        return ""
    count = stored_result["rebalances"]
    return (
        f"Template small, 60/40: {count} rebalance{'s' if count != 1 else ''} and"
        f" {stored_result['costs']} USDC in a year"
        f" with {SMALL_MONEY_USD} USDC on {network} ({stored_result['basis']}; not a forecast)."
    )


def small_money_lines(template: str | None, network: str) -> list[str]:
    """Return the measured year if the template is that for small money and has one there."""
    year_line = small_money_year_text(network) if template == SMALL_TEMPLATE else ""
    if not year_line:
        return []
    return [
        f"Measured in a back-test, beside the estimate above: {year_line} The estimate has the"
        " volatilities and pool fees that it names, the measured year its own, so the number of"
        " rebalances differs."
    ]


@cache
def stored_results() -> dict[str, dict[str, PastResultDocument]]:
    """Return the stored results by network and template."""
    results_by_network: dict[str, dict[str, PastResultDocument]] = json.loads(
        TEMPLATE_RESULTS_FILE.read_text(encoding="utf-8")
    )
    return results_by_network


@cache
def stored_other_year_results() -> dict[str, dict[str, list[PastResultDocument]]]:
    """Return the results of the other years by network and template."""
    results_by_network: dict[str, dict[str, list[PastResultDocument]]] = json.loads(
        OTHER_YEARS_FILE.read_text(encoding="utf-8")
    )
    return results_by_network
