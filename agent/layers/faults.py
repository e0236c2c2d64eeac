"""Faults of the layers: unknown, stale or contradictory inputs of a decision."""

from __future__ import annotations

from collections.abc import Callable

from agent.layers.futures.policy.exposure import unknown_margin_reason
from agent.layers.strategies.policy.faults import strategies_fault
from agent.model import HaltCode, StepInput

SPOT_FAULTS: tuple[tuple[HaltCode, Callable[[StepInput], str]], ...] = (
    (HaltCode.STRATEGIES, strategies_fault),
)
"""Faults that halt the spot portfolio, with their reason (empty: no fault). Futures are reduced
despite them.
"""
HELD_BACK: tuple[tuple[HaltCode, Callable[[StepInput], str]], ...] = (
    (HaltCode.FUTURES, unknown_margin_reason),
)
"""Faults during which only exits and withdrawals of liquidity are allowed, with their reason."""
