"""Stored past results of the templates, written by scripts/past_results.py."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.app.documents.owner import PastResultDocument

PAST_BASIS = (
    "backtested on daily prices of 2021 with 10,000 of the numeraire, 0.3 % fees, gas at 1 gwei"
)
RESULTS_FILE = Path(__file__).parents[2] / "backtest" / "sample" / "templates.json"


def template_result(name: str) -> PastResultDocument | None:
    """Return the stored result of a template (scripts/past_results.py writes it); None without
    one.
    """
    return _stored_results().get(name)


@cache
def _stored_results() -> dict[str, PastResultDocument]:
    results: dict[str, PastResultDocument] = json.loads(RESULTS_FILE.read_text(encoding="utf-8"))
    return results
