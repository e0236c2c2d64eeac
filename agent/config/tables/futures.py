"""[futures]: the venue with its contracts or agent, markets with target weights, and limits."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from agent.config.tables.fields import (
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
from agent.units import BPS, parse_share_bps

MOST_LEVERAGE_BPS = 10 * BPS
"""Highest leverage, since the initial margin of Perpetual Protocol v2 is 10 %."""
MOST_MARKETS = 10
"""Maximum number of markets, as one snapshot reads all of them."""
MOST_SLIPPAGE_BPS = 500
"""Maximum distance of an order's bound from the index; MOST_EMERGENCY_BPS for emergency orders."""
MOST_EMERGENCY_BPS = 2_000
LONGEST_INDEX_AGE_S = 86_400
EMERGENCY_COOLDOWN_S, LONGEST_COOLDOWN_S = 86_400, 30 * 86_400
"""Default and longest time after an emergency in which no position is opened."""
MAX_HORIZON_S = 365 * 86_400
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
    def venue_key(self) -> str:
        """By which the venue knows the market: its symbol."""
        return self.symbol


class FuturesMarketTable(MarketTable):
    """A market of Perpetual Protocol v2: its virtual base token, and its index feed's aggregator."""

    base: Address
    aggregator: Address

    @property
    def venue_key(self) -> str:
        """By which the venue knows the market: the address of the base token."""
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
        for key, max_bps in bounds.items():
            bps = getattr(self, key)
            if not 0 < bps <= max_bps:
                unit = "x" if key == "max_leverage" else "%"
                text, limit = (share_text(value, unit) for value in (bps, max_bps))
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
        if not 0 < self.horizon <= MAX_HORIZON_S:
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


class PerpetualContracts(ConfigTable):
    """The contracts of a deployment of Perpetual Protocol v2."""

    venue: Literal["perpetual_protocol_v2"]
    clearing_house: Address
    vault: Address
    account_balance: Address
    exchange: Address
    market_registry: Address
    config: Address
    delegate_approval: Address


class FuturesTable(PerpetualContracts, FuturesLayerTable):
    """[futures] on Perpetual Protocol v2."""

    delegate: Address | None = None
    markets: list[FuturesMarketTable] = Field(min_length=1, max_length=MOST_MARKETS)

    @property
    def contracts(self) -> dict[str, str]:
        """Names of the contracts by address."""
        names = {
            getattr(self, key): f"futures {key.replace('_', ' ')}"
            for key in PerpetualContracts.model_fields
            if key != "venue"
        }
        for market in self.markets:
            names[market.base] = f"futures market {market.symbol}"
            names[market.aggregator] = f"futures index {market.symbol}"
        return names


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
        if len(sources := [name for name in names if getattr(self, name)]) > 1:
            raise ValueError(
                f"more than one source of the agent key ({', '.join(sources)}); keep one"
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


def share_text(bps: int, unit: str) -> str:
    """Return a share as a multiple ("x") or in percent."""
    return f"{bps / BPS:g}x" if unit == "x" else f"{bps / 100:g}%"
