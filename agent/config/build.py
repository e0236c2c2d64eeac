"""Convert the config's tables to model types, with token decimals from the chain."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from agent.amm.lp import positions as own
from agent.config.limits import LimitsTable, build_limits_from_table, max_weight_bps
from agent.config.liquidity import build_positions
from agent.config.orders import build_orders, build_pace
from agent.config.presets import ETHEREUM
from agent.config.schema import AssetTable, Config, HubTable
from agent.config.strategies import StrategyTable, strategy_as_portfolio
from agent.config.template import render
from agent.config.triggers import build_policy_trigger, build_trigger, is_zone
from agent.config.weights import build_weights, supply_tokens
from agent.errors import ConfigError
from agent.model import (
    AllocationMethod,
    Asset,
    CodeHash,
    ConfirmedPosition,
    Destination,
    ExecutionConfig,
    Limits,
    LpPositionChange,
    Policy,
    Portfolio,
    PriceSource,
    ReferenceConfig,
    Threshold,
    TradeSide,
)
from agent.model.strategies import CapitalSplit, Strategy, StrategyHealthRule
from agent.policy.triggers import rules
from agent.units import Token, largest_remainder, parse_raw

EXPIRE_BLOCKS = 25
"""A plan older than this many blocks is never sent; its deadline in chain time is the tighter
bound."""


def build_portfolio(config: Config, tokens: Mapping[str, Token]) -> Portfolio:
    """Build the portfolio. `tokens` are read from the chain, by address; symbols are the
    config's.
    """

    def token(entry: AssetTable | HubTable) -> Token:
        if entry.address not in tokens:
            raise ConfigError(
                f"portfolio: {entry.symbol} at {entry.address} was not read from the chain"
            )
        found = tokens[entry.address].decimals
        if entry.decimals not in (None, found):
            raise ConfigError(
                f"portfolio: {entry.symbol} at {entry.address} has {found} decimals on the chain,"
                f" the config says {entry.decimals}",
                "make sure that this is the right token, then correct the config",
            )
        return Token(entry.address, entry.symbol, found)

    table = config.portfolio
    assets = tuple(
        Asset(
            token=(t := token(a)),
            target_bps=a.target,
            reserve_raw=parse_raw(a.reserve, t.decimals, f"portfolio.assets.{a.symbol}.reserve"),
            feed=a.feed,
            native=a.native,
            rebasing_bps=a.rebasing,
            band=a.band,
            max_bps=max_weight_bps(config, a.symbol),
        )
        for a in table.assets
    )
    numeraire = next(asset.token for asset in assets if asset.token.symbol == table.numeraire)
    hubs = tuple(token(h) for h in table.hubs)
    feeds = tuple((h.address, h.feed) for h in table.hubs if h.feed is not None)
    positions = build_positions(config, {asset.token.symbol: asset.token for asset in assets})
    orders = build_orders(table, assets, numeraire)
    return Portfolio(
        numeraire, assets, hubs, config.chain.wrapped_native, feeds, positions, orders=orders
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
    owner: only TWAPs of such pools count.
    """
    table = config.reference
    return ReferenceConfig(
        kinds=tuple(PriceSource(kind) for kind in table.kind),
        twap_window_s=table.twap_window,
        feed_max_age_s=table.feed_max_age,
        feed_ages=tuple(
            (one.feed, one.feed_max_age)
            for one in config.portfolio.listed
            if one.feed and one.feed_max_age
        ),
        mean_pools=(
            None
            if pins is None
            else tuple(CodeHash(address, code_hash) for address, code_hash in pins)
        ),
        sequencer_feed=table.sequencer_feed,
        sequencer_grace_s=table.sequencer_grace or 0,
    )


def build_limits(config: Config, numeraire: Token) -> Limits:
    """Limits in exact units: values in the numeraire's base units, gas in wei."""
    return build_limits_from_table(config.limits, config.portfolio.max_live_value, numeraire)


