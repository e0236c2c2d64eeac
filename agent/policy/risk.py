"""Exact cost of tracking risk, and the consistency of volatilities and correlations.

Not trading costs ½·λ·V·dᵀΣd·H, where d is the deviation in shares, Σ the annual covariance, H the
horizon in years and V the value. It is the mean-variance loss of tracking error (Leland, Optimal
Portfolio Management with Transactions Costs and Capital Gains Taxes, 1999). 1 % of tracking error
is dᵀΣd = 1/10,000, so that λ/2 is its annual cost in bps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from agent.model import TrackingRisk
from agent.units import BPS, YEAR_S, Value

MIN_VOLATILITY_BPS = 10
"""Minimum annual volatility, 0.1 %: even a stable token moves, and two riskless tokens could be
swapped endlessly.
"""
MAX_VOLATILITY_BPS = 100_000
MAX_CORRELATION_BPS = 9_900
MIN_HORIZON_S = 3_600
MAX_HORIZON_S = YEAR_S
MAX_COST_BPS = 100
"""Upper bound, above which 1 % of tracking error would cost more than 1 % a year."""
LEAST_EIGENVALUE = Fraction(1, 1000)
"""Least eigenvalue of the correlations: every mix of tokens keeps some risk."""

Matrix = list[list[Fraction]]


def aversion(risk: TrackingRisk) -> Fraction:
    """Return λ·H: the marginal cost per unit of deviation and annual variance."""
    return 2 * risk.cost_bps * Fraction(risk.horizon_s, YEAR_S)


def correlations(risk: TrackingRisk, tokens: Sequence[str]) -> Matrix:
    """Return the correlation matrix in the order of `tokens`. Raises KeyError if a pair is
    missing.
    """
    correlation_of = {
        frozenset(token_pair): Fraction(bps, BPS) for *token_pair, bps in risk.correlations_bps
    }
    return [
        [
            Fraction(1) if token == other else correlation_of[frozenset((token, other))]
            for other in tokens
        ]
        for token in tokens
    ]


def volatilities(risk: TrackingRisk, tokens: Sequence[str]) -> list[Fraction]:
    """Return annual volatilities as shares of one, in the order of `tokens`. Raises KeyError if one
    is missing.
    """
    volatility_bps_of = dict(risk.volatilities_bps)
    return [Fraction(volatility_bps_of[token], BPS) for token in tokens]


def covariance(risk: TrackingRisk, tokens: Sequence[str]) -> Matrix:
    """Return the annual Σ: volatility · volatility · correlation."""
    volatility = volatilities(risk, tokens)
    correlation = correlations(risk, tokens)
    return [
        [volatility[i] * volatility[j] * correlation[i][j] for j in range(len(tokens))]
        for i in range(len(tokens))
    ]


def matrix_times_vector(matrix: Matrix, vector: Sequence[Fraction]) -> list[Fraction]:
    """Return matrix times vector."""
    return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]


def dot(first: Sequence[Fraction], second: Sequence[Fraction]) -> Fraction:
    """Return the sum of products."""
    return sum((a * b for a, b in zip(first, second, strict=True)), Fraction(0))


def penalty(
    risk: TrackingRisk,
    tokens: Sequence[str],
    targets: Sequence[Fraction],
    values: Sequence[Value],
    total: Value,
) -> Value:
    """Return the cost over the horizon of holding `values` instead of `targets`, in a portfolio
    worth `total` at the decision.
    """
    sum_of_values = sum(values, Fraction(0))
    deviations = [
        value - target * sum_of_values for value, target in zip(values, targets, strict=True)
    ]
    return (
        aversion(risk)
        / (2 * total)
        * dot(deviations, matrix_times_vector(covariance(risk, tokens), deviations))
    )


def faults(risk: TrackingRisk, labels: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (fault with its key, remedy) for each fault of the risk. `labels` are all assets by
    address.
    """
    if not 0 < risk.cost_bps <= MAX_COST_BPS:
        fault = (
            f"{float(risk.cost_bps):g} bps is out of range: it must be above 0 and at most"
            f" {MAX_COST_BPS} bps a year"
        )
        yield (
            f"policy.trigger.tracking_error_cost: {fault}",
            'write the annual cost of 1 % of tracking error, such as "0.5bps"',
        )
    if not MIN_HORIZON_S <= risk.horizon_s <= MAX_HORIZON_S:
        yield (
            f"policy.trigger.horizon: {risk.horizon_s} s is not between 1h and 365d",
            'write the time until the next review, such as "30d"',
        )
    volatilities_bps = dict(risk.volatilities_bps)
    for address, label in labels.items():
        if address not in volatilities_bps:
            yield (
                f"policy.risk.volatilities: {label} is missing",
                f'write its annual volatility, such as {label} = "60%"',
            )
        elif not MIN_VOLATILITY_BPS <= volatilities_bps[address] <= MAX_VOLATILITY_BPS:
            fault = f"{label} = {volatilities_bps[address] / 100:g}% is not between 0.1% and 1000%"
            yield (
                f"policy.risk.volatilities: {fault}",
                'even a stable token moves: write at least "0.1%"',
            )
    yield from _correlation_faults(risk, labels)


def _correlation_faults(risk: TrackingRisk, labels: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    correlation_bps_of = {
        frozenset((first, other)): bps for first, other, bps in risk.correlations_bps
    }
    tokens, is_complete = list(labels), True
    for row_index, token in enumerate(tokens):
        for other in tokens[:row_index]:
            pair_text, bps = (
                f"{labels[other]}/{labels[token]}",
                correlation_bps_of.get(frozenset((token, other))),
            )
            if bps is None:
                is_complete = False
                yield (
                    f"policy.risk.correlations: {pair_text} is missing",
                    f'write "{pair_text}" = "50%", or correlation = "…" for all that are not named',
                )
            elif abs(bps) > MAX_CORRELATION_BPS:
                is_complete = False
                yield (
                    f"policy.risk.correlations: {pair_text} = {bps / 100:g}% is beyond 99%",
                    'write "99%" for tokens that move as one',
                )
    contradicting_row = first_contradiction(correlations(risk, tokens)) if is_complete else None
    if contradicting_row is not None:
        yield (
            (
                f"policy.risk.correlations: the values of {labels[tokens[contradicting_row]]} "
                "contradict the others (the matrix is not positive"
                " semidefinite)"
            ),
            "bring them nearer to 0%, or take all of them from one table of prices",
        )


def first_contradiction(correlation_matrix: Matrix) -> int | None:
    """Return the row at which a correlation matrix stops being positive definite, its least
    eigenvalue below LEAST_EIGENVALUE; None if it never does. Exact pivots of Gaussian elimination:
    all are positive if and only if the matrix is positive definite (Sylvester).
    """
    rows = [
        [entry - (LEAST_EIGENVALUE if i == j else 0) for j, entry in enumerate(row)]
        for i, row in enumerate(correlation_matrix)
    ]
    for row_index, row in enumerate(rows):
        if row[row_index] <= 0:
            return row_index
        for lower_row in rows[row_index + 1 :]:
            multiple = lower_row[row_index] / row[row_index]
            lower_row[row_index:] = [
                entry - multiple * pivot_entry
                for entry, pivot_entry in zip(lower_row[row_index:], row[row_index:], strict=True)
            ]
    return None
