"""Returns from recorded prices: one price of each token per interval, returns between neighbouring
intervals, covariances.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.errors import Refused
from agent.floats import dot, fsum_array, matvec, solve_positive_definite
from agent.model import PricePoint
from agent.units import BPS, YEAR_S

Floats = NDArray[np.float64]
MIN_RETURNS = 2
"""Least number of returns for a variance."""
MIN_EIGENVALUE = 1e-9
"""Least eigenvalue of a matrix of correlations, of 1 on average: below it one asset is made of the
others."""


class ReturnsWindow(Protocol):
    """Window of recorded prices: that of an AllocatorConfig, or of a zone's
    RiskEstimationWindow.
    """

    @property
    def window_s(self) -> int:
        """Length of the window in seconds."""
        ...

    @property
    def step_s(self) -> int:
        """Time of a return."""
        ...

    @property
    def min_returns(self) -> int:
        """Fewest that all tokens need together."""
        ...

    @property
    def max_age_s(self) -> int:
        """Greatest age of the newest price."""
        ...


@dataclass(frozen=True, slots=True)
class Returns:
    """Simple returns of `tokens` (columns) over each interval of `step_s` that all of them have
    both ends of (rows).

    `gaps` are intervals between the first and the last that were left out since a price is missing.
    """

    tokens: tuple[str, ...]
    moves: Floats
    step_s: int
    from_s: int
    until_s: int
    gaps: int

    @property
    def volatility(self) -> Floats:
        """Standard deviation of each token's returns, a year of 365 days."""
        count = len(self.moves)
        return np.array(
            [
                math.sqrt(dot(off, off) / (count - 1) * YEAR_S / self.step_s)
                for off in _centred(self.moves)
            ]
        )

    @property
    def correlation(self) -> Floats:
        """Sample correlations."""
        return _correlated(_scores(self.moves))


def compute_returns(
    weights: ReturnsWindow,
    tokens: Sequence[str],
    names: Mapping[str, str],
    prices: Sequence[PricePoint],
    now_s: int,
) -> Returns:
    """Return the returns of `tokens` within the window. Raises Refused naming prices that are
    missing, too old or constant.
    """
    series = {token: _by_interval(prices, token, weights, now_s) for token in tokens}
    none = [names[token] for token in tokens if not series[token]]
    if none:
        raise Refused(
            f"no prices of {', '.join(none)} within {_days(weights.window_s)}", remedy=_REMEDY
        )
    shared = sorted(set.intersection(*(set(one) for one in series.values())))
    pairs = [(a, b) for a, b in pairwise(shared) if b == a + 1]
    least = max(weights.min_returns, MIN_RETURNS)
    if len(pairs) < least:
        fewest = min(tokens, key=lambda token: (len(series[token]), token))
        raise Refused(
            f"{len(pairs)} returns of {_days(weights.step_s)} common to all, min_history requires"
            f" {least}; {names[fewest]} has {len(series[fewest])} prices",
            remedy=_REMEDY,
        )
    until_s = min(series[token][shared[-1]].at_s for token in tokens)
    if now_s - until_s > weights.max_age_s:
        oldest = min(
            tokens, key=lambda token: (max(one.at_s for one in series[token].values()), token)
        )
        raise Refused(
            f"the newest prices that all have are {_days(now_s - until_s)} old, max_age is"
            f" {_days(weights.max_age_s)}; the oldest is that of {names[oldest]}",
            remedy=_REMEDY,
        )
    moves = np.array(
        [[float(series[t][b].price / series[t][a].price - 1) for t in tokens] for a, b in pairs],
        dtype=np.float64,
    )
    unmoved = [
        names[token]
        for token, column in zip(tokens, moves.T, strict=True)
        if not np.ptp(column) > 0
    ]
    if unmoved:
        raise Refused(
            f"the price of {', '.join(unmoved)} does not move: no variance",
            remedy="name it in portfolio.weights.fixed",
        )
    from_s = min(series[token][pairs[0][0]].at_s for token in tokens)
    gaps = shared[-1] - shared[0] - len(pairs)
    return Returns(tuple(tokens), moves, weights.step_s, from_s, until_s, gaps)


def covariance(found: Returns, names: Mapping[str, str]) -> Floats:
    """Return the annual covariance: volatilities as measured, correlations shrunk towards zero by
    the sample's estimate.

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices"
    (2004), on standardised returns, so that a low-volatility asset is not treated like a volatile
    one. Raises Refused if one asset is a combination of others: shrinkage cannot decide between
    them.
    """
    sample = found.correlation
    if not _is_regular(sample):
        off = np.abs(sample - np.eye(len(sample)))
        one, other = sorted(
            names[found.tokens[int(i)]] for i in np.unravel_index(int(off.argmax()), off.shape)
        )
        raise Refused(
            f"the covariance is singular: {one} and {other} move by {off.max():.9f} alike, over"
            f" {len(found.moves)} returns",
            remedy="keep one of them among the free assets, or take a longer window",
        )
    shrunk = _shrunk_correlation(found.moves)
    return np.outer(found.volatility, found.volatility) * shrunk


