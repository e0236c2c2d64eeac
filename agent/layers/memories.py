"""What the layers read from the store before a step's input is assembled, and their bookings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.layers.futures.execution.booking import book_futures_action
from agent.layers.strategies import memory as strategies
from agent.model import Intent, IntentKind, LayerPart, StepInput
from agent.store.store import Store
from agent.units import Price, Value

READERS: tuple[Callable[[StepInput, Store], LayerPart], ...] = (strategies.read_memory,)
"""Readers of a layer's records at the block of a step with snapshot, config and budgets."""
BOOKINGS: Mapping[IntentKind, Callable[[Store, Intent, StepInput, Price, int], Value]] = {
    IntentKind.FUTURES: book_futures_action
}
"""Booking of a layer's mined transaction, by its kind, from the step input of its prices, the price
of native coin and the chain time; returns its loss in numeraire base units.
"""
