"""Keys of conditional orders (entry, stop loss, take profit, trailing stop) and of the execution
style.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from agent.config.fields import ConfigTable, Duration, Share, ShareOrOff, compact
from agent.config.triggers import is_zone
from agent.model import (
    PORTFOLIO,
    Asset,
    ExecutionPace,
    ExecutionStyle,
    OrderKind,
    OrdersConfig,
    OrderTerms,
    WeightReallocation,
)
from agent.units import BPS, Token, format_duration

if TYPE_CHECKING:
    from agent.config.schema import AssetTable, Config, PortfolioTable


MOST_HYSTERESIS_BPS = 2_000
_LEVEL = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(%|bps)?")


@dataclass(frozen=True, slots=True)
class OrderLevel:
    """A parsed level: a price in whole coins of the numeraire per whole token, or a share in bps."""

    price: Fraction | None
    share_bps: int | None


def parse_level(value: object) -> OrderLevel:
    """Parse a price or share: "1500" and 1500 are prices, "10%" and "1000bps" are shares. A bare
    number below 1 is ambiguous.

    Raises ValueError.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        if value < 1:
            raise ValueError(
                f'{value!r} is ambiguous; write a price in quotes such as "{value!r}",'
                ' or a distance such as "10%"'
            )
        return OrderLevel(Fraction(Decimal(repr(value))), None)
    match = _LEVEL.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f'{value!r} is not a level; write a price in the numeraire such as "1500", or a'
            ' distance such as "10%"'
        )
    number = Fraction(Decimal(match[1]))
    if number == 0:
        raise ValueError(
            f"{value!r}: zero can never trigger; write a price above zero, or a distance such as"
            ' "10%"'
        )
    if match[2] is None:
        return OrderLevel(number, None)
    bps = number * (100 if match[2] == "%" else 1)
    if bps.denominator != 1:
        raise ValueError(f"{value!r} is finer than a basis point")
    return OrderLevel(None, bps.numerator)


LevelKey = Annotated[OrderLevel, BeforeValidator(parse_level)]