def _is_regular(sample: Floats) -> bool:
    """True if every eigenvalue is above MIN_EIGENVALUE: the matrix less that on its diagonal is
    then positive definite.
    """
    try:
        solve_positive_definite(
            (sample - MIN_EIGENVALUE * np.eye(len(sample))).tolist(), [0.0] * len(sample)
        )
    except ValueError:
        return False
    return True


def _shrunk_correlation(moves: Floats) -> Floats:
    """Correlations pulled towards none by the share that the sample asks for: β²/δ² of the paper,
    section 3.3.
    """
    scores = _scores(moves)
    size, count = scores.shape
    sample = _correlated(scores)
    away = fsum_array(np.square(sample - np.eye(size)).ravel())
    spread = matvec(np.square(scores).T, np.ones(size))
    noise = (dot(spread, spread) / count - fsum_array(np.square(sample).ravel())) / count
    part = min(max(noise, 0.0), away) / away if away > 0 else 0.0
    return (1 - part) * sample + part * np.eye(size)


def _centred(moves: Floats) -> list[Floats]:
    """By token, how far each return is off their mean."""
    return [column - fsum_array(column) / len(column) for column in np.ascontiguousarray(moves.T)]


def _scores(moves: Floats) -> Floats:
    """By token (rows), returns less their mean in units of their deviation."""
    return np.array([off / math.sqrt(dot(off, off) / len(off)) for off in _centred(moves)])


def _correlated(scores: Floats) -> Floats:
    """Sample correlations of scores."""
    found = np.eye(len(scores))
    for i, one in enumerate(scores):
        for j in range(i):
            found[i, j] = found[j, i] = min(1.0, max(-1.0, dot(one, scores[j]) / len(one)))
    return found


def _by_interval(
    prices: Sequence[PricePoint], token: str, weights: ReturnsWindow, now_s: int
) -> dict[int, PricePoint]:
    """The last price of each interval within the window, the one that is not over yet included."""
    start_s = now_s - weights.window_s - weights.step_s
    return {
        point.at_s // weights.step_s: point
        for point in prices
        if point.token == token and start_s < point.at_s <= now_s
    }


def _days(seconds: int) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{float(Fraction(seconds, size)):.3g} {unit}"
    return f"{seconds} s"


_REMEDY = "wait for the agent's own records, or trimtab prices import, trimtab prices fetch"


# --- Volatilities and correlations of recorded prices in whole basis points, by the returns and the
# shrinkage that allocators use.


@dataclass(frozen=True, slots=True)
class RiskEstimate:
    """Annual volatilities by token and correlations of each pair of them once, bps; `count` returns
    of `from_s` to `until_s`.
    """

    volatilities_bps: tuple[tuple[str, int], ...]
    correlations_bps: tuple[tuple[str, str, int], ...]
    count: int
    from_s: int
    until_s: int


def estimate_risk(
    window: ReturnsWindow,
    tokens: Sequence[str],
    names: Mapping[str, str],
    prices: Sequence[PricePoint],
    now_s: int,
) -> RiskEstimate:
    """Of at least one token. Raises Refused naming what is missing, too old, does not move, or is
    made of the others.
    """
    seen = compute_returns(window, tokens, names, prices, now_s)
    matrix = covariance(seen, names)
    spread = np.sqrt(np.diag(matrix))
    related = matrix / np.outer(spread, spread)
    pairs = [(one, other) for one in range(len(tokens)) for other in range(one)]
    return RiskEstimate(
        tuple((token, _to_bps(float(value))) for token, value in zip(tokens, spread, strict=True)),
        tuple(
            (tokens[other], tokens[one], _to_bps(_entry(related, one, other)))
            for one, other in pairs
        ),
        len(seen.moves),
        seen.from_s,
        seen.until_s,
    )


def _entry(matrix: Floats, row: int, column: int) -> float:
    return float(matrix[row, column])


def _to_bps(share: float) -> int:
    """Return basis points, rounded half to even: the only exit of these floats to decisions."""
    return round(share * BPS)


# --- Optional packages of some allocators: loaded on first use, since they take seconds; a missing
# one is an error with its remedy.


def import_extra(module: str) -> Any:
    """The module. Raises Refused if the extra `analysis` is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        raise Refused(
            f"{missing.name} is not installed",
            remedy="pip install 'trimtab[analysis]', or take another kind",
        ) from None
