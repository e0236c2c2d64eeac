"""Triggers by schedules: alone, with a band, or with a separate execution."""

from __future__ import annotations

from typing import Any

from agent.errors import ConfigError
from agent.model import (
    AnyOf,
    Cron,
    Every,
    HybridTrigger,
    Portfolio,
    Schedule,
    StagedTrigger,
    Threshold,
)
from agent.policy.triggers import bands
from agent.policy.triggers.bands import (
    KeyUnit,
    TriggerInput,
    TriggerNotation,
    TriggerResult,
    TriggerRules,
)
from agent.policy.triggers.schedules import (
    EXECUTION,
    TRIGGER_TABLE,
    ScheduleStatus,
    earliest,
    next_cron_time,
    schedule_status,
)
from agent.units import exact_duration, format_duration

MIN_INTERVAL_S = 1_800
MAX_INTERVAL_S = 2_419_200
_VALIDATION_START_S = 1_700_000_000
"""Start time for validating cron expressions; any day would do."""
_SCHEDULE_KEYS = {"every": KeyUnit.DURATION, "cron": KeyUnit.TEXT, "timezone": KeyUnit.TEXT}


def build_schedule(
    every_s: int | None,
    cron: str | None,
    timezone: str | None,
    key_prefix: str = "",
    table: str = TRIGGER_TABLE,
) -> Schedule:
    """Build the schedule of the keys with that prefix in the config's `table`. Raises ConfigError
    unless exactly one is given, and for a time zone of an interval.
    """
    if (every_s is None) == (cron is None):
        raise ConfigError(
            f"{table}: give exactly one of {key_prefix}every and {key_prefix}cron",
            f"for example {key_prefix}every = '1d'",
        )
    if every_s is not None:
        if timezone is not None:
            raise ConfigError(
                f"{table}.timezone: has no effect without a cron time",
                f"remove it, or write {key_prefix}cron in place of {key_prefix}every",
            )
        return Every(every_s)
    if timezone is None:
        raise ConfigError(
            f"{table}.timezone: missing; a cron trigger needs a time zone",
            "for example timezone = 'UTC'",
        )
    return Cron(cron or "", timezone)


def _build_hybrid(
    absolute_bps: int | None, relative_bps: int | None, *schedule_values: Any
) -> HybridTrigger:
    return HybridTrigger(
        bands.build_band(absolute_bps, relative_bps), build_schedule(*schedule_values)
    )


def _build_either(
    absolute_bps: int | None, relative_bps: int | None, *schedule_values: Any
) -> AnyOf:
    return AnyOf((bands.build_band(absolute_bps, relative_bps), build_schedule(*schedule_values)))


def _build_staged(*key_values: Any) -> StagedTrigger:
    review_every_s, review_cron, execute_every_s, execute_cron, timezone, *widths = key_values
    band = None if widths == [None, None] else Threshold(*widths)
    is_for_execution_only = review_cron is None and execute_cron is not None
    review_timezone = None if is_for_execution_only else timezone
    execution_timezone = None if execute_cron is None else timezone
    review_schedule = build_schedule(review_every_s, review_cron, review_timezone, "review_")
    return StagedTrigger(
        review_schedule,
        build_schedule(execute_every_s, execute_cron, execution_timezone, "execute_"),
        band,
    )


def validate_schedule(schedule: Schedule, key_prefix: str = "", table: str = TRIGGER_TABLE) -> None:
    """Raise ConfigError unless an interval is of 30 minutes to 28 days, and a cron time exists."""
    match schedule:
        case Every(every_s):
            if not MIN_INTERVAL_S <= every_s <= MAX_INTERVAL_S:
                raise ConfigError(
                    f"{table}.{key_prefix}every: {exact_duration(every_s)}",
                    "write a time from 30m to 28d, or a cron time such as @monthly",
                )
        case Cron(expression, timezone):
            if next_cron_time(schedule, _VALIDATION_START_S, table) is None:
                raise ConfigError(
                    f"{table}.{key_prefix}cron: {expression!r} in {timezone} never comes",
                    "write a date that exists",
                )


def _validate_hybrid(trigger: HybridTrigger) -> None:
    bands.validate_band(trigger.threshold, "policy.trigger")
    validate_schedule(trigger.schedule)


def _validate_staged(trigger: StagedTrigger) -> None:
    review_schedule = trigger.review
    execution_schedule = trigger.execution
    if trigger.threshold is not None:
        bands.validate_band(trigger.threshold, "policy.trigger")
    validate_schedule(review_schedule, "review_")
    validate_schedule(execution_schedule, "execute_")
    if (
        isinstance(review_schedule, Every)
        and isinstance(execution_schedule, Every)
        and execution_schedule.every_s < review_schedule.every_s
    ):
        raise ConfigError(
            f"policy.trigger.execute_every: {execution_schedule.every_s} s is less "
            f"than review_every, {review_schedule.every_s} s",
            "an execution reviews too: review at least as often, or use hybrid",
        )


