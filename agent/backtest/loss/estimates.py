"""Losses of triggers on one portfolio, with the tax on gains where gains are taxed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.backtest.loss.policies import ComparedPolicy, LossPortfolio, loss_policy, taxed_policy
from agent.backtest.loss.simulation import LossMarket, SimulatedLoss, simulate_losses
from agent.backtest.loss.taxes import TAXED_GROWTH, LossTax, simulate_taxes
from agent.backtest.settings import TaxRule
from agent.units import BPS
from agent.weights.asset_classes import AssetClass, class_of


def untaxed_reason(portfolio: LossPortfolio, rule: TaxRule) -> str:
    """Return why the tax of a rule is not simulated; empty if it is, or if there is none."""
    if not rule.rate_bps:
        return ""
    if rule.year_limit is not None:
        return "tax.year_limit reduces or defers sales"
    if class_of(portfolio.numeraire.symbol) is not AssetClass.CASH:
        return (
            f"{portfolio.numeraire.symbol} is no currency, and how coins grow is known in one only"
        )
    return ""


def portfolio_tax(portfolio: LossPortfolio, rule: TaxRule) -> LossTax | None:
    """Return the tax on the gains of a portfolio; None if there is none or it is not simulated."""
    if not rule.rate_bps or untaxed_reason(portfolio, rule):
        return None
    growths = [
        0.0 if class_of(asset.symbol) is AssetClass.CASH else TAXED_GROWTH
        for asset in portfolio.assets
    ]
    return LossTax(rule.rate_bps / BPS, rule.method, tuple(growths))


def policy_losses(
    portfolio: LossPortfolio,
    market: LossMarket,
    choices: Sequence[ComparedPolicy],
    tax: LossTax | None,
) -> dict[ComparedPolicy, SimulatedLoss]:
    """Return the loss of each trigger that can be simulated. What heeds no tax has the costs and
    drift of the simulation without tax, whose bars are shorter, and its tax beside them.
    """
    policies = {
        choice: policy
        for choice in choices
        if (policy := loss_policy(portfolio, market, choice)) is not None
    }
    if not policies:
        return {}
    losses = simulate_losses(market, tuple(policies.values()))
    loss_by_choice = dict(zip(policies, losses, strict=True))
    if tax is None:
        return loss_by_choice
    taxed_policies = {
        choice: taxed
        for choice in policies
        if (taxed := taxed_policy(portfolio, market, choice, tax)) is not None
    }
    taxed_losses = simulate_taxes(market, tax, tuple(taxed_policies.values()))
    for (choice, taxed), taxed_loss in zip(taxed_policies.items(), taxed_losses, strict=True):
        loss_by_choice[choice] = (
            taxed_loss
            if taxed.heeds_tax
            else replace(loss_by_choice[choice], tax=taxed_loss.tax, tax_left=taxed_loss.tax_left)
        )
    return loss_by_choice
