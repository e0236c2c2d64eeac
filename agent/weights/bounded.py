"""Shares within bounds: in proportion to the targets as far as the bounds allow, and as basis
points that sum exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from agent.units import floor_int


def proportional_shares(
    wanted: Sequence[Fraction], low: Sequence[int], high: Sequence[int], total: int
) -> list[Fraction]:
    """Shares with the sum `total` in proportion to `wanted`, each held at its bound where it would
    leave it.

    What a bound takes away goes to the others in proportion: share = clip(scale · wanted, low,
    high) with the one scale that sums to `total`. Raises ValueError if the bounds leave no such
    shares, or nothing is wanted.
    """
    if any(part < 0 for part in wanted) or not sum(low) <= total <= sum(high):
        raise ValueError("bounds that no shares fit")
    # Between two scales at which a share meets a bound the sum is a straight line; it rises with
    # the scale.
    meets = sorted(
        {
            Fraction(0),
            *(
                Fraction(bound) / part
                for part, *both in zip(wanted, low, high, strict=True)
                if part
                for bound in both
            ),
        }
    )
    for start, end in zip(meets, [*meets[1:], None], strict=True):
        if end is not None and sum(_clipped(wanted, low, high, end)) < total:
            continue
        at = sum(_clipped(wanted, low, high, start))
        probe = start + 1 if end is None else end
        slope = sum(_clipped(wanted, low, high, probe)) - at
        scale = start if slope == 0 else start + (probe - start) * (total - at) / slope
        found = _clipped(wanted, low, high, scale)
        if sum(found) == total:
            return found
    raise ValueError("the bounds leave more room than there is weight to allocate")


def to_bps(
    shares: Sequence[Fraction], low: Sequence[int], high: Sequence[int], total: int
) -> list[int]:
    """Return whole basis points that sum to `total`: rounded down, then completed by largest
    remainder within the bounds.

    Ties go to the earlier entry. The shares are within the bounds, or beyond by a rounding error
    that is clipped.
    """
    inside = [
        min(max(share, Fraction(least)), Fraction(most))
        for share, least, most in zip(shares, low, high, strict=True)
    ]
    found = [floor_int(share) for share in inside]
    while (missing := total - sum(found)) != 0:
        step = 1 if missing > 0 else -1
        room = [i for i in range(len(found)) if low[i] <= found[i] + step <= high[i]]
        if not room:
            raise ValueError("bounds that no shares fit")
        best = max(room, key=lambda i: (step * (inside[i] - found[i]), -i))
        found[best] += step
    return found


def _clipped(
    wanted: Sequence[Fraction], low: Sequence[int], high: Sequence[int], scale: Fraction
) -> list[Fraction]:
    return [
        min(max(part * scale, Fraction(a)), Fraction(b))
        for part, a, b in zip(wanted, low, high, strict=True)
    ]
