"""Integrals against the normal density, by panels of Gauss-Legendre quadrature: no sampling, the same answer every time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

from agent.floats import exp

POINTS = 16
"""Nodes per panel: exact for polynomials up to degree 31."""
WIDEST = 1.0
"""Standard deviations per panel."""
FURTHEST = 9.0
"""Standard deviations beyond which the density holds less than 1e-18."""


def _cosine(angle: float) -> float:
    """Of an angle between 0 and π by its series: good enough to begin with, and the same on every machine."""
    term = value = 1.0
    for order in range(2, 40, 2):
        term *= -angle * angle / ((order - 1) * order)
        value += term
    return value


def _legendre(count: int) -> tuple[tuple[float, float], ...]:
    """Nodes and weights on [-1, 1]: roots of the Legendre polynomial by Newton's method (Abramowitz and Stegun 25.4.29)."""
    found = []
    for number in range(count):
        x = _cosine(math.pi * (number + 0.75) / (count + 0.5))
        slope = 1.0
        for _ in range(100):
            before, value = 1.0, x
            for order in range(2, count + 1):
                before, value = value, ((2 * order - 1) * x * value - (order - 1) * before) / order
            slope = count * (x * value - before) / (x * x - 1)
            step = value / slope
            x -= step
            if abs(step) < 1e-15:
                break
        found.append((x, 2 / ((1 - x * x) * slope * slope)))
    return tuple(found)


_NODES = _legendre(POINTS)


def normal_mean(function: Callable[[float], float], kinks: Iterable[float], stretch: float = 0.0) -> float:
    """Mean of function(z) for a standard normal z. `kinks` are where it is not smooth: no panel reaches across one.

    `stretch` is how far functions that grow like exp(stretch·z) move the mass of the integral to the right.
    """
    low, high = -FURTHEST, FURTHEST + max(0.0, stretch)
    edges = sorted({low, high, *(kink for kink in kinks if low < kink < high)})
    total = 0.0
    for start, end in pairwise(edges):
        panels = max(1, math.ceil((end - start) / WIDEST))
        half = (end - start) / panels / 2
        for panel in range(panels):
            middle = start + (2 * panel + 1) * half
            for node, weight in _NODES:
                z = middle + half * node
                total += weight * half * exp(-z * z / 2) * function(z)
    return total / math.sqrt(2 * math.pi)
