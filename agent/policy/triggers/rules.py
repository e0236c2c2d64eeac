"""Trigger evaluation: bands, schedules, events and combinations, each with its reason and next time; validation and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.errors import ConfigError
from agent.model import (
    AnyOf,
    AssetDrift,
    Cron,
    Destination,
    Drawdown,
    Every,
    Goal,
    GoalWeight,
    History,
    HybridTrigger,
    MarketEventTrigger,
    NoTradeZone,
    Policy,
    Portfolio,
    Schedule,
    SingleTrigger,
    StagedTrigger,
    StepInput,
    Threshold,
    TradeSide,
    Trigger,
    VolatilityJump,
)
from agent.policy import text as words
from agent.policy.drift import alert_prices, has_band, with_trigger_bands
from agent.policy.triggers import market_events, schedules
from agent.policy.triggers.schedules import EXECUTION, ScheduleStatus, earliest, schedule_status
from agent.units import BPS

Signal = tuple[str, str]
"""Price signal: a kind, and its token."""


@dataclass(frozen=True, slots=True)
class TriggerResult:
    """A trigger's result. `next_s` is the next due time of a schedule; None means the next tick.

    `due` is true if a schedule asked for a review now, whether or not something is to be done; `reviews` are the names under which
    the store keeps such schedules. `by_time` is true if a schedule fired it regardless of prices; else `signals` are the price
    signals that did. `waits_s` is the execution time of this review's result.
    """

    fired: bool
    reason: str
    next_s: int | None
    due: bool = False
    reviews: tuple[str, ...] = ()
    by_time: bool = False
    signals: tuple[Signal, ...] = ()
    waits_s: int | None = None


def evaluate_trigger(
    trigger: SingleTrigger | AnyOf, drifts: Sequence[AssetDrift], now_s: int, history: History, jitter_bps: int = 0
) -> TriggerResult:
    """Evaluate `trigger` at block time `now_s`. `drifts` carry its bands; a NoTradeZone is evaluated in no_trade_zone.py.

    A schedule's review is late by `history.delay_ppm` millionths of its window, `jitter_bps` of the time since the last review.
    """
    match trigger:
        case Threshold():
            outside = _outside(drifts)
            return TriggerResult(bool(outside), outside or _inside(drifts), None, signals=_sides(drifts))
        case Every() | Cron():
            review = schedule_status(trigger, now_s, history, jitter_bps)
            return TriggerResult(review.due, f"{review.words}; {_furthest(drifts)}", review.next_s, review.due, _names(review), review.due)
        case HybridTrigger(_, schedule):
            review = schedule_status(schedule, now_s, history, jitter_bps)
            outside = _outside(drifts)
            signals = _sides(drifts) if review.due else ()
            reason = f"{review.words}; {outside or _inside(drifts)}"
            return TriggerResult(review.due and bool(outside), reason, review.next_s, review.due, _names(review), signals=signals)
        case StagedTrigger():
            return _staged(trigger, drifts, now_s, history, jitter_bps)
        case Drawdown() | VolatilityJump():
            return _event(trigger, drifts, now_s, history)
        case AnyOf(triggers):
            return _any([evaluate_trigger(one, with_trigger_bands(drifts, one), now_s, history, jitter_bps) for one in triggers])


def _staged(trigger: StagedTrigger, drifts: Sequence[AssetDrift], now_s: int, history: History, jitter_bps: int) -> TriggerResult:
    """Return a schedule's result at an execution, or a hybrid's with a band; a review in between only reports."""
    review = schedule_status(trigger.review, now_s, history, jitter_bps)
    execution = schedule_status(trigger.execution, now_s, history, jitter_bps, EXECUTION)
    outside = "" if trigger.threshold is None else _outside(drifts)
    standing = outside or (_furthest(drifts) if trigger.threshold is None else _inside(drifts))
    next_s = earliest(review.next_s, execution.next_s)
    if execution.due:
        acts = trigger.threshold is None or bool(outside)
        names, signals = (execution.name, review.name), () if trigger.threshold is None else _sides(drifts)
        return TriggerResult(acts, f"{execution.words}; {standing}", next_s, True, names, trigger.threshold is None, signals)
    message = f"{review.words}; {execution.words}; {standing}"
    asked = trigger.threshold is None or bool(outside)
    return TriggerResult(False, message, next_s, review.due, _names(review), waits_s=execution.next_s if review.due and asked else None)


def _event(event: MarketEventTrigger, drifts: Sequence[AssetDrift], now_s: int, history: History) -> TriggerResult:
    """Beyond its limit for any asset that counts; one whose past is not known well enough fires nothing, and is named."""
    seen = market_events.evaluate_event(event, drifts, now_s, history)
    over = [one for one in seen if one.fired]
    known = [one for one in seen if not one.unknown]
    limit = (
        f"a fall of more than {words.format_percent(Fraction(event.fall_bps, BPS))}"
        if isinstance(event, Drawdown)
        else f"more than {words.format_percent(Fraction(event.factor_bps, BPS))} of the usual volatility"
    )
    texts = [one.words for one in over] or [max(known, key=lambda one: one.reach).words for _ in known[:1]]
    texts += [f"nothing is said of {one.symbol}: {one.unknown}" for one in seen if one.unknown]
    texts = texts or ["none of those that count is in the portfolio"]
    reason = f"{limit}: {'; '.join(texts)}" if over else f"no asset has {limit}: {'; '.join(texts)}"
    kind = "fall" if isinstance(event, Drawdown) else "jump"
    return TriggerResult(bool(over), reason, None, signals=tuple(sorted((kind, one.token) for one in over)))


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


def _names(review: ScheduleStatus) -> tuple[str, ...]:
    return (review.name,) if review.due else ()


def _sides(drifts: Sequence[AssetDrift]) -> tuple[Signal, ...]:
    """Return the side of its band each asset is on; nothing for assets inside."""
    outside = [one for one in drifts if one.outside]
    return tuple(sorted(("too much" if one.share * BPS > one.band_high_bps else "too little", one.token) for one in outside))


def _outside(drifts: Sequence[AssetDrift]) -> str:
    """Format the assets outside their bands, and by how much; empty if none is."""
    return "; ".join(_beyond(drift) for drift in drifts if drift.outside)


def _beyond(drift: AssetDrift) -> str:
    above = drift.share * BPS > drift.band_high_bps
    edge_bps = drift.band_high_bps if above else drift.band_low_bps
    distance = words.format_points(drift.share - edge_bps / BPS)
    return (
        f"{drift.symbol} at {words.format_percent(drift.share)} is {distance} {'above' if above else 'below'} its band "
        f"{words.format_band(drift)}"
    )


def _inside(drifts: Sequence[AssetDrift]) -> str:
    """All assets are within their bands: which one is closest to an edge, and which price would take it there."""
    gaps = [(min(d.share * BPS - d.band_low_bps, d.band_high_bps - d.share * BPS), i) for i, d in enumerate(drifts)]
    gap_bps, index = min(gaps)
    drift = drifts[index]
    lower = drift.share * BPS - drift.band_low_bps == gap_bps
    text = (
        f"all within their bands; closest is {drift.symbol} at {words.format_percent(drift.share)}, "
        f"{words.format_points(gap_bps / BPS)} from the {'lower' if lower else 'upper'} edge of {words.format_band(drift)}"
    )
    price = alert_prices(drifts)[drift.token][0 if lower else 1]
    if price is None:
        return text
    return f"{text}, left when its price alone {_move(price / drift.price - 1, lower)}"


def _move(change: Fraction, down: bool) -> str:
    return f"{'falls' if down else 'rises'} by more than {words.format_percent(abs(change))}"


def _furthest(drifts: Sequence[AssetDrift]) -> str:
    """Format the asset furthest from its target, for triggers without a band."""
    drift = max(drifts, key=lambda d: abs(d.share - Fraction(d.target_bps, BPS)))
    away = drift.share - Fraction(drift.target_bps, BPS)
    if away == 0:
        return "all exactly on target"
    side = "above" if away > 0 else "below"
    target = words.format_percent(Fraction(drift.target_bps, BPS))
    return f"furthest from target is {drift.symbol} at {words.format_percent(drift.share)}, {words.format_points(away)} {side} {target}"


# --- Validation of triggers and policies: widths, intervals, existing dates, and consistent combinations.


SHORTEST_S = 1_800
LONGEST_S = 2_419_200
SHORTEST_FALL_S = 3_600
SHORTEST_VOLATILITY_S = 21_600
MOST_JUMP_BPS = 100 * BPS
MOST_TRIGGERS = 8
_SOME_DAY_S = 1_700_000_000
"""Cron expressions are tried from here on; any day does, since the calendar has no end."""


def validate_trigger(trigger: Trigger) -> None:  # noqa: C901
    """Raise ConfigError for a trigger that could never fire, or has invalid numbers."""
    match trigger:
        case Threshold():
            validate_band(trigger, "policy.trigger")
        case Every() | Cron():
            _validate_schedule(trigger)
        case HybridTrigger(threshold, schedule):
            validate_trigger(threshold)
            validate_trigger(schedule)
        case StagedTrigger(review, execution, threshold):
            if threshold is not None:
                validate_trigger(threshold)
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
                validate_trigger(one)
        case NoTradeZone():
            pass  # needs the assets: agent/policy/risk.py


def validate_band(band: Threshold, where: str) -> None:
    """Raise ConfigError if the width is missing or invalid."""
    if band.absolute_bps is None and band.relative_bps is None:
        raise ConfigError(f"{where}: a threshold without a width", 'write relative = "10%", absolute = "5%" or both')
    for name, width_bps in (("absolute", band.absolute_bps), ("relative", band.relative_bps)):
        if width_bps is not None and not 0 < width_bps <= BPS:
            raise ConfigError(f"{where}.{name}: {width_bps} bps is not within 0 and 100 %", 'write a width such as "10%"')


def validate_policy(policy: Policy, bands: Mapping[str, Threshold] | None = None) -> None:
    """Raise ConfigError if the trigger is invalid or conflicts with destination, sides or the assets' own `bands`, by symbol."""
    validate_trigger(policy.trigger)
    if policy.cooldown_s < 0:
        raise ConfigError(f"policy.cooldown: {policy.cooldown_s} s is negative", 'write a time such as "1h"')
    banded = has_band(policy.trigger)
    if policy.destination is Destination.BAND and not banded and not isinstance(policy.trigger, NoTradeZone):
        raise ConfigError("policy.destination: band, but the trigger has none", 'use a threshold or hybrid trigger, or "target"')
    if policy.only in (TradeSide.WINNERS, TradeSide.LOSERS) and not banded:
        raise ConfigError(
            f"policy.only: {policy.only.value}, which bands tell from the others, but the trigger has none",
            'use a threshold or hybrid trigger, or only = "sell"',
        )
    if policy.only is not None and isinstance(policy.trigger, NoTradeZone):
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
            if schedules.next_cron_time(schedule, _SOME_DAY_S) is None:
                raise ConfigError(f"policy.trigger.{prefix}cron: {expression!r} in {timezone} never comes", "write a date that exists")


