"""Trades, refusals and alerts of a period."""

from __future__ import annotations

from collections.abc import Iterable

from agent.accounting.performance import Performance
from agent.model import Entry, EntryKind
from agent.store.accounts.day_counts import CountedEvent
from agent.store.store import Store


def period_counts(
    store: Store, entries: Iterable[Entry], performance: Performance, bounds_s: tuple[int, int]
) -> dict[str, int]:
    """Return the number of the agent's trades between the valuations of `performance`, and of
    refusals and alerts on the UTC days of `bounds_s`, Unix seconds. A trade is a transaction with
    swaps, or a futures order with fills; manual swaps are not counted.
    """
    blocks = range(performance.start.block + 1, performance.end.block + 1)
    return {
        "trades": sum(_is_trade(entry) for entry in entries if entry.block in blocks),
        "refusals": store.day_counts.count(CountedEvent.REFUSAL, *bounds_s),
        "alerts": store.day_counts.count(CountedEvent.ALERT, *bounds_s),
    }


def _is_trade(entry: Entry) -> bool:
    has_fills = entry.futures is not None and bool(entry.futures.fills)
    return not entry.by_hand and (entry.kind is EntryKind.TRADE or has_fills)
