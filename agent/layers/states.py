"""Types of the layers' parts, by which the codec reads a recorded step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.layers.futures.requests import CloseHedge, Deleverage, MarginAccountRequest, OpenHedge
from agent.layers.futures.state import (
    FuturesConfig,
    FuturesCycle,
    FuturesProgress,
    FuturesState,
)
from agent.layers.gradual.state import GradualState
from agent.layers.holding.state import HoldingConfig, HoldingState
from agent.layers.liquidity.state import LiquidityCycle, LiquidityProgress, LiquidityState
from agent.layers.signals.state import SignalState
from agent.layers.strategies.state import CapitalSplit, StrategiesState
from agent.layers.tax.state import TaxState
from agent.model import (
    AdjustFutures,
    AdjustLiquidity,
    FuturesGrant,
    FuturesPlan,
    FuturesReading,
    HedgeChoices,
    LayerConfig,
    LayerCycle,
    LayerDecision,
    LayerGrant,
    LayerPlan,
    LayerProgress,
    LayerReading,
    LayerRequest,
    LayerState,
    LpAction,
    LpPosition,
)

PART_TYPES: tuple[type[Any], ...] = (
    GradualState,
    CapitalSplit,
    StrategiesState,
    TaxState,
    SignalState,
    FuturesConfig,
    FuturesState,
    FuturesReading,
    FuturesProgress,
    FuturesCycle,
    AdjustFutures,
    FuturesPlan,
    HedgeChoices,
    FuturesGrant,
    MarginAccountRequest,
    Deleverage,
    OpenHedge,
    CloseHedge,
    LiquidityState,
    LiquidityProgress,
    LiquidityCycle,
    AdjustLiquidity,
    HoldingConfig,
    HoldingState,
)
"""Types of all parts of the layers that are stored, which PARTS divides by their base."""


def _parts_of(base: type[Any]) -> tuple[type[Any], ...]:
    return tuple(part_type for part_type in PART_TYPES if issubclass(part_type, base))


PARTS: Mapping[type[Any], tuple[type[Any], ...]] = {
    base: _parts_of(base)
    for base in (
        LayerState,
        LayerConfig,
        LayerProgress,
        LayerReading,
        LayerPlan,
        LayerGrant,
        LayerCycle,
        LayerDecision,
        LayerRequest,
    )
}
"""The same by their base."""
LIQUIDITY_ACTIONS: Any = LpAction
"""Actions of plans; they are stored without their type, and told apart by their fields."""
LIQUIDITY_POSITIONS: Any = LpPosition
"""Positions of a snapshot; each is stored with its type."""
