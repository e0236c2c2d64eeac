"""Correcting an asset now against a year of waiting: both in dollars, by hand."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.model import Hold, TrackingRisk
from agent.policy.decide import decide
from agent.policy.risk import aversion, covariance
from agent.policy.triggers.corrections import Correction, CorrectionTerms
from tests.support.builders import token
from tests.support.decisions.tracking import balance_changes, interval, tracking_step, zone_of

USD_RAW = 10**6
COIN_INDEX = 0
CASH_INDEX = 1
CALM_CASH = TrackingRisk(Fraction(1, 2), None, (("coin", 6_000), ("cash", 0)), (("coin", "cash", 0),))
"""λ of 1, and a coin whose price in cash has an annual variance of 0.36."""
MOVING_CASH = replace(CALM_CASH, volatilities_bps=(("coin", 6_000), ("cash", 3_000)), correlations_bps=(("coin", "cash", 5_000),))
"""Variance of the coin in cash: 0.36 + 0.09 - 2·0.5·0.6·0.3 = 0.27."""
POINT = Fraction(1, 100)


def terms(risk: TrackingRisk = CALM_CASH) -> CorrectionTerms:
    """50,000 dollars; 30 bps to sell the coin and 5 bps to buy it, half a dollar of gas."""
    costs = {(COIN_INDEX, CASH_INDEX): Fraction(30, 10_000), (CASH_INDEX, COIN_INDEX): Fraction(5, 10_000)}
    sigma = covariance(risk, ["coin", "cash"])
    return CorrectionTerms(aversion(risk), sigma, costs, Fraction(USD_RAW, 2), Fraction(50_000 * USD_RAW))


def dollars(correction: Correction | None) -> tuple[float, float]:
    return float(correction.cost) / USD_RAW, float(correction.waiting_year) / USD_RAW


@pytest.mark.parametrize(
    ("risk", "deviation", "cost", "waiting"),
    [
        pytest.param(CALM_CASH, 8 * POINT, 0.003 * 1_500 + 0.5, 0.5 * 0.36 * (0.0064 - 0.0025) * 50_000, id="sold at 30 bps"),
        pytest.param(CALM_CASH, -8 * POINT, 0.0005 * 1_500 + 0.5, 35.10, id="bought at 5 bps"),
        pytest.param(MOVING_CASH, 8 * POINT, 5.00, 0.5 * 0.27 * 0.0039 * 50_000, id="numeraire that moves"),
    ],
)
def test_correction_of_eight_points_to_an_edge_of_five(risk: TrackingRisk, deviation: Fraction, cost: float, waiting: float) -> None:
    assert dollars(terms(risk).correction(COIN_INDEX, CASH_INDEX, deviation, 3 * POINT)) == pytest.approx((cost, waiting), rel=1e-12)


def test_correction_begins_a_millionth_beyond_the_edge() -> None:
    assert terms().correction(COIN_INDEX, CASH_INDEX, 5 * POINT, Fraction(0)) is None
    assert terms().correction(COIN_INDEX, CASH_INDEX, 5 * POINT + Fraction(1, 10**6), Fraction(1, 10**6)) is not None


def test_correction_without_a_route_has_no_figure() -> None:
    one_way = replace(terms(), unit_costs={(COIN_INDEX, CASH_INDEX): Fraction(30, 10_000)})
    assert one_way.correction(COIN_INDEX, CASH_INDEX, -8 * POINT, 3 * POINT) is None
    assert one_way.correction(COIN_INDEX, CASH_INDEX, 8 * POINT, 3 * POINT) is not None


def test_correction_prices_route_gas_and_class_of_the_coin() -> None:
    """WETH at 31 %, others on target: 65 % a year, pools of 0.3 %, 150,000 gas at a quarter of a gwei and 2,000 dollars."""
    weth = interval(tracking_step(balance_changes(WETH=3_000)), "WETH")
    deviation = 0.06
    edge = float(weth.high) - 0.25
    cost = 0.003 * (deviation - edge) * 50_000 + 150_000 * 0.25e-9 * 2_000
    waiting = 0.5 * (0.65**2 + 0.001**2) * (deviation**2 - edge**2) * 50_000
    assert dollars(weth.correction) == pytest.approx((cost, waiting), rel=1e-4)


@pytest.mark.parametrize("points", [-6, 6], ids=["below", "above"])
def test_assets_within_their_edges_have_no_correction(points: int) -> None:
    zone = zone_of(tracking_step(balance_changes(LINK=500 * points)))
    corrected = [row.token for row in zone.intervals if row.correction is not None]
    assert corrected == [token("LINK").address]


def test_costly_waiting_still_waits_for_its_trigger() -> None:
    step = tracking_step(balance_changes(WETH=2_700))
    cost, waiting = dollars(interval(step, "WETH").correction)
    assert waiting > cost
    assert isinstance(decide(step).decision, Hold)
