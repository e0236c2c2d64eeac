"""BTC +10 %, ETH −15 %, and every pool only with the dollar: ten days of hours in which the exchange of one for the other is too dear."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from agent.backtest.data import PriceTable
from agent.backtest.result import SimulationResult
from agent.backtest.settings import PERMISSIVE_LIMITS, SimulationSettings, make_spec
from agent.backtest.simulate import simulate
from agent.model import Destination, Threshold, Trigger
from agent.policy.triggers.no_trade_zone import build_tracking
from tests.support.backtests import COIN, hourly

HOURS = 240
MOVE_HOUR = 6
TARGETS_BPS = {"BTC": 5_000, "ETH": 3_000, "USD": 2_000}
RELATIVE_BAND = Threshold(None, 1_000)


def moved_prices(seed: int) -> PriceTable:
    """Return prices that move once, and by a quarter of a percent from hour to hour."""
    noise = np.exp(np.random.default_rng(seed).normal(0, 0.0025, (HOURS, 2)))
    is_before = np.arange(HOURS) < MOVE_HOUR
    bitcoin = np.where(is_before, 100, 110) * noise[:, 0]
    ether = np.where(is_before, 100, 85) * noise[:, 1]
    return hourly(BTC=bitcoin.round(4).tolist(), ETH=ether.round(4).tolist())


def ten_days(trigger: Trigger, destination: Destination, seed: int, fee_pips: int) -> SimulationResult:
    """Play the prices with 50,000 dollars and a plan_cost of 50 bps."""
    spec = make_spec(TARGETS_BPS, trigger, "USD", native="ETH", destination=destination)
    limits = replace(PERMISSIVE_LIMITS, plan_cost_bps=50, min_trade=Fraction(10 * COIN))
    settings = SimulationSettings(Fraction(10**8), fee_pips, Fraction(50_000), gas_price_wei=10**7)
    return simulate(replace(spec, limits=limits), moved_prices(seed), settings)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("trigger", "destination"),
    [
        pytest.param(RELATIVE_BAND, Destination.TARGET, id="relative band"),
        pytest.param(build_tracking("strict"), Destination.ZONE, id="tracking"),
    ],
)
def test_drift__without_a_route_within_plan_cost_is_not_traded(trigger: Trigger, destination: Destination, seed: int) -> None:
    """With pools of 30 bps the exchange costs 60. Before, the band traded 66 to 78 times and never corrected ETH."""
    result = ten_days(trigger, destination, seed, 3_000)

    assert len(result.rebalances) <= 1


def test_drift__of_the_same_prices_is_corrected_by_cheap_pools() -> None:
    """With pools of 5 bps the exchange costs 10."""
    result = ten_days(RELATIVE_BAND, Destination.TARGET, 1, 500)

    assert result.rebalances
