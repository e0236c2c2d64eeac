"""[futures]: the venue with its contracts or agent, markets with target weights, and limits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from agent.config.fields import (
    Address,
    ConfigTable,
    Duration,
    DurationOrOff,
    GasPrice,
    KeyringName,
    PlainDecimal,
    Share,
    ShareOrOff,
    Variable,
    to_value_error,
)
from agent.errors import ConfigError
from agent.layers.futures.policy.targets import FuturesTrigger
from agent.model import FuturesLimits, FuturesPolicy, FuturesTarget, HedgePolicy, PerpOrderKind
from agent.units import BPS, Token, parse_raw, parse_share_bps

if TYPE_CHECKING:
    from agent.config.schema import Config

MOST_LEVERAGE_BPS = 10 * BPS
"""Highest leverage, since the initial margin of Perpetual Protocol v2 is 10 %."""
MOST_MARKETS = 10
"""Maximum number of markets, as one snapshot reads all of them."""
MOST_SLIPPAGE_BPS = 500
"""Maximum distance of an order's bound from the index; MOST_EMERGENCY_BPS for emergency orders."""
MOST_EMERGENCY_BPS = 2_000
HYPERLIQUID_MARGIN = "USDC"
"""Prefix of the symbol of Hyperliquid's margin token on any chain (USDC, USDC.e)."""
LONGEST_INDEX_AGE_S = 86_400
EMERGENCY_COOLDOWN_S, LONGEST_COOLDOWN_S = 86_400, 30 * 86_400
"""Default and longest time after an emergency in which no position is opened."""
SHORTEST_ORDER_TIME_S, LONGEST_ORDER_TIME_S = 60, 30 * 86_400
"""Range of the time for which a limit order rests."""
LONGEST_HORIZON_S = 365 * 86_400
"""Longest horizon of expected funding and of hedges."""


def _signed_share(value: object) -> int:
    """Return the basis points of "60%" or "-40%". Raises ValueError without a unit."""
    text = value.strip() if isinstance(value, str) else value
    is_short = isinstance(text, str) and text.startswith("-")
    try:
        bps = parse_share_bps(text[1:] if isinstance(text, str) and is_short else text, "value")
    except ConfigError as error:
        raise to_value_error(error) from None
    return -bps if is_short else bps


SignedShare = Annotated[int, BeforeValidator(_signed_share)]
"""A share with its unit, negative for a short."""


if TYPE_CHECKING:
    TriggerName = str
else:
    TriggerName = Literal[tuple(trigger.value for trigger in FuturesTrigger)]


class MarketTable(ConfigTable):
    """One market, named by its symbol at the venue, with its share of the futures notional. `asset`
    is the portfolio's token with the same price.
    """

    symbol: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")
    asset: str | None = None
    weight: SignedShare

    @property
    def name(self) -> str:
        """Name of the market at the venue."""
        return self.symbol


class FuturesMarketTable(MarketTable):
    """A market of Perpetual Protocol v2: its virtual base token, and its index feed's aggregator."""

    base: Address
    aggregator: Address

    @property
    def name(self) -> str:
        """Address of the base token."""
        return self.base


class FuturesLimitsTable(ConfigTable):
    """Limits of futures, as defined in docs/futures.md. Bounds of emergency orders are
    `emergency_slippage` from the index, those of other orders `slippage`.
    """

    max_leverage: Share
    max_utilisation: Share
    max_position: Share
    spot_multiple: ShareOrOff
    stress_move: ShareOrOff
    slippage: Share
    hysteresis: Share
    emergency_distance: ShareOrOff
    emergency_slippage: Share
    max_basis: Share
    index_age: Duration
    max_reduction_per_day: ShareOrOff = 2 * BPS
    max_top_up_per_day: ShareOrOff = BPS // 10
    emergency_gas_price: GasPrice | None = None
    emergency_gas_per_day: PlainDecimal | None = None
    emergency_cooldown: DurationOrOff = EMERGENCY_COOLDOWN_S
    resting_stop: ShareOrOff = None

    @model_validator(mode="after")
    def _sane(self) -> FuturesLimitsTable:
        bounds = {
            "max_leverage": MOST_LEVERAGE_BPS,
            "max_utilisation": BPS,
            "max_position": BPS,
            "slippage": MOST_SLIPPAGE_BPS,
            "emergency_slippage": MOST_EMERGENCY_BPS,
            "max_basis": BPS,
        }
        for key, most in bounds.items():
            bps = getattr(self, key)
            if not 0 < bps <= most:
                unit = "x" if key == "max_leverage" else "%"
                text, limit = (_share_text(value, unit) for value in (bps, most))
                raise ValueError(f"{key}: {text}; write above 0{unit} and at most {limit}")
        if (self.resting_stop or 0) >= (self.emergency_distance or BPS):
            raise ValueError(
                f"resting_stop: {(self.resting_stop or 0) / 100:g}%; write less than"
                " emergency_distance, so that the agent itself acts first"
            )
        for key in ("stress_move", "emergency_distance", "hysteresis"):
            if (getattr(self, key) or 0) >= BPS:
                raise ValueError(f"{key}: is not below 100%; write for example 20%")
        if self.emergency_slippage < self.slippage:
            raise ValueError(
                f"emergency_slippage: {self.emergency_slippage / 100:g}% is below slippage of"
                f" {self.slippage / 100:g}%; write at least that"
            )
        if not 0 < self.index_age <= LONGEST_INDEX_AGE_S:
            raise ValueError(f"index_age: {self.index_age}s; write above 0s and at most 1d")
        if (self.emergency_cooldown or 0) > LONGEST_COOLDOWN_S:
            raise ValueError(
                f'emergency_cooldown: {self.emergency_cooldown}s; write at most 30d, or "off"'
            )
        return self


