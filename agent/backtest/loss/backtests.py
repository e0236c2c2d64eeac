"""The portfolio of a backtest as the simulation of losses takes it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from agent.backtest.loss.policies import LossAsset, LossPortfolio
from agent.backtest.settings import BacktestSpec, SimulationSettings, TaxRule
from agent.model import Policy
from agent.policy.minimum import LEG_GAS
from agent.units import BPS, PIPS


@dataclass(frozen=True, slots=True)
class BacktestLoss:
    """What the picture of a backtest's loss is drawn from."""

    portfolio: LossPortfolio
    policy: Policy
    tax: TaxRule


def backtest_loss(
    spec: BacktestSpec, settings: SimulationSettings, price_by_symbol: Mapping[str, float]
) -> BacktestLoss | None:
    """Return the portfolio of a backtest with the pools, gas and value of its settings;
    `price_by_symbol` are the first closes, in the numeraire. None with strategies, recorded pools,
    without a target that can drift, or if gas has a cost and no price: it is not simulated.
    """
    numeraire = spec.portfolio.numeraire
    assets = [
        LossAsset(
            asset.token.symbol,
            asset.token.address,
            asset.target_bps,
            asset.band,
            settings.fee_pips / PIPS,
            settings.depth,
        )
        for asset in spec.portfolio.assets
    ]
    others = tuple(
        asset for asset in assets if 0 < asset.target_bps < BPS and asset.token != numeraire.address
    )
    if spec.split is not None or settings.recorded_pools or not others:
        return None
    gas_prices_wei = settings.gas_price_wei
    if not isinstance(gas_prices_wei, int):
        gas_prices_wei = round(statistics.median(gas_prices_wei))
    leg_wei = LEG_GAS * gas_prices_wei + settings.data_fee_wei
    native_symbol = spec.portfolio.token(spec.portfolio.wrapped_native).symbol
    native_price = price_by_symbol.get(native_symbol) if spec.has_gas_price else None
    if leg_wei and native_price is None:
        return None
    return BacktestLoss(
        LossPortfolio(
            others,
            next(
                (asset for asset in assets if asset.token == numeraire.address),
                LossAsset(numeraire.symbol, numeraire.address, 0, None, 0.0, settings.depth),
            ),
            settings.start_value,
            Fraction(leg_wei, 10**18) * Fraction(native_price or 0),
            (spec.limits.min_trade or Fraction(0)) / 10**numeraire.decimals,
            spec.limits.plan_cost_bps,
        ),
        spec.policy,
        spec.tax,
    )
