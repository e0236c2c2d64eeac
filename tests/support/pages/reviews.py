"""Reviews of controls in a dashboard."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)
from agent.web.sessions import PlanReview
from tests.support.dashboards import HOSTILE, MARKUP
from tests.support.sites import Site


def review(site: Site, cookie: str, kind: str, document: dict[str, Any] | None, arguments: tuple[tuple[str, str], ...] = ()) -> str:
    """The path of a review of this session whose plan is shown."""
    session = site.access.find_session(cookie.partition("=")[2], touch=False)
    assert session is not None
    name = f"review-{len(session.reviews):015d}"
    session.reviews[name] = PlanReview(kind, arguments, plan_document=document)
    return f"/controls/review/{name}"


def edit_backtest(**more: Any) -> dict[str, Any]:
    """The backtest of an edit, of a source and with a note that are markup."""
    result_document = {"return": "0.5", "max_drawdown": "-0.25", "rebalances": 3, "costs": "1.5"}
    over = {"mean": "0.1", "low": "-0.1", "high": "0.3", "periods": 99, "beyond_chance": False}
    neighbours = {"settings": 20, "folds": 4, "walk_forward": over, "overfitting": "0.625", "split_count": 12_870}
    return {
        "source": MARKUP, "from": "2021-01-01", "until": "2021-12-31", "days": 365, "numeraire": HOSTILE, "start_value": "10000",
        "edited": result_document, "present": result_document,
        "held_return": "1.25", "held_max_drawdown": "-0.5", "over_present": over, "over_holding": None,
        "neighbours": neighbours, "notes": [MARKUP], "edited_hash": "a", "present_hash": "b", "data_hash": "c", **more,
    }  # fmt: skip
