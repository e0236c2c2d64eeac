"""Exact cost of tracking risk, and the consistency of volatilities and correlations.

Not trading costs ½·λ·V·dᵀΣd·H, where d is the deviation in shares, Σ the annual covariance, H the
horizon in years and V the value. It is the mean-variance loss of tracking error (Leland, Optimal
Portfolio Management with Transactions Costs and Capital Gains Taxes, 1999). 1 % of tracking error
is dᵀΣd = 1/10,000, so that λ/2 is its annual cost in bps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from operator import mul

from agent.model import TrackingRisk
from agent.units import BPS, DAY_S, HOUR_S, YEAR_S, Value, format_bps

MIN_VOLATILITY_BPS = 10
"""Minimum annual volatility, 0.1 %: even a stable token moves, and two riskless tokens could be
swapped endlessly.
"""
MAX_VOLATILITY_BPS = 100_000
MAX_CORRELATION_BPS = 9_900
MIN_HORIZON_S = 3_600
MAX_HORIZON_S = YEAR_S
MAX_TRACKING_COST_BPS = 100
"""Upper bound, above which 1 % of tracking error would cost more than 1 % a year."""
LEAST_EIGENVALUE_BPS = 10
"""The least eigenvalue of the correlations is above it: every mix of tokens keeps some risk."""

COVARIANCE_UNIT = BPS * BPS * BPS
"""Parts of one in which covariances are whole numbers."""

IntMatrix = list[list[int]]


def aversion(risk: TrackingRisk) -> Fraction:
    """Return λ·H, a year without a horizon: the marginal cost per unit of deviation and annual
    variance.
    """
    return 2 * risk.cost_bps * Fraction(risk.horizon_s or YEAR_S, YEAR_S)


def correlations_bps(risk: TrackingRisk, tokens: Sequence[str]) -> IntMatrix:
    """Return the correlation matrix in the order of `tokens`. Raises KeyError if a pair is
    missing.
    """
    bps_by_pair = {
        frozenset(token_pair): correlation_bps
        for *token_pair, correlation_bps in risk.correlations_bps
    }
    return correlation_matrix_bps(bps_by_pair, tokens)


def correlation_matrix_bps(
    bps_by_pair: Mapping[frozenset[str], int], tokens: Sequence[str]
) -> IntMatrix:
    """Return the correlation matrix in the order of `tokens`. Raises KeyError if a pair is
    missing.
    """
    matrix = [[BPS] * len(tokens) for _ in tokens]
    for i, token in enumerate(tokens):
        for j, other_token in enumerate(tokens[:i]):
            matrix[i][j] = matrix[j][i] = bps_by_pair[frozenset((token, other_token))]
    return matrix


def covariance(risk: TrackingRisk, tokens: Sequence[str]) -> IntMatrix:
    """Return the annual Σ, volatility · volatility · correlation, in whole parts of
    1/COVARIANCE_UNIT. Raises KeyError if a volatility or pair is missing.
    """
    volatility_bps_by_token = dict(risk.volatilities_bps)
    volatilities_bps = [volatility_bps_by_token[token] for token in tokens]
    return [
        [
            volatility_bps * other_volatility_bps * correlation_bps
            for other_volatility_bps, correlation_bps in zip(volatilities_bps, row, strict=True)
        ]
        for volatility_bps, row in zip(
            volatilities_bps, correlations_bps(risk, tokens), strict=True
        )
    ]


def exchange_variance(sigma: IntMatrix, first: int, second: int) -> int:
    """Return the annual variance of one token's price in another, in parts of 1/COVARIANCE_UNIT."""
    return sigma[first][first] + sigma[second][second] - 2 * sigma[first][second]


def products(matrix: Sequence[Sequence[int]], vector: Sequence[int]) -> list[int]:
    """Return matrix times vector."""
    return [sum(map(mul, row, vector)) for row in matrix]


