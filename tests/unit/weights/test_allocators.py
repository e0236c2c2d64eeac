"""Each allocator against a closed form, another solver, or an implementation of its paper written here."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from agent.errors import Refused
from agent.model import AllocationMethod, TokenSupply, WeightLimit
from agent.policy.targets import bounds_of
from agent.weights import allocators
from agent.weights.allocators import AllocatorData, allocate_by_inverse_volatility
from agent.weights.returns import Floats, Returns, compute_returns, shrunk_covariance
from tests.support.builders import NOW_S, token
from tests.support.planning_worlds import COINS, DAY_S, REAL_PRICES, allocator, covariance_of, moves, recorded, weighed
from tests.support.text import raises_code

NEAR = 1e-6
WETH = token("WETH")
NAMES = {token(symbol).address: symbol for symbol in (*COINS, "USDC")}
HOURLY = REAL_PRICES / "hourly_2021-04_2022-12.parquet"


def free(width: int) -> tuple[Floats, Floats]:
    return np.zeros(width), np.ones(width)


def sample_returns(days: int = 90, seed: int = 7) -> Returns:
    addresses = sorted(token(symbol).address for symbol in COINS)
    return compute_returns(allocator(AllocationMethod.HRP), addresses, NAMES, recorded(moves(days=days, seed=seed)), NOW_S)


def test_returns__are_of_prices_up_to_their_maximum_age() -> None:
    addresses = sorted(token(symbol).address for symbol in COINS)
    weights = allocator(AllocationMethod.HRP)
    points = recorded(moves(), until_s=NOW_S - weights.max_age_s)
    assert compute_returns(weights, addresses, NAMES, points, NOW_S).until_s == NOW_S - weights.max_age_s
    with pytest.raises(Refused, match="the newest common prices are"):
        compute_returns(weights, addresses, NAMES, points, NOW_S + 1)


# least variance
@pytest.mark.parametrize(("width", "seed"), [(2, 1), (4, 2), (8, 3), (12, 4)])
def test_least_variance_without_bounds_is_the_closed_form(width: int, seed: int) -> None:
    matrix = covariance_of(width, seed)
    ones = np.linalg.solve(matrix, np.ones(width))
    closed = ones / ones.sum()
    if (closed < 0).any():  # selling short is not ours to do: a matrix without correlations has no such case
        matrix = np.diag(np.diag(matrix))
        closed = (1 / np.diag(matrix)) / (1 / np.diag(matrix)).sum()
    assert np.abs(allocators.minimum_variance_weights(matrix, *free(width)) - closed).max() < NEAR


@pytest.mark.parametrize(
    ("width", "low", "high", "seed"),
    [
        pytest.param(4, 0.0, 1.0, 11, id="four, unbounded"),
        pytest.param(4, 0.1, 0.4, 12, id="four"),
        pytest.param(8, 0.02, 0.25, 13, id="eight"),
        pytest.param(12, 0.0, 0.2, 14, id="twelve"),
    ],
)
def test_least_variance__is_another_solver_s_within_bounds(width: int, low: float, high: float, seed: int) -> None:
    matrix = covariance_of(width, seed)
    scaled = matrix / np.diag(matrix).mean()
    cvxpy = pytest.importorskip("cvxpy")
    unknown = cvxpy.Variable(width)
    bounds = [cvxpy.sum(unknown) == 1, unknown >= low, unknown <= high]
    tight = {"tol_gap_abs": 1e-14, "tol_gap_rel": 1e-14, "tol_feas": 1e-14}
    cvxpy.Problem(cvxpy.Minimize(cvxpy.quad_form(unknown, cvxpy.psd_wrap(scaled))), bounds).solve(solver="CLARABEL", **tight)
    other = minimize(
        lambda w: float(w @ scaled @ w),
        np.full(width, 1 / width),
        jac=lambda w: 2 * scaled @ w,
        bounds=[(low, high)] * width,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(width)},
        method="SLSQP",
        options={"ftol": 1e-18, "maxiter": 1_000},
    )
    weights = allocators.minimum_variance_weights(matrix, np.full(width, low), np.full(width, high))
    assert np.abs(weights - other.x).max() < NEAR
    assert np.abs(weights - unknown.value).max() < NEAR
    assert weights.min() > low - NEAR
    assert weights.max() < high + NEAR


# risk parity
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("width", [2, 3, 6, 12])
def test_risk_parity__gives_equal_parts_of_the_variance(width: int, seed: int) -> None:
    matrix = covariance_of(width, seed)
    matrix[0] /= 300  # one quiet asset among wild ones
    matrix[:, 0] /= 300
    weights = allocators.risk_parity_weights(matrix, *free(width))
    parts = weights * (matrix @ weights) / (weights @ matrix @ weights)
    assert np.abs(parts - 1 / width).max() < NEAR
    assert abs(weights.sum() - 1) < NEAR


@pytest.mark.parametrize("correlation", [-0.6, 0.0, 0.9])
def test_risk_parity_of_two__is_the_closed_form(correlation: float) -> None:
    first_share = 0.8
    other = 0.05
    matrix = np.array([[first_share**2, correlation * first_share * other], [correlation * first_share * other, other**2]])
    expected = np.array([1 / first_share, 1 / other]) / (1 / first_share + 1 / other)
    assert np.abs(allocators.risk_parity_weights(matrix, *free(2)) - expected).max() < NEAR


def test_risk_parity_within_bounds__keeps_the_others_equal() -> None:
    matrix = covariance_of(4, 3)
    plain = allocators.risk_parity_weights(matrix, *free(4))
    cap = float(plain.max()) - 0.05
    weights = allocators.risk_parity_weights(matrix, np.zeros(4), np.full(4, cap))
    assert weights.max() < cap + NEAR
    assert abs(weights.sum() - 1) < NEAR
    assert weights[plain.argmax()] == pytest.approx(cap, abs=NEAR)


# hierarchical risk parity
def paper(matrix: Floats) -> Floats:
    """López de Prado 2016: getQuasiDiag and getRecBipart, with single linkage by hand."""
    deviations = np.sqrt(np.diag(matrix))
    near = np.sqrt(np.clip(1 - matrix / np.outer(deviations, deviations), 0, None) / 2)
    width = len(matrix)
    apart = [[float(np.sqrt(((near[:, i] - near[:, j]) ** 2).sum())) for j in range(width)] for i in range(width)]
    clusters: dict[int, list[int]] = {i: [i] for i in range(width)}
    order: dict[int, list[int]] = {i: [i] for i in range(width)}
    for number in range(width, 2 * width - 1):
        pairs = itertools.combinations(sorted(clusters), 2)
        a, b = min(pairs, key=lambda pair: min(apart[i][j] for i in clusters[pair[0]] for j in clusters[pair[1]]))
        clusters[number] = clusters.pop(a) + clusters.pop(b)
        order[number] = order[a] + order[b]
    weights = np.ones(width)
    parts = [order[2 * width - 2]]
    while parts:
        halves = [half for part in parts if len(part) > 1 for half in (part[: len(part) // 2], part[len(part) // 2 :])]
        for left, right in zip(halves[::2], halves[1::2], strict=True):
            first, second = (cluster_variance(matrix, half) for half in (left, right))
            alpha = 1 - first / (first + second)
            weights[left] *= alpha
            weights[right] *= 1 - alpha
        parts = halves
    return weights


def cluster_variance(matrix: Floats, items: list[int]) -> float:
    inside = matrix[np.ix_(items, items)]
    inverse = 1 / np.diag(inside)
    inverse /= inverse.sum()
    return float(inverse @ inside @ inverse)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("width", [2, 3, 5, 8, 12])
def test_hrp_is_the_paper(width: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    matrix = np.atleast_2d(np.cov(draw.normal(size=(60, width)) @ draw.normal(size=(width, width)), rowvar=False))
    assert np.abs(allocators.hrp_weights(matrix, *free(width)) - paper(matrix)).max() < NEAR


def test_hrp_keeps_within_bounds() -> None:
    hrp = allocators.hrp_weights(covariance_of(5, 9), np.full(5, 0.1), np.full(5, 0.3))
    assert hrp.min() > 0.1 - NEAR
    assert hrp.max() < 0.3 + NEAR
    assert abs(hrp.sum() - 1) < NEAR


@pytest.mark.parametrize("optimiser", [allocators.minimum_variance_weights, allocators.risk_parity_weights, allocators.hrp_weights])
def test_bounds_that_no_weights_fit_give_none(optimiser: allocators.Optimiser) -> None:
    with raises_code(Refused, "weights"):
        optimiser(covariance_of(3), np.zeros(3), np.full(3, 0.2))


# what they all look at
def test_volatilities_and_correlations_are_those_of_the_returns() -> None:
    returns_seen = sample_returns()
    plain = moves()
    columns = [COINS.index(NAMES[address]) for address in returns_seen.tokens]
    assert np.abs(returns_seen.simple_returns - plain[:, columns]).max() < 1e-12
    assert np.abs(returns_seen.volatilities - plain[:, columns].std(axis=0, ddof=1) * np.sqrt(365)).max() < 1e-12
    assert np.abs(returns_seen.correlations - np.corrcoef(plain[:, columns].T)).max() < 1e-12


@pytest.mark.parametrize("days", [30, 90])
def test_correlations__are_shrunk_as_ledoit_and_wolf_say(days: int) -> None:
    returns_seen = sample_returns(days)
    scores = (returns_seen.simple_returns - returns_seen.simple_returns.mean(axis=0)) / returns_seen.simple_returns.std(axis=0)
    count, width = scores.shape
    sample = scores.T @ scores / count
    apart = ((sample - np.eye(width)) ** 2).sum()
    noise = sum(((np.outer(row, row) - sample) ** 2).sum() for row in scores) / count**2
    share = min(noise / apart, 1)
    expected = np.outer(returns_seen.volatilities, returns_seen.volatilities) * ((1 - share) * sample + share * np.eye(width))
    assert 0.01 < share < 1
    assert np.abs(shrunk_covariance(returns_seen, NAMES) - expected).max() < NEAR


def test_inverse_volatility_is_the_closed_form() -> None:
    weights = allocator(AllocationMethod.INVERSE_VOLATILITY)
    step = weighed(weights, recorded(moves()))
    unrounded_weights = allocate_by_inverse_volatility(
        weights, bounds_of(weights, step.portfolio.assets), AllocatorData(NOW_S, step.history.prices, NAMES)
    )
    inverse = 1 / unrounded_weights.returns.simple_returns.std(axis=0, ddof=1)
    expected = inverse / inverse.sum() * 8_000
    assert max(abs(float(share) - want) for share, want in zip(unrounded_weights.shares_bps, expected, strict=True)) < NEAR
    assert float(sum(unrounded_weights.shares_bps)) == 8_000


@pytest.mark.parametrize("method", allocators.ALLOCATORS, ids=lambda method: method.value)
@pytest.mark.parametrize(
    ("limits", "names_at_limit"),
    [
        ((), ""),
        ((WeightLimit(WETH.address, 0, 100),), "WETH"),
        ((WeightLimit(WETH.address, 5_000, 10_000),), "WETH"),
        ((WeightLimit(WETH.address, 1, 7_900),), ""),
    ],
    ids=["no limits", "at the upper one", "at the lower one", "within"],
)
def test_reason__names_the_assets_that_a_limit_holds(
    method: AllocationMethod, limits: tuple[WeightLimit, ...], names_at_limit: str
) -> None:
    settings = allocator(method, limits=limits)
    step = weighed(settings, recorded(moves()))
    supplies = tuple(TokenSupply(token(symbol).address, 10 ** (12 + token(symbol).decimals)) for symbol in COINS)
    inputs = AllocatorData(NOW_S, step.history.prices, NAMES, supplies)
    reason = allocators.ALLOCATORS[method](settings, bounds_of(settings, step.portfolio.assets), inputs).why
    assert reason.partition(", as far as the limits allow; held at a limit: ")[2] == names_at_limit
    assert ("limit" in reason) is bool(names_at_limit)


def test_real_prices__give_the_same_as_the_peers() -> None:
    if not HOURLY.exists():
        pytest.skip(f"{HOURLY} is not on this machine")
    polars = pytest.importorskip("polars")
    table = polars.read_parquet(HOURLY).filter(polars.col("symbol").is_in(["BTC", "ETH", "LINK", "UNI", "AAVE", "MATIC"]))
    daily = table.sort("time").group_by_dynamic("time", every="1d", group_by="symbol").agg(polars.col("close").last())
    wide = daily.pivot(on="symbol", index="time", values="close").drop_nulls().sort("time").drop("time").to_numpy()
    plain = wide[1:] / wide[:-1] - 1
    symbols = tuple(f"C{i}" for i in range(plain.shape[1]))
    names = {token(symbol).address: symbol for symbol in symbols}
    points = recorded(plain, symbols)
    weights = allocator(AllocationMethod.HRP, window_s=len(plain) * DAY_S)
    returns = compute_returns(weights, sorted(names), names, points, NOW_S)
    assert len(returns.simple_returns) == len(plain) > 600
    matrix = shrunk_covariance(returns, names)
    assert np.abs(allocators.hrp_weights(matrix, *free(6)) - paper(matrix)).max() < NEAR
    parity = allocators.risk_parity_weights(matrix, *free(6))
    assert np.ptp(parity * (matrix @ parity) / (parity @ matrix @ parity)) < NEAR
    least = allocators.minimum_variance_weights(matrix, *free(6))
    slope = matrix @ least  # at the least variance every asset that is held has the same marginal variance, the others more
    is_used = least > 1e-4
    assert np.ptp(slope[is_used]) / slope.mean() < 1e-4
    assert (slope[~is_used] > slope[is_used].mean() * (1 - 1e-4)).all()
    assert 0.3 < returns.volatilities.min() < returns.volatilities.max() < 2


class FakeEstimator:
    """An optimiser of skfolio with these weights."""

    def __init__(self, shares: list[float]) -> None:
        self.weights_ = shares

    def fit(self, _: Floats) -> None:
        pass


@pytest.mark.parametrize("shares", [[np.nan, 1.0], [0.5, 0.6], [0.0, 0.0]], ids=["no numbers", "too much", "nothing"])
def test_weights_that_are_none__have_the_code_of_weights(shares: list[float]) -> None:
    bounds = allocators.WeightBounds((WETH.address, "other"), 10_000, (0, 0), (10_000, 10_000))
    with raises_code(Refused, "weights"):
        allocators._shares_in_bps(allocators._fit_weights(FakeEstimator(shares), covariance_of(2)), bounds)