class ExitKeys(ConfigTable):
    """Keys of exits: a stop loss at or below a level, a take profit at or above one, and a trailing
    stop at a distance below the highest price.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    stop_loss: LevelKey | None = None
    take_profit: LevelKey | None = None
    trailing_stop: LevelKey | None = None


class OrderKeys(ExitKeys):
    """Keys of exits, and `entry`: the price up to which an asset is bought."""

    entry: LevelKey | None = None


class OrdersTable(ExitKeys):
    """Orders of the whole portfolio, and common settings.

    `absent` is the destination of the weight of an asset that was sold or awaits its entry.
    `hysteresis` is the distance from its level at which an order is armed and a closed entry
    reopens.
    """

    absent: Literal["cash", "redistribute"] = "cash"
    hysteresis: Share = 100
    entry_above_price: Literal["warn", "refuse"] = "warn"


def require_orders(portfolio: PortfolioTable) -> None:
    """Raise ValueError naming field and remedy for orders that could never trigger, or would trigger
    at any price.
    """
    table = portfolio.orders or OrdersTable()
    if table.hysteresis > MOST_HYSTERESIS_BPS:
        raise ValueError('portfolio.orders.hysteresis: more than 20%; write less, such as "1%"')
    for kind, level in _levels(table):
        key = f"portfolio.orders.{kind.value}"
        if level.share_bps is None:
            raise ValueError(
                f"{key}: deposits change the portfolio's value, so a price is not meaningful; write a"
                ' share such as "20%"'
            )
        _require(key, kind, level, table.hysteresis)
    for asset in portfolio.assets:
        for kind, level in _levels(asset):
            key = f"portfolio.assets.{asset.symbol}.{kind.value}"
            if asset.symbol == portfolio.numeraire:
                raise ValueError(
                    f"{key}: {asset.symbol} is the numeraire, whose price is always 1; remove it"
                )
            _require(key, kind, level, table.hysteresis)
        _require_level_order(asset)


def price_level_notes(portfolio: PortfolioTable) -> dict[str, str]:
    """Return notes on levels written as amounts, by symbol and kind, in case a share was meant."""
    notes = {}
    for asset in portfolio.assets:
        for kind, level in _levels(asset):
            if level.price is None:
                continue
            number = _plain(level.price)
            meaning = "distance" if kind is OrderKind.TRAILING_STOP else "price"
            notes[f"{asset.symbol} {kind.value}"] = (
                f'{number} is a {meaning} in {portfolio.numeraire}; a share is written "{number}%"'
            )
    return notes


def _plain(price: Fraction) -> str:
    return f"{Decimal(price.numerator) / Decimal(price.denominator):f}"


def require_strategy_orders(config: Config) -> None:
    """Raise ValueError for orders that strategies do not support: entries, and exits into tokens
    other than the numeraire.
    """
    portfolio = config.portfolio
    if not config.strategies:
        return
    entered = next((asset.symbol for asset in portfolio.assets if asset.entry is not None), None)
    if entered is not None:
        raise ValueError(
            f"portfolio.assets.{entered}.entry: strategies do not support entries; remove the entry"
            " or [[strategies]]"
        )
    if portfolio.orders is not None and portfolio.orders.absent != "cash":
        raise ValueError(
            "portfolio.orders.absent: strategies keep the weight of a sold asset in the"
            ' numeraire; write "cash"'
        )


def build_orders(
    portfolio: PortfolioTable, assets: Iterable[Asset], numeraire: Token
) -> OrdersConfig:
    """Build the orders in exact units, by token address."""
    table = portfolio.orders or OrdersTable()
    tokens = {asset.token.symbol: asset.token for asset in assets}
    terms = [OrderTerms(PORTFOLIO, kind, None, level.share_bps) for kind, level in _levels(table)]
    for asset in portfolio.assets:
        token = tokens[asset.symbol]
        unit = Fraction(10) ** (numeraire.decimals - token.decimals)
        for kind, level in _levels(asset):
            price = None if level.price is None else level.price * unit
            terms.append(OrderTerms(token.address, kind, price, level.share_bps))
    return OrdersConfig(
        tuple(terms),
        WeightReallocation(table.absent),
        table.hysteresis,
        table.entry_above_price == "refuse",
    )


def _levels(table: ExitKeys) -> list[tuple[OrderKind, OrderLevel]]:
    levels = [(kind, getattr(table, kind.value, None)) for kind in OrderKind]
    return [(kind, level) for kind, level in levels if level is not None]


def _require(key: str, kind: OrderKind, level: OrderLevel, hysteresis_bps: int) -> None:
    bps = level.share_bps
    if bps is None:
        return
    if kind is not OrderKind.TAKE_PROFIT and bps >= BPS:
        raise ValueError(
            f"{key}: {bps / 100:g}% below is at or below zero, so it can never trigger; write"
            " less than 100%"
        )
    if kind is not OrderKind.ENTRY and bps <= hysteresis_bps:
        raise ValueError(
            f"{key}: {bps / 100:g}% is within portfolio.orders.hysteresis of"
            f" {hysteresis_bps / 100:g}%, so it could never be armed; write more, or lower the"
            " hysteresis"
        )


def _require_level_order(asset: AssetTable) -> None:
    """Require stop, entry and profit prices to be in ascending order."""
    stop, entry, profit = (
        (level.price if level is not None else None)
        for level in (asset.stop_loss, asset.entry, asset.take_profit)
    )
    pairs = (
        ("stop_loss", stop, "entry", entry),
        ("stop_loss", stop, "take_profit", profit),
        ("entry", entry, "take_profit", profit),
    )
    for low_name, low, high_name, high in pairs:
        if low is not None and high is not None and low >= high:
            raise ValueError(
                f"portfolio.assets.{asset.symbol}.{low_name}: {float(low):g} is not below"
                f" {high_name} {float(high):g}; lower {low_name} or raise {high_name}"
            )


# --- Execution styles: immediately, in slices, over a given time, or at a price. A style requires
# all its keys.


ZONE = "zone"
SHORTEST_S, LONGEST_S = 12, 28 * 86_400
MOST_SIZE_BPS, MOST_TIME_BPS = 5_000, 9_000
MOST_OFF_BPS = 2_000
STYLE_KEYS = {
    "market": (),
    "rounds": (
        "max_rounds",
        "interval",
        "recovery",
        "waiting_cost",
        "size_jitter",
        "time_jitter",
        "budget",
    ),
    "twap": ("max_rounds", "over", "size_jitter", "time_jitter", "budget"),
    "limit": ("limit", "patience"),
}
EXAMPLES = {
    "max_rounds": "6",
    "interval": '"10m"',
    "recovery": '"10m"',
    "waiting_cost": '"0.5bps"',
    "size_jitter": '"30%"',
    "time_jitter": '"50%"',
    "budget": '"0.5%"',
    "over": '"6h"',
    "limit": '"0.2%"',
    "patience": '"4h"',
}


def _number(text: str, unit: str) -> Fraction | None:
    if not text.endswith(unit):
        return None
    try:
        number = Decimal(text.removesuffix(unit))
    except InvalidOperation:
        return None
    return Fraction(number) if number.is_finite() else None


def _parse_bps(text: str) -> Fraction | None:
    """Parse "0.5bps" or "0.005%"; None if it is neither."""
    if (percent := _number(text, "%")) is not None:
        return percent * 100
    return _number(text, "bps")


def _hourly(value: object) -> Fraction | str:
    """Parse bps per hour, "0.5bps" or "0.005%", or "zone"."""
    plain = compact(value)
    if plain == ZONE:
        return ZONE
    bps = _parse_bps(plain)
    if bps is None or bps < 0:
        raise ValueError(
            f"{value!r} is not a cost per hour; write the cost of one hour as a share of the"
            ' amount not yet traded, such as 0.5bps, or "zone"'
        )
    return bps


def _signed_bps(value: object) -> int:
    """Parse a signed share such as "0.2%", "20bps" or "-0.5%" to bps."""
    plain = compact(value)
    bps = _parse_bps(plain)
    if bps is None or bps.denominator != 1:
        raise ValueError(
            f"{value!r} is not a share; write the distance from arrival prices, such as"
            ' "0.2%" (worse) or "-0.5%" (better)'
        )
    return int(bps)


BpsPerHour = Annotated[Fraction | str, BeforeValidator(_hourly)]
SignedBps = Annotated[int, BeforeValidator(_signed_bps)]


class PaceTable(ConfigTable):
    """Keys of an execution style; `budget`, `size_jitter` and `time_jitter` may be "off". See
    docs/gradual-execution.md.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    style: Literal["market", "rounds", "twap", "limit"] = "market"
    max_rounds: int | None = Field(default=None, ge=2, le=24)
    interval: Duration | None = None
    recovery: Duration | None = None
    waiting_cost: BpsPerHour | None = None
    size_jitter: ShareOrOff = None
    time_jitter: ShareOrOff = None
    budget: ShareOrOff = None
    over: Duration | None = None
    limit: SignedBps | None = None
    patience: Duration | None = None


