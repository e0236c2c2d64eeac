"""What trades of the first bar take puts a portfolio behind holding like what any other takes, and a year has 365 days everywhere."""

from __future__ import annotations

import re
from math import log
from pathlib import Path

import numpy as np
import pytest

from agent.backtest import result as paths
from agent.backtest.report.series import growth_series
from agent.backtest.result import RebalancingPremium, rebalancing_premium
from agent.errors import ConfigError
from agent.units import YEAR_S
from tests.support.backtests import hourly, simulation_of, with_series

AGENT = Path(__file__).parents[3] / "agent"


def test_cost_parts__add_up_where_the_first_bar_traded_too() -> None:
    prices = np.array([[1.0, 1.0], [1.5, 1.0], [1.2, 1.0]])
    bought = np.array([0.5, 0.5])
    after = np.array([0.8, 0.2])
    cost = 0.02
    weights = np.vstack([after, after, after])
    costs = np.array([cost, 0.0, 0.0])
    premium = rebalancing_premium(prices, weights, costs, np.arange(3) * 3_600, bought)
    grown = (1 - cost) * (0.8 * 1.5 + 0.2) * (0.8 * 1.2 / 1.5 + 0.2)
    assert premium.advantage == pytest.approx(log(grown / (0.5 * 1.2 + 0.5)), rel=1e-12)
    assert premium.advantage == pytest.approx(premium.excess_growth + premium.off_target - premium.dispersion - premium.costs, rel=1e-12)
    assert premium.costs == pytest.approx(-log(1 - cost), rel=1e-12)
    with pytest.raises(ConfigError, match="initial weights"):
        rebalancing_premium(prices, weights, costs, np.arange(3) * 3_600, np.array([0.5, 0.4]))


def test_a_page_is_behind_holding_by_what_the_first_bar_took(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[np.ndarray] = []

    def seen(*tables: np.ndarray) -> RebalancingPremium:
        requests.append(tables[-1])
        return rebalancing_premium(*tables)

    monkeypatch.setattr(paths, "rebalancing_premium", seen)
    simulation = simulation_of(hourly(BTC=[100.0, 101, 102]))
    assert requests[0] == pytest.approx([0.5, 0.5])
    dear = growth_series(with_series(simulation, equity=simulation.equity * 0.99))
    assert float(dear.unit_growth[-1] / dear.hold_unit_growth[-1]) == pytest.approx(
        0.99 * float(simulation.equity[-1] / simulation.hold_equity[-1])
    )
    assert (float(dear.unit_growth[0]), float(dear.hold_unit_growth[0])) == pytest.approx((0.99, 1.0))


def test_a_year_has_365_days_everywhere() -> None:
    assert YEAR_S == 365 * 86_400
    others = [str(path) for path in AGENT.rglob("*.py") if re.search(r"365\.25|31_?557_?600", path.read_text())]
    assert others == []
