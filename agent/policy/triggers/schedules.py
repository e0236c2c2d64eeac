"""Schedules: due times by interval or cron, with a random delay."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from cronsim.cronsim import Field

from agent.errors import ConfigError
from agent.model import (
    Cron,
    Every,
    History,
    Schedule,
)
from agent.units import BPS, DAY_S, format_time, pluralize, rough_duration

_CRON_EXAMPLE = (
    'write five fields such as "0 9 * * 1-5": minute, hour, day of month, month, day of week'
)
_CRON_FIELDS = (
    ("minute", 59),
    ("hour", 23),
    ("day of the month", 30),
    ("month", 11),
    ("day of the week", 7),
)
"""Each field with its largest step, because CronSim would run `*/90` minutes every hour."""
CRON_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
"""Times by name, as in crontab(5); @reboot is none."""
TRIGGER_TABLE = "policy.trigger"
"""Table of the config with the portfolio's schedules."""


def next_cron_time(schedule: Cron, after_s: int, table: str = TRIGGER_TABLE) -> int | None:
    """Return the first time strictly after `after_s`, Unix seconds; None if there is none within 50
    years.

    As in crontab(5) 0 and 7 are Sunday, and with both days restricted either is sufficient. If the
    clock is set forward, a skipped time fires after the gap; if it is set back, a fixed hour fires
    once. Raises ConfigError naming the config's `table`.
    """
    expression, zone, repeats_hours = _parse_cron(schedule.expression, schedule.timezone, table)
    # the earliest of the offsets around: a clock set back shows local times before this one again
    local_start = min(
        _local_time(zone, at_s) + timedelta(seconds=after_s - at_s)
        for at_s in (after_s - DAY_S, after_s, after_s + DAY_S)
    )
    next_s: int | None = None
    try:
        for local_time in CronSim(expression, local_start):
            first_s, repeat_s = (
                int(local_time.replace(tzinfo=zone, fold=fold).timestamp()) for fold in (0, 1)
            )
            is_skipped = repeat_s < first_s
            times_s = (first_s, repeat_s) if repeats_hours and not is_skipped else (first_s,)
            next_s = earliest(next_s, *(at_s for at_s in times_s if at_s > after_s))
            if next_s is not None and not is_skipped and next_s <= first_s:
                break
    except CronSimError:  # well formed, but a date such as 30 February
        return None
    return next_s


def _local_time(zone: ZoneInfo, at_s: int) -> datetime:
    return datetime.fromtimestamp(at_s, zone).replace(tzinfo=None)


@lru_cache(maxsize=64)
def _parse_cron(expression: str, timezone: str, table: str) -> tuple[str, ZoneInfo, bool]:
    """Return the expression in CronSim's form, its time zone, and whether its hour field begins
    with `*`, so that an hour that the clock repeats counts twice.
    """
    fields = CRON_NICKNAMES.get(expression.strip().lower(), expression).upper().split()
    if len(fields) != 5:
        likely = get_close_matches(expression.strip().lower(), CRON_NICKNAMES, n=1)
        likely_text = f"did you mean {likely[0]}? else " if likely else ""
        raise ConfigError(
            f"{table}.cron: {expression!r} has {pluralize(len(fields), 'field')}",
            f"{likely_text}{_CRON_EXAMPLE}",
        )
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise ConfigError(
            f"{table}.timezone: {timezone!r} is unknown",
            "write a name such as Europe/Berlin or UTC",
        ) from None
    fields[2] = fields[2].replace("LAST", "L")
    fields[4] = re.sub(r"(?<!\b0)(?<!\bSUN)-(?:0|SUN)\b", "-7", fields[4])
    for field_parser, field, (field_name, max_step) in zip(
        list(Field)[1:], fields, _CRON_FIELDS, strict=True
    ):
        try:
            field_parser.parse(field)
            is_valid = all(int(step_text) <= max_step for step_text in re.findall(r"/(\d+)", field))
        except (CronSimError, ValueError):
            is_valid = False
        if not is_valid:
            raise ConfigError(
                f"{table}.cron: {expression!r}: {field.lower()!r} is not a {field_name}",
                _CRON_EXAMPLE,
            )
    return " ".join(fields), zone, fields[1].startswith("*")


