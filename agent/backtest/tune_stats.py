"""What the best of many settings is worth: Sharpe ratios deflated by the number of trials, and the chance of over-fitting."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from math import e, sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EULER = 0.5772156649015329
MOST_BLOCKS, FEWEST_BLOCKS, FEWEST_PER_BLOCK = 16, 4, 4
"""16 blocks are those of the paper's examples: 12,870 ways to halve them."""
_AT_ONCE = 4_000_000
"""Numbers that are looked at side by side, at most: 32 MB."""


class Objective(Enum):
    """By what settings are ranked: the mean of their log returns, or that by its standard deviation."""

    GROWTH = "growth"
    SHARPE = "sharpe"


@dataclass(frozen=True, slots=True)
class Deflated:
    """A Sharpe ratio per period that was the best of `trials`, the one that luck alone would be expected to bring, and the
    probability that the true one is above that.
    """

    sharpe: float
    threshold: float
    trials: int
    probability: float


@dataclass(frozen=True, slots=True)
class Overfitting:
    """How often the best of one half of the data was below the median in the other; `ways` to halve `blocks` equal pieces."""

    probability: float
    ways: int
    blocks: int


def scores(returns: Floats, objective: Objective) -> Floats:
    """The objective of each column of `returns[period, setting]`, per period. A column that never moves has a Sharpe ratio of zero."""
    count = len(returns)
    found: Floats = _scores(returns.sum(axis=0)[None], (returns**2).sum(axis=0)[None], count, objective)[0]
    return found


def _scores(total: Floats, squares: Floats, count: int, objective: Objective) -> Floats:
    mean: Floats = total / count
    if objective is Objective.GROWTH:
        return mean
    spread = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    small = spread <= 1e-12
    found: Floats = np.where(small, 0.0, mean / np.where(small, 1.0, spread))
    return found


def expected_maximum(variance: float, trials: int) -> float:
    """The best Sharpe ratio to be expected of so many trials without any skill, whose own have that variance.

    Bailey & López de Prado 2014, "The Deflated Sharpe Ratio", equation 1: sqrt(V)·((1 - γ)·Z⁻¹(1 - 1/N) + γ·Z⁻¹(1 - 1/(N·e))).
    """
    from scipy.stats import norm

    if trials < 2:
        return 0.0
    beyond = (1.0 - EULER) * norm.ppf(1.0 - 1.0 / trials) + EULER * norm.ppf(1.0 - 1.0 / (trials * e))
    return sqrt(max(variance, 0.0)) * float(beyond)


def probabilistic_sharpe(sharpe: float, threshold: float, periods: int, skew: float, kurtosis: float) -> float:
    """Probability that the true Sharpe ratio per period is above `threshold`; `kurtosis` is 3 for a normal distribution.

    Bailey & López de Prado 2014, equation 2. Takes returns of different periods for independent.
    """
    from scipy.stats import norm

    spread = 1.0 - skew * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2
    return float(norm.cdf((sharpe - threshold) * sqrt(periods - 1) / sqrt(max(spread, 1e-12))))


def deflated(returns: Floats, best: int) -> Deflated | None:
    """The Sharpe ratio of column `best` of `returns[period, trial]` against the best of all columns that luck would bring.

    None where that column never moves, or periods are too few.
    """
    from scipy.stats import kurtosis, skew

    own = returns[:, best]
    if len(own) < FEWEST_PER_BLOCK or float(np.std(own)) <= 1e-12:
        return None
    each = scores(returns, Objective.SHARPE)
    trials = returns.shape[1]
    threshold = expected_maximum(float(np.var(each, ddof=1)) if trials > 1 else 0.0, trials)
    chance = probabilistic_sharpe(float(each[best]), threshold, len(own), float(skew(own)), float(kurtosis(own, fisher=False)))
    return Deflated(float(each[best]), threshold, trials, chance)


def overfitting(returns: Floats, objective: Objective, blocks: int | None = None) -> Overfitting | None:
    """Probability of back-test over-fitting, by combinatorially symmetric cross-validation over `returns[period, setting]`.

    Bailey, Borwein, López de Prado & Zhu 2017, "The Probability of Backtest Overfitting", section 3: the periods are cut into `blocks`
    equal pieces (the most that give each a few periods, 16 at most; what is left over at the start is not used). For each choice of
    half of them the best setting there is ranked among all in the other half. Settings alike share a rank, and one exactly at the
    median counts one half. None for fewer than two settings, or too few periods.
    """
    periods, settings = returns.shape
    cut = blocks or min(MOST_BLOCKS, periods // FEWEST_PER_BLOCK // 2 * 2)
    if settings < 2 or cut < FEWEST_BLOCKS or periods < cut:
        return None
    size = periods // cut
    pieces = returns[periods - size * cut :].reshape(cut, size, settings)
    total, squares = pieces.sum(axis=1), (pieces**2).sum(axis=1)
    halves = list(combinations(range(cut), cut // 2))
    chosen = np.zeros((len(halves), cut))
    for row, half in enumerate(halves):
        chosen[row, list(half)] = 1.0
    count, step, below = size * cut // 2, max(1, _AT_ONCE // settings), 0.0
    for start in range(0, len(halves), step):
        some = chosen[start : start + step]
        inside = _scores(some @ total, some @ squares, count, objective)
        outside = _scores((1.0 - some) @ total, (1.0 - some) @ squares, count, objective)
        below += _below_median(inside, outside)
    return Overfitting(below / len(halves), len(halves), cut)


def _below_median(inside: Floats, outside: Floats) -> float:
    """In how many rows the best setting `inside` is below the median `outside`; one exactly there counts one half."""
    rows = np.arange(len(inside))
    own = outside[rows, inside.argmax(axis=1)][:, None]
    alike = 1e-12 * np.maximum(1e-3, np.abs(own))
    less, more = (outside < own - alike).sum(axis=1), (outside > own + alike).sum(axis=1)
    return float((less < more).sum() + 0.5 * (less == more).sum())
