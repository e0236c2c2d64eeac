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
    trades: Mapping[str, StepInput] = field(default_factory=dict)


def add_books(memory: StepMemory, step: StepInput, owner_agrees: bool = False) -> StepInput:
    """Return the step with the strategy books at its block, before any quarantine; unchanged with a
    single strategy. With `owner_agrees`, books that differ from wallet or config are reconciled.
    """
    ledger, trades = memory.layer(StrategyMemory).ledger, memory.layer(StrategyMemory).trades
    if not step.config(CapitalSplit).strategies or ledger is None:
        return step
    if owner_agrees:
        bring = accounting.apply_configured_split
    else:
        bring = accounting.update_books
    books = bring(
        step,
        ledger,
        lambda intent: trades.get(intent.id),
        netting.strategy_adjustments,
        balance_changes.unexplained(step, memory.balances),
    )
    return step.with_layer(StrategiesState(replace(books, choices=memory.choices)))


def choose_weights(step: StepInput) -> StepInput:
    """Return the step with the weights chosen by the strategies' allocators, each as for a whole
    portfolio, and the choices.
    """
    split, books = step.config(CapitalSplit), step.layer(StrategiesState).books
    if books is None or not split.allocators:
        return step
    last, strategies, lacking = dict(books.choices), [], []
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
        states = tuple(state.of_owner(strategy.name) for state in step.history.layers)
        history = replace(
            step.history, allocation=last.get(strategy.name), unchosen="", layers=states
        )
        targets = replace(step.targets, effective_bps=())
        own = apply_allocation(replace(step, portfolio=portfolio, targets=targets, history=history))
        allocation = own.history.allocation
        if own.history.unchosen:
            lacking.append(f"strategy {strategy.name} has no weights: {own.history.unchosen}")
        if allocation is not None:
            last[strategy.name] = allocation
        chosen = tuple((asset.token.address, asset.target_bps) for asset in own.effective_assets)
        strategies.append(
            replace(
                strategy,
                weights_bps=chosen,
                market_bps=_market_weights(allocation) or strategy.market_bps,
            )
        )
    books = replace(books, choices=tuple(last.items()), unchosen="; ".join(lacking))
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
        shares = target_capital_shares(split, books.named)
    assets = step.portfolio.assets
    parts = [
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
        for asset, bps in zip(assets, largest_remainder(parts), strict=True)
    }
    notes = (
        "targets are those of the strategies together: "
        f"{', '.join(f'{name} {format_percent(share)}' for name, share in shares.items())}"
    )
    return with_targets(step, targets, notes)
