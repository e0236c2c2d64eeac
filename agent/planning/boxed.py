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

from agent.floats import Numbers, eliminated

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


def box_minimum(matrix: Numbers, slope: Numbers, low: Numbers, high: Numbers, near: Sequence[int] = ()) -> tuple[Numbers, list[int]]:
    """Minimum of slope·p + ½ p·matrix·p over low ≤ p ≤ high, for low ≤ 0 ≤ high and a positive semidefinite matrix.

    With it the sides at which unknowns are held there: −1 at the low end, 1 at the high end, else 0. `near` are those of a problem
    like this one; a search that begins with them is shorter, and ends at the same minimum, since there is only one.
    """
    curvature = matrix.diagonal()
    unit = 1 / np.sqrt(np.maximum(curvature, max(FLAT * float(curvature.max(initial=0.0)), LEAST)))
    rows = (matrix * unit[:, None] * unit).tolist()
    for number, row in enumerate(rows):
        row[number] += RIDGE * len(rows)
    box = _Box(rows, (slope * unit).tolist(), (low / unit).tolist(), (high / unit).tolist())
    step, sides = box.minimum(near)
    held = np.array(sides)
    return np.where(held < 0, low, np.where(held > 0, high, np.clip(np.array(step) * unit, low, high))), sides


@dataclass(frozen=True, slots=True)
class _Box:
    """The problem with unknowns scaled to curvature one, solved by a primal active set: always within the bounds, always down."""

    rows: list[Row]
    slope: Row
    low: Row
    high: Row

    def minimum(self, near: Sequence[int]) -> tuple[Row, list[int]]:
        """The minimum and the sides at which unknowns are held there."""
        there = self._fitting(near)
        sides, step = (self._first(), [0.0] * len(self.slope)) if there is None else (list(near), there)
        for _ in range(ROUNDS * len(step)):
            if there is None:
                there = self._with_held(sides, step)
            rooms = {i: self._room(i, step, there) for i in self._beyond(sides, there)}
            part = min(rooms.values(), default=1.0)
            if part < 1:
                moved = (a + part * (b - a) for a, b in zip(step, there, strict=True))
                step = [min(max(place, low), high) for place, low, high in zip(moved, self.low, self.high, strict=True)]
                for i, room in rooms.items():
                    if room <= part:
                        sides[i], step[i] = (1, self.high[i]) if there[i] > self.high[i] else (-1, self.low[i])
            else:
                step = there
                wrong, worst = max(((side * self._pull(i, step), -i) for i, side in enumerate(sides) if side), default=(0.0, 0))
                if wrong <= 0:
                    break
                sides[-worst] = 0
            there = None
        return step, sides

    def _fitting(self, near: Sequence[int]) -> Row | None:
        """The minimum with unknowns held at these sides, if that is within the box."""
        if not near:
            return None
        there = self._with_held(near, [low if side < 0 else high for side, low, high in zip(near, self.low, self.high, strict=True)])
        return None if self._beyond(near, there) else there

    def _beyond(self, sides: Sequence[int], there: Row) -> list[int]:
        """Free unknowns that are outside the box."""
        places = zip(sides, self.low, there, self.high, strict=True)
        return [i for i, (side, low, place, high) in enumerate(places) if not side and not low <= place <= high]

    def _first(self) -> list[int]:
        """Unknowns that stand at an end and are pulled further."""
        pulled = zip(self.slope, self.low, self.high, strict=True)
        return [-1 if low >= 0 and pull > 0 else 1 if high <= 0 and pull < 0 else 0 for pull, low, high in pulled]

    def _pull(self, i: int, step: Row) -> float:
        """Slope of one unknown after a step."""
        return self.slope[i] + math.fsum(map(mul, self.rows[i], step))

    def _with_held(self, sides: Sequence[int], step: Row) -> Row:
        """The minimum with the unknowns that have a side held where the step has them."""
        free = [i for i, side in enumerate(sides) if not side]
        there = [place if side else 0.0 for side, place in zip(sides, step, strict=True)]
        away = any(there)  # mostly what is held stands at zero, which pulls nothing
        last = free[::-1]
        upper = []
        for k, i in enumerate(free):
            row = self.rows[i]
            pull = self._pull(i, there) if away else self.slope[i]
            upper.append([-pull, *[row[j] for j in last[: len(free) - k]]])
        for i, place in zip(free, eliminated(upper), strict=True):
            there[i] = place
        return there

    def _room(self, i: int, step: Row, there: Row) -> float:
        """Part of the way to `there` at which an unknown meets its end."""
        move = there[i] - step[i]
        end = self.high[i] if move > 0 else self.low[i]
        return (end - step[i]) / move if move else math.inf
