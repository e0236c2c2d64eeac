"""Funding of the margin account by day and market, from the ledger and the current block."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from agent.accounting.futures import DAY_S, FundingDay, funding_days, futures_changes
from agent.app.futures import futures_layer
from agent.execution.bookkeeping import entry_prices, valuation
from agent.execution.margin_entries import funding_entries

if TYPE_CHECKING:
    from agent.app.agent import Agent
    from agent.app.documents.futures import FuturesReport


def futures_funding(agent: Agent, days: int) -> tuple[FuturesReport, tuple[FundingDay, ...]]:
    """Read the futures, and return them with the funding of the last `days` by day and market.
    Today's funding from this block is included, but not recorded. Raises ConfigError without
    [futures].
    """
    found = futures_layer(agent)
    store, prices = agent.context.store, entry_prices(found.step)
    valuations = list(store.valuations.between())
    present = valuation(found.step, prices)
    if present is not None and (not valuations or present.block > valuations[-1].block):
        valuations.append(present)
    first_s = found.step.snapshot.head.timestamp_s // DAY_S * DAY_S - (days - 1) * DAY_S
    number = bisect_left([one.chain_s for one in valuations], first_s)
    valuations = valuations[max(0, number - 1) :]
    entries = store.ledger.entries()
    known = {entry.id for entry in entries}
    fresh = [entry for entry in funding_entries(found.step, prices) if entry.id not in known]
    made = funding_days(valuations, futures_changes((*entries, *fresh), valuations))
    return found, tuple(one for one in made if one.day_s >= first_s)
