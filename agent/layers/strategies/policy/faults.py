"""Reasons why the books of the strategies cannot be relied on."""

from __future__ import annotations

from agent.layers.strategies.state import CapitalSplit, StrategiesState
from agent.model import StepInput


def strategies_fault(step: StepInput) -> str:
    """Return why the strategies' books are unknown; empty if they are known, or without
    strategies.
    """
    if not step.config(CapitalSplit).strategies:
        return ""
    if step.portfolio.has_pool_positions:
        return "strategies cannot be combined with positions in pools; remove one of them"
    books = step.layer(StrategiesState).books
    if books is None:
        return "the books of the strategies are missing"
    return books.fault or books.allocation_fault
