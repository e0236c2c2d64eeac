"""The [futures] of a new config: limits of a risk profile, contracts of a venue file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from agent.config.tables.fields import Address, ConfigTable
from agent.config.tables.futures import MOST_MARKETS, PerpetualProtocolContracts
from agent.config.tables.messages import describe_errors
from agent.errors import ConfigError
from agent.foreign_text import failure_text, read_toml
from agent.units import BPS, format_bps, largest_remainder, parse_share_with_unit_bps

POSITION_HEADROOM_BPS = 1_500
"""Minimum distance of `max_position` from the largest target weight."""


@dataclass(frozen=True, slots=True)
class FuturesProfile:
    """Leverage and limits of a risk profile, in the config's notation."""

    name: str
    leverage: str
    limits: Mapping[str, str]


def _profile(name: str, leverage: str, **limits: str) -> FuturesProfile:
    return FuturesProfile(name, leverage, limits)


FUTURES_PROFILES = {
    profile.name: profile
    for profile in (
        _profile(
            "conservative",
            "1x",
            max_leverage="2x",
            max_utilisation="40%",
            max_position="70%",
            spot_multiple="1.5x",
            stress_move="30%",
            slippage="0.3%",
            hysteresis="5%",
            emergency_distance="10%",
            emergency_slippage="2%",
            max_basis="1%",
            index_age="1h",
            max_reduction_per_day="2x",
        ),
        _profile(
            "moderate",
            "2x",
            max_leverage="4x",
            max_utilisation="60%",
            max_position="85%",
            spot_multiple="2.5x",
            stress_move="20%",
            slippage="0.5%",
            hysteresis="5%",
            emergency_distance="5%",
            emergency_slippage="3%",
            max_basis="2%",
            index_age="1h",
            max_reduction_per_day="2x",
        ),
        _profile(
            "aggressive",
            "3x",
            max_leverage="6x",
            max_utilisation="80%",
            max_position="100%",
            spot_multiple="4x",
            stress_move="10%",
            slippage="1%",
            hysteresis="5%",
            emergency_distance="4%",
            emergency_slippage="5%",
            max_basis="3%",
            index_age="1h",
            max_reduction_per_day="2x",
        ),
    )
}
"""Risk profiles of futures by name."""
BAND = "5%"
LEVERAGE_BAND = "20%"
"""Bands of each weight, in points, and of the leverage, as a share of its target."""
FUNDING_HORIZON = "7d"
"""Time over which expected funding counts as cost and as drift."""


def find_futures_profile(name: str) -> FuturesProfile:
    """Return the profile with this name. Raises ConfigError listing all names."""
    if name not in FUTURES_PROFILES:
        raise ConfigError(
            f"--futures: {name!r} is not a profile", f"choose from {', '.join(FUTURES_PROFILES)}"
        )
    return FUTURES_PROFILES[name]


class PerpetualProtocolFileMarket(ConfigTable):
    """A market of a venue file: its virtual base token and its index feed's aggregator."""

    base: Address
    aggregator: Address


class PerpetualProtocolFileTable(PerpetualProtocolContracts):
    """A venue file: contracts of a futures venue, and its markets by the asset's symbol."""

    markets: dict[str, PerpetualProtocolFileMarket] = Field(min_length=1)

    def market_of(self, symbol: str) -> str | None:
        """Return the market of an asset; None without one."""
        return symbol if symbol in self.markets else None

    def futures_values(self) -> dict[str, str]:
        """Return the venue's keys of [futures]."""
        return {key: getattr(self, key) for key in PerpetualProtocolContracts.model_fields}

    def market_values(self, name: str) -> dict[str, str]:
        """Return the venue's keys of a market."""
        market = self.markets[name]
        return {"base": market.base, "aggregator": market.aggregator}


