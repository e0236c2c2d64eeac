"""Market events from recorded prices: a drawdown from the highest price of a window, and a jump in
volatility. Recorded prices are reference prices confirmed by the preceding blocks, at most one per
hour and token. Drawdown: 1 - p / max of the window. Volatility: realised variance per second, the
sum of squared returns over the time they took (Andersen and Bollerslev, Answering the Skeptics,
1998, eq. 6, per second since the points are not evenly spaced); returns are p'/p - 1 in integers of
1/RETURN_UNIT. A rebalance ends an event: a drawdown counts from it, a jump pauses until the short
window has passed. Until then an event fires in each step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import isqrt

from agent.errors import ConfigError
from agent.model import AssetDrift, Drawdown, Portfolio, PricePoint, VolatilityJump
from agent.policy.triggers.bands import (
    KeyUnit,
    TriggerInput,
    TriggerNotation,
    TriggerResult,
    TriggerRules,
)
from agent.policy.triggers.schedule_triggers import MAX_INTERVAL_S
from agent.units import (
    BPS,
    DAY_S,
    HOUR_S,
    YEAR_S,
    Price,
    exact_duration,
    format_bps,
    format_duration,
    format_percent,
    format_time,
)

HISTORY_MARGIN_S = DAY_S
"""Extra seconds of history before the window of a drawdown, to find one price that proves that the
record covers the window."""
RETURN_UNIT = 10**12
"""Returns are rounded to the nearest 1/RETURN_UNIT, half to even."""
MIN_USUAL_VOLATILITY_BPS = 100
"""Minimum annual volatility of the long window, 1 %, because against a constant price any move
would be a jump.
"""
MIN_SHORT_RETURNS = 6
MIN_LONG_RETURNS = 24
"""Minimum number of returns in the short and in the long window."""
MIN_COVERED_FRACTION = Fraction(3, 4)
"""Fraction of each window that the returns must span."""


@dataclass(frozen=True, slots=True)
class EventProgress:
    """Progress of an event for one asset: `limit_ratio` is 1 at the limit, and above 1 the event
    fires; `unknown_reason` is the reason if it cannot be computed.
    """

    token: str
    symbol: str
    limit_ratio: Fraction
    description: str
    unknown_reason: str = ""

    @property
    def fired(self) -> bool:
        """True if the event happened."""
        return not self.unknown_reason and self.limit_ratio > 1


def _watched_prices(
    tokens: tuple[str, ...], inputs: TriggerInput
) -> Iterator[tuple[AssetDrift, list[PricePoint]]]:
    """Yield each asset that counts with its recorded prices; without `tokens` all count."""
    for drift in inputs.drifts:
        if not tokens or drift.token in tokens:
            yield (
                drift,
                [
                    point
                    for point in inputs.history.prices
                    if point.token == drift.token and point.at_s <= inputs.now_s
                ],
            )


def _trigger_result(
    limit_text: str, signal_kind: str, progress_of_assets: Sequence[EventProgress]
) -> TriggerResult:
    """Return a result that fires if any asset exceeds the limit. Assets without enough recorded
    prices are named and never fire.
    """
    fired_progress = [
        asset_progress for asset_progress in progress_of_assets if asset_progress.fired
    ]
    judged_progress = [
        asset_progress for asset_progress in progress_of_assets if not asset_progress.unknown_reason
    ]
    asset_texts = [asset_progress.description for asset_progress in fired_progress] or [
        max(judged_progress, key=lambda asset_progress: asset_progress.limit_ratio).description
        for _ in judged_progress[:1]
    ]
    asset_texts += [
        f"{asset_progress.symbol} is not judged: {asset_progress.unknown_reason}"
        for asset_progress in progress_of_assets
        if asset_progress.unknown_reason
    ]
    asset_texts = asset_texts or ["none of the watched assets is in the portfolio"]
    if fired_progress:
        reason = f"{limit_text}: {'; '.join(asset_texts)}"
    else:
        reason = f"no asset has {limit_text}: {'; '.join(asset_texts)}"
    return TriggerResult(
        bool(fired_progress),
        reason,
        None,
        signals=tuple(
            sorted((signal_kind, asset_progress.token) for asset_progress in fired_progress)
        ),
    )


def _evaluate_drawdown(event: Drawdown, inputs: TriggerInput) -> TriggerResult:
    limit_text = f"a drawdown of more than {format_percent(Fraction(event.fall_bps, BPS))}"
    return _trigger_result(
        limit_text,
        "fall",
        [
            _drawdown_progress(event, *drift_and_points, inputs)
            for drift_and_points in _watched_prices(event.tokens, inputs)
        ],
    )


def _evaluate_jump(event: VolatilityJump, inputs: TriggerInput) -> TriggerResult:
    limit_text = (
        f"more than {format_percent(Fraction(event.factor_bps, BPS))} of the usual volatility"
    )
    return _trigger_result(
        limit_text,
        "jump",
        [
            _jump_progress(event, *drift_and_points, inputs)
            for drift_and_points in _watched_prices(event.tokens, inputs)
        ],
    )


def _drawdown_progress(
    event: Drawdown, drift: AssetDrift, points: Sequence[PricePoint], inputs: TriggerInput
) -> EventProgress:
    """Return the fall from the highest recorded price in the window; a shorter record can only miss
    a higher one.
    """
    now_s = inputs.now_s
    last_rebalance_s = inputs.history.reviews.last_rebalance_s
    if not points:
        return _unknown_progress(drift, "it has no recorded price yet")
    window_start_s = now_s - event.within_s
    since_s = window_start_s if last_rebalance_s is None else max(window_start_s, last_rebalance_s)
    highest_text = f"highest {_since_text(event, since_s, window_start_s, points[0].at_s)}"
    peak_price, peak_s = max(
        ((point.price, point.at_s) for point in points if point.at_s >= since_s),
        default=(drift.price, now_s),
    )
    if peak_price <= drift.price:
        return EventProgress(
            drift.token, drift.symbol, Fraction(0), f"{drift.symbol} is at its {highest_text}"
        )
    drawdown = 1 - drift.price / peak_price
    drawdown_text = (
        f"{drift.symbol} is {format_percent(drawdown)} below its {highest_text}, that of"
        f" {format_time(peak_s)}"
    )
    return EventProgress(drift.token, drift.symbol, drawdown * BPS / event.fall_bps, drawdown_text)


def _since_text(event: Drawdown, since_s: int, window_start_s: int, first_point_s: int) -> str:
    if first_point_s > since_s:
        return f"recorded since {format_time(first_point_s)}"
    if since_s == window_start_s:
        return f"of {format_duration(event.within_s)}"
    return "since the last rebalance"


def _jump_progress(
    event: VolatilityJump, drift: AssetDrift, points: Sequence[PricePoint], inputs: TriggerInput
) -> EventProgress:
    now_s = inputs.now_s
    last_rebalance_s = inputs.history.reviews.last_rebalance_s
    short_start_s = now_s - event.short_s
    if last_rebalance_s is not None and last_rebalance_s > short_start_s:
        return _unknown_progress(
            drift,
            f"paused after the last rebalance until {format_time(last_rebalance_s + event.short_s)}",
        )
    timed_prices = [
        (point.at_s, point.price)
        for point in points
        if now_s - event.short_s - event.long_s <= point.at_s < now_s
    ]
    timed_prices.append((now_s, drift.price))
    timed_returns = [
        (start_s, at_s, _scaled_return(previous_price, price))
        for (start_s, previous_price), (at_s, price) in pairwise(timed_prices)
    ]
    short_variance = _variance(
        [timed_return for timed_return in timed_returns if timed_return[0] >= short_start_s],
        event.short_s,
        MIN_SHORT_RETURNS,
    )
    long_variance = _variance(
        [timed_return for timed_return in timed_returns if timed_return[1] <= short_start_s],
        event.long_s,
        MIN_LONG_RETURNS,
    )
    if short_variance is None or long_variance is None:
        window_s = event.short_s if short_variance is None else event.long_s
        return _unknown_progress(
            drift,
            f"too few recorded prices in the {'last' if short_variance is None else 'long'}"
            f" {format_duration(window_s)}",
        )
    usual_variance = max(long_variance, Fraction(MIN_USUAL_VOLATILITY_BPS**2, BPS**2 * YEAR_S))
    volatility_text = (
        f"the annual volatility of {drift.symbol} is {_annual_volatility_text(short_variance)} over"
        f" {format_duration(event.short_s)}, {_annual_volatility_text(usual_variance)} over the"
        f" {format_duration(event.long_s)} before"
    )
    return EventProgress(
        drift.token,
        drift.symbol,
        short_variance * BPS**2 / (usual_variance * event.factor_bps**2),
        volatility_text,
    )


def _scaled_return(price_before: Price, price_after: Price) -> int:
    return round((price_after / price_before - 1) * RETURN_UNIT)


def _variance(
    timed_returns: Sequence[tuple[int, int, int]], window_s: int, min_returns: int
) -> Fraction | None:
    """Return the realised variance per second; None if too little of the window is recorded."""
    spanned_s = sum(until_s - start_s for start_s, until_s, _ in timed_returns)
    if len(timed_returns) < min_returns or spanned_s < MIN_COVERED_FRACTION * window_s:
        return None
    return Fraction(
        sum(scaled_return**2 for *_, scaled_return in timed_returns), RETURN_UNIT**2 * spanned_s
    )


def _annual_volatility_text(variance: Fraction) -> str:
    yearly_variance = variance * YEAR_S
    return format_percent(
        Fraction(
            isqrt(yearly_variance.numerator * RETURN_UNIT**2 // yearly_variance.denominator),
            RETURN_UNIT,
        )
    )


def _unknown_progress(drift: AssetDrift, why: str) -> EventProgress:
    return EventProgress(drift.token, drift.symbol, Fraction(0), "", why)


MIN_FALL_WINDOW_S = 3_600
MIN_VOLATILITY_WINDOW_S = 21_600
MAX_JUMP_BPS = 100 * BPS


def _validate_drawdown(event: Drawdown) -> None:
    if not 0 < event.fall_bps < BPS:
        raise ConfigError(
            f"policy.trigger.fall: {event.fall_bps} bps is not between 0 and 100 %",
            'write a drawdown such as "20%"',
        )
    if not MIN_FALL_WINDOW_S <= event.within_s <= MAX_INTERVAL_S:
        raise ConfigError(
            f"policy.trigger.within: {exact_duration(event.within_s)}",
            "write a time from 1h to 28d",
        )


def _validate_jump(event: VolatilityJump) -> None:
    short_s = event.short_s
    long_s = event.long_s
    factor_bps = event.factor_bps
    if (
        not MIN_VOLATILITY_WINDOW_S <= short_s <= MAX_INTERVAL_S
        or not 2 * short_s <= long_s <= MAX_INTERVAL_S
    ):
        raise ConfigError(
            f"policy.trigger: short {short_s} s against long {long_s} s",
            "write a short window of at least 6h and a long one of at least twice that, 28d at"
            " most",
        )
    if not BPS < factor_bps <= MAX_JUMP_BPS:
        raise ConfigError(
            f"policy.trigger.jump: {factor_bps} bps is not above 100 % and at most"
            f" {MAX_JUMP_BPS * 100 // BPS:,} %",
            'write for example "200%": twice the usual',
        )


def _describe_drawdown(event: Drawdown, portfolio: Portfolio) -> str:
    within_text = format_duration(event.within_s)
    return (
        f"drawdown: {format_bps(event.fall_bps)} within {within_text} of"
        f" {_tokens_text(event.tokens, portfolio)}"
    )


def _describe_jump(event: VolatilityJump, portfolio: Portfolio) -> str:
    short_text = format_duration(event.short_s)
    long_text = format_duration(event.long_s)
    windows_text = f"{short_text} above {format_bps(event.factor_bps)} of the {long_text} before"
    return f"volatility_jump: {windows_text}, of {_tokens_text(event.tokens, portfolio)}"


def _tokens_text(tokens: tuple[str, ...], portfolio: Portfolio) -> str:
    labels = [asset.token.label for asset in portfolio.assets if asset.token.address in tokens]
    return " or ".join(labels) if labels else "any asset"


RULES = {
    Drawdown: TriggerRules(
        _validate_drawdown,
        _evaluate_drawdown,
        _describe_drawdown,
        price_history_s=lambda event: event.within_s + HISTORY_MARGIN_S,
    ),
    VolatilityJump: TriggerRules(
        _validate_jump,
        _evaluate_jump,
        _describe_jump,
        price_history_s=lambda event: event.short_s + event.long_s + 2 * HOUR_S,
    ),
}
_SHARE = KeyUnit.SHARE
_DURATION = KeyUnit.DURATION
_ASSETS_KEY = {"assets": KeyUnit.SYMBOLS}
NOTATIONS = (
    TriggerNotation(
        "drawdown",
        {"fall": _SHARE, "within": _DURATION} | _ASSETS_KEY,
        Drawdown,
        keys_required=True,
    ),
    TriggerNotation(
        "volatility_jump",
        {"short": _DURATION, "long": _DURATION, "jump": _SHARE} | _ASSETS_KEY,
        VolatilityJump,
        keys_required=True,
    ),
)
