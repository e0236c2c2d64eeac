"""The minimum of a convex quadratic within a box: exact, for a few dozen unknowns, and the same to the bit on every machine.

LAPACK ends with other digits on other processors, and where a direction has hardly any curvature those digits decide. So unknowns are
scaled to curvature one, flat directions are given a little, and the elimination is our own (agent/floats.py), in the order of
the unknowns, which settles ties.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

import numpy as np

from agent.floats import Numbers, solved

GUESSES = 8
"""Tries to guess all bounds at once."""
ROUNDS = 6
"""Bounds taken up or let go one by one, per unknown."""
RIDGE = 2e-9
"""Curvature added to each unknown, once it is scaled to one, per unknown that there is: flat directions have an end then.

A positive semidefinite matrix of n rows with ones on its diagonal has no eigenvalue above n, so that its condition with n·RIDGE on
top is at most 1 + 1/RIDGE, or 5e8.
"""
FLAT = 1e-12
"""Least curvature, of the largest, that an unknown is scaled by: what is below is rounding."""
LEAST = 1e-9
"""Least curvature of all: without any the minimum lies at the box."""

Row = list[float]


def box_minimum(matrix: Numbers, slope: Numbers, low: Numbers, high: Numbers) -> Numbers:
    """Minimum of slope·p + ½ p·matrix·p over low ≤ p ≤ high, for low ≤ 0 ≤ high and a positive semidefinite matrix.

    Guesses which bounds hold and corrects the whole guess at once, which mostly ends after two or three solves; where it
    does not, one bound is taken up or let go at a time.
    """
    curvature = matrix.diagonal()
    unit = 1 / np.sqrt(np.maximum(curvature, max(FLAT * float(curvature.max(initial=0.0)), LEAST)))
    rows = (matrix * unit[:, None] * unit).tolist()
    for number, row in enumerate(rows):
        row[number] += RIDGE * len(rows)
    box = _Box(rows, (slope * unit).tolist(), (low / unit).tolist(), (high / unit).tolist())
    step, sides = box.minimum()
    held = np.array(sides)
    return np.where(held < 0, low, np.where(held > 0, high, np.clip(np.array(step) * unit, low, high)))


@dataclass(frozen=True, slots=True)
class _Box:
    """The problem with unknowns scaled to curvature one. A side is −1 for an unknown held at its low end, 1 at its high end, else 0."""

    rows: list[Row]
    slope: Row
    low: Row
    high: Row

    def minimum(self) -> tuple[Row, list[int]]:
        """The minimum and the sides at which unknowns are held there."""
        sides = self._first()
        for _ in range(GUESSES):
            step = self._with_held(sides, self._ends(sides))
            better = self._better(sides, step)
            if better == sides:
                return step, sides
            sides = better
        return self._one_by_one()

    def _first(self) -> list[int]:
        """Unknowns that stand at an end and are pulled further."""
        pulled = zip(self.slope, self.low, self.high, strict=True)
        return [-1 if low >= 0 and pull > 0 else 1 if high <= 0 and pull < 0 else 0 for pull, low, high in pulled]

    def _ends(self, sides: Sequence[int]) -> Row:
        """Where held unknowns stand."""
        return [low if side < 0 else high if side > 0 else 0.0 for side, low, high in zip(sides, self.low, self.high, strict=True)]

    def _better(self, sides: Sequence[int], step: Row) -> list[int]:
        """Held unknowns stay as long as they are pulled outwards; free ones are held at an end that they pass."""
        return [
            (side if side * self._pull(i, step) < 0 else 0) if side else -1 if place < low else 1 if place > high else 0
            for i, (side, place, low, high) in enumerate(zip(sides, step, self.low, self.high, strict=True))
        ]

    def _pull(self, i: int, step: Row) -> float:
        """Slope of one unknown after a step."""
        return self.slope[i] + math.fsum(map(mul, self.rows[i], step))

    def _with_held(self, sides: Sequence[int], held: Row) -> Row:
        """The minimum with some unknowns held where they are and the others free."""
        step = [place if side else 0.0 for side, place in zip(sides, held, strict=True)]
        free = [i for i, side in enumerate(sides) if not side]
        away = any(step)  # mostly what is held stands at zero, which pulls nothing
        right = [-self._pull(i, step) if away else -self.slope[i] for i in free]
        if len(free) == len(step):
            return solved(self.rows, right)
        for i, value in zip(free, solved([[self.rows[i][j] for j in free] for i in free], right), strict=True):
            step[i] = value
        return step

    def _one_by_one(self) -> tuple[Row, list[int]]:
        """The same by a primal active set: always within the bounds, always down."""
        sides, step = self._first(), [0.0] * len(self.slope)
        for _ in range(ROUNDS * len(step)):
            there = self._with_held(sides, step)
            part, first = min((self._room(i, step, there) for i, side in enumerate(sides) if not side), default=(1.0, 0))
            if part < 1:
                sides[first] = 1 if there[first] > step[first] else -1
                step = [a + part * (b - a) for a, b in zip(step, there, strict=True)]
                step = [min(max(place, low), high) for place, low, high in zip(step, self.low, self.high, strict=True)]
                step[first] = self.high[first] if sides[first] > 0 else self.low[first]
                continue
            step = there
            wrong, worst = max(((side * self._pull(i, step), -i) for i, side in enumerate(sides) if side), default=(0.0, 0))
            if wrong <= 0:
                break
            sides[-worst] = 0
        return step, sides

    def _room(self, i: int, step: Row, there: Row) -> tuple[float, int]:
        """Part of the way to `there` at which an unknown meets its end, with its number."""
        move = there[i] - step[i]
        end = self.high[i] if move > 0 else self.low[i]
        return ((end - step[i]) / move if move else math.inf), i
