"""Build model types from the config's tables, with token decimals from the chain."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from agent.amm.lp.venues import LpVenue
from agent.amm.v3.pool import V3Pool
from agent.config.limits import max_weight_bps
from agent.config.liquidity import build_positions, lp_venues
from agent.config.orders import build_orders
from agent.config.pace import build_pace
from agent.config.redaction import leaf_values
from agent.config.schema import Config, PolicyTable
from agent.config.tables.limits import build_limits_from_table
from agent.config.tables.portfolio import AssetTable, HubTable
from agent.config.tables.triggers import is_zone
from agent.config.triggers import build_trigger_with_risk
from agent.config.venues import find_venue, position_manager
from agent.errors import ConfigError
from agent.layers.config import LayerTables
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
from agent.signing.terms import tip_range_wei
from agent.units import Token, parse_raw

EXPIRE_BLOCKS = 25
"""Age in blocks from which a plan is not sent; its deadline in chain time is usually tighter."""


def build_portfolio(config: Config, token_by_address: Mapping[str, Token]) -> Portfolio:
    """Build the portfolio. `token_by_address` has the tokens read from the chain; symbols are the
    config's.
    """

    def checked_token(token_table: AssetTable | HubTable) -> Token:
        if token_table.address not in token_by_address:
            raise ConfigError(
                f"portfolio: {token_table.symbol} at {token_table.address} was not read from the chain"
            )
        decimals = token_by_address[token_table.address].decimals
        if token_table.decimals not in (None, decimals):
            raise ConfigError(
                f"portfolio: {token_table.symbol} at {token_table.address} has {decimals} decimals on the chain,"
                f" the config says {token_table.decimals}",
                "check that this is the right token, then correct the config",
            )
        return Token(token_table.address, token_table.symbol, decimals)

    portfolio_table = config.portfolio
    assets = tuple(
        _build_asset(config, asset_table, checked_token(asset_table))
        for asset_table in portfolio_table.assets
    )
    numeraire = next(
        asset.token for asset in assets if asset.token.symbol == portfolio_table.numeraire
    )
    hubs = tuple(checked_token(hub) for hub in portfolio_table.hubs)
    hub_feeds = tuple(
        (hub.address, hub.feed) for hub in portfolio_table.hubs if hub.feed is not None
    )
    positions = build_positions(config, {asset.token.symbol: asset.token for asset in assets})
    orders = build_orders(portfolio_table, assets, numeraire)
    use_cash = portfolio_table.use_cash
    return Portfolio(
        numeraire,
        assets,
        hubs,
        config.chain.wrapped_native,
        hub_feeds,
        positions,
        orders=orders,
        use_cash_raw=(
            None
            if use_cash is None
            else parse_raw(use_cash, numeraire.decimals, "portfolio.use_cash")
        ),
    )


def _build_asset(config: Config, asset_table: AssetTable, token: Token) -> Asset:
    reserve_raw = parse_raw(
        asset_table.reserve, token.decimals, f"portfolio.assets.{asset_table.symbol}.reserve"
    )
    return Asset(
        token=token,
        target_bps=asset_table.target,
        reserve_raw=reserve_raw,
        feed=asset_table.feed,
        includes_native=asset_table.native,
        max_rebase_bps=asset_table.rebasing,
        band=asset_table.band,
        max_bps=max_weight_bps(config, asset_table.symbol),
    )


def build_policy(config: Config) -> Policy:
    """Build the policy: trigger, destination and cooldown."""
    policy_table = config.policy
    return Policy(
        trigger=build_trigger_with_risk(config, config.policy.trigger),
        destination=_destination(policy_table),
        cooldown_s=policy_table.cooldown,
        confirm_blocks=policy_table.confirm_blocks or 0,
        jitter_bps=policy_table.jitter or 0,
        trade_side=None if policy_table.only is None else TradeSide(policy_table.only),
    )


def _destination(table: PolicyTable) -> Destination:
    if table.destination is not None:
        return Destination(table.destination)
    return Destination.ZONE if is_zone(table.trigger) else Destination.TARGET


def build_reference(
    config: Config, pins: Iterable[tuple[str, str]] | None = None
) -> ReferenceConfig:
    """Build the sources of reference prices. `pins` are (address, code hash) pairs trusted by the
    owner. Only TWAPs of pinned pools count.
    """
    reference_table = config.reference
    return ReferenceConfig(
        sources=tuple(PriceSource(kind) for kind in reference_table.kind),
        twap_window_s=reference_table.twap_window,
        feed_max_age_s=reference_table.feed_max_age,
        max_age_s_by_feed=tuple(
            (token.feed, token.feed_max_age)
            for token in config.portfolio.listed_tokens
            if token.feed and token.feed_max_age is not None
        ),
        twap_pools=None if pins is None else tuple(CodeHash(*pin) for pin in pins),
        sequencer_feed=reference_table.sequencer_feed,
        sequencer_grace_s=reference_table.sequencer_grace or 0,
        uses_worse_source=True,
        short_window_s=(reference_table.short_window or 0)
        if PriceSource.TWAP.value in reference_table.kind
        else 0,
    )


def build_limits(config: Config, numeraire: Token) -> Limits:
    """Build the limits in exact units: values in the numeraire's base units, gas in wei."""
    return build_limits_from_table(config.limits, config.portfolio.max_live_value, numeraire)


