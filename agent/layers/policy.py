"""Parts of the layers in a decision."""

from __future__ import annotations

from collections.abc import Callable

from agent.layers.gradual import policy as gradual
from agent.model import StepInput
from agent.policy.decision import Decider, DecisionResult

BEFORE_TRIGGERS: tuple[Decider, ...] = (gradual.continue_execution,)
"""Deciders after faults, exits and money flows, and before the triggers."""
FINISHES: tuple[Callable[[StepInput, DecisionResult], DecisionResult], ...] = (
    gradual.end_if_invalid,
)
"""What every decision says of a layer besides."""
LAST_ENDS: tuple[Callable[[StepInput], tuple[int | None, str]], ...] = (gradual.last_end,)
"""Ends of trades from which policy.cooldown counts, besides the rebalance."""
