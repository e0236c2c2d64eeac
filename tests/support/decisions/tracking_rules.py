"""Tracking rules of one coin beside the numeraire."""

from __future__ import annotations

from agent.policy.triggers.tracking_rule import TokenRule, TradingCost, token_rules


def one_coin_rule(
    target: float,
    fee_bps: float,
    gas: float = 0.0,
    risk_aversion: float = 1.0,
    volatility: float = 0.6,
    min_trade: float = 0.0,
    sale_tax: float = 0.0,
) -> TokenRule:
    """The rule of a coin beside the numeraire; `gas` is a share of the portfolio."""
    covariance = [[volatility**2, 0.0], [0.0, 0.0]]
    costs = {0: TradingCost(fee_bps / 10_000, gas, min_trade, sale_tax)}
    return token_rules([target, 1 - target], covariance, 1, costs, risk_aversion)[0]
