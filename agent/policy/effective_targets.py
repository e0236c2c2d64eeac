"""Effective targets at this block: the owner's targets after each adjustment, in fixed order."""

from __future__ import annotations

from collections.abc import Callable

from agent.model import StepInput
from agent.policy.orders.exits import apply_orders
from agent.policy.risk import apply_measured_risk
from agent.policy.strategies.netting import combine_strategy_targets
from agent.policy.targets import apply_allocation

TargetAdjustment = Callable[[StepInput], StepInput]
TARGET_ADJUSTMENTS: tuple[TargetAdjustment, ...] = (apply_allocation, combine_strategy_targets, apply_orders, apply_measured_risk)
"""Adjustments of the targets, in order: allocator, strategies, orders; and the measured risk of a zone. Each reads `step.history` and
returns the step with its targets, and the reason in `wishes`.
"""


def apply_effective_targets(step: StepInput) -> StepInput:
    """Return the step with its effective targets. Applied before quarantine, so that quarantined tokens never get a target."""
    for change in TARGET_ADJUSTMENTS:
        step = change(step)
    return step
