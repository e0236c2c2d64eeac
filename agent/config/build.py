"""Build model types from the config's tables, with token decimals from the chain."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from agent.amm.lp import positions as own
from agent.config.futures import futures_markets
from agent.config.limits import LimitsTable, build_limits_from_table, max_weight_bps
from agent.config.liquidity import build_positions
from agent.config.orders import build_orders, build_pace
from agent.config.presets import ETHEREUM
from agent.config.schema import AssetTable, Config, HubTable
from agent.config.strategies import StrategyTable, strategy_as_portfolio
from agent.config.template import render
from agent.config.triggers import build_policy_trigger, build_trigger, is_zone
from agent.config.weights import build_signals, build_weights, supply_tokens
from agent.errors import ConfigError
from agent.layers.strategies.state import CapitalSplit, Strategy, StrategyHealthRule
from agent.model import (
    AllocationMethod,
    Asset,
    CodeHash,
    ConfirmedPosition,
    Destination,
    ExecutionConfig,
    LayerConfig,
    Limits,
    LpPositionChange,
    Policy,
    Portfolio,
    PriceSource,
    ReferenceConfig,
    Threshold,
    TradeSide,
)
from agent.policy.triggers import rules
from agent.units import Token, largest_remainder, parse_raw

EXPIRE_BLOCKS = 25
"""Age in blocks from which a plan is not sent; its deadline in chain time is usually tighter."""


def build_portfolio(config: Config, tokens: Mapping[str, Token]) -> Portfolio:
    """Build the portfolio. `tokens` are read from the chain, by address; symbols are the
    config's.
    """

    def token(entry: AssetTable | HubTable) -> Token:
        if entry.address not in tokens:
            raise ConfigError(
                f"portfolio: {entry.symbol} at {entry.address} was not read from the chain"
            )
        decimals = tokens[entry.address].decimals
        if entry.decimals not in (None, decimals):
            raise ConfigError(
                f"portfolio: {entry.symbol} at {entry.address} has {decimals} decimals on the chain,"
                f" the config says {entry.decimals}",
                "check that this is the right token, then correct the config",
            )
        return Token(entry.address, entry.symbol, decimals)

    table = config.portfolio
    assets = tuple(_build_asset(config, entry, token(entry)) for entry in table.assets)
    numeraire = next(asset.token for asset in assets if asset.token.symbol == table.numeraire)
    hubs = tuple(token(h) for h in table.hubs)
    feeds = tuple((h.address, h.feed) for h in table.hubs if h.feed is not None)
    positions = build_positions(config, {asset.token.symbol: asset.token for asset in assets})
    orders = build_orders(table, assets, numeraire)
    cash = table.use_cash
    return Portfolio(
        numeraire,
        assets,
        hubs,
        config.chain.wrapped_native,
        feeds,
        positions,
        orders=orders,
        use_cash_raw=(
            None if cash is None else parse_raw(cash, numeraire.decimals, "portfolio.use_cash")
        ),
    )


def _build_asset(config: Config, entry: AssetTable, token: Token) -> Asset:
    reserve = parse_raw(entry.reserve, token.decimals, f"portfolio.assets.{entry.symbol}.reserve")
    return Asset(
        token=token,
        target_bps=entry.target,
        reserve_raw=reserve,
        feed=entry.feed,
        native=entry.native,
        rebasing_bps=entry.rebasing,
        band=entry.band,
        max_bps=max_weight_bps(config, entry.symbol),
    )


def build_policy(config: Config) -> Policy:
    """Build the policy: trigger, destination and cooldown."""
    policy = config.policy
    return Policy(
        trigger=build_policy_trigger(config),
        destination=Destination(policy.destination),
        cooldown_s=policy.cooldown,
        confirm_blocks=policy.confirm_blocks or 0,
        jitter_bps=policy.jitter or 0,
        only=None if policy.only is None else TradeSide(policy.only),
    )


def build_reference(
    config: Config, pins: Iterable[tuple[str, str]] | None = None
) -> ReferenceConfig:
    """Build the sources of reference prices. `pins` are (address, code hash) pairs trusted by the
    owner. Only TWAPs of pinned pools count.
    """
    table = config.reference
    return ReferenceConfig(
        kinds=tuple(PriceSource(kind) for kind in table.kind),
        twap_window_s=table.twap_window,
        feed_max_age_s=table.feed_max_age,
        feed_ages=tuple(
            (token.feed, token.feed_max_age)
            for token in config.portfolio.listed
            if token.feed and token.feed_max_age
        ),
        mean_pools=None if pins is None else tuple(CodeHash(*pin) for pin in pins),
        sequencer_feed=table.sequencer_feed,
        sequencer_grace_s=table.sequencer_grace or 0,
        cautious=True,
    )


def build_limits(config: Config, numeraire: Token) -> Limits:
    """Build the limits in exact units: values in the numeraire's base units, gas in wei."""
    return build_limits_from_table(config.limits, config.portfolio.max_live_value, numeraire)


