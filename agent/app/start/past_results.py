"""Stored past results of the templates and of small money on rollups, written by scripts/past_results.py."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config.writing.portfolio_templates import SMALL_MONEY

if TYPE_CHECKING:
    from agent.app.documents.owner import PastResultDocument

PAST_BASIS = (
    "backtested on daily prices of 2021 with 10,000 of the numeraire, 0.3 % fees, gas at 1 gwei"
)
SMALL_MONEY_USD = 500
SMALL_MONEY_BASIS = "backtested on daily prices of 2021, 0.3 % fees, ordinary gas and data fee"
_SAMPLE_FOLDER = Path(__file__).parents[2] / "backtest" / "sample"
RESULTS_FILE = _SAMPLE_FOLDER / "templates.json"
SMALL_MONEY_FILE = _SAMPLE_FOLDER / "small_money.json"


def template_result(name: str) -> PastResultDocument | None:
    """Return the stored result of a template (scripts/past_results.py writes it); None without
    one.
    """
    return _stored_results(RESULTS_FILE).get(name)


def small_money_year(network: str) -> str:
    """Return the measured trades and cost of a year of the template for small money; empty on a
    network without a stored result.
    """
    result = _stored_results(SMALL_MONEY_FILE).get(network)
    if result is None:
        return ""
    return (
        f"60/40, band 25 %: about {result['rebalances']} trades and {result['costs']} USDC a year"
        f" with {SMALL_MONEY_USD} USDC on {network} ({result['basis']}; not a forecast)."
    )


def small_money_lines(template: str | None, network: str) -> list[str]:
    """Return the measured year if the template is that for small money and has one there."""
    year = small_money_year(network) if template == SMALL_MONEY else ""
    return [year] if year else []


@cache
def _stored_results(file: Path) -> dict[str, PastResultDocument]:
    results: dict[str, PastResultDocument] = json.loads(file.read_text(encoding="utf-8"))
    return results