def _zone_goes_with_zone(policy: Policy) -> None:
    zone = isinstance(policy.trigger, NoTradeZone)
    if zone and policy.destination is not Destination.ZONE:
        shown = policy.destination.value
        raise ConfigError(f"policy.destination: {shown}, but a zone goes as far as its last unit pays", 'write destination = "zone"')
    if policy.destination is Destination.ZONE and not zone:
        raise ConfigError("policy.destination: zone, but the trigger is none", 'use trigger = { kind = "zone", … }, or "target"')


# --- Text of a trigger and of the bands: shown for confirmation and by status.


ONLY = {
    TradeSide.SELL: "sells what is above its goal, and what it is paid waits in the numeraire",
    TradeSide.BUY: "buys what is below its goal, with what the numeraire has above its target",
    TradeSide.WINNERS: "sells only what is above its band",
    TradeSide.LOSERS: "buys only what is below its band",
}


def format_trigger(one: Trigger, portfolio: Portfolio) -> str:
    """Such as "threshold: 10% of the target"."""
    match one:
        case Threshold():
            return f"threshold: {_width(one)}"
        case Every() | Cron():
            return f"time: {_when(one)}"
        case HybridTrigger(threshold, schedule):
            return f"hybrid: {_width(threshold)}, {_when(schedule)}"
        case StagedTrigger(review, execution, threshold):
            beyond = "" if threshold is None else f", beyond {_width(threshold)}"
            return f"review: {_when(review)}, executed {_when(execution)}{beyond}"
        case Drawdown(fall_bps, within_s, tokens):
            return f"drawdown: {_percent(fall_bps)} within {words.format_duration(within_s)} of {_tokens(tokens, portfolio)}"
        case VolatilityJump(short_s, long_s, factor_bps, tokens):
            windows = f"{words.format_duration(short_s)} above {_percent(factor_bps)} of the {words.format_duration(long_s)} before"
            return f"volatility_jump: {windows}, of {_tokens(tokens, portfolio)}"
        case AnyOf(triggers):
            return "any of: " + "; ".join(format_trigger(other, portfolio) for other in triggers)
        case NoTradeZone(risk):
            by = "" if risk.measuring is None else f", risk of {words.format_duration(risk.measuring.window_s)} of recorded prices"
            return f"zone: {float(risk.cost_bps):g} bps a year for 1% of tracking error, horizon {risk.horizon_s} s{by}"


