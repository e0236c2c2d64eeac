"""Tests of agent/layers/strategies/policy/netting.py: strategies whose capital is beyond the band of the split."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.layers.strategies.policy.capital import StrategyHoldings
from agent.layers.strategies.policy.netting import capital_signals
from agent.layers.strategies.state import StrategiesState, StrategyBook, StrategyBooks, StrategyHealth, StrategyState
from tests.support.builders import NOW_S, split, strategy
from tests.support.tokens import USDC


@pytest.mark.parametrize(
    ("first_raw", "is_paused", "signals"),
    [
        pytest.param(6_000, False, set(), id="at the upper edge"),
        pytest.param(6_001, False, {("too much capital", "a"), ("too little capital", "b")}, id="above the upper edge"),
        pytest.param(4_000, False, set(), id="at the lower edge"),
        pytest.param(3_999, False, {("too little capital", "a"), ("too much capital", "b")}, id="below the lower edge"),
        pytest.param(1_001, True, set(), id="paused, at the edge"),
        pytest.param(1_002, True, {("too much capital", "a")}, id="paused, above the edge"),
    ],
)
def test_capital_on_the_edge_of_its_band_is_left(first_raw: int, is_paused: bool, signals: set[tuple[str, str]]) -> None:
    """Halves with a band of 20 %; a paused strategy with a floor of 10 % may hold a basis point more."""
    config = split(strategy("a", 5_000, {"USDC": 10_000}, floor_bps=1_000), strategy("b", 5_000, {"USDC": 10_000}))
    health_by_name = {"a": StrategyHealth.PAUSED if is_paused else StrategyHealth.ACTIVE, "b": StrategyHealth.ACTIVE}
    books = tuple(StrategyBook(name, (), 0, StrategyState(name, health, NOW_S)) for name, health in health_by_name.items())
    holdings: StrategyHoldings = {"a": {USDC.address: first_raw}, "b": {USDC.address: 10_000 - first_raw}}

    assert capital_signals(config, StrategiesState(StrategyBooks(books)), holdings, {USDC.address: Fraction(1)}) == signals


def test_capital_signals_are_none_without_books() -> None:
    assert capital_signals(split(), StrategiesState(), {}, {}) == frozenset()
