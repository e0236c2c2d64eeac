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

STATES: tuple[type[LayerState], ...] = (
    GradualState,
    StrategiesState,
    TaxState,
    SignalState,
    FuturesState,
    LiquidityState,
    HoldingState,
)
CONFIGS: tuple[type[LayerConfig], ...] = (
    CapitalSplit,
    FuturesConfig,
    HoldingConfig,
)
PROGRESS: tuple[type[LayerProgress], ...] = (FuturesProgress, LiquidityProgress)
READINGS: tuple[type[LayerReading], ...] = (FuturesReading,)
PLANS: tuple[type[LayerPlan], ...] = (FuturesPlan, HedgeChoices)
GRANTS: tuple[type[LayerGrant], ...] = (FuturesGrant,)
DECISIONS: tuple[type[LayerDecision], ...] = (AdjustFutures, AdjustLiquidity)
CYCLES: tuple[type[LayerCycle], ...] = (FuturesCycle, LiquidityCycle)
REQUESTS: tuple[type[LayerRequest], ...] = (MarginAccountRequest, Deleverage, OpenHedge, CloseHedge)
PARTS: Mapping[type[Any], tuple[type[Any], ...]] = {
    LayerState: STATES,
    LayerConfig: CONFIGS,
    LayerProgress: PROGRESS,
    LayerReading: READINGS,
    LayerPlan: PLANS,
    LayerGrant: GRANTS,
    LayerCycle: CYCLES,
    LayerDecision: DECISIONS,
    LayerRequest: REQUESTS,
}
"""Types of the parts of a step's input, of decisions, plans, cycles and requests, by their base."""
LIQUIDITY_ACTIONS: Any = LpAction
"""Actions of plans; they are stored without their type, and told apart by their fields."""
LAYER_UNIONS: tuple[Any, ...] = (LpPosition,)
"""Unions of the layers, whose members are stored with their type."""
