"""Pool curves: input and output down to a marginal price, as float curves in value units, one per
direction.

In value units the reference price of every token is 1, so a pool on the reference has marginal
price 1. With s the square root of the marginal price (token out per token in) and L the liquidity,
a range takes L·(1/s₁ − 1/s₀) net of fee and pays L·(s₀ − s₁) (Uniswap v3 whitepaper, section 6.2; a
V2 pair is one range with L = √(x·y)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from agent.floats import FloatArray, IndexArray
from agent.model import Pool
from agent.units import PIPS, floor_int

T = TypeVar("T")

BAND_WIDTH = 1e-6
"""Width of the band just below the reference into which all better rates are compressed: a
hundredth of a basis point.
"""
HALF_GAIN = 0.05
"""Gain of a pool's first unit that is mapped to the middle of that band; higher gains are mapped
higher.
"""
MIN_SPREAD = 0.1
"""Smallest fraction of the band over which a pool's better rates are spread, so that prices still
distinguish amounts.
"""
MIN_DIVISOR = 1e-300
MAX_WHOLE_UNITS = 1 << 16
"""Largest portfolio, in base units of a token, for which what its pools pay is quoted unit by
unit.
"""
SLOPE_DIVISOR = 10**9
"""A corner of a curve in whole units is dropped if its slope falls by at most 1/SLOPE_DIVISOR."""
MAX_CORNERS = 1024
"""Maximum number of straight parts of a curve in whole units, beside the first."""
MAX_INPUT = 100.0
"""Largest input of a curve, per unit of scale. A plan moves about one scale; larger inputs lose
digits.
"""
MAX_KEPT_RANGES = 512
"""Largest number of directions of pools whose ranges are kept: more than a plan of 160 pools has."""


@dataclass(frozen=True, slots=True)
class PoolCurve:
    """One direction of one pool. `roots` are square roots of the marginal price, descending from
    the start to the bound; each other array has one entry per root.

    `fee_factor` is 1 − fee. `rates` are fee_factor·roots² − 1, the gain of a unit over the
    reference. `liquidities[k]` is the liquidity below roots[k], zero below the last.
    `net_inputs[k]`, `outputs[k]` are cumulative to roots[k]; `surplus[k]` is ∫(s² − roots[k]²)·dx
    up to there, kept as a sum of positive terms, so that no digits cancel if two prices are nearly
    equal.
    """

    fee_factor: float
    rates: FloatArray
    roots: FloatArray
    liquidities: FloatArray
    net_inputs: FloatArray
    outputs: FloatArray
    surplus: FloatArray

    @property
    def best_rate(self) -> float:
        """Value out per value in of the first unit, after fee."""
        return float(1 + self.rates[0])

    @property
    def capacity(self) -> float:
        """Largest value in, gross of fee, within the bound."""
        return float(self.net_inputs[-1] / self.fee_factor)

    def output_for(self, amount_in: float) -> float:
        """Return the value out for a value in, gross of fee; input beyond the capacity pays
        nothing.
        """
        net_input = amount_in * self.fee_factor
        k = int(np.searchsorted(self.net_inputs, net_input, side="right")) - 1
        depth = float(self.liquidities[k])
        root = float(self.roots[k])
        remaining_input = net_input - float(self.net_inputs[k])
        if depth <= 0:
            return float(self.outputs[k])
        return float(self.outputs[k]) + root * root * remaining_input / (
            1 + root * remaining_input / depth
        )

    def input_for(self, amount_out: float) -> float:
        """Return the value in, gross of fee, for a value out; the capacity if the curve does not
        pay that much.
        """
        k = int(np.searchsorted(self.outputs, amount_out, side="right")) - 1
        depth = float(self.liquidities[k])
        root = float(self.roots[k])
        remaining_output = amount_out - float(self.outputs[k])
        if depth <= 0:
            return (
                self.capacity
                if k == len(self.outputs) - 1
                else float(self.net_inputs[k]) / self.fee_factor
            )
        return (
            float(self.net_inputs[k])
            + remaining_output / (root * (root - remaining_output / depth))
        ) / self.fee_factor

    def range_ends_crossed(self, amount_in: float) -> int:
        """Return the number of range ends that an input of this value crosses, not counting the
        bound.
        """
        k = int(np.searchsorted(self.net_inputs, amount_in * self.fee_factor, side="right")) - 1
        return max(0, min(k, len(self.roots) - 2))


@dataclass(frozen=True, slots=True)
class TradeCurves:
    """One direction of a pool: its real curve, and the counted one, which is capped at the
    reference. Both are equal if no unit pays more than the reference. `tick_curve` is the curve
    over the pool's own ranges; `rounding_loss` is what a swap of any size loses to whole base
    units, in addition.
    """

    real_curve: PoolCurve
    counted_curve: PoolCurve
    tick_curve: PoolCurve
    rounding_loss: float = 0.0


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
    ranges = _kept_ranges(pool, token_in, impact_bps)
    if ranges is None:
        return None
    unscaled_roots, unscaled_liquidities = ranges
    root_scale = math.sqrt(float(price_out / price_in))
    depth_scale = math.sqrt(float(price_in)) * math.sqrt(float(price_out)) / scale
    roots = unscaled_roots * root_scale
    liquidities = unscaled_liquidities * depth_scale
    fee_factor = 1 - pool.fee_for(token_in) / PIPS
    real_curve = (
        _build_curve(
            fee_factor,
            np.maximum(fee_factor * roots * roots - 1, float(least_rate - 1)),
            liquidities,
        )
        if fee_factor > 0
        else None
    )
    if real_curve is None or real_curve.net_inputs[-1] <= 0:
        return None
    real_curve = _cut_curve(real_curve, MAX_INPUT)
    return TradeCurves(real_curve, _capped_at_reference(real_curve), real_curve)


@lru_cache(maxsize=MAX_KEPT_RANGES)
def _kept_ranges(
    pool: Pool, token_in: str, impact_bps: int
) -> tuple[FloatArray, FloatArray] | None:
    """Return `roots` and `liquidities` of PoolCurve in base units, for one direction within the bound
    on the move of the price. They follow from the pool's state alone and are kept by it.
    """
    pool_curve = pool.curve(token_in, impact_bps)
    if pool_curve is None:
        return None
    return np.array(pool_curve.roots), np.array(pool_curve.liquidities)


def whole_unit_curves(
    curves: TradeCurves,
    quote: Callable[[int], int],
    portfolio_raw: Fraction,
    unit_in: float,
    unit_out: float,
) -> TradeCurves | None:
    """Return the curves as quoted for each number of base units, if `portfolio_raw`, the portfolio
    in base units of the token that goes in, is small; None if no number of units pays. `unit_in`
    and `unit_out` are the values of a base unit.
    """
    if not 1 <= portfolio_raw <= MAX_WHOLE_UNITS:
        return curves
    max_units = min(floor_int(portfolio_raw), int(curves.real_curve.capacity / unit_in))
    curve_and_loss = _whole_unit_curve(quote, max_units, unit_in, unit_out)
    if curve_and_loss is None:
        return None
    real_curve, rounding_loss = curve_and_loss
    return TradeCurves(
        real_curve, _capped_at_reference(real_curve), curves.tick_curve, rounding_loss
    )


def _whole_unit_curve(
    quote: Callable[[int], int], max_units: int, unit_in: float, unit_out: float
) -> tuple[PoolCurve, float] | None:
    """Return a concave curve on or above what a pool pays for whole base units, and what every swap
    loses in addition: contracts round fees and steps up to whole units of the input. None if no
    number of units pays.
    """
    corners: list[tuple[int, int]] = []
    for quoted_point in ((amount_in, quote(amount_in)) for amount_in in range(1, max_units + 1)):
        while len(corners) > 1 and _left_turn(corners[-2], corners[-1], quoted_point) >= 0:
            corners.pop()
        corners.append(quoted_point)
    while len(corners) > 1 and corners[-1][1] <= corners[-2][1]:
        corners.pop()
    if not corners or corners[-1][1] <= 0:
        return None
    if len(corners) == 1:
        loss_raw = Fraction(0)
    else:
        (first_amount_in, first_amount_out), (second_amount_in, second_amount_out) = corners[:2]
        loss_raw = max(
            Fraction(0),
            Fraction(second_amount_out - first_amount_out, second_amount_in - first_amount_in)
            * first_amount_in
            - first_amount_out,
        )
    value_points = [
        (amount_in_raw * unit_in, amount_out_raw * unit_out)
        for amount_in_raw, amount_out_raw in _corners_above(corners, loss_raw)
    ]
    inputs = np.array([input_value for input_value, _ in value_points])
    slopes = np.array([_slope(*segment_ends) for segment_ends in pairwise(value_points)])
    slope_ratios = np.concatenate(([2.0], slopes[:-1] / slopes[1:], [2.0]))
    root_factor = np.sqrt(
        np.sqrt(np.minimum(np.minimum(slope_ratios[:-1], slope_ratios[1:]), 1 + BAND_WIDTH))
    )
    top_roots = np.sqrt(slopes) * root_factor
    end_roots = np.sqrt(slopes) / root_factor
    roots = np.array([top_roots, end_roots]).T.reshape(-1)
    liquidities = np.zeros(len(roots) - 1)
    liquidities[::2] = (inputs[1:] - inputs[:-1]) / (1 / end_roots - 1 / top_roots)
    return _build_curve(1.0, roots * roots - 1, liquidities), float(loss_raw) * unit_out


def _corners_above(
    corners: Sequence[tuple[int, int]], loss_raw: Fraction
) -> list[tuple[float, float]]:
    """Return the corners of a concave line of few straight parts on or above the one through
    `corners`, both raised by `loss_raw` and begun at zero. The parts are some of the other line's,
    each extended to the next: chords would lie below it, and a bound on what pools pay be too low.
    """
    # all that is paid is in `unit_parts` parts
    loss_parts = loss_raw.numerator
    unit_parts = loss_raw.denominator
    x = 0
    y = 0
    width = corners[0][0]
    rise = corners[0][1] * unit_parts + loss_parts
    corner_points = [(0.0, 0.0)]
    stride = -(-len(corners) // MAX_CORNERS)
    for corner_index in range(1 + (len(corners) - 2) % stride, len(corners), stride):
        (amount_in, amount_out), (next_amount_in, next_amount_out) = corners[
            corner_index - 1 : corner_index + 1
        ]
        next_y = amount_out * unit_parts + loss_parts
        next_width = next_amount_in - amount_in
        next_rise = (next_amount_out - amount_out) * unit_parts
        scaled_slope_drop = rise * next_width - next_rise * width
        if scaled_slope_drop * SLOPE_DIVISOR <= rise * next_width:
            continue
        scaled_meeting_x = (
            (next_y - y) * width * next_width
            + rise * next_width * x
            - next_rise * width * amount_in
        )
        scaled_meeting_y = y * width * scaled_slope_drop + rise * (
            scaled_meeting_x - x * scaled_slope_drop
        )
        corner_points.append(
            (
                scaled_meeting_x / scaled_slope_drop,
                scaled_meeting_y / (width * scaled_slope_drop * unit_parts),
            )
        )
        x = amount_in
        y = next_y
        width = next_width
        rise = next_rise
    last_amount_in = corners[-1][0]
    return [
        *corner_points,
        (float(last_amount_in), (y * width + rise * (last_amount_in - x)) / (width * unit_parts)),
    ]


def _slope(start_point: tuple[float, float], end_point: tuple[float, float]) -> float:
    return (end_point[1] - start_point[1]) / (end_point[0] - start_point[0])


def _left_turn(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> int:
    """Return a number above zero if the path through three points turns left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def curve_after_charge(curve: PoolCurve, charge: float) -> PoolCurve | None:
    """Return the least concave curve above what `curve` pays less a charge for any use: straight
    up to the amount at which the charge per unit of surplus is least, then the curve itself. None
    if no amount is worth the charge.
    """
    if charge <= 0:
        return curve
    k = int(np.searchsorted(curve.surplus, charge, side="right")) - 1
    net_k = float(curve.net_inputs[k])
    out_k = float(curve.outputs[k])
    net_input = net_k
    value_out = out_k
    root = 0.0
    later_depths = np.array([])
    if k < len(curve.roots) - 1:
        depth = float(curve.liquidities[k])
        top_root = float(curve.roots[k])
        # in differences, since a small charge is lost in the rounding of squares of the depth
        discriminant = depth * (charge - float(curve.surplus[k])) / top_root + net_k * (
            out_k - charge
        )
        discriminant_root = math.sqrt(max(0.0, discriminant))
        root_gap = (top_root * discriminant_root - out_k + charge) / (depth + discriminant_root)
        root_gap = min(max(root_gap, 0.0), top_root - float(curve.roots[k + 1]))
        root = top_root - root_gap
        net_input = net_k + depth * root_gap / (root * top_root)
        value_out = out_k + depth * root_gap
        later_depths = curve.liquidities[k:-1]
    if value_out <= charge:
        return None
    low_root = max(root, math.sqrt((value_out - charge) / net_input))
    high_root = low_root * (1 + BAND_WIDTH / 2)
    if high_root >= curve.roots[0]:
        return curve
    high_rate = curve.fee_factor * high_root * high_root - 1
    low_rate = curve.fee_factor * low_root * low_root - 1
    high_end = math.sqrt((1 + high_rate) / curve.fee_factor)
    low_end = math.sqrt((1 + low_rate) / curve.fee_factor)
    root_gap = (high_rate - low_rate) / (curve.fee_factor * (high_end + low_end))
    first_depth = net_input * high_end * low_end / root_gap
    return _build_curve(
        curve.fee_factor,
        np.concatenate(([high_rate, low_rate], curve.rates[k + 1 :])),
        np.concatenate(([first_depth], later_depths)),
    )


