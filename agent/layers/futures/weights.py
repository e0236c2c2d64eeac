"""Weights of futures markets from their volatilities."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import AllocatorConfig
from agent.units import BPS, bounded_bps, format_bps, proportional_shares
from agent.weights.allocators import (
    AllocatorData,
    UnroundedWeights,
    WeightBounds,
    judged_returns,
    weights_with_sample,
)


def futures_volatility_weights(
    settings: AllocatorConfig, _bounds: WeightBounds, inputs: AllocatorData
) -> UnroundedWeights:
    """Return futures weights in inverse proportion to sample volatility, w_i = ±(1/σ_i) / Σ
    (1/σ_j), so that each position has the same risk and all together the target leverage (positions
    scaled by volatility: Moskowitz, Ooi, Pedersen, "Time Series Momentum", 2012).

    The loss of each position under the stress move m is bounded: |w_i| · L · m ≤ the stress loss.
    Weight above that bound goes to the other markets in proportion; if all are at it, the leverage
    is below its target. The spot targets stay.
    """
    futures_settings = settings.futures
    if futures_settings is None:
        raise Refused("no futures markets are configured", remedy="add [futures]")
    tokens = tuple(side.token for side in futures_settings.sides)
    sample_returns = judged_returns(settings, tokens, inputs)
    max_weights_bps = [futures_settings.max_weight_bps] * len(tokens)
    total_bps = min(BPS, len(tokens) * futures_settings.max_weight_bps)
    min_weights_bps = [0] * len(tokens)
    unrounded_shares = proportional_shares(
        [Fraction(1 / float(volatility)) for volatility in sample_returns.volatilities],
        min_weights_bps,
        max_weights_bps,
        total_bps,
    )
    weights_bps = bounded_bps(unrounded_shares, min_weights_bps, max_weights_bps, total_bps)
    weight_texts = ", ".join(
        f"{inputs.label_by_token[side.token]} {'' if side.is_long else '-'}{format_bps(bps)} ({volatility * 100:.1f} %)"
        for side, bps, volatility in zip(
            futures_settings.sides, weights_bps, sample_returns.volatilities, strict=True
        )
    )
    gross_leverage = Fraction(total_bps * futures_settings.leverage_bps, BPS * BPS)
    stress_loss = Fraction(
        max(weights_bps) * futures_settings.leverage_bps * futures_settings.stress_move_bps,
        BPS * BPS * BPS,
    )
    unrounded_weights = weights_with_sample(
        (),
        f"futures weights in inverse proportion to annual volatilities: {weight_texts}; {float(gross_leverage):.2f}x"
        f" of the account value in all, and a move of {format_bps(futures_settings.stress_move_bps)} against one"
        f" market costs at most {float(stress_loss) * 100:.2f} % of it",
        sample_returns,
    )
    market_bps = [
        (side.market, bps if side.is_long else -bps)
        for side, bps in zip(futures_settings.sides, weights_bps, strict=True)
    ]
    return replace(unrounded_weights, market_bps=tuple(market_bps))
