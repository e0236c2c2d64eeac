"""What the layers read from the store before a step's input is assembled, and their bookings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from agent.accounting.entries import EntryPrices, SettledTransaction
from agent.layers.futures import accounting as futures
from agent.layers.futures.execution.booking import book_futures_action, margin_reading_by_collateral
from agent.layers.futures.policy.plans import MARGIN_PLACE
from agent.layers.holding import memory as holding
from agent.layers.liquidity import accounting as liquidity
from agent.layers.liquidity.execution.booking import book_liquidity_action
from agent.layers.strategies import memory as strategies
from agent.model import (
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
INTENT_BOOKERS: Mapping[
    IntentKind,
    Callable[[Store, Intent, StepInput | None, StepInput, Snapshot | None, Price, int], Value],
] = {
    IntentKind.FUTURES: lambda store, intent, _, price_step, __, native_price, chain_s: (
        book_futures_action(store, intent, price_step, native_price, chain_s)
    ),
    IntentKind.LIQUIDITY: book_liquidity_action,
}
"""Booking of a layer's mined transaction, by its kind, from its own step (None: unreadable), the
step of its prices, the snapshot right after it (None: not read), the price of native coin and the
chain time; returns its loss in numeraire base units.
"""
ENTRY_BUILDERS: Mapping[
    IntentKind,
    Callable[
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
    ],
] = {
    IntentKind.FUTURES: lambda grant, transaction, prices, ledger_tokens, step, receipt, _: (
        futures.settled_entry(grant, transaction, prices, ledger_tokens, step, receipt)
    ),
    IntentKind.LIQUIDITY: liquidity.settled_entry,
}
"""Ledger entry of a layer's successful transaction, by its kind; the last argument returns the net
amounts at a place outside the wallet.
"""
PAYMENT_ENTRY_BUILDERS: tuple[Callable[[StepInput, EntryPrices], tuple[Entry, ...]], ...] = (
    futures.funding_entries,
)
"""Ledger entries of payments that a venue made by itself."""
MARGIN_READERS: Mapping[str, Callable[[StepInput], dict[str, MarginReading]]] = {
    MARGIN_PLACE: margin_reading_by_collateral,
}
"""Readings of an account outside the wallet for the ledger, by the token in which it counts, and by
the account's name among the places of holdings.
"""
