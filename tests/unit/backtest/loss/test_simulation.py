"""agent/backtest/loss/simulation.py: what policies lose on simulated prices."""

from __future__ import annotations

import numpy as np
import pytest

from agent.backtest.loss.simulation import LossMarket, LossPolicy, simulate_losses
from agent.backtest.loss.taxes import LossTax, TaxedPolicy, simulate_taxes
from agent.model import LotMethod

VOLATILITY = 0.65
UNIT_COST = 0.003
LEG_COST = 0.0006
"""1.20 dollars a swap, 2,000 dollars."""
MAX_PLAN_COST = 0.025
REVIEW_YEARS = 28 / 365
MARKET = LossMarket(
    targets=(0.5,),
    covariance=((VOLATILITY**2,),),
    unit_costs=(UNIT_COST,),
    impacts=(0.0,),
    leg_cost=LEG_COST,
    min_trade=0.0,
    max_plan_cost=MAX_PLAN_COST,
    risk_aversion=1.0,
)
EVERY_28_DAYS = LossPolicy(triggers=(0.0, 0.0), edges=(0.0,), interval_years=REVIEW_YEARS, has_schedule=True)


def reviewed_trades_a_year(reviews: int) -> float:
    """Trades of a coin at half the portfolio that is looked at every 28 days and sold or bought to
    its target if the swap costs at most MAX_PLAN_COST.
    """
    generator = np.random.default_rng(7)
    moves = generator.standard_normal(reviews) * VOLATILITY * REVIEW_YEARS**0.5
    share = 0.5
    trades = 0
    for move in np.exp(moves - VOLATILITY**2 / 2 * REVIEW_YEARS):
        share = share * move / (share * move + 1 - share)
        size = abs(share - 0.5)
        if UNIT_COST * size + LEG_COST <= MAX_PLAN_COST * size:
            trades += 1
            share = 0.5
    return trades / (reviews * REVIEW_YEARS)


def test_schedule_too_dear_to_trade__waits_for_its_next_review() -> None:
    (loss,) = simulate_losses(MARKET, (EVERY_28_DAYS,))
    assert loss.trades == pytest.approx(reviewed_trades_a_year(50_000), rel=0.05)


def test_schedule_with_a_tax__waits_for_its_next_review_too() -> None:
    tax = LossTax(0.25, LotMethod.FIFO, (0.0,))
    (loss,) = simulate_taxes(MARKET, tax, (TaxedPolicy(EVERY_28_DAYS),))
    assert loss.trades == pytest.approx(reviewed_trades_a_year(50_000), rel=0.1)
