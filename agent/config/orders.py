"""Orders in trimtab.toml: entry, stop loss, take profit and trailing stop of an asset, and of the portfolio as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, ConfigDict

from agent.config.fields import Share
from agent.config.table import Table
from agent.model import PORTFOLIO, Absent, Asset, OrderKind, Orders, Terms
from agent.units import BPS, Token

if TYPE_CHECKING:
    from agent.config.schema import AssetTable, Config, PortfolioTable

MOST_HYSTERESIS_BPS = 2_000
_LEVEL = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(%|bps)?")


@dataclass(frozen=True, slots=True)
class Level:
    """As written: a price in whole coins of the numeraire per whole token, or a share in bps."""

    price: Fraction | None
    share_bps: int | None


def parse_level(value: object) -> Level:
    """Price or share: "1500" and 1500 are prices, "10%" and "1000bps" are shares. A bare number below 1 may be meant as either.

    Raises ValueError.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        if value < 1:
            raise ValueError(
                f'{value!r} may be a price or a share; write a price in quotes such as "{value!r}", or a distance such as "10%"'
            )
        return Level(Fraction(Decimal(repr(value))), None)
    match = _LEVEL.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{value!r} is no level; write a price in the numeraire such as "1500", or a distance such as "10%"')
    number = Fraction(Decimal(match[1]))
    if number == 0:
        raise ValueError(f'{value!r}: at zero it can never act; write a price above zero, or a distance such as "10%"')
    if match[2] is None:
        return Level(number, None)
    bps = number * (100 if match[2] == "%" else 1)
    if bps.denominator != 1:
        raise ValueError(f"{value!r} is finer than a basis point")
    return Level(None, bps.numerator)


LevelKey = Annotated[Level, BeforeValidator(parse_level)]


class ExitKeys(Table):
    """Keys of what sells: at or below a price, at or above one, or so far below the highest."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    stop_loss: LevelKey | None = None
    take_profit: LevelKey | None = None
    trailing_stop: LevelKey | None = None


class OrderKeys(ExitKeys):
    """The same with `entry`: an asset is bought only at or below it."""

    entry: LevelKey | None = None


class OrdersTable(ExitKeys):
    """Orders of the whole portfolio, and what holds for all. `absent` says where the weight of an asset goes that is out or waits.

    `hysteresis` is how far from its level a price must be for an order to be armed, and below it for a closed entry to open again.
    """

    absent: Literal["cash", "redistribute"] = "cash"
    hysteresis: Share = 100
    entry_above_price: Literal["warn", "refuse"] = "warn"


def require_orders(portfolio: PortfolioTable) -> None:
    """Raises ValueError naming field and remedy for orders that could never act, or would act at once whatever the price."""
    table = portfolio.orders or OrdersTable()
    if table.hysteresis > MOST_HYSTERESIS_BPS:
        raise ValueError('portfolio.orders.hysteresis: more than 20%; write less, such as "1%"')
    for kind, level in _levels(table):
        where = f"portfolio.orders.{kind.value}"
        if level.share_bps is None:
            raise ValueError(f'{where}: a price says nothing of the whole, which deposits change; write a share such as "20%"')
        _require(where, kind, level, table.hysteresis)
    for asset in portfolio.assets:
        for kind, level in _levels(asset):
            where = f"portfolio.assets.{asset.symbol}.{kind.value}"
            if asset.symbol == portfolio.numeraire:
                raise ValueError(f"{where}: {asset.symbol} is the numeraire, whose price is always 1; remove it")
            _require(where, kind, level, table.hysteresis)
        _require_order(asset)


def prices_in_words(portfolio: PortfolioTable) -> dict[str, str]:
    """What each level that is a number of coins means, by symbol and kind: whoever meant a share should see it."""
    found = [(asset.symbol, kind, level.price) for asset in portfolio.assets for kind, level in _levels(asset) if level.price is not None]
    return {
        f"{symbol} {kind.value}": f"{(number := _plain(price))} is a {'distance' if kind is OrderKind.TRAILING_STOP else 'price'} in "
        f'{portfolio.numeraire}; a share is written "{number}%"'
        for symbol, kind, price in found
    }


def _plain(price: Fraction) -> str:
    return f"{Decimal(price.numerator) / Decimal(price.denominator):f}"


def require_alone(config: Config) -> None:
    """Raises ValueError for orders that strategies over one wallet cannot follow: their books know exits into the numeraire alone."""
    portfolio = config.portfolio
    if not config.strategies:
        return
    entered = next((asset.symbol for asset in portfolio.assets if asset.entry is not None), None)
    if entered is not None:
        raise ValueError(
            f"portfolio.assets.{entered}.entry: strategies buy each by its own wish, which no entry holds back; leave either out"
        )
    if portfolio.orders is not None and portfolio.orders.absent != "cash":
        raise ValueError('portfolio.orders.absent: with strategies the weight of what is out waits in the numeraire; write "cash"')


def build_orders(portfolio: PortfolioTable, assets: Iterable[Asset], numeraire: Token) -> Orders:
    """The orders in exact units, by token address."""
    table, tokens = portfolio.orders or OrdersTable(), {asset.token.symbol: asset.token for asset in assets}
    terms = [Terms(PORTFOLIO, kind, None, level.share_bps) for kind, level in _levels(table)]
    for asset in portfolio.assets:
        token = tokens[asset.symbol]
        unit = Fraction(10) ** (numeraire.decimals - token.decimals)
        for kind, level in _levels(asset):
            terms.append(Terms(token.address, kind, None if level.price is None else level.price * unit, level.share_bps))
    return Orders(tuple(terms), Absent(table.absent), table.hysteresis, table.entry_above_price == "refuse")


def _levels(table: ExitKeys) -> list[tuple[OrderKind, Level]]:
    found = [(kind, getattr(table, kind.value, None)) for kind in OrderKind]
    return [(kind, level) for kind, level in found if level is not None]


def _require(where: str, kind: OrderKind, level: Level, hysteresis_bps: int) -> None:
    bps = level.share_bps
    if bps is None:
        return
    if kind is not OrderKind.TAKE_PROFIT and bps >= BPS:
        raise ValueError(f"{where}: {bps / 100:g}% below is at or below zero, so that it can never act; write less than 100%")
    if kind is not OrderKind.ENTRY and bps <= hysteresis_bps:
        raise ValueError(
            f"{where}: {bps / 100:g}% is within portfolio.orders.hysteresis of {hysteresis_bps / 100:g}%, so that it could never be armed; "
            "write more, or lower the hysteresis"
        )


def _require_order(asset: AssetTable) -> None:
    """A stop lies below the entry and the profit, the profit above the entry, as far as all are prices."""
    stop, entry, profit = ((level.price if level is not None else None) for level in (asset.stop_loss, asset.entry, asset.take_profit))
    pairs = (("stop_loss", stop, "entry", entry), ("stop_loss", stop, "take_profit", profit), ("entry", entry, "take_profit", profit))
    for low_name, low, high_name, high in pairs:
        if low is not None and high is not None and low >= high:
            raise ValueError(
                f"portfolio.assets.{asset.symbol}.{low_name}: {float(low):g} is not below {high_name} {float(high):g}; "
                f"lower {low_name} or raise {high_name}"
            )
