"""When a five-field cron expression fires next in its time zone, daylight saving included."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from agent.errors import ConfigError
from agent.model import Cron

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAY_PART = re.compile(r"(?:\*|(?P<low>[a-z]{3}|[0-7])(?:-(?P<high>[a-z]{3}|[0-7]))?)(?:/(?P<step>[1-7]))?")
_EXAMPLE = 'write five fields such as "0 9 * * 1-5": minute, hour, day of month, month, day of week'


@dataclass(frozen=True, slots=True)
class _Calculator:
    """Fires when any of `parts` does; `fixed_hour` fires once where the clock is set back."""

    parts: tuple[Any, ...]
    zone: ZoneInfo
    fixed_hour: bool


def next_time(schedule: Cron, after_s: int) -> int | None:
    """The first time strictly after `after_s`, unix seconds; None when there is none before the year 10,000.

    As crontab(5) has it: 0 and 7 are Sunday, and with both days restricted either one suffices. Where the clock is set
    forward a skipped time fires after the gap; where it is set back a fixed hour fires once. Raises ConfigError.
    """
    calculator = _calculator(schedule.expression, schedule.timezone)
    times = [_next(part, calculator, after_s) for part in calculator.parts]
    return min((at_s for at_s in times if at_s is not None), default=None)


def _next(part: Any, calculator: _Calculator, after_s: int) -> int | None:
    start = datetime.fromtimestamp(after_s + 1, calculator.zone)
    while True:
        fires: datetime | None = part.get_next_fire_time(None, start)
        if fires is None:
            return None
        at_s = int(fires.timestamp())
        if not (calculator.fixed_hour and fires.fold):
            return at_s
        start = datetime.fromtimestamp(at_s + 1, calculator.zone)


@lru_cache(maxsize=64)
def _calculator(expression: str, timezone: str) -> _Calculator:
    fields = expression.split()
    if len(fields) != 5:
        raise ConfigError(f"policy.trigger.cron: {expression!r} has {len(fields)} fields", _EXAMPLE)
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise ConfigError(f"policy.trigger.timezone: {timezone!r} is unknown", "write a name such as Europe/Berlin or UTC") from None
    minute, hour, day, month, weekday = fields
    days = _weekdays(weekday.lower(), expression)
    either = not day.startswith("*") and not weekday.startswith("*")
    pairs = [(day, "*"), ("*", days)] if either else [(day, days)]
    try:
        parts = tuple(CronTrigger(minute=minute, hour=hour, day=d, month=month, day_of_week=w, timezone=zone) for d, w in pairs)
    except ValueError as error:
        raise ConfigError(f"policy.trigger.cron: {expression!r}: {error}", _EXAMPLE) from None
    return _Calculator(parts, zone, fixed_hour=not hour.startswith("*"))


def _weekdays(field: str, expression: str) -> str:
    """Days of the week by name: APScheduler 3 counts from Monday, cron from Sunday."""
    chosen: set[int] = set()
    for part in field.split(","):
        match = _DAY_PART.fullmatch(part)
        low = 0 if match is None or match["low"] is None else _day(match["low"])
        high = 6 if match is None or match["low"] is None else low if match["high"] is None else _day(match["high"])
        high = 7 if high == 0 < low else high
        if match is None or low < 0 or high < low or (match["step"] and match["low"] and not match["high"]):
            raise ConfigError(f"policy.trigger.cron: {expression!r}: {part!r} is no day of the week", _EXAMPLE)
        chosen |= {day % 7 for day in range(low, high + 1, int(match["step"] or 1))}
    return "*" if len(chosen) == 7 else ",".join(_DAYS[day] for day in sorted(chosen))


def _day(text: str) -> int:
    """0 to 7, or -1 for a name that is none."""
    if text.isdigit():
        return int(text)
    return _DAYS.index(text) if text in _DAYS else -1
