"""What a run loses against a perfect tracker: trading costs, and ½·λ·TE² for its tracking error.

TE is the annual volatility of the active return: of the portfolio, less a portfolio without costs
that is at the targets in force after every bar. Unlike growth, the loss of a setting depends little
on where prices go, so that a few years of prices rank settings much as others do.
"""

from __future__ import annotations

import numpy as np

from agent.backtest.result import SimulationResult
from agent.backtest.settings import BacktestSpec
from agent.floats import FloatArray
from agent.model import STRICTNESS_COST_BPS
from agent.policy.triggers.no_trade_zone import DEFAULT_STRICTNESS

RISK_AVERSION = float(2 * STRICTNESS_COST_BPS[DEFAULT_STRICTNESS])
"""λ of the loss: that of the default strictness, whatever a setting's own."""


def drift_of(active_variance: FloatArray) -> FloatArray:
    """Return ½·λ times the active variance."""
    drift: FloatArray = RISK_AVERSION / 2 * active_variance
    return drift


def step_losses(spec: BacktestSpec, result: SimulationResult) -> tuple[FloatArray, FloatArray]:
    """Return what a run of the full step has lost until each bar: trading costs as shares of the
    portfolio at each trade, and the sum of squared active returns. Reserves are no part of the
    portfolio.
    """
    coin = 10.0**result.decimals
    cost_shares = np.zeros(result.bar_count)
    for rebalance in result.rebalances:
        cost = float(rebalance.fees + rebalance.impact + rebalance.gas) / coin
        cost_shares[rebalance.bar] += cost / (float(result.equity[rebalance.bar]) + cost)
    reserves = [asset.reserve_raw / 10.0**asset.token.decimals for asset in spec.portfolio.assets]
    values = np.maximum(
        result.weights * result.equity[:, None] - np.array(reserves) * result.prices, 0.0
    )
    totals = values.sum(axis=1, keepdims=True)
    weights = np.divide(values, totals, out=np.zeros_like(values), where=totals > 0)
    returns = result.prices[1:] / result.prices[:-1] - 1
    # before a step has chosen targets, there are none to be off
    deviations = np.nan_to_num(weights - result.targets)[:-1]
    active_returns = (deviations * returns).sum(axis=1)
    return np.cumsum(cost_shares), np.concatenate([[0.0], np.cumsum(active_returns**2)])


def balanced_growth(prices: FloatArray, targets: FloatArray) -> FloatArray:
    """Return the growth of a portfolio at its targets from each bar to the next, by `prices` of each
    asset and bar.
    """
    growth: FloatArray = targets @ (prices[:, 1:] / prices[:, :-1])
    return growth


def active_variance(
    balanced: FloatArray, values: FloatArray, cost_shares: FloatArray
) -> FloatArray:
    """Return the sum of squared active returns until each bar of a run of the kernel, by its value
    and costs so far at every bar, against `balanced_growth`.
    """
    shares_kept = 1 - np.diff(cost_shares)
    active_returns = values[1:] / (values[:-1] * shares_kept) - balanced
    return np.concatenate([[0.0], np.cumsum(active_returns * active_returns)])
