"""What the layers read from the store before a step's input is assembled, and their bookings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from agent.accounting.entries import EntryPrices, SettledTransaction
from agent.layers.futures import accounting as futures
from agent.layers.futures.execution.booking import book_futures_action
from agent.layers.strategies import memory as strategies
from agent.model import Entry, Intent, IntentKind, LayerPart, Receipt, StepInput
from agent.ports import Grant
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
ENTRIES: Mapping[
    IntentKind,
    Callable[[Grant, SettledTransaction, EntryPrices, Collection[str], StepInput, Receipt], Entry],
] = {IntentKind.FUTURES: futures.settled_entry}
"""Ledger entry of a layer's successful transaction, by its kind."""
PAYMENTS: tuple[Callable[[StepInput, EntryPrices], tuple[Entry, ...]], ...] = (
    futures.funding_entries,
)
"""Ledger entries of payments that a venue made by itself."""
