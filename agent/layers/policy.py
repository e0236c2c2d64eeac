"""Parts of the layers in a decision."""

from __future__ import annotations

from collections.abc import Callable

from agent.layers.gradual import policy as gradual
from agent.layers.strategies.policy import decide as strategies
from agent.model import LayerResult, StepInput
from agent.policy.decision import Decider, DecisionContext, DecisionResult

BEFORE_TRIGGERS: tuple[Decider, ...] = (
    gradual.continue_execution,
    strategies.rebalance_strategies,
)
"""Deciders after faults, exits and money flows, and before the triggers."""
FINISHES: tuple[Callable[[StepInput, DecisionResult], DecisionResult], ...] = (
    gradual.end_if_invalid,
)
"""What every decision says of a layer besides."""
BESIDE_PURCHASES: tuple[Callable[[DecisionContext], LayerResult], ...] = (
    strategies.beside_purchase,
)
"""Parts of the layers in the decision on a purchase in parts."""
