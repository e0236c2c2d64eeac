"""Zones for tests: a risk by symbols, and steps that a zone decides."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from agent.model import Destination, NoTradeZone, StepInput, TrackingRisk
from tests.support.builders import Number, step_input, token

MONTH_S = 30 * 86_400
VOLATILITIES = {"WETH": 8_000, "USDC": 50, "WBTC": 6_000, "DAI": 50, "LINK": 10_000}
CORRELATIONS = {("WETH", "WBTC"): 8_000, ("WETH", "LINK"): 7_000, ("WBTC", "LINK"): 6_000}


def tracking(
    *symbols: str,
    cost_bps: Number = Fraction(1, 2),
    horizon_s: int = MONTH_S,
    volatilities: Mapping[str, int] | None = None,
    correlations: Mapping[tuple[str, str], int] | None = None,
) -> TrackingRisk:
    """The risk of these tokens; pairs that are not named are unrelated."""
    known = {frozenset(pair): bps for pair, bps in (CORRELATIONS | dict(correlations or {})).items()}
    spread = VOLATILITIES | dict(volatilities or {})
    pairs = [(one, other) for number, other in enumerate(symbols) for one in symbols[:number]]
    return TrackingRisk(
        Fraction(cost_bps),
        horizon_s,
        tuple((token(symbol).address, spread[symbol]) for symbol in symbols),
        tuple((token(one).address, token(other).address, known.get(frozenset((one, other)), 0)) for one, other in pairs),
    )


def zoned(targets_bps: Mapping[str, int], values: Mapping[str, Number], risk: Mapping[str, Any] | None = None, **step: Any) -> StepInput:
    """A step that a zone decides; `risk` as for tracking."""
    trigger = NoTradeZone(tracking(*targets_bps, **(risk or {})))
    return step_input(targets_bps, values, trigger=trigger, destination=Destination.ZONE, **step)
