"""Portfolios whose loss against their targets is estimated."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.backtest.loss.policies import LossAsset, LossPortfolio
from agent.model import NoTradeZone
from agent.policy.triggers.no_trade_zone import build_tracking
from agent.units import BPS

SYMBOLS = {"WBTC": 2_500, "WETH": 2_500, "LINK": 2_000}
CORRELATIONS = (("WBTC", "WETH", 8_000), ("WBTC", "LINK", 6_000), ("WETH", "LINK", 7_000))
DEPTH = 20_000_000
RULE = build_tracking("normal")


def loss_portfolio(fee_bps: float = 5, gas: str = "0.03", value: int = 50_000, targets: dict[str, int] = SYMBOLS) -> LossPortfolio:
    assets = tuple(LossAsset(symbol, symbol, target, None, fee_bps / BPS, Fraction(DEPTH)) for symbol, target in targets.items())
    cash = LossAsset("USDC", "USDC", BPS - sum(targets.values()), None, 0.0, Fraction(DEPTH))
    return LossPortfolio(assets, cash, Fraction(value), Fraction(gas), Fraction(10), 50)


def with_correlations(trigger: NoTradeZone) -> NoTradeZone:
    return NoTradeZone(replace(trigger.risk, correlations_bps=CORRELATIONS))
