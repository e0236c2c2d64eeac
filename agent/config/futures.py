"""[futures]: the venue with its contracts or agent, markets with target weights, and limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.config.schema import Config
from agent.config.tables.fields import to_value_error
from agent.config.tables.futures import (
    MAX_HORIZON_S,
    HedgeTable,
    HyperliquidTable,
    MarketTable,
    PerpetualProtocolMarketTable,
    PerpetualProtocolTable,
    share_text,
)
from agent.errors import ConfigError
from agent.model import (
    FuturesLimits,
    FuturesPolicy,
    FuturesTarget,
    HedgePolicy,
    PerpOrderKind,
    Schedule,
)
from agent.policy.triggers.schedule_triggers import build_schedule, validate_schedule
from agent.units import BPS, DAY_S, Token, format_bps, parse_raw

HYPERLIQUID_MARGIN_PREFIX = "USDC"
"""Prefix of the symbol of Hyperliquid's margin token on any chain (USDC, USDC.e)."""
SHORTEST_ORDER_TIME_S = 60
LONGEST_ORDER_TIME_S = 30 * DAY_S
"""Range of the time for which a limit order rests."""


def require_valid_futures(config: Config) -> None:
    """Raise ValueError naming the field if [futures] contradicts itself or the portfolio. Margin
    must be in the numeraire, since venues value one coin of it as one unit of their quote currency.
    """
    futures_table = config.futures
    if futures_table is None:
        return
    _require_usable_signer(futures_table, config)
    symbols = [asset.symbol for asset in config.portfolio.assets]
    choices_text = f"choose from {', '.join(symbols)}, or add it with a target of 0%"
    _require_collateral(futures_table, config.portfolio.numeraire, symbols, choices_text)
    for market_index, market in enumerate(futures_table.markets):
        config_key = f"futures.markets.{market.symbol}"
        earlier_markets = futures_table.markets[:market_index]
        if market.symbol in [market_table.symbol for market_table in earlier_markets]:
            raise ValueError(f"{config_key}: given twice; list each market once")
        if isinstance(market, PerpetualProtocolMarketTable) and market.venue_key in [
            earlier_market.venue_key for earlier_market in earlier_markets
        ]:
            raise ValueError(
                f"{config_key}.base: {market.base} is given twice; list each market once"
            )
        if market.asset is not None and market.asset not in symbols:
            raise ValueError(
                f"{config_key}.asset: {market.asset!r} is not an asset; {choices_text}"
            )
        if abs(market.weight) > futures_table.limits.max_position:
            raise ValueError(
                f"{config_key}.weight: {format_bps(market.weight)} is beyond futures.limits.max_position of"
                f" {format_bps(futures_table.limits.max_position)}; lower it, or raise the limit"
            )
    for limit_key, multiple_bps in (
        ("futures.limits.spot_multiple", futures_table.limits.spot_multiple),
        ("limits.futures_notional", config.limits.futures_notional),
    ):
        if multiple_bps == 0:
            raise ValueError(f'{limit_key}: 0x allows no futures; write a value above 0x, or "off"')
    weight_sum_bps = sum(abs(market.weight) for market in futures_table.markets)
    if weight_sum_bps != BPS and (weight_sum_bps or futures_table.leverage):
        raise ValueError(
            f"futures.markets: absolute weights sum to {format_bps(weight_sum_bps)}, not 100 %;"
            f" {'add' if weight_sum_bps < BPS else 'take away'} {format_bps(abs(BPS - weight_sum_bps))}"
        )
    if futures_table.limits.resting_stop and not isinstance(futures_table, HyperliquidTable):
        raise ValueError(
            'futures.limits.resting_stop: only Hyperliquid has resting stops; write "off"'
        )
    _require_schedule(futures_table)
    _require_order_type(futures_table)
    _require_horizon_and_hedges(futures_table)
    if futures_table.leverage > futures_table.limits.max_leverage:
        raise ValueError(
            f"futures.leverage: {share_text(futures_table.leverage, 'x')} is above"
            f" futures.limits.max_leverage of {share_text(futures_table.limits.max_leverage, 'x')}; lower"
            " it, or raise the limit"
        )


