"""The page of a search in a real Chromium: drawn, quiet, with its verdict on top and a square for each setting of its map."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.text import mentions

pytest.importorskip("numba")

from agent.app.research.report_files import write_pages
from agent.backtest.tune.report import tune_page
from agent.backtest.tune.statistics import Objective
from tests.browser.chromium import PHONE
from tests.browser.conftest import OpenedPage
from tests.support.backtests import search, tune_result_of, walks


@pytest.mark.slow
@pytest.mark.parametrize("objective", [Objective.TRACKING, Objective.GROWTH])
def test_search_page__shows_its_verdict_map_and_walk(objective: Objective, open_page: Callable[..., OpenedPage], tmp_path: Path) -> None:
    tune_result = tune_result_of(search(walks(9, 120), every="7d", tracking="normal,strict", objective=objective))
    path = tmp_path / "tune.html"
    write_pages(tune_page(tune_result), path)
    opened = open_page(path, PHONE)
    assert opened.quiet
    assert mentions(opened.page.inner_text("h1"), "Search for")
    for sentence in tune_result.verdict.sentences:
        assert sentence in opened.page.inner_text(".summary")
    shapes = opened.drawn
    assert len(shapes) == 3  # the last quarter, the map, the walk
    assert shapes[1] == int((~np.isnan(tune_result.heat_map.scores)).sum()) + 1  # a square each, and the ring
    assert min(shapes) >= 1
    assert tune_result.stamp["data"] in opened.page.inner_text("#origin")
    assert opened.ask("document.documentElement.scrollWidth <= window.innerWidth")