def require_pace(config: Config) -> None:
    """Raise ValueError naming field and remedy if the execution style cannot be executed."""
    table = config.execution
    missing = [key for key in STYLE_KEYS[table.style] if key not in table.model_fields_set]
    if missing:
        raise ValueError(
            f"execution.{missing[0]}: missing; style = {table.style!r} needs it, for example"
            f" {EXAMPLES[missing[0]]}"
        )
    for key in ("interval", "recovery", "over", "patience"):
        seconds = getattr(table, key)
        if seconds is not None and not SHORTEST_S <= seconds <= LONGEST_S:
            raise ValueError(
                f"execution.{key}: {seconds} s is not between {SHORTEST_S}s and 28d; write for"
                f" example {EXAMPLES[key]}"
            )
    for key, limit in (("size_jitter", MOST_SIZE_BPS), ("time_jitter", MOST_TIME_BPS)):
        if (getattr(table, key) or 0) > limit:
            raise ValueError(
                f"execution.{key}: more than {limit // 100}% would produce empty slices; write for"
                f" example {EXAMPLES[key]}"
            )
    if (
        table.over is not None
        and table.max_rounds is not None
        and table.over < table.max_rounds * SHORTEST_S
    ):
        raise ValueError(
            f"execution.over: too short for {table.max_rounds} slices; write at least"
            f" {table.max_rounds * SHORTEST_S}s"
        )
    if table.limit is not None and abs(table.limit) > MOST_OFF_BPS:
        raise ValueError(
            f"execution.limit: more than {MOST_OFF_BPS // 100}% off arrival prices; write for"
            f" example {EXAMPLES['limit']}"
        )
    if table.waiting_cost == ZONE and not is_zone(config.policy.trigger):
        raise ValueError(
            'execution.waiting_cost: "zone" requires a zone trigger; write a cost per hour, such'
            ' as "0.5bps"'
        )


def build_pace(config: Config) -> ExecutionPace:
    """Build the pace of gradual execution."""
    table = config.execution
    cost = table.waiting_cost
    return ExecutionPace(
        style=ExecutionStyle(table.style),
        max_rounds=table.max_rounds or 1,
        interval_s=table.interval or 0,
        over_s=table.over or 0,
        recovery_s=table.recovery or 0,
        size_jitter_bps=table.size_jitter or 0,
        time_jitter_bps=table.time_jitter or 0,
        budget_bps=table.budget,
        waiting_bps_hour=cost if isinstance(cost, Fraction) else None,
        limit_bps=table.limit or 0,
        patience_s=table.patience or 0,
    )


def pace_text(config: Config) -> str:
    """Return the execution style and its keys as text."""
    table = config.execution
    shown = {key: getattr(table, key) for key in STYLE_KEYS[table.style]}
    parts = [f"{key} {_shown(key, value)}" for key, value in shown.items()]
    return ", ".join([table.style, *parts])


def _shown(key: str, value: object) -> str:
    if value is None:
        return "off"
    if key in ("interval", "recovery", "over", "patience") and isinstance(value, int):
        return format_duration(value)
    if isinstance(value, int) and key != "max_rounds":
        return f"{value / 100:g}%"
    if isinstance(value, Fraction):
        return f"{float(value):g} bps per hour"
    return str(value)
