"""The imaginary cash that paper trading begins with."""

from __future__ import annotations

import pytest

from agent.app.start.amounts import paper_capital


@pytest.mark.parametrize(
    ("use_cash", "ceiling", "capital"),
    [
        pytest.param("400", "1000", "400", id="cash of the config"),
        pytest.param(None, "1000", "666", id="two thirds of the ceiling"),
        pytest.param(None, "30", "20", id="small ceiling"),
        pytest.param(None, "75.3", "50.2", id="cents"),
        pytest.param(None, None, "666", id="no ceiling"),
    ],
)
def test_paper_capital__leaves_room_below_the_ceiling(use_cash: str | None, ceiling: str | None, capital: str) -> None:
    assert paper_capital(use_cash, ceiling) == capital
