"""Minimum of a convex quadratic within a box: exact for a few dozen unknowns, and identical to the
bit on every machine.

LAPACK's last digits differ between processors and would decide directions with almost no curvature.
Therefore unknowns are scaled to curvature one, flat directions get a little curvature, and
agent/floats.py eliminates in the order of the unknowns, which breaks ties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.floats import FloatArray, IndexArray, matvec, solve_positive_definite

CHANGES_PER_UNKNOWN = 6
"""Maximum number of bounds activated or released one by one, per unknown."""
RIDGE = 2e-9
"""Curvature added to each scaled unknown, times the number of unknowns, so that flat directions
have a minimum.

A positive semidefinite matrix of n rows with ones on its diagonal has no eigenvalue above n, so
that its condition with n·RIDGE on top is at most 1 + 1/RIDGE, or 5e8.
"""
LEAST_RELATIVE_CURVATURE = 1e-12
"""Least curvature, relative to the largest, by which an unknown is scaled; anything smaller is
rounding error.
"""
LEAST_CURVATURE = 1e-9
"""Least absolute curvature by which an unknown is scaled."""


def box_minimum(
    matrix: FloatArray,
    slope: FloatArray,
    low: FloatArray,
    high: FloatArray,
    start_sides: Sequence[int] = (),
) -> tuple[FloatArray, list[int]]:
    """Return the minimum of slope·p + ½ p·matrix·p over low ≤ p ≤ high, and the side at which each
    unknown is held.

    Needs low ≤ 0 ≤ high and a positive semidefinite matrix. A side is −1 at the low end, 1 at the
    high end, else 0. `start_sides` are the sides of a similar problem. They shorten the search and
    do not change the minimum, which is unique.
    """
    curvatures = matrix.diagonal()
    scales = 1 / np.sqrt(
        np.maximum(
            curvatures,
            max(LEAST_RELATIVE_CURVATURE * float(curvatures.max(initial=0.0)), LEAST_CURVATURE),
        )
    )
    scaled_matrix = matrix * scales[:, None] * scales
    diagonal_indices = np.arange(len(scales))
    scaled_matrix[diagonal_indices, diagonal_indices] += RIDGE * len(scales)
    box = _BoxQp(scaled_matrix, slope * scales, low / scales, high / scales)
    scaled_minimum, sides = box.minimum(start_sides)
    return (
        np.where(
            sides < 0, low, np.where(sides > 0, high, np.clip(scaled_minimum * scales, low, high))
        ),
        sides.tolist(),
    )


@dataclass(frozen=True, slots=True)
class _BoxQp:
    """The problem with unknowns scaled to curvature one.

    First, all unknowns on a wrong side change it at once (block principal pivoting: Júdice, Pires,
    "A block principal pivoting algorithm for large-scale strictly monotone linear complementarity
    problems", 1994). Where that does not lead to fewer wrong sides, a primal active-set method:
    each step stays within the bounds and descends. Both search the sides in a tableau, where a
    change of one side is a rank-one update; the minimum at these sides is then solved anew.
    """

    matrix: FloatArray
    slope: FloatArray
    low: FloatArray
    high: FloatArray

    def minimum(self, start_sides: Sequence[int]) -> tuple[FloatArray, IndexArray]:
        """Return the minimum and the sides at which unknowns are held there."""
        sides = np.array(start_sides, dtype=np.intp) if start_sides else self._initial_sides()
        point = self._minimum_at(sides)
        gradient = self.slope + _sparse_product(self.matrix, point)
        corrected_sides = self._corrected_sides(sides, point, gradient)
        if (corrected_sides == sides).all():
            return point, sides
        sides = self._pivot(sides, corrected_sides)
        return self._minimum_at(sides), sides

    def _initial_sides(self) -> IndexArray:
        """Return the sides of unknowns that start at an end and are pushed beyond it by the
        slope.
        """
        pushed_below = (self.low >= 0) & (self.slope > 0)
        pushed_above = (self.high <= 0) & (self.slope < 0)
        return np.where(pushed_below, -1, np.where(pushed_above, 1, 0))

    def _ends(self, sides: IndexArray) -> FloatArray:
        return np.where(sides < 0, self.low, np.where(sides > 0, self.high, 0.0))

    def _minimum_at(self, sides: IndexArray) -> FloatArray:
        """Return the minimum with every unknown that has a side held at its end."""
        point = self._ends(sides)
        free_rows = np.flatnonzero(sides == 0)
        gradient = self.slope + _sparse_product(self.matrix, point)
        point[free_rows] = solve_positive_definite(
            self.matrix[free_rows[:, None], free_rows], -gradient[free_rows]
        )
        return point

    def _corrected_sides(
        self, sides: IndexArray, point: FloatArray, gradient: FloatArray
    ) -> IndexArray:
        """Return the sides after unknowns beyond an end are held there, and those pulled away from
        their end are freed.
        """
        beyond_sides = np.where(point > self.high, 1, np.where(point < self.low, -1, 0))
        return np.where(sides == 0, beyond_sides, np.where(gradient * sides > 0, 0, sides))

    def _pivot(self, sides: IndexArray, corrected_sides: IndexArray) -> IndexArray:
        """Return the sides at the minimum, from sides of which some are wrong."""
        tableau = _Tableau(self.matrix, self.slope, np.flatnonzero(corrected_sides == 0))
        least_wrong_count = np.count_nonzero(corrected_sides != sides)
        while True:
            sides = corrected_sides
            held_values = self._ends(sides)
            solved_values = tableau.solve(held_values)
            corrected_sides = self._corrected_sides(
                sides, np.where(sides == 0, solved_values, held_values), solved_values
            )
            wrong_count = np.count_nonzero(corrected_sides != sides)
            if wrong_count >= least_wrong_count:
                return self._descend(sides, tableau)
            if not wrong_count:
                return sides
            for k in np.flatnonzero((sides == 0) != (corrected_sides == 0)).tolist():
                tableau.toggle(k)
            least_wrong_count = wrong_count

    def _descend(self, sides: IndexArray, tableau: _Tableau) -> IndexArray:
        point = self._ends(sides)
        sides = sides.copy()
        for _ in range(CHANGES_PER_UNKNOWN * len(point)):
            is_free = sides == 0
            solved_values = tableau.solve(np.where(is_free, 0.0, point))
            target_point = np.where(is_free, solved_values, point)
            beyond_rows = np.flatnonzero((target_point > self.high) | (target_point < self.low))
            if len(beyond_rows):
                beyond_target = target_point[beyond_rows]
                beyond_point = point[beyond_rows]
                beyond_ends = np.where(
                    beyond_target > self.high[beyond_rows],
                    self.high[beyond_rows],
                    self.low[beyond_rows],
                )
                way_fractions = (beyond_ends - beyond_point) / (
                    beyond_target - beyond_point
                )  # of the way to the ends
                way_fraction = way_fractions.min()
                point = np.minimum(
                    np.maximum(point + way_fraction * (target_point - point), self.low), self.high
                )
                for k in beyond_rows[way_fractions <= way_fraction].tolist():
                    sides[k] = 1 if target_point[k] > self.high[k] else -1
                    point[k] = self.high[k] if sides[k] > 0 else self.low[k]
                    tableau.toggle(k)
            else:
                point = target_point
                wrong_gradients = np.where(is_free, 0.0, solved_values * sides)
                worst_row = int(wrong_gradients.argmax())
                if wrong_gradients[worst_row] <= 0:
                    break
                sides[worst_row] = 0
                tableau.toggle(worst_row)
        return sides


class _Tableau:
    """The equations gradient = matrix·x + slope, each solved for x where the unknown is free, for
    the gradient where it is held (principal pivot transform: Tucker, "Principal pivotal transforms
    of square matrices", 1963).
    """

    def __init__(self, matrix: FloatArray, slope: FloatArray, free_rows: IndexArray) -> None:
        self.rows = np.concatenate((matrix, slope[:, None]), axis=1)
        for k in free_rows.tolist():
            self.toggle(k)

    def toggle(self, k: int) -> None:
        """Free an unknown that is held, or hold one that is free."""
        pivot = self.rows[k, k]
        column = self.rows[:, k].copy()
        row = self.rows[k] / pivot
        self.rows -= column[:, None] * row
        self.rows[k] = -row
        self.rows[:, k] = column / pivot
        self.rows[k, k] = 1 / pivot

    def solve(self, held_values: FloatArray) -> FloatArray:
        """Return x of free unknowns and the gradient of held ones; `held_values` are the values of
        the latter, zero elsewhere.
        """
        return self.rows[:, -1] + _sparse_product(self.rows, held_values)


def _sparse_product(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    """Return matrix times vector, of which most entries are zero."""
    nonzero_rows = np.flatnonzero(vector)
    return (
        matvec(matrix[:, nonzero_rows], vector[nonzero_rows])
        if len(nonzero_rows)
        else np.zeros(len(vector))
    )