def _build_curve(fee_factor: float, rates: FloatArray, liquidities: FloatArray) -> PoolCurve:
    """Return the curve of these rates and liquidities, with prefix sums; empty ranges are skipped."""
    is_nonempty = rates[:-1] > rates[1:]
    if not is_nonempty.all():
        rates = rates[np.concatenate(([True], is_nonempty))]
        liquidities = liquidities[is_nonempty]
    roots = np.sqrt((1 + rates) / fee_factor)
    top_roots = roots[:-1]
    end_roots = roots[1:]
    root_gaps = (rates[:-1] - rates[1:]) / (fee_factor * (top_roots + end_roots))
    net_inputs = _prefix_sums(liquidities * root_gaps / (top_roots * end_roots))
    surplus = _prefix_sums(
        root_gaps
        * ((top_roots + end_roots) * net_inputs[:-1] + liquidities * root_gaps / top_roots)
    )
    return PoolCurve(
        fee_factor,
        rates,
        roots,
        np.concatenate((liquidities, [0.0])),
        net_inputs,
        _prefix_sums(liquidities * root_gaps),
        surplus,
    )


def _cut_curve(curve: PoolCurve, max_input: float) -> PoolCurve:
    """Return the curve up to an input of `max_input`, net of fee."""
    if curve.net_inputs[-1] <= max_input:
        return curve
    k = int(np.searchsorted(curve.net_inputs, max_input)) - 1
    end_root = 1 / (1 / curve.roots[k] + (max_input - curve.net_inputs[k]) / curve.liquidities[k])
    return _build_curve(
        curve.fee_factor,
        np.append(curve.rates[: k + 1], curve.fee_factor * end_root * end_root - 1),
        curve.liquidities[: k + 1],
    )


