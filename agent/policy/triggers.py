"""Is it time to act: bands, schedules, events, several at once; every answer comes with its reason and the time of the next look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.model import AnyOf, AssetDrift, Cron, Drawdown, Event, Every, History, Hybrid, Single, Staged, Threshold, VolatilityJump
from agent.policy import events, words
from agent.policy.bands import banded
from agent.policy.drift import alert_prices
from agent.policy.schedules import EXECUTION, Due, due, earliest
from agent.units import BPS

Signal = tuple[str, str]
"""What prices ask for: a kind, and the token that it is about."""


@dataclass(frozen=True, slots=True)
class Fired:
    """A trigger's answer. `next_s` is when a schedule is due next; None means at the next tick.

    `due` says that a schedule asked for a review now, whether or not something is to be done; `reviews` are what the store
    remembers such schedules by. `by_time` says that a schedule fired it, whatever prices say, else `signals` are what of them did.
    `waits_s` is when what this review found is executed.
    """

    fired: bool
    reason: str
    next_s: int | None
    due: bool = False
    reviews: tuple[str, ...] = ()
    by_time: bool = False
    signals: tuple[Signal, ...] = ()
    waits_s: int | None = None


def fired(trigger: Single | AnyOf, drifts: Sequence[AssetDrift], now_s: int, history: History, jitter_bps: int = 0) -> Fired:
    """Whether `trigger` asks for a rebalance at block time `now_s`. `drifts` carry the bands of the same trigger; for a Zone see there.

    A schedule's review is late by `history.delay_ppm` millionths of its window, `jitter_bps` of the time since the last look.
    """
    match trigger:
        case Threshold():
            outside = _outside(drifts)
            return Fired(bool(outside), outside or _inside(drifts), None, signals=_sides(drifts))
        case Every() | Cron():
            review = due(trigger, now_s, history, jitter_bps)
            return Fired(review.due, f"{review.words}; {_furthest(drifts)}", review.next_s, review.due, _names(review), review.due)
        case Hybrid(_, schedule):
            review = due(schedule, now_s, history, jitter_bps)
            outside = _outside(drifts)
            signals = _sides(drifts) if review.due else ()
            reason = f"{review.words}; {outside or _inside(drifts)}"
            return Fired(review.due and bool(outside), reason, review.next_s, review.due, _names(review), signals=signals)
        case Staged():
            return _staged(trigger, drifts, now_s, history, jitter_bps)
        case Drawdown() | VolatilityJump():
            return _event(trigger, drifts, now_s, history)
        case AnyOf(triggers):
            return _any([fired(one, banded(drifts, one), now_s, history, jitter_bps) for one in triggers])


def _staged(trigger: Staged, drifts: Sequence[AssetDrift], now_s: int, history: History, jitter_bps: int) -> Fired:
    """At an execution like a schedule, or like a hybrid where there is a band; at a review in between it only says what it found."""
    review = due(trigger.review, now_s, history, jitter_bps)
    execution = due(trigger.execution, now_s, history, jitter_bps, EXECUTION)
    outside = "" if trigger.threshold is None else _outside(drifts)
    standing = outside or (_furthest(drifts) if trigger.threshold is None else _inside(drifts))
    next_s = earliest(review.next_s, execution.next_s)
    if execution.due:
        acts = trigger.threshold is None or bool(outside)
        names, signals = (execution.name, review.name), () if trigger.threshold is None else _sides(drifts)
        return Fired(acts, f"{execution.words}; {standing}", next_s, True, names, trigger.threshold is None, signals)
    told = f"{review.words}; {execution.words}; {standing}"
    asked = trigger.threshold is None or bool(outside)
    return Fired(False, told, next_s, review.due, _names(review), waits_s=execution.next_s if review.due and asked else None)


def _event(event: Event, drifts: Sequence[AssetDrift], now_s: int, history: History) -> Fired:
    """Beyond its limit for any asset that counts; one whose past is not known well enough fires nothing, and is named."""
    seen = events.look(event, drifts, now_s, history)
    over = [one for one in seen if one.fired]
    known = [one for one in seen if not one.unknown]
    limit = (
        f"a fall of more than {words.percent(Fraction(event.fall_bps, BPS))}"
        if isinstance(event, Drawdown)
        else f"more than {words.percent(Fraction(event.factor_bps, BPS))} of the usual volatility"
    )
    told = [one.words for one in over] or [max(known, key=lambda one: one.reach).words for _ in known[:1]]
    told += [f"nothing is said of {one.symbol}: {one.unknown}" for one in seen if one.unknown]
    told = told or ["none of those that count is in the portfolio"]
    reason = f"{limit}: {'; '.join(told)}" if over else f"no asset has {limit}: {'; '.join(told)}"
    kind = "fall" if isinstance(event, Drawdown) else "jump"
    return Fired(bool(over), reason, None, signals=tuple(sorted((kind, one.token) for one in over)))


def _any(answers: Sequence[Fired]) -> Fired:
    """What several triggers say together: those that fire are told, or all of them where none does."""
    firing = [answer for answer in answers if answer.fired]
    looks = [answer.next_s for answer in answers]
    return Fired(
        bool(firing),
        "; ".join(dict.fromkeys(answer.reason for answer in firing or answers)),
        None if None in looks else earliest(*looks),
        any(answer.due for answer in answers),
        tuple(dict.fromkeys(name for answer in answers if answer.due for name in answer.reviews)),
        any(answer.by_time for answer in firing),
        tuple(sorted({signal for answer in firing for signal in answer.signals})),
        None if firing else earliest(*(answer.waits_s for answer in answers)),
    )


def _names(review: Due) -> tuple[str, ...]:
    return (review.name,) if review.due else ()


def _sides(drifts: Sequence[AssetDrift]) -> tuple[Signal, ...]:
    """Which side of its band each asset is on; nothing within."""
    outside = [one for one in drifts if one.outside]
    return tuple(sorted(("too much" if one.share * BPS > one.band_high_bps else "too little", one.token) for one in outside))


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
