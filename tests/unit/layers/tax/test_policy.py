"""Tests of agent/layers/tax/policy.py: the tax on the next unit sold, and zones that count it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.layers.tax.policy import marginal_sale_taxes
from agent.model import Hold, LotMethod, OpenLot, Rebalance, RiskCostTradeoff, StepInput
from agent.planning.proposals import propose_rebalance
from agent.policy.decide import decide
from agent.units import BPS
from tests.support.constants import ETHER, USD
from tests.support.decisions.zone_plans import deep_step
from tests.support.decisions.zones import FEE, PRICES, USDC, WETH, edges, pair_edge, pair_gap, zone_step
from tests.support.taxes import rebalance_plan, with_lots, with_tax
from tests.support.text import mentions

GAS_GAP = 0.4312
"""Cost of gas at the step's price, in dollars."""
LOTS = tuple(
    OpenLot(WETH.address, coins * ETHER, Fraction(coins * cost_usd * USD), at_s)
    for coins, cost_usd, at_s in ((40, 1_000, 100), (30, 2_500, 200), (20, 1_500, 300))
)
"""Lots of WETH, which is at 2,000."""
MEAN_COST = Fraction(40 * 1_000 + 30 * 2_500 + 20 * 1_500, 90)


def taxed(step: StepInput, method: LotMethod = LotMethod.FIFO, rate_bps: int = 2_500, realised: int = 0) -> StepInput:
    return with_lots(step, LOTS, method=method, rate_bps=rate_bps, realised=realised)


# --- the tax of a unit


@pytest.mark.parametrize(
    ("method", "unit_cost"),
    [
        pytest.param(LotMethod.FIFO, Fraction(1_000), id="oldest first"),
        pytest.param(LotMethod.LIFO, Fraction(1_500), id="newest first"),
        pytest.param(LotMethod.HIFO, Fraction(2_500), id="dearest first, a loss"),
        pytest.param(LotMethod.AVERAGE, MEAN_COST, id="average"),
    ],
)
@pytest.mark.parametrize("rate_bps", [0, 2_500, 10_000])
def test_unit_owes_the_tax_of_the_next_lot(method: LotMethod, unit_cost: Fraction, rate_bps: int) -> None:
    tax = max(Fraction(0), 1 - unit_cost / 2_000) * rate_bps / BPS

    assert marginal_sale_taxes(taxed(zone_step(), method, rate_bps), PRICES) == ({WETH.address: tax} if tax else {})


@pytest.mark.parametrize(
    ("realised", "owes"),
    [
        pytest.param(0, True, id="nothing realised"),
        pytest.param(1, True, id="gains"),
        pytest.param(-1, False, id="losses"),
    ],
)
def test_unit_owes_nothing_while_losses_exceed_gains(realised: int, owes: bool) -> None:
    assert (marginal_sale_taxes(taxed(zone_step(), realised=realised), PRICES) != {}) is owes


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(zone_step(), id="no tax table"),
        pytest.param(with_lots(zone_step(), (), rate_bps=2_500), id="no lots"),
    ],
)
def test_unit_owes_nothing_without_tax_or_lots(step: StepInput) -> None:
    assert marginal_sale_taxes(step, PRICES) == {}


def test_unit_without_a_price_has_no_tax() -> None:
    assert marginal_sale_taxes(taxed(zone_step()), {}) == {}


@pytest.mark.parametrize(
    ("currency", "taxes"),
    [pytest.param("", {}, id="in itself"), pytest.param("EUR", {USDC.address: Fraction(1, 8)}, id="in another currency")],
)
def test_unit_of_the_numeraire_owes_tax_only_in_another_currency(currency: str, taxes: dict[str, Fraction]) -> None:
    """Bought at half of its price."""
    step = with_lots(zone_step(), [OpenLot(USDC.address, 100 * USD, Fraction(50 * USD), 1)], rate_bps=2_500)

    assert marginal_sale_taxes(with_tax(step, currency=currency), PRICES) == taxes


