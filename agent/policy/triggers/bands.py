"""Bands around the targets: the threshold trigger, and limits.max_weight, which applies under every
trigger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from typing import Any

from agent.errors import ConfigError
from agent.model import (
    AssetDrift,
    Goal,
    GoalWeight,
    History,
    Policy,
    Portfolio,
    Threshold,
    TradeSide,
    Trigger,
)
from agent.policy.drift import band_edge_prices
from agent.policy.triggers.asset_range import AssetRange
from agent.units import BPS, decimal_text, format_bps, format_percent, format_points

# --- Types of triggers: notation in the config, rules of a class, and the result of an evaluation.


PriceSignal = tuple[str, str]
"""Price signal: a kind, and its token."""
TOO_MUCH = "too much"
TOO_LITTLE = "too little"
ABOVE_MAX_WEIGHT = "above limits.max_weight"
SALE_SIGNAL_KINDS = (TOO_MUCH, ABOVE_MAX_WEIGHT)
PURCHASE_SIGNAL_KINDS = (TOO_LITTLE,)


@dataclass(frozen=True, slots=True)
class TriggerInput:
    """Input of an evaluation at block time `now_s`. `drifts` carry the trigger's bands.

    A schedule's review is delayed by `history.delay_ppm` millionths of the longest delay, which is
    `jitter_bps` of its interval.
    """

    drifts: Sequence[AssetDrift]
    now_s: int
    history: History
    jitter_bps: int = 0
    numeraire: str = ""
    """Token whose price is 1; empty without one."""


@dataclass(frozen=True, slots=True)
class TriggerResult:
    """Result of a trigger. `next_s` is the next due time of a schedule (None: the next tick).
    `is_review_due` is true if a schedule required a review now, even without a trade;
    `due_schedules` are the names of such schedules in the store. `needs_no_confirmation` is true if
    something other than prices fired it, which preceding blocks cannot confirm: a schedule, a function,
    or the rest of a rebalance; otherwise `signals` are the price signals that fired it.
    `executes_at_s` is the chain time from which a staged trigger executes what this review found;
    None if nothing waits.
    """

    fired: bool
    reason: str
    next_s: int | None
    is_review_due: bool = False
    due_schedules: tuple[str, ...] = ()
    needs_no_confirmation: bool = False
    signals: tuple[PriceSignal, ...] = ()
    executes_at_s: int | None = None


@dataclass(frozen=True, slots=True)
class TriggerRules:
    """Rules of one class of agent/model/triggers.py.

    `validate` raises ConfigError for a trigger that could never fire, or has invalid numbers.
    `price_history_s` are the seconds of recorded prices that it needs. `is_band_and_schedule_only`
    is true if only its band and its schedule decide; a backtest then skips the bars in between and
    may compile the rest.
    """

    validate: Callable[[Any], None]
    evaluate: Callable[[Any, TriggerInput], TriggerResult]
    describe: Callable[[Any, Portfolio], str]
    price_history_s: Callable[[Any], int] = lambda _: 0
    is_band_and_schedule_only: bool = False


class KeyUnit(Enum):
    """Unit of a key in the config, and the type that `build` gets: bps, seconds, a text, bps a
    year, true or false, or token addresses (without symbols all assets but the numeraire).
    """

    SHARE = "share"
    DURATION = "duration"
    TEXT = "text"
    SYMBOLS = "symbols"
    YEARLY_COST = "yearly cost"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class TriggerNotation:
    """Notation of one kind of trigger in the config.

    `build` takes the values of `keys` in order; without `keys_required` any of them may be None.
    `hint` explains the kind in a new config; without it the kind is only named there.
    """

    kind: str
    keys: Mapping[str, KeyUnit]
    build: Callable[..., Trigger]
    hint: str = ""
    keys_required: bool = False


BAND_KEYS = {"absolute": KeyUnit.SHARE, "relative": KeyUnit.SHARE}


def build_band(absolute_bps: int | None, relative_bps: int | None) -> Threshold:
    """Build the band of a trigger that needs one. Raises ConfigError without a width."""
    if absolute_bps is None and relative_bps is None:
        raise ConfigError(
            "policy.trigger: a threshold needs absolute or relative", "for example relative = '10%'"
        )
    return Threshold(absolute_bps, relative_bps)


def validate_band(band: Threshold, config_key: str) -> None:
    """Raise ConfigError if the width is missing or invalid."""
    if band.absolute_bps is None and band.relative_bps is None:
        raise ConfigError(
            f"{config_key}: a threshold without a width",
            'write relative = "10%", absolute = "5%" or both',
        )
    for width_name, width_bps in (("absolute", band.absolute_bps), ("relative", band.relative_bps)):
        if width_bps is not None and not 0 < width_bps <= BPS:
            raise ConfigError(
                f"{config_key}.{width_name}: {width_bps} bps is not within 0 and 100 %",
                'write a width such as "10%"',
            )


def _evaluate_threshold(_: Threshold, inputs: TriggerInput) -> TriggerResult:
    outside_reason = outside_text(inputs.drifts)
    reason = outside_reason or inside_text(inputs.drifts, inputs.numeraire)
    return TriggerResult(bool(outside_reason), reason, None, signals=band_signals(inputs.drifts))


def format_width(threshold: Threshold) -> str:
    """Return the widths of a band, such as "10% of the target, 5% of the portfolio"."""
    widths = ((threshold.relative_bps, "target"), (threshold.absolute_bps, "portfolio"))
    return ", ".join(
        f"{format_bps(width_bps)} of the {base_name}"
        for width_bps, base_name in widths
        if width_bps is not None
    )


def format_bands(portfolio: Portfolio) -> str:
    """Return the bands of single assets; empty if none has its own."""
    return ", ".join(
        f"{asset.token.label} {format_width(asset.band)}"
        for asset in portfolio.assets
        if asset.band is not None
    )


RULES = {
    Threshold: TriggerRules(
        validate=lambda trigger: validate_band(trigger, "policy.trigger"),
        evaluate=_evaluate_threshold,
        describe=lambda trigger, _: f"threshold: {format_width(trigger)}",
        is_band_and_schedule_only=True,
    )
}
NOTATIONS = (
    TriggerNotation(
        "threshold",
        BAND_KEYS,
        build_band,
        'relative = "10%" of the target, or absolute = "5%" of the portfolio; strictly beyond the'
        " band",
    ),
)


# --- Text of bands: assets outside, the asset closest to an edge, and their price signals.


def band_signals(drifts: Sequence[AssetDrift]) -> tuple[PriceSignal, ...]:
    """Return, for each asset outside its band, its side."""
    above_signals = {
        (TOO_MUCH, drift.token) for drift in drifts if drift.is_outside_band and _is_above(drift)
    }
    below_signals = {
        (TOO_LITTLE, drift.token)
        for drift in drifts
        if drift.is_outside_band and not _is_above(drift)
    }
    return tuple(sorted(above_signals | below_signals))


def signals_of_side(
    signals: Iterable[PriceSignal], side: TradeSide | None
) -> frozenset[PriceSignal]:
    """Return the signals of the side that policy.only trades; all of them if none is, as when a
    sale starts because another asset is below its band.
    """
    all_signals = frozenset(signals)
    if side is None:
        return all_signals
    other_kinds = SALE_SIGNAL_KINDS if side in BUY_SIDES else PURCHASE_SIGNAL_KINDS
    return (
        frozenset(signal for signal in all_signals if signal[0] not in other_kinds) or all_signals
    )


def _is_above(drift: AssetDrift) -> bool:
    return drift.share * BPS > drift.band_high_bps


def outside_text(drifts: Sequence[AssetDrift]) -> str:
    """Format the assets outside their bands, with the distance; empty if there are none."""
    return "; ".join(map(_outside_asset_text, furthest_outside_first(drifts)))


def furthest_outside_first(drifts: Sequence[AssetDrift]) -> list[AssetDrift]:
    """Return the assets outside their bands, the furthest beyond its edge first; last those that
    only the others bring there. Of a long reason pages show the first.
    """

    def place(drift: AssetDrift) -> tuple[bool, Fraction]:
        weight_bps = drift.share * BPS
        beyond_bps = max(drift.band_low_bps - weight_bps, weight_bps - drift.band_high_bps)
        return bool(range_of(drift).others_text), -beyond_bps

    return sorted((drift for drift in drifts if drift.is_outside_band), key=place)


def _outside_asset_text(drift: AssetDrift) -> str:
    edge_bps = drift.band_low_bps
    side = "below"
    if _is_above(drift):
        edge_bps = drift.band_high_bps
        side = "above"
    distance_text = _distance_text(drift, edge_bps)
    return f"{drift.symbol} at {drift.weight_text} is {distance_text} {side} its band {format_band(drift)}"


def _distance_text(drift: AssetDrift, reference_bps: Fraction) -> str:
    """Format the distance of the weight as it is shown; if that is zero, the exact distance."""
    return format_points(
        (drift.weight_bps - reference_bps) / BPS or drift.share - reference_bps / BPS
    )


def inside_text(drifts: Sequence[AssetDrift], numeraire: str) -> str:
    """Format the asset closest to an edge of its band, with the price at that edge, while all
    assets are inside. Skipped are an asset whose band ends at zero, and one that is the whole
    portfolio with a band up to 100 %.
    """
    gaps_and_indices = [
        (
            min(
                asset_drift.share * BPS - asset_drift.band_low_bps,
                asset_drift.band_high_bps - asset_drift.share * BPS,
            ),
            asset_index,
        )
        for asset_index, asset_drift in enumerate(drifts)
        if asset_drift.band_high_bps > 0
        and (asset_drift.share < 1 or asset_drift.band_high_bps < BPS)
    ]
    if not gaps_and_indices:
        return "all within their bands"
    gap_bps, closest_index = min(gaps_and_indices)
    drift = drifts[closest_index]
    low_edge_price, high_edge_price = band_edge_prices(drifts, numeraire)[drift.token]
    edge_bps = drift.band_low_bps
    edge_price = low_edge_price
    edge_name = "lower"
    verb = "falls"
    if drift.share * BPS - edge_bps != gap_bps:
        edge_bps = drift.band_high_bps
        edge_price = high_edge_price
        edge_name = "upper"
        verb = "rises"
    closest_text = (
        f"all within their bands; closest is {drift.symbol} at {drift.weight_text},"
        f" {_distance_text(drift, edge_bps)} from the {edge_name} edge of {format_band(drift)}"
    )
    if edge_price is None:
        return closest_text
    change_text = format_percent(abs(edge_price / drift.price - 1))
    return f"{closest_text}, left when its price alone {verb} by more than {change_text}"


def furthest_text(drifts: Sequence[AssetDrift]) -> str:
    """Format the asset furthest from its target, for triggers without a band."""
    drift = max(
        drifts,
        key=lambda asset_drift: abs(asset_drift.share - Fraction(asset_drift.target_bps, BPS)),
    )
    deviation = drift.share - Fraction(drift.target_bps, BPS)
    if deviation == 0:
        return "all exactly on target"
    side = "above" if deviation > 0 else "below"
    target_text = format_percent(Fraction(drift.target_bps, BPS))
    return (
        f"furthest from target is {drift.symbol} at {drift.weight_text},"
        f" {_distance_text(drift, Fraction(drift.target_bps))} {side} {target_text}"
    )


# --- limits.max_weight as a trigger: a weight above it is reduced regardless of the policy's
# trigger.


LIMIT_MARGIN_BPS = 50
"""Distance below its limit to which a weight is reduced, so that the next small rise triggers no
trade.
"""
BUY_SIDES = (TradeSide.BUY, TradeSide.LOSERS)
"""Values of policy.only under which an overweight asset is not sold."""


def overweight_assets(drifts: Sequence[AssetDrift]) -> tuple[AssetDrift, ...]:
    """Return the assets above their limit. Assets whose target is the limit are left to the
    trigger: any rise would exceed it.
    """
    return tuple(
        drift
        for drift in drifts
        if drift.max_bps is not None and drift.target_bps < drift.max_bps < drift.share * BPS
    )


def overweight_signals(drifts: Sequence[AssetDrift]) -> frozenset[PriceSignal]:
    """Return the weights above their limit as price signals."""
    return frozenset((ABOVE_MAX_WEIGHT, drift.token) for drift in overweight_assets(drifts))


def apply_max_weight(
    policy: Policy, drifts: Sequence[AssetDrift], trigger_result: TriggerResult
) -> TriggerResult:
    """Return the trigger's result; if it does not fire, that of limits.max_weight."""
    if trigger_result.fired or not must_reduce_weight(policy, drifts):
        return trigger_result
    return replace(
        trigger_result,
        fired=True,
        reason=overweight_text(drifts),
        needs_no_confirmation=False,
        signals=tuple(sorted(overweight_signals(drifts))),
        executes_at_s=None,
    )


