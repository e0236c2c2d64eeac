"""One grid for every value of the books, so that sums of any number of entries stay exact and small."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from agent.units import Value, floor_int

GRAIN = 10**12
"""Parts of a numeraire base unit that values are kept in: a millionth of a millionth."""


def grained(value: Fraction) -> Value:
    """The value on the grid, half to even."""
    return Fraction(round(value * GRAIN), GRAIN)


def grains(value: Value) -> int:
    """The value as so many of its parts, half to even; books go through thousands of entries in whole numbers."""
    number, rest = divmod(value.numerator * GRAIN, value.denominator)
    return number if rest == 0 else round(value * GRAIN)


def valued(number: int) -> Value:
    """So many parts as a value."""
    return Fraction(number, GRAIN)


def summed(values: Iterable[Value]) -> Value:
    """The exact sum; much quicker than adding fractions one by one where they are on the grid."""
    number, rest = 0, Fraction(0)
    for value in values:
        times, off = divmod(GRAIN, value.denominator)
        if off:
            rest += value
        else:
            number += value.numerator * times
    return valued(number) + rest


def part(value: Value, raw: int, of_raw: int) -> Value:
    """That part of a value which `raw` is of `of_raw`, rounded down to the grid; `value` less this is exactly the rest."""
    return Fraction(floor_int(value * raw / of_raw * GRAIN), GRAIN)


def shared(number: int, weights: list[int]) -> list[int]:
    """So many parts by weights that are not negative, rounded down; the last one with a weight takes what rounding left. Alike where
    all are zero.
    """
    if len(weights) == 1:
        return [number]
    whole = sum(weights)
    if whole == 0:
        weights, whole = [1] * len(weights), len(weights)
    found = [number * weight // whole for weight in weights]
    last = max(place for place, weight in enumerate(weights) if weight > 0)
    found[last] += number - sum(found)
    return found
