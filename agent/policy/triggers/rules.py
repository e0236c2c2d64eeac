"""Triggers by class and kind: evaluation, recorded prices needed, validation with their policy, and
text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.errors import ConfigError
from agent.model import (
    AnyOf,
    AssetDrift,
    Cron,
    Destination,
    History,
    NoTradeZone,
    Policy,
    Portfolio,
    SingleTrigger,
    Threshold,
    TradeSide,
    Trigger,
    review_interval_s,
    schedules_of,
    thresholds_of,
)
from agent.model.strategies import CapitalSplit
from agent.policy.drift import has_band, with_trigger_bands
from agent.policy.triggers import bands, market_events, no_trade_zone, schedules
from agent.policy.triggers.bands import validate_band
from agent.policy.triggers.schedules import earliest
from agent.policy.triggers.trigger import TriggerInput, TriggerNotation, TriggerResult, TriggerRules

RULES: Mapping[type[Any], TriggerRules] = {
    **bands.RULES,
    **schedules.RULES,
    **market_events.RULES,
    **no_trade_zone.RULES,
}
"""Rules by class. AnyOf has none: it uses those of its triggers."""
NOTATIONS: Mapping[str, TriggerNotation] = {
    one.kind: one
    for one in (
        *bands.NOTATIONS,
        *schedules.NOTATIONS,
        *market_events.NOTATIONS,
        *no_trade_zone.NOTATIONS,
    )
}
"""Notations by kind, in the order of the config's errors."""
MOST_TRIGGERS = 8


def evaluate_trigger(
    trigger: SingleTrigger | AnyOf,
    drifts: Sequence[AssetDrift],
    now_s: int,
    history: History,
    jitter_bps: int = 0,
) -> TriggerResult:
    """Evaluate `trigger` at block time `now_s`; agent/policy/triggers/trigger.py describes the
    input.
    """
    if isinstance(trigger, AnyOf):
        each = [(one, with_trigger_bands(drifts, one)) for one in trigger.triggers]
        return _any(
            [evaluate_trigger(one, banded, now_s, history, jitter_bps) for one, banded in each]
        )
    return RULES[type(trigger)].evaluate(trigger, TriggerInput(drifts, now_s, history, jitter_bps))


def _any(answers: Sequence[TriggerResult]) -> TriggerResult:
    """Combine several results: the reasons of those that fired, or of all if none did."""
    firing = [answer for answer in answers if answer.fired]
    review_times = [answer.next_s for answer in answers]
    return TriggerResult(
        bool(firing),
        "; ".join(dict.fromkeys(answer.reason for answer in firing or answers)),
        None if None in review_times else earliest(*review_times),
        any(answer.due for answer in answers),
        tuple(dict.fromkeys(name for answer in answers if answer.due for name in answer.reviews)),
        any(answer.by_time for answer in firing),
        tuple(sorted({signal for answer in firing for signal in answer.signals})),
        None if firing else earliest(*(answer.waits_s for answer in answers)),
    )


def trigger_history_s(trigger: Trigger) -> int:
    """Return the seconds of recorded prices that a trigger needs."""
    if isinstance(trigger, AnyOf):
        return max(map(trigger_history_s, trigger.triggers))
    return RULES[type(trigger)].history_s(trigger)


def required_history_s(policy: Policy, split: CapitalSplit | None = None) -> int:
    """Return the seconds of hourly prices that a step of this config carries in
    `History.prices`.
    """
    triggers = [
        policy.trigger,
        *(one.trigger for one in (() if split is None else split.strategies)),
    ]
    return max(map(trigger_history_s, triggers))


def is_plain(trigger: Trigger) -> bool:
    """True if nothing but a band and a schedule decides."""
    return not isinstance(trigger, AnyOf) and RULES[type(trigger)].plain


def band_and_interval(trigger: Trigger) -> tuple[Threshold | None, int | None] | None:
    """Return the band and the interval in seconds that alone decide; None if anything else does, or
    a calendar.
    """
    if not is_plain(trigger) or any(isinstance(one, Cron) for one in schedules_of(trigger)):
        return None
    return next(iter(thresholds_of(trigger)), None), review_interval_s(trigger)


# --- Validation of each trigger, and of combinations in a policy.


def validate_trigger(trigger: Trigger) -> None:
    """Raise ConfigError for a trigger that could never fire, or has invalid numbers."""
    if not isinstance(trigger, AnyOf):
        RULES[type(trigger)].validate(trigger)
        return
    if not 2 <= len(trigger.triggers) <= MOST_TRIGGERS:
        raise ConfigError(
            f"policy.trigger: a list of {len(trigger.triggers)}",
            f"write 2 to {MOST_TRIGGERS} triggers, or one by itself",
        )
    for one in trigger.triggers:
        validate_trigger(one)


def validate_policy(policy: Policy, bands: Mapping[str, Threshold] | None = None) -> None:
    """Raise ConfigError if the trigger is invalid or conflicts with destination, sides or the
    assets' own `bands`, by symbol.
    """
    validate_trigger(policy.trigger)
    if policy.cooldown_s < 0:
        raise ConfigError(
            f"policy.cooldown: {policy.cooldown_s} s is negative", 'write a time such as "1h"'
        )
    banded = has_band(policy.trigger)
    if (
        policy.destination is Destination.BAND
        and not banded
        and not isinstance(policy.trigger, NoTradeZone)
    ):
        raise ConfigError(
            "policy.destination: band, but the trigger has none",
            'use a threshold or hybrid trigger, or "target"',
        )
    if policy.only in (TradeSide.WINNERS, TradeSide.LOSERS) and not banded:
        raise ConfigError(
            f"policy.only: {policy.only.value}, which bands tell from the others, but the trigger"
            " has none",
            'use a threshold or hybrid trigger, or only = "sell"',
        )
    if policy.only is not None and isinstance(policy.trigger, NoTradeZone):
        raise ConfigError(
            f"policy.only: {policy.only.value}, but a zone weighs both sides of an exchange",
            "remove it, or use a threshold",
        )
    for symbol, own in (bands or {}).items():
        where = f"portfolio.assets.{symbol}.band"
        validate_band(own, where)
        if not banded:
            raise ConfigError(
                f"{where}: the trigger knows no bands",
                "remove it, or use a threshold or hybrid trigger",
            )
    _zone_goes_with_zone(policy)


def _zone_goes_with_zone(policy: Policy) -> None:
    zone = isinstance(policy.trigger, NoTradeZone)
    if zone and policy.destination is not Destination.ZONE:
        shown = policy.destination.value
        raise ConfigError(
            f"policy.destination: {shown}, but a zone goes as far as its last unit pays",
            'write destination = "zone"',
        )
    if policy.destination is Destination.ZONE and not zone:
        raise ConfigError(
            "policy.destination: zone, but the trigger is none",
            'use trigger = { kind = "zone", … }, or "target"',
        )


# --- Text of a policy's trigger and side: shown for confirmation and by status.


ONLY = {
    TradeSide.SELL: "sells assets above their targets and keeps the proceeds in the numeraire",
    TradeSide.BUY: "buys what is below its goal, with what the numeraire has above its target",
    TradeSide.WINNERS: "sells only what is above its band",
    TradeSide.LOSERS: "buys only what is below its band",
}


def format_trigger(trigger: Trigger, portfolio: Portfolio) -> str:
    """Such as "threshold: 10% of the target"."""
    if isinstance(trigger, AnyOf):
        return "any of: " + "; ".join(format_trigger(one, portfolio) for one in trigger.triggers)
    return RULES[type(trigger)].describe(trigger, portfolio)
