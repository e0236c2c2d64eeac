"""The continuous core: prices at which every token ends where it should, and what each pool then trades.

Minimises over prices ν the dual of: maximise a concave worth of y = h + Σ pool flows (Angeris, Evans, Chitra, Boyd, "Optimal
Routing for Constant Function Market Makers", 2022; Diamandis et al., 2023). Pools answer prices by themselves, so that one
solve over about as many unknowns as tokens settles all exchanges, splits and hubs at once. Amounts are values in units of `scale`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.floats import Numbers, dot, gram, times, total
from agent.planning.boxed import box_minimum
from agent.planning.responses import Stack

STEPS = 60
"""Most Newton steps; seven are usual."""
TRIES = 40
"""Most tries of one step's length."""
ENOUGH = 0.3
"""Part of the slope along a step that may be left at its end."""
STRAIGHT = 0.9
"""Part of the slope along a step that is left where nothing bends: such a step goes on."""
NOISE = 1e-15
"""Relative error of the dual's value: what is expected to change less is judged by the slope alone."""
LEAST_PRICE = 1e-3
"""What pools pay out counts as worth this much at least, which can only make the bound less tight."""
LEAST_RATE = 1e-12
"""Rate asked for below which none is told apart: everything is sold then."""
SNAP = 1e-15
"""Distance from an end of its range at which a multiplier counts as there."""
BALANCED = 1e-9
"""Imbalance per unit of scale at which the solve ends."""
EXACT, POLISH = 1e-14, 3
"""Imbalance that further steps aim at once the solve has ended, and the most of them: a plan made again ends at the same amounts."""


@dataclass(frozen=True, slots=True)
class Program:
    """minimise  base + cost·z + ½ z·bend·z + Σ pools(ν)  over low ≤ z ≤ high, where ν = 1 + rise·z.

    `rise` has a row per token and a column per multiplier z; `bend` is None where it is zero. The slopes at the minimum say what is
    off.
    """

    base: float
    rise: Numbers
    cost: Numbers
    bend: Numbers | None
    low: Numbers
    high: Numbers


@dataclass(frozen=True, slots=True)
class Solution:
    """Multipliers, the prices they make, and the dual there: a bound on the worth of whatever the pools can do.

    By row of the stack: what goes in and out, and `surplus`, the least that a pool brings over doing without it. `slack` is
    the largest imbalance left, per unit of scale.
    """

    multipliers: Numbers
    prices: Numbers
    bound: float
    slack: float
    taken: Numbers
    paid: Numbers
    surplus: Numbers

    def moved(self, stack: Stack) -> Numbers:
        """Change of each token by all flows."""
        size = len(self.prices)
        into, out_of = np.bincount(stack.target, self.paid, size), np.bincount(stack.source, self.taken, size)
        return np.asarray(into - out_of)


def solve(program: Program, stack: Stack, near: Solution | None = None, below: float = -np.inf) -> Solution:
    """The least value of the dual, from the multipliers of an earlier solution if they fit, else from zero.

    Newton steps, each to the minimum of the local quadratic within the box, shortened where pools begin to answer on the way.
    Ends early where the bound has fallen below a value that the flows would have to be worth.
    """
    parts = program.rise, program.cost, program.bend, program.low, program.high, stack.first, None if near is None else near.multipliers
    asked = (program.base, below, *(None if part is None else part.tobytes() for part in parts))
    if asked not in stack.known:
        stack.known[asked] = _solved(program, stack, near, below)
    found: Solution = stack.known[asked]
    return found


def _solved(program: Program, stack: Stack, near: Solution | None, below: float) -> Solution:
    begin = near.multipliers if near is not None and len(near.multipliers) == len(program.low) else np.zeros(len(program.low))
    here = _Point(program, stack, np.clip(begin, program.low, program.high))
    felt, sides = np.zeros(len(stack)), list[int]()
    for _ in range(STEPS):
        if here.slack(program) <= BALANCED or program.base + here.value < below:
            break
        curvature = here.curvature(program, stack, felt)
        step, sides = box_minimum(curvature, here.slope, program.low - here.z, program.high - here.z, sides)
        there = _search(program, stack, here, step)
        if there is None:
            break
        felt = np.maximum(felt / 4, here.bend_to(there))
        here = there
    return _polished(program, stack, here, sides).solution(program)


def _polished(program: Program, stack: Stack, here: _Point, sides: list[int]) -> _Point:
    """A few whole Newton steps more, each taken where it halves the imbalance."""
    for _ in range(POLISH):
        slack = here.slack(program)
        if not EXACT < slack <= BALANCED:
            break
        curvature = here.curvature(program, stack, np.zeros(len(stack)))
        step, sides = box_minimum(curvature, here.slope, program.low - here.z, program.high - here.z, sides)
        there = _Point(program, stack, _within(program, here.z + step))
        if there.slack(program) > slack / 2:
            break
        here = there
    return here


