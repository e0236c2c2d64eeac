"""Types of the layers' parts, by which the codec reads a recorded step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.layers.futures.requests import CloseHedge, Deleverage, MoveMargin, OpenHedge
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
    Plan,
    Snapshot,
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
REQUESTS: tuple[type[LayerRequest], ...] = (MoveMargin, Deleverage, OpenHedge, CloseHedge)
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
ACTIONS: Any = LpAction
"""Actions of plans; they are stored without their type, and told apart by their fields."""
LAYER_UNIONS: tuple[Any, ...] = (LpPosition,)
"""Unions of the layers, whose members are stored with their type."""
MOVED: Mapping[str, Mapping[str, str]] = {
    "GradualState": {
        "campaign": "progress",
        "campaign_ended_s": "ended_s",
        "draw": "draw",
        "spent": "carried",
    },
    "StrategiesState": {"sleeves": "books"},
    "TaxState": {"tax": "inputs"},
    "SignalState": {"signals": "answers"},
    "FuturesState": {
        "reduced_24h": "reduced_24h",
        "topped_up_24h": "topped_up_24h",
        "emergency_gas_24h_wei": "emergency_gas_wei",
        "emergency_s": "emergency_s",
        "hedges": "hedges",
    },
    "LiquidityState": {"last_liquidity_s": "last_action_s", "undecided": "undecided"},
}
"""Fields of History in steps recorded before a layer had its own state, by the state's type."""
MOVED_CONFIGS: Mapping[str, Mapping[str, str]] = {
    "CapitalSplit": {"split": ""},
    "FuturesConfig": {"futures": "policy", "unhedged_bps": "unhedged_bps"},
}
"""The same for the fields of a step's input that are a layer's settings now; "" for a field that has
become the settings.
"""
MOVED_PROGRESS: Mapping[str, Mapping[str, str]] = {
    "FuturesProgress": {
        "reduced_markets": "reduced_markets",
        "reduction_goals": "reduction_goals",
        "order_parts": "order_parts",
        "futures_held": "held",
        "after_hedge": "after_hedge",
    },
    "LiquidityProgress": {"acted": "acted", "left_pools": "left_pools"},
}
"""The same for the fields of a step's input that are a layer's progress now."""
MOVED_PARTS: Mapping[type[Any], Mapping[str, Mapping[str, str]]] = {
    Snapshot: {
        "FuturesReading": {
            "futures": "account",
            "futures_unknown": "unknown",
            "futures_blocked": "blocked",
            "agent_end_s": "agent_end_s",
        }
    },
    Plan: {"FuturesPlan": {"futures": ""}, "HedgeChoices": {"comparisons": "comparisons"}},
}
"""The same for the fields of a snapshot and of a plan that are a layer's part of it now."""
MOVED_GRANTS: Mapping[str, str] = {"futures": "FuturesGrant"}
"""Fields of a grant in intents stored before a layer's part had one field, with their type."""
