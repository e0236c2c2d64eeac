"""The minimum of a convex quadratic within a box: exact, for a few dozen unknowns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.planning.responses import Numbers

Flags = NDArray[np.bool_]
GUESSES = 8
"""Tries to guess all bounds at once."""
ROUNDS = 6
"""Bounds taken up or let go one by one, per unknown."""
RIDGE = 1e-13
"""Added to the matrix, relative to its largest entry, so that directions without curvature have an end."""
FLAT = 1e-9
"""Least ridge: without any curvature the minimum lies at the box."""


def box_minimum(matrix: Numbers, slope: Numbers, low: Numbers, high: Numbers) -> Numbers:
    """Minimum of slope·p + ½ p·matrix·p over low ≤ p ≤ high, for low ≤ 0 ≤ high and a positive semidefinite matrix.

    Guesses which bounds hold and corrects the whole guess at once, which mostly ends after two or three solves; where it
    does not, one bound is taken up or let go at a time.
    """
    ridge = max(RIDGE * float(matrix.diagonal().max(initial=0.0)), FLAT)
    matrix = matrix + ridge * np.eye(len(slope))
    at_low, at_high = (low >= 0) & (slope > 0), (high <= 0) & (slope < 0)
    for _ in range(GUESSES):
        step = _with_held(matrix, slope, low, high, at_low, at_high)
        pull = slope + matrix @ step
        new_low = np.where(at_low, pull > 0, step < low)
        new_high = np.where(at_high, pull < 0, step > high)
        if (new_low == at_low).all() and (new_high == at_high).all():
            return np.clip(step, low, high)
        at_low, at_high = new_low, new_high
    return _one_by_one(matrix, slope, low, high)


def _with_held(matrix: Numbers, slope: Numbers, low: Numbers, high: Numbers, at_low: Flags, at_high: Flags) -> Numbers:
    """The minimum with some unknowns held at their bounds and the others free."""
    step: Numbers = np.where(at_low, low, np.where(at_high, high, 0.0))
    free = ~(at_low | at_high)
    if free.all():
        return np.asarray(np.linalg.solve(matrix, -slope))
    if free.any():
        step[free] = np.linalg.solve(matrix[np.ix_(free, free)], -slope[free] - matrix[np.ix_(free, ~free)] @ step[~free])
    return step


def _one_by_one(matrix: Numbers, slope: Numbers, low: Numbers, high: Numbers) -> Numbers:
    """The same by a primal active set: always within the bounds, always down."""
    step = np.zeros(len(slope))
    at_low, at_high = (low >= 0) & (slope > 0), (high <= 0) & (slope < 0)
    for _ in range(ROUNDS * len(slope)):
        held_low, held_high = np.where(at_low, step, low), np.where(at_high, step, high)
        move = _with_held(matrix, slope, held_low, held_high, at_low, at_high) - step
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(move > 0, (high - step) / move, np.where(move < 0, (low - step) / move, np.inf))
        room[at_low | at_high] = np.inf
        first = int(np.argmin(room))
        if room[first] < 1:
            step = np.clip(step + room[first] * move, low, high)
            step[first] = high[first] if move[first] > 0 else low[first]
            (at_high if move[first] > 0 else at_low)[first] = True
            continue
        step = step + move
        pull = slope + matrix @ step
        wrong = np.where(at_low, -pull, np.where(at_high, pull, -np.inf))
        worst = int(np.argmax(wrong))
        if wrong[worst] <= 0:
            break
        at_low[worst] = at_high[worst] = False
    return np.clip(step, low, high)