def build_execution(config: Config, pinned_addresses: tuple[str, ...]) -> ExecutionConfig:
    """Build the execution settings; `pinned_addresses` are the addresses whose code must be pinned.
    Raises ConfigError if the router's address is missing.
    """
    execution_table = config.execution
    uses_rebalancer = execution_table.router == "rebalancer"
    v3_venue = find_venue(config, V3Pool.kind)
    least_tip_wei, _ = tip_range_wei(config.chain.chain_id)
    contract = execution_table.rebalancer
    if uses_rebalancer and contract is None:
        raise ConfigError(
            "execution.rebalancer: router = 'rebalancer' needs the contract's address",
            "deploy the contract, or use swap_router_02",
        )
    if not uses_rebalancer:
        contract = None if v3_venue is None else v3_venue.router
    if contract is None:
        raise ConfigError(
            f"execution.router: swap_router_02 needs [[venues]] of kind {V3Pool.kind} with its router"
        )
    return ExecutionConfig(
        execution_table.router,
        contract,
        execution_table.deadline,
        EXPIRE_BLOCKS,
        pinned_addresses,
        pace=build_pace(config),
        sweeps_outputs=not uses_rebalancer,
        min_tip_wei=max(execution_table.min_tip or 0, least_tip_wei),
    )


def factory_by_venue(config: Config) -> dict[str, str]:
    """Return the factory of each venue by its name."""
    return {venue.name: venue.factory for venue in config.venues}


def contract_names(config: Config, changes: Sequence[LpPositionChange] = ()) -> dict[str, str]:
    """Return the names of routers, factories and the futures venue's contracts by address.

    The position manager is included once one of its positions is counted or targeted, because
    weights then depend on its answers. `changes` are the agent's own actions.
    """
    name_by_address: dict[str, str] = {}
    for venue in config.venues:
        name_by_address[venue.factory] = f"{venue.name} factory"
        if venue.router is not None:
            name_by_address[venue.router] = f"{venue.name} router"
        if venue.hooks is not None:
            name_by_address[venue.hooks] = f"{venue.name} hooks"
    manager = position_manager(config)
    if manager is not None and LpVenue.V3 in lp_venues(config, changes):
        name_by_address[manager] = f"{LpVenue.V3} position manager"
    if config.execution.router == "rebalancer" and config.execution.rebalancer is not None:
        name_by_address[config.execution.rebalancer] = "rebalancer"
    if config.futures is not None:
        name_by_address |= config.futures.contract_name_by_address
    return name_by_address


def named_contracts(config: Config) -> frozenset[str]:
    """Return the addresses of all contracts that the config names, pinned or not: a payout to one
    would be lost. The accounts in [wallet], [futures] and the tables of layers are none.
    """
    tables = config.model_dump(exclude={"wallet", "futures", *LayerTables.model_fields})
    addresses = set(contract_names(config))
    for _, value in leaf_values(tables):
        texts = value if isinstance(value, list) else [value]
        addresses.update(text for text in texts if re.fullmatch(r"0x[0-9a-fA-F]{40}", str(text)))
    return frozenset(addresses)


def allowed_payees(config: Config, confirmed_addresses: Collection[str]) -> tuple[str, ...]:
    """Return the payout addresses of the config that the owner has confirmed and that are no
    contract of it.
    """
    contracts = named_contracts(config)
    return tuple(
        address
        for address in config.wallet.payout_addresses
        if address in confirmed_addresses and address not in contracts
    )