class HyperliquidFileTable(ConfigTable):
    """Hyperliquid as a venue file: its API, and its markets by the asset's symbol. A market
    without a portfolio asset keeps the venue's name.
    """

    venue: Literal["hyperliquid"]
    url: str
    network: Literal["mainnet", "testnet"]
    markets: dict[str, str] = Field(min_length=1)

    def market_of(self, symbol: str) -> str | None:
        """Return the market of an asset, or the market itself; None without one."""
        if symbol in self.markets.values():
            return symbol
        return self.markets.get(symbol)

    def futures_values(self) -> dict[str, str]:
        """Return the venue's keys of [futures], including agent_name and agent_keystore."""
        agent_keys = {"agent_name": "trimtab", "agent_keystore": "agent.json"}
        return {"venue": self.venue, "url": self.url, "network": self.network, **agent_keys}

    def market_values(self, _name: str) -> dict[str, str]:
        """Return the venue's keys of a market: none, since its name is enough."""
        return {}


VenueFile = PerpetualProtocolFileTable | HyperliquidFileTable
_HYPERLIQUID_APIS = {
    "hyperliquid": ("https://api.hyperliquid.xyz", "mainnet"),
    "hyperliquid-testnet": ("https://api.hyperliquid-testnet.xyz", "testnet"),
}
"""Names of venues without a file: API and network."""
_HYPERLIQUID_MARKETS = {"WETH": "ETH", "WBTC": "BTC"} | {
    coin: coin for coin in ("ETH", "BTC", "SOL", "LINK", "AAVE", "UNI", "ARB", "OP", "CRV", "LDO")
}
"""Hyperliquid's markets by the symbol of the asset; trimtab doctor checks them at the venue."""


def read_venue(path: Path) -> VenueFile:
    """Read a venue file, or the venue of a config with [futures], or return the venue of a name in
    `_HYPERLIQUID_APIS`. Raises ConfigError with all mistakes.
    """
    if url_and_network := _HYPERLIQUID_APIS.get(str(path)):
        url, network = url_and_network
        return HyperliquidFileTable.model_validate(
            {
                "venue": "hyperliquid",
                "url": url,
                "network": network,
                "markets": _HYPERLIQUID_MARKETS,
            }
        )
    try:
        venue_values = read_toml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"--futures-venue {path}: cannot be read: {failure_text(error)}",
            "docs/futures.md shows its form",
        ) from None
    if "chain" in venue_values:
        venue_values = _venue_of_config(path, venue_values)
    table_type = (
        HyperliquidFileTable
        if venue_values.get("venue") == "hyperliquid"
        else PerpetualProtocolFileTable
    )
    try:
        return table_type.model_validate(venue_values)
    except ValidationError as error:
        mistakes = "; ".join(describe_errors(error, venue_values, table_type, "missing"))
        raise ConfigError(
            f"--futures-venue {path}: {mistakes}", "docs/futures.md shows its form"
        ) from None


