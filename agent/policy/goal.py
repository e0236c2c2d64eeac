"""Where a rebalance goes: onto the target, to the edge of the band, half of the way, or towards the target as far as it pays."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from agent.model import AssetDrift, Destination, Goal, GoalWeight
from agent.units import BPS


def goal(drifts: Sequence[AssetDrift], destination: Destination) -> Goal:
    """Wanted shares of all assets, in order. Points sum to one; from every interval each share can be met by the others."""
    match destination:
        case Destination.TARGET | Destination.ZONE:
            return _points(drifts, [_target(drift) for drift in drifts])
        case Destination.HALFWAY:
            return _points(drifts, [(drift.share + _target(drift)) / 2 for drift in drifts])
        case Destination.BAND:
            return _bands(drifts)


def _target(drift: AssetDrift) -> Fraction:
    return Fraction(drift.target_bps, BPS)


def _points(drifts: Sequence[AssetDrift], shares: Sequence[Fraction]) -> Goal:
    return Goal(tuple(GoalWeight(drift.token, share, share) for drift, share in zip(drifts, shares, strict=True)))


def _bands(drifts: Sequence[AssetDrift]) -> Goal:
    """The bands, less what the others cannot make up for: a share of 55 % needs others that together may be as low as 45 %."""
    lows = [drift.band_low_bps / BPS for drift in drifts]
    highs = [drift.band_high_bps / BPS for drift in drifts]
    weights = []
    for drift, low, high in zip(drifts, lows, highs, strict=True):
        others_low, others_high = sum(lows) - low, sum(highs) - high
        weights.append(GoalWeight(drift.token, max(low, 1 - others_high), min(high, 1 - others_low)))
    return Goal(tuple(weights))