def starting_limits(numeraire: Token) -> Limits:
    """Return the limits of a new config, without a cap on the managed value."""
    text = render(ETHEREUM, "", (), (), numeraire.symbol, (("RPC_URL", "any"),))
    return build_limits_from_table(
        LimitsTable.model_validate(tomllib.loads(text)["limits"]), None, numeraire
    )


def build_execution(config: Config, pinned: tuple[str, ...]) -> ExecutionConfig:
    """Build the execution settings; `pinned` are the addresses whose code must be pinned. Raises
    ConfigError if the router's address is missing.
    """
    table, venue = config.execution, config.venues.uniswap_v3
    if table.router == "rebalancer":
        if table.rebalancer is None:
            raise ConfigError(
                "execution.rebalancer: router = 'rebalancer' needs the contract's address",
                "deploy the contract, or use swap_router_02",
            )
        return ExecutionConfig(
            table.router,
            table.rebalancer,
            table.deadline,
            EXPIRE_BLOCKS,
            pinned,
            pace=build_pace(config),
        )
    if venue is None:
        raise ConfigError(
            "execution.router: swap_router_02 needs [venues.uniswap_v3] with its router"
        )
    return ExecutionConfig(
        table.router,
        venue.router,
        table.deadline,
        EXPIRE_BLOCKS,
        pinned,
        pace=build_pace(config),
        swept=True,
    )


# --- Counted liquidity positions, including the agent's own, and their contracts.


def known_positions(
    config: Config, portfolio: Portfolio, moves: Sequence[LpPositionChange]
) -> tuple[ConfirmedPosition, ...]:
    """Return all counted positions. Raises ConfigError if the config lacks settings for positions
    opened by the agent.
    """
    if config.lp is not None:
        venues = {"uniswap_v2": config.venues.uniswap_v2, "uniswap_v3": config.venues.uniswap_v3}
        for move in moves:
            if venues.get(move.venue) is None and own.is_position_open(moves, move.name):
                raise ConfigError(
                    f"venues.{move.venue}: missing, but the agent has liquidity in {move.name}",
                    f"keep [venues.{move.venue}] in the config; a target with a share of 0%"
                    " withdraws liquidity",
                )
        return own.tracked_positions(
            portfolio.positions,
            portfolio.lp_targets,
            moves,
            config.lp.volatility,
            config.lp.horizon,
        )
    if still_open := {move.name for move in moves if own.is_position_open(moves, move.name)}:
        raise ConfigError(
            f"lp: missing, but the agent has liquidity in {', '.join(sorted(still_open))}",
            "keep [lp] with its volatility and horizon in the config; a target with a share of 0%"
            " withdraws liquidity",
        )
    return portfolio.positions


def lp_venues(config: Config, moves: Sequence[LpPositionChange]) -> frozenset[str]:
    """Return venues of positions that are confirmed, targeted, or opened by the agent."""
    targets = () if config.lp is None else config.lp.targets
    configured = [entry.kind for entry in (*config.portfolio.positions, *targets)]
    return frozenset(configured) | {
        move.venue for move in moves if own.is_position_open(moves, move.name)
    }


def liquidity_contracts(
    config: Config, moves: Sequence[LpPositionChange]
) -> tuple[tuple[str, str], ...]:
    """Return (venue, contract) pairs of the contracts that provide and withdraw liquidity, for venues
    with liquidity.
    """
    v2, v3, used = config.venues.uniswap_v2, config.venues.uniswap_v3, lp_venues(config, moves)
    contracts = []
    if v2 is not None:
        contracts.append(("uniswap_v2", v2.router))
    if v3 is not None:
        contracts.append(("uniswap_v3", v3.position_manager))
    return tuple((venue, contract) for venue, contract in contracts if venue in used)


# --- Contracts of the config other than tokens and pools.


def factories(config: Config) -> dict[str, str]:
    """Return the factory of each venue by its name."""
    venues = {"uniswap_v2": config.venues.uniswap_v2, "uniswap_v3": config.venues.uniswap_v3}
    return {name: venue.factory for name, venue in venues.items() if venue is not None}


