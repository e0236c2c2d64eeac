"""Weights from a covariance matrix by skfolio: least variance, equal shares of it, and the tree of correlations."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from agent.errors import Refused
from agent.weights.extra import extra
from agent.weights.returns import Floats

Optimiser = Callable[[Floats, Floats, Floats], Floats]
"""(covariance, least shares, greatest shares) to shares that sum to 1 within them."""
_EXACT = {"tol_gap_abs": 1e-14, "tol_gap_rel": 1e-14, "tol_feas": 1e-14}
"""Of the solver Clarabel: as exact as floats go, so that machines differ by less than half a basis point."""


def minimum_variance(covariance: Floats, low: Floats, high: Floats) -> Floats:
    """The shares w of least wᵀΣw (Markowitz 1952), by convex optimisation."""
    made = extra("skfolio.optimization").MeanRisk(prior_estimator=_prior(covariance), solver_params=_EXACT, **_bounds(low, high))
    return _solved(made, covariance)


def risk_parity(covariance: Floats, low: Floats, high: Floats) -> Floats:
    """The shares w with w_i (Σw)_i equal for all (Maillard, Roncalli, Teiletche 2010), as far as the bounds let them.

    Solved for correlations alone and then divided by the deviations, which is the same and lets quiet and wild assets be solved
    together; where a bound is in the way, as the paper's problem with bounds.
    """
    deviations = np.sqrt(np.diag(covariance))
    alone = _budgeted(covariance / np.outer(deviations, deviations), np.zeros(len(low)), np.ones(len(high))) / deviations
    shares: Floats = alone / alone.sum()
    return shares if (low <= shares).all() and (shares <= high).all() else _budgeted(covariance, low, high)


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
    found: Floats = np.sqrt((between**2).sum(axis=0))
    return found


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
    priors, scaled = extra("skfolio.prior"), covariance / np.diag(covariance).mean()  # no weight depends on the unit

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