def _prefix_sums(increments: FloatArray) -> FloatArray:
    sums = np.zeros(len(increments) + 1)
    increments.cumsum(out=sums[1:])
    return sums


def _capped_at_reference(curve: PoolCurve) -> PoolCurve:
    """Return the same amounts with rates above the reference compressed into a narrow band below
    it, the best pools first.
    """
    if curve.rates[0] <= -BAND_WIDTH:
        return curve
    count_above = int(np.count_nonzero(curve.rates > -BAND_WIDTH))
    rates = curve.rates
    liquidities = curve.liquidities[:-1]
    if count_above < len(rates):  # the range that crosses the reference is split there
        rates = np.insert(rates, count_above, -BAND_WIDTH)
        liquidities = np.insert(liquidities, count_above, liquidities[count_above - 1])
    roots = np.sqrt((1 + rates) / curve.fee_factor)
    range_inputs = liquidities * (roots[:-1] - roots[1:]) / (roots[:-1] * roots[1:])
    remaining_inputs = np.concatenate(
        (
            np.cumsum(range_inputs[:count_above][::-1])[::-1],
            np.zeros(len(rates) - len(range_inputs[:count_above])),
        )
    )
    best_gain = float(curve.rates[0]) + BAND_WIDTH
    band_fraction = MIN_SPREAD + (1 - 2 * MIN_SPREAD) * best_gain / (best_gain + HALF_GAIN)
    compressed_rates = np.where(
        remaining_inputs > 0,
        -BAND_WIDTH
        + BAND_WIDTH * band_fraction * remaining_inputs / max(remaining_inputs[0], MIN_DIVISOR),
        rates,
    )
    if count_above == len(rates):
        compressed_rates[-1] = -BAND_WIDTH
    end_roots = np.sqrt((1 + compressed_rates) / curve.fee_factor)
    root_gaps = (compressed_rates[:-1] - compressed_rates[1:]) / (
        curve.fee_factor * (end_roots[:-1] + end_roots[1:])
    )
    band_liquidities = (
        range_inputs * end_roots[:-1] * end_roots[1:] / np.maximum(root_gaps, MIN_DIVISOR)
    )
    return _build_curve(
        curve.fee_factor,
        compressed_rates,
        np.where(remaining_inputs[:-1] > 0, band_liquidities, liquidities),
    )


