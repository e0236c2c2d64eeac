"""Parts of the layers in a step's input, when it is assembled, and goals of a divided wallet."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.layers.futures.policy.chosen_weights import apply_futures_targets, with_market_weights
from agent.layers.futures.policy.hedges import apply_hedges
from agent.layers.futures.policy.needs import hold_blocked_futures
from agent.layers.futures.policy.reviews import mark_due_review
from agent.layers.strategies.policy import inputs as strategies
from agent.layers.strategies.policy import netting
from agent.layers.strategies.policy.futures import target_market_shares
from agent.layers.strategies.state import CapitalSplit, StrategiesState
from agent.model import Goal, StepInput, StepMemory
from agent.units import Price

SNAPSHOT_ADJUSTMENTS: tuple[Callable[[StepInput], StepInput], ...] = (hold_blocked_futures,)
"""First steps, from snapshot, config and budgets alone."""
MEMORY_ADJUSTMENTS: tuple[Callable[[StepMemory, StepInput], StepInput], ...] = (
    strategies.add_books,
)
"""States that a layer brings to the block of the step, after what belongs to no part of the wallet
is excluded, and before the targets.
"""
TARGET_ADJUSTMENTS: tuple[Callable[[StepInput], StepInput], ...] = (
    strategies.combine_targets,
    lambda step: with_market_weights(
        step,
        target_market_shares(step.config(CapitalSplit), step.layer(StrategiesState)),
        "the strategies",
    ),
    apply_futures_targets,
)
"""Target adjustments of the layers, after the portfolio's allocator, and before orders."""
FINAL_ADJUSTMENTS: tuple[Callable[[StepInput], StepInput], ...] = (apply_hedges, mark_due_review)
"""Last steps, because a hedged value is a share of the assets that are not in quarantine."""
GOAL_BUILDERS: tuple[Callable[[StepInput, Mapping[str, Price]], Goal | None], ...] = (
    netting.combined_goal,
)
"""Goals of layers that divide the wallet; None while a layer does not."""


def divided_goal(step: StepInput, prices: Mapping[str, Price]) -> Goal | None:
    """Return the goal of the wallet's parts together; None if nothing divides the wallet. Raises
    Refused for unknown balances.
    """
    goals = (goal_of(step, prices) for goal_of in GOAL_BUILDERS)
    return next((goal for goal in goals if goal is not None), None)