def _require_collateral(
    table: PerpetualProtocolTable | HyperliquidTable,
    numeraire: str,
    symbols: Sequence[str],
    choices_text: str,
) -> None:
    """Raise ValueError unless margin is in the numeraire, and in USDC on Hyperliquid."""
    if table.collateral not in symbols:
        raise ValueError(
            f"futures.collateral: {table.collateral!r} is not an asset; {choices_text}"
        )
    if isinstance(table, HyperliquidTable) and not table.collateral.startswith(
        HYPERLIQUID_MARGIN_PREFIX
    ):
        raise ValueError(
            f"futures.collateral: {table.collateral!r} is not the {HYPERLIQUID_MARGIN_PREFIX} that the venue"
            f" settles in; write {HYPERLIQUID_MARGIN_PREFIX}, or remove [futures]"
        )
    if table.collateral != numeraire:
        raise ValueError(
            f"futures.collateral: {table.collateral!r} is not portfolio.numeraire"
            f" {numeraire!r}, which limits and costs are in; write"
            f' portfolio.numeraire = "{table.collateral}", or remove [futures]'
        )


def _require_usable_signer(
    table: PerpetualProtocolTable | HyperliquidTable, config: Config
) -> None:
    """Raise ValueError if the account would be its own delegate, or no agent key could sign."""
    if isinstance(table, HyperliquidTable):
        if config.wallet.mode == "propose":
            raise ValueError(
                'futures.venue: "hyperliquid" needs a signing key here; write wallet.mode = "sign"'
            )
    elif table.delegate is not None and table.delegate == (table.account or config.wallet.address):
        raise ValueError(
            f"futures.delegate: {table.delegate} is the account itself; set the address that may"
            " trade for it, or omit it"
        )


def _require_order_type(table: PerpetualProtocolTable | HyperliquidTable) -> None:
    """Raise ValueError for limit orders at a venue without them, or without their time limit."""
    if table.order_type == "ioc":
        return
    if not isinstance(table, HyperliquidTable):
        raise ValueError(
            f'futures.order_type: "{table.order_type}"; only Hyperliquid has resting orders: write'
            ' "ioc"'
        )
    if table.order_time is None:
        raise ValueError(
            f'futures.order_time: missing; write how long an order of type "{table.order_type}" may'
            " rest, for example 1h"
        )
    if not SHORTEST_ORDER_TIME_S <= table.order_time <= LONGEST_ORDER_TIME_S:
        raise ValueError(f"futures.order_time: {table.order_time}s; write 1m to 30d")


def _require_horizon_and_hedges(table: PerpetualProtocolTable | HyperliquidTable) -> None:
    """Raise ValueError for a funding horizon out of range, and for hedges without a market of their
    own for an asset.
    """
    if table.funding_horizon is not None and not 0 < table.funding_horizon <= MAX_HORIZON_S:
        raise ValueError(
            f"futures.funding_horizon: {table.funding_horizon}s; write above 0s and at most 365d,"
            ' or "off"'
        )
    if table.hedge is None:
        return
    hedgeable_symbols = [market.asset for market in table.markets if market.asset is not None]
    if not hedgeable_symbols:
        raise ValueError(
            "futures.hedge: no market has an asset; add asset to one of [[futures.markets]], or remove"
            " [futures.hedge]"
        )
    if repeated_symbols := [
        symbol for symbol in hedgeable_symbols if hedgeable_symbols.count(symbol) > 1
    ]:
        raise ValueError(
            f"futures.markets: two markets have the asset {repeated_symbols[0]!r}; keep it"
            " only in the market used for hedging"
        )


def futures_markets(config: Config) -> Sequence[MarketTable]:
    """Return the markets of [futures]; none without it."""
    return () if config.futures is None else config.futures.markets


def require_hedge_market(config: Config, symbol: str) -> None:
    """Raise ConfigError unless a market has the asset of this symbol."""
    hedgeable_symbols = [
        market.asset for market in futures_markets(config) if market.asset is not None
    ]
    if symbol not in hedgeable_symbols:
        choices_text = (
            f"choose from {', '.join(hedgeable_symbols)}"
            if hedgeable_symbols
            else "none has an asset yet"
        )
        raise ConfigError(
            f"hedge: {symbol} has no futures market",
            f'{choices_text}, or add asset = "{symbol}" to its market in [[futures.markets]]',
        )


