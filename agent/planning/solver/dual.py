"""The continuous core: find the prices at which every token reaches its goal, and each pool's trade
at them. Minimises, over prices ν, the dual of maximising a concave utility of y = h + Σ pool flows
(Angeris, Evans, Chitra, Boyd, "Optimal Routing for Constant Function Market Makers", 2022;
Diamandis et al., 2023). Pools respond to prices independently, so one solve, with about as many
unknowns as tokens, determines all exchanges, splits and hubs at once. Amounts are values in units
of `scale`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.floats import (
    FloatArray,
    dot,
    fsum_array,
    matvec,
    solve_packed,
    solve_positive_definite,
)
from agent.planning.pool_curves import CurveStack

# --- Minimum of a convex quadratic within a box: exact for a few dozen unknowns, and identical to
# the bit on every machine. LAPACK's last digits differ between processors and would decide
# directions with almost no curvature. Therefore unknowns are scaled to curvature one, flat
# directions get a little curvature, and agent/floats.py eliminates in the order of the unknowns,
# which breaks ties.


ROUNDS = 6
"""Maximum number of bounds activated or released one by one, per unknown."""
RIDGE = 2e-9
"""Curvature added to each scaled unknown, times the number of unknowns, so that flat directions
have a minimum.

A positive semidefinite matrix of n rows with ones on its diagonal has no eigenvalue above n, so
that its condition with n·RIDGE on top is at most 1 + 1/RIDGE, or 5e8.
"""
FLAT = 1e-12
"""Least curvature, relative to the largest, by which an unknown is scaled; anything smaller is
rounding error.
"""
LEAST = 1e-9
"""Least absolute curvature by which an unknown is scaled."""
FEW = 30
"""Number of unknowns up to which sides are changed one by one, in lists, which are faster."""

IndexArray = NDArray[np.intp]


def box_minimum(
    matrix: FloatArray,
    slope: FloatArray,
    low: FloatArray,
    high: FloatArray,
    near: Sequence[int] = (),
) -> tuple[FloatArray, list[int]]:
    """Return the minimum of slope·p + ½ p·matrix·p over low ≤ p ≤ high, and the sides at which
    unknowns are held.

    Needs low ≤ 0 ≤ high and a positive semidefinite matrix. A side is −1 at the low end, 1 at the
    high end, else 0. `near` are the sides of a similar problem. They shorten the search and do not
    change the minimum, which is unique.
    """
    curvature = matrix.diagonal()
    unit = 1 / np.sqrt(np.maximum(curvature, max(FLAT * float(curvature.max(initial=0.0)), LEAST)))
    scaled = matrix * unit[:, None] * unit
    every = np.arange(len(unit))
    scaled[every, every] += RIDGE * len(unit)
    slope = slope * unit
    box = _BoxQp(scaled, slope, low / unit, high / unit, scaled.tolist(), slope.tolist())
    step, sides = box.minimum(near)
    return (
        np.where(sides < 0, low, np.where(sides > 0, high, np.clip(step * unit, low, high))),
        sides.tolist(),
    )


@dataclass(frozen=True, slots=True)
class _BoxQp:
    """The problem with unknowns scaled to curvature one.

    Many unknowns are solved by block principal pivoting: all unknowns on a wrong side change it at
    once (Júdice, Pires, "A block principal pivoting algorithm for large-scale strictly monotone
    linear complementarity problems", 1994). Few, and many where that does not lead to fewer wrong
    sides, by a primal active-set method: each step stays within the bounds and descends.
    """

    matrix: FloatArray
    slope: FloatArray
    low: FloatArray
    high: FloatArray
    rows: list[list[float]]
    slopes: list[float]

    def minimum(self, near: Sequence[int]) -> tuple[FloatArray, IndexArray]:
        """Return the minimum and the sides at which unknowns are held there."""
        first = sides = np.array(near or self._first(), dtype=np.intp)
        fewest = len(sides) + 1
        while len(sides) > FEW:
            step = np.array(self._with_held(sides.tolist(), self._ends(sides).tolist()))
            pull = self.slope + matvec(self.matrix, step)
            away = np.where(step > self.high, 1, np.where(step < self.low, -1, 0))
            turned = np.where(sides == 0, away, np.where(pull * sides > 0, 0, sides))
            wrong = int(np.count_nonzero(turned != sides))
            if not wrong:
                return step, sides
            if wrong >= fewest:
                break
            sides, fewest = turned, wrong
        return self._descended(first)

    def _descended(self, near: IndexArray) -> tuple[FloatArray, IndexArray]:
        sides, step = near.tolist(), self._ends(near).tolist()
        low, high = self.low.tolist(), self.high.tolist()
        for _ in range(ROUNDS * len(step)):
            there = self._with_held(sides, step)
            rooms = {}  # fractions of the way to `there` at which free unknowns meet their ends
            for i, (side, place) in enumerate(zip(sides, there, strict=True)):
                if not side and not low[i] <= place <= high[i]:
                    end, move = high[i] if place > high[i] else low[i], place - step[i]
                    rooms[i] = (end - step[i]) / move if move else math.inf
            part = min(rooms.values(), default=1.0)
            if part < 1:
                moved = (a + part * (b - a) for a, b in zip(step, there, strict=True))
                step = [min(max(a, b), c) for a, b, c in zip(moved, low, high, strict=True)]
                for i, room in rooms.items():
                    if room <= part:
                        sides[i], step[i] = (1, high[i]) if there[i] > high[i] else (-1, low[i])
            else:
                step = there
                pulls = self.slope + matvec(self.matrix, np.array(step))
                wrong = np.where(np.array(sides) == 0, 0.0, pulls * sides)
                worst = int(wrong.argmax())
                if wrong[worst] <= 0:
                    break
                sides[worst] = 0
        return np.array(step), np.array(sides, dtype=np.intp)

    def _ends(self, sides: IndexArray) -> FloatArray:
        return np.where(sides < 0, self.low, np.where(sides > 0, self.high, 0.0))

    def _first(self) -> list[int]:
        """Return the sides of unknowns that start at an end and are pushed beyond it by the
        slope.
        """
        start = np.where(
            (self.low >= 0) & (self.slope > 0),
            -1,
            np.where((self.high <= 0) & (self.slope < 0), 1, 0),
        )
        return list(start.tolist())

    def _with_held(self, sides: Sequence[int], step: Sequence[float]) -> list[float]:
        """Return the minimum with every unknown that has a side held at its value in `step`."""
        free = [i for i, side in enumerate(sides) if not side]
        there = [place if side else 0.0 for side, place in zip(sides, step, strict=True)]
        if len(sides) > FEW:
            every, pull = np.array(free, dtype=np.intp), self.slope
            if any(there):
                pull = pull + matvec(self.matrix, np.array(there))
            part = self.matrix[every[:, None], every]
            solved = solve_positive_definite(part, -pull[every]).tolist()
        else:
            fixed = [(i, place) for i, place in enumerate(there) if place]  # zeros have no effect
            upper, last = [], free[::-1]
            for k, i in enumerate(free):
                row, slope = self.rows[i], 0.0
                for j, place in fixed:
                    slope += row[j] * place
                upper.append([-(self.slopes[i] + slope), *[row[j] for j in last[: len(free) - k]]])
            solved = solve_packed(upper)
        for i, place in zip(free, solved, strict=True):
            there[i] = place
        return there


STEPS = 60
"""Maximum number of Newton steps; seven are usual."""
TRIES = 40
"""Maximum number of lengths tried for one step."""
ENOUGH = 0.3
"""Fraction of the slope along a step that may remain at its end."""
STRAIGHT = 0.9
"""Fraction of the slope left at the end of a step above which the step counts as straight and is
extended.
"""
NOISE = 1e-15
"""Relative error of the dual's value; smaller expected changes are judged by the slope alone."""
LEAST_PRICE = 1e-3
"""Lower limit on the price of a pool's output token. Raising a price to it only loosens the bound."""
LEAST_RATE = 1e-12
"""Least rate: any lower rate sells everything."""
SNAP = 1e-15
"""Distance from an end of its range at which a multiplier counts as there."""
BALANCED = 1e-9
"""Imbalance per unit of scale at which the solve ends."""
EXACT, POLISH = 1e-14, 3
"""Target imbalance of the steps after the solve, and their maximum number. They make a repeated
plan end at the same amounts.
"""


@dataclass(frozen=True, slots=True)
class Program:
    """minimise  base + cost·z + ½ z·bend·z + Σ pools(ν)  over low ≤ z ≤ high.

    Each multiplier z raises every price by its `shift`, and by its `own` in addition that of its
    `token`; `spread`, if not None, are the rises of each token by the last multiplier. `bend` is
    None if it is zero. The slopes at the minimum are the imbalances.
    """

    base: float
    shift: FloatArray
    own: FloatArray
    token: NDArray[np.intp]
    spread: FloatArray | None
    cost: FloatArray
    bend: FloatArray | None
    low: FloatArray
    high: FloatArray
    size: int

    def above(self, z: FloatArray) -> FloatArray:
        """Return each price's distance from one."""
        rises = np.asarray(np.bincount(self.token, self.own * z, self.size) + dot(self.shift, z))
        return rises if self.spread is None else rises + self.spread * z[-1]

    def along(self, moved: FloatArray) -> FloatArray:
        """Return the change of the dual per unit of each multiplier, for these changes of tokens."""
        found = self.shift * fsum_array(moved) + self.own * moved[self.token]
        if self.spread is not None:
            found[-1] = dot(self.spread, moved)
        return np.asarray(found)

    def gram(self, stack: CurveStack, weight: FloatArray, steep: FloatArray) -> FloatArray:
        """Return the sum of steep · r·rᵀ over the rows of a stack, where r is the change of a pool's
        price, source less `weight` times target, by each multiplier. Summed by token first, because
        there are more pools than tokens, and most multipliers concern one token.
        """
        size, source, target = self.size, stack.source, stack.target
        paid = steep * weight
        ends = np.concatenate((source * (size + 1), target * (size + 1)))
        ends = np.concatenate((ends, source * size + target, target * size + source))
        parts = np.concatenate((steep, paid * weight, -paid, -paid))
        between = np.bincount(ends, parts, size * size).reshape(size, size)
        apart = 1 - weight  # of a pool's price if all prices rise
        shared = np.bincount(source, steep * apart, size) - np.bincount(target, paid * apart, size)
        cross = self.shift[:, None] * (self.own * shared[self.token])
        found = (
            self.shift[:, None] * (self.shift * fsum_array(steep * apart * apart))
            + cross
            + cross.T
            + self.own[:, None] * self.own * between[self.token[:, None], self.token]
        )
        if self.spread is not None:
            rise = self.spread[source] - weight * self.spread[target]
            each = np.bincount(source, steep * rise, size) - np.bincount(target, paid * rise, size)
            last = self.shift * fsum_array(steep * rise * apart) + self.own * each[self.token]
            last[-1] = fsum_array(steep * rise * rise)
            found[-1], found[:, -1] = last, last
        return np.asarray(found)


@dataclass(frozen=True, slots=True)
class Solution:
    """Multipliers, their prices, and the dual there: a bound on the utility of any pool flows.

    By row of the stack: amount in, amount out, and `surplus`: the least that the utility
    loses without this pool. `slack` is the largest imbalance left, per unit of scale.
    """

    multipliers: FloatArray
    prices: FloatArray
    bound: float
    slack: float
    taken: FloatArray
    paid: FloatArray
    surplus: FloatArray

    def moved(self, stack: CurveStack) -> FloatArray:
        """Return the change of each token by all flows."""
        size = len(self.prices)
        into, out_of = (
            np.bincount(stack.target, self.paid, size),
            np.bincount(stack.source, self.taken, size),
        )
        return np.asarray(into - out_of)


def solve_dual(
    program: Program, stack: CurveStack, near: Solution | None = None, below: float = -np.inf
) -> Solution:
    """Return the minimum of the dual, from the multipliers of an earlier solution if they fit, else
    from zero.

    Takes Newton steps, each to the minimum of the local quadratic within the box, shortened if
    pools begin to respond on the way. Ends early once the bound is below the required value
    `below`.
    """
    rises = (program.shift, program.own, program.token, program.spread)
    parts = (*rises, program.cost, program.bend, program.low, program.high, stack.first)
    problem = (program.base, *(None if part is None else part.tobytes() for part in parts))
    asked = (problem, below, None if near is None else near.multipliers.tobytes())
    solution: Solution | None = stack.known.get(asked)
    if solution is None:
        # any dual value bounds all flows: one below the required value need not be improved
        bound: Solution | None = stack.known.get(problem)
        if bound is not None and bound.bound < below:
            return bound
        solution = stack.known[asked] = _solved(program, stack, near, below)
        if bound is None or solution.bound < bound.bound:
            stack.known[problem] = solution
    return solution


def _solved(program: Program, stack: CurveStack, near: Solution | None, below: float) -> Solution:
    begin = (
        near.multipliers
        if near is not None and len(near.multipliers) == len(program.low)
        else np.zeros(len(program.low))
    )
    here = _Point(program, stack, np.clip(begin, program.low, program.high))
    felt, sides = np.zeros(len(stack)), list[int]()
    for _ in range(STEPS):
        if here.slack(program) <= BALANCED or program.base + here.value < below:
            break
        curvature = here.curvature(program, stack, felt)
        step, sides = box_minimum(
            curvature, here.slope, program.low - here.z, program.high - here.z, sides
        )
        there = _search(program, stack, here, step, below)
        if there is None:
            break
        felt = np.maximum(felt / 4, here.bend_to(there))
        here = there
    return _polished(program, stack, here, sides).solution(program)


def _polished(program: Program, stack: CurveStack, here: _Point, sides: list[int]) -> _Point:
    """Return the point after a few more full Newton steps, each kept if it halves the imbalance."""
    for _ in range(POLISH):
        slack = here.slack(program)
        if not EXACT < slack <= BALANCED:
            break
        curvature = here.curvature(program, stack, np.zeros(len(stack)))
        step, sides = box_minimum(
            curvature, here.slope, program.low - here.z, program.high - here.z, sides
        )
        there = _Point(program, stack, _within(program, here.z + step))
        if there.slack(program) > slack / 2:
            break
        here = there
    return here


def evaluate_dual(program: Program, stack: CurveStack, multipliers: FloatArray) -> Solution:
    """Return the dual at these multipliers. Like its minimum it bounds the utility of flows, only
    less tightly.
    """
    return _Point(program, stack, multipliers).solution(program)


class PoolResponses:
    """Responses of every row of a stack to prices. Prices are given as their distance from one, so
    that prices near one keep their digits.
    """

    __slots__ = ("asked", "depth", "into", "paid", "priced", "root", "surplus", "taken")

    def __init__(self, stack: CurveStack, above: FloatArray) -> None:
        real = above.take(stack.target)
        target = np.maximum(real, LEAST_PRICE - 1)
        self.priced = target <= real
        self.into = into = 1 + target
        self.asked = asked = (above.take(stack.source) - target) / into
        passed = np.count_nonzero(stack.rates > asked[:, None], axis=1)
        rate, edge, depth, net, out, over = stack.flat.take(stack.first + passed, axis=1)
        self.root = root = np.sqrt(np.maximum(1 + asked, LEAST_RATE) / stack.keep)
        self.depth = depth
        both = edge + root
        gap = (rate - asked) / (stack.keep * both)
        more = depth * gap
        self.taken = (net + more / (root * edge)) / stack.keep
        self.paid = out + more
        self.surplus = (over + gap * (both * net + more / edge)) * into


class _Point(PoolResponses):
    """The dual at one z: value, slope, and the pools' responses."""

    __slots__ = ("above", "slope", "value", "z")

    def __init__(self, program: Program, stack: CurveStack, z: FloatArray) -> None:
        self.z = z
        bent = None if program.bend is None else matvec(program.bend, z)
        self.above = above = program.above(z)
        super().__init__(stack, above)
        paid = np.where(self.priced, self.paid, 0.0)
        into, out_of = (
            np.bincount(stack.target, paid, len(above)),
            np.bincount(stack.source, self.taken, len(above)),
        )
        moved = np.asarray(into - out_of, dtype=np.float64)
        self.value = (
            dot(program.cost, z)
            + (0.0 if bent is None else 0.5 * dot(bent, z))
            + fsum_array(self.surplus)
        )
        self.slope = (program.cost if bent is None else program.cost + bent) + program.along(moved)

    def solution(self, program: Program) -> Solution:
        """Return the solution at this point."""
        return Solution(
            self.z,
            1 + self.above,
            program.base + self.value,
            self.slack(program),
            self.taken,
            self.paid,
            self.surplus,
        )

    def slack(self, program: Program) -> float:
        """Return the largest slope along which a multiplier can still descend within its range."""
        free = np.where(self.slope > 0, self.z > program.low, self.z < program.high)
        return float(np.abs(self.slope[free]).max(initial=0.0))

    def curvature(self, program: Program, stack: CurveStack, felt: FloatArray) -> FloatArray:
        """Return second derivatives of the dual in z; each pool adds one direction, its price pair.
        `felt` is the steepness of each pool observed along the last steps, if steeper than here.
        """
        root = self.root
        steep = (
            np.maximum(self.depth / (2 * stack.keep * stack.keep * root * root * root), felt)
            / self.into
        )
        found = program.gram(stack, np.where(self.priced, 1 + self.asked, 0.0), steep)
        return found if program.bend is None else found + program.bend

    def bend_to(self, other: _Point) -> FloatArray:
        """Return the decrease of each pool's input per unit of rate, between this point and
        another.
        """
        gap = other.asked - self.asked
        with np.errstate(divide="ignore", invalid="ignore"):
            found = (self.taken - other.taken) / gap
        return np.asarray(np.where(np.abs(gap) > 1e-15, np.maximum(found, 0.0), 0.0))


def _within(program: Program, z: FloatArray) -> FloatArray:
    """Clip z to its ranges, and snap it to an end within rounding error."""
    z = np.where(z - program.low <= SNAP, program.low, z)
    return np.asarray(np.where(program.high - z <= SNAP, program.high, z))


def _search(
    program: Program, stack: CurveStack, here: _Point, step: FloatArray, below: float
) -> _Point | None:
    """Return the lowest point found along a step: its end, or near the turn of the slope if it
    overshoots; None if the step does not descend. The step is extended while there is no curvature.
    Between a point before and a point after the turn, the next try alternates between the
    intersection of their tangents, which finds corners, and the zero of the line through their
    slopes, which finds smooth valleys. The first point with a bound below `below` ends the search.
    """
    begin = dot(here.slope, step)
    noise = NOISE * (abs(here.value) + 1)
    if begin >= -noise:
        there = _Point(program, stack, _within(program, here.z + step))
        return there if there.slack(program) < here.slack(program) / 2 else None
    near, near_value, near_slope, far, far_value, far_slope = 0.0, here.value, begin, 0.0, 0.0, 0.0
    length, best = 1.0, None
    for number in range(TRIES):
        there = _Point(
            program,
            stack,
            _within(
                program, np.minimum(np.maximum(here.z + length * step, program.low), program.high)
            ),
        )
        if program.base + there.value < below:
            return there
        ahead = dot(there.slope, step)
        if there.value <= here.value + noise and (best is None or there.value < best.value):
            best = there
            if abs(ahead) <= ENOUGH * -begin:
                break
        if far <= 0 and ahead <= STRAIGHT * begin and best is there:
            near, near_value, near_slope, length = (
                length,
                there.value,
                ahead,
                2 * length,
            )  # the ridge bounded the step, not curvature
            continue
        if ahead <= 0:
            if far <= 0:
                break
            near, near_value, near_slope = length, there.value, ahead
        else:
            far, far_value, far_slope = length, there.value, ahead
        width = far - near
        if number % 2:
            part = near_slope / (near_slope - far_slope)
        else:
            part = (far_value - near_value - far_slope * width) / (near_slope - far_slope) / width
        length = near + width * min(0.95, max(0.001, part))
    return best
