"""[portfolio]: assets, hubs, positions, allocator and orders; the native coin as an asset."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from agent.codec import json_field
from agent.config.tables.fields import (
    Address,
    ConfigTable,
    DecimalOrOff,
    Duration,
    PlainDecimal,
    Share,
    Weight,
)
from agent.config.tables.liquidity import LpPositionTable
from agent.config.tables.orders import OrderKeys, OrdersTable, require_triggerable_orders
from agent.config.tables.triggers import Band
from agent.config.tables.weights import AllocatorTable, require_valid_allocator
from agent.units import BPS, format_bps

NATIVE = "native"


def resolve_native_asset(tables: object) -> object:
    """Return the tables with the asset "native" moved to the wrapped token's address and `native`
    set.

    Native coin and wrapped token count as one asset. Raises ValueError if the config has both.
    """
    if not isinstance(tables, dict):
        return tables
    portfolio = tables.get("portfolio")
    chain = tables.get("chain")
    assets = json_field(portfolio, "assets")
    if (
        not isinstance(portfolio, dict)
        or not isinstance(chain, dict)
        or not isinstance(assets, list)
    ):
        return tables
    for asset in assets:
        if isinstance(asset, dict) and "native" in asset:
            raise ValueError('portfolio.assets.native: unknown key; write address = "native"')
    native_assets = [
        asset for asset in assets if isinstance(asset, dict) and asset.get("address") == NATIVE
    ]
    if not native_assets:
        return tables
    wrapped_address = chain.get("wrapped_native")
    hubs = portfolio.get("hubs")
    other_assets = [asset for asset in assets if asset not in native_assets]
    if isinstance(hubs, list):
        other_assets += hubs
    duplicate_symbols = [
        token.get("symbol")
        for token in other_assets
        if isinstance(token, dict) and _same_address(token.get("address"), wrapped_address)
    ]
    duplicate_symbols += [asset.get("symbol") for asset in native_assets[1:]]
    if duplicate_symbols:
        raise ValueError(
            f"portfolio: {native_assets[0].get('symbol')} is the native coin, which counts together with"
            f" its wrapped token; remove {duplicate_symbols[0]}: both are one asset"
        )
    native_keys = {"address": wrapped_address, "native": True}
    resolved_assets: list[Any] = [
        {**asset, **native_keys} if asset in native_assets else asset for asset in assets
    ]
    return {**tables, "portfolio": {**portfolio, "assets": resolved_assets}}


def _same_address(address: object, wrapped_address: object) -> bool:
    return (
        isinstance(address, str)
        and isinstance(wrapped_address, str)
        and address.lower() == wrapped_address.lower()
    )


class HubTable(ConfigTable):
    """A token that routes may pass through without being held."""

    symbol: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")
    """Name of the token here, in commands and on pages."""
    address: Address
    """Contract of the token. An asset may be "native": the native coin with its wrapped token."""
    feed: Address | None = None
    """Chainlink feed of its price in USD."""
    feed_max_age: Duration | None = None
    """Age above which a round of this feed is stale; default: reference.feed_max_age."""
    decimals: int | None = Field(default=None, ge=0, le=36)
    """Its decimals, which must be those of the contract; default: these."""


class AssetTable(HubTable, OrderKeys):
    """One asset with its target, and its orders."""

    target: Weight
    """Target weight; all sum to 100 %."""
    reserve: PlainDecimal
    """Amount in whole coins that the agent leaves alone."""
    native: bool = False
    """Not written: set if the address is "native"."""
    rebasing: Share = 0
    """Largest change of the balance in a day without a transfer, of a rebasing or interest-bearing
    token.
    """
    band: Band | None = None
    """Band of this asset in place of the trigger's: "10%rel" of the target, or "5%abs" in points of
    the portfolio.
    """


class PortfolioTable(ConfigTable):
    """What is held, and in what proportions (docs/bot.md)."""

    numeraire: str
    """Symbol of the asset in which values are counted, and into which exits sell."""
    max_live_value: DecimalOrOff
    """Largest value that the agent manages; "off": no limit."""
    use_cash: DecimalOrOff = None
    """Most numeraire that the agent takes from the wallet; "off": all of it."""
    assets: list[AssetTable] = Field(min_length=2)
    """Assets."""
    hubs: list[HubTable] = Field(default_factory=list)
    """Tokens that routes may use."""
    positions: list[LpPositionTable] = Field(default_factory=list)
    """Liquidity positions that count."""
    weights: AllocatorTable | None = None
    """Allocator that chooses the targets."""
    orders: OrdersTable | None = None
    """Orders of the whole portfolio."""

    @field_validator("assets")
    @classmethod
    def _check_target_sum(cls, assets: list[AssetTable]) -> list[AssetTable]:
        target_sum_bps = sum(asset.target for asset in assets)
        if target_sum_bps != BPS:
            raise ValueError(
                f"targets sum to {format_bps(target_sum_bps)}, not 100 %;"
                f" {'add' if target_sum_bps < BPS else 'take away'} {format_bps(abs(BPS - target_sum_bps))}"
            )
        return assets

    @model_validator(mode="after")
    def _check_tokens(self) -> PortfolioTable:
        addresses = [asset_table.address for asset_table in self.assets] + [
            hub.address for hub in self.hubs
        ]
        symbols = [asset_table.symbol for asset_table in self.assets] + [
            hub.symbol for hub in self.hubs
        ]
        for key, key_values in (("address", addresses), ("symbol", symbols)):
            repeated_values = sorted(
                {key_value for key_value in key_values if key_values.count(key_value) > 1}
            )
            if repeated_values:
                raise ValueError(f"{key} {repeated_values[0]} is given twice; list each token once")
        if self.numeraire not in [asset_table.symbol for asset_table in self.assets]:
            raise ValueError(
                f"numeraire {self.numeraire!r} is not an asset; add it with a target (0% is"
                " allowed)"
            )
        numeraire_asset = next(asset for asset in self.assets if asset.symbol == self.numeraire)
        if self.use_cash is not None and (numeraire_asset.native or numeraire_asset.rebasing):
            raise ValueError(
                f"use_cash: {numeraire_asset.symbol} is"
                f" {'the native coin' if numeraire_asset.native else 'rebasing'}, so its transfers cannot be"
                " counted; omit use_cash, and set a reserve"
            )
        if self.weights is not None:
            target_bps_by_symbol = {asset.symbol: asset.target for asset in self.assets}
            require_valid_allocator(self.weights, target_bps_by_symbol, self.numeraire)
        asset_by_symbol = {asset.symbol: asset for asset in self.assets}
        require_triggerable_orders(self.orders or OrdersTable(), asset_by_symbol, self.numeraire)
        return self

    @property
    def listed_tokens(self) -> list[AssetTable | HubTable]:
        """Assets, then hubs."""
        return [*self.assets, *self.hubs]
