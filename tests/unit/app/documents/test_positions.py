"""Tests of agent/app/documents/positions.py: targets of a strategy's holdings."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.app.documents.positions import strategy_document
from agent.layers.strategies.state import CapitalSplit, StrategyHealth, StrategyState
from agent.reference import reference_prices
from tests.support.builders import NOW_S, books_of, strategy, with_state
from tests.support.strategies import DOWN, UP, shared_step


@pytest.mark.parametrize(("health", "targets_bps"), [(StrategyHealth.ACTIVE, [8_000, 2_000]), (StrategyHealth.PAUSED, [0, 10_000])])
def test_strategy_is_shown_with_its_targets_now(health: StrategyHealth, targets_bps: list[int]) -> None:
    step = shared_step(strategy("up", 5_000, UP), strategy("down", 5_000, DOWN))
    book = books_of(with_state(step, StrategyState("up", health, NOW_S))).by_name["up"]
    prices = dict(reference_prices(step).price_by_token)

    document = strategy_document(book, step.config(CapitalSplit), None, Fraction(1, 2), step.snapshot, step.portfolio, prices)

    assert [holding["target_bps"] for holding in document["holdings"]] == targets_bps
