"""The step with all that the store remembers of the past: the same for a chain and for a simulated one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from agent.execution import sleeves
from agent.model import Allocation, Books, PricePoint, Stand, StepInput, TaxStanding
from agent.policy import agreement, allocation, aside, flows, lookback, measured, outflow, quarantine, sleeve_targets, wishes


class Memory(sleeves.Remembers, Protocol):
    """The part of a store that a step is assembled from."""

    def books(self) -> Books:
        """What balances should be, and the newest flows."""
        ...

    def stands(self, head_block: int) -> tuple[Stand, ...]:
        """What the wallet should hold at that block by the ledger."""
        ...

    def prices(self, numeraire: str, since_s: int, until_s: int, every_s: int = ...) -> tuple[PricePoint, ...]:
        """Recorded prices in that numeraire, oldest first; of each `every_s` the last of each token."""
        ...


def remembered(step: StepInput, store: Memory, tax: Callable[[int], TaxStanding | None] | None = None) -> StepInput:
    """The step with recorded prices, chosen weights, what the books say, the year's tax, and what follows from them for the targets.

    What came unexplained above portfolio.max_live_value is left alone, and tokens whose balance stays unread are in quarantine. `tax`
    says by chain time how this year's gains stand.
    """
    now_s = step.snapshot.head.timestamp_s
    chosen = store.allocation()
    step = replace(step, history=replace(step.history, prices=_prices(step, store, chosen), allocation=chosen))
    books = store.books()
    step = agreement.agreed(step, books, store.stands(step.snapshot.head.number))
    if tax is not None:
        step = replace(step, history=replace(step.history, tax=tax(now_s)))
    free = aside.set_aside(outflow.set_aside(flows.seen(step, books)))  # before strategies: none of them holds it
    seen = wishes.wanted(sleeves.seen(free, store, books))
    return quarantine.quarantine(seen, quarantine.silent(seen))


def _prices(step: StepInput, store: Memory, chosen: Allocation | None) -> tuple[PricePoint, ...]:
    """Recorded prices, as far back as this config looks; before what triggers see, one per interval of each choice that is due."""
    portfolio, split, now_s = step.portfolio, step.split, step.snapshot.head.timestamp_s
    numeraire, weights = portfolio.numeraire.address, portfolio.weights
    back_s = lookback.needed_s(portfolio, step.policy, split)
    needs = list(sleeve_targets.looks_back(split, sleeves.chosen_last(split, store), portfolio, now_s))
    if weights is not None:
        needs.append((allocation.looks_back_s(portfolio, chosen, now_s), weights.step_s))
    needs.append(measured.needs(step.policy))
    until_s = now_s - back_s - bool(back_s)
    older = {
        point for choice_s, step_s in needs if choice_s > back_s for point in store.prices(numeraire, now_s - choice_s, until_s, step_s)
    }
    hourly = store.prices(numeraire, now_s - back_s, now_s) if back_s else ()
    return (*sorted(older, key=lambda point: (point.at_s, point.token)), *hourly)