class HedgeTable(ConfigTable):
    """Hedges in place of sales. `ratio` of an overweight is shorted if that saves at least
    `min_saving` of the hedged value over `horizon`, after which a hedge is closed. `tax_rate` is
    the tax on realised gains, `capital_cost` the yearly cost of the required margin.
    """

    ratio: Share = BPS // 2
    horizon: Duration
    min_saving: Share
    tax_rate: Share
    capital_cost: Share

    @model_validator(mode="after")
    def _sane(self) -> HedgeTable:
        if not 0 < self.ratio <= BPS:
            raise ValueError(f"ratio: {self.ratio / 100:g}%; write above 0% and at most 100%")
        if not 0 < self.horizon <= LONGEST_HORIZON_S:
            raise ValueError(f"horizon: {self.horizon}s; write above 0s and at most 365d")
        for key in ("min_saving", "tax_rate", "capital_cost"):
            if getattr(self, key) > BPS:
                raise ValueError(f"{key}: {getattr(self, key) / 100:g}%; write at most 100%")
        return self


class FuturesLayerTable(ConfigTable):
    """Keys of [futures] at every venue. `account` is the trader whose margin account is read
    (missing: the wallet), `collateral` the symbol of the margin asset, `funding_horizon` the time
    over which expected funding counts (missing: off). The triggers in `ask` act only in a step
    started by a user. `margin_in_weights` counts the margin account in the spot weights. Openings
    to the targets are orders of `order_type`; those that rest are cancelled after `order_time`.
    """

    account: Address | None = None
    collateral: str
    leverage: Share
    band: ShareOrOff
    leverage_band: ShareOrOff = None
    ask: list[TriggerName] = Field(default_factory=list)
    funding_horizon: DurationOrOff = None
    margin_in_weights: bool = False
    order_type: Literal["ioc", "gtc", "post_only"] = "ioc"
    order_time: Duration | None = None
    limits: FuturesLimitsTable
    hedge: HedgeTable | None = None


class FuturesTable(FuturesLayerTable):
    """[futures] on Perpetual Protocol v2."""

    venue: Literal["perpetual_protocol_v2"]
    clearing_house: Address
    vault: Address
    account_balance: Address
    exchange: Address
    market_registry: Address
    config: Address
    delegate_approval: Address
    delegate: Address | None = None
    markets: list[FuturesMarketTable] = Field(min_length=1, max_length=MOST_MARKETS)

    @property
    def contracts(self) -> dict[str, str]:
        """Names of the contracts by address."""
        named = {
            getattr(self, key): f"futures {key.replace('_', ' ')}"
            for key in (
                "clearing_house",
                "vault",
                "account_balance",
                "exchange",
                "market_registry",
                "config",
                "delegate_approval",
            )
        }
        for market in self.markets:
            named[market.base] = f"futures market {market.symbol}"
            named[market.aggregator] = f"futures index {market.symbol}"
        return named


