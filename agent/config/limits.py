"""[limits]: its keys from the rows of agent/model/limits.py, the ceilings that need a confirmation,
and which of two values is tighter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, create_model

from agent.config.fields import (
    OFF,
    ConfigTable,
    DecimalOrOff,
    DurationOrOff,
    GasPriceOrOff,
    Share,
    ShareOrOff,
    Switch,
)
from agent.config.strategies import StrategyTable
from agent.config.weights import WeightsTable, weight_bounds
from agent.model import LIMITS, AllocationMethod, Limits, LimitSpec, LimitUnit, TighterDirection
from agent.units import BPS, Token, parse_raw

if TYPE_CHECKING:
    from agent.config.schema import Config

Limit = int | str | bool | None
"""A value of [limits] as LimitsTable reads it; None is "off"."""
ANY = "any"


def _table(value: object) -> object:
    """A share alone is that of any asset."""
    if value == OFF:
        return None
    return {ANY: value} if isinstance(value, str | int | float) else value


MaxWeight = Annotated[dict[str, Share] | None, BeforeValidator(_table)]
"""Bps by symbol; "any" applies to assets without their own line, except the numeraire, into which
exits sell.
"""
_KINDS: Mapping[LimitUnit, Any] = {
    LimitUnit.SHARE: ShareOrOff,
    LimitUnit.DURATION: DurationOrOff,
    LimitUnit.GAS_PRICE: GasPriceOrOff,
    LimitUnit.NATIVE: DecimalOrOff,
    LimitUnit.COINS: DecimalOrOff,
    LimitUnit.SWITCH: Switch,
}
if TYPE_CHECKING:

    class LimitsTable(ConfigTable):
        """Keys that code reads by name, for mypy. The real model below is generated from LIMITS."""

        slippage: int | None
        plan_cost: int | None
        turnover: int | None
        daily_turnover: int | None
        native_floor: str | None
        native_top_up: str | None
        min_trade: str | None
        lp_max_weight: int | None
        balance_jump_wait: int | None
        max_weight: dict[str, int] | None
        i_accept: list[str]

else:
    _ROWS = {
        one.key: (
            _KINDS[one.unit],
            Field(default=one.missing, validate_default=True) if one.missing else ...,
        )
        for one in LIMITS.values()
    }
    LimitsTable = create_model(
        "LimitsTable",
        __base__=ConfigTable,
        __module__=__name__,
        __doc__=(
            'Every guard\'s limit; each may be "off". `i_accept` names those that are off, or above'
            " their ceilings, on purpose."
        ),
        **_ROWS,
        max_weight=(MaxWeight | None, None),
        i_accept=(list[str], Field(default_factory=list)),
    )


def build_limits_from_table(
    table: LimitsTable, max_live_value: str | None, numeraire: Token
) -> Limits:
    """Limits in exact units: values in the numeraire's base units, gas in wei."""
    values: dict[str, Any] = {
        one.field: _exact(one, getattr(table, one.key), numeraire) for one in LIMITS.values()
    }
    most = (
        None
        if max_live_value is None
        else Fraction(parse_raw(max_live_value, numeraire.decimals, "portfolio.max_live_value"))
    )
    return Limits(max_live_value=most, **values)


def _exact(one: LimitSpec, value: Any, numeraire: Token) -> Any:
    """Return the table's value in the unit of its field in Limits."""
    if value is not None and one.unit is LimitUnit.NATIVE:
        return parse_raw(value, 18, f"limits.{one.key}")
    if value is not None and one.unit is LimitUnit.COINS:
        return Fraction(parse_raw(value, numeraire.decimals, f"limits.{one.key}"))
    return value


# --- Ceilings: above one, or off, a limit has to be named in limits.i_accept.


CEILINGS = {
    one.key: one.ceiling_bps
    for one in sorted(
        LIMITS.values(), key=lambda one: one.key != "slippage"
    )  # the most frequently accepted limit comes first
    if one.ceiling_bps is not None
}
"""Bps above which a limit, or "off", has to be named in limits.i_accept (T21). A swap rarely needs
1 % of slippage or cost; a tenth of a pool's price or a fifth of the portfolio in a day is more than
a slip of the unit should allow.
"""


def limits_beyond_ceiling(limits: LimitsTable) -> dict[str, str]:
    """Each limit that is off or above its ceiling, by key, with its value in words."""
    values = {key: getattr(limits, key) for key in CEILINGS}
    beyond = {key: bps for key, bps in values.items() if bps is None or bps > CEILINGS[key]}
    return {
        key: (
            f"limits.{key}: {'off' if bps is None else _percent(bps)} is beyond the ceiling of"
            f" {_percent(CEILINGS[key])}"
        )
        for key, bps in beyond.items()
    }


def accepted_limits(limits: LimitsTable) -> list[str]:
    """Describe the limits accepted by limits.i_accept."""
    return [
        f"{words}, accepted by limits.i_accept"
        for key, words in limits_beyond_ceiling(limits).items()
        if key in limits.i_accept
    ]


def needless_acceptances(limits: LimitsTable) -> list[str]:
    """Names in limits.i_accept whose limit is within its ceiling."""
    return sorted({*limits.i_accept} - limits_beyond_ceiling(limits).keys())


