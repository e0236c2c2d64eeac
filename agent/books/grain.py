"""One grid for every value of the books, so that sums of any number of entries stay exact and small."""

from __future__ import annotations

from fractions import Fraction

from agent.units import Value, floor_int

GRAIN = 10**12
"""Parts of a numeraire base unit that values are kept in: a millionth of a millionth."""


def grained(value: Fraction) -> Value:
    """The value on the grid, half to even."""
    return Fraction(round(value * GRAIN), GRAIN)


def part(value: Value, raw: int, of_raw: int) -> Value:
    """That part of a value which `raw` is of `of_raw`, rounded down to the grid; `value` less this is exactly the rest."""
    return Fraction(floor_int(value * raw / of_raw * GRAIN), GRAIN)


def shared(value: Value, weights: list[Fraction]) -> list[Value]:
    """The value by weights that are not negative; the last one with a weight takes what rounding left. Alike where all are zero."""
    whole = sum(weights, Fraction(0))
    if whole == 0:
        weights = [Fraction(1)] * len(weights)
        whole = Fraction(len(weights))
    found = [Fraction(floor_int(value * weight / whole * GRAIN), GRAIN) for weight in weights]
    last = max(number for number, weight in enumerate(weights) if weight > 0)
    found[last] += value - sum(found, Fraction(0))
    return found
