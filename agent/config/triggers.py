"""policy.trigger and the bands of assets: how they are written, and what they become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from agent.config.fields import Duration, Share, relayed
from agent.config.table import Table
from agent.config.zone import ZoneTable
from agent.errors import ConfigError
from agent.model import AnyOf, Cron, Drawdown, Every, Hybrid, Schedule, Single, Staged, Threshold, VolatilityJump
from agent.units import parse_share_bps

SINGLE, SEVERAL = "single", "several"


class ThresholdTable(Table):
    """Act beyond a band."""

    kind: Literal["threshold"]
    absolute: Share | None = None
    relative: Share | None = None


class TimeTable(Table):
    """Act on a schedule."""

    kind: Literal["time"]
    every: Duration | None = None
    cron: str | None = None
    timezone: str | None = None


class HybridTable(Table):
    """Look on a schedule, act beyond a band."""

    kind: Literal["hybrid"]
    absolute: Share | None = None
    relative: Share | None = None
    every: Duration | None = None
    cron: str | None = None
    timezone: str | None = None


class EitherTable(HybridTable):
    """Act on a schedule and beyond a band, whichever comes first."""

    kind: Literal["either"]  # type: ignore[assignment]  # the discriminator of another table with the same keys


class ReviewTable(Table):
    """Review on one schedule and say what would be done; act on another, with a band only beyond it."""

    kind: Literal["review"]
    review_every: Duration | None = None
    review_cron: str | None = None
    execute_every: Duration | None = None
    execute_cron: str | None = None
    timezone: str | None = None
    absolute: Share | None = None
    relative: Share | None = None


class DrawdownTable(Table):
    """Act when a price has fallen by so much within so long; `assets` are symbols, none named: all but the numeraire."""

    kind: Literal["drawdown"]
    fall: Share
    within: Duration
    assets: list[str] = Field(default_factory=list)


class VolatilityJumpTable(Table):
    """Act when the volatility of a short time exceeds `jump` of that of the long time before it."""

    kind: Literal["volatility_jump"]
    short: Duration
    long: Duration
    jump: Share
    assets: list[str] = Field(default_factory=list)


SingleTable = ThresholdTable | TimeTable | HybridTable | EitherTable | ReviewTable | DrawdownTable | VolatilityJumpTable
OneTable = Annotated[SingleTable | ZoneTable, Field(discriminator="kind")]


def _how_many(value: object) -> str:
    return SEVERAL if isinstance(value, list) else SINGLE


TriggerTable = Annotated[Annotated[OneTable, Tag(SINGLE)] | Annotated[list[OneTable], Tag(SEVERAL)], Discriminator(_how_many)]
"""One trigger, or a list of them, any of which fires."""


def parse_band(text: object, field: str) -> Threshold:
    """A band such as "10%rel" of the target, or "5%abs" in points of the portfolio. Raises ConfigError."""
    plain = text.strip().replace(" ", "") if isinstance(text, str) else ""
    kind = next((kind for kind in ("abs", "rel") if plain.endswith(kind)), None)
    if kind is None:
        raise ConfigError(f"{field}: {text!r} is not a band", "write 10%rel (of the target) or 5%abs (points of the portfolio)")
    width_bps = parse_share_bps(plain.removesuffix(kind), field)
    return Threshold(width_bps, None) if kind == "abs" else Threshold(None, width_bps)


def _band(value: object) -> Threshold:
    try:
        return parse_band(value, "value")
    except ConfigError as error:
        raise relayed(error) from None


Band = Annotated[Any, BeforeValidator(_band)]
"""Becomes a Threshold."""


def build_trigger(table: SingleTable | list[SingleTable | ZoneTable], tokens: Mapping[str, str]) -> Single | AnyOf:
    """The trigger of the policy table, where it is none of risk. `tokens` are addresses by symbol, without the numeraire."""
    if isinstance(table, list):
        return AnyOf(tuple(_one_of_several(one, tokens) for one in table))
    if isinstance(table, EitherTable):
        return AnyOf((_threshold(table), _schedule(table)))
    return _single(table, tokens)


def _one_of_several(table: SingleTable | ZoneTable, tokens: Mapping[str, str]) -> Single:
    match table:
        case EitherTable():
            raise ConfigError("policy.trigger: either within a list", "write its threshold and its time as two triggers of the list")
        case ZoneTable():
            raise ConfigError("policy.trigger: a zone within a list", "a zone weighs risk against cost by itself; take the others out")
        case _:
            return _single(table, tokens)


def _single(table: SingleTable, tokens: Mapping[str, str]) -> Single:
    match table:
        case ThresholdTable():
            return _threshold(table)
        case TimeTable():
            return _schedule(table)
        case HybridTable():
            return Hybrid(_threshold(table), _schedule(table))
        case ReviewTable():
            band = None if table.absolute is None and table.relative is None else Threshold(table.absolute, table.relative)
            review = _times(table.review_every, table.review_cron, table.timezone, "review_")
            return Staged(review, _times(table.execute_every, table.execute_cron, table.timezone, "execute_"), band)
        case DrawdownTable():
            return Drawdown(table.fall, table.within, _addresses(table.assets, tokens))
        case VolatilityJumpTable():
            return VolatilityJump(table.short, table.long, table.jump, _addresses(table.assets, tokens))


def _addresses(symbols: list[str], tokens: Mapping[str, str]) -> tuple[str, ...]:
    strange = [symbol for symbol in symbols if symbol not in tokens]
    if strange:
        raise ConfigError(
            f"policy.trigger.assets: {strange[0]!r} is none of the assets beside the numeraire", f"choose from {', '.join(tokens)}"
        )
    return tuple(tokens[symbol] for symbol in symbols or tokens)


def _threshold(table: ThresholdTable | HybridTable) -> Threshold:
    if table.absolute is None and table.relative is None:
        raise ConfigError("policy.trigger: a threshold needs absolute or relative", "for example relative = '10%'")
    return Threshold(table.absolute, table.relative)


def _schedule(table: TimeTable | HybridTable) -> Schedule:
    return _times(table.every, table.cron, table.timezone)


def _times(every_s: int | None, cron: str | None, timezone: str | None, prefix: str = "") -> Schedule:
    if (every_s is None) == (cron is None):
        raise ConfigError(f"policy.trigger: give exactly one of {prefix}every and {prefix}cron", f"for example {prefix}every = '1d'")
    if every_s is not None:
        return Every(every_s)
    if timezone is None:
        raise ConfigError("policy.trigger.timezone: a cron trigger names its time zone", "for example timezone = 'UTC'")
    return Cron(cron or "", timezone)
