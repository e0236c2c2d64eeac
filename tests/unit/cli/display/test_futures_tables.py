"""Lines below the tables of a simulated futures book: what was not filled, what was left out, hedges with their times."""

from __future__ import annotations

import pytest

from agent.cli.display.futures_tables import _show_book_events as show_book_events
from agent.cli.display.futures_tables import _show_hedge as show_hedge
from agent.cli.display.terminal import Document

BOOK: Document = {"liquidations": [], "deposited": "0", "unfilled": {}, "refused": {}}
HEDGE: Document = {"size": "-2", "symbol": "ETH", "opened": 1_700_000_000, "closed": None, "end": "", "profit": None}


@pytest.mark.parametrize(
    ("unfilled", "refused", "lines"),
    [
        ({"paused": 2}, {"paused": 3}, ["agent: 2 orders unfilled: paused", "agent: 3 orders cut or left out: paused"]),
        ({"paused": 2}, {}, ["agent: 2 orders unfilled: paused"]),
        ({}, {"paused": 3}, ["agent: 3 orders cut or left out: paused"]),
    ],
    ids=["both", "unfilled", "left out"],
)
def test_book_events__unfilled_and_left_out_orders_count_apart(
    capsys: pytest.CaptureFixture[str], unfilled: dict[str, int], refused: dict[str, int], lines: list[str]
) -> None:
    show_book_events("agent", {**BOOK, "unfilled": unfilled, "refused": refused})
    assert capsys.readouterr().out.splitlines() == lines


def test_hedge__both_times_are_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    show_hedge({**HEDGE, "closed": 1_700_086_400, "end": "level"})
    line = " ".join(capsys.readouterr().out.split())
    assert "opened 2023-11-14 22:13 UTC, closed 2023-11-15 22:13 UTC: level" in line
