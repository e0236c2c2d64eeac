"""Floats that are the same on every machine, held against exact arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Context, Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import floats

EXACT = Context(prec=60)
NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)
ROWS = st.integers(1, 7).flatmap(lambda n: st.lists(st.lists(st.floats(-1, 1), min_size=n, max_size=n), min_size=n, max_size=n))


def off_by(value: float, exact: Decimal) -> float:
    """Distance from the exact value in units of the last digit."""
    return float(abs(Decimal(value) - exact) / Decimal(math.ulp(float(exact))))


@given(st.floats(-740, 709))
def test_exponential_is_right_to_two_units_of_the_last_digit(x: float) -> None:
    assert off_by(floats.exp(x), EXACT.exp(Decimal(x))) <= 2


def test_exponential_ends_where_floats_end() -> None:
    assert (floats.exp(0.0), floats.exp(-800.0)) == (1.0, 0.0)
    for x in (710.0, math.inf, math.nan):
        with pytest.raises(OverflowError):
            floats.exp(x)


@given(st.floats(1e-300, 1e300))
def test_logarithm_is_rounded_once(x: float) -> None:
    assert floats.log(x) == float(EXACT.ln(Decimal(x)))


@given(st.floats(1e-6, 1e6), st.floats(-20, 20))
def test_power_is_rounded_once(base: float, exponent: float) -> None:
    assert floats.power(base, exponent) == float(EXACT.power(Decimal(base), Decimal(exponent)))


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1))
def test_sums_do_not_hang_on_their_order(pairs: list[tuple[float, float]]) -> None:
    column, other = np.array(pairs).T
    assert floats.fsum_array(column) == float(sum(map(Fraction, column.tolist()), Fraction(0))) == floats.fsum_array(column[::-1])
    assert floats.dot(column, other) == floats.dot(column[::-1], other[::-1])


@given(ROWS)
def test_products_sum_by_index(rows: list[list[float]]) -> None:
    matrix = np.array(rows)
    weights = np.arange(1.0, len(rows) + 1)
    product = floats.matvec(matrix, weights)
    for i, row in enumerate(rows):
        so_far = 0.0
        for entry, weight in zip(row, weights.tolist(), strict=True):
            so_far += entry * weight
        assert product[i] == so_far


@given(ROWS, st.data())
def test_elimination_solves_to_rounding(rows: list[list[float]], data: st.DataObject) -> None:
    matrix = np.sum([np.outer(row, row) for row in np.array(rows)], axis=0) + np.eye(len(rows)) / 100
    right = data.draw(st.lists(NUMBERS, min_size=len(rows), max_size=len(rows)))
    solution = floats.solve_positive_definite(matrix, np.array(right)).tolist()
    sums = [sum((Fraction(a) * Fraction(x) for a, x in zip(row, solution, strict=True)), Fraction(0)) for row in matrix.tolist()]
    size = max(map(abs, [*solution, *right]), default=0.0)
    assert all(abs(a - Fraction(b)) <= 1e-13 * size * len(rows) for a, b in zip(sums, right, strict=True))
    assert np.allclose(floats.inverse(matrix) @ matrix, np.eye(len(rows)), atol=1e-9)


@pytest.mark.parametrize("solve", [lambda m: floats.solve_positive_definite(m, np.ones(2)), floats.inverse])
def test_a_matrix_that_is_not_positive_definite_is_refused(solve: Callable[[floats.FloatArray], object]) -> None:
    with pytest.raises(ValueError, match="positive definite"):
        solve(np.array([[1.0, 2.0], [2.0, 1.0]]))
