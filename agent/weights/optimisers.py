"""Weights from a covariance matrix: least variance, equal shares of it, and the tree of correlations.

skfolio's solver ends with other last digits on other processors. Where the problem has a closed form from there on it is solved to the
end in fixed order (agent/floats.py), so that machines agree to the bit; where not, by less than shares are rounded by (allocators.GRID).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from agent.errors import Refused
from agent.floats import dot, solved, times, total
from agent.weights.extra import extra
from agent.weights.returns import Floats

Optimiser = Callable[[Floats, Floats, Floats], Floats]
"""(covariance, least shares, greatest shares) to shares that sum to 1 within them."""
_EXACT = {"tol_gap_abs": 1e-14, "tol_gap_rel": 1e-14, "tol_feas": 1e-14}
"""Of the solver Clarabel: as exact as floats go."""
_CLOSE = 1e-6
"""A share this near to a bound is at it, as far as a solver can say."""
_NEAR = 1e-4
"""What a solver of equal shares may be off by at most: some of its problems end early."""
_STEPS = 100
"""Most Newton steps towards equal shares of the variance; a dozen are usual."""
_DONE = 1e-13
"""Newton decrement at which they end."""
_DAMPED = 0.25
"""Decrement above which a step is shortened (Nesterov and Nemirovskii: below it Newton's method converges by itself)."""


def minimum_variance(covariance: Floats, low: Floats, high: Floats) -> Floats:
    """The shares w of least wᵀΣw (Markowitz 1952), by convex optimisation."""
    made = extra("skfolio.optimization").MeanRisk(prior_estimator=_prior(covariance), solver_params=_EXACT, **_bounds(low, high))
    return _finished(covariance, low, high, _solved(made, covariance))


def risk_parity(covariance: Floats, low: Floats, high: Floats) -> Floats:
    """The shares w with w_i (Σw)_i equal for all (Maillard, Roncalli, Teiletche 2010), as far as the bounds let them.

    Solved for correlations alone and then divided by the deviations, which is the same and lets quiet and wild assets be solved
    together; where a bound is in the way, as the paper's problem with bounds.
    """
    deviations = np.sqrt(np.diag(covariance))
    alone = _evened(covariance / np.outer(deviations, deviations)) / deviations
    shares: Floats = alone / total(alone)
    if (low <= shares).all() and (shares <= high).all():
        return shares
    return _evened_within(covariance, low, high, _budgeted(covariance, low, high))


def _evened(covariance: Floats, parts: Floats | None = None) -> Floats:
    """The x of least ½ xᵀCx − Σ ln xᵢ, where xᵢ (Cx)ᵢ = 1 for all; with `parts` of those x = parts·y, for any y.

    Damped Newton steps (Spinu, "An algorithm for computing risk parity weights", 2013): there is one minimum, which they reach from
    anywhere.
    """
    made = np.eye(len(covariance)) if parts is None else parts
    y = np.ones(made.shape[1])
    x = times(made, y)
    y = y / math.sqrt(dot(x, times(covariance, x)) / len(x))
    for _ in range(_STEPS):
        x = times(made, y)
        slope = times(made.T, times(covariance, x) - 1 / x)
        bend = covariance + np.diag(1 / (x * x))
        step = np.array(solved([times(made.T, times(bend, column)).tolist() for column in made.T], slope.tolist()))
        decrement = math.sqrt(max(dot(slope, step), 0.0))
        y = y - (step / (1 + decrement) if decrement > _DAMPED else step)
        if decrement <= _DONE:
            break
    return times(made, y)


def _evened_within(covariance: Floats, low: Floats, high: Floats, near: Floats) -> Floats:
    """Equal shares of the variance with the same shares at their bounds as those that a solver found, which are theirs of any sum.

    The solver's own where that leads elsewhere: then it is not told which bounds hold.
    """
    least, most = near - low <= _CLOSE, high - near <= _CLOSE
    free = np.flatnonzero(~(least | most))
    held = np.where(least, low, np.where(most, high, 0.0))
    if not len(free) or not (held[least | most] > 0).all():
        return near
    parts = np.repeat((held / (1 - total(held)))[:, None], len(free), axis=1)
    parts[free] = np.eye(len(free))
    found = _evened(covariance / (total(np.diag(covariance)) / len(covariance)), parts)
    shares = np.where(least, low, np.where(most, high, found / total(found)))
    return shares if (np.abs(shares - near) <= _NEAR).all() else near


def _finished(covariance: Floats, low: Floats, high: Floats, near: Floats) -> Floats:
    """The mix of least variance with the same shares at their bounds as one that a solver found, solved exactly for the others.

    The solver's own where that mix does not fit its bounds or could still vary less: then it is not told which bounds hold.
    """
    least, most = near - low <= _CLOSE, high - near <= _CLOSE
    free, shares = ~(least | most), np.where(least, low, np.where(most, high, 0.0))
    if not free.any():
        return near
    inner = covariance[np.ix_(free, free)].tolist()
    along = np.array(solved(inner, [1.0] * len(inner)))
    back = np.array(solved(inner, times(covariance, shares)[free].tolist()))
    slope = (1 - total(shares) + total(back)) / total(along)
    shares[free] = slope * along - back
    pull, slack = times(covariance, shares) - slope, _CLOSE * abs(slope)
    fits = (shares >= low).all() and (shares <= high).all()
    return shares if fits and (pull[least & ~most] >= -slack).all() and (pull[most & ~least] <= slack).all() else near


def hrp(covariance: Floats, low: Floats, high: Floats) -> Floats:
    """Hierarchical risk parity: "Building Diversified Portfolios that Outperform Out-of-Sample" (López de Prado 2016).

    As there: single linkage on the Euclidean distances between the columns of √((1 - ρ)/2), assets in the order of the tree's
    leaves, bisected again and again by the variances of the halves.
    """
    cluster, seriation = extra("skfolio.cluster"), extra("skfolio.seriation")
    tree = cluster.HierarchicalClustering(linkage_method=cluster.LinkageMethod.SINGLE)
    made = extra("skfolio.optimization").HierarchicalRiskParity(
        prior_estimator=_prior(covariance),
        distance_estimator=_distance(covariance),
        seriation_estimator=seriation.HierarchicalSeriation(hierarchical_clustering_estimator=tree, optimal_ordering=False),
        **_bounds(low, high),
    )
    return _solved(made, covariance)


def _budgeted(covariance: Floats, low: Floats, high: Floats) -> Floats:
    prior = _prior(covariance)
    made = extra("skfolio.optimization").RiskBudgeting(prior_estimator=prior, solver_params=_EXACT, **_bounds(low, high))
    return _solved(made, covariance)


def column_distances(covariance: Floats) -> Floats:
    """Euclidean distances between the columns of the matrix of distances √((1 - ρ)/2) (López de Prado 2016, stage 1)."""
    deviations = np.sqrt(np.diag(covariance))
    near = np.sqrt(np.clip((1 - covariance / np.outer(deviations, deviations)) / 2, 0, None))
    np.fill_diagonal(near, 0.0)
    between = near[:, :, None] - near[:, None, :]
    return np.asarray(np.sqrt(np.add.accumulate(between * between, axis=0)[-1]))


def _bounds(low: Floats, high: Floats) -> dict[str, Floats]:
    return {"min_weights": low, "max_weights": high}


def _solved(made: Any, covariance: Floats) -> Floats:
    """Runs an estimator of skfolio; returns themselves are only told by their number of columns, the prior knows the covariance."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made.fit(np.zeros((2, len(covariance))))
    except Exception as error:  # whatever the solver says of a problem that it cannot do: no weights
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Refused(f"the optimiser found no weights: {said[:200]}", remedy="look at portfolio.weights.limits") from None
    found = np.asarray(made.weights_, dtype=np.float64)
    if not np.isfinite(found).all():
        raise Refused("the optimiser found no weights: they are not numbers", remedy="look at portfolio.weights.limits")
    return found


def _prior(covariance: Floats) -> Any:
    """A prior of skfolio that says this covariance (in a unit of its own), whatever it is asked about; no expected returns."""
    priors, scaled = extra("skfolio.prior"), covariance / (total(np.diag(covariance)) / len(covariance))  # no weight depends on the unit

    class Given(priors.BasePrior):  # type: ignore[misc,name-defined]  # a class of a package that is loaded only here
        def __init__(self, matrix: Floats | None = None) -> None:
            self.matrix = matrix

        def fit(self, X: Floats, y: object = None, **_: object) -> Any:  # noqa: N803  # scikit-learn's own name
            self.return_distribution_ = priors.ReturnDistribution(mu=np.zeros(len(covariance)), covariance=scaled, returns=np.asarray(X))
            return self

    return Given(covariance)


def _distance(covariance: Floats) -> Any:
    """A distance of skfolio that says the paper's, for this covariance."""
    distances = extra("skfolio.distance")

    class Columns(distances.BaseDistance):  # type: ignore[misc,name-defined]  # a class of a package that is loaded only here
        def __init__(self, matrix: Floats | None = None) -> None:
            self.matrix = matrix

        def fit(self, X: Floats, y: object = None, **_: object) -> Any:  # noqa: N803  # scikit-learn's own name
            self.codependence_ = covariance
            self.distance_ = column_distances(covariance)
            return self

    return Columns(covariance)
