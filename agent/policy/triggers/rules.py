"""Triggers by class and kind: evaluation, recorded prices needed, validation with their policy,
text, and confirmation by preceding blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.model import (
    AnyOf,
    AssetDrift,
    Cron,
    History,
    Policy,
    SingleTrigger,
    Threshold,
    Trigger,
    action_interval_s,
    schedules_of,
    thresholds_of,
)
from agent.policy.drift import with_trigger_bands
from agent.policy.triggers import answered, bands, market_events, no_trade_zone, schedule_triggers
from agent.policy.triggers.bands import (
    TriggerInput,
    TriggerNotation,
    TriggerResult,
    TriggerRules,
)
from agent.policy.triggers.schedules import earliest

RULES: Mapping[type[Any], TriggerRules] = {
    **bands.RULES,
    **schedule_triggers.RULES,
    **market_events.RULES,
    **no_trade_zone.RULES,
    **answered.RULES,
}
"""Rules by class. AnyOf uses the rules of its triggers."""
NOTATIONS: Mapping[str, TriggerNotation] = {
    notation.kind: notation
    for notation in (
        *bands.NOTATIONS,
        *schedule_triggers.NOTATIONS,
        *market_events.NOTATIONS,
        *no_trade_zone.NOTATIONS,
        *answered.NOTATIONS,
    )
}
"""Notations by kind, in the order in which errors of the config list them."""
MAX_TRIGGERS = 8


def evaluate_trigger(
    trigger: SingleTrigger | AnyOf,
    drifts: Sequence[AssetDrift],
    now_s: int,
    history: History,
    jitter_bps: int = 0,
    numeraire: str = "",
) -> TriggerResult:
    """Return the result of `trigger` at block time `now_s`; TriggerInput describes the input."""
    if isinstance(trigger, AnyOf):
        trigger_and_drifts = [
            (member, with_trigger_bands(drifts, member)) for member in trigger.triggers
        ]
        return _combined_result(
            [
                evaluate_trigger(member, member_drifts, now_s, history, jitter_bps, numeraire)
                for member, member_drifts in trigger_and_drifts
            ]
        )
    return RULES[type(trigger)].evaluate(
        trigger, TriggerInput(drifts, now_s, history, jitter_bps, numeraire)
    )


def _combined_result(trigger_results: Sequence[TriggerResult]) -> TriggerResult:
    """Combine several results: the reasons are those of fired triggers, or of all if none fired."""
    fired_results = [trigger_result for trigger_result in trigger_results if trigger_result.fired]
    next_times_s = [trigger_result.next_s for trigger_result in trigger_results]
    return TriggerResult(
        fired=bool(fired_results),
        reason="; ".join(
            dict.fromkeys(
                trigger_result.reason for trigger_result in fired_results or trigger_results
            )
        ),
        next_s=None if None in next_times_s else earliest(*next_times_s),
        is_review_due=any(trigger_result.is_review_due for trigger_result in trigger_results),
        due_schedules=tuple(
            dict.fromkeys(
                schedule_name
                for trigger_result in trigger_results
                if trigger_result.is_review_due
                for schedule_name in trigger_result.due_schedules
            )
        ),
        needs_no_confirmation=any(
            trigger_result.needs_no_confirmation for trigger_result in fired_results
        ),
        signals=tuple(
            sorted(
                {signal for trigger_result in fired_results for signal in trigger_result.signals}
            )
        ),
        executes_at_s=None
        if fired_results
        else earliest(*(trigger_result.executes_at_s for trigger_result in trigger_results)),
    )


def trigger_history_s(trigger: Trigger) -> int:
    """Return the seconds of recorded prices that a trigger needs."""
    if isinstance(trigger, AnyOf):
        return max(map(trigger_history_s, trigger.triggers))
    return RULES[type(trigger)].price_history_s(trigger)


def required_history_s(policy: Policy, other_triggers: Iterable[Trigger] = ()) -> int:
    """Return the seconds of hourly prices that a step of this config carries in
    `History.prices`.
    """
    return max(map(trigger_history_s, (policy.trigger, *other_triggers)))


def is_band_and_schedule_only(trigger: Trigger) -> bool:
    """True if only a band and a schedule decide."""
    return not isinstance(trigger, AnyOf) and RULES[type(trigger)].is_band_and_schedule_only


def band_and_interval(trigger: Trigger) -> tuple[Threshold | None, int | None] | None:
    """Return the band and the interval in seconds if they alone decide; None with any other rule or
    a cron schedule.
    """
    if not is_band_and_schedule_only(trigger) or any(
        isinstance(schedule, Cron) for schedule in schedules_of(trigger)
    ):
        return None
    return next(iter(thresholds_of(trigger)), None), action_interval_s(trigger)
