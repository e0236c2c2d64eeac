"""[futures]: the venue with its contracts or agent, markets with target weights, and limits."""

from __future__ import annotations

from fractions import Fraction
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
    VariableTable,
    to_value_error,
)
from agent.errors import ConfigError
from agent.layers.futures.policy.targets import FuturesTrigger
from agent.units import BPS, DAY_S, YEAR_S, format_bps, parse_share_with_unit_bps

MOST_LEVERAGE_BPS = 10 * BPS
"""Highest leverage, since the initial margin of Perpetual Protocol v2 is 10 %."""
MOST_MARKETS = 10
"""Maximum number of markets, as one snapshot reads all of them."""
MOST_SLIPPAGE_BPS = 500
"""Maximum distance of an order's bound from the index; MAX_EMERGENCY_SLIPPAGE_BPS for emergency
orders.
"""
MAX_EMERGENCY_SLIPPAGE_BPS = 2_000
LONGEST_INDEX_AGE_S = 86_400
EMERGENCY_COOLDOWN_S = 86_400
LONGEST_COOLDOWN_S = 30 * DAY_S
"""Default and longest time after an emergency in which no position is opened."""
MAX_HORIZON_S = YEAR_S
"""Longest horizon of expected funding and of hedges."""


def _signed_share(config_value: object) -> int:
    """Return the basis points of "60%" or "-40%". Raises ValueError without a unit."""
    stripped_share = config_value.strip() if isinstance(config_value, str) else config_value
    is_short = isinstance(stripped_share, str) and stripped_share.startswith("-")
    try:
        bps = parse_share_with_unit_bps(
            stripped_share[1:] if isinstance(stripped_share, str) and is_short else stripped_share,
            "value",
        )
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
    """One market (docs/futures.md)."""

    symbol: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")
    """Its symbol at the venue."""
    asset: str | None = None
    """The portfolio's asset of that price."""
    weight: SignedShare
    """Share of the gross notional, negative for a short; absolute weights sum to 100 %. Those of
    strategies and signals replace it.
    """

    @property
    def venue_key(self) -> str:
        """By which the venue knows the market: its symbol."""
        return self.symbol


class PerpetualProtocolMarketTable(MarketTable):
    """A market of Perpetual Protocol v2 (docs/futures.md)."""

    base: Address
    """Its virtual base token."""
    aggregator: Address
    """Aggregator of its index feed."""

    @property
    def venue_key(self) -> str:
        """By which the venue knows the market: the address of the base token."""
        return self.base