def _evaluate_schedule(trigger: Schedule, inputs: TriggerInput) -> TriggerResult:
    review_status = schedule_status(trigger, inputs.now_s, inputs.history, inputs.jitter_bps)
    reason = f"{review_status.description}; {bands.furthest_text(inputs.drifts)}"
    return TriggerResult(
        review_status.is_due,
        reason,
        review_status.next_s,
        review_status.is_due,
        _due_review_names(review_status),
        review_status.is_due,
    )


def _evaluate_hybrid(trigger: HybridTrigger, inputs: TriggerInput) -> TriggerResult:
    review_status = schedule_status(
        trigger.schedule, inputs.now_s, inputs.history, inputs.jitter_bps
    )
    outside_reason = bands.outside_text(inputs.drifts)
    signals = bands.band_signals(inputs.drifts) if review_status.is_due else ()
    reason = f"{review_status.description}; {outside_reason or bands.inside_text(inputs.drifts, inputs.numeraire)}"
    return TriggerResult(
        review_status.is_due and bool(outside_reason),
        reason,
        review_status.next_s,
        review_status.is_due,
        _due_review_names(review_status),
        signals=signals,
    )


def _evaluate_staged(trigger: StagedTrigger, inputs: TriggerInput) -> TriggerResult:
    """At an execution, fire like a schedule, or like a hybrid trigger if there is a band. A review
    between executions only reports.
    """
    review_status = schedule_status(trigger.review, inputs.now_s, inputs.history, inputs.jitter_bps)
    execution_status = schedule_status(
        trigger.execution, inputs.now_s, inputs.history, inputs.jitter_bps, EXECUTION
    )
    next_s = earliest(review_status.next_s, execution_status.next_s)
    has_band = trigger.threshold is not None
    if has_band:
        outside_reason = bands.outside_text(inputs.drifts)
        weights_text = outside_reason or bands.inside_text(inputs.drifts, inputs.numeraire)
    else:
        outside_reason = ""
        weights_text = bands.furthest_text(inputs.drifts)
    would_trade = not has_band or bool(outside_reason)
    if execution_status.is_due:
        signals = bands.band_signals(inputs.drifts) if has_band else ()
        due_schedule_names = (execution_status.name, review_status.name)
        return TriggerResult(
            would_trade,
            f"{execution_status.description}; {weights_text}",
            next_s,
            True,
            due_schedule_names,
            not has_band,
            signals,
        )
    reason = f"{review_status.description}; {execution_status.description}; {weights_text}"
    executes_at_s = execution_status.next_s if review_status.is_due and would_trade else None
    return TriggerResult(
        False,
        reason,
        next_s,
        review_status.is_due,
        _due_review_names(review_status),
        executes_at_s=executes_at_s,
    )


def _due_review_names(review_status: ScheduleStatus) -> tuple[str, ...]:
    return (review_status.name,) if review_status.is_due else ()


def _describe_staged(trigger: StagedTrigger, _: Portfolio) -> str:
    if trigger.threshold is None:
        band_text = ""
    else:
        band_text = f", beyond {bands.format_width(trigger.threshold)}"
    return f"review: {_schedule_text(trigger.review)}, executed {_schedule_text(trigger.execution)}{band_text}"


def _schedule_text(schedule: Schedule) -> str:
    match schedule:
        case Every(every_s):
            return f"every {format_duration(every_s)}"
        case Cron(expression, timezone):
            return f"{expression} in {timezone}"


_SCHEDULE_RULES = TriggerRules(
    validate_schedule,
    _evaluate_schedule,
    lambda trigger, _: f"time: {_schedule_text(trigger)}",
    is_band_and_schedule_only=True,
)
RULES = {
    Every: _SCHEDULE_RULES,
    Cron: _SCHEDULE_RULES,
    HybridTrigger: TriggerRules(
        _validate_hybrid,
        _evaluate_hybrid,
        lambda trigger, _: (
            f"hybrid: {bands.format_width(trigger.threshold)}, {_schedule_text(trigger.schedule)}"
        ),
        is_band_and_schedule_only=True,
    ),
    StagedTrigger: TriggerRules(_validate_staged, _evaluate_staged, _describe_staged),
}
NOTATIONS = (
    TriggerNotation(
        "time",
        _SCHEDULE_KEYS,
        build_schedule,
        'every = "1d", or cron = "0 9 * * mon" with timezone = "Europe/Berlin"',
    ),
    TriggerNotation(
        "hybrid",
        bands.BAND_KEYS | _SCHEDULE_KEYS,
        _build_hybrid,
        "a review on schedule that acts beyond a band",
    ),
    TriggerNotation("either", bands.BAND_KEYS | _SCHEDULE_KEYS, _build_either),
    TriggerNotation(
        "review",
        {
            f"{purpose}_{key}": unit
            for purpose in ("review", "execute")
            for key, unit in _SCHEDULE_KEYS.items()
            if key != "timezone"
        }
        | {"timezone": KeyUnit.TEXT}
        | bands.BAND_KEYS,
        _build_staged,
    ),
)
