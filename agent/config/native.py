"""The native coin in the config: an asset with address = "native", and what refills it for gas."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.config.schema import Config

NATIVE = "native"


def resolve(data: object) -> object:
    """The file's tables with every asset of address "native" at the wrapped token's address, and marked.

    Native coin and wrapped token are one asset: both at once are refused. Raises ValueError, as pydantic's validators expect.
    """
    if not isinstance(data, dict):
        return data
    portfolio, chain = data.get("portfolio"), data.get("chain")
    assets = portfolio.get("assets") if isinstance(portfolio, dict) else None
    if not isinstance(portfolio, dict) or not isinstance(chain, dict) or not isinstance(assets, list):
        return data
    for asset in assets:
        if isinstance(asset, dict) and "native" in asset:
            raise ValueError('portfolio.assets.native: unknown key; write address = "native"')
    coins = [asset for asset in assets if isinstance(asset, dict) and asset.get("address") == NATIVE]
    if not coins:
        return data
    wrapped = chain.get("wrapped_native")
    hubs = portfolio.get("hubs")
    others = [*(one for one in assets if one not in coins), *(hubs if isinstance(hubs, list) else ())]
    beside = [one.get("symbol") for one in others if isinstance(one, dict) and _same(one.get("address"), wrapped)]
    if beside or len(coins) > 1:
        twice = beside[0] if beside else coins[1].get("symbol")
        raise ValueError(
            f"portfolio: {coins[0].get('symbol')} is the native coin, which counts together with its wrapped token; "
            f"remove {twice}: both are one asset"
        )
    found: list[Any] = [{**one, "address": wrapped, "native": True} if one in coins else one for one in assets]
    return {**data, "portfolio": {**portfolio, "assets": found}}


def require_sensible(config: Config) -> None:
    """limits.native_top_up refills above the floor from an asset. Raises ValueError naming the field."""
    target, floor = config.limits.native_top_up, config.limits.native_floor
    if target is None:
        return
    if floor is None or Decimal(target) <= Decimal(floor):
        raise ValueError("limits.native_top_up: gas money is refilled up to more than limits.native_floor; raise it, or write off")
    if config.chain.wrapped_native not in [asset.address for asset in config.portfolio.assets]:
        raise ValueError("limits.native_top_up: the wrapped native coin is none of the assets, so that nothing can be unwrapped; write off")


def _same(address: object, wrapped: object) -> bool:
    return isinstance(address, str) and isinstance(wrapped, str) and address.lower() == wrapped.lower()
