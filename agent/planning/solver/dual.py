"""The continuous core: find the prices at which every token reaches its goal, and each pool's trade
at them. Minimises, over prices ν, the dual of maximising a concave utility of y = h + Σ pool flows
(Angeris, Evans, Chitra, Boyd, "Optimal Routing for Constant Function Market Makers", 2022;
Diamandis et al., 2023). Pools respond to prices independently, so one solve, with about as many
unknowns as tokens, determines all exchanges, splits and hubs at once. Amounts are values in units
of `scale`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.floats import FloatArray, dot, fsum_array, matvec
from agent.planning.pool_curves import CurveStack
from agent.planning.solver.box import box_minimum

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
