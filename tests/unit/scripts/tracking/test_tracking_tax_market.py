"""Tax lots of the simulated markets: what a sale takes and owes, and that without them a rule does what it does."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from scripts.bench.bench_tracking import Cell, rule_of, taxed_ranges, three_coins
from scripts.tracking.tracking_market import BAND, RULE, Rule, cash_legs, gaussian_market, market_of, run
from scripts.tracking.tracking_tax import FIFO, HIFO, LIFO, MAX_LOTS, run_taxed, sell, tax_on


@pytest.mark.parametrize(("method", "gain"), [(FIFO, 100 + 25), (LIFO, 80 + 25), (HIFO, 50 + 40)])
def test_sale__takes_its_lots_by_the_method(method: int, gain: float) -> None:
    """Lots of one coin at 100, 150 and 120; one and a half are sold at 200."""
    units = np.zeros((1, MAX_LOTS))
    costs = np.zeros((1, MAX_LOTS))
    units[0, :3] = 1.0
    costs[0, :3] = (100.0, 150.0, 120.0)
    counts = np.array([3])
    assert sell(0, 1.5, 200.0, method, units, costs, counts) == pytest.approx(gain)
    assert counts[0] == 2


@pytest.mark.parametrize(
    ("gain", "year_gain", "tax"),
    [
        pytest.param(100, 0, 25, id="gain"),
        pytest.param(100, -60, 10, id="gain after a loss"),
        pytest.param(-40, 100, -10, id="loss after a gain"),
        pytest.param(-40, -5, 0, id="loss after a loss"),
        pytest.param(40, -60, 0, id="gain below the losses"),
    ],
)
def test_tax__is_that_of_the_year_less_its_losses(gain: float, year_gain: float, tax: float) -> None:
    assert tax_on(gain, year_gain, 0.25) == pytest.approx(tax)


@pytest.mark.slow  # compiles both simulations
def test_rule_without_tax__costs_what_it_costs_without_lots() -> None:
    world = three_coins(5.0)
    legs = Cell(world, 0.03, 50_000, 1.0).legs()
    market = gaussian_market(world.volatilities, world.correlation, 1, 3)
    risk, triggers, _ = rule_of(market.covariance, world.weights, legs, 1.0)
    usual = run(market, world.weights, legs, Rule(RULE, risk=risk, widths=triggers))
    ranges = taxed_ranges(market.covariance, world.weights, legs, 0.0)
    outcome = run_taxed(market, world.weights, legs, Rule(RULE), FIFO, 0.25, ranges=ranges)
    assert outcome.trades == usual.trades > 5
    assert (outcome.cost, outcome.variance) == pytest.approx((usual.cost, usual.variance))


def test_band__that_sells_once__owes_the_tax_of_what_it_sold() -> None:
    """Half of a coin doubles: of 1.5 in all 1 is the coin, and 0.25 of it is sold, half of it gain."""
    market = market_of(np.array([[0.0], [1.0], [0.0]]), np.array([[0.36]]), 1 / 8_760)
    outcome = run_taxed(market, np.array([0.5, 0.5]), cash_legs([5.0]), Rule(BAND, widths=np.array([0.1, 0.1])), FIFO, 0.25)
    assert outcome.tax * market.years == pytest.approx(0.25 * 0.125 / 1.5)
    assert outcome.tax_if_sold * market.years == pytest.approx(0.25 * 0.5 / 1.5)