class HyperliquidTable(FuturesLayerTable):
    """[futures] on Hyperliquid. The agent key trades for the account and cannot withdraw; it has
    the same kinds of sources as the wallet's key. Without a source nothing is sent.
    """

    venue: Literal["hyperliquid"]
    url: SecretStr | None = None
    url_env: Variable | None = None
    network: Literal["mainnet", "testnet"]
    agent_name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")
    agent_keystore: str | None = None
    agent_key_env: Variable | None = None
    agent_keyring: KeyringName | None = None
    markets: list[MarketTable] = Field(min_length=1, max_length=MOST_MARKETS)

    @model_validator(mode="after")
    def _usable(self) -> HyperliquidTable:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("give exactly one of url and url_env")
        names = ("agent_keystore", "agent_key_env", "agent_keyring")
        if len(given := [name for name in names if getattr(self, name)]) > 1:
            raise ValueError(
                f"more than one source of the agent key ({', '.join(given)}); keep one"
            )
        if find_spec("hyperliquid") is None:
            raise ValueError(
                "venue hyperliquid needs the package hyperliquid-python-sdk; pip install"
                " 'trimtab[hyperliquid]'"
            )
        return self

    @property
    def address(self) -> str:
        """URL of the venue. Raises ConfigError if the variable is not set."""
        if self.url is not None:
            return self.url.get_secret_value()
        if value := os.environ.get(self.url_env or ""):
            return value
        raise ConfigError(
            f"futures.url_env: environment variable {self.url_env} is not set",
            f"export {self.url_env} before starting",
        )

    @property
    def key_name(self) -> str | None:
        """Name of the source of the agent key; None without one."""
        names = ("agent_keystore", "agent_key_env", "agent_keyring")
        return next((name for name in names if getattr(self, name)), None)

    @property
    def contracts(self) -> dict[str, str]:
        """Names of the contracts by address; none on Hyperliquid."""
        return {}


AnyFuturesTable = Annotated[FuturesTable | HyperliquidTable, Field(discriminator="venue")]
"""[futures] of one of the venues."""


def require_futures(config: Config) -> None:
    """Raise ValueError naming the field if [futures] contradicts itself or the portfolio. Margin
    must be in the numeraire, since venues value one coin of it as one unit of their quote currency.
    """
    table = config.futures
    if table is None:
        return
    _require_keys(table, config)
    symbols = [asset.symbol for asset in config.portfolio.assets]
    choices = f"choose from {', '.join(symbols)}, or add it with a target of 0%"
    _require_collateral(table, config.portfolio.numeraire, symbols, choices)
    for number, market in enumerate(table.markets):
        key = f"futures.markets.{market.symbol}"
        earlier = table.markets[:number]
        if market.symbol in [market_table.symbol for market_table in earlier]:
            raise ValueError(f"{key}: given twice; list each market once")
        if isinstance(market, FuturesMarketTable) and market.name in [one.name for one in earlier]:
            raise ValueError(f"{key}.base: {market.base} is given twice; list each market once")
        if market.asset is not None and market.asset not in symbols:
            raise ValueError(f"{key}.asset: {market.asset!r} is not an asset; {choices}")
        if abs(market.weight) > table.limits.max_position:
            raise ValueError(
                f"{key}.weight: {market.weight / 100:g}% is beyond futures.limits.max_position of"
                f" {table.limits.max_position / 100:g}%; lower it, or raise the limit"
            )
    for field, bps in (
        ("futures.limits.spot_multiple", table.limits.spot_multiple),
        ("limits.futures_notional", config.limits.futures_notional),
    ):
        if bps == 0:
            raise ValueError(f'{field}: 0x allows no futures; write a value above 0x, or "off"')
    total = sum(abs(market.weight) for market in table.markets)
    if total != BPS and (total or table.leverage):
        raise ValueError(
            f"futures.markets: absolute weights sum to {total / 100:g}%, not 100%;"
            f" {'add' if total < BPS else 'take away'} {abs(BPS - total) / 100:g}%"
        )
    if table.limits.resting_stop and not isinstance(table, HyperliquidTable):
        raise ValueError(
            'futures.limits.resting_stop: only Hyperliquid has resting stops; write "off"'
        )
    _require_order_type(table)
    _require_horizon_and_hedges(table)
    if table.leverage > table.limits.max_leverage:
        raise ValueError(
            f"futures.leverage: {_share_text(table.leverage, 'x')} is above"
            f" futures.limits.max_leverage of {_share_text(table.limits.max_leverage, 'x')}; lower"
            " it, or raise the limit"
        )


def _require_collateral(
    table: FuturesTable | HyperliquidTable, numeraire: str, symbols: Sequence[str], choices: str
) -> None:
    """Raise ValueError unless margin is in the numeraire, and in USDC on Hyperliquid."""
    if table.collateral not in symbols:
        raise ValueError(f"futures.collateral: {table.collateral!r} is not an asset; {choices}")
    if isinstance(table, HyperliquidTable) and not table.collateral.startswith(HYPERLIQUID_MARGIN):
        raise ValueError(
            f"futures.collateral: {table.collateral!r} is not the {HYPERLIQUID_MARGIN} that the venue"
            f" settles in; write {HYPERLIQUID_MARGIN}, or remove [futures]"
        )
    if table.collateral != numeraire:
        raise ValueError(
            f"futures.collateral: {table.collateral!r} is not portfolio.numeraire"
            f" {numeraire!r}, which limits and costs are in; write"
            f' portfolio.numeraire = "{table.collateral}", or remove [futures]'
        )