def starting_limits(numeraire: Token) -> Limits:
    """Return the limits of a new config, without a cap on the managed value."""
    text = render(ETHEREUM, "", (), (), numeraire.symbol, (("RPC_URL", "any"),))
    return build_limits_from_table(
        LimitsTable.model_validate(tomllib.loads(text)["limits"]), None, numeraire
    )


def build_execution(config: Config, pinned: tuple[str, ...]) -> ExecutionConfig:
    """Build the execution settings; `pinned` are the addresses whose code must be pinned."""
    table, venue = config.execution, config.venues.uniswap_v3
    if table.router == "rebalancer":
        if table.rebalancer is None:
            raise ConfigError(
                "execution.rebalancer: router = 'rebalancer' needs the contract's address",
                "deploy it, or use swap_router_02",
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
        table.router, venue.router, table.deadline, EXPIRE_BLOCKS, pinned, pace=build_pace(config)
    )


# --- Counted liquidity positions, the agent's own included, and their contracts.


def known_positions(
    config: Config, portfolio: Portfolio, moves: Sequence[LpPositionChange]
) -> tuple[ConfirmedPosition, ...]:
    """Return every counted position. Raises ConfigError if the config lacks settings for positions
    opened by the agent.
    """
    if config.lp is not None:
        venues = {"uniswap_v2": config.venues.uniswap_v2, "uniswap_v3": config.venues.uniswap_v3}
        for move in moves:
            if venues.get(move.venue) is None and own.is_position_open(moves, move.name):
                raise ConfigError(
                    f"venues.{move.venue}: missing, and the agent has liquidity in {move.name}",
                    f"leave [venues.{move.venue}] in the config; a target's share of 0% takes"
                    " liquidity out",
                )
        return own.tracked_positions(
            portfolio.positions,
            portfolio.lp_targets,
            moves,
            config.lp.volatility,
            config.lp.horizon,
        )
    if open_still := {move.name for move in moves if own.is_position_open(moves, move.name)}:
        raise ConfigError(
            f"lp: missing, and the agent has liquidity in {', '.join(sorted(open_still))}",
            "leave [lp] with its volatility and horizon in the config; a target's share of 0% takes"
            " liquidity out",
        )
    return portfolio.positions


def lp_venues(config: Config, moves: Sequence[LpPositionChange]) -> frozenset[str]:
    """Return venues of positions that are confirmed, targeted, or opened by the agent."""
    wanted = () if config.lp is None else config.lp.targets
    places = [place.kind for place in (*config.portfolio.positions, *wanted)]
    return frozenset(places) | {
        move.venue for move in moves if own.is_position_open(moves, move.name)
    }


def liquidity_contracts(
    config: Config, moves: Sequence[LpPositionChange]
) -> tuple[tuple[str, str], ...]:
    """Return (venue, contract) that provides and withdraws liquidity, of venues that have any."""
    v2, v3, used = config.venues.uniswap_v2, config.venues.uniswap_v3, lp_venues(config, moves)
    through = {
        "uniswap_v2": v2.router if v2 else None,
        "uniswap_v3": v3.position_manager if v3 else None,
    }
    return tuple(
        (venue, contract)
        for venue, contract in through.items()
        if venue in used and contract is not None
    )


# --- Contracts of the config besides tokens and pools, by address, with their kind.


def factories(config: Config) -> dict[str, str]:
    """Factory of each venue by its name."""
    venues = {"uniswap_v2": config.venues.uniswap_v2, "uniswap_v3": config.venues.uniswap_v3}
    return {name: venue.factory for name, venue in venues.items() if venue is not None}