class FuturesLimitsTable(ConfigTable):
    """Limits of futures (docs/futures.md)."""

    max_leverage: Share
    """Gross notional over account value; at most 10x."""
    max_utilisation: Share
    """Initial margin over account value."""
    max_position: Share
    """Largest share of one position in the gross notional, or in its target if that is more."""
    spot_multiple: ShareOrOff
    """Gross notional over spot value; limits.futures_notional may be tighter."""
    stress_move: ShareOrOff
    """Simultaneous adverse move of all positions that the account must survive."""
    slippage: Share
    """Bound of an order from the index; at most 5 %."""
    hysteresis: Share
    """Distance below its limit at which a reduction ends, and beyond `emergency_distance` at which
    an emergency ends.
    """
    emergency_distance: ShareOrOff
    """Distance to liquidation below which half of a position is closed."""
    emergency_slippage: Share
    """Bound of such an order; at most 20 %."""
    max_basis: Share
    """Distance of mark and index above which a market opens nothing."""
    index_age: Duration
    """Age of the index above which its market is not traded and, if held, nothing opened; at most
    1d.
    """
    max_reduction_per_day: ShareOrOff = 2 * BPS
    """Notional that reductions close in 24 h, as a multiple of the account value."""
    max_top_up_per_day: ShareOrOff = BPS // 10
    """Collateral deposited in 24 h, as a share of spot; "0%": none."""
    emergency_gas_price: GasPrice | None = None
    """Gas price in an emergency; default: 5 times limits.gas_price."""
    emergency_gas_per_day: PlainDecimal | None = None
    """Gas of emergencies in 24 h, in native coin; default: limits.gas_per_day."""
    emergency_cooldown: DurationOrOff = EMERGENCY_COOLDOWN_S
    """Time after an emergency without openings; at most 30d."""
    resting_stop: ShareOrOff = None
    """Distance to liquidation at which a stop rests at Hyperliquid."""

    @model_validator(mode="after")
    def _check_ranges(self) -> FuturesLimitsTable:
        max_bps_by_key = {
            "max_leverage": MOST_LEVERAGE_BPS,
            "max_utilisation": BPS,
            "max_position": BPS,
            "slippage": MOST_SLIPPAGE_BPS,
            "emergency_slippage": MAX_EMERGENCY_SLIPPAGE_BPS,
            "max_basis": BPS,
        }
        for key, max_bps in max_bps_by_key.items():
            limit_bps = getattr(self, key)
            if not 0 < limit_bps <= max_bps:
                unit = "x" if key == "max_leverage" else " %"
                limit_text, max_text = (
                    share_text(share_bps, unit) for share_bps in (limit_bps, max_bps)
                )
                raise ValueError(f"{key}: {limit_text}; write above 0{unit} and at most {max_text}")
        if (self.resting_stop or 0) >= (self.emergency_distance or BPS):
            raise ValueError(
                f"resting_stop: {format_bps(self.resting_stop or 0)}; write less than"
                " emergency_distance, so that the agent itself acts first"
            )
        for key in ("stress_move", "emergency_distance", "hysteresis"):
            if (getattr(self, key) or 0) >= BPS:
                raise ValueError(f"{key}: is not below 100 %; write for example 20%")
        zero_remedy_by_key = {
            "max_reduction_per_day": '"off" for no bound',
            "emergency_gas_price": "leave it out for the default",
            "emergency_gas_per_day": "leave it out for the default",
        }
        for key, remedy in zero_remedy_by_key.items():
            limit = getattr(self, key)
            if limit is not None and not Fraction(limit):
                raise ValueError(f"{key}: is zero; write a value above zero, or {remedy}")
        if self.emergency_slippage < self.slippage:
            raise ValueError(
                f"emergency_slippage: {format_bps(self.emergency_slippage)} is below slippage of"
                f" {format_bps(self.slippage)}; write at least that"
            )
        if not 0 < self.index_age <= LONGEST_INDEX_AGE_S:
            raise ValueError(f"index_age: {self.index_age}s; write above 0s and at most 1d")
        if (self.emergency_cooldown or 0) > LONGEST_COOLDOWN_S:
            raise ValueError(
                f'emergency_cooldown: {self.emergency_cooldown}s; write at most 30d, or "off"'
            )
        return self


class HedgeTable(ConfigTable):
    """Hedges in place of sales (docs/futures.md)."""

    ratio: Share = BPS // 2
    """Share of an overweight that is shorted instead of sold."""
    horizon: Duration
    """Expected holding time, at most 365d, after which a hedge is closed."""
    min_saving: Share
    """By how much of the hedged value the short must be cheaper than the sale."""
    tax_rate: Share
    """Tax on realised gains."""
    capital_cost: Share
    """Cost of the required margin a year."""

    @model_validator(mode="after")
    def _check_ranges(self) -> HedgeTable:
        if not 0 < self.ratio <= BPS:
            raise ValueError(f"ratio: {format_bps(self.ratio)}; write above 0 % and at most 100 %")
        if not 0 < self.horizon <= MAX_HORIZON_S:
            raise ValueError(f"horizon: {self.horizon}s; write above 0s and at most 365d")
        for key in ("min_saving", "tax_rate", "capital_cost"):
            if getattr(self, key) > BPS:
                raise ValueError(f"{key}: {format_bps(getattr(self, key))}; write at most 100 %")
        return self


class FuturesLayerTable(ConfigTable):
    """Keys of [futures] at every venue (docs/futures.md)."""

    account: Address | None = None
    """Owner of the margin account; default: the wallet."""
    collateral: str
    """Margin asset; must be the numeraire."""
    leverage: Share
    """Target: gross notional over account value."""
    band: ShareOrOff
    """Drift of a weight, in points of the gross notional, that triggers orders."""
    leverage_band: ShareOrOff = None
    """The same of the gross notional, as a share of its target (capped at `spot_multiple`); 20 % in
    profiles.
    """
    every: Duration | None = None
    """Time from one review to the next, at which orders lead to the targets also inside the bands,
    30m to 28d; or `cron`.
    """
    cron: str | None = None
    """Five-field cron time of a review, in place of `every`."""
    timezone: str | None = None
    """Zone of cron times, such as Europe/Berlin."""
    ask: list[TriggerName] = Field(default_factory=list)
    """Triggers that only alert, and act in `trimtab rebalance --send`; `leverage` with the stress
    move, none near liquidation.
    """
    funding_horizon: DurationOrOff = None
    """Time over which expected funding counts, at most 365d; 7d in profiles."""
    margin_in_weights: bool = False
    """Whether margin counts in the spot weights."""
    order_type: Literal["ioc", "gtc", "post_only"] = "ioc"
    """Orders to the targets: filled at once (`ioc`), resting (`gtc`), or resting without taking
    (`post_only`).
    """
    order_time: Duration | None = None
    """Time after which a resting order is cancelled, 1m to 30d; needed by `gtc`."""
    limits: FuturesLimitsTable
    """Limits of the futures account."""
    hedge: HedgeTable | None = None
    """Hedges in place of sales."""


