"""Build model types from the config's tables, with token decimals from the chain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from agent.amm.lp.venues import LpVenue
from agent.amm.v3.pool import V3Pool
from agent.config.limits import max_weight_bps
from agent.config.liquidity import build_positions, lp_venues
from agent.config.orders import build_orders
from agent.config.pace import build_pace
from agent.config.schema import Config
from agent.config.tables.limits import build_limits_from_table
from agent.config.tables.portfolio import AssetTable, HubTable
from agent.config.triggers import build_policy_trigger
from agent.config.venues import find_venue, position_manager
from agent.errors import ConfigError
from agent.model import (
    Asset,
    CodeHash,
    Destination,
    ExecutionConfig,
    Limits,
    LpPositionChange,
    Policy,
    Portfolio,
    PriceSource,
    ReferenceConfig,
    TradeSide,
)
from agent.units import Token, parse_raw

EXPIRE_BLOCKS = 25
"""Age in blocks from which a plan is not sent; its deadline in chain time is usually tighter."""


def build_portfolio(config: Config, tokens: Mapping[str, Token]) -> Portfolio:
    """Build the portfolio. `tokens` are read from the chain, by address; symbols are the
    config's.
    """

    def checked_token(entry: AssetTable | HubTable) -> Token:
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
    assets = tuple(_build_asset(config, entry, checked_token(entry)) for entry in table.assets)
    numeraire = next(asset.token for asset in assets if asset.token.symbol == table.numeraire)
    hubs = tuple(checked_token(h) for h in table.hubs)
    feeds = tuple((h.address, h.feed) for h in table.hubs if h.feed is not None)
    positions = build_positions(config, {asset.token.symbol: asset.token for asset in assets})
    orders = build_orders(table, assets, numeraire)
    use_cash = table.use_cash
    return Portfolio(
        numeraire,
        assets,
        hubs,
        config.chain.wrapped_native,
        feeds,
        positions,
        orders=orders,
        use_cash_raw=(
            None
            if use_cash is None
            else parse_raw(use_cash, numeraire.decimals, "portfolio.use_cash")
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


def build_execution(config: Config, pinned: tuple[str, ...]) -> ExecutionConfig:
    """Build the execution settings; `pinned` are the addresses whose code must be pinned. Raises
    ConfigError if the router's address is missing.
    """
    table, venue = config.execution, find_venue(config, V3Pool.kind)
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
    if venue is None or venue.router is None:
        raise ConfigError(
            f"execution.router: swap_router_02 needs [[venues]] of kind {V3Pool.kind} with its router"
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


def factories(config: Config) -> dict[str, str]:
    """Return the factory of each venue by its name."""
    return {venue.name: venue.factory for venue in config.venues}


def fixed_contracts(config: Config, moves: Sequence[LpPositionChange] = ()) -> dict[str, str]:
    """Return the names of routers, factories and the futures venue's contracts by address.

    The position manager is included once one of its positions is counted or targeted, because
    weights then depend on its answers. `moves` are the agent's own actions.
    """
    names: dict[str, str] = {}
    for venue in config.venues:
        names[venue.factory] = f"{venue.name} factory"
        if venue.router is not None:
            names[venue.router] = f"{venue.name} router"
        if venue.hooks is not None:
            names[venue.hooks] = f"{venue.name} hooks"
    manager = position_manager(config)
    if manager is not None and LpVenue.V3 in lp_venues(config, moves):
        names[manager] = f"{LpVenue.V3} position manager"
    if config.execution.router == "rebalancer" and config.execution.rebalancer is not None:
        names[config.execution.rebalancer] = "rebalancer"
    if config.futures is not None:
        names |= config.futures.contracts
    return names
