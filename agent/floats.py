"""Float arithmetic with identical bits on every machine: sums, products, elimination, exponential
and logarithm.

IEEE 754 defines the rounding of + − × ÷ and √. Functions built on them differ between machines if a
library chooses the order or the formula: BLAS and LAPACK by processor and threads, NumPy's sums and
transcendentals by SIMD level, glibc's exp, log and pow by FMA, sum() by Python version. Here the
index fixes the order, or the order is irrelevant because `math.fsum` rounds the exact sum once.
tests/test_architecture.py keeps all other functions out of the packages that decide.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from fractions import Fraction
from functools import lru_cache
from operator import mul
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]
MAX_LIST_SIZE = 14
"""Number of unknowns up to which systems are solved in lists."""
DECIMAL_CONTEXT = Context(prec=40)
"""libmpdec calculates in integers: exp and ln are equal to 40 digits on every machine, then rounded
to a float once.
"""
_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
"""ln 2 in two parts; the first has few digits, so that its multiples are exact (Tang 1989)."""
_EXP_COEFFICIENTS = tuple(1 / math.factorial(power) for power in range(13, -1, -1))


def fsum_array(addends: FloatArray) -> float:
    """Return the exact sum, rounded once."""
    return math.fsum(addends.tolist())


def dot(left_vector: FloatArray, right_vector: FloatArray) -> float:
    """Return the sum of rounded products; the sum is rounded once."""
    return math.fsum((left_vector * right_vector).tolist())


_EQUAL_DIVISOR = 10**9
RETURN_ERROR = 1e-14
"""Bound of the rounding error of a return that was computed from two floats."""
Number = TypeVar("Number", float, Fraction)


def dispersion_floor(largest_value: Number, rounding_error: Number) -> Number:
    """Return the standard deviation up to which values are equal but for rounding: 1e-9 of the
    largest absolute value, at least the error of one value.
    """
    return max(largest_value / _EQUAL_DIVISOR, rounding_error)


def dispersion(returns: FloatArray, degrees_lost: int = 1) -> float:
    """Return the standard deviation, over n less `degrees_lost`; zero for returns that are equal
    but for rounding, or too few. A ratio to a dispersion of zero is unknown.
    """
    divisor = len(returns) - degrees_lost
    if divisor < 1:
        return 0.0
    deviations = returns - fsum_array(returns) / len(returns)
    deviation = math.sqrt(dot(deviations, deviations) / divisor)
    largest_return = max(map(abs, returns.tolist()))
    return 0.0 if deviation <= dispersion_floor(largest_return, RETURN_ERROR) else deviation


def column_dispersions(returns: FloatArray, degrees_lost: int = 1) -> FloatArray:
    """Return the dispersion of each column of `returns`."""
    return np.array([dispersion(column, degrees_lost) for column in returns.T])


def matvec(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    """Return matrix times vector, summed by index."""
    return np.asarray(np.add.accumulate(matrix * vector, axis=1)[:, -1])


def solve_positive_definite(matrix: FloatArray, rhs: FloatArray) -> FloatArray:
    """Return the x with matrix·x = rhs, for a symmetric positive definite matrix, by Gaussian
    elimination in index order. No pivoting is needed (Higham, "Accuracy and Stability of Numerical
    Algorithms", 2002, theorem 10.3). Only entries on and above the diagonal are read. Raises
    ValueError if the matrix is not positive definite.
    """
    unknown_count = len(rhs)
    if unknown_count <= MAX_LIST_SIZE:
        rows_and_rhs = zip(matrix.tolist(), rhs.tolist(), strict=True)
        return np.array(
            solve_packed(
                [[rhs_entry, *reversed(row[k:])] for k, (row, rhs_entry) in enumerate(rows_and_rhs)]
            )
        )
    augmented = np.concatenate((matrix, rhs[:, None]), axis=1)
    for k in range(unknown_count):
        row = augmented[k, k:]
        if not row[0] > 0:
            raise ValueError("the matrix is not positive definite")
        elimination_factors = row[1:-1] / row[0]
        augmented[k + 1 :, k + 1 :] -= elimination_factors[:, None] * row[1:]
    unknowns: list[float] = []  # from last to first
    for k, row in reversed(list(enumerate(augmented.tolist()))):
        known_sum = math.fsum(map(mul, reversed(row[k + 1 : -1]), unknowns))
        unknowns.append((row[-1] - known_sum) / row[k])
    return np.array(unknowns[::-1])


def solve_packed(packed_rows: list[list[float]]) -> list[float]:
    """Solve the same with the same bits in lists, which are faster for few unknowns. A row has the
    right side, then the matrix entries from the last unknown to the diagonal; rows are overwritten.
    Two pivots are eliminated at a time.
    """
    unknown_count = len(packed_rows)
    for k in range(0, unknown_count, 2):
        first_row = packed_rows[k]
        first_pivot = _pivot(first_row)
        if k + 1 == unknown_count:
            break
        first_factor = first_row[-2] / first_pivot
        packed_rows[k + 1] = second_row = [
            a - first_factor * b for a, b in zip(packed_rows[k + 1], first_row, strict=False)
        ]
        second_pivot = _pivot(second_row)
        for offset in range(2, unknown_count - k):
            first_factor = first_row[-1 - offset] / first_pivot
            second_factor = second_row[-offset] / second_pivot
            packed_rows[k + offset] = [
                a - first_factor * b - second_factor * c
                for a, b, c in zip(packed_rows[k + offset], first_row, second_row, strict=False)
            ]
    unknowns: list[float] = []  # from last to first
    for rhs, *row, pivot in reversed(packed_rows):
        unknowns.append((rhs - math.fsum(map(mul, row, unknowns))) / pivot)
    return unknowns[::-1]


def _pivot(row: list[float]) -> float:
    if not row[-1] > 0:
        raise ValueError("the matrix is not positive definite")
    return row[-1]


def inverse(matrix: FloatArray) -> FloatArray:
    """Return the inverse of a symmetric positive definite matrix. Raises ValueError otherwise."""
    unit_vectors = np.eye(len(matrix))
    return np.array(
        [solve_positive_definite(matrix, unit_vector) for unit_vector in unit_vectors]
    ).reshape(matrix.shape)


def exp(x: float) -> float:
    """Return e^x within two units of the last digit; 0 below −745. Raises OverflowError
    above 709.
    """
    if x < -745:
        return 0.0
    if not x <= 709:
        raise OverflowError(f"exp({x}) is too large")
    exponent = round(x / (_LN2_HIGH + _LN2_LOW))
    remainder = x - exponent * _LN2_HIGH - exponent * _LN2_LOW
    series_sum = 0.0
    for coefficient in _EXP_COEFFICIENTS:
        series_sum = series_sum * remainder + coefficient
    return math.ldexp(series_sum, exponent)


def log(x: float) -> float:
    """Return the natural logarithm of x > 0, rounded once."""
    return float(DECIMAL_CONTEXT.ln(Decimal(x)))


@lru_cache(maxsize=1024)
def power(base: float, exponent: float) -> float:
    """Return base > 0 to any power, rounded once. Raises OverflowError above the floats."""
    result = float(
        DECIMAL_CONTEXT.exp(
            DECIMAL_CONTEXT.multiply(DECIMAL_CONTEXT.ln(Decimal(base)), Decimal(exponent))
        )
    )
    if result == math.inf:
        raise OverflowError(f"{base}**{exponent} is too large")
    return result
