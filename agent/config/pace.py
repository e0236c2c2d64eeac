"""[execution] in time: at once, in rounds, over a stated time, or at a price; every key that its style needs has to be written."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from agent.config.fields import Duration, ShareOrOff
from agent.config.table import Table
from agent.config.zone import ZoneTable
from agent.model import Pace, Style

if TYPE_CHECKING:
    from agent.config.schema import Config

ZONE = "zone"
SHORTEST_S, LONGEST_S = 12, 28 * 86_400
MOST_SIZE_BPS, MOST_TIME_BPS = 5_000, 9_000
MOST_OFF_BPS = 2_000
NEEDED = {
    "market": (),
    "rounds": ("max_rounds", "interval", "recovery", "waiting_cost", "size_jitter", "time_jitter", "budget"),
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
    try:
        number = Decimal(text.removesuffix(unit)) if text.endswith(unit) else None
    except InvalidOperation:
        return None
    return None if number is None or not number.is_finite() else Fraction(number)


def _hourly(value: object) -> Fraction | str:
    """Bps an hour, "0.5bps" or "0.005%"; or "zone"."""
    plain = value.strip().replace(" ", "") if isinstance(value, str) else ""
    if plain == ZONE:
        return ZONE
    found = _number(plain, "bps")
    if found is None and (percent := _number(plain, "%")) is not None:
        found = percent * 100
    if found is None or found < 0:
        raise ValueError(f'{value!r} is not a cost an hour; write what an hour of waiting costs of what waits, such as 0.5bps, or "zone"')
    return found


def _signed_bps(value: object) -> int:
    """Bps of "0.2%", "20bps" or "-0.5%"."""
    plain = value.strip().replace(" ", "") if isinstance(value, str) else ""
    found = _number(plain, "bps")
    if found is None and (percent := _number(plain, "%")) is not None:
        found = percent * 100
    if found is None or found.denominator != 1:
        raise ValueError(f'{value!r} is not a share; write how much worse than at the start it may be, such as "0.2%", or better: "-0.5%"')
    return int(found)


Hourly = Annotated[Fraction | str, BeforeValidator(_hourly)]
SignedBps = Annotated[int, BeforeValidator(_signed_bps)]


class PaceTable(Table):
    """The keys of a style; `budget`, `size_jitter` and `time_jitter` may be "off". See docs/rounds.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    style: Literal["market", "rounds", "twap", "limit"] = "market"
    max_rounds: int | None = Field(default=None, ge=2, le=24)
    interval: Duration | None = None
    recovery: Duration | None = None
    waiting_cost: Hourly | None = None
    size_jitter: ShareOrOff = None
    time_jitter: ShareOrOff = None
    budget: ShareOrOff = None
    over: Duration | None = None
    limit: SignedBps | None = None
    patience: Duration | None = None


def require_pace(config: Config) -> None:
    """Raises ValueError naming field and remedy when the style of execution cannot be carried out."""
    table = config.execution
    missing = [key for key in NEEDED[table.style] if key not in table.model_fields_set]
    if missing:
        raise ValueError(f"execution.{missing[0]}: missing; style = {table.style!r} needs it, for example {EXAMPLES[missing[0]]}")
    for key in ("interval", "recovery", "over", "patience"):
        seconds = getattr(table, key)
        if seconds is not None and not SHORTEST_S <= seconds <= LONGEST_S:
            raise ValueError(f"execution.{key}: {seconds} s is not between {SHORTEST_S}s and 28d; write for example {EXAMPLES[key]}")
    for key, most in (("size_jitter", MOST_SIZE_BPS), ("time_jitter", MOST_TIME_BPS)):
        if (getattr(table, key) or 0) > most:
            raise ValueError(f"execution.{key}: more than {most // 100}% would make rounds of nothing; write for example {EXAMPLES[key]}")
    if table.over is not None and table.max_rounds is not None and table.over < table.max_rounds * SHORTEST_S:
        raise ValueError(f"execution.over: too short for {table.max_rounds} rounds; write at least {table.max_rounds * SHORTEST_S}s")
    if table.limit is not None and abs(table.limit) > MOST_OFF_BPS:
        raise ValueError(f"execution.limit: beyond {MOST_OFF_BPS // 100}% of the price at the start; write for example {EXAMPLES['limit']}")
    if table.waiting_cost == ZONE and not isinstance(config.policy.trigger, ZoneTable):
        raise ValueError('execution.waiting_cost: "zone" needs a trigger of that kind; write what an hour costs, such as "0.5bps"')


def build_pace(config: Config) -> Pace:
    """How a correction is spread over time."""
    table = config.execution
    cost = table.waiting_cost
    return Pace(
        style=Style(table.style),
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
    """What binds in time, in words."""
    table = config.execution
    shown = {key: getattr(table, key) for key in NEEDED[table.style]}
    words = [f"{key} {_shown(key, value)}" for key, value in shown.items()]
    return ", ".join([table.style, *words])


def _shown(key: str, value: object) -> str:
    if value is None:
        return "off"
    if key in ("interval", "recovery", "over", "patience"):
        return f"{value} s"
    if isinstance(value, int) and key != "max_rounds":
        return f"{value / 100:g}%"
    if isinstance(value, Fraction):
        return f"{float(value):g} bps an hour"
    return str(value)