def _require_keys(table: FuturesTable | HyperliquidTable, config: Config) -> None:
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


def _require_order_type(table: FuturesTable | HyperliquidTable) -> None:
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


def _require_horizon_and_hedges(table: FuturesTable | HyperliquidTable) -> None:
    """Raise ValueError for a funding horizon out of range, and for hedges without a market of their
    own for an asset.
    """
    if table.funding_horizon is not None and not 0 < table.funding_horizon <= LONGEST_HORIZON_S:
        raise ValueError(
            f"futures.funding_horizon: {table.funding_horizon}s; write above 0s and at most 365d,"
            ' or "off"'
        )
    if table.hedge is None:
        return
    named = [market.asset for market in table.markets if market.asset is not None]
    if not named:
        raise ValueError(
            "futures.hedge: no market has an asset; add asset to one of [[futures.markets]], or remove"
            " [futures.hedge]"
        )
    if twice := [asset for asset in named if named.count(asset) > 1]:
        raise ValueError(
            f"futures.markets: two markets have the asset {twice[0]!r}; keep it"
            " only in the market used for hedging"
        )


def futures_markets(config: Config) -> Sequence[MarketTable]:
    """Return the markets of [futures]; none without it."""
    return () if config.futures is None else config.futures.markets


def require_hedge_market(config: Config, symbol: str) -> None:
    """Raise ConfigError unless a market has the asset of this symbol."""
    named = [market.asset for market in futures_markets(config) if market.asset is not None]
    if symbol not in named:
        choices = f"choose from {', '.join(named)}" if named else "none has an asset yet"
        raise ConfigError(
            f"hedge: {symbol} has no futures market",
            f'{choices}, or add asset = "{symbol}" to its market in [[futures.markets]]',
        )


def build_futures(config: Config, tokens: Mapping[str, Token]) -> FuturesPolicy | None:
    """Build targets and limits of futures, with the portfolio's tokens by symbol; None without
    [futures].
    """
    table = config.futures
    if table is None:
        return None
    limits = table.limits
    return FuturesPolicy(
        tuple(FuturesTarget(market.name, market.weight) for market in table.markets),
        table.leverage,
        table.band or 0,
        FuturesLimits(
            max_leverage_bps=limits.max_leverage,
            max_utilisation_bps=limits.max_utilisation,
            max_position_bps=limits.max_position,
            spot_multiple_bps=_spot_multiple_bps(config),
            stress_move_bps=limits.stress_move or 0,
            slippage_bps=limits.slippage,
            hysteresis_bps=limits.hysteresis,
            emergency_distance_bps=limits.emergency_distance or 0,
            emergency_slippage_bps=limits.emergency_slippage,
            max_basis_bps=limits.max_basis,
            index_age_s=limits.index_age,
            reduction_per_day_bps=limits.max_reduction_per_day or 0,
            emergency_gas_price_wei=limits.emergency_gas_price or 0,
            emergency_gas_per_day_wei=parse_raw(
                limits.emergency_gas_per_day or "0", 18, "futures.limits.emergency_gas_per_day"
            ),
            top_up_per_day_bps=limits.max_top_up_per_day,
            emergency_cooldown_s=limits.emergency_cooldown or 0,
            resting_stop_bps=limits.resting_stop or 0,
        ),
        tokens[table.collateral].address,
        table.account or config.wallet.address,
        leverage_band_bps=table.leverage_band or 0,
        ask=tuple(dict.fromkeys(table.ask)),
        vault=table.vault if isinstance(table, FuturesTable) else "",
        delegate=(table.delegate if isinstance(table, FuturesTable) else None) or "",
        funding_horizon_s=table.funding_horizon or 0,
        hedge=_hedge_policy(table.hedge),
        margin_in_weights=table.margin_in_weights,
        order_kind=_ORDER_KINDS[table.order_type],
        order_time_s=table.order_time or 0,
    )


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
    given = (
        None if config.futures is None else config.futures.limits.spot_multiple,
        config.limits.futures_notional,
    )
    return min((bps for bps in given if bps), default=0)


def _share_text(bps: int, unit: str) -> str:
    return f"{bps / BPS:g}x" if unit == "x" else f"{bps / 100:g}%"
