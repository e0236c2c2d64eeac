"""How wide the band around a target is: the trigger's widths, an asset's own, the narrower where several count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from agent.model import AnyOf, AssetDrift, Hybrid, Staged, Threshold, Trigger, Zone
from agent.units import BPS

Edges = tuple[Fraction, Fraction]


def has_band(trigger: Trigger) -> bool:
    """Whether weights can leave a band under this trigger."""
    return bool(_thresholds(trigger))


def band(trigger: Trigger, target_bps: int, own: Threshold | None = None, most_bps: int | None = None) -> Edges:
    """Edges of the band around a target in bps, exact, within 0 and 10,000.

    `own` is the asset's, in place of the trigger's widths. A band ends at `most_bps`, where that is above the target. With an
    absolute and a relative width the narrower counts, and so it does with several triggers. One that knows no band has one of no
    width, and a zone's depends on the market (agent/policy/zone.py).
    """
    if isinstance(trigger, Zone):
        return Fraction(0), Fraction(BPS)
    thresholds = _thresholds(trigger)
    widths = [_width(own or threshold, target_bps) for threshold in thresholds]
    width = min(widths, default=Fraction(0))
    most = BPS if most_bps is None or most_bps <= target_bps else most_bps
    return max(Fraction(0), target_bps - width), min(Fraction(most), target_bps + width)


def banded(drifts: Sequence[AssetDrift], trigger: Trigger) -> tuple[AssetDrift, ...]:
    """The same standing by the bands of another trigger: one of several judges by its own."""
    whole = sum((drift.value for drift in drifts), Fraction(0))
    result = []
    for drift in drifts:
        low, high = band(trigger, drift.target_bps, drift.own_band, drift.max_bps)
        outside = whole > 0 and not low <= drift.share * BPS <= high
        result.append(replace(drift, band_low_bps=low, band_high_bps=high, outside=outside))
    return tuple(result)


def _thresholds(trigger: Trigger) -> list[Threshold]:
    match trigger:
        case Threshold():
            return [trigger]
        case Hybrid(threshold) | Staged(_, _, threshold):
            return [] if threshold is None else [threshold]
        case AnyOf(triggers):
            return [threshold for one in triggers for threshold in _thresholds(one)]
        case _:
            return []


def _width(threshold: Threshold, target_bps: int) -> Fraction:
    widths = [] if threshold.absolute_bps is None else [Fraction(threshold.absolute_bps)]
    widths += [] if threshold.relative_bps is None else [Fraction(threshold.relative_bps * target_bps, BPS)]
    return min(widths, default=Fraction(0))