@dataclass(slots=True)
class SolutionCache(Generic[T]):
    """Dual solutions `T` of the same curves; the same problems recur within a plan."""

    exact: dict[Hashable, T] = field(default_factory=dict)
    """By program, required bound and the solution that it starts from."""
    tightest: dict[Hashable, T] = field(default_factory=dict)
    """The solution with the lowest bound, by program."""
    last_by_size: dict[int, T] = field(default_factory=dict)
    """The last solution by its number of multipliers, from which the next solve starts."""


@dataclass(frozen=True, slots=True)
class CurveStack:
    """Curves of several pools, one padded row each, so that all are evaluated at once.

    `flat_cells` concatenates rates, roots, liquidities, net_inputs, outputs and surplus, row after
    row.
    `row_offsets` is the offset of each row in it. A row begins with an empty cell: the response of
    a pool whose rates are all too low.
    """

    source: IndexArray
    target: IndexArray
    fee_factor: FloatArray
    rates: FloatArray
    row_offsets: IndexArray
    flat_cells: FloatArray
    solutions: SolutionCache[Any] = field(default_factory=SolutionCache, compare=False)

    def __len__(self) -> int:
        return len(self.fee_factor)

    def rows(self, row_numbers: NDArray[Any]) -> CurveStack:
        """Return the stack of the chosen rows."""
        return CurveStack(
            self.source[row_numbers],
            self.target[row_numbers],
            self.fee_factor[row_numbers],
            self.rates[row_numbers],
            self.row_offsets[row_numbers],
            self.flat_cells,
            self.solutions,
        )


