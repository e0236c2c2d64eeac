"""Returns and covariances from recorded prices: one price per token and interval, returns between
consecutive intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.errors import Refused
from agent.floats import dispersion, dot, fsum_array, matvec, solve_positive_definite
from agent.model import PricePoint
from agent.units import YEAR_S, format_duration, format_time

Floats = NDArray[np.float64]
MIN_RETURNS = 2
"""Minimum number of returns for a variance."""
MIN_EIGENVALUE = 1e-9
"""Minimum eigenvalue of a correlation matrix (mean 1); below it one asset is a combination of the
others.
"""


MAX_RETURN_SHARE = 0.5
"""Largest part of a token's variance that one return may make: above it the price is probably wrong,
or one event decides the weights.
"""
MANY_RETURNS = 20
"""Returns from which MAX_RETURN_SHARE holds; of fewer one often makes half by chance."""
FEW_RETURNS = 10
"""Returns from which one may make at most MAX_PART_OF_FEW of what a single outlier makes."""
MAX_PART_OF_FEW = 0.98


class ReturnsWindow(Protocol):
    """Window of recorded prices: an AllocatorConfig, or the RiskEstimationWindow of a no-trade
    zone.
    """

    @property
    def window_s(self) -> int:
        """Length of the window in seconds."""

    @property
    def step_s(self) -> int:
        """Interval of a return in seconds."""

    @property
    def min_returns(self) -> int:
        """Minimum number of returns common to all tokens."""

    @property
    def max_age_s(self) -> int:
        """Maximum age of the newest price in seconds."""


@dataclass(frozen=True, slots=True)
class Returns:
    """Simple returns of `tokens` (columns) over intervals of `step_s` with prices of all tokens
    (rows).

    `skipped_intervals` is the number of intervals between the first and the last that were skipped for a missing
    price, `ends_s` the time of each row's later price of the first token.
    """

    tokens: tuple[str, ...]
    simple_returns: Floats
    step_s: int
    from_s: int
    until_s: int
    skipped_intervals: int
    ends_s: tuple[int, ...] = ()

    @property
    def volatilities(self) -> Floats:
        """Annual standard deviation of the returns of each token (year of 365 days)."""
        return_count = len(self.simple_returns)
        return np.array(
            [
                math.sqrt(dot(deviations, deviations) / (return_count - 1) * YEAR_S / self.step_s)
                for deviations in _deviations(self.simple_returns)
            ]
        )

    @property
    def correlations(self) -> Floats:
        """Sample correlations."""
        return _correlation_matrix(_standardised_returns(self.simple_returns))


def compute_returns(
    window: ReturnsWindow,
    tokens: Sequence[str],
    label_by_token: Mapping[str, str],
    prices: Sequence[PricePoint],
    now_s: int,
) -> Returns:
    """Return the returns of `tokens` within the window. Raises Refused for prices that are missing,
    too old or constant.
    """
    points_by_token = {token: _point_by_interval(prices, token, window, now_s) for token in tokens}
    unpriced_names = [label_by_token[token] for token in tokens if not points_by_token[token]]
    if unpriced_names:
        raise Refused(
            f"no prices of {', '.join(unpriced_names)} within {format_duration(window.window_s)}, from"
            f" {format_time(now_s - window.window_s)} on",
            remedy=_REMEDY,
        )
    shared_intervals = sorted(
        set.intersection(*(set(token_points) for token_points in points_by_token.values()))
    )
    interval_pairs = [
        (start_interval, end_interval)
        for start_interval, end_interval in pairwise(shared_intervals)
        if end_interval == start_interval + 1
    ]
    min_return_count = max(window.min_returns, MIN_RETURNS)
    if len(interval_pairs) < min_return_count:
        least_priced_token = min(tokens, key=lambda token: (len(points_by_token[token]), token))
        raise Refused(
            f"{len(interval_pairs)} returns of {format_duration(window.step_s)} common to all, min_history requires"
            f" {min_return_count}; {label_by_token[least_priced_token]} has {len(points_by_token[least_priced_token])} prices"
            f" from {format_time(now_s - window.window_s)} on, where the window starts",
            remedy=_REMEDY,
        )
    until_s = min(points_by_token[token][shared_intervals[-1]].at_s for token in tokens)
    if now_s - until_s > window.max_age_s:
        stalest_token = min(
            tokens,
            key=lambda token: (
                max(point.at_s for point in points_by_token[token].values()),
                token,
            ),
        )
        raise Refused(
            f"the newest common prices are {format_duration(now_s - until_s)} old, max_age is"
            f" {format_duration(window.max_age_s)}; {label_by_token[stalest_token]} has the oldest",
            remedy=_REMEDY,
        )
    simple_returns = np.array(
        [
            [
                float(
                    points_by_token[column_token][end_interval].price
                    / points_by_token[column_token][start_interval].price
                    - 1
                )
                for column_token in tokens
            ]
            for start_interval, end_interval in interval_pairs
        ],
        dtype=np.float64,
    )
    constant_names = [
        label_by_token[token]
        for token, column in zip(tokens, simple_returns.T, strict=True)
        if not dispersion(column)
    ]
    if constant_names:
        raise Refused(
            f"the price of {', '.join(constant_names)} does not move: no variance",
            remedy="name it in portfolio.weights.fixed",
        )
    from_s = min(points_by_token[token][interval_pairs[0][0]].at_s for token in tokens)
    skipped_intervals = shared_intervals[-1] - shared_intervals[0] - len(interval_pairs)
    ends_s = tuple(points_by_token[tokens[0]][end].at_s for _, end in interval_pairs)
    return Returns(
        tuple(tokens), simple_returns, window.step_s, from_s, until_s, skipped_intervals, ends_s
    )


ACCEPT_HINT = "trimtab weights --accept, on paper with --paper"
"""How the owner accepts a choice that waits."""


def require_no_dominant_return(returns: Returns, label_by_token: Mapping[str, str]) -> None:
    """Raise Refused if one return makes more than MAX_RETURN_SHARE of a token's variance, or of few
    returns nearly all: one outlier among n equal returns makes (n - 1)/n.
    """
    return_count = len(returns.simple_returns)
    if return_count < FEW_RETURNS:
        return
    max_share = MAX_RETURN_SHARE
    if return_count < MANY_RETURNS:
        max_share = MAX_PART_OF_FEW * (return_count - 1) / return_count
    for column, deviations in enumerate(_deviations(returns.simple_returns)):
        squares = deviations * deviations
        row = max(range(len(squares)), key=squares.__getitem__)
        share = float(squares[row]) / fsum_array(squares)
        if share <= max_share:
            continue
        raise Refused(
            f"one return makes {share * 100:.0f} % of the variance of"
            f" {label_by_token[returns.tokens[column]]}:"
            f" {float(returns.simple_returns[row, column]) * 100:+,.1f} % until"
            f" {format_time(returns.ends_s[row])}; the choice waits for the owner"
            f" ({ACCEPT_HINT})",
            remedy="correct the price (trimtab prices forget import), use a longer window, or accept"
            " the choice if the price is right",
        )


def shrunk_covariance(returns: Returns, label_by_token: Mapping[str, str]) -> Floats:
    """Return the annual covariance: sample volatilities, and correlations shrunk towards zero as in
    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices"
    (2004). Standardised returns are used, so that shrinkage does not depend on volatility. Raises
    Refused if one asset is a combination of others.
    """
    sample_correlation = returns.correlations
    if not _is_positive_definite(sample_correlation):
        absolute_correlations = np.abs(sample_correlation - np.eye(len(sample_correlation)))
        first_name, second_name = sorted(
            label_by_token[returns.tokens[int(i)]]
            for i in np.unravel_index(
                int(absolute_correlations.argmax()), absolute_correlations.shape
            )
        )
        raise Refused(
            f"the covariance is singular: {first_name} and {second_name} correlate at {absolute_correlations.max():.9f}, over"
            f" {len(returns.simple_returns)} returns",
            remedy="keep one of them among the free assets, or use a longer window",
        )
    shrunk_correlation = _shrunk_correlation(returns.simple_returns)
    return np.outer(returns.volatilities, returns.volatilities) * shrunk_correlation


def _is_positive_definite(correlation: Floats) -> bool:
    """True if every eigenvalue is above MIN_EIGENVALUE, so that the matrix less MIN_EIGENVALUE · I
    is positive definite.
    """
    try:
        solve_positive_definite(
            correlation - MIN_EIGENVALUE * np.eye(len(correlation)), np.zeros(len(correlation))
        )
    except ValueError:
        return False
    return True


def _shrunk_correlation(simple_returns: Floats) -> Floats:
    """Return the correlations shrunk towards zero by the share β²/δ² (section 3.3 of the paper)."""
    standardised_returns = _standardised_returns(simple_returns)
    token_count, return_count = standardised_returns.shape
    sample_correlation = _correlation_matrix(standardised_returns)
    delta_squared = fsum_array(np.square(sample_correlation - np.eye(token_count)).ravel())
    square_sums = matvec(np.square(standardised_returns).T, np.ones(token_count))
    beta_squared = (
        dot(square_sums, square_sums) / return_count
        - fsum_array(np.square(sample_correlation).ravel())
    ) / return_count
    shrinkage = (
        min(max(beta_squared, 0.0), delta_squared) / delta_squared if delta_squared > 0 else 0.0
    )
    return (1 - shrinkage) * sample_correlation + shrinkage * np.eye(token_count)


def _deviations(simple_returns: Floats) -> list[Floats]:
    """Return the deviations from the mean return, by token."""
    return [
        column - fsum_array(column) / len(column)
        for column in np.ascontiguousarray(simple_returns.T)
    ]


def _standardised_returns(simple_returns: Floats) -> Floats:
    """Return the standardised returns, one row per token."""
    return np.array(
        [
            deviations / math.sqrt(dot(deviations, deviations) / len(deviations))
            for deviations in _deviations(simple_returns)
        ]
    )


def _correlation_matrix(standardised_returns: Floats) -> Floats:
    """Return the sample correlations of standardised returns."""
    correlations = np.eye(len(standardised_returns))
    for i, token_returns in enumerate(standardised_returns):
        for j in range(i):
            correlations[i, j] = correlations[j, i] = min(
                1.0, max(-1.0, dot(token_returns, standardised_returns[j]) / len(token_returns))
            )
    return correlations


def _point_by_interval(
    prices: Sequence[PricePoint], token: str, window: ReturnsWindow, now_s: int
) -> dict[int, PricePoint]:
    """Return the last price of each interval within the window, the current interval included."""
    window_start_s = now_s - window.window_s - window.step_s
    return {
        point.at_s // window.step_s: point
        for point in prices
        if point.token == token and window_start_s < point.at_s <= now_s
    }


_REMEDY = (
    "wait until the agent has recorded prices, or run trimtab prices import or trimtab prices fetch"
)