def overweight_text(drifts: Sequence[AssetDrift]) -> str:
    """Format the assets above their limit."""
    return "; ".join(
        f"{drift.symbol} at {drift.weight_text} is above limits.max_weight of"
        f" {format_bps(drift.max_bps or 0)}"
        for drift in overweight_assets(drifts)
    )


def must_reduce_weight(policy: Policy, drifts: Sequence[AssetDrift]) -> bool:
    """True if a weight must be reduced."""
    return policy.trade_side not in BUY_SIDES and bool(overweight_assets(drifts))


def cap_goal(drifts: Sequence[AssetDrift], goal: Goal) -> Goal:
    """Return the goal with single shares above a limit moved to just below it; the freed share goes
    to underweight assets, in proportion.
    """
    cap_by_token = {drift.token: _capped_share(drift) for drift in overweight_assets(drifts)}
    share_by_token = {
        goal_weight.token: min(
            goal_weight.low, cap_by_token.get(goal_weight.token, goal_weight.low)
        )
        for goal_weight in goal.weights
    }
    if any(goal_weight.low != goal_weight.high for goal_weight in goal.weights) or all(
        share_by_token[goal_weight.token] == goal_weight.low for goal_weight in goal.weights
    ):
        return goal
    return replace(goal, weights=_spread_missing_share(drifts, share_by_token))


