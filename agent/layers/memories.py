"""What the layers read from the store before a step's input is assembled."""

from __future__ import annotations

from collections.abc import Callable

from agent.layers.strategies import memory as strategies
from agent.model import LayerPart, StepInput
from agent.store.store import Store

READERS: tuple[Callable[[StepInput, Store], LayerPart], ...] = (strategies.read_memory,)
"""Readers of a layer's records at the block of a step with snapshot, config and budgets."""