def evaluate(program: Program, stack: Stack, multipliers: Numbers) -> Solution:
    """The dual at these multipliers, which bounds what flows are worth as it does at its minimum, only less tightly."""
    return _Point(program, stack, multipliers).solution(program)


class Answers:
    """What every row of a stack answers to prices, given as their distance from one, so that what is near one keeps its digits."""

    __slots__ = ("asked", "depth", "into", "paid", "priced", "root", "surplus", "taken")

    def __init__(self, stack: Stack, above: Numbers) -> None:
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


class _Point(Answers):
    """The dual at one z: value, slope, and what the pools answer."""

    __slots__ = ("above", "slope", "value", "z")

    def __init__(self, program: Program, stack: Stack, z: Numbers) -> None:
        self.z = z
        bent = None if program.bend is None else times(program.bend, z)
        self.above = above = times(program.rise, z)
        super().__init__(stack, above)
        paid = np.where(self.priced, self.paid, 0.0)
        into, out_of = np.bincount(stack.target, paid, len(above)), np.bincount(stack.source, self.taken, len(above))
        moved = np.asarray(into - out_of, dtype=np.float64)
        self.value = dot(program.cost, z) + (0.0 if bent is None else 0.5 * dot(bent, z)) + total(self.surplus)
        self.slope = (program.cost if bent is None else program.cost + bent) + times(program.rise.T, moved)

    def solution(self, program: Program) -> Solution:
        """What is known here."""
        return Solution(self.z, 1 + self.above, program.base + self.value, self.slack(program), self.taken, self.paid, self.surplus)

    def slack(self, program: Program) -> float:
        """Largest slope that a multiplier within its range could still follow down."""
        free = np.where(self.slope > 0, self.z > program.low, self.z < program.high)
        return float(np.abs(self.slope[free]).max(initial=0.0))

    def curvature(self, program: Program, stack: Stack, felt: Numbers) -> Numbers:
        """Second derivatives of the dual in z; a pool adds one direction, the price pair that it answers.

        `felt` is how steeply each pool was found to answer along the last steps, where that is steeper than here.
        """
        root = self.root
        steep = np.maximum(self.depth / (2 * stack.keep * stack.keep * root * root * root), felt) / self.into
        live = steep > 0
        weight = np.where(self.priced[live], 1 + self.asked[live], 0.0)
        rows = program.rise[stack.source[live]] - weight[:, None] * program.rise[stack.target[live]]
        found = gram(rows, steep[live])
        return found if program.bend is None else found + program.bend

    def bend_to(self, other: _Point) -> Numbers:
        """How much less each pool takes per unit of rate asked more, on the way to another point."""
        gap = other.asked - self.asked
        with np.errstate(divide="ignore", invalid="ignore"):
            found = (self.taken - other.taken) / gap
        return np.asarray(np.where(np.abs(gap) > 1e-15, np.maximum(found, 0.0), 0.0))


def _within(program: Program, z: Numbers) -> Numbers:
    """The same within its ranges, and at their very ends where only rounding keeps it away."""
    z = np.where(z - program.low <= SNAP, program.low, z)
    return np.asarray(np.where(program.high - z <= SNAP, program.high, z))


def _search(program: Program, stack: Stack, here: _Point, step: Numbers) -> _Point | None:
    """The lowest point found along a step: its whole length unless it overshoots, else near where the slope turns; beyond it while
    nothing bends.

    Between a point before and one after the turn the next try is where their tangents meet, which finds corners, or by turns
    where the line through their slopes is zero, which finds smooth valleys. None when the step leads nowhere.
    """
    begin = dot(here.slope, step)
    noise = NOISE * (abs(here.value) + 1)
    if begin >= -noise:
        there = _Point(program, stack, _within(program, here.z + step))
        return there if there.slack(program) < here.slack(program) / 2 else None
    near, near_value, near_slope, far, far_value, far_slope = 0.0, here.value, begin, 0.0, 0.0, 0.0
    length, best = 1.0, None
    for number in range(TRIES):
        there = _Point(program, stack, _within(program, np.minimum(np.maximum(here.z + length * step, program.low), program.high)))
        ahead = dot(there.slope, step)
        if there.value <= here.value + noise and (best is None or there.value < best.value):
            best = there
            if abs(ahead) <= ENOUGH * -begin:
                break
        if far <= 0 and ahead <= STRAIGHT * begin and best is there:
            near, near_value, near_slope, length = length, there.value, ahead, 2 * length  # the ridge, not curvature, ended the step
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
