"""[[strategies]] and [split]: several strategies over one wallet, and the band of the capital
split.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from agent.config.build import build_policy
from agent.config.futures import futures_markets
from agent.config.schema import Config
from agent.config.tables.portfolio import PortfolioTable
from agent.config.tables.strategies import StrategyTable
from agent.config.tables.triggers import TriggerTable, is_tracking, is_zone
from agent.config.tables.weights import AllocatorTable, require_valid_allocator
from agent.config.triggers import build_trigger_with_risk
from agent.config.weights import build_allocator, build_signals
from agent.errors import ConfigError
from agent.layers.strategies.state import (
    CapitalSplit,
    Strategy,
    StrategyHealthRule,
    with_allocator_keys,
)
from agent.model import (
    AllocationMethod,
    Destination,
    Policy,
    Portfolio,
    Threshold,
)
from agent.policy.triggers import validation
from agent.units import BPS, format_bps, largest_remainder

MAX_STRATEGIES = 12
OTHER_TRIGGER = 'use another trigger, such as { kind = "tracking" }'


def require_valid_strategies(config: Config) -> None:
    """Raise ValueError naming field and remedy if strategies cannot share the wallet."""
    strategies = config.strategies
    split = config.split
    if not strategies:
        if split is not None:
            raise ValueError("split: there are no [[strategies]]; add them, or remove it")
        return
    if not 2 <= len(strategies) <= MAX_STRATEGIES:
        raise ValueError(
            f"strategies: {len(strategies)} given; write two to {MAX_STRATEGIES}, or none"
        )
    if split is None:
        raise ValueError(
            'split: missing; strategies need it, for example [split] with relative = "20%"'
        )
    strategy_names = [strategy.name for strategy in strategies]
    if repeated_names := sorted(
        {name for name in strategy_names if strategy_names.count(name) > 1}
    ):
        raise ValueError(
            f"strategies: the name {repeated_names[0]} is given twice; write another name"
        )
    if "all" in strategy_names:
        raise ValueError("strategies: 'all' is reserved; choose another name")
    if (share_sum_bps := sum(strategy.share for strategy in strategies)) != BPS:
        raise ValueError(f"strategies: shares sum to {format_bps(share_sum_bps)}, not 100 %")
    symbols = [asset.symbol for asset in config.portfolio.assets]
    for strategy in strategies:
        if unknown_symbols := [
            symbol for symbol in strategy.weights or {} if symbol not in symbols
        ]:
            raise ValueError(
                f"strategies.{strategy.name}.weights: {unknown_symbols[0]} is not an asset; choose from"
                f" {', '.join(symbols)}"
            )
        if isinstance(strategy.allocator, AllocatorTable):
            _require_valid_strategy_allocator(strategy, strategy.allocator, config)
    _require_markets(config)
    _require_no_wallet_settings(config)


def _require_valid_strategy_allocator(
    strategy: StrategyTable, allocator: AllocatorTable, config: Config
) -> None:
    """Raise ValueError if the allocator does not fit the assets."""
    target_bps_by_symbol = {
        asset.symbol: (strategy.weights or {}).get(asset.symbol, 0)
        for asset in config.portfolio.assets
    }
    try:
        require_valid_allocator(allocator, target_bps_by_symbol, config.portfolio.numeraire)
    except ValueError as error:
        raise ValueError(
            f"strategies.{strategy.name}: {str(error).replace('weights.', 'allocator.', 1)}"
        ) from None


def _require_markets(config: Config) -> None:
    """Raise ValueError if a strategy's futures weights have no market, or if their total has no
    band.
    """
    futures_table = config.futures
    for strategy in config.strategies:
        config_key = f"strategies.{strategy.name}.futures"
        if not strategy.futures:
            continue
        if futures_table is None:
            raise ValueError(
                f"{config_key}: the config has no [futures]; add it, or remove the weights"
            )
        market_symbols = [market.symbol for market in futures_table.markets]
        if unknown_symbols := [
            symbol for symbol in strategy.futures if symbol not in market_symbols
        ]:
            raise ValueError(
                f"{config_key}: {unknown_symbols[0]} is not a futures market; choose from {', '.join(market_symbols)}"
            )
        if "leverage_band" not in futures_table.model_fields_set:
            raise ValueError(
                "futures.leverage_band: missing; strategies change the total notional: write for"
                ' example "20%", or "off"'
            )


def strategy_as_portfolio(table: PortfolioTable, strategy: StrategyTable) -> PortfolioTable:
    """Return the portfolio table with a strategy's weights as targets, and with its allocator."""
    weights = strategy.weights or {}
    assets = [
        asset.model_copy(update={"target": weights.get(asset.symbol, 0)}) for asset in table.assets
    ]
    allocator = strategy.allocator if isinstance(strategy.allocator, AllocatorTable) else None
    return table.model_copy(update={"assets": assets, "weights": allocator})


def _zone_fault(trigger: TriggerTable | None) -> str:
    """Return why a strategy cannot have this trigger; empty if it can."""
    if is_zone(trigger) and not is_tracking(trigger):
        return "a zone with a horizon weighs the whole wallet, and a strategy trades its own part"
    if getattr(trigger, "after_tax", None):
        return "after_tax weighs the lots of the whole wallet, and a strategy has none of its own"
    return ""


