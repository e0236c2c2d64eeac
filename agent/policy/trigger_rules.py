"""Which triggers and policies can work at all: widths, intervals, dates that exist, and what goes with what."""

from __future__ import annotations

from collections.abc import Mapping

from agent.errors import ConfigError
from agent.model import (
    AnyOf,
    Cron,
    Destination,
    Drawdown,
    Every,
    Hybrid,
    Only,
    Policy,
    Schedule,
    Staged,
    Threshold,
    Trigger,
    VolatilityJump,
    Zone,
)
from agent.policy import cron
from agent.policy.bands import has_band
from agent.units import BPS

SHORTEST_S = 1_800
LONGEST_S = 2_419_200
SHORTEST_FALL_S = 3_600
SHORTEST_VOLATILITY_S = 21_600
MOST_JUMP_BPS = 100 * BPS
MOST_TRIGGERS = 8
_SOME_DAY_S = 1_700_000_000
"""Cron expressions are tried from here on; any day does, since the calendar has no end."""


def validate(trigger: Trigger) -> None:
    """Raises ConfigError for a trigger that could never fire, or whose figures make no sense."""
    match trigger:
        case Threshold():
            validate_band(trigger, "policy.trigger")
        case Every() | Cron():
            _validate_schedule(trigger)
        case Hybrid(threshold, schedule):
            validate(threshold)
            validate(schedule)
        case Staged(review, execution, threshold):
            if threshold is not None:
                validate(threshold)
            _validate_schedule(review, "review_")
            _validate_schedule(execution, "execute_")
            if isinstance(review, Every) and isinstance(execution, Every) and execution.every_s < review.every_s:
                raise ConfigError(
                    f"policy.trigger.execute_every: {execution.every_s} s is shorter than review_every, {review.every_s} s",
                    "an execution reviews too: review at least as often, or use hybrid",
                )
        case Drawdown(fall_bps, within_s):
            if not 0 < fall_bps < BPS:
                raise ConfigError(f"policy.trigger.fall: {fall_bps} bps is not between 0 and 100 %", 'write a fall such as "20%"')
            if not SHORTEST_FALL_S <= within_s <= LONGEST_S:
                raise ConfigError(f"policy.trigger.within: {within_s} s", "write a time from 1h to 28d")
        case VolatilityJump(short_s, long_s, factor_bps):
            if not SHORTEST_VOLATILITY_S <= short_s <= LONGEST_S or not 2 * short_s <= long_s <= LONGEST_S:
                raise ConfigError(
                    f"policy.trigger: short {short_s} s against long {long_s} s",
                    "write a short window of at least 6h and a long one of at least twice that, 28d at most",
                )
            if not BPS < factor_bps <= MOST_JUMP_BPS:
                raise ConfigError(f"policy.trigger.jump: {factor_bps} bps is not above 100 %", 'write for example "200%": twice the usual')
        case AnyOf(triggers):
            if not 2 <= len(triggers) <= MOST_TRIGGERS:
                raise ConfigError(f"policy.trigger: a list of {len(triggers)}", f"write 2 to {MOST_TRIGGERS} triggers, or one by itself")
            for one in triggers:
                validate(one)
        case Zone():
            pass  # needs the assets: agent/policy/risk.py


def validate_band(band: Threshold, where: str) -> None:
    """Raises ConfigError for a width that is none."""
    if band.absolute_bps is None and band.relative_bps is None:
        raise ConfigError(f"{where}: a threshold without a width", 'write relative = "10%", absolute = "5%" or both')
    for name, width_bps in (("absolute", band.absolute_bps), ("relative", band.relative_bps)):
        if width_bps is not None and not 0 < width_bps <= BPS:
            raise ConfigError(f"{where}.{name}: {width_bps} bps is not within 0 and 100 %", 'write a width such as "10%"')


def validate_policy(policy: Policy, bands: Mapping[str, Threshold] | None = None) -> None:
    """Raises ConfigError when the trigger is wrong or does not go with destination, sides or the assets' own `bands`, by symbol."""
    validate(policy.trigger)
    if policy.cooldown_s < 0:
        raise ConfigError(f"policy.cooldown: {policy.cooldown_s} s is negative", 'write a time such as "1h"')
    banded = has_band(policy.trigger)
    if policy.destination is Destination.BAND and not banded and not isinstance(policy.trigger, Zone):
        raise ConfigError("policy.destination: band, but the trigger has none", 'use a threshold or hybrid trigger, or "target"')
    if policy.only in (Only.WINNERS, Only.LOSERS) and not banded:
        raise ConfigError(
            f"policy.only: {policy.only.value}, which bands tell from the others, but the trigger has none",
            'use a threshold or hybrid trigger, or only = "sell"',
        )
    if policy.only is not None and isinstance(policy.trigger, Zone):
        raise ConfigError(f"policy.only: {policy.only.value}, but a zone weighs both sides of an exchange", "remove it, or use a threshold")
    for symbol, own in (bands or {}).items():
        where = f"portfolio.assets.{symbol}.band"
        validate_band(own, where)
        if not banded:
            raise ConfigError(f"{where}: the trigger knows no bands", "remove it, or use a threshold or hybrid trigger")
    _zone_goes_with_zone(policy)


def _validate_schedule(schedule: Schedule, prefix: str = "") -> None:
    match schedule:
        case Every(every_s):
            if not SHORTEST_S <= every_s <= LONGEST_S:
                raise ConfigError(f"policy.trigger.{prefix}every: {every_s} s", "write a time from 30m to 28d")
        case Cron(expression, timezone):
            if cron.next_time(schedule, _SOME_DAY_S) is None:
                raise ConfigError(f"policy.trigger.{prefix}cron: {expression!r} in {timezone} never comes", "write a date that exists")


def _zone_goes_with_zone(policy: Policy) -> None:
    zone = isinstance(policy.trigger, Zone)
    if zone and policy.destination is not Destination.ZONE:
        shown = policy.destination.value
        raise ConfigError(f"policy.destination: {shown}, but a zone goes as far as its last unit pays", 'write destination = "zone"')
    if policy.destination is Destination.ZONE and not zone:
        raise ConfigError("policy.destination: zone, but the trigger is none", 'use trigger = { kind = "zone", … }, or "target"')
