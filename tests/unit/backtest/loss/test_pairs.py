"""agent/backtest/loss/: two coins that are exchanged for each other, in what policies lose."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from agent.backtest.loss.estimates import policy_losses
from agent.backtest.loss.policies import CHOICES, RULE, RULE_AFTER_TAX, ComparedPolicy, LossPair, LossPortfolio, loss_market, loss_policy
from agent.backtest.loss.simulation import LossMarket, LossPolicy, PolicyBook
from agent.backtest.loss.taxes import LossTax
from agent.model import LotMethod
from agent.units import BPS
from tests.support.decisions.tracking_losses import DEPTH, loss_portfolio, with_correlations
from tests.support.decisions.tracking_losses import RULE as RULE_TRIGGER

COINS = {"WBTC": 3_500, "WETH": 3_500}
PLAYED = {
    (30, 5, 0.0): (4.49, 1.68),
    (30, 5, 1.2): (6.43, 3.68),
    (10, 5, 0.0): (2.19, 0.97),
    (100, 30, 0.1): (10.28, 4.35),
    (30, 20, 0.0): (4.66, 2.07),
}
"""Costs and drift of the rule in bps a year, by the costs of the coins' swaps for cash and for each other in bps and the gas of a swap
in bps of the portfolio: mean of twice twenty years of hours in scripts/tracking/tracking_market.py, volatilities of 50 and 65 %,
correlation of 80 %.
"""


def two_coins(pair_bps: float | None = 5, cash_bps: float = 30, gas_bps: float = 0.0, value: int = BPS) -> LossPortfolio:
    """Two coins, with a pool of their own that costs `pair_bps`."""
    pairs = () if pair_bps is None else (LossPair(0, 1, pair_bps / BPS, Fraction(DEPTH)),)
    portfolio = loss_portfolio(cash_bps, str(gas_bps * value / BPS), value, COINS)
    return replace(portfolio, pairs=pairs, min_trade=Fraction(0))


def market_of(portfolio: LossPortfolio) -> LossMarket:
    return loss_market(portfolio, with_correlations(RULE_TRIGGER))


@pytest.mark.parametrize("bps", PLAYED, ids=str)
def test_rule_of_a_pair__loses_what_the_benchmark_plays(bps: tuple[int, int, float]) -> None:
    cash_bps, pair_bps, gas_bps = bps
    portfolio = two_coins(pair_bps, cash_bps, gas_bps)
    loss = policy_losses(portfolio, market_of(portfolio), [RULE], None)[RULE]
    assert (loss.costs * BPS, loss.drift * BPS) == pytest.approx(PLAYED[bps], rel=0.15)


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.name)
def test_policy__loses_less_where_two_coins_have_a_cheap_pool(choice: ComparedPolicy) -> None:
    losses = [policy_losses(portfolio, market_of(portfolio), CHOICES, None)[choice].total for portfolio in (two_coins(), two_coins(None))]
    assert losses[0] < 0.99 * losses[1]


@pytest.mark.parametrize(
    ("drifts", "cost_bps"),
    [
        pytest.param((0.10, -0.06), 0.06 * 5 + 0.04 * 30, id="more sold than bought"),
        pytest.param((-0.06, 0.10), 0.06 * 5 + 0.04 * 30, id="more bought than sold"),
        pytest.param((0.05, -0.05), 0.05 * 5, id="exchanged whole"),
        pytest.param((0.05, 0.03), 0.08 * 30, id="both sold"),
        pytest.param((0.05, 0.0), 0.05 * 30, id="one sold"),
    ],
)
def test_band__exchanges_what_is_sold_for_what_is_bought(drifts: tuple[float, float], cost_bps: float) -> None:
    market = replace(market_of(two_coins()), impacts=(0.0,) * 3)
    band = LossPolicy((0.01, 0.01, math.inf, math.inf), (0.0,) * 3)
    amounts, costs = PolicyBook(market, [band]).plans(np.array([drifts]), np.array([0]))
    assert amounts[0] == pytest.approx(drifts)
    assert costs[0] * BPS == pytest.approx(cost_bps)


def test_rule__fires_on_a_pair_while_both_coins_are_within_their_own_triggers() -> None:
    market = market_of(two_coins())
    policy = loss_policy(two_coins(), market, RULE)
    assert policy is not None
    book = PolicyBook(market, [policy])
    drift = np.array([0.03, -0.03])
    signals = np.abs(drift @ book.signals[0])
    assert list(signals > book.triggers[0]) == [False, False, True, False]
    amounts, costs = book.plans(drift[None, :], np.array([0]))
    assert amounts[0, 0] == -amounts[0, 1] > 0
    assert costs[0] * BPS == pytest.approx(amounts[0, 0] * 5, rel=0.01)


def test_rules_of_pairs_that_contradict_one_another__do_not_count() -> None:
    """The first coin would move with the second, and that with the third, but not the first with the third."""
    variance = 0.65**2
    market = LossMarket(
        targets=(0.25,) * 3,
        covariance=((variance, 0.0, 0.0), (0.0, variance, 0.0), (0.0, 0.0, variance)),
        unit_costs=(0.003, 0.003, 0.003, 0.0005, 0.0005),
        impacts=(0.0,) * 5,
        leg_cost=0.0,
        min_trade=0.0,
        max_plan_cost=1.0,
        risk_aversion=1.0,
        pairs=((0, 1), (1, 2)),
    )
    in_a_row = loss_policy(loss_portfolio(), market, RULE)
    joined = loss_policy(
        loss_portfolio(), replace(market, unit_costs=(*market.unit_costs, 0.001), impacts=(0.0,) * 6, pairs=(*market.pairs, (0, 2))), RULE
    )
    assert in_a_row is not None
    assert joined is not None
    assert in_a_row.triggers[3:] == (math.inf,) * 3
    assert all(trigger < math.inf for trigger in joined.triggers[3:6])


@pytest.mark.parametrize(("rate", "least_share", "largest_share"), [(1e-9, 0.98, 1.02), (0.25, 0.9, 1.0)], ids=["no tax", "25 %"])
def test_rule_after_tax__loses_what_the_rule_does_or_less(rate: float, least_share: float, largest_share: float) -> None:
    portfolio = two_coins()
    tax = LossTax(rate, LotMethod.FIFO, (0.15, 0.15))
    losses = policy_losses(portfolio, market_of(portfolio), [RULE, RULE_AFTER_TAX], tax)
    assert least_share < losses[RULE_AFTER_TAX].total_if_sold / losses[RULE].total_if_sold < largest_share
