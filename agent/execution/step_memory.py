"""History that a step reads from the store: prices, allocations, cash, unknown positions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from agent.errors import Retryable
from agent.layers.memories import MEMORY_READERS
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


def read_cash(portfolio: Portfolio, snapshot: Snapshot, cash_store: CashStore) -> CashMemory | None:
    """Return the account of portfolio.use_cash; None without that limit."""
    if portfolio.use_cash_raw is None:
        return None
    return cash_store.read(portfolio.numeraire.address, snapshot.head.number)


def record_cash(cash_store: CashStore, history: History) -> None:
    """Record the account of portfolio.use_cash before the step acts on it. Raises Retryable if it
    cannot be opened at this block, or if another process wrote first.
    """
    cash_memory = history.cash_flows.cash
    if cash_memory is None or cash_memory.is_stored:
        return
    if not (
        cash_memory.is_known and cash_store.record(cash_memory.account, cash_memory.record_version)
    ):
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
    untradable_tokens: Iterable[ScreenedToken] = (),
    layer_readers: Iterable[LayerReader] = (),
) -> StepMemory:
    """Return the store's history at the block of `bare_step` (snapshot, config and budgets), with
    what the `layer_readers` add.
    """
    newest_wallet_allocation = (
        None if bare_step.portfolio.allocator is None else store.allocations.newest()
    )
    expected_balances = store.balances.expected()
    ledger_balances = store.ledger.balances(bare_step.snapshot.head.number)
    allocator_parts = [
        allocator_part
        for layer_config in bare_step.layer_configs
        for allocator_part in layer_config.allocators
    ]
    owners_and_allocations = tuple(
        (allocator_part.owner, newest_part_allocation)
        for allocator_part in allocator_parts
        if (newest_part_allocation := store.allocations.newest(allocator_part.owner)) is not None
    )
    prices = _recorded_prices(
        bare_step, store.prices, newest_wallet_allocation, dict(owners_and_allocations)
    )
    memory = StepMemory(
        prices,
        newest_wallet_allocation,
        expected_balances,
        ledger_balances,
        owners_and_allocations,
        tuple(untradable_tokens),
        read_cash(bare_step.portfolio, bare_step.snapshot, store.cash),
        tuple(read_layer(bare_step, store) for read_layer in MEMORY_READERS),
    )
    step = replace(
        bare_step,
        history=replace(bare_step.history, prices=prices, allocation=newest_wallet_allocation),
    )
    return replace(
        memory, layers=(*memory.layers, *(read_layer(step, memory) for read_layer in layer_readers))
    )


def part_history_spans(
    portfolio: Portfolio,
    layers: tuple[LayerConfig, ...],
    now_s: int,
    allocation_by_owner: Mapping[str, Allocation],
) -> list[tuple[int, int]]:
    """Return (seconds, step in seconds) of recorded prices that due choices of the parts that
    divide the wallet need; `allocation_by_owner` are their earlier ones, by owner.
    """
    spans_and_intervals = []
    for allocator_part in (
        allocator_part for layer_config in layers for allocator_part in layer_config.allocators
    ):
        part_portfolio = replace(portfolio, allocator=allocator_part.allocator)
        span_s = target_changes.allocation_history_s(
            part_portfolio, allocation_by_owner.get(allocator_part.owner), now_s
        )
        spans_and_intervals.append((span_s, allocator_part.allocator.step_s))
    return [(span_s, interval_s) for span_s, interval_s in spans_and_intervals if span_s]


def _recorded_prices(
    step: StepInput,
    price_store: PriceStore,
    allocation: Allocation | None,
    allocation_by_owner: Mapping[str, Allocation],
) -> tuple[PricePoint, ...]:
    """Return recorded prices as far back as this config needs: all prices within trigger windows,
    and older prices at the interval of each due allocation.
    """
    portfolio = step.portfolio
    now_s = step.snapshot.head.timestamp_s
    numeraire = portfolio.numeraire.address
    allocator = portfolio.allocator
    layer_triggers = [
        trigger for layer_config in step.layer_configs for trigger in layer_config.triggers
    ]
    trigger_span_s = rules.required_history_s(step.policy, layer_triggers)
    spans_and_intervals = part_history_spans(
        step.portfolio, step.layer_configs, step.snapshot.head.timestamp_s, allocation_by_owner
    )
    if allocator is not None:
        spans_and_intervals.append(
            (target_changes.allocation_history_s(portfolio, allocation, now_s), allocator.step_s)
        )
    spans_and_intervals.append(risk_estimates.price_history_and_step_s(step.policy, layer_triggers))
    older_until_s = now_s - trigger_span_s - bool(trigger_span_s)
    older_prices = {
        price_point
        for span_s, interval_s in spans_and_intervals
        if span_s > trigger_span_s
        for price_point in price_store.prices_between(
            numeraire, now_s - span_s, older_until_s, interval_s
        )
    }
    recent_prices = (
        price_store.prices_between(numeraire, now_s - trigger_span_s, now_s)
        if trigger_span_s
        else ()
    )
    return (
        *sorted(older_prices, key=lambda price_point: (price_point.at_s, price_point.token)),
        *recent_prices,
    )
