"""Books of the strategies at a step's block, their chosen weights, and the targets that combine
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from agent.layers.strategies.policy import accounting, netting
from agent.layers.strategies.policy.capital import current_weights, target_capital_shares
from agent.layers.strategies.state import (
    CapitalSplit,
    StrategiesState,
    Strategy,
    StrategyLedger,
    with_allocator_keys,
)
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
    ledger = memory.layer(StrategyMemory).ledger
    steps_by_intent = memory.layer(StrategyMemory).steps_by_intent
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
    return step.with_layer(
        StrategiesState(replace(books, allocation_by_strategy=memory.allocation_by_owner))
    )


def choose_weights(step: StepInput) -> StepInput:
    """Let each strategy's allocator choose weights as if the strategy were the whole portfolio;
    return the step with these weights, and with the choices to be stored.
    """
    split = step.config(CapitalSplit)
    books = step.layer(StrategiesState).books
    if books is None or not split.allocators:
        return step
    allocation_by_strategy = dict(books.allocation_by_strategy)
    strategies_with_weights = []
    fault_notes = []
    choice_reasons: list[str] = []
    for strategy in split.strategies:
        if strategy.allocator is None:
            strategies_with_weights.append(strategy)
            continue
        strategy_step = apply_allocation(
            step_of_strategy(step, strategy, allocation_by_strategy.get(strategy.name))
        )
        choice_reasons += [
            f"strategy {strategy.name}: {reason}" for reason in strategy_step.targets.reasons
        ]
        allocation = strategy_step.history.allocation
        if strategy_step.history.allocation_fault:
            fault = with_allocator_keys(strategy_step.history.allocation_fault, strategy.name)
            fault_notes.append(f"strategy {strategy.name} has no weights: {fault}")
        if allocation is not None:
            allocation_by_strategy[strategy.name] = allocation
        chosen_bps = tuple(
            (asset.token.address, asset.target_bps) for asset in strategy_step.effective_assets
        )
        strategies_with_weights.append(
            replace(
                strategy,
                weights_bps=chosen_bps,
                market_bps=_market_bps(allocation) or strategy.market_bps,
            )
        )
    books = replace(
        books,
        allocation_by_strategy=tuple(allocation_by_strategy.items()),
        allocation_fault="; ".join(fault_notes),
    )
    split = replace(split, strategies=tuple(strategies_with_weights))
    targets = replace(step.targets, reasons=(*step.targets.reasons, *choice_reasons))
    return replace(step, targets=targets).with_config(split).with_layer(StrategiesState(books))


def step_of_strategy(
    step: StepInput, strategy: Strategy, last_allocation: Allocation | None
) -> StepInput:
    """Return the step as if the strategy were the whole portfolio, without reasons of targets."""
    bps_by_token = dict(strategy.weights_bps)
    assets = tuple(
        replace(asset, target_bps=bps_by_token.get(asset.token.address, 0))
        for asset in step.portfolio.assets
    )
    return replace(
        step,
        portfolio=replace(step.portfolio, assets=assets, allocator=strategy.allocator),
        targets=replace(step.targets, effective_bps=(), reasons=()),
        history=replace(
            step.history,
            allocation=last_allocation,
            allocation_fault="",
            layers=tuple(state.for_part(strategy.name) for state in step.history.layers),
        ),
    )


def _market_bps(allocation: Allocation | None) -> tuple[tuple[str, int], ...]:
    """Return the weights of markets of an allocation; empty if it has none."""
    return () if allocation is None else allocation.market_bps


def combine_targets(step: StepInput) -> StepInput:
    """Return the step with targets that combine the strategies' weights by capital share, paused
    ones in the numeraire, and an explanation among its reasons.
    """
    step = choose_weights(step)
    split = step.config(CapitalSplit)
    books = step.layer(StrategiesState).books
    if not split.strategies:
        return step
    share_by_name = {
        strategy.name: Fraction(strategy.share_bps, BPS) for strategy in split.strategies
    }
    weights_by_name = {strategy.name: dict(strategy.weights_bps) for strategy in split.strategies}
    if books is not None and not books.fault:
        share_by_name = target_capital_shares(split, books.by_name)
        numeraire = step.portfolio.numeraire.address
        weights_by_name = {
            strategy.name: current_weights(strategy, books.by_name[strategy.name].state, numeraire)
            for strategy in split.strategies
        }
    assets = step.portfolio.assets
    unrounded_bps = [
        sum(
            (
                share * weights_by_name[name].get(asset.token.address, 0)
                for name, share in share_by_name.items()
            ),
            Fraction(0),
        )
        for asset in assets
    ]
    target_bps_by_token = {
        asset.token.address: bps
        for asset, bps in zip(assets, largest_remainder(unrounded_bps), strict=True)
    }
    note = (
        "targets are those of the strategies together: "
        f"{', '.join(f'{name} {format_percent(share)}' for name, share in share_by_name.items())}"
    )
    return with_targets(step, target_bps_by_token, note)
