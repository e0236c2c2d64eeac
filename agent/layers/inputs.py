"""Parts of the layers in a step's input, when it is assembled."""

from __future__ import annotations

from collections.abc import Callable

from agent.layers.futures.policy.chosen_weights import apply_futures_targets
from agent.layers.futures.policy.hedges import apply_hedges
from agent.layers.futures.policy.needs import hold_blocked_futures
from agent.layers.strategies.policy import futures as strategies_futures
from agent.layers.strategies.policy import inputs as strategies
from agent.model import StepInput, StepMemory

FROM_SNAPSHOT: tuple[Callable[[StepInput], StepInput], ...] = (hold_blocked_futures,)
"""First steps, from snapshot, config and budgets alone."""
FROM_MEMORY: tuple[Callable[[StepMemory, StepInput], StepInput], ...] = (strategies.add_books,)
"""States that a layer brings to the block of the step, after what belongs to no part of the wallet
is excluded, and before the targets.
"""
TARGET_ADJUSTMENTS: tuple[Callable[[StepInput], StepInput], ...] = (
    strategies.combine_targets,
    strategies_futures.apply_futures_shares,
    apply_futures_targets,
)
"""Target adjustments of the layers, after the portfolio's allocator, and before orders."""
AFTER_QUARANTINE: tuple[Callable[[StepInput], StepInput], ...] = (apply_hedges,)
"""Last steps, because a hedged value is a share of the assets that are not in quarantine."""
