"""Keys of conditional orders: entry, stop loss, take profit, trailing stop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import isfinite
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict

from agent.config.tables.fields import OFF, ConfigTable, Share
from agent.model import PRICE_ALERTS, OrderKind
from agent.units import BPS, format_bps

MOST_HYSTERESIS_BPS = 2_000
_LEVEL = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(%|bps)?")


@dataclass(frozen=True, slots=True)
class OrderLevel:
    """A parsed level: a price in whole coins of the numeraire per whole token, or a share in bps."""

    price: Fraction | None
    share_bps: int | None


def parse_level(config_value: object) -> OrderLevel:
    """Parse a price or share: "1500" and 1500 are prices, "10%" and "1000bps" are shares. A bare
    number below 1 is ambiguous.

    Raises ValueError.
    """
    if (
        isinstance(config_value, int | float)
        and not isinstance(config_value, bool)
        and isfinite(config_value)
    ):
        if config_value < 1:
            raise ValueError(
                f'{config_value!r} is ambiguous; write a price in quotes such as "{config_value!r}",'
                ' or a distance such as "10%"'
            )
        return OrderLevel(Fraction(Decimal(repr(config_value))), None)
    match = _LEVEL.fullmatch(config_value.strip()) if isinstance(config_value, str) else None
    if match is None:
        raise ValueError(
            f'{config_value!r} is not a level; write a price in the numeraire such as "1500", or a'
            ' distance such as "10%"'
        )
    price_or_share = Fraction(Decimal(match[1]))
    if price_or_share == 0:
        raise ValueError(
            f"{config_value!r}: zero can never trigger; write a price above zero, or a distance such as"
            ' "10%"'
        )
    if match[2] is None:
        return OrderLevel(price_or_share, None)
    share_bps = price_or_share * (100 if match[2] == "%" else 1)
    if share_bps.denominator != 1:
        raise ValueError(f"{config_value!r} is finer than a basis point")
    return OrderLevel(None, share_bps.numerator)


def _parse_share_level(config_value: object) -> OrderLevel:
    """Parse a share; raises ValueError for a price too."""
    level = parse_level(config_value)
    if level.share_bps is None:
        raise ValueError(
            "deposits change the portfolio's value, so a price is not meaningful; write a share such"
            ' as "20%"'
        )
    return level


AnyLevel = Annotated[OrderLevel, BeforeValidator(parse_level)]
ShareLevel = Annotated[OrderLevel, BeforeValidator(_parse_share_level)]
LevelOrOff = Annotated[
    OrderLevel | None,
    BeforeValidator(lambda value: None if value == OFF else parse_level(value)),
]


class ExitKeys(ConfigTable):
    """Exits, by levels that are prices or shares (docs/orders.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    stop_loss: AnyLevel | None = None
    """Sells at or below it: a price, or a share below the entry level, or else the price at arming.
    """
    take_profit: AnyLevel | None = None
    """Sells at or above it: a price, or a share above the price to which a stop loss would refer.
    """
    trailing_stop: AnyLevel | None = None
    """Sells at this distance below the highest confirmed price."""


class OrderKeys(ExitKeys):
    """Exits, and when an asset is bought or reported (docs/orders.md)."""

    entry: AnyLevel | None = None
    """The asset is bought only at or below it: a price, or a share below the price at arming."""
    alert_above: LevelOrOff = None
    """A message at or above this price, and nothing else; "off": none."""
    alert_below: LevelOrOff = None
    """A message at or below this price, and nothing else; "off": none."""


class OrdersTable(ExitKeys):
    """Orders of the whole portfolio and common settings (docs/orders.md)."""

    stop_loss: ShareLevel | None = None
    """Sells everything at this distance below the NAV per share at arming."""
    take_profit: ShareLevel | None = None
    """Sells everything at this distance above it."""
    trailing_stop: ShareLevel | None = None
    """Sells everything at this distance below the highest NAV per share."""
    absent: Literal["cash", "redistribute"] = "cash"
    """Where the weight of a sold or waiting asset goes: held in the numeraire, or shared by the
    others.
    """
    hysteresis: Share = 100
    """Shortest distance from its level at which an order is armed and a closed entry reopens."""
    entry_above_price: Literal["warn", "refuse"] = "warn"
    """What happens to an entry above the price, which fills at once."""


def require_triggerable_orders(
    table: OrdersTable, orders_by_symbol: Mapping[str, OrderKeys], numeraire: str
) -> None:
    """Raise ValueError naming field and remedy for orders that could never trigger, or would trigger
    at any price. `orders_by_symbol` are the orders of each asset by symbol.
    """
    if table.hysteresis > MOST_HYSTERESIS_BPS:
        raise ValueError('portfolio.orders.hysteresis: more than 20 %; write less, such as "1%"')
    for kind, level in order_levels(table):
        _require_reachable(f"portfolio.orders.{kind.value}", kind, level, table.hysteresis)
    for symbol, orders in orders_by_symbol.items():
        for kind, level in order_levels(orders):
            config_key = f"portfolio.assets.{symbol}.{kind.value}"
            if symbol == numeraire:
                raise ValueError(
                    f"{config_key}: {symbol} is the numeraire, whose price is always 1; remove it"
                )
            _require_reachable(config_key, kind, level, table.hysteresis)
        _require_ascending_prices(symbol, orders)


def order_levels(table: ExitKeys) -> list[tuple[OrderKind, OrderLevel]]:
    """Return the orders of a table with their levels."""
    kinds_and_levels = [(kind, getattr(table, kind.value, None)) for kind in OrderKind]
    return [(kind, level) for kind, level in kinds_and_levels if level is not None]


def _require_reachable(
    config_key: str, kind: OrderKind, level: OrderLevel, hysteresis_bps: int
) -> None:
    share_bps = level.share_bps
    if share_bps is None:
        return
    if kind not in (OrderKind.TAKE_PROFIT, OrderKind.ALERT_ABOVE) and share_bps >= BPS:
        raise ValueError(
            f"{config_key}: {format_bps(share_bps)} below is at or below zero, so it can never trigger; write"
            " less than 100 %"
        )
    if kind is not OrderKind.ENTRY and kind not in PRICE_ALERTS and share_bps <= hysteresis_bps:
        raise ValueError(
            f"{config_key}: {format_bps(share_bps)} is within portfolio.orders.hysteresis of"
            f" {format_bps(hysteresis_bps)}, so it could never be armed; write more, or lower the"
            " hysteresis"
        )


def _require_ascending_prices(symbol: str, orders: OrderKeys) -> None:
    """Require stop, entry and profit prices to be in ascending order."""
    stop_price, entry_price, profit_price = (
        (level.price if level is not None else None)
        for level in (orders.stop_loss, orders.entry, orders.take_profit)
    )
    price_pairs = (
        ("stop_loss", stop_price, "entry", entry_price),
        ("stop_loss", stop_price, "take_profit", profit_price),
        ("entry", entry_price, "take_profit", profit_price),
    )
    for low_name, low_price, high_name, high_price in price_pairs:
        if low_price is not None and high_price is not None and low_price >= high_price:
            raise ValueError(
                f"portfolio.assets.{symbol}.{low_name}: {float(low_price):g} is not below"
                f" {high_name} {float(high_price):g}; lower {low_name} or raise {high_name}"
            )
