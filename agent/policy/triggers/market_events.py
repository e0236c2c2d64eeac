"""Market events from recorded prices: a drawdown from the highest price of a window, a jump of volatility.

Recorded prices are at most one an hour and token, reference prices that the preceding blocks confirmed. Drawdown: 1 - p / max of
the window. Volatility: realised variance per second, the sum of squared returns over the time they took (Andersen and Bollerslev,
Answering the Skeptics, 1998, eq. 6, per second since the points are not evenly spaced); returns are p'/p - 1 in integers of 1/UNIT.
Prices before the last rebalance do not count, so that an event fires once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import isqrt

from agent.model import AnyOf, AssetDrift, Drawdown, History, MarketEventTrigger, Policy, Portfolio, PricePoint, Trigger, VolatilityJump
from agent.model.strategies import CapitalSplit
from agent.policy import text
from agent.units import BPS, YEAR_S, Price

HOUR_S = 3_600
DAY_S = 86_400
MARGIN_S = DAY_S
"""Extra seconds of history before the window of a drawdown, to find one price that proves that the record covers the window."""
UNIT = 10**12
"""Returns are rounded to the nearest 1/UNIT, half to even."""
CALM_BPS = 100
"""The long window counts as at least 1 % a year: beside a price that does not move at all, anything would be a jump."""
FEWEST_SHORT, FEWEST_LONG = 6, 24
"""Returns that the windows need."""
COVERED = Fraction(3, 4)
"""Share of each window that returns have to span."""


@dataclass(frozen=True, slots=True)
class EventProgress:
    """Progress of an event for one asset: `reach` is 1 at its limit and fires beyond; `unknown` is why it cannot be computed."""

    token: str
    symbol: str
    reach: Fraction
    words: str
    unknown: str = ""

    @property
    def fired(self) -> bool:
        """True if the event happened."""
        return not self.unknown and self.reach > 1


def evaluate_event(event: MarketEventTrigger, drifts: Sequence[AssetDrift], now_s: int, history: History) -> tuple[EventProgress, ...]:
    """Each asset that counts, at the prices in `drifts` and what `history` remembers."""
    found = []
    for one in drifts:
        if not event.tokens or one.token in event.tokens:
            points = [point for point in history.prices if point.token == one.token and point.at_s <= now_s]
            found.append(_seen(event, one, points, now_s, history))
    return tuple(found)


def trigger_history_s(trigger: Trigger) -> int:
    """Seconds of recorded prices that a trigger needs."""
    match trigger:
        case Drawdown(_, within_s):
            return within_s + MARGIN_S
        case VolatilityJump(short_s, long_s):
            return short_s + long_s + 2 * HOUR_S
        case AnyOf(triggers):
            return max(map(trigger_history_s, triggers))
        case _:
            return 0


def policy_history_s(_: Portfolio, policy: Policy) -> int:
    """Return the seconds of price history that a policy's trigger needs."""
    return trigger_history_s(policy.trigger)


def _seen(event: MarketEventTrigger, drift: AssetDrift, points: Sequence[PricePoint], now_s: int, history: History) -> EventProgress:
    match event:
        case Drawdown():
            return _fall(event, drift, points, now_s, history.last_rebalance_s)
        case VolatilityJump():
            return _jump(event, drift, points, now_s, history.last_rebalance_s)


def _fall(event: Drawdown, drift: AssetDrift, points: Sequence[PricePoint], now_s: int, rebalanced_s: int | None) -> EventProgress:
    """From every recorded high in the window at once: a shorter record can only miss a higher one."""
    if not points:
        return _unknown(drift, "no price of it is recorded yet")
    start_s = now_s - event.within_s
    since_s = start_s if rebalanced_s is None else max(start_s, rebalanced_s)
    highest = f"highest {_since(event, since_s, start_s, points[0].at_s)}"
    peak, peak_s = max(((point.price, point.at_s) for point in points if point.at_s >= since_s), default=(drift.price, now_s))
    if peak <= drift.price:
        return EventProgress(drift.token, drift.symbol, Fraction(0), f"{drift.symbol} is at its {highest}")
    drawdown = 1 - drift.price / peak
    message = f"{drift.symbol} is {text.format_percent(drawdown)} below its {highest}, that of {text.format_time(peak_s)}"
    return EventProgress(drift.token, drift.symbol, drawdown * BPS / event.fall_bps, message)