def stack_curves(curve_edges: Sequence[tuple[int, int, PoolCurve]]) -> CurveStack:
    """Stack curves with the indices of their input and output tokens."""
    row_width = max((len(curve.roots) for _, _, curve in curve_edges), default=1) + 1
    cells = np.zeros((6, len(curve_edges), row_width))
    cells[0] = -np.inf
    cells[1, :, 0] = 1.0
    cells[0, :, 0] = 0.0
    for row, (_, _, curve) in enumerate(curve_edges):
        for cell_kind, row_cells in enumerate(
            (
                curve.rates,
                curve.roots,
                curve.liquidities,
                curve.net_inputs,
                curve.outputs,
                curve.surplus,
            )
        ):
            cells[cell_kind, row, 1 : len(row_cells) + 1] = row_cells
    row_tokens = np.array(
        [(source, target) for source, target, _ in curve_edges], dtype=np.intp
    ).reshape(-1, 2)
    row_offsets = np.arange(len(curve_edges), dtype=np.intp) * row_width
    fee_factor = np.array([curve.fee_factor for _, _, curve in curve_edges])
    return CurveStack(
        row_tokens[:, 0],
        row_tokens[:, 1],
        fee_factor,
        cells[0, :, 1:],
        row_offsets,
        cells.reshape(6, -1),
    )


