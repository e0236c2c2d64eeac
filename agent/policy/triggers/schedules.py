"""Schedules: due times of reviews and executions by interval or cron, with random delay."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from agent.errors import ConfigError
from agent.model import AnyOf, Cron, Every, History, HybridTrigger, Schedule, StagedTrigger, Trigger
from agent.policy import text as words
from agent.units import BPS

# --- Next time of a five-field cron expression in its time zone, daylight saving included.


_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAY_PART = re.compile(r"(?:\*|(?P<low>[a-z]{3}|[0-7])(?:-(?P<high>[a-z]{3}|[0-7]))?)(?:/(?P<step>[1-7]))?")
_EXAMPLE = 'write five fields such as "0 9 * * 1-5": minute, hour, day of month, month, day of week'


@dataclass(frozen=True, slots=True)
class _Calculator:
    """Fires when any of `parts` does; `fixed_hour` fires once where the clock is set back."""

    parts: tuple[Any, ...]
    zone: ZoneInfo
    fixed_hour: bool


def next_cron_time(schedule: Cron, after_s: int) -> int | None:
    """The first time strictly after `after_s`, unix seconds; None if there is none before the year 10,000.

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


MILLION = 1_000_000
LATEST_S = 3_600
"""The most that a schedule is late at random."""
REVIEW, EXECUTION = "review", "execution"


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """Status of a schedule: `due`, its description, and its next time, counted from now if it is due, else from the last run.

    `name` is its key in the store.
    """

    due: bool
    words: str
    next_s: int | None
    name: str


def schedule_name(schedule: Schedule, what: str = REVIEW) -> str:
    """Return a schedule's key in `History.reviews`; a changed schedule has another key."""
    match schedule:
        case Every(every_s):
            return f"{what} every {every_s}"
        case Cron(expression, timezone):
            return f"{what} {' '.join(expression.split())} {timezone}"


def last_evaluation_s(history: History) -> int | None:
    """The later of the last rebalance and the last review, unix seconds; None if there was neither."""
    return _latest(history.last_rebalance_s, history.last_review_s)


def last_run_s(schedule: Schedule, history: History, what: str = REVIEW) -> int | None:
    """Since when a schedule counts. A rebalance is as good as a review; an execution follows an execution alone.

    One that the store does not know yet, as after an edit, counts from the last rebalance: reviews by others do not put it off.
    A store from before schedules had names knows one time for all.
    """
    own_s = dict(history.reviews).get(schedule_name(schedule, what))
    if own_s is None:
        return last_evaluation_s(history) if what == REVIEW and not history.reviews else history.last_rebalance_s
    return own_s if what == EXECUTION else _latest(own_s, history.last_rebalance_s)


def schedule_status(schedule: Schedule, now_s: int, history: History, jitter_bps: int, what: str = REVIEW) -> ScheduleStatus:
    """Return a schedule's status at block time `now_s`."""
    called, since_s = schedule_name(schedule, what), last_run_s(schedule, history, what)
    if since_s is None:
        return ScheduleStatus(True, f"first {what}", next_time(schedule, now_s), called)
    planned_s = next_time(schedule, since_s)
    if planned_s is None:
        return ScheduleStatus(False, f"the schedule has no time after {words.format_time(since_s)}", None, called)
    planned_s += jitter_delay_s(planned_s - since_s, history.delay_ppm, jitter_bps)
    if now_s >= planned_s:
        message = f"{what} due since {words.format_time(planned_s)}, last one {words.format_time(since_s)}"
        return ScheduleStatus(True, message, next_time(schedule, now_s), called)
    return ScheduleStatus(
        False, f"next {what} {words.format_time(planned_s)}, in {words.format_duration(planned_s - now_s)}", planned_s, called
    )


def jitter_delay_s(interval_s: int, delay_ppm: int, jitter_bps: int) -> int:
    """Return the random delay of a review in seconds: a part of `jitter_bps` of its interval, and at most an hour (T15).

    Otherwise anyone who knows the schedule would know the minute of the trade. It is never early: a permitted trade stays
    permitted.
    """
    return min(interval_s * jitter_bps // BPS, LATEST_S) * delay_ppm // MILLION


def next_time(schedule: Schedule, after_s: int) -> int | None:
    """The first time of a schedule after `after_s`, unix seconds; None if there is none."""
    match schedule:
        case Every(every_s):
            return after_s + every_s
        case Cron():
            return next_cron_time(schedule, after_s)


def schedules_of(trigger: Trigger) -> tuple[Schedule, ...]:
    """The schedules of a trigger."""
    match trigger:
        case Every() | Cron():
            return (trigger,)
        case HybridTrigger(_, schedule):
            return (schedule,)
        case StagedTrigger(review, execution):
            return (review, execution)
        case AnyOf(triggers):
            return tuple(schedule for one in triggers for schedule in schedules_of(one))
        case _:
            return ()


def earliest(*times_s: int | None) -> int | None:
    """The first of several times; None if none is known."""
    return min((at_s for at_s in times_s if at_s is not None), default=None)


def _latest(*times_s: int | None) -> int | None:
    return max((at_s for at_s in times_s if at_s is not None), default=None)
