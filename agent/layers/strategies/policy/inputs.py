"""Books of the strategies at a step's block, their chosen weights, and the targets that combine
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from agent.layers.strategies.policy import accounting, netting
from agent.layers.strategies.policy.capital import target_capital_shares
from agent.layers.strategies.state import CapitalSplit, StrategiesState, StrategyLedger
from agent.model import Allocation, LayerPart, StepInput, StepMemory
from agent.policy.cash_flows import balance_changes
from agent.policy.target_changes import apply_allocation, with_targets
from agent.units import BPS, format_percent, largest_remainder


@dataclass(frozen=True, slots=True)
class StrategyMemory(LayerPart):
    """The store's record of the strategies, and the steps of their unbooked swaps, by intent id;
    without a ledger, nothing was read.
    """

    ledger: StrategyLedger | None = None
    steps_by_intent: Mapping[str, StepInput] = field(default_factory=dict)


def add_books(memory: StepMemory, step: StepInput, owner_agrees: bool = False) -> StepInput:
    """Return the step with the strategy books at its block, before any quarantine; unchanged with a
    single strategy. With `owner_agrees`, books that differ from wallet or config are reconciled.
    """
    ledger, steps_by_intent = (
        memory.layer(StrategyMemory).ledger,
        memory.layer(StrategyMemory).steps_by_intent,
    )
    if not step.config(CapitalSplit).strategies or ledger is None:
        return step
    if owner_agrees:
        update_accounts = accounting.apply_configured_split
    else:
        update_accounts = accounting.update_books
    books = update_accounts(
        step,
        ledger,
        lambda intent: steps_by_intent.get(intent.id),
        netting.strategy_adjustments,
        balance_changes.unrecorded_changes(step, memory.balances),
    )
    return step.with_layer(StrategiesState(replace(books, choices=memory.choices)))


def choose_weights(step: StepInput) -> StepInput:
    """Let each strategy's allocator choose weights as if the strategy were the whole portfolio;
    return the step with these weights, and with the choices to be stored.
    """
    split, books = step.config(CapitalSplit), step.layer(StrategiesState).books
    if books is None or not split.allocators:
        return step
    last_choices, strategies, missing_notes = dict(books.choices), [], []
    for strategy in split.strategies:
        if strategy.allocator is None:
            strategies.append(strategy)
            continue
        weights = dict(strategy.weights_bps)
        assets = tuple(
            replace(asset, target_bps=weights.get(asset.token.address, 0))
            for asset in step.portfolio.assets
        )
        portfolio = replace(step.portfolio, assets=assets, weights=strategy.allocator)
        states = tuple(state.for_part(strategy.name) for state in step.history.layers)
        history = replace(
            step.history,
            allocation=last_choices.get(strategy.name),
            allocation_fault="",
            layers=states,
        )
        targets = replace(step.targets, effective_bps=())
        strategy_step = apply_allocation(
            replace(step, portfolio=portfolio, targets=targets, history=history)
        )
        allocation = strategy_step.history.allocation
        if strategy_step.history.allocation_fault:
            missing_notes.append(
                f"strategy {strategy.name} has no weights: {strategy_step.history.allocation_fault}"
            )
        if allocation is not None:
            last_choices[strategy.name] = allocation
        chosen_bps = tuple(
            (asset.token.address, asset.target_bps) for asset in strategy_step.effective_assets
        )
        strategies.append(
            replace(
                strategy,
                weights_bps=chosen_bps,
                market_bps=_market_weights(allocation) or strategy.market_bps,
            )
        )
    books = replace(
        books, choices=tuple(last_choices.items()), allocation_fault="; ".join(missing_notes)
    )
    split = replace(split, strategies=tuple(strategies))
    return step.with_config(split).with_layer(StrategiesState(books))


def _market_weights(allocation: Allocation | None) -> tuple[tuple[str, int], ...]:
    """Return the weights of markets of an allocation; empty if it has none."""
    return () if allocation is None else allocation.market_bps


def combine_targets(step: StepInput) -> StepInput:
    """Return the step with targets that combine the strategies' weights by capital share, and an
    explanation among its reasons.
    """
    step = choose_weights(step)
    split, books = step.config(CapitalSplit), step.layer(StrategiesState).books
    if not split.strategies:
        return step
    shares = {strategy.name: Fraction(strategy.share_bps, BPS) for strategy in split.strategies}
    if books is not None and not books.fault:
        shares = target_capital_shares(split, books.by_name)
    assets = step.portfolio.assets
    weights_bps = [
        sum(
            (
                shares[strategy.name] * dict(strategy.weights_bps).get(asset.token.address, 0)
                for strategy in split.strategies
            ),
            Fraction(0),
        )
        for asset in assets
    ]
    targets = {
        asset.token.address: bps
        for asset, bps in zip(assets, largest_remainder(weights_bps), strict=True)
    }
    note = (
        "targets are those of the strategies together: "
        f"{', '.join(f'{name} {format_percent(share)}' for name, share in shares.items())}"
    )
    return with_targets(step, targets, note)
