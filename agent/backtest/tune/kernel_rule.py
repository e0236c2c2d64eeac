"""The tracking rule as the compiled kernel runs it."""

from __future__ import annotations

from dataclasses import replace

from agent.backtest.settings import BacktestSpec
from agent.backtest.sweep import KernelRule, TradingCosts
from agent.model import NoTradeZone
from agent.policy.risk import COVARIANCE_UNIT, aversion, covariance
from agent.policy.risk_estimates import unmeasured_risk
from agent.policy.triggers.tracking import risk_at_costs
from agent.policy.triggers.tracking_rule import TradingCost
from agent.units import BPS, PIPS


def with_owner_risk(spec: BacktestSpec, trigger: NoTradeZone) -> NoTradeZone:
    """Return the trigger with the volatilities and correlations of the spec's own, if it has any."""
    own_trigger = spec.policy.trigger
    if not isinstance(own_trigger, NoTradeZone):
        return trigger
    return NoTradeZone(
        replace(own_trigger.risk, cost_bps=trigger.risk.cost_bps, horizon_s=trigger.risk.horizon_s)
    )


def is_rule_supported(spec: BacktestSpec, trigger: NoTradeZone) -> bool:
    """Return whether the kernel can run the rule: its volatilities stay as they are, and every
    asset, the numeraire among them, has a target. Without one assets are exchanged for each other.
    """
    risk = with_owner_risk(spec, trigger).risk
    assets = spec.portfolio.assets
    return (
        risk.horizon_s is None
        and risk.estimation_window is None
        and spec.portfolio.numeraire in [asset.token for asset in assets]
        and all(asset.target_bps > 0 for asset in assets)
    )


def kernel_rule(spec: BacktestSpec, trigger: NoTradeZone, costs: TradingCosts) -> KernelRule:
    """Return the rule as a step without gas finds it, at any of its bars."""
    portfolio = spec.portfolio
    tokens = [asset.token.address for asset in portfolio.assets]
    numeraire = tokens.index(portfolio.numeraire.address)
    risk = risk_at_costs(
        unmeasured_risk(portfolio, with_owner_risk(spec, trigger).risk),
        tokens,
        [asset.target_bps / BPS for asset in portfolio.assets],
        numeraire,
        {
            index: TradingCost(fee_bps / BPS, 0.0, 0.0)
            for index, fee_bps in enumerate(costs.fees_bps)
            if index != numeraire
        },
    )
    trigger_by_token = {width.token: width.trigger_ppm / PIPS for width in risk.widths}
    risk_aversion = aversion(risk)
    return KernelRule(
        numeraire,
        tuple(trigger_by_token.get(token, 1.0) for token in tokens),
        tuple(
            tuple(float(risk_aversion * entry / COVARIANCE_UNIT) for entry in row)
            for row in covariance(risk, tokens)
        ),
    )
