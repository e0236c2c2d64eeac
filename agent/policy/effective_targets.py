"""What is wanted of the portfolio at this block: the owner's targets, changed in one order by all that may change them."""

from __future__ import annotations

from collections.abc import Callable

from agent.model import StepInput
from agent.policy.orders.exits import ordered
from agent.policy.risk import measured
from agent.policy.strategies.netting import combined
from agent.policy.targets import allocated

Change = Callable[[StepInput], StepInput]
CHANGES: tuple[Change, ...] = (allocated, combined, ordered, measured)
"""Each reads what the store remembers in `step.history` and returns the step with other targets and the reason among `wishes`;
in order: what an allocator chose, what strategies hold of it, what orders keep out of the market; and how much risk lies in it."""


def wanted(step: StepInput) -> StepInput:
    """The step with the targets that count now. Quarantine comes after it: what may not be traded is nobody's wish."""
    for change in CHANGES:
        step = change(step)
    return step