def require_accepted(config: Config) -> None:
    """Raises ValueError for a limit beyond its ceiling that its owner has not accepted by name."""
    limits = config.limits
    strange = next((name for name in limits.i_accept if name not in CEILINGS), None)
    if strange is not None:
        raise ValueError(
            f"limits.i_accept: {strange!r} is not a limit with a ceiling; choose from"
            f" {', '.join(CEILINGS)}"
        )
    refused = {
        key: words
        for key, words in limits_beyond_ceiling(limits).items()
        if key not in limits.i_accept
    }
    if refused:
        names = ", ".join(f'"{name}"' for name in (*limits.i_accept, *refused))
        raise ValueError(
            f"{'; '.join(refused.values())}; write less, or accept it by i_accept = [{names}] in"
            " [limits]"
        )


def _percent(bps: int) -> str:
    return f"{bps / 100:g}%"


# --- limits.max_weight: maximum weight of any asset, or of one by name.


def max_weight_bps(config: Config, symbol: str) -> int | None:
    """Return an asset's maximum weight; None without a limit."""
    table = config.limits.max_weight or {}
    return table.get(symbol, None if symbol == config.portfolio.numeraire else table.get(ANY))


def require_max_weight(config: Config) -> None:
    """Raise ValueError naming asset, value and remedy if a target, or a possible choice of an
    allocator, is above its limit.
    """
    portfolio, table = config.portfolio, config.limits.max_weight or {}
    symbols = [asset.symbol for asset in portfolio.assets]
    strange = next((name for name in table if name != ANY and name not in symbols), None)
    if strange is not None:
        raise ValueError(
            f"limits.max_weight.{strange}: none of the assets; choose from {', '.join(symbols)}, or"
            " write any"
        )
    for symbol in symbols:
        most = max_weight_bps(config, symbol)
        if most is None:
            continue
        if not 0 < most <= BPS:
            raise ValueError(
                f"limits.max_weight: {most / 100:g}% for {symbol} is not above 0% and at most 100%;"
                " write for example 60%"
            )
        for where, bps in _wanted(config, symbol):
            if bps > most:
                raise ValueError(
                    f"{where}: {bps / 100:g}% for {symbol} is above limits.max_weight of"
                    f" {most / 100:g}%; lower it, or raise the limit"
                )


def _wanted(config: Config, symbol: str) -> Iterator[tuple[str, int]]:
    """Return the highest weight that each part of the config may want of an asset, with its key."""
    table = config.portfolio
    if config.strategies:
        parts = [
            one.share * _of_strategy(one, symbol, len(table.assets)) for one in config.strategies
        ]
        yield "strategies", -(-sum(parts) // BPS)
        return
    yield (
        f"portfolio.assets.{symbol}.target",
        next(asset.target for asset in table.assets if asset.symbol == symbol),
    )
    if table.weights is not None:
        yield "portfolio.weights.cap", _of_allocator(table.weights, symbol)


def _of_strategy(one: StrategyTable, symbol: str, assets: int) -> int:
    target = -(-BPS // assets) if one.weights is None else one.weights.get(symbol, 0)
    return (
        max(target, _of_allocator(one.allocator, symbol))
        if isinstance(one.allocator, WeightsTable)
        else target
    )


def _of_allocator(weights: WeightsTable, symbol: str) -> int:
    """Return the highest weight that the allocator may choose; zero for assets that keep their
    target.
    """
    return (
        0
        if weights.method is AllocationMethod.FIXED or symbol in weights.fixed
        else weight_bounds(weights, symbol)[1]
    )


# --- Comparison of limits: an imported profile may only tighten.


OFF_IS_TIGHTEST = (TighterDirection.LESS_OR_OFF, TighterDirection.MORE_OR_OFF)


def is_tighter(key: str, theirs: Limit, mine: Limit) -> bool:
    """True if `theirs` binds strictly more than `mine`, both as LimitsTable reads them; None is
    "off".
    """
    if key not in LIMITS or theirs == mine:
        return False
    tighter = LIMITS[key].tighter
    if theirs is None or mine is None:
        return (theirs is None) is (tighter in OFF_IS_TIGHTEST)
    if tighter is TighterDirection.ON:
        return False
    less = Decimal(theirs) < Decimal(mine)  # of two that differ
    return less is (tighter in (TighterDirection.LESS, TighterDirection.LESS_OR_OFF))


def read_limits(raw: Mapping[str, object], mine: LimitsTable) -> dict[str, Limit]:
    """Limits of a profile as LimitsTable reads them; `raw` is as in its file. Raises pydantic's
    ValidationError.
    """
    texts = {one.key: _text(one, getattr(mine, one.key)) for one in LIMITS.values()}
    parsed = LimitsTable.model_validate({**texts, **raw})
    return {name: getattr(parsed, name) for name in raw}


def _text(one: LimitSpec, value: Any) -> str:
    """A parsed limit in the notation of a config."""
    if value is None:
        return OFF
    units = {LimitUnit.SHARE: "bps", LimitUnit.DURATION: "s", LimitUnit.GAS_PRICE: " wei"}
    return "on" if value is True else f"{value}{units.get(one.unit, '')}"
