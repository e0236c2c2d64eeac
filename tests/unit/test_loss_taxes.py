"""Tax beside the loss of a policy: by hand for one coin, and against the benchmark's own lots on three."""

from __future__ import annotations

import math

import pytest

from agent.backtest.loss.policies import CHOICES, loss_market, loss_policy
from agent.backtest.loss.simulation import LossMarket, LossPolicy
from agent.backtest.loss.taxes import MAX_YEARS, TAXED_GROWTH, LossTax, TaxedPolicy, simulate_taxes
from agent.model import LotMethod
from tests.unit.test_tracking_losses import RULE, portfolio, with_correlations

EVIDENCE = {
    LotMethod.FIFO: (127.1, 241.8, 146.3),
    LotMethod.LIFO: (176.0, 220.9, 179.3),
    LotMethod.HIFO: (94.8, 113.5, 98.8),
}
"""Tax of the rule that knows none, relative 10 % and 20 % to halfway, bps a year at 25 %, growth 15 %, pools of 0.05 %: the part `tax` of
scripts/bench/bench_tracking.py with the seeds 1 to 100.
"""


@pytest.mark.parametrize("method", LotMethod)
@pytest.mark.parametrize("weighs_tax", [False, True])
def test_one_coin_that_only_grows__owes_the_tax_of_its_one_sale(method: LotMethod, weighs_tax: bool) -> None:
    """Half of the portfolio leaves a band of 20 points at a price of 0.7/0.3: 0.2 is sold, 4/7 of which is gain."""
    market = LossMarket((0.5,), ((0.0,),), (0.0,), 0.0, (0.0,), 0.0, math.inf, 1.0)
    band = TaxedPolicy(LossPolicy((0.2, math.inf), (0.0,)), weighs_tax=weighs_tax)
    (loss,) = simulate_taxes(market, LossTax(0.25, method, (TAXED_GROWTH,)), (band,))
    if weighs_tax:  # a coin that does not move has no risk to save
        assert (loss.trades, loss.tax) == (0, 0)
    else:
        assert loss.trades == 1 / MAX_YEARS
        assert loss.tax == pytest.approx(0.25 * 0.2 * 4 / 7 / MAX_YEARS, rel=0.01)


@pytest.mark.parametrize("method", EVIDENCE)
def test_tax__is_near_that_of_the_benchmark(method: LotMethod) -> None:
    book = portfolio()
    market = loss_market(book, with_correlations(RULE))
    simulated = [loss_policy(book, market, choice) for choice in CHOICES[:3]]
    policies = tuple(TaxedPolicy(policy) for policy in simulated if policy is not None)
    losses = simulate_taxes(market, LossTax(0.25, method, (TAXED_GROWTH,) * 3), policies)
    assert [loss.tax * 10_000 for loss in losses] == pytest.approx(EVIDENCE[method], rel=0.1)
    assert losses[0].tax < losses[2].tax * 1.05 < losses[1].tax