def format_bands(portfolio: Portfolio) -> str:
    """Bands of single assets; empty if none has its own."""
    return ", ".join(f"{asset.token.label} {_width(asset.band)}" for asset in portfolio.assets if asset.band is not None)


def _width(threshold: Threshold) -> str:
    parts = [] if threshold.relative_bps is None else [f"{_percent(threshold.relative_bps)} of the target"]
    parts += [] if threshold.absolute_bps is None else [f"{_percent(threshold.absolute_bps)} of the portfolio"]
    return ", ".join(parts)


def _when(schedule: Schedule) -> str:
    match schedule:
        case Every(every_s):
            return f"every {words.format_duration(every_s)}"
        case Cron(expression, timezone):
            return f"{expression} in {timezone}"


def _percent(bps: int) -> str:
    return f"{float(Fraction(bps, 100)):g}%"


def _tokens(tokens: tuple[str, ...], portfolio: Portfolio) -> str:
    named = [asset.token.label for asset in portfolio.assets if asset.token.address in tokens]
    return " or ".join(named) if named else "any asset"


# --- limits.max_weight as a trigger: a weight above it is reduced regardless of the policy's trigger.


BELOW_BPS = 50
"""Distance below its limit to which a weight is reduced, so that the next small rise triggers nothing."""
BUYS = (TradeSide.BUY, TradeSide.LOSERS)
"""Sides under which nothing is sold for being too much."""