def _venue_of_config(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the venue of a config's [futures] as the data of a venue file."""
    futures_table = config.get("futures")
    if not isinstance(futures_table, dict):
        raise ConfigError(
            f"--futures-venue {path}: this config has no [futures]",
            "for a local chain with futures: trimtab localchain --futures --write-config FILE",
        )
    venue_keys = {
        "venue",
        *PerpetualProtocolFileTable.model_fields,
        *HyperliquidFileTable.model_fields,
    } - {"markets"}
    markets: dict[str, Any] = {}
    market_tables = futures_table.get("markets", [])
    for market in market_tables if isinstance(market_tables, list) else [market_tables]:
        if not (isinstance(market, dict) and market.get("asset", market.get("symbol"))):
            raise ConfigError(
                f"--futures-venue {path}: futures.markets: {str(market)[:60]} has no symbol",
                'write for example symbol = "ETH"',
            )
        market_contracts = {
            key: market[key] for key in PerpetualProtocolFileMarket.model_fields if key in market
        }
        name = str(market.get("asset", market.get("symbol")))
        markets[name] = market_contracts or market.get("symbol", name)
    return {
        **{key: value for key, value in futures_table.items() if key in venue_keys},
        "markets": markets,
    }


def futures_weights(
    venue: VenueFile, spot_targets: Mapping[str, str], overrides: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """Return the target weights of the markets: `overrides`, or by default the proportions of the
    spot targets among assets with a market, all long. Raises ConfigError for unknown markets, or if
    absolute weights do not sum to 100 %.
    """
    if overrides:
        weight_sum_bps = 0
        weight_by_market = dict[str, str]()
        for symbol, share in overrides:
            if (market_name := venue.market_of(symbol)) is None or market_name in weight_by_market:
                raise ConfigError(
                    f"--futures-target: {symbol!r} has no market at the venue, or its market was"
                    " already given",
                    f"choose from {', '.join(venue.markets)}",
                )
            weight_sum_bps += parse_share_with_unit_bps(
                share.removeprefix("-"), f"--futures-target {symbol}"
            )
            weight_by_market[market_name] = share
        if weight_sum_bps != BPS:
            raise ConfigError(
                f"--futures-target: absolute weights sum to {format_bps(weight_sum_bps)}, not 100 %",
                "write for example --futures-target WETH=60% --futures-target WBTC=-40%",
            )
        return weight_by_market
    share_bps_by_market: dict[str, int] = {}
    for symbol, share in spot_targets.items():
        if (market_name := venue.market_of(symbol)) and (
            share_bps := parse_share_with_unit_bps(share, f"--target {symbol}")
        ):
            share_bps_by_market[market_name] = share_bps_by_market.get(market_name, 0) + share_bps
    if not share_bps_by_market or len(share_bps_by_market) > MOST_MARKETS:
        raise ConfigError(
            f"--futures: {len(share_bps_by_market)} assets have a market at the venue, of 1 to {MOST_MARKETS}"
            " supported",
            "choose markets with --futures-target SYMBOL=SHARE",
        )
    weights_bps = largest_remainder([Fraction(bps) for bps in share_bps_by_market.values()], BPS)
    return {
        market_name: f"{bps / 100:g}%"
        for market_name, bps in zip(share_bps_by_market, weights_bps, strict=True)
    }


def futures_text(
    profile: FuturesProfile,
    venue: VenueFile,
    collateral: str,
    weights: Mapping[str, str],
    asset_symbols: Iterable[str],
) -> str:
    """Return the [futures] of a trimtab.toml. `weights` are those of `futures_weights`,
    `asset_symbols` the symbols of the portfolio's assets; a market without an asset has no spot
    position.
    """
    asset_by_market = dict[str, str]()
    for symbol in asset_symbols:
        if (market_name := venue.market_of(symbol)) is not None:
            asset_by_market.setdefault(market_name, symbol)
    venue_keys = {
        **venue.futures_values(),
        "collateral": collateral,
        "leverage": profile.leverage,
        "band": BAND,
        "leverage_band": LEVERAGE_BAND,
        "funding_horizon": FUNDING_HORIZON,
    }
    toml_tables = [("[futures]", venue_keys)]
    for market, weight in weights.items():
        asset_entry = {"asset": asset_by_market[market]} if market in asset_by_market else {}
        market_values = {"symbol": market, **venue.market_values(market), **asset_entry}
        toml_tables.append(("[[futures.markets]]", {**market_values, "weight": weight}))
    toml_tables.append(
        ("[futures.limits]", {**profile.limits, "max_position": _max_position(profile, weights)})
    )
    heading = (
        f"\n# Perpetual futures, from the profile {profile.name}; every limit is listed here"
        " (docs/futures.md).\n"
    )
    return heading + "\n".join(
        "\n".join(
            [
                table_header,
                *(f"{key} = {json.dumps(value)}" for key, value in table_keys.items()),
                "",
            ]
        )
        for table_header, table_keys in toml_tables
    )


def _max_position(profile: FuturesProfile, weights: Mapping[str, str]) -> str:
    """Return the profile's maximum position, or the largest weight plus POSITION_HEADROOM_BPS if
    that is higher.
    """
    largest_weight_bps = max(
        parse_share_with_unit_bps(weight.removeprefix("-"), "weight") for weight in weights.values()
    )
    profile_max_bps = parse_share_with_unit_bps(profile.limits["max_position"], "max_position")
    return f"{min(BPS, max(profile_max_bps, largest_weight_bps + POSITION_HEADROOM_BPS)) / 100:g}%"