def common_parts(vector: Sequence[Fraction]) -> tuple[list[int], int]:
    """Return the entries as whole parts of a common unit, one over the second integer: sums of
    integers need no reduction.
    """
    unit = math.lcm(*(entry.denominator for entry in vector))
    return [entry.numerator * (unit // entry.denominator) for entry in vector], unit


def tracking_cost(
    risk: TrackingRisk,
    tokens: Sequence[str],
    target_shares: Sequence[Fraction],
    asset_values: Sequence[Value],
    total_value: Value,
) -> Value:
    """Return the cost over the horizon of holding `asset_values` instead of `target_shares`, in a
    portfolio worth `total_value` at the decision.
    """
    value_parts, value_unit = common_parts(asset_values)
    target_parts, target_unit = common_parts(target_shares)
    sum_of_parts = sum(value_parts)
    deviations = [
        value_part * target_unit - target_part * sum_of_parts
        for value_part, target_part in zip(value_parts, target_parts, strict=True)
    ]
    variance = sum(map(mul, deviations, products(covariance(risk, tokens), deviations)))
    deviation_unit = value_unit * target_unit
    return (
        aversion(risk)
        / (2 * total_value)
        * Fraction(variance, COVARIANCE_UNIT * deviation_unit * deviation_unit)
    )


def faults(risk: TrackingRisk, label_by_token: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (fault with its key, remedy) for each fault of the risk. `label_by_token` has all
    assets; figures of some may be missing.
    """
    if not 0 < risk.cost_bps <= MAX_TRACKING_COST_BPS:
        fault_text = (
            f"{float(risk.cost_bps):g} bps is out of range: it must be above 0 and at most"
            f" {MAX_TRACKING_COST_BPS} bps a year"
        )
        yield (
            f"policy.trigger.tracking_error_cost: {fault_text}",
            'write the annual cost of 1 % of tracking error, such as "0.5bps"',
        )
    if risk.horizon_s is not None and not MIN_HORIZON_S <= risk.horizon_s <= MAX_HORIZON_S:
        yield (
            f"policy.trigger.horizon: {risk.horizon_s} s is not between"
            f" {MIN_HORIZON_S // HOUR_S}h and {MAX_HORIZON_S // DAY_S}d",
            'write the time until the next review, such as "30d"',
        )
    for token, volatility_bps in risk.volatilities_bps:
        if not MIN_VOLATILITY_BPS <= volatility_bps <= MAX_VOLATILITY_BPS:
            least_text = format_bps(MIN_VOLATILITY_BPS)
            yield (
                f"policy.risk.volatilities: {label_by_token[token]} = {format_bps(volatility_bps)}"
                f" is not between {least_text} and {format_bps(MAX_VOLATILITY_BPS)}",
                f'even a stable token moves: write at least "{MIN_VOLATILITY_BPS / 100:g}%"',
            )
    yield from _correlation_faults(risk, label_by_token)


def _correlation_faults(
    risk: TrackingRisk, label_by_token: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    correlation_bps_by_pair = {
        frozenset((token_a, token_b)): correlation_bps
        for token_a, token_b, correlation_bps in risk.correlations_bps
    }
    tokens = list(label_by_token)
    may_check_matrix = True
    for row_index, token in enumerate(tokens):
        for token_b in tokens[:row_index]:
            pair_text = f"{label_by_token[token_b]}/{label_by_token[token]}"
            correlation_bps = correlation_bps_by_pair.get(frozenset((token, token_b)))
            if correlation_bps is None:
                may_check_matrix = False
            elif abs(correlation_bps) > MAX_CORRELATION_BPS:
                may_check_matrix = False
                yield (
                    f"policy.risk.correlations: {pair_text} = {format_bps(correlation_bps)}"
                    f" is beyond {format_bps(MAX_CORRELATION_BPS)}",
                    f'write "{MAX_CORRELATION_BPS / 100:g}%" for tokens that move as one',
                )
    contradicting_row = (
        first_contradicting_row(correlations_bps(risk, tokens)) if may_check_matrix else None
    )
    if contradicting_row is not None:
        yield (
            f"policy.risk.correlations: the values of {label_by_token[tokens[contradicting_row]]}"
            " contradict the others, or leave a mix of tokens no risk (the least eigenvalue of the"
            f" matrix is not above {format_bps(LEAST_EIGENVALUE_BPS)})",
            "bring them nearer to 0%, or take all of them from one table of prices",
        )


def first_contradicting_row(correlation_matrix: IntMatrix) -> int | None:
    """Return the first row with which the least eigenvalue of a correlation matrix is not above
    LEAST_EIGENVALUE_BPS; None if it is above. The matrix less that share of the identity then is
    positive definite, which it is if and only if all its leading minors are positive (Sylvester);
    elimination without fractions gives them as pivots, with exact divisions (Bareiss, Sylvester's
    Identity and Multistep Integer-Preserving Gaussian Elimination, 1968).
    """
    matrix_rows = [
        [entry - (LEAST_EIGENVALUE_BPS if i == j else 0) for j, entry in enumerate(row)]
        for i, row in enumerate(correlation_matrix)
    ]
    earlier_pivot = 1
    for row_index, row in enumerate(matrix_rows):
        pivot = row[row_index]
        if pivot <= 0:
            return row_index
        for lower_row in matrix_rows[row_index + 1 :]:
            factor = lower_row[row_index]
            lower_row[row_index:] = [
                (pivot * entry - factor * pivot_entry) // earlier_pivot
                for entry, pivot_entry in zip(lower_row[row_index:], row[row_index:], strict=True)
            ]
        earlier_pivot = pivot
    return None