def overweight_assets(drifts: Sequence[AssetDrift]) -> tuple[AssetDrift, ...]:
    """Assets above their limit. One whose target is its limit is left to the trigger: any rise would ask."""
    return tuple(one for one in drifts if one.max_bps is not None and one.target_bps < one.max_bps < one.share * BPS)


def overweight_signals(drifts: Sequence[AssetDrift]) -> frozenset[Signal]:
    """Return the weights above their limit as price signals."""
    return frozenset(("above limits.max_weight", one.token) for one in overweight_assets(drifts))


def apply_max_weight(step: StepInput, drifts: Sequence[AssetDrift], answer: TriggerResult) -> TriggerResult:
    """Return the trigger's result; if it does not fire, that of limits.max_weight."""
    if answer.fired or not must_reduce_weight(step, drifts):
        return answer
    message = "; ".join(
        f"{one.symbol} at {words.format_percent(one.share)} is above limits.max_weight of {(one.max_bps or 0) / 100:g} %"
        for one in overweight_assets(drifts)
    )
    return replace(answer, fired=True, reason=message, by_time=False, signals=tuple(sorted(overweight_signals(drifts))), waits_s=None)


def must_reduce_weight(step: StepInput, drifts: Sequence[AssetDrift]) -> bool:
    """True if a weight must be reduced."""
    return step.policy.only not in BUYS and bool(overweight_assets(drifts))


def cap_goal(drifts: Sequence[AssetDrift], goal: Goal) -> Goal:
    """Return the goal with points above a limit moved to just below it; the freed share goes to the most underweight, in proportion."""
    ends = {one.token: _end(one) for one in overweight_assets(drifts)}
    points = {one.token: min(one.low, ends.get(one.token, one.low)) for one in goal.weights}
    if any(one.low != one.high for one in goal.weights) or all(points[one.token] == one.low for one in goal.weights):
        return goal
    return replace(goal, weights=_filled(drifts, points))


def reduction_goal(drifts: Sequence[AssetDrift]) -> Goal:
    """Return the goal that sells only overweight assets to just below their limit, and buys underweight ones."""
    ends = {one.token: _end(one) for one in overweight_assets(drifts)}
    return Goal(_filled(drifts, {one.token: ends.get(one.token, one.share) for one in drifts}))


def _end(one: AssetDrift) -> Fraction:
    return Fraction(max(one.target_bps, (one.max_bps or BPS) - BELOW_BPS), BPS)


def _filled(drifts: Sequence[AssetDrift], points: dict[str, Fraction]) -> tuple[GoalWeight, ...]:
    """Return the points with their shortfall to one spread over underweight assets, in proportion."""
    lacks = {one.token: max(Fraction(0), Fraction(one.target_bps, BPS) - points[one.token]) for one in drifts}
    rest, whole = 1 - sum(points.values(), Fraction(0)), sum(lacks.values(), Fraction(0))
    ends = {token: point + (rest * lacks[token] / whole if whole else Fraction(0)) for token, point in points.items()}
    return tuple(GoalWeight(token, end, end) for token, end in ends.items())