class PerpetualProtocolContracts(ConfigTable):
    """The contracts of a deployment of Perpetual Protocol v2 (docs/futures.md)."""

    venue: Literal["perpetual_protocol_v2"]
    """The venue."""
    clearing_house: Address
    """ClearingHouse, which takes orders."""
    vault: Address
    """Vault, which holds the collateral."""
    account_balance: Address
    """AccountBalance, which has the positions."""
    exchange: Address
    """Exchange, which has prices and funding."""
    market_registry: Address
    """MarketRegistry, which has the fees of markets."""
    config: Address
    """ClearingHouseConfig, which has the margin ratios."""
    delegate_approval: Address
    """DelegateApproval, which has the rights of delegates."""


class PerpetualProtocolTable(PerpetualProtocolContracts, FuturesLayerTable):
    """[futures] on Perpetual Protocol v2 (docs/futures.md)."""

    delegate: Address | None = None
    """Address of the key that may trade."""
    markets: list[PerpetualProtocolMarketTable] = Field(min_length=1, max_length=MOST_MARKETS)
    """Traded markets."""

    @property
    def contract_name_by_address(self) -> dict[str, str]:
        """Names of the contracts by address."""
        name_by_address = {
            getattr(self, key): f"futures {key.replace('_', ' ')}"
            for key in PerpetualProtocolContracts.model_fields
            if key != "venue"
        }
        for market in self.markets:
            name_by_address[market.base] = f"futures market {market.symbol}"
            name_by_address[market.aggregator] = f"futures index {market.symbol}"
        return name_by_address


AGENT_KEY_SOURCES = ("agent_keystore", "agent_key_env", "agent_keyring")
"""Keys of [futures] that name the source of the agent key; at most one is set."""


class HyperliquidTable(FuturesLayerTable, VariableTable):
    """[futures] on Hyperliquid (docs/futures.md). The agent key trades for the account and cannot
    withdraw; without a source of it nothing is sent.
    """

    venue: Literal["hyperliquid"]
    """The venue."""
    url: SecretStr | None = None
    """Address of the API; or `url_env`."""
    url_env: Variable | None = None
    """Variable with the address of the API."""
    network: Literal["mainnet", "testnet"]
    """Network of the venue, of which signatures are valid."""
    agent_name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")
    """Name of the agent key at the venue."""
    agent_keystore: str | None = None
    """File with the encrypted agent key."""
    agent_key_env: Variable | None = None
    """Variable with the agent key."""
    agent_keyring: KeyringName | None = None
    """Entry of the agent key in the keyring of the operating system."""
    markets: list[MarketTable] = Field(min_length=1, max_length=MOST_MARKETS)
    """Traded markets."""

    @model_validator(mode="after")
    def _check_url_and_key(self) -> HyperliquidTable:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("give exactly one of url and url_env")
        if len(given_keys := [key for key in AGENT_KEY_SOURCES if getattr(self, key)]) > 1:
            raise ValueError(
                f"more than one source of the agent key ({', '.join(given_keys)}); keep one"
            )
        if find_spec("hyperliquid") is None:
            raise ValueError(
                "venue hyperliquid needs the package hyperliquid-python-sdk; pip install"
                " 'trimtab[hyperliquid]'"
            )
        return self

    @property
    def api_url(self) -> str:
        """URL of the venue. Raises ConfigError if the variable is not set."""
        if self.url is not None:
            return self.url.get_secret_value()
        remedy = f"export {self.url_env} before starting"
        return self.required_variable("futures.url_env", self.url_env, remedy)

    @property
    def has_agent_key_source(self) -> bool:
        """Whether a source of the agent key is set."""
        return any(getattr(self, key) for key in AGENT_KEY_SOURCES)

    @property
    def contract_name_by_address(self) -> dict[str, str]:
        """Names of the contracts by address; none on Hyperliquid."""
        return {}


AnyFuturesTable = Annotated[PerpetualProtocolTable | HyperliquidTable, Field(discriminator="venue")]
"""[futures] of one of the venues."""


def share_text(bps: int, unit: str) -> str:
    """Return a share as a multiple ("x") or in percent."""
    return f"{bps / BPS:g}x" if unit == "x" else format_bps(bps)