def build_futures(config: Config, token_by_symbol: Mapping[str, Token]) -> FuturesPolicy | None:
    """Build targets and limits of futures, with the portfolio's tokens by symbol; None without
    [futures].
    """
    futures_table = config.futures
    if futures_table is None:
        return None
    limits_table = futures_table.limits
    return FuturesPolicy(
        tuple(FuturesTarget(market.venue_key, market.weight) for market in futures_table.markets),
        futures_table.leverage,
        futures_table.band or 0,
        FuturesLimits(
            max_leverage_bps=limits_table.max_leverage,
            max_utilisation_bps=limits_table.max_utilisation,
            max_position_bps=limits_table.max_position,
            spot_multiple_bps=_spot_multiple_bps(config),
            stress_move_bps=limits_table.stress_move or 0,
            slippage_bps=limits_table.slippage,
            hysteresis_bps=limits_table.hysteresis,
            emergency_distance_bps=limits_table.emergency_distance or 0,
            emergency_slippage_bps=limits_table.emergency_slippage,
            max_basis_bps=limits_table.max_basis,
            index_age_s=limits_table.index_age,
            reduction_per_day_bps=limits_table.max_reduction_per_day or 0,
            emergency_gas_price_wei=limits_table.emergency_gas_price or 0,
            emergency_gas_per_day_wei=parse_raw(
                limits_table.emergency_gas_per_day or "0",
                18,
                "futures.limits.emergency_gas_per_day",
            ),
            top_up_per_day_bps=limits_table.max_top_up_per_day,
            emergency_cooldown_s=limits_table.emergency_cooldown or 0,
            resting_stop_bps=limits_table.resting_stop or 0,
        ),
        token_by_symbol[futures_table.collateral].address,
        futures_table.account or config.wallet.address,
        leverage_band_bps=futures_table.leverage_band or 0,
        manual_triggers=tuple(dict.fromkeys(futures_table.ask)),
        vault=futures_table.vault if isinstance(futures_table, PerpetualProtocolTable) else "",
        delegate=(
            futures_table.delegate if isinstance(futures_table, PerpetualProtocolTable) else None
        )
        or "",
        funding_horizon_s=futures_table.funding_horizon or 0,
        hedge_policy=_hedge_policy(futures_table.hedge),
        margin_in_weights=futures_table.margin_in_weights,
        order_kind=_ORDER_KINDS[futures_table.order_type],
        order_time_s=futures_table.order_time or 0,
        schedule=_build_schedule(futures_table),
    )


def _require_schedule(table: PerpetualProtocolTable | HyperliquidTable) -> None:
    """Raise ValueError if the keys of the schedule contradict each other."""
    try:
        _build_schedule(table)
    except ConfigError as error:
        raise to_value_error(error) from None


def _build_schedule(table: PerpetualProtocolTable | HyperliquidTable) -> Schedule | None:
    """Return the schedule of reviews; None without one. Raises ConfigError naming key and
    remedy.
    """
    if table.every is None and table.cron is None and table.timezone is None:
        return None
    schedule = build_schedule(table.every, table.cron, table.timezone, table="futures")
    validate_schedule(schedule, table="futures")
    return schedule


_ORDER_KINDS = {
    "ioc": PerpOrderKind.MARKET,
    "gtc": PerpOrderKind.LIMIT,
    "post_only": PerpOrderKind.POST_ONLY,
}


def _hedge_policy(table: HedgeTable | None) -> HedgePolicy | None:
    if table is None:
        return None
    return HedgePolicy(
        table.ratio, table.horizon, table.min_saving, table.tax_rate, table.capital_cost
    )


def _spot_multiple_bps(config: Config) -> int:
    """Return the tighter of futures.limits.spot_multiple and limits.futures_notional; zero if both
    are off.
    """
    multiples_bps = (
        None if config.futures is None else config.futures.limits.spot_multiple,
        config.limits.futures_notional,
    )
    return min((bps for bps in multiples_bps if bps), default=0)
