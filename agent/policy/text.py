"""Text of shares, bands, durations and times, for the reasons of decisions."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

from agent.model import AssetDrift
from agent.units import BPS, decimal_text

_END_S = 253_402_300_800
"""Midnight of 1 January 10,000."""
_UNITS_S = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def format_percent(share: Fraction) -> str:
    """A share of one as percent, half-even at two places: 5/12 -> "41.67 %"."""
    return f"{decimal_text(round(share * BPS), 2)} %"


def format_bps(bps: int) -> str:
    """Basis points as a percentage as the config writes it: 1,000 -> "10%"."""
    return f"{float(Fraction(bps, 100)):g}%"


def format_points(distance: Fraction) -> str:
    """A distance between shares in percentage points; a small one is never shown as zero."""
    shown = round(abs(distance) * BPS)
    if shown == 0 and distance != 0:
        return "less than 0.01 points"
    return "1 point" if shown == 100 else f"{decimal_text(shown, 2)} points"


def format_band(drift: AssetDrift) -> str:
    """The band of an asset: "45-55 %"."""
    low, high = (decimal_text(round(edge), 2) for edge in (drift.band_low_bps, drift.band_high_bps))
    return f"{low}-{high} %"


def format_time(at_s: int) -> str:
    """A unix time as UTC date and time to the second; a number that no calendar has as itself."""
    if not 0 <= at_s < _END_S:
        return f"second {at_s}"
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def format_duration(seconds: int) -> str:
    """A number of seconds in at most two units, rounded down: 93,784 -> "1 d 2 h"."""
    parts, rest = [], seconds
    for size, unit in _UNITS_S:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