def reduction_goal(drifts: Sequence[AssetDrift]) -> Goal:
    """Return the goal that sells only overweight assets to just below their limit, and buys
    underweight ones.
    """
    cap_by_token = {drift.token: _capped_share(drift) for drift in overweight_assets(drifts)}
    return Goal(
        _spread_missing_share(
            drifts, {drift.token: cap_by_token.get(drift.token, drift.share) for drift in drifts}
        )
    )


def _capped_share(drift: AssetDrift) -> Fraction:
    return Fraction(max(drift.target_bps, (drift.max_bps or BPS) - LIMIT_MARGIN_BPS), BPS)


def _spread_missing_share(
    drifts: Sequence[AssetDrift], start_share_by_token: dict[str, Fraction]
) -> tuple[GoalWeight, ...]:
    """Return the goal shares, with the amount missing to one spread over underweight assets in
    proportion.
    """
    shortfall_by_token = {
        drift.token: max(
            Fraction(0), Fraction(drift.target_bps, BPS) - start_share_by_token[drift.token]
        )
        for drift in drifts
    }
    missing_share = 1 - sum(start_share_by_token.values(), Fraction(0))
    total_shortfall = sum(shortfall_by_token.values(), Fraction(0))
    goal_share_by_token = {
        token: start_share
        + (
            missing_share * shortfall_by_token[token] / total_shortfall
            if total_shortfall
            else Fraction(0)
        )
        for token, start_share in start_share_by_token.items()
    }
    return tuple(GoalWeight(token, share, share) for token, share in goal_share_by_token.items())


def weight_and_target_text(drift: AssetDrift) -> str:
    """Format an asset with its weight and its target."""
    target_text = format_percent(Fraction(drift.target_bps, BPS))
    return f"{drift.symbol} at {drift.weight_text}, target {target_text}"


def range_of(drift: AssetDrift) -> AssetRange:
    """Return the exact weight of an asset against its band."""
    return AssetRange(drift.share * BPS, drift.target_bps, drift.band_low_bps, drift.band_high_bps)


def format_band(drift: AssetDrift) -> str:
    """Return the band of an asset, such as "45-55 %"."""
    low_text, high_text = (
        decimal_text(round(edge_bps), 2) for edge_bps in (drift.band_low_bps, drift.band_high_bps)
    )
    return f"{low_text}-{high_text} %"