def _require_no_wallet_settings(config: Config) -> None:
    """Raise ValueError naming field, value and remedy for settings of the whole wallet that cannot
    be combined with strategies.
    """
    policy_table = config.policy
    portfolio = config.portfolio
    lp = config.lp
    for strategy in config.strategies:
        if zone_fault := _zone_fault(strategy.trigger):
            raise ValueError(f"strategies.{strategy.name}.trigger: {zone_fault}; {OTHER_TRIGGER}")
    triggers = (policy_table.trigger, *(strategy.trigger for strategy in config.strategies))
    conflicts = (
        (
            f"policy.trigger: {_zone_fault(policy_table.trigger)}, and",
            bool(_zone_fault(policy_table.trigger)),
            OTHER_TRIGGER,
        ),
        (
            "policy.risk: without a trigger of kind tracking it",
            policy_table.risk is not None and not any(map(is_tracking, triggers)),
            "remove [policy.risk]",
        ),
        (
            (
                f"portfolio.weights: {portfolio.weights.kind if portfolio.weights else None}, the"
                " allocator of the whole portfolio,"
            ),
            portfolio.weights is not None,
            "make it the allocator of a strategy",
        ),
        (
            (
                f"portfolio.positions: {len(portfolio.positions)} of them, which strategies do not"
                " support,"
            ),
            bool(portfolio.positions),
            "remove [[portfolio.positions]]",
        ),
        (
            (
                f"lp.targets: {len(lp.targets) if lp else 0} of them, which strategies do not"
                " support,"
            ),
            lp is not None and bool(lp.targets),
            "remove [[lp.targets]]",
        ),
        (
            (
                f"execution.style: {config.execution.style}, whose slices ignore the strategies'"
                " targets,"
            ),
            config.execution.style != "market",
            'write style = "market" and remove the keys of other styles',
        ),
        (
            "futures.hedge: hedges, which the strategies' weights do not count,",
            config.futures is not None and config.futures.hedge is not None,
            "remove [futures.hedge]",
        ),
    )
    for setting, is_set, remedy in conflicts:
        if is_set:
            raise ValueError(
                f"{setting} cannot be combined with [[strategies]]; {remedy}, or"
                " remove [[strategies]]"
            )


def build_split(config: Config) -> CapitalSplit | None:
    """Build the strategies of the config; None without strategies. Raises ConfigError for an
    invalid trigger.
    """
    if not config.strategies or config.split is None:
        return None
    policy = build_policy(config)
    assets = config.portfolio.assets
    address_by_symbol = {asset.symbol: asset.address for asset in assets}
    market_key_by_symbol = {market.symbol: market.venue_key for market in futures_markets(config)}
    strategies = []
    for strategy_table in config.strategies:
        strategy_policy = _strategy_policy(config, policy, strategy_table)
        if strategy_table.weights is None:
            weight_by_address = dict(
                zip(
                    address_by_symbol.values(),
                    largest_remainder([Fraction(1)] * len(assets)),
                    strict=True,
                )
            )
        else:
            weight_by_address = {
                address_by_symbol[symbol]: weight_bps
                for symbol, weight_bps in strategy_table.weights.items()
            }
        health_rule = None
        if (health_table := strategy_table.health) is not None:
            health_rule = StrategyHealthRule(
                health_table.sharpe,
                health_table.recover,
                health_table.window,
                health_table.period,
                health_table.recover_period,
            )
        strategies.append(
            Strategy(
                strategy_table.name,
                strategy_table.share,
                tuple(weight_by_address.items()),
                strategy_policy.trigger,
                strategy_policy.destination,
                strategy_policy.cooldown_s,
                strategy_table.floor,
                health_rule,
                market_bps=tuple(
                    (market_key_by_symbol[symbol], weight_bps)
                    for symbol, weight_bps in strategy_table.futures.items()
                ),
            )
        )
    return CapitalSplit(tuple(strategies), Threshold(config.split.absolute, config.split.relative))


def with_allocators(
    config: Config, split: CapitalSplit | None, portfolio: Portfolio, folder: Path
) -> CapitalSplit | None:
    """Add each strategy's allocator by token address. The path of a supplies file is relative to
    `folder`. Raises ConfigError.
    """
    if split is None:
        return None
    table_by_name = {table.name: table for table in config.strategies}
    strategies = []
    for strategy in split.strategies:
        strategy_portfolio = strategy_as_portfolio(config.portfolio, table_by_name[strategy.name])
        try:
            allocator = build_allocator(
                strategy_portfolio.weights,
                portfolio,
                folder,
                build_signals(config),
                config.futures,
                chain_id=config.chain.chain_id,
            )
        except ConfigError as error:
            raise ConfigError(
                with_allocator_keys(error.message, strategy.name),
                with_allocator_keys(error.remedy, strategy.name),
            ) from None
        if allocator is not None and allocator.method is AllocationMethod.FIXED:
            allocator = None
        strategies.append(replace(strategy, allocator=allocator))
    return replace(split, strategies=tuple(strategies))


def _destination(policy: Policy, trigger: TriggerTable) -> Destination:
    """Return the destination of a strategy with its own trigger: that of [policy] if both are zones
    or neither is.
    """
    if is_zone(trigger):
        return Destination.ZONE
    return Destination.TARGET if policy.destination is Destination.ZONE else policy.destination


def _strategy_policy(config: Config, policy: Policy, table: StrategyTable) -> Policy:
    """Build the policy of one strategy, validated like that of a portfolio."""
    try:
        if table.trigger is not None:
            policy = replace(
                policy,
                trigger=build_trigger_with_risk(config, table.trigger),
                destination=_destination(policy, table.trigger),
            )
        if table.destination is not None:
            policy = replace(policy, destination=Destination(table.destination))
        if table.cooldown is not None:
            policy = replace(policy, cooldown_s=table.cooldown)
        validation.validate_policy(policy)
    except ConfigError as error:
        raise ConfigError(
            error.message.replace("policy.", f"strategies.{table.name}.", 1), error.remedy
        ) from None
    return policy