def _since(event: Drawdown, since_s: int, start_s: int, first_s: int) -> str:
    if first_s > since_s:
        return f"recorded since {text.format_time(first_s)}"
    return f"of {text.format_duration(event.within_s)}" if since_s == start_s else "since the last rebalance"


def _jump(event: VolatilityJump, drift: AssetDrift, points: Sequence[PricePoint], now_s: int, rebalanced_s: int | None) -> EventProgress:
    border_s = now_s - event.short_s
    if rebalanced_s is not None and rebalanced_s > border_s:
        return _unknown(drift, f"the last rebalance answered for it until {text.format_time(rebalanced_s + event.short_s)}")
    series = [(point.at_s, point.price) for point in points if now_s - event.short_s - event.long_s <= point.at_s < now_s]
    series.append((now_s, drift.price))
    moves = [(start_s, at_s, _return(before, price)) for (start_s, before), (at_s, price) in pairwise(series)]
    short = _variance([move for move in moves if move[0] >= border_s], event.short_s, FEWEST_SHORT)
    long = _variance([move for move in moves if move[1] <= border_s], event.long_s, FEWEST_LONG)
    if short is None or long is None:
        window_s = event.short_s if short is None else event.long_s
        return _unknown(
            drift, f"too few of its prices are known of the {'last' if short is None else 'long'} {text.format_duration(window_s)}"
        )
    calm = max(long, Fraction(CALM_BPS**2, BPS**2 * YEAR_S))
    message = (
        f"the volatility of {drift.symbol} is {_yearly(short)} a year over {text.format_duration(event.short_s)}, "
        f"{_yearly(calm)} over the {text.format_duration(event.long_s)} before"
    )
    return EventProgress(drift.token, drift.symbol, short * BPS**2 / (calm * event.factor_bps**2), message)


def _return(before: Price, after: Price) -> int:
    return round((after / before - 1) * UNIT)


def _variance(moves: Sequence[tuple[int, int, int]], window_s: int, fewest: int) -> Fraction | None:
    """Realised variance per second; None if too little of the window is known."""
    spanned_s = sum(until_s - start_s for start_s, until_s, _ in moves)
    if len(moves) < fewest or spanned_s < COVERED * window_s:
        return None
    return Fraction(sum(change**2 for *_, change in moves), UNIT**2 * spanned_s)


def _yearly(variance: Fraction) -> str:
    yearly = variance * YEAR_S
    return text.format_percent(Fraction(isqrt(yearly.numerator * UNIT**2 // yearly.denominator), UNIT))


def _unknown(drift: AssetDrift, why: str) -> EventProgress:
    return EventProgress(drift.token, drift.symbol, Fraction(0), "", why)


# --- Length of recorded prices that a policy needs, so that a step carries no more history than it decides from.


Need = Callable[[Portfolio, Policy], int]
NEEDS: tuple[Need, ...] = (policy_history_s,)
"""Functions that return the seconds of hourly prices one part of the policy needs; 0 for none."""


def required_history_s(portfolio: Portfolio, policy: Policy, split: CapitalSplit | None = None) -> int:
    """Return the seconds of hourly prices that a step of this config carries in `History.prices`; strategies may need more."""
    triggers = [policy.trigger, *(one.trigger for one in (split.strategies if split is not None else ()))]
    return max((need(portfolio, replace(policy, trigger=trigger)) for need in NEEDS for trigger in triggers), default=0)