MILLION = 1_000_000
MAX_DELAY_S = 3_600
"""Longest random delay of a schedule."""
REVIEW = "review"
EXECUTION = "execution"
FUTURES_REVIEW = "futures review"


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """Status of a schedule: `is_due`, its description, and its next time, from now if it is due, else
    from the last run. `name` is its key in the store.
    """

    is_due: bool
    description: str
    next_s: int | None
    name: str


def schedule_name(schedule: Schedule, purpose: str = REVIEW) -> str:
    """Return a schedule's key in `History.reviews`; a changed schedule has another key."""
    match schedule:
        case Every(every_s):
            return f"{purpose} every {every_s}"
        case Cron(expression, timezone):
            return f"{purpose} {' '.join(expression.split())} {timezone}"


def schedule_interval_start_s(
    schedule: Schedule, history: History, purpose: str = REVIEW
) -> int | None:
    """Return the start of a schedule's interval.

    A rebalance counts as a review; the interval of executions starts only at an execution, that of
    futures at the last review of futures, also by another schedule. A
    schedule unknown to the store, such as after an edit, counts from the last rebalance, so that
    reviews of other schedules do not delay it. Stores from before named schedules have one time for
    all.
    """
    if purpose == FUTURES_REVIEW:
        return _latest(
            *(
                at_s
                for name, at_s in history.reviews.by_schedule
                if name.startswith(f"{FUTURES_REVIEW} ")
            )
        )
    last_recorded_s = dict(history.reviews.by_schedule).get(schedule_name(schedule, purpose))
    if last_recorded_s is None:
        if purpose == REVIEW and not history.reviews.by_schedule:
            return history.reviews.last_evaluation_s
        return history.reviews.last_rebalance_s
    if purpose == EXECUTION:
        return last_recorded_s
    return _latest(last_recorded_s, history.reviews.last_rebalance_s)


def schedule_status(
    schedule: Schedule, now_s: int, history: History, jitter_bps: int, purpose: str = REVIEW
) -> ScheduleStatus:
    """Return a schedule's status at block time `now_s`."""
    status_name = schedule_name(schedule, purpose)
    interval_start_s = schedule_interval_start_s(schedule, history, purpose)
    if interval_start_s is None:
        return ScheduleStatus(True, f"first {purpose}", next_time(schedule, now_s), status_name)
    planned_s = next_time(schedule, interval_start_s)
    if planned_s is None:
        return ScheduleStatus(
            False,
            f"the schedule has no time after {format_time(interval_start_s)}",
            None,
            status_name,
        )
    planned_s += jitter_delay_s(planned_s - interval_start_s, history.reviews.delay_ppm, jitter_bps)
    if now_s >= planned_s:
        due_text = f"{purpose} due since {format_time(planned_s)}, last one {format_time(interval_start_s)}"
        return ScheduleStatus(True, due_text, next_time(schedule, now_s), status_name)
    return ScheduleStatus(
        False,
        f"next {purpose} {format_time(planned_s)}, in {rough_duration(planned_s - now_s)}",
        planned_s,
        status_name,
    )


def jitter_delay_s(interval_s: int, delay_ppm: int, jitter_bps: int) -> int:
    """Return the random delay of a review in seconds: a part of `jitter_bps` of its interval, and
    at most an hour (T15).

    It hides the minute of the trade from observers of the schedule. The delay only postpones a
    review, so a trade that was allowed at the planned time (cooldown) still is.
    """
    return min(interval_s * jitter_bps // BPS, MAX_DELAY_S) * delay_ppm // MILLION


def next_time(schedule: Schedule, after_s: int) -> int | None:
    """Return the first time of a schedule after `after_s`, Unix seconds; None if there is none."""
    match schedule:
        case Every(every_s):
            return after_s + every_s
        case Cron():
            return next_cron_time(schedule, after_s)


def earliest(*times_s: int | None) -> int | None:
    """Return the first of several times; None if none is known."""
    return min((at_s for at_s in times_s if at_s is not None), default=None)


def _latest(*times_s: int | None) -> int | None:
    return max((at_s for at_s in times_s if at_s is not None), default=None)
