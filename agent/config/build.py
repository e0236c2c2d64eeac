"""From the config's tables to the model types, once the tokens' decimals were read from the chain."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from fractions import Fraction

from agent.config.liquidity import build_positions
from agent.config.max_weight import most_bps
from agent.config.orders import build_orders
from agent.config.pace import build_pace
from agent.config.presets import ETHEREUM
from agent.config.schema import AssetTable, Config, HubTable, LimitsTable
from agent.config.template import render
from agent.config.triggers import build_trigger
from agent.config.zone import ZoneTable, build_zone
from agent.errors import ConfigError
from agent.model import (
    Asset,
    CodeHash,
    Destination,
    Execution,
    Limits,
    Only,
    Policy,
    Portfolio,
    Reference,
    ReferenceKind,
)
from agent.units import Token, parse_raw

EXPIRE_BLOCKS = 25
"""A plan older than this many blocks is never sent; its deadline in chain time is the tighter bound."""


def build_portfolio(config: Config, tokens: Mapping[str, Token]) -> Portfolio:
    """`tokens` are what the chain says, by address; the config's own symbols are what the owner sees."""

    def token(entry: AssetTable | HubTable) -> Token:
        if entry.address not in tokens:
            raise ConfigError(f"portfolio: {entry.symbol} at {entry.address} was not read from the chain")
        found = tokens[entry.address].decimals
        if entry.decimals not in (None, found):
            raise ConfigError(
                f"portfolio: {entry.symbol} at {entry.address} has {found} decimals on the chain, the config says {entry.decimals}",
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
            max_bps=most_bps(config, a.symbol),
        )
        for a in table.assets
    )
    numeraire = next(asset.token for asset in assets if asset.token.symbol == table.numeraire)
    hubs = tuple(token(h) for h in table.hubs)
    feeds = tuple((h.address, h.feed) for h in table.hubs if h.feed is not None)
    positions = build_positions(config, {asset.token.symbol: asset.token for asset in assets})
    orders = build_orders(table, assets, numeraire)
    return Portfolio(numeraire, assets, hubs, config.chain.wrapped_native, feeds, positions, orders=orders)


def build_policy(config: Config) -> Policy:
    """When to act and how far to go."""
    table = config.policy.trigger
    risky = {asset.symbol: asset.address for asset in config.portfolio.assets if asset.symbol != config.portfolio.numeraire}
    policy = config.policy
    return Policy(
        trigger=build_zone(config) if isinstance(table, ZoneTable) else build_trigger(table, risky),
        destination=Destination(policy.destination),
        cooldown_s=policy.cooldown,
        confirm_blocks=policy.confirm_blocks or 0,
        jitter_bps=policy.jitter or 0,
        only=None if policy.only is None else Only(policy.only),
    )


def build_reference(config: Config, pins: Iterable[tuple[str, str]] | None = None) -> Reference:
    """Sources of reference prices; `pins` are (address, code hash) of what the owner trusts: only means of such pools count."""
    table = config.reference
    return Reference(
        kinds=tuple(ReferenceKind(kind) for kind in table.kind),
        twap_window_s=table.twap_window,
        feed_max_age_s=table.feed_max_age,
        feed_ages=tuple((one.feed, one.feed_max_age) for one in config.portfolio.listed if one.feed and one.feed_max_age),
        mean_pools=None if pins is None else tuple(CodeHash(address, code_hash) for address, code_hash in pins),
        sequencer_feed=table.sequencer_feed,
        sequencer_grace_s=table.sequencer_grace or 0,
    )


def build_limits(config: Config, numeraire: Token) -> Limits:
    """Limits in exact units: values in the numeraire's base units, gas in wei."""
    return limits_of(config.limits, config.portfolio.max_live_value, numeraire)


def starting_limits(numeraire: Token) -> Limits:
    """The limits of the config that `trimtab init` writes, for those who have none yet; how much it may manage is left open."""
    text = render(ETHEREUM, "", (), (), numeraire.symbol, (("RPC_URL", "any"),))
    return limits_of(LimitsTable.model_validate(tomllib.loads(text)["limits"]), None, numeraire)


def limits_of(table: LimitsTable, max_live_value: str | None, numeraire: Token) -> Limits:
    """The same of the table alone."""

    def value(text: str | None, field: str) -> Fraction | None:
        return None if text is None else Fraction(parse_raw(text, numeraire.decimals, field))

    def wei(text: str | None, field: str) -> int | None:
        return None if text is None else parse_raw(text, 18, field)

    return Limits(
        price_impact_bps=table.price_impact,
        slippage_bps=table.slippage,
        plan_cost_bps=table.plan_cost,
        turnover_bps=table.turnover,
        daily_turnover_bps=table.daily_turnover,
        daily_loss_bps=table.daily_loss,
        total_loss_bps=table.total_loss,
        oracle_deviation_bps=table.oracle_deviation,
        second_quote_deviation_bps=table.second_quote_deviation,
        depeg_bps=table.depeg,
        gas_price_wei=table.gas_price,
        gas_per_day_wei=wei(table.gas_per_day, "limits.gas_per_day"),
        native_floor_wei=wei(table.native_floor, "limits.native_floor"),
        native_top_up_wei=wei(table.native_top_up, "limits.native_top_up"),
        head_age_s=table.head_age,
        min_trade=value(table.min_trade, "limits.min_trade"),
        pool_min_value=value(table.pool_min_value, "limits.pool_min_value"),
        impermanent_loss_bps=table.impermanent_loss,
        balance_jump_bps=table.balance_jump,
        balance_jump_wait_s=table.balance_jump_wait,
        first_purchase_s=table.first_purchase,
        max_live_value=value(max_live_value, "portfolio.max_live_value"),
        lp_max_weight_bps=table.lp_max_weight,
        token_screen=table.token_screen,
        payout_per_day=value(table.payout_per_day, "limits.payout_per_day"),
    )


def build_execution(config: Config, pinned: tuple[str, ...]) -> Execution:
    """How plans are sent; `pinned` are the addresses whose code must be pinned."""
    table, venue = config.execution, config.venues.uniswap_v3
    if table.router == "rebalancer":
        if table.rebalancer is None:
            raise ConfigError(
                "execution.rebalancer: router = 'rebalancer' needs the contract's address", "deploy it, or use swap_router_02"
            )
        return Execution(table.router, table.rebalancer, table.deadline, EXPIRE_BLOCKS, pinned, pace=build_pace(config))
    if venue is None:
        raise ConfigError("execution.router: swap_router_02 needs [venues.uniswap_v3] with its router")
    return Execution(table.router, venue.router, table.deadline, EXPIRE_BLOCKS, pinned, pace=build_pace(config))
