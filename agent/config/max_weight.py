"""limits.max_weight: the most that any single asset, or one by its name, may be of the portfolio."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator

from agent.config.fields import OFF, Share
from agent.config.strategies import StrategyTable
from agent.config.weights import WeightsTable, bounds_of
from agent.model import Method
from agent.units import BPS

if TYPE_CHECKING:
    from agent.config.schema import Config

ANY = "any"


def _table(value: object) -> object:
    """A share alone is that of any asset."""
    if value == OFF:
        return None
    return {ANY: value} if isinstance(value, str | int | float) else value


MaxWeight = Annotated[dict[str, Share] | None, BeforeValidator(_table)]
"""Bps by symbol; "any" is for every asset without a line of its own but the numeraire, into which exits go."""


def most_bps(config: Config, symbol: str) -> int | None:
    """The most that an asset may be of the portfolio; None without a limit."""
    table = config.limits.max_weight or {}
    return table.get(symbol, None if symbol == config.portfolio.numeraire else table.get(ANY))


def require_max_weight(config: Config) -> None:
    """Raises ValueError naming asset, value and remedy where a target, or what an allocator may choose, is above its limit."""
    portfolio, table = config.portfolio, config.limits.max_weight or {}
    symbols = [asset.symbol for asset in portfolio.assets]
    strange = next((name for name in table if name != ANY and name not in symbols), None)
    if strange is not None:
        raise ValueError(f"limits.max_weight.{strange}: none of the assets; choose from {', '.join(symbols)}, or write any")
    for symbol in symbols:
        most = most_bps(config, symbol)
        if most is None:
            continue
        if not 0 < most <= BPS:
            raise ValueError(f"limits.max_weight: {most / 100:g}% for {symbol} is not above 0% and at most 100%; write for example 60%")
        for where, bps in _wanted(config, symbol):
            if bps > most:
                raise ValueError(
                    f"{where}: {bps / 100:g}% for {symbol} is above limits.max_weight of {most / 100:g}%; lower it, or raise the limit"
                )


def _wanted(config: Config, symbol: str) -> Iterator[tuple[str, int]]:
    """The most that each part of the config may want of an asset, with the key that says so."""
    table = config.portfolio
    if config.strategies:
        parts = [one.share * _of_strategy(one, symbol, len(table.assets)) for one in config.strategies]
        yield "strategies", -(-sum(parts) // BPS)
        return
    yield f"portfolio.assets.{symbol}.target", next(asset.target for asset in table.assets if asset.symbol == symbol)
    if table.weights is not None:
        yield "portfolio.weights.cap", _of_allocator(table.weights, symbol)


def _of_strategy(one: StrategyTable, symbol: str, assets: int) -> int:
    target = -(-BPS // assets) if one.weights is None else one.weights.get(symbol, 0)
    return max(target, _of_allocator(one.allocator, symbol)) if isinstance(one.allocator, WeightsTable) else target


def _of_allocator(weights: WeightsTable, symbol: str) -> int:
    """The most that it may choose; nothing of what keeps its target."""
    return 0 if weights.method is Method.FIXED or symbol in weights.fixed else bounds_of(weights, symbol)[1]
