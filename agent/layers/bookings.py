"""Booking of mined transactions of the layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.layers.futures.execution.booking import book_futures_action
from agent.model import Intent, IntentKind, StepInput
from agent.store.store import Store
from agent.units import Price, Value

BOOKINGS: Mapping[IntentKind, Callable[[Store, Intent, StepInput, Price, int], Value]] = {
    IntentKind.FUTURES: book_futures_action
}
"""Booking of a layer's transaction, by its kind, from the step input of its prices, the price of
native coin and the chain time; returns its loss in numeraire base units.
"""
