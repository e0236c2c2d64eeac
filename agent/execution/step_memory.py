"""History that a step reads from the store: prices, allocations, cash, unknown positions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from agent.errors import Retryable
from agent.layers.memories import READERS
from agent.model import (
    Allocation,
    CashMemory,
    History,
    LayerConfig,
    LayerPart,
    Portfolio,
    PricePoint,
    ScreenedToken,
    Snapshot,
    StepInput,
    StepMemory,
)
from agent.policy import risk_estimates, target_changes
from agent.policy.triggers import rules
from agent.store.accounts.positions import CashStore
from agent.store.prices import PriceStore
from agent.store.store import Store

HOUR_S = 3_600
DAY_S = 86_400


def read_cash(portfolio: Portfolio, snapshot: Snapshot, cash: CashStore) -> CashMemory | None:
    """Return the account of portfolio.use_cash; None without that limit."""
    if portfolio.use_cash_raw is None:
        return None
    return cash.read(portfolio.numeraire.address, snapshot.head.number)


def record_cash(cash: CashStore, history: History) -> None:
    """Record the account of portfolio.use_cash before the step acts on it. Raises Retryable if it
    cannot be opened at this block, or if another process wrote first.
    """
    memory = history.cash_flows.cash
    if memory is None or memory.is_stored:
        return
    if not (memory.is_known and cash.record(memory.account, memory.record_version)):
        raise Retryable(
            "portfolio.use_cash: the wallet's cash changed while its account was recorded",
            "wait for the next cycle",
        )


LayerReader = Callable[[StepInput, StepMemory], LayerPart]
"""Reader of what a layer knows at the block of a step with prices and the last allocation, by a
service of its own.
"""


def read_memory(
    bare_step: StepInput,
    store: Store,
    untradable: Iterable[ScreenedToken] = (),
    readers: Iterable[LayerReader] = (),
) -> StepMemory:
    """Return the store's history at the block of `bare_step` (snapshot, config and budgets), with
    what the `readers` add.
    """
    allocation = None if bare_step.portfolio.weights is None else store.allocations.newest()
    balances = store.balances.expected()
    ledger = store.ledger.balances(bare_step.snapshot.head.number)
    allocator_parts = [part for config in bare_step.layers for part in config.allocators]
    allocations_by_owner = tuple(
        (part.owner, newest_allocation)
        for part in allocator_parts
        if (newest_allocation := store.allocations.newest(part.owner)) is not None
    )
    prices = _recorded_prices(bare_step, store.prices, allocation, dict(allocations_by_owner))
    memory = StepMemory(
        prices,
        allocation,
        balances,
        ledger,
        allocations_by_owner,
        tuple(untradable),
        read_cash(bare_step.portfolio, bare_step.snapshot, store.cash),
        tuple(read_layer(bare_step, store) for read_layer in READERS),
    )
    step = replace(
        bare_step, history=replace(bare_step.history, prices=prices, allocation=allocation)
    )
    return replace(
        memory, layers=(*memory.layers, *(read_layer(step, memory) for read_layer in readers))
    )


def part_history_needed(
    portfolio: Portfolio,
    layers: tuple[LayerConfig, ...],
    now_s: int,
    allocation_by_owner: Mapping[str, Allocation],
) -> list[tuple[int, int]]:
    """Return (seconds, step in seconds) of recorded prices that due choices of the parts that
    divide the wallet need; `allocation_by_owner` are their earlier ones, by owner.
    """
    spans_and_steps = []
    for part in (part for config in layers for part in config.allocators):
        part_portfolio = replace(portfolio, weights=part.allocator)
        span_s = target_changes.allocation_history_s(
            part_portfolio, allocation_by_owner.get(part.owner), now_s
        )
        spans_and_steps.append((span_s, part.allocator.step_s))
    return [(span_s, step_s) for span_s, step_s in spans_and_steps if span_s]


def _recorded_prices(
    step: StepInput,
    price_store: PriceStore,
    allocation: Allocation | None,
    allocation_by_owner: Mapping[str, Allocation],
) -> tuple[PricePoint, ...]:
    """Return recorded prices as far back as this config needs: all prices within trigger windows,
    and older prices at the interval of each due allocation.
    """
    portfolio, now_s = step.portfolio, step.snapshot.head.timestamp_s
    numeraire, weights = portfolio.numeraire.address, portfolio.weights
    layer_triggers = [trigger for config in step.layers for trigger in config.triggers]
    trigger_span_s = rules.required_history_s(step.policy, layer_triggers)
    spans_and_steps = part_history_needed(
        step.portfolio, step.layers, step.snapshot.head.timestamp_s, allocation_by_owner
    )
    if weights is not None:
        spans_and_steps.append(
            (target_changes.allocation_history_s(portfolio, allocation, now_s), weights.step_s)
        )
    spans_and_steps.append(risk_estimates.price_history_needed(step.policy))
    until_s = now_s - trigger_span_s - bool(trigger_span_s)
    older_points = {
        point
        for span_s, step_s in spans_and_steps
        if span_s > trigger_span_s
        for point in price_store.between(numeraire, now_s - span_s, until_s, step_s)
    }
    recent_points = (
        price_store.between(numeraire, now_s - trigger_span_s, now_s) if trigger_span_s else ()
    )
    return (*sorted(older_points, key=lambda point: (point.at_s, point.token)), *recent_points)
