"""Weights that an allocator has chosen."""

from __future__ import annotations

from agent.layers.inputs import apply_effective_targets
from agent.model import Allocation, Halt, StepInput
from agent.policy.decide import decide

SUPPLIES = [("WETH", 120_000_000), ("WBTC", 100_000), ("LINK", 600_000_000), ("UNI", 600_000_000)]


def chosen_of(step: StepInput) -> Allocation:
    allocation = apply_effective_targets(step).history.allocation
    assert allocation is not None
    return allocation


def hold_reason(step: StepInput) -> str:
    decision = decide(apply_effective_targets(step)).decision
    assert isinstance(decision, Halt)
    return decision.reason