def fixed_contracts(config: Config, moves: Sequence[LpPositionChange] = ()) -> dict[str, str]:
    """Return the names of routers, factories and the futures venue's contracts by address.

    The position manager is included once one of its positions is counted or targeted, because
    weights then depend on its answers. `moves` are the agent's own actions.
    """
    found: dict[str, str] = {}
    for name, venue in (("v2", config.venues.uniswap_v2), ("v3", config.venues.uniswap_v3)):
        if venue is not None:
            found |= {venue.factory: f"{name} factory", venue.router: f"{name} router"}
    if config.venues.uniswap_v3 is not None and "uniswap_v3" in lp_venues(config, moves):
        found[config.venues.uniswap_v3.position_manager] = "v3 position manager"
    if config.execution.router == "rebalancer" and config.execution.rebalancer is not None:
        found[config.execution.rebalancer] = "rebalancer"
    if config.futures is not None:
        found |= config.futures.contracts
    return found


# --- [[strategies]] and [split]: strategies with weights, trigger and health rule.


def build_split(config: Config) -> CapitalSplit | None:
    """Build the strategies of the config; None without strategies. Raises ConfigError for an
    invalid trigger.
    """
    if not config.strategies or config.split is None:
        return None
    policy, assets = build_policy(config), config.portfolio.assets
    address = {asset.symbol: asset.address for asset in assets}
    base = {market.symbol: market.name for market in futures_markets(config)}
    found = []
    for table in config.strategies:
        strategy_policy = _strategy_policy(config, policy, table)
        if table.weights is None:
            weights = dict(
                zip(address.values(), largest_remainder([Fraction(1)] * len(assets)), strict=True)
            )
        else:
            weights = {address[symbol]: bps for symbol, bps in table.weights.items()}
        health = None
        if (rule := table.health) is not None:
            health = StrategyHealthRule(
                rule.sharpe, rule.recover, rule.window, rule.period, rule.recover_period
            )
        found.append(
            Strategy(
                table.name,
                table.share,
                tuple(weights.items()),
                strategy_policy.trigger,
                strategy_policy.destination,
                strategy_policy.cooldown_s,
                table.floor,
                health,
                futures_bps=tuple((base[symbol], bps) for symbol, bps in table.futures.items()),
            )
        )
    return CapitalSplit(tuple(found), Threshold(config.split.absolute, config.split.relative))


def with_allocators(
    config: Config, split: CapitalSplit | None, portfolio: Portfolio, folder: Path
) -> CapitalSplit | None:
    """Add each strategy's allocator by token address. The path of a supplies file is relative to
    `folder`. Raises ConfigError.
    """
    if split is None:
        return None
    tables = {table.name: table for table in config.strategies}
    strategies = []
    for strategy in split.strategies:
        table = strategy_as_portfolio(config.portfolio, tables[strategy.name])
        weights = build_weights(table, portfolio, folder, build_signals(config), config.futures)
        if weights is not None and weights.method is AllocationMethod.FIXED:
            weights = None
        strategies.append(replace(strategy, allocator=weights))
    return replace(split, strategies=tuple(strategies))


def allocator_supply_tokens(portfolio: Portfolio, layers: Iterable[LayerConfig]) -> tuple[str, ...]:
    """Return tokens whose total supply is read from the chain, for the portfolio's allocator or a
    layer's.
    """
    allocators = [
        portfolio.weights,
        *(part.allocator for settings in layers for part in settings.allocators),
    ]
    return tuple(
        dict.fromkeys(
            token
            for weights in allocators
            for token in supply_tokens(replace(portfolio, weights=weights))
        )
    )


def _strategy_policy(config: Config, policy: Policy, table: StrategyTable) -> Policy:
    """Build the policy of one strategy, validated like that of a portfolio."""
    risky = {
        asset.symbol: asset.address
        for asset in config.portfolio.assets
        if asset.symbol != config.portfolio.numeraire
    }
    try:
        if is_zone(table.trigger):
            raise ConfigError(
                "policy.trigger: a zone needs the whole portfolio", "use another trigger"
            )
        if table.trigger is not None:
            policy = replace(policy, trigger=build_trigger(table.trigger, risky))
        if table.destination is not None:
            policy = replace(policy, destination=Destination(table.destination))
        if table.cooldown is not None:
            policy = replace(policy, cooldown_s=table.cooldown)
        rules.validate_policy(policy)
    except ConfigError as error:
        raise ConfigError(
            error.message.replace("policy.", f"strategies.{table.name}.", 1), error.remedy
        ) from None
    return policy
