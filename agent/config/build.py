"""Build model types from the config's tables, with token decimals from the chain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from agent.config.limits import max_weight_bps
from agent.config.liquidity import build_positions, lp_venues
from agent.config.orders import build_orders
from agent.config.pace import build_pace
from agent.config.schema import Config
from agent.config.tables.limits import build_limits_from_table
from agent.config.tables.portfolio import AssetTable, HubTable
from agent.config.triggers import build_policy_trigger
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


def factories(config: Config) -> dict[str, str]:
    """Return the factory of each venue by its name."""
    venues = {"uniswap_v2": config.venues.uniswap_v2, "uniswap_v3": config.venues.uniswap_v3}
    return {name: venue.factory for name, venue in venues.items() if venue is not None}


def fixed_contracts(config: Config, moves: Sequence[LpPositionChange] = ()) -> dict[str, str]:
    """Return the names of routers, factories and the futures venue's contracts by address.

    The position manager is included once one of its positions is counted or targeted, because
    weights then depend on its answers. `moves` are the agent's own actions.
    """
    names: dict[str, str] = {}
    for name, venue in (("v2", config.venues.uniswap_v2), ("v3", config.venues.uniswap_v3)):
        if venue is not None:
            names |= {venue.factory: f"{name} factory", venue.router: f"{name} router"}
    if config.venues.uniswap_v3 is not None and "uniswap_v3" in lp_venues(config, moves):
        names[config.venues.uniswap_v3.position_manager] = "v3 position manager"
    if config.execution.router == "rebalancer" and config.execution.rebalancer is not None:
        names[config.execution.rebalancer] = "rebalancer"
    if config.futures is not None:
        names |= config.futures.contracts
    return names