@dataclass(frozen=True, slots=True)
class ChargedCurves:
    """Curves of all rows, then the same less the charge of each row: what any use of it costs, in
    gas and in whole base units. `rounding_losses` is the part in whole base units of the output.
    `worth_charge` is false for rows of which no use is worth its charge.
    """

    curves: tuple[PoolCurve, ...]
    curve_stack: CurveStack
    charges: FloatArray
    rounding_losses: FloatArray
    worth_charge: NDArray[np.bool_]

    def unpaid_charge(self, row: int, amount_in: float, amount_out: float) -> float:
        """Return the part of a row's charge that an amount less the charge does not pay."""
        if amount_in <= 0:
            return 0.0
        return float(self.charges[row]) - self.curves[row].output_for(amount_in) + amount_out

    def rows(
        self, used_rows: IndexArray, undecided_rows: IndexArray
    ) -> tuple[CurveStack, IndexArray]:
        """Return the curves of `used_rows` rows, which are charged elsewhere, and those of
        `undecided_rows` rows less their charge, with the numbers of all these rows.
        """
        undecided_rows = undecided_rows[self.worth_charge[undecided_rows]]
        row_numbers = np.concatenate((used_rows, undecided_rows))
        if not self.charges.any():
            return self.curve_stack.rows(row_numbers), row_numbers
        return self.curve_stack.rows(
            np.concatenate((used_rows, len(self.charges) + undecided_rows))
        ), row_numbers


def charged_curves(
    edge_ends: Sequence[tuple[int, int]],
    curves: Sequence[PoolCurve],
    curves_after_charges: Sequence[PoolCurve | None],
    gas_charges: FloatArray,
    rounding_losses: FloatArray,
) -> ChargedCurves:
    """Return the curves between these tokens with and without their charges. `curves_after_charges`
    are those of curve_after_charge.
    """
    charges = gas_charges + rounding_losses
    worth_charge = np.array([curve is not None for curve in curves_after_charges], dtype=np.bool_)
    all_curves = [*curves]
    if charges.any():
        all_curves += [
            curve or uncharged_curve
            for curve, uncharged_curve in zip(curves_after_charges, curves, strict=True)
        ]
    curve_edges = [
        (*edge_ends[row % len(edge_ends)], curve) for row, curve in enumerate(all_curves)
    ]
    return ChargedCurves(
        tuple(curves), stack_curves(curve_edges), charges, rounding_losses, worth_charge
    )