def test_unit_in_another_currency_gains_at_its_rate() -> None:
    """At three quarters, a WETH is at 1,500; a third of that is gain."""
    step = with_tax(taxed(zone_step()), currency="EUR", rate=Fraction(3, 4))

    assert marginal_sale_taxes(step, PRICES) == {WETH.address: Fraction(1, 12)}


# --- zones


@pytest.mark.parametrize("rate_bps", [10, 50, 100])
def test_zone_is_wider_only_where_a_sale_is_taxed(rate_bps: int) -> None:
    """Half of the price of the next lot is gain, so a sale costs half of the rate besides the fee."""
    step = taxed(zone_step(), rate_bps=rate_bps)
    fee = FEE + 0.5 * rate_bps / BPS
    untaxed_zone = decide(zone_step()).zone
    zone = decide(step).zone

    assert edges(step) == pytest.approx((pair_edge(fee), pair_edge(fee) + pair_gap(GAS_GAP)), rel=1e-9)
    assert zone.intervals[0].low == untaxed_zone.intervals[0].low, "a purchase is not taxed"
    assert zone.intervals[0].trigger_low == untaxed_zone.intervals[0].trigger_low


@pytest.mark.parametrize(
    ("share", "method", "decision_type"),
    [
        pytest.param("3/5", LotMethod.FIFO, Hold, id="above, a gain"),
        pytest.param("3/5", LotMethod.HIFO, Rebalance, id="above, a loss"),
        pytest.param("2/5", LotMethod.FIFO, Rebalance, id="below"),
    ],
)
def test_zone_waits_for_a_drift_that_is_worth_its_tax(share: str, method: LotMethod, decision_type: type[Hold | Rebalance]) -> None:
    """60 % of WETH is outside the untaxed zone; a tax of 12.5 % on the next unit is not worth it."""
    assert isinstance(decide(zone_step(share)).decision, Rebalance)
    assert isinstance(decide(taxed(zone_step(share), method)).decision, decision_type)


def test_zone_counts_the_tax_of_the_whole_plan() -> None:
    """The first lots of a sale are at a loss, so it begins; the gain of the later ones makes the whole plan too dear."""
    lots = (OpenLot(WETH.address, ETHER // 100, Fraction(30 * USD), 1), OpenLot(WETH.address, 60 * ETHER, Fraction(600 * USD), 2))
    untaxed_step = deep_step("7/10")
    sold_coins = sum(leg.amount_in_raw for leg in rebalance_plan(untaxed_step).legs) / ETHER
    gain_usd = 2_000 * sold_coins * (1 - FEE) - 30 - 10 * (sold_coins - 0.01)

    decision_result = propose_rebalance(with_lots(untaxed_step, lots, rate_bps=2_500)).decision_result
    zone = decision_result.zone

    assert isinstance(decision_result.decision, Hold)
    assert mentions(decision_result.decision.reason, "the whole plan would save", "tax")
    assert float(zone.plan_tradeoff.tax) / USD == pytest.approx(gain_usd / 4, rel=2e-3)
    assert zone.plan_tradeoff.cost > zone.plan_tradeoff.saved_risk


@pytest.mark.parametrize(
    ("rate_bps", "realised"),
    [
        pytest.param(0, 0, id="no rate"),
        pytest.param(2_500, -(10**12), id="large losses"),
        pytest.param(2_500, -(10**11), id="losses"),
    ],
)
def test_zone_without_a_tax_to_pay_plans_as_without_tax(rate_bps: int, realised: int) -> None:
    step = deep_step("7/10")

    assert rebalance_plan(taxed(step, rate_bps=rate_bps, realised=realised)).legs == rebalance_plan(step).legs


def test_tradeoff_without_tax_is_read_back() -> None:
    figures = tuple(Fraction(number) for number in range(7))
    untaxed = RiskCostTradeoff(*figures)
    taxed_tradeoff = RiskCostTradeoff(*figures, Fraction(9))

    assert taxed_tradeoff.cost - untaxed.cost == 9
    assert replace(taxed_tradeoff, tax=Fraction(0)) == untaxed
    for tradeoff in (untaxed, taxed_tradeoff):
        assert codec.loads(RiskCostTradeoff, codec.dumps(tradeoff)) == tradeoff
