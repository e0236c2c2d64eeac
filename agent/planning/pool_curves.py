"""Pool curves: input and output down to a marginal price, as float curves in value units, one per
direction.

In value units the reference price of every token is 1, so a pool on the reference has marginal
price 1. With s the square root of the marginal price (token out per token in) and L the liquidity,
a range takes L·(1/s₁ − 1/s₀) net of fee and pays L·(s₀ − s₁) (Uniswap v3 whitepaper, section 6.2; a
V2 pair is one range with L = √(x·y)).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.floats import FloatArray
from agent.model import Pool
from agent.units import PIPS

SHADE = 1e-6
"""Width of the band just below the reference into which all better rates are compressed: a
hundredth of a basis point.
"""
HALF_GAIN = 0.05
"""Gain of a pool's first unit that is mapped to the middle of that band; higher gains are mapped
higher.
"""
WIDTH = 0.1
"""Smallest fraction of the band over which a pool's better rates are spread, so that prices still
distinguish amounts.
"""
TINY = 1e-300
MOST = 100.0
"""Largest input of a curve, per unit of scale. A plan moves about one scale; larger inputs lose
digits.
"""


@dataclass(frozen=True, slots=True)
class PoolCurve:
    """One direction of one pool. `roots` are square roots of the marginal price, descending from
    the start to the bound; each other array has one entry per root.

    `rates` are keep·roots² − 1, the gain of a unit over the reference. `depths[k]` is the liquidity
    below roots[k], zero below the last. `net_in[k]`, `out[k]` are cumulative to roots[k]; `over[k]`
    is ∫(s² − roots[k]²)·dx up to there, kept as a sum of positive terms, so that no digits cancel
    if two prices are nearly equal.
    """

    keep: float
    rates: FloatArray
    roots: FloatArray
    depths: FloatArray
    net_in: FloatArray
    out: FloatArray
    over: FloatArray

    @property
    def best_rate(self) -> float:
        """Value out per value in of the first unit, after fee."""
        return float(1 + self.rates[0])

    @property
    def capacity(self) -> float:
        """Largest value in, gross of fee, within the bound."""
        return float(self.net_in[-1] / self.keep)

    def pays(self, taken: float) -> float:
        """Return value out for a value in, gross of fee; input beyond the capacity pays nothing."""
        net = taken * self.keep
        k = int(np.searchsorted(self.net_in, net, side="right")) - 1
        depth, root, rest = float(self.depths[k]), float(self.roots[k]), net - float(self.net_in[k])
        if depth <= 0:
            return float(self.out[k])
        return float(self.out[k]) + root * root * rest / (1 + root * rest / depth)

    def takes(self, paid: float) -> float:
        """Return value in, gross of fee, for a value out; the capacity if the curve does not pay
        that much.
        """
        k = int(np.searchsorted(self.out, paid, side="right")) - 1
        depth, root, rest = float(self.depths[k]), float(self.roots[k]), paid - float(self.out[k])
        if depth <= 0:
            return self.capacity if k == len(self.out) - 1 else float(self.net_in[k]) / self.keep
        return (float(self.net_in[k]) + rest / (root * (root - rest / depth))) / self.keep

    def edges_passed(self, taken: float) -> int:
        """Return the number of range ends that an input of this value crosses, not counting the
        bound.
        """
        k = int(np.searchsorted(self.net_in, taken * self.keep, side="right")) - 1
        return max(0, min(k, len(self.roots) - 2))


@dataclass(frozen=True, slots=True)
class TradeCurves:
    """One direction of a pool: its real curve, and the counted one, which is capped at the
    reference. Both are equal if no unit pays more than the reference.
    """

    real: PoolCurve
    counted: PoolCurve


def build_trade_curves(
    pool: Pool,
    token_in: str,
    price_in: Fraction,
    price_out: Fraction,
    scale: float,
    impact_bps: int,
    least_rate: Fraction = Fraction(0),
) -> TradeCurves | None:
    """Return the curves of one direction in value units of `scale` numeraire base units; None if no
    trade is possible in that direction. `impact_bps` bounds the move of the marginal price,
    `least_rate` the output of a unit after fee. In the counted curve a unit's output is never worth
    more than its reference value: a pool off the market is free, not a source of profit.
    """
    found = pool.curve(token_in, impact_bps)
    if found is None:
        return None
    stretch = math.sqrt(float(price_out / price_in))
    weight = math.sqrt(float(price_in)) * math.sqrt(float(price_out)) / scale
    roots, depths = np.array(found.roots) * stretch, np.array(found.depths) * weight
    keep = 1 - pool.fee_pips / PIPS
    real = (
        _sum_up(keep, np.maximum(keep * roots * roots - 1, float(least_rate - 1)), depths)
        if keep > 0
        else None
    )
    if real is None or real.net_in[-1] <= 0:
        return None
    real = _up_to(real, MOST)
    return TradeCurves(real, _capped_at_reference(real))


def _sum_up(keep: float, rates: FloatArray, depths: FloatArray) -> PoolCurve:
    """Return the curve of these rates and depths, with prefix sums; empty ranges are skipped."""
    wide = rates[:-1] > rates[1:]
    if not wide.all():
        rates, depths = rates[np.concatenate(([True], wide))], depths[wide]
    roots = np.sqrt((1 + rates) / keep)
    tops, ends = roots[:-1], roots[1:]
    gaps = (rates[:-1] - rates[1:]) / (keep * (tops + ends))
    net_in = _prefix(depths * gaps / (tops * ends))
    over = _prefix(gaps * ((tops + ends) * net_in[:-1] + depths * gaps / tops))
    return PoolCurve(
        keep, rates, roots, np.concatenate((depths, [0.0])), net_in, _prefix(depths * gaps), over
    )


def _up_to(curve: PoolCurve, most: float) -> PoolCurve:
    """Return the curve up to an input of `most`, net of fee."""
    if curve.net_in[-1] <= most:
        return curve
    k = int(np.searchsorted(curve.net_in, most)) - 1
    root = 1 / (1 / curve.roots[k] + (most - curve.net_in[k]) / curve.depths[k])
    return _sum_up(
        curve.keep,
        np.append(curve.rates[: k + 1], curve.keep * root * root - 1),
        curve.depths[: k + 1],
    )


def _prefix(parts: FloatArray) -> FloatArray:
    return np.concatenate(([0.0], np.cumsum(parts)))


def _capped_at_reference(curve: PoolCurve) -> PoolCurve:
    """Return the same amounts with rates above the reference compressed into a narrow band below
    it, the best pools first.
    """
    if curve.rates[0] <= -SHADE:
        return curve
    above = int(np.count_nonzero(curve.rates > -SHADE))
    rates, depths = curve.rates, curve.depths[:-1]
    if above < len(rates):  # the range that crosses the reference is split there
        rates, depths = np.insert(rates, above, -SHADE), np.insert(depths, above, depths[above - 1])
    roots = np.sqrt((1 + rates) / curve.keep)
    parts = depths * (roots[:-1] - roots[1:]) / (roots[:-1] * roots[1:])
    left = np.concatenate(
        (np.cumsum(parts[:above][::-1])[::-1], np.zeros(len(rates) - len(parts[:above])))
    )
    gain = float(curve.rates[0]) + SHADE
    order = WIDTH + (1 - 2 * WIDTH) * gain / (gain + HALF_GAIN)
    pressed = np.where(left > 0, -SHADE + SHADE * order * left / max(left[0], TINY), rates)
    if above == len(rates):
        pressed[-1] = -SHADE
    ends = np.sqrt((1 + pressed) / curve.keep)
    gaps = (pressed[:-1] - pressed[1:]) / (curve.keep * (ends[:-1] + ends[1:]))
    level = parts * ends[:-1] * ends[1:] / np.maximum(gaps, TINY)
    return _sum_up(curve.keep, pressed, np.where(left[:-1] > 0, level, depths))


@dataclass(frozen=True, slots=True)
class CurveStack:
    """Curves of several pools, one padded row each, so that all are evaluated at once.

    `flat` concatenates rates, roots, depths, net_in, out and over, row after row. `first` is the
    offset of each row in it. A row begins with an empty cell: the response of a pool whose rates
    are all too low.
    """

    source: NDArray[np.intp]
    target: NDArray[np.intp]
    keep: FloatArray
    rates: FloatArray
    first: NDArray[np.intp]
    flat: FloatArray
    known: dict[Hashable, Any] = field(default_factory=dict, compare=False)
    """Cache of dual solutions by problem; the same problems recur within a plan."""

    def __len__(self) -> int:
        return len(self.keep)

    def rows(self, chosen: NDArray[Any]) -> CurveStack:
        """Return the stack of the chosen rows."""
        return CurveStack(
            self.source[chosen],
            self.target[chosen],
            self.keep[chosen],
            self.rates[chosen],
            self.first[chosen],
            self.flat,
            self.known,
        )


def stack_curves(pool_edges: Sequence[tuple[int, int, PoolCurve]]) -> CurveStack:
    """Stack curves with the positions of their input and output tokens."""
    width = max((len(curve.roots) for _, _, curve in pool_edges), default=1) + 1
    parts = np.zeros((6, len(pool_edges), width))
    parts[0], parts[1, :, 0] = -np.inf, 1.0
    parts[0, :, 0] = 0.0
    for number, (_, _, curve) in enumerate(pool_edges):
        for part, values in enumerate(
            (curve.rates, curve.roots, curve.depths, curve.net_in, curve.out, curve.over)
        ):
            parts[part, number, 1 : len(values) + 1] = values
    ends = np.array([(source, target) for source, target, _ in pool_edges], dtype=np.intp).reshape(
        -1, 2
    )
    first = np.arange(len(pool_edges), dtype=np.intp) * width
    keep = np.array([curve.keep for _, _, curve in pool_edges])
    return CurveStack(ends[:, 0], ends[:, 1], keep, parts[0, :, 1:], first, parts.reshape(6, -1))
