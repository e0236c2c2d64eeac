"""Tax beside the loss of a policy: by hand for one coin, and against the benchmark's own lots on three."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest

from agent.backtest.loss.estimates import policy_losses, portfolio_tax, untaxed_reason
from agent.backtest.loss.policies import CHOICES, RULE_AFTER_TAX, ComparedPolicy, loss_market
from agent.backtest.loss.simulation import MAX_YEARS, LossMarket, LossPolicy, SimulatedLoss
from agent.backtest.loss.taxes import TAXED_GROWTH, LossTax, TaxedPolicy, simulate_taxes
from agent.backtest.settings import TaxRule
from agent.model import Destination, Every, LotMethod, Threshold, Trigger
from tests.support.decisions.tracking_losses import RULE, loss_portfolio, with_correlations

EVIDENCE = {
    LotMethod.FIFO: ((49.2, 0.0, 146.9), (12.2, 47.7, 129.7), (8.3, 241.8, 263.6), (4.6, 146.3, 176.3)),
    LotMethod.LIFO: ((69.3, 0.0, 148.3), (18.1, 80.6, 138.9), (8.3, 220.9, 222.0), (4.6, 179.3, 187.3)),
    LotMethod.HIFO: ((47.9, 0.0, 146.5), (11.6, 47.6, 129.1), (8.3, 113.5, 186.1), (4.6, 98.8, 157.4)),
}
"""Loss, tax, and both with all gains sold at the end, of the rule whose plans pay their whole tax, the rule after tax, relative 10 % and
20 % to halfway, bps a year at 25 %, growth 15 %, pools of 0.05 %: the part `tax` of scripts/bench/bench_tracking.py with the seeds 1 to
100.
"""


def growth_loss(method: LotMethod, *, weighs_tax: bool) -> SimulatedLoss:
    """Return the loss of one coin that only grows, in a band of 20 points."""
    market = LossMarket((0.5,), ((0.0,),), (0.0,), (0.0,), 0.0, 0.0, math.inf, 1.0)
    band = TaxedPolicy(LossPolicy((0.2, math.inf), (0.0,)), weighs_tax=weighs_tax)
    (loss,) = simulate_taxes(market, LossTax(0.25, method, (TAXED_GROWTH,)), (band,))
    return loss


@pytest.mark.parametrize("method", LotMethod)
def test_one_coin_that_only_grows__owes_the_tax_of_its_one_sale(method: LotMethod) -> None:
    """Half of the portfolio leaves the band at a price of 0.7/0.3: 0.2 is sold, 4/7 of which is gain."""
    loss = growth_loss(method, weighs_tax=False)
    assert loss.trades == 1 / MAX_YEARS
    assert loss.tax == pytest.approx(0.25 * 0.2 * 4 / 7 / MAX_YEARS, rel=0.01)


@pytest.mark.parametrize("method", LotMethod)
def test_one_coin_that_only_grows__is_kept_if_its_tax_is_weighed(method: LotMethod) -> None:
    """A coin that does not move has no risk to save."""
    loss = growth_loss(method, weighs_tax=True)
    assert (loss.trades, loss.tax) == (0, 0)


@pytest.mark.parametrize("method", EVIDENCE)
def test_loss_and_tax__are_near_those_of_the_benchmark(method: LotMethod) -> None:
    """The benchmark looks every hour. In bars of 3.65 days a plan that pays its whole tax is made later."""
    book = loss_portfolio()
    market = loss_market(book, with_correlations(RULE))
    tax = portfolio_tax(book, TaxRule(method, None, 2_500))
    losses = policy_losses(book, market, (CHOICES[0], RULE_AFTER_TAX, *CHOICES[1:3]), tax)
    figures = [(10_000 * (loss.costs + loss.drift), 10_000 * loss.tax, 10_000 * loss.total_if_sold) for loss in losses.values()]
    assert figures[0] == pytest.approx(EVIDENCE[method][0], rel=0.25, abs=0.01)
    for row, evidence in zip(figures[1:], EVIDENCE[method][1:], strict=True):
        assert row == pytest.approx(evidence, rel=0.1)


@pytest.mark.parametrize(
    ("trigger", "rate_bps"),
    [(Every(28 * 86_400), 2_500), (Every(86_400), 10_000), (Threshold(500, None), 1)],
    ids=["28 d", "1 d at 100 %", "band at 1 bp"],
)
def test_tax_of_bands_and_schedules__grows_with_its_rate_alone(trigger: Trigger, rate_bps: int) -> None:
    book = loss_portfolio()
    market = loss_market(book, trigger)
    choice = ComparedPolicy(trigger, Destination.TARGET)
    untaxed, taxed, doubly_taxed = (
        policy_losses(book, market, [choice], tax)[choice]
        for tax in (None, *(LossTax(rate / 10_000, LotMethod.AVERAGE, (TAXED_GROWTH,) * 3) for rate in (rate_bps, 2 * rate_bps)))
    )
    assert (taxed.costs, taxed.drift, taxed.trades) == (untaxed.costs, untaxed.drift, untaxed.trades)
    assert 0 < taxed.tax < taxed.tax + taxed.tax_left
    assert (doubly_taxed.tax, doubly_taxed.tax_left) == pytest.approx((2 * taxed.tax, 2 * taxed.tax_left))


@pytest.mark.parametrize(
    ("rate_bps", "limit", "numeraire", "reason"),
    [
        (0, None, "WETH", ""),
        (2_500, None, "USDC", ""),
        (2_500, Fraction(0), "USDC", "tax.year_limit"),
        (1, None, "WETH", "WETH is no currency"),
    ],
    ids=["no tax", "taxed", "yearly limit", "coin as numeraire"],
)
def test_tax_that_cannot_be_simulated__has_a_reason(rate_bps: int, limit: Fraction | None, numeraire: str, reason: str) -> None:
    book = loss_portfolio()
    book = replace(book, numeraire=replace(book.numeraire, symbol=numeraire))
    rule = TaxRule(LotMethod.FIFO, limit, rate_bps)
    untaxed = untaxed_reason(book, rule)
    assert bool(untaxed) is bool(reason)
    assert untaxed.startswith(reason)
    assert (portfolio_tax(book, rule) is None) == (bool(reason) or not rate_bps)


def test_currencies_do_not_grow() -> None:
    tax = portfolio_tax(loss_portfolio(targets={"WETH": 4_000, "DAI": 3_000}), TaxRule(LotMethod.FIFO, None, 2_500))
    assert tax.growths == (TAXED_GROWTH, 0.0)
