"""What the layers read from the store before a step's input is assembled, and their bookings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from agent.accounting.entries import EntryPrices, SettledTransaction
from agent.layers.futures import accounting as futures
from agent.layers.futures.execution.booking import book_futures_action, margin_reading_by_collateral
from agent.layers.holding import memory as holding
from agent.layers.liquidity import accounting as liquidity
from agent.layers.liquidity.execution.booking import book_liquidity_action
from agent.layers.strategies import memory as strategies
from agent.model import (
    MARGIN_PLACE,
    Entry,
    Intent,
    IntentKind,
    LayerPart,
    MarginReading,
    Receipt,
    Snapshot,
    StepInput,
)
from agent.ports import Grant
from agent.store.store import Store
from agent.units import Price, Value

NetAmountsReader = Callable[[str], Mapping[str, int]]
"""Function from the name of a place to its net amounts in the ledger, by token."""
MEMORY_READERS: tuple[Callable[[StepInput, Store], LayerPart], ...] = (
    strategies.read_memory,
    holding.read_memory,
)
"""Readers of a layer's records at the block of a step with snapshot, config and budgets."""


@dataclass(frozen=True, slots=True)
class LayerBookings:
    """How a layer's transactions are booked, and how the ledger reads its account."""

    book_intent: Callable[
        [Store, Intent, StepInput | None, StepInput, Snapshot | None, Price, int], Value
    ]
    """Booking of a mined transaction, from its own step (None: unreadable), the step of its prices,
    the snapshot right after it (None: not read), the price of native coin and the chain time;
    returns its loss in numeraire base units.
    """
    entry: Callable[
        [
            Grant,
            SettledTransaction,
            EntryPrices,
            Collection[str],
            StepInput,
            Receipt,
            NetAmountsReader,
        ],
        Entry,
    ]
    """Ledger entry of a successful transaction; the last argument returns the net amounts at a
    place outside the wallet.
    """
    intent_kind: IntentKind
    """Kind of the layer's transactions."""
    payment_entries: Callable[[StepInput, EntryPrices], tuple[Entry, ...]] = lambda step, prices: ()
    """Ledger entries of payments that a venue made by itself."""
    account_place: str = ""
    """Name, among the places of holdings, of the account that `margin_readings` reads; empty: no
    account.
    """
    margin_readings: Callable[[StepInput], Mapping[str, MarginReading]] = lambda step: {}
    """Readings of the account for the ledger, by the token in which it counts."""


BOOKINGS: tuple[LayerBookings, ...] = (
    LayerBookings(
        lambda store, intent, _, price_step, __, native_price, chain_s: book_futures_action(
            store, intent, price_step, native_price, chain_s
        ),
        entry=lambda grant, transaction, prices, ledger_tokens, step, receipt, _: (
            futures.settled_entry(grant, transaction, prices, ledger_tokens, step, receipt)
        ),
        intent_kind=IntentKind.FUTURES,
        payment_entries=futures.funding_entries,
        account_place=MARGIN_PLACE,
        margin_readings=margin_reading_by_collateral,
    ),
    LayerBookings(
        book_liquidity_action, entry=liquidity.settled_entry, intent_kind=IntentKind.LIQUIDITY
    ),
)
"""Each layer that sends transactions of a kind of its own."""


def bookings_of(kind: IntentKind) -> LayerBookings | None:
    """Return how transactions of this kind are booked; None for a kind of no layer."""
    return next((layer for layer in BOOKINGS if layer.intent_kind is kind), None)
