"""[futures]: contracts of the venue, markets with target weights, and limits of the futures layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from agent.config.fields import Address, ConfigTable, Duration, Share, ShareOrOff, to_value_error
from agent.errors import ConfigError
from agent.model.futures import FuturesLimits, FuturesPolicy, FuturesTarget
from agent.units import BPS, Token, parse_share_bps

if TYPE_CHECKING:
    from agent.config.schema import Config

MOST_LEVERAGE_BPS = 10 * BPS
"""The initial margin of Perpetual Protocol v2 is 10 %."""
MOST_MARKETS = 10
"""Maximum number of markets, as one snapshot reads all of them."""
MOST_SLIPPAGE_BPS = 500
"""5 % between the index and an order's bound; emergency orders have MOST_EMERGENCY_BPS."""
MOST_EMERGENCY_BPS = 2_000
LONGEST_INDEX_AGE_S = 86_400


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


class FuturesMarketTable(ConfigTable):
    """One market: its virtual base token, its index feed's aggregator, and its share of the futures
    notional. `asset` is the portfolio's token with the same price.
    """

    symbol: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")
    base: Address
    asset: str | None = None
    aggregator: Address
    weight: SignedShare


class FuturesLimitsTable(ConfigTable):
    """Limits of the futures layer, by the definitions of docs/futures.md. The bounds of
    emergency orders lie `emergency_slippage` from the index, those of other orders `slippage`.
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
        for key in ("stress_move", "emergency_distance", "hysteresis"):
            if (getattr(self, key) or 0) >= BPS:
                raise ValueError(f"{key}: is not below 100%; write for example 20%")
        if self.emergency_slippage < self.slippage:
            raise ValueError(
                f"emergency_slippage: {self.emergency_slippage / 100:g}% is below slippage of"
                f" {self.slippage / 100:g}%; write as much or more"
            )
        if not 0 < self.index_age <= LONGEST_INDEX_AGE_S:
            raise ValueError(f"index_age: {self.index_age}s; write above 0s and at most 1d")
        return self


class FuturesTable(ConfigTable):
    """The futures layer. `account` is the trader whose margin account is read (missing: the
    wallet), `collateral` the symbol of the asset that margin is deposited in.
    """

    venue: Literal["perpetual_protocol_v2"]
    clearing_house: Address
    vault: Address
    account_balance: Address
    exchange: Address
    market_registry: Address
    config: Address
    delegate_approval: Address
    account: Address | None = None
    collateral: str
    leverage: Share
    band: ShareOrOff
    markets: list[FuturesMarketTable] = Field(min_length=1, max_length=MOST_MARKETS)
    limits: FuturesLimitsTable

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


def require_futures(config: Config) -> None:
    """Raise ValueError naming the field if [futures] contradicts itself or the portfolio."""
    table = config.futures
    if table is None:
        return
    symbols = [asset.symbol for asset in config.portfolio.assets]
    choices = f"choose from {', '.join(symbols)}, or add it with a target of 0%"
    if table.collateral not in symbols:
        raise ValueError(f"futures.collateral: {table.collateral!r} is not an asset; {choices}")
    for number, market in enumerate(table.markets):
        key = f"futures.markets.{market.symbol}"
        earlier = table.markets[:number]
        if market.symbol in [one.symbol for one in earlier]:
            raise ValueError(f"{key}: given twice; each market once")
        if market.base in [one.base for one in earlier]:
            raise ValueError(f"{key}.base: {market.base} is given twice; each market once")
        if market.asset is not None and market.asset not in symbols:
            raise ValueError(f"{key}.asset: {market.asset!r} is not an asset; {choices}")
        if abs(market.weight) > table.limits.max_position:
            raise ValueError(
                f"{key}.weight: {market.weight / 100:g}% is beyond futures.limits.max_position of"
                f" {table.limits.max_position / 100:g}%; lower it, or raise the limit"
            )
    total = sum(abs(market.weight) for market in table.markets)
    if total != BPS:
        raise ValueError(
            f"futures.markets: absolute weights sum to {total / 100:g}%, not 100%;"
            f" {'add' if total < BPS else 'take away'} {abs(BPS - total) / 100:g}%"
        )
    if table.leverage > table.limits.max_leverage:
        raise ValueError(
            f"futures.leverage: {_share_text(table.leverage, 'x')} is above"
            f" futures.limits.max_leverage of {_share_text(table.limits.max_leverage, 'x')}; lower"
            " it, or raise the limit"
        )


def build_futures(config: Config, tokens: Mapping[str, Token]) -> FuturesPolicy | None:
    """Build targets and limits of the futures layer, with the portfolio's tokens by symbol; None
    without [futures].
    """
    table = config.futures
    if table is None:
        return None
    limits = table.limits
    return FuturesPolicy(
        tuple(FuturesTarget(market.base, market.weight) for market in table.markets),
        table.leverage,
        table.band or 0,
        FuturesLimits(
            max_leverage_bps=limits.max_leverage,
            max_utilisation_bps=limits.max_utilisation,
            max_position_bps=limits.max_position,
            spot_multiple_bps=limits.spot_multiple or 0,
            stress_move_bps=limits.stress_move or 0,
            slippage_bps=limits.slippage,
            hysteresis_bps=limits.hysteresis,
            emergency_distance_bps=limits.emergency_distance or 0,
            emergency_slippage_bps=limits.emergency_slippage,
            max_basis_bps=limits.max_basis,
            index_age_s=limits.index_age,
            reduction_per_day_bps=limits.max_reduction_per_day or 0,
        ),
        tokens[table.collateral].address,
        table.account or config.wallet.address,
    )


def _share_text(bps: int, unit: str) -> str:
    return f"{bps / BPS:g}x" if unit == "x" else f"{bps / 100:g}%"
