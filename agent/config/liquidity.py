"""[lp] and [[portfolio.positions]]: liquidity targets, confirmed positions, and their risk
settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from agent.amm.lp import own_changes
from agent.amm.lp.venues import LpVenue
from agent.config.schema import Config
from agent.config.tables.liquidity import (
    LpTable,
    V2PositionTable,
    V2TargetTable,
    V3PositionTable,
    V3TargetTable,
)
from agent.config.venues import find_venue, position_manager
from agent.errors import ConfigError
from agent.model import (
    ConfirmedPosition,
    LpPositionChange,
    LpTarget,
    Portfolio,
)
from agent.units import Token, format_bps, parse_raw

if TYPE_CHECKING:
    from agent.chain.pools.reading import PoolRef


def require_valid_lp_targets(config: Config) -> None:
    """Raise ValueError naming the field if targets repeat a pool, lack a venue or exceed the
    limits.
    """
    targets = [] if config.lp is None else config.lp.targets
    if not targets:
        return
    for target_index, target in enumerate(targets):
        config_key = f"lp.targets.{target.pool_address}"
        if target.pool_address in [
            earlier_target.pool_address for earlier_target in targets[:target_index]
        ]:
            raise ValueError(f"{config_key}: given twice; list each pool once")
        if find_venue(config, target.kind) is None:
            raise ValueError(f"{config_key}: needs [[venues]] of kind {target.kind}")
        if isinstance(target, V3TargetTable) and position_manager(config) is None:
            raise ValueError(
                f"{config_key}: needs position_manager in [[venues]] of kind {LpVenue.V3}"
            )
    limit_bps = config.limits.lp_max_weight
    if limit_bps is None:
        raise ValueError(
            "limits.lp_max_weight: missing or off; required by [[lp.targets]]; write a share such as"
            ' "25%"'
        )
    share_sum_bps = sum(target.share for target in targets)
    if share_sum_bps > limit_bps:
        raise ValueError(
            f"lp.targets: shares sum to {format_bps(share_sum_bps)}, but limits.lp_max_weight is"
            f" {format_bps(limit_bps)};"
            " lower the shares or raise the limit"
        )


def build_targets(
    config: Config, portfolio: Portfolio, pools: Sequence[PoolRef]
) -> tuple[LpTarget, ...]:
    """Build the targets; `pools` are those of the venues. Raises ConfigError if a pool is unknown,
    or has a token that is not an asset.
    """
    if config.lp is None:
        return ()
    lp = config.lp
    return tuple(_build_target(config, lp, table, portfolio, pools) for table in lp.targets)


def _build_target(
    config: Config,
    lp: LpTable,
    table: V2TargetTable | V3TargetTable,
    portfolio: Portfolio,
    pools: Sequence[PoolRef],
) -> LpTarget:
    config_key = f"lp.targets.{table.pool_address}"
    pool = next(
        (pool for pool in pools if pool.address == table.pool_address and pool.venue == table.kind),
        None,
    )
    if pool is None:
        raise ConfigError(
            f"{config_key}: not a priced pool of {table.kind} in [[venues]] between the portfolio's tokens",
            "check the address; add its fee tier to fee_tiers, or the pool to the venue's pools",
        )
    asset_addresses = {asset.token.address for asset in portfolio.assets}
    foreign_labels = [
        portfolio.token(token_address).label
        for token_address in (pool.token0, pool.token1)
        if token_address not in asset_addresses
    ]
    if foreign_labels:
        raise ConfigError(
            f"{config_key}: holds {' and '.join(foreign_labels)}, not an asset of the portfolio",
            "add it to portfolio.assets (a target of 0% is allowed), or use another pool",
        )
    contract = table.pool_address
    compound_above = None
    width_bps = None
    if isinstance(table, V3TargetTable):
        contract = _require_position_manager(config)
        width_bps = table.width
        if table.compound_above is not None:
            compound_above = Fraction(
                parse_raw(
                    table.compound_above,
                    portfolio.numeraire.decimals,
                    f"{config_key}.compound_above",
                )
            )
    return LpTarget(
        venue=table.kind,
        contract=contract,
        pool=table.pool_address,
        token0=pool.token0,
        token1=pool.token1,
        fee_pips=pool.fee_pips,
        tick_spacing=None if width_bps is None else pool.tick_spacing,
        share_bps=table.share,
        width_bps=width_bps,
        compound_above=compound_above,
        volatility_bps=lp.volatility if table.volatility is None else table.volatility,
        horizon_s=lp.horizon,
    )


def require_usable_liquidity(config: Config) -> None:
    """Raise ValueError naming the field if a position or target could not be read, valued or
    bounded.
    """
    require_valid_lp_targets(config)
    positions = config.portfolio.positions
    if not positions:
        return
    kinds_and_names = [(position.kind, position.name) for position in positions]
    for position_index, position in enumerate(positions):
        config_key = f"portfolio.positions.{position.name.removeprefix('token_id ')}"
        if (position.kind, position.name) in kinds_and_names[:position_index]:
            raise ValueError(
                f"{config_key}: {position.kind} {position.name} is given twice; list each position once"
            )
        if find_venue(config, position.kind) is None:
            raise ValueError(f"{config_key}: needs [[venues]] of kind {position.kind}")
        symbols = [asset.symbol for asset in config.portfolio.assets]
        foreign_symbols = [symbol for symbol in position.entry if symbol not in symbols]
        if foreign_symbols:
            raise ValueError(
                f"{config_key}.entry: {foreign_symbols[0]!r} is not an asset; add it to portfolio.assets"
                " (a target of 0% is allowed)"
            )
    if config.lp is None:
        raise ValueError(
            'lp: missing; positions need [lp] with volatility = "60%" and horizon = "30d",'
            " for example"
        )
    if "lp_max_weight" not in config.limits.model_fields_set:
        raise ValueError(
            'limits.lp_max_weight: missing; required by positions; write a share such as "25%", or'
            ' "off"'
        )


def build_positions(
    config: Config, token_by_symbol: Mapping[str, Token]
) -> tuple[ConfirmedPosition, ...]:
    """Build the confirmed positions. Raises ConfigError for an entry
    with more decimals than its token.
    """
    if config.lp is None:
        return ()
    lp = config.lp
    return tuple(
        _build_position(config, lp, table, token_by_symbol) for table in config.portfolio.positions
    )


def _build_position(
    config: Config,
    lp: LpTable,
    table: V2PositionTable | V3PositionTable,
    token_by_symbol: Mapping[str, Token],
) -> ConfirmedPosition:
    config_key = f"portfolio.positions.{table.name.removeprefix('token_id ')}.entry"
    entry_amounts = sorted(
        (int(token_by_symbol[symbol].address, 16), token_by_symbol[symbol], amount)
        for symbol, amount in table.entry.items()
    )
    (_, token0, amount0), (_, token1, amount1) = entry_amounts
    return ConfirmedPosition(
        venue=table.kind,
        contract=table.pair
        if isinstance(table, V2PositionTable)
        else _require_position_manager(config),
        token_id=None if isinstance(table, V2PositionTable) else table.token_id,
        token0=token0.address,
        token1=token1.address,
        entry_raw=(
            parse_raw(amount0, token0.decimals, f"{config_key}.{token0.symbol}"),
            parse_raw(amount1, token1.decimals, f"{config_key}.{token1.symbol}"),
        ),
        entry_block=table.entry_block,
        volatility_bps=lp.volatility if table.volatility is None else table.volatility,
        horizon_s=lp.horizon,
    )


def _require_position_manager(config: Config) -> str:
    manager_address = position_manager(config)
    if manager_address is None:
        raise ConfigError(
            "portfolio.positions: a position by its token_id needs position_manager in [[venues]] of"
            f" kind {LpVenue.V3}"
        )
    return manager_address


def counted_positions(
    config: Config, portfolio: Portfolio, changes: Sequence[LpPositionChange]
) -> tuple[ConfirmedPosition, ...]:
    """Return all counted positions. Raises ConfigError if the config lacks settings for positions
    opened by the agent.
    """
    if config.lp is not None:
        for change in changes:
            if find_venue(config, change.venue) is None and own_changes.is_position_open(
                changes, change.name
            ):
                raise ConfigError(
                    f"venues.{change.venue}: missing, but the agent has liquidity in {change.name}",
                    "keep its [[venues]] in the config; a target with a share of 0%"
                    " withdraws liquidity",
                )
        return own_changes.tracked_positions(
            portfolio.positions,
            portfolio.lp_targets,
            changes,
            config.lp.volatility,
            config.lp.horizon,
        )
    if open_names := {
        change.name for change in changes if own_changes.is_position_open(changes, change.name)
    }:
        raise ConfigError(
            f"lp: missing, but the agent has liquidity in {', '.join(sorted(open_names))}",
            "keep [lp] with its volatility and horizon in the config; a target with a share of 0%"
            " withdraws liquidity",
        )
    return portfolio.positions


def lp_venues(config: Config, changes: Sequence[LpPositionChange]) -> frozenset[str]:
    """Return venues of positions that are confirmed, targeted, or opened by the agent."""
    targets = () if config.lp is None else config.lp.targets
    configured_venues = [table.kind for table in (*config.portfolio.positions, *targets)]
    return frozenset(configured_venues) | {
        change.venue for change in changes if own_changes.is_position_open(changes, change.name)
    }


def liquidity_contracts(
    config: Config, changes: Sequence[LpPositionChange]
) -> tuple[tuple[str, str], ...]:
    """Return (venue, contract) pairs of the contracts that provide and withdraw liquidity, for venues
    with liquidity.
    """
    v2_venue = find_venue(config, LpVenue.V2)
    venue_contracts = (
        (LpVenue.V2, None if v2_venue is None else v2_venue.router),
        (LpVenue.V3, position_manager(config)),
    )
    venues = lp_venues(config, changes)
    return tuple(
        (venue.value, contract)
        for venue, contract in venue_contracts
        if contract is not None and venue in venues
    )
