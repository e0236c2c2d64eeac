"""Allocators: minimum variance, risk parity, hierarchical risk parity, inverse volatility, market
cap and equal weights.

The last digits of skfolio's solver differ between processors. If the active bounds of its result
determine a closed form, the form is computed in a fixed order (agent/floats.py), so that machines
agree to the bit. All other results differ by less than the rounding of shares (SHARES_PER_UNIT).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from agent.errors import ErrorCode, Refused
from agent.floats import dot, fsum_array, matvec, solve_positive_definite
from agent.foreign_text import failure_text
from agent.model import AllocationMethod, AllocatorConfig, PricePoint, SignalAnswer, TokenSupply
from agent.units import BPS, DAY_S, HOUR_S, Price, format_bps, pluralize, proportional_shares
from agent.weights.extras import import_extra
from agent.weights.returns import (
    Floats,
    Returns,
    compute_returns,
    require_no_dominant_return,
    shrunk_covariance,
)

Optimiser = Callable[[Floats, Floats, Floats], Floats]
"""(covariance, minimum shares, maximum shares) to shares within these bounds with sum 1."""
_SOLVER_TOLERANCES = {"tol_gap_abs": 1e-14, "tol_gap_rel": 1e-14, "tol_feas": 1e-14}
"""Tolerances of the solver Clarabel, near the precision of floats."""
_BOUND_TOLERANCE = 1e-6
"""Distance within which a share from the solver counts as at its bound."""
_MAX_SOLVER_ERROR = 1e-4
"""Largest error of the risk parity solver; it stops early on some problems."""
_MAX_NEWTON_STEPS = 100
"""Maximum number of Newton steps of risk parity; a dozen are usual."""
_FINAL_DECREMENT = 1e-13
"""Newton decrement at which the steps end."""
_DAMPING_DECREMENT = 0.25
"""Decrement above which a step is damped (Nesterov and Nemirovskii: below it Newton's method
converges undamped).
"""


def minimum_variance_weights(covariance: Floats, min_shares: Floats, max_shares: Floats) -> Floats:
    """Return the shares w that minimise wᵀΣw (Markowitz 1952), by convex optimisation."""
    estimator = import_extra("skfolio.optimization").MeanRisk(
        prior_estimator=_fixed_prior(covariance),
        solver_params=_SOLVER_TOLERANCES,
        **_bound_parameters(min_shares, max_shares),
    )
    return _polished_minimum_variance(
        covariance, min_shares, max_shares, _fit_weights(estimator, covariance)
    )


def risk_parity_weights(covariance: Floats, min_shares: Floats, max_shares: Floats) -> Floats:
    """Return the shares w with equal w_i (Σw)_i (Maillard, Roncalli, Teiletche 2010), within the
    bounds.

    The problem is solved for correlations, then divided by the deviations, which is equivalent and
    handles very different volatilities. If a bound binds, the paper's problem with bounds is
    solved.
    """
    deviations = np.sqrt(np.diag(covariance))
    unbounded_shares = (
        _equal_risk_newton(covariance / np.outer(deviations, deviations)) / deviations
    )
    shares: Floats = unbounded_shares / fsum_array(unbounded_shares)
    if (min_shares <= shares).all() and (shares <= max_shares).all():
        return shares
    return _bounded_equal_risk(
        covariance,
        min_shares,
        max_shares,
        _risk_budgeting_weights(covariance, min_shares, max_shares),
    )


def _equal_risk_newton(covariance: Floats, directions: Floats | None = None) -> Floats:
    """Return the x that minimises ½ xᵀCx − Σ ln xᵢ, where xᵢ (Cx)ᵢ = 1 for all i; with
    `directions`, among x = directions·y.

    Damped Newton steps (Spinu, "An algorithm for computing risk parity weights", 2013) reach the
    only minimum from any start.
    """
    basis = np.eye(len(covariance)) if directions is None else directions
    coordinates = np.ones(basis.shape[1])
    x = matvec(basis, coordinates)
    coordinates = coordinates / math.sqrt(dot(x, matvec(covariance, x)) / len(x))
    for _ in range(_MAX_NEWTON_STEPS):
        x = matvec(basis, coordinates)
        gradient = matvec(basis.T, matvec(covariance, x) - 1 / x)
        hessian = covariance + np.diag(1 / (x * x))
        newton_step = solve_positive_definite(
            np.array([matvec(basis.T, matvec(hessian, direction)) for direction in basis.T]),
            gradient,
        )
        decrement = math.sqrt(max(dot(gradient, newton_step), 0.0))
        coordinates = coordinates - (
            newton_step / (1 + decrement) if decrement > _DAMPING_DECREMENT else newton_step
        )
        if decrement <= _FINAL_DECREMENT:
            break
    return matvec(basis, coordinates)


def _bounded_equal_risk(
    covariance: Floats, min_shares: Floats, max_shares: Floats, solver_shares: Floats
) -> Floats:
    """Return the risk parity shares with the active bounds of the solver's result `solver_shares`.

    Return `solver_shares` itself if the shares differ from it, because the active bounds are then
    uncertain.
    """
    is_at_low = solver_shares - min_shares <= _BOUND_TOLERANCE
    is_at_high = max_shares - solver_shares <= _BOUND_TOLERANCE
    free_indices = np.flatnonzero(~(is_at_low | is_at_high))
    bound_shares = np.where(is_at_low, min_shares, np.where(is_at_high, max_shares, 0.0))
    if not len(free_indices) or not (bound_shares[is_at_low | is_at_high] > 0).all():
        return solver_shares
    directions = np.repeat(
        (bound_shares / (1 - fsum_array(bound_shares)))[:, None], len(free_indices), axis=1
    )
    directions[free_indices] = np.eye(len(free_indices))
    unscaled_shares = _equal_risk_newton(
        covariance / (fsum_array(np.diag(covariance)) / len(covariance)), directions
    )
    shares = np.where(
        is_at_low,
        min_shares,
        np.where(is_at_high, max_shares, unscaled_shares / fsum_array(unscaled_shares)),
    )
    return shares if (np.abs(shares - solver_shares) <= _MAX_SOLVER_ERROR).all() else solver_shares


def _polished_minimum_variance(
    covariance: Floats, min_shares: Floats, max_shares: Floats, solver_shares: Floats
) -> Floats:
    """Return the minimum variance shares with the active bounds of the solver's result
    `solver_shares`, all other shares solved exactly.

    Return `solver_shares` itself if the exact shares violate a bound or are not a minimum, because
    the active bounds are then uncertain.
    """
    is_at_low = solver_shares - min_shares <= _BOUND_TOLERANCE
    is_at_high = max_shares - solver_shares <= _BOUND_TOLERANCE
    is_free = ~(is_at_low | is_at_high)
    shares = np.where(is_at_low, min_shares, np.where(is_at_high, max_shares, 0.0))
    if not is_free.any():
        return solver_shares
    free_covariance = covariance[np.ix_(is_free, is_free)]
    inverse_ones = solve_positive_definite(free_covariance, np.ones(len(free_covariance)))
    bound_effect = solve_positive_definite(free_covariance, matvec(covariance, shares)[is_free])
    multiplier = (1 - fsum_array(shares) + fsum_array(bound_effect)) / fsum_array(inverse_ones)
    shares[is_free] = multiplier * inverse_ones - bound_effect
    gradient_excess = matvec(covariance, shares) - multiplier
    tolerance = _BOUND_TOLERANCE * abs(multiplier)
    is_within = (shares >= min_shares).all() and (shares <= max_shares).all()
    is_minimal = (gradient_excess[is_at_low & ~is_at_high] >= -tolerance).all() and (
        gradient_excess[is_at_high & ~is_at_low] <= tolerance
    ).all()
    return shares if is_within and is_minimal else solver_shares


def hrp_weights(covariance: Floats, min_shares: Floats, max_shares: Floats) -> Floats:
    """Return the shares of hierarchical risk parity (López de Prado, "Building Diversified
    Portfolios that Outperform Out-of-Sample", 2016).

    Single linkage on the Euclidean distances between the columns of √((1 - ρ)/2) gives a tree; the
    assets, in the order of its leaves, are bisected recursively by the variances of the halves.
    """
    cluster_module = import_extra("skfolio.cluster")
    seriation_module = import_extra("skfolio.seriation")
    tree_estimator = cluster_module.HierarchicalClustering(
        linkage_method=cluster_module.LinkageMethod.SINGLE
    )
    estimator = import_extra("skfolio.optimization").HierarchicalRiskParity(
        prior_estimator=_fixed_prior(covariance),
        distance_estimator=_distance_estimator(covariance),
        seriation_estimator=seriation_module.HierarchicalSeriation(
            hierarchical_clustering_estimator=tree_estimator, optimal_ordering=False
        ),
        **_bound_parameters(min_shares, max_shares),
    )
    return _fit_weights(estimator, covariance)


def _risk_budgeting_weights(covariance: Floats, min_shares: Floats, max_shares: Floats) -> Floats:
    prior = _fixed_prior(covariance)
    estimator = import_extra("skfolio.optimization").RiskBudgeting(
        prior_estimator=prior,
        solver_params=_SOLVER_TOLERANCES,
        **_bound_parameters(min_shares, max_shares),
    )
    return _fit_weights(estimator, covariance)


def column_distances(covariance: Floats) -> Floats:
    """Return the Euclidean distances between the columns of the matrix √((1 - ρ)/2) (López de Prado
    2016, stage 1).
    """
    deviations = np.sqrt(np.diag(covariance))
    distances = np.sqrt(np.clip((1 - covariance / np.outer(deviations, deviations)) / 2, 0, None))
    np.fill_diagonal(distances, 0.0)
    differences = distances[:, :, None] - distances[:, None, :]
    return np.asarray(np.sqrt(np.add.accumulate(differences * differences, axis=0)[-1]))


def _bound_parameters(min_shares: Floats, max_shares: Floats) -> dict[str, Floats]:
    return {"min_weights": min_shares, "max_weights": max_shares}


def _fit_weights(estimator: Any, covariance: Floats) -> Floats:
    """Run an estimator of skfolio and return its weights. The returns are placeholders, because the
    prior has the covariance.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.fit(np.zeros((2, len(covariance))))
    except Exception as error:  # any error of the solver means no weights
        raise Refused(
            f"the optimiser found no weights: {failure_text(error)}",
            remedy="check portfolio.weights.limits",
            code=ErrorCode.WEIGHTS,
        ) from None
    shares = np.asarray(estimator.weights_, dtype=np.float64)
    if not np.isfinite(shares).all():
        raise Refused(
            "the optimiser found no weights: they are not numbers",
            remedy="check portfolio.weights.limits",
            code=ErrorCode.WEIGHTS,
        )
    return shares


def _fixed_prior(covariance: Floats) -> Any:
    """Return a skfolio prior with this covariance, scaled, and expected returns of zero."""
    prior_module = import_extra("skfolio.prior")
    mean_variance = fsum_array(np.diag(covariance)) / len(
        covariance
    )  # it does not affect the weights
    scaled_covariance = covariance / mean_variance

    class FixedPrior(prior_module.BasePrior):  # type: ignore[misc,name-defined]  # a class of a package that is loaded only here
        def __init__(self) -> None:
            pass  # the abstract one of its base

        def fit(self, X: Floats, y: object = None, **_: object) -> Any:  # noqa: N803  # scikit-learn's own name
            self.return_distribution_ = prior_module.ReturnDistribution(
                mu=np.zeros(len(covariance)), covariance=scaled_covariance, returns=np.asarray(X)
            )
            return self

    return FixedPrior()


def _distance_estimator(covariance: Floats) -> Any:
    """Return a skfolio distance estimator with the distance of the paper, for this covariance."""
    distance_module = import_extra("skfolio.distance")

    class ColumnDistance(distance_module.BaseDistance):  # type: ignore[misc,name-defined]  # a class of a package that is loaded only here
        def __init__(self) -> None:
            pass  # the abstract one of its base

        def fit(self, X: Floats, y: object = None, **_: object) -> Any:  # noqa: N803  # scikit-learn's own name
            self.codependence_ = covariance
            self.distance_ = column_distances(covariance)
            return self

    return ColumnDistance()


# --- Allocators: functions from data to shares of the free assets, with the reason.


SHARES_PER_UNIT = 10**6
"""Grid for an optimiser's shares: a hundredth of a basis point, many times the error of a solver.
On the grid, equal shares are exactly equal, and their basis points do not depend on last digits.
"""


@dataclass(frozen=True, slots=True)
class AllocatorData:
    """Input of an allocator: chain time, recorded prices (oldest first), token supplies, token
    labels.

    `current_prices` are the prices of this block, which count if no recorded price is within
    `max_age_s`; only that of the numeraire if the config requires confirmed prices. `signal_answer`
    is the signal's answer. `accepts_jumps` is True if the owner has confirmed prices and weights
    that jump.
    """

    now_s: int
    recorded_prices: tuple[PricePoint, ...]
    label_by_token: Mapping[str, str]
    supplies: tuple[TokenSupply, ...] = ()
    current_prices: Mapping[str, Price] | None = None
    signal_answer: SignalAnswer | None = None
    accepts_jumps: bool = False


@dataclass(frozen=True, slots=True)
class WeightBounds:
    """The free assets in the order of their addresses, their total in bps of the portfolio, and the
    bounds of each.
    """

    tokens: tuple[str, ...]
    total_bps: int
    low_bps: tuple[int, ...]
    high_bps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UnroundedWeights:
    """Shares of the free assets in bps, within their bounds up to rounding; `why` explains them,
    `sample_text` describes the sample. Without `shares_bps` the targets stay; `market_bps` is as in
    `Allocation`.
    """

    shares_bps: tuple[Fraction, ...]
    why: str
    sample_text: str
    returns: Returns | None = None
    from_s: int | None = None
    until_s: int | None = None
    market_bps: tuple[tuple[str, int], ...] = ()


Allocator = Callable[[AllocatorConfig, WeightBounds, AllocatorData], UnroundedWeights]
"""Function from settings, bounds and data to shares. Raises Refused for missing, stale, singular or
zero data.
"""


def allocate_equally(
    _settings: AllocatorConfig, bounds: WeightBounds, _inputs: AllocatorData
) -> UnroundedWeights:
    """Return equal shares of the free assets."""
    shares = tuple(
        proportional_shares(
            [Fraction(1)] * len(bounds.tokens), bounds.low_bps, bounds.high_bps, bounds.total_bps
        )
    )
    return UnroundedWeights(
        shares,
        f"{len(bounds.tokens)} assets share {format_bps(bounds.total_bps)} equally",
        "no data",
    )


def allocate_by_market_cap(
    settings: AllocatorConfig, bounds: WeightBounds, inputs: AllocatorData
) -> UnroundedWeights:
    """Return shares in proportion to market capitalisation. Weight above a bound is distributed to
    the other assets in proportion.
    """
    supply_by_token = {supply.token: supply for supply in (*inputs.supplies, *settings.supplies)}
    market_caps = []
    price_times_s = []
    supply_sources = []
    for token in bounds.tokens:
        label = inputs.label_by_token[token]
        supply = supply_by_token.get(token)
        if supply is None:
            raise Refused(
                f"the supply of {label} could not be read from its contract", remedy=_SUPPLY_REMEDY
            )
        if supply.raw <= 0:
            raise Refused(
                f"the market cap of {label} is zero: {supply.source or 'its contract'} gives a"
                " supply of zero",
                remedy=_SUPPLY_REMEDY,
            )
        _require_current(supply, label, inputs.now_s)
        price, price_s = _newest_price(settings, inputs, token)
        market_caps.append(supply.raw * price)
        price_times_s.append(price_s)
        age_text = ""
        if supply.as_of_s:
            age_days = max(0, inputs.now_s - supply.as_of_s) // DAY_S
            age_text = f", {pluralize(age_days, 'day')} old"
        supply_sources.append(f"{label} by {supply.source or 'its contract'}{age_text}")
    shares = proportional_shares(market_caps, bounds.low_bps, bounds.high_bps, bounds.total_bps)
    total_cap = sum(market_caps, Fraction(0))
    shares_text = ", ".join(
        f"{inputs.label_by_token[free_token]} {float(cap / total_cap * 100):.2f} %"
        for free_token, cap in zip(bounds.tokens, market_caps, strict=True)
    )
    return UnroundedWeights(
        tuple(shares),
        f"shares of market capitalisation: {shares_text}",
        f"supply of {', '.join(supply_sources)}, times the price",
        None,
        min(price_times_s),
        max(price_times_s),
    )


def _require_current(supply: TokenSupply, label: str, now_s: int) -> None:
    """Raise Refused for a supply that is too old, or from the future."""
    if supply.as_of_s > now_s + DAY_S:
        raise Refused(
            f"the supply of {label} by {supply.source} is dated in the future",
            remedy="correct its as_of",
        )
    if supply.valid_until_s and now_s > supply.valid_until_s:
        raise Refused(
            f"the supply of {label} by {supply.source} is {(now_s - supply.as_of_s) // DAY_S} days"
            f" old, supplies_max_age is {(supply.valid_until_s - supply.as_of_s) // DAY_S}",
            remedy="write its present supply and as_of into a file of portfolio.weights.supplies, or"
            " raise the file's portfolio.weights.supplies_max_age",
        )


def allocate_by_inverse_volatility(
    settings: AllocatorConfig, bounds: WeightBounds, inputs: AllocatorData
) -> UnroundedWeights:
    """Return shares in inverse proportion to sample volatility: w_i = (1/σ_i) / Σ (1/σ_j)."""
    returns = judged_returns(settings, bounds.tokens, inputs)
    shares = proportional_shares(
        [Fraction(1 / float(volatility)) for volatility in returns.volatilities],
        bounds.low_bps,
        bounds.high_bps,
        bounds.total_bps,
    )
    volatilities_text = ", ".join(
        f"{inputs.label_by_token[token]} {volatility * 100:.1f} %"
        for token, volatility in zip(bounds.tokens, returns.volatilities, strict=True)
    )
    return weights_with_sample(
        tuple(shares), f"in inverse proportion to annual volatilities: {volatilities_text}", returns
    )


def allocate_minimum_variance(
    settings: AllocatorConfig, bounds: WeightBounds, inputs: AllocatorData
) -> UnroundedWeights:
    """Return the shares of least variance within the bounds."""
    returns, shares, covariance_matrix = _optimise(
        settings, bounds, inputs, minimum_variance_weights
    )
    return weights_with_sample(
        _shares_in_bps(shares, bounds),
        f"minimum variance: annual volatility {_volatility(shares, covariance_matrix) * 100:.1f} %",
        returns,
    )


def allocate_risk_parity(
    settings: AllocatorConfig, bounds: WeightBounds, inputs: AllocatorData
) -> UnroundedWeights:
    """Return shares of the free assets with equal contributions to the variance."""
    returns, shares, covariance_matrix = _optimise(settings, bounds, inputs, risk_parity_weights)
    gradient = matvec(covariance_matrix, shares)
    contributions = shares * gradient / dot(shares, gradient)
    contributions_text = ", ".join(
        f"{inputs.label_by_token[token]} {contribution * 100:.1f} %"
        for token, contribution in zip(bounds.tokens, contributions, strict=True)
    )
    return weights_with_sample(
        _shares_in_bps(shares, bounds),
        f"equal contributions to the variance: {contributions_text}",
        returns,
    )


def allocate_hrp(
    settings: AllocatorConfig, bounds: WeightBounds, inputs: AllocatorData
) -> UnroundedWeights:
    """Return the shares of hierarchical risk parity."""
    returns, shares, covariance_matrix = _optimise(settings, bounds, inputs, hrp_weights)
    reason = (
        "hierarchical risk parity on the tree of correlations: annual volatility"
        f" {_volatility(shares, covariance_matrix) * 100:.1f} %"
    )
    return weights_with_sample(_shares_in_bps(shares, bounds), reason, returns)


def _naming_limits(
    allocator: Allocator, settings: AllocatorConfig, bounds: WeightBounds, inputs: AllocatorData
) -> UnroundedWeights:
    """Return the allocator's weights, whose reason names the assets that a limit holds."""
    weights = allocator(settings, bounds, inputs)
    names_at_limit = [
        inputs.label_by_token[token]
        for token, share_bps, low_bps, high_bps in zip(
            bounds.tokens, weights.shares_bps, bounds.low_bps, bounds.high_bps, strict=True
        )
        if (low_bps and share_bps <= low_bps + _LIMIT_TOLERANCE_BPS)
        or (high_bps < bounds.total_bps and share_bps >= high_bps - _LIMIT_TOLERANCE_BPS)
    ]
    if not names_at_limit:
        return weights
    limits_text = f"as far as the limits allow; held at a limit: {', '.join(names_at_limit)}"
    return replace(weights, why=f"{weights.why}, {limits_text}")


_LIMIT_TOLERANCE_BPS = Fraction(1, 10)
ALLOCATORS: Mapping[AllocationMethod, Allocator] = {
    method: partial(_naming_limits, allocator)
    for method, allocator in (
        (AllocationMethod.EQUAL, allocate_equally),
        (AllocationMethod.MARKET_CAP, allocate_by_market_cap),
        (AllocationMethod.INVERSE_VOLATILITY, allocate_by_inverse_volatility),
        (AllocationMethod.MINIMUM_VARIANCE, allocate_minimum_variance),
        (AllocationMethod.RISK_PARITY, allocate_risk_parity),
        (AllocationMethod.HRP, allocate_hrp),
    )
}


def _optimise(
    settings: AllocatorConfig, bounds: WeightBounds, inputs: AllocatorData, optimiser: Optimiser
) -> tuple[Returns, Floats, Floats]:
    """Return (returns, shares with sum 1, annual covariance)."""
    returns = judged_returns(settings, bounds.tokens, inputs)
    covariance_matrix = shrunk_covariance(returns, inputs.label_by_token)
    min_shares, max_shares = (
        np.array(bounds_bps, dtype=np.float64) / bounds.total_bps
        for bounds_bps in (bounds.low_bps, bounds.high_bps)
    )
    return (
        returns,
        optimiser(covariance_matrix, min_shares, np.minimum(max_shares, 1.0)),
        covariance_matrix,
    )


def judged_returns(
    settings: AllocatorConfig, tokens: Sequence[str], inputs: AllocatorData
) -> Returns:
    """Return the returns of `tokens`. Raises Refused as compute_returns does, and if one return makes
    most of a variance, unless the owner accepts it.
    """
    returns = compute_returns(
        settings, tokens, inputs.label_by_token, inputs.recorded_prices, inputs.now_s
    )
    if not inputs.accepts_jumps:
        require_no_dominant_return(returns, inputs.label_by_token)
    return returns


def weights_with_sample(
    shares: tuple[Fraction, ...], reason: str, returns: Returns
) -> UnroundedWeights:
    """Return the weights with a description of the sample."""
    gaps_text = (
        f", {returns.skipped_intervals} intervals skipped for missing prices"
        if returns.skipped_intervals
        else ""
    )
    return UnroundedWeights(
        shares,
        reason,
        f"{len(returns.simple_returns)} returns of each{gaps_text}",
        returns,
        returns.from_s,
        returns.until_s,
    )


def _shares_in_bps(shares: Floats, bounds: WeightBounds) -> tuple[Fraction, ...]:
    """Return the shares, rounded to the grid, as bps that sum to the bounds' total; the error of
    the solver is spread in proportion.
    """
    grid_shares = [
        Fraction(round(max(float(share), 0.0) * SHARES_PER_UNIT), SHARES_PER_UNIT)
        for share in shares
    ]
    share_sum = sum(grid_shares, Fraction(0))
    if share_sum <= 0 or abs(share_sum - 1) > Fraction(1, BPS):
        raise Refused(
            f"the optimiser found no weights: they sum to {float(share_sum):.6f}",
            remedy="check portfolio.weights.limits",
            code=ErrorCode.WEIGHTS,
        )
    return tuple(share * bounds.total_bps / share_sum for share in grid_shares)


def _volatility(shares: Floats, covariance_matrix: Floats) -> float:
    return math.sqrt(dot(shares, matvec(covariance_matrix, shares)))


def _newest_price(
    settings: AllocatorConfig, inputs: AllocatorData, token: str
) -> tuple[Price, int]:
    """Return (price, chain time) of the newest recorded price within max_age, else the current
    price if it may count.
    """
    newest_point = max(
        (
            point
            for point in inputs.recorded_prices
            if point.token == token and point.at_s <= inputs.now_s
        ),
        key=lambda point: point.at_s,
        default=None,
    )
    if newest_point is not None and inputs.now_s - newest_point.at_s <= settings.max_age_s:
        return newest_point.price, newest_point.at_s
    if inputs.current_prices is not None and token in inputs.current_prices:
        return inputs.current_prices[token], inputs.now_s
    age_text = "none is recorded"
    if newest_point is not None:
        age_text = f"the newest is {(inputs.now_s - newest_point.at_s) / HOUR_S:.1f} h old"
    raise Refused(
        f"no price of {inputs.label_by_token[token]} within max_age: {age_text}",
        remedy="the agent's next cycles record it",
    )


_SUPPLY_REMEDY = "write a file of portfolio.weights.supplies with it, or name the token in portfolio.weights.fixed"
