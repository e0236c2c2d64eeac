"""A no-trade zone with tax.rate: the tax on the next unit sold widens it, and the tax of a plan counts as its cost."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.layers.questions import sale_taxes
from agent.layers.tax.state import TaxState
from agent.model import Hold, LotMethod, OpenLot, Rebalance, RiskCostTradeoff, StepInput, TaxInputs
from agent.planning.proposals import propose_rebalance
from agent.policy.decide import decide
from agent.units import BPS
from tests.support.decisions.zone_plans import deep_step
from tests.support.decisions.zones import FEE, PRICES, WETH, edges, pair_edge, pair_gap, zone_step
from tests.support.text import mentions

NOW_GAS = 0.4312
E18 = 10**18
LOTS = ((40, 1_000, 100), (30, 2_500, 200), (20, 1_500, 300))
"""Coins of WETH, price paid for each, time of purchase; WETH is at 2,000."""


def taxed(step: StepInput, *, method: LotMethod = LotMethod.FIFO, rate_bps: int = 2_500, realised: int = 0) -> StepInput:
    """The step with those lots of WETH."""
    lots = tuple(OpenLot(WETH.address, coins * E18, Fraction(coins * usd * 10**6), at_s) for coins, usd, at_s in LOTS)
    inputs = TaxInputs(method, "", Fraction(1), lots, Fraction(realised), None, rate_bps)
    return step.with_layer(TaxState(inputs))


@pytest.mark.parametrize(
    ("method", "unit_cost"),
    [
        (LotMethod.FIFO, Fraction(1_000)),
        (LotMethod.LIFO, Fraction(1_500)),
        (LotMethod.HIFO, Fraction(2_500)),
        (LotMethod.AVERAGE, Fraction(40 * 1_000 + 30 * 2_500 + 20 * 1_500, 90)),
    ],
)
@pytest.mark.parametrize("rate_bps", [0, 2_500, 10_000])
def test_unit__owes_the_tax_of_the_lot_that_is_next(method: LotMethod, unit_cost: Fraction, rate_bps: int) -> None:
    tax = max(Fraction(0), 1 - unit_cost / 2_000) * rate_bps / BPS
    assert sale_taxes(taxed(zone_step(), method=method, rate_bps=rate_bps), PRICES) == ({WETH.address: tax} if tax else {})


def test_unit__owes_nothing_without_lots_or_beside_larger_losses() -> None:
    assert sale_taxes(zone_step(), PRICES) == {}
    assert sale_taxes(taxed(zone_step(), realised=-1), PRICES) == {}
    no_lots = zone_step().with_layer(TaxState(TaxInputs(LotMethod.FIFO, "", Fraction(1), (), Fraction(0), None, 2_500)))
    assert sale_taxes(no_lots, PRICES) == {}


@pytest.mark.parametrize("rate_bps", [10, 50, 100])
def test_zone__is_wider_only_where_a_sale_is_taxed(rate_bps: int) -> None:
    """Half of the price of the next lot is gain, so a sale costs half of the rate besides the fee."""
    step = taxed(zone_step(), rate_bps=rate_bps)
    fee = FEE + 0.5 * rate_bps / BPS
    assert edges(step) == pytest.approx((pair_edge(fee), pair_edge(fee) + pair_gap(NOW_GAS)), rel=1e-9)
    plain = decide(zone_step()).zone
    interval = decide(step).zone
    assert plain is not None
    assert interval is not None
    assert interval.intervals[0].low == plain.intervals[0].low, "a purchase is not taxed"
    assert interval.intervals[0].trigger_low == plain.intervals[0].trigger_low


@pytest.mark.parametrize(
    ("share", "method", "trades"),
    [
        pytest.param("3/5", LotMethod.FIFO, False, id="first in first out, above"),
        pytest.param("3/5", LotMethod.HIFO, True, id="highest cost first, above"),
        pytest.param("2/5", LotMethod.FIFO, True, id="first in first out, below"),
    ],
)
def test_trigger__waits_for_a_drift_that_is_worth_its_tax(share: str, method: LotMethod, trades: bool) -> None:
    """60 % of WETH is outside the zone; a tax of 12.5 % on the next unit is not worth it, and buying or a lot at a loss owes none."""
    assert isinstance(decide(zone_step(share)).decision, Rebalance)
    decision = decide(taxed(zone_step(share), method=method)).decision
    assert isinstance(decision, Rebalance if trades else Hold)


def test_plan__counts_its_tax_as_a_cost_and_says_so() -> None:
    """The first lots of a sale are at a loss, so it begins; the gain of the later ones makes the whole plan too dear."""
    lots = (OpenLot(WETH.address, E18 // 100, Fraction(30 * 10**6), 1), OpenLot(WETH.address, 60 * E18, Fraction(600 * 10**6), 2))
    free = deep_step("7/10")
    step = free.with_layer(TaxState(TaxInputs(LotMethod.FIFO, "", Fraction(1), lots, Fraction(0), None, 2_500)))
    cheap = propose_rebalance(free)
    dear = propose_rebalance(step)
    assert cheap.plan is not None
    assert isinstance(dear.decision_result.decision, Hold)
    assert mentions(dear.decision_result.decision.reason, "the whole plan would save", "tax")
    zone = dear.decision_result.zone
    assert zone is not None
    assert zone.plan_tradeoff is not None
    sold_coins = sum(leg.amount_in_raw for leg in cheap.plan.legs) / E18
    expected_gain = 2_000 * sold_coins * (1 - FEE) - 30 - 10 * (sold_coins - 0.01)
    assert float(zone.plan_tradeoff.tax) / 10**6 == pytest.approx(expected_gain / 4, rel=2e-3)
    assert zone.plan_tradeoff.cost > zone.plan_tradeoff.saved_risk


@pytest.mark.parametrize(("rate_bps", "realised"), [(0, 0), (2_500, -(10**12)), (2_500, -(10**11))])
def test_plan__without_a_tax_to_pay_is_that_of_before(rate_bps: int, realised: int) -> None:
    free = deep_step("7/10")
    cheap = propose_rebalance(free)
    same = propose_rebalance(taxed(free, rate_bps=rate_bps, realised=realised))
    assert cheap.plan is not None
    assert same.plan is not None
    assert same.plan.legs == cheap.plan.legs


def test_records__of_steps_without_tax_are_read_back() -> None:
    figures = tuple(Fraction(number) for number in range(7))
    plain = RiskCostTradeoff(*figures)
    withtax = RiskCostTradeoff(*figures, Fraction(9))
    assert withtax.cost - plain.cost == 9
    for tradeoff in (plain, withtax):
        assert codec.loads(RiskCostTradeoff, codec.dumps(tradeoff)) == tradeoff
    assert replace(withtax, tax=Fraction(0)) == plain
