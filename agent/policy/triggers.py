"""Is it time to act: bands, schedules, and both together; every answer comes with its reason and the time of the next look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.errors import ConfigError
from agent.model import AssetDrift, Cron, Destination, Every, History, Hybrid, Policy, Schedule, Threshold, Trigger, Zone
from agent.policy import cron, words
from agent.policy.drift import alert_prices
from agent.units import BPS

MILLION = 1_000_000
LATEST_S = 3_600
"""The most that a schedule is late at random."""
SHORTEST_S = 1_800
LONGEST_S = 2_419_200
_SOME_DAY_S = 1_700_000_000
"""Cron expressions are tried from here on; any day does, since the calendar has no end."""


@dataclass(frozen=True, slots=True)
class Fired:
    """A trigger's answer. `next_s` is when a schedule is due next; None means at the next tick.

    `due` says that a schedule asked for a review now, whether or not something is to be done.
    """

    fired: bool
    reason: str
    next_s: int | None
    due: bool = False


def fired(trigger: Threshold | Schedule | Hybrid, drifts: Sequence[AssetDrift], now_s: int, history: History, jitter_bps: int = 0) -> Fired:
    """Whether `trigger` asks for a rebalance at block time `now_s`. `drifts` carry the bands of the same trigger; for a Zone see there.

    A schedule's review is late by `history.delay_ppm` millionths of its window, `jitter_bps` of the time since the last look.
    """
    match trigger:
        case Threshold():
            outside = _outside(drifts)
            return Fired(bool(outside), outside or _inside(drifts), None)
        case Every() | Cron():
            due, when, next_s = _due(trigger, now_s, history, jitter_bps)
            return Fired(due, f"{when}; {_furthest(drifts)}", next_s, due)
        case Hybrid(_, schedule):
            due, when, next_s = _due(schedule, now_s, history, jitter_bps)
            outside = _outside(drifts)
            return Fired(due and bool(outside), f"{when}; {outside or _inside(drifts)}", next_s, due)


def validate(trigger: Trigger) -> None:
    """Raises ConfigError for a trigger that could never fire, or whose figures make no sense."""
    match trigger:
        case Threshold(absolute_bps, relative_bps):
            if absolute_bps is None and relative_bps is None:
                raise ConfigError("policy.trigger: a threshold without a width", 'write relative = "10%", absolute = "5%" or both')
            for name, width_bps in (("absolute", absolute_bps), ("relative", relative_bps)):
                if width_bps is not None and not 0 < width_bps <= BPS:
                    raise ConfigError(f"policy.trigger.{name}: {width_bps} bps is not within 0 and 100 %", 'write a width such as "10%"')
        case Every(every_s):
            if not SHORTEST_S <= every_s <= LONGEST_S:
                raise ConfigError(f"policy.trigger.every: {every_s} s", "write a time from 30m to 28d")
        case Cron(expression, timezone):
            if cron.next_time(trigger, _SOME_DAY_S) is None:
                raise ConfigError(f"policy.trigger.cron: {expression!r} in {timezone} never comes", "write a date that exists")
        case Hybrid(threshold, schedule):
            validate(threshold)
            validate(schedule)
        case Zone():
            pass  # needs the assets: agent/policy/risk.py


def validate_policy(policy: Policy) -> None:
    """Raises ConfigError when the trigger is wrong or does not go with the destination."""
    validate(policy.trigger)
    if policy.cooldown_s < 0:
        raise ConfigError(f"policy.cooldown: {policy.cooldown_s} s is negative", 'write a time such as "1h"')
    if policy.destination is Destination.BAND and isinstance(policy.trigger, Every | Cron):
        raise ConfigError("policy.destination: band, but the trigger knows only time", 'use a threshold or hybrid trigger, or "target"')
    _zone_goes_with_zone(policy)


def _zone_goes_with_zone(policy: Policy) -> None:
    zone = isinstance(policy.trigger, Zone)
    if zone and policy.destination is not Destination.ZONE:
        shown = policy.destination.value
        raise ConfigError(f"policy.destination: {shown}, but a zone goes as far as its last unit pays", 'write destination = "zone"')
    if policy.destination is Destination.ZONE and not zone:
        raise ConfigError("policy.destination: zone, but the trigger is none", 'use trigger = { kind = "zone", … }, or "target"')


def last_look_s(history: History) -> int | None:
    """The later of the last rebalance and the last review, unix seconds; None when there was neither."""
    return max((at_s for at_s in (history.last_rebalance_s, history.last_review_s) if at_s is not None), default=None)


def _due(schedule: Schedule, now_s: int, history: History, jitter_bps: int) -> tuple[bool, str, int | None]:
    """Whether a review is due, that in words, and when the next one is due: counted from now if it is, else from the last."""
    last_s = last_look_s(history)
    if last_s is None:
        return True, "first review", _next_time(schedule, now_s)
    planned_s = _next_time(schedule, last_s)
    if planned_s is None:
        return False, f"the schedule has no time after {words.moment(last_s)}", None
    planned_s += late_s(planned_s - last_s, history.delay_ppm, jitter_bps)
    if now_s >= planned_s:
        return True, f"review due since {words.moment(planned_s)}, last one {words.moment(last_s)}", _next_time(schedule, now_s)
    return False, f"next review {words.moment(planned_s)}, in {words.span(planned_s - now_s)}", planned_s


def late_s(interval_s: int, delay_ppm: int, jitter_bps: int) -> int:
    """How late a review is, in seconds: a drawn part of `jitter_bps` of its interval, and of an hour at most (T15).

    Whoever knows a schedule would else know the minute of the trade. It is never early: what a trigger permits stays permitted.
    """
    return min(interval_s * jitter_bps // BPS, LATEST_S) * delay_ppm // MILLION


def _next_time(schedule: Schedule, after_s: int) -> int | None:
    match schedule:
        case Every(every_s):
            return after_s + every_s
        case Cron():
            return cron.next_time(schedule, after_s)


def _outside(drifts: Sequence[AssetDrift]) -> str:
    """Which assets are outside their bands, and by how much; empty when none is."""
    return "; ".join(_beyond(drift) for drift in drifts if drift.outside)


def _beyond(drift: AssetDrift) -> str:
    above = drift.share * BPS > drift.band_high_bps
    edge_bps = drift.band_high_bps if above else drift.band_low_bps
    distance = words.points(drift.share - edge_bps / BPS)
    return f"{drift.symbol} at {words.percent(drift.share)} is {distance} {'above' if above else 'below'} its band {words.band(drift)}"


def _inside(drifts: Sequence[AssetDrift]) -> str:
    """All assets are within their bands: which one is closest to an edge, and which price would take it there."""
    gaps = [(min(d.share * BPS - d.band_low_bps, d.band_high_bps - d.share * BPS), i) for i, d in enumerate(drifts)]
    gap_bps, index = min(gaps)
    drift = drifts[index]
    lower = drift.share * BPS - drift.band_low_bps == gap_bps
    text = (
        f"all within their bands; closest is {drift.symbol} at {words.percent(drift.share)}, "
        f"{words.points(gap_bps / BPS)} from the {'lower' if lower else 'upper'} edge of {words.band(drift)}"
    )
    price = alert_prices(drifts)[drift.token][0 if lower else 1]
    if price is None:
        return text
    return f"{text}, left when its price alone {_move(price / drift.price - 1, lower)}"


def _move(change: Fraction, down: bool) -> str:
    return f"{'falls' if down else 'rises'} by more than {words.percent(abs(change))}"


def _furthest(drifts: Sequence[AssetDrift]) -> str:
    """Which asset is furthest from its target: what there is to say where no band exists."""
    drift = max(drifts, key=lambda d: abs(d.share - Fraction(d.target_bps, BPS)))
    away = drift.share - Fraction(drift.target_bps, BPS)
    if away == 0:
        return "all exactly on target"
    side = "above" if away > 0 else "below"
    target = words.percent(Fraction(drift.target_bps, BPS))
    return f"furthest from target is {drift.symbol} at {words.percent(drift.share)}, {words.points(away)} {side} {target}"