def fixed_contracts(config: Config, moves: Sequence[LpPositionChange] = ()) -> dict[str, str]:
    """Return routers and factories by address: contracts of the config besides tokens and pools.

    Includes the position manager once a position of it is counted or targeted: weights depend on
    its answers. `moves` are the agent's own actions.
    """
    found: dict[str, str] = {}
    for name, venue in (("v2", config.venues.uniswap_v2), ("v3", config.venues.uniswap_v3)):
        if venue is not None:
            found |= {venue.factory: f"{name} factory", venue.router: f"{name} router"}
    if config.venues.uniswap_v3 is not None and "uniswap_v3" in lp_venues(config, moves):
        found[config.venues.uniswap_v3.position_manager] = "v3 position manager"
    if config.execution.router == "rebalancer" and config.execution.rebalancer is not None:
        found[config.execution.rebalancer] = "rebalancer"
    return found


# --- From [[strategies]] and [split] to the model: strategies with their weights, trigger and
# health rule.


def build_split(config: Config) -> CapitalSplit | None:
    """Build the strategies of the config; None without strategies. Raises ConfigError for an
    invalid trigger.
    """
    if not config.strategies or config.split is None:
        return None
    policy, assets = build_policy(config), config.portfolio.assets
    address = {asset.symbol: asset.address for asset in assets}
    found = []
    for table in config.strategies:
        own = _own_policy(config, policy, table)
        if table.weights is None:
            weights = dict(
                zip(address.values(), largest_remainder([Fraction(1)] * len(assets)), strict=True)
            )
        else:
            weights = {address[symbol]: bps for symbol, bps in table.weights.items()}
        rule = table.health
        health = (
            None
            if rule is None
            else StrategyHealthRule(
                rule.sharpe, rule.recover, rule.window, rule.period, rule.recover_period
            )
        )
        found.append(
            Strategy(
                table.name,
                table.share,
                tuple(weights.items()),
                own.trigger,
                own.destination,
                own.cooldown_s,
                table.floor,
                health,
            )
        )
    return CapitalSplit(tuple(found), Threshold(config.split.absolute, config.split.relative))


def with_allocators(
    config: Config, split: CapitalSplit | None, portfolio: Portfolio, folder: Path
) -> CapitalSplit | None:
    """Add each strategy's allocator by token address; files of supplies are relative to `folder`.
    Raises ConfigError.
    """
    if split is None:
        return None
    tables = {one.name: one for one in config.strategies}
    found = []
    for one in split.strategies:
        weights = build_weights(
            strategy_as_portfolio(config.portfolio, tables[one.name]), portfolio, folder
        )
        found.append(
            replace(
                one,
                allocator=(
                    None if weights is None or weights.method is AllocationMethod.FIXED else weights
                ),
            )
        )
    return replace(split, strategies=tuple(found))


def allocator_supply_tokens(portfolio: Portfolio, split: CapitalSplit | None) -> tuple[str, ...]:
    """Return tokens whose total supply is read from the chain, for the portfolio's allocator or a
    strategy's.
    """
    allocators = [
        portfolio.weights,
        *(one.allocator for one in (() if split is None else split.strategies)),
    ]
    return tuple(
        dict.fromkeys(
            token
            for weights in allocators
            for token in supply_tokens(replace(portfolio, weights=weights))
        )
    )


def _own_policy(config: Config, policy: Policy, table: StrategyTable) -> Policy:
    """Build the policy of one strategy, validated as that of a portfolio."""
    risky = {
        asset.symbol: asset.address
        for asset in config.portfolio.assets
        if asset.symbol != config.portfolio.numeraire
    }
    try:
        if is_zone(table.trigger):
            raise ConfigError(
                "policy.trigger: a zone weighs a whole portfolio", "use another trigger"
            )
        own = replace(
            policy,
            trigger=(
                policy.trigger if table.trigger is None else build_trigger(table.trigger, risky)
            ),
            destination=(
                policy.destination if table.destination is None else Destination(table.destination)
            ),
            cooldown_s=policy.cooldown_s if table.cooldown is None else table.cooldown,
        )
        rules.validate_policy(own)
    except ConfigError as error:
        raise ConfigError(
            error.message.replace("policy.", f"strategies.{table.name}.", 1), error.remedy
        ) from None
    return own
