"""Figures of a backtest that contradict each other: no page and no document of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("empyrical")

from agent.backtest.report.backtest import backtest_page
from agent.backtest.report.series import backtest_document, growth_series
from agent.backtest.result import SimulationResult
from agent.backtest.settings import make_spec
from agent.errors import Refused
from agent.model import Every
from tests.support.backtests import DAY_S, WALKING, result_of, simulation_of, walks

CONTRADICTIONS: dict[str, tuple[Callable[[SimulationResult], dict[str, Any]], str]] = {
    "return": (lambda result: {"twr": result.twr + 2e-6}, "growth and time-weighted return"),
    "return of holding": (lambda result: {"hold_twr": result.hold_twr - 1e-3}, "growth and return of holding"),
    "return that is not a number": (lambda _: {"twr": float("nan")}, "growth and time-weighted return"),
    "final value": (lambda result: {"final_value": result.final_value * 2}, "final value and its series"),
    "value of holding": (lambda result: {"hold_value": result.hold_value / 2}, "value of holding and its series"),
    "fees": (lambda result: {"fees": result.fees + result.start_value / 100}, "fees and those of each rebalance"),
    "impact": (lambda result: {"impact": result.start_value / 1_000}, "impact and that of each rebalance"),
    "premium": (
        lambda result: {"premium": None if result.premium is None else replace(result.premium, costs=0.5)},
        "excess return and its parts",
    ),
    "a transfer left out": (lambda result: {"transfers": result.transfers[:-1]}, "growth and time-weighted return"),
}


@pytest.mark.parametrize("make", [backtest_page, backtest_document], ids=["page", "document"])
@pytest.mark.parametrize(("change", "name"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_contradiction_is_refused_by_the_names_of_its_figures(
    change: Callable[[SimulationResult], dict[str, Any]], name: str, make: Callable[[SimulationResult], object]
) -> None:
    result = result_of(flows=((120, 5_000.0), (120, -2_000.0)))
    make(result)
    with pytest.raises(Refused, match=name) as refusal:
        make(replace(result, **change(result)))
    assert name in refusal.value.guards


def test_simulation__agrees_with_itself_more_than_it_has_to() -> None:
    result = simulation_of(walks(3, 60), make_spec(WALKING, Every(7 * DAY_S), "USD"))
    assert float(result.final_value / result.start_value) - 1 == pytest.approx(result.twr, abs=1e-12)
    assert growth_series(result).unit_growth[-1] - 1 == pytest.approx(result.twr, abs=1e-12)
