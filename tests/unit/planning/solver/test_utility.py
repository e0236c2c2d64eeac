"""The quadratic of a zone in the continuous core: its cap, its pinned tokens and limits, against brute force on few tokens."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from agent.planning.pool_curves import PoolCurve
from agent.planning.solver.utility import DeviationRisk, FlowOptimizer, PlanUtility, build_deviation_risk
from tests.support.decisions.solver import both_ways, market
from tests.support.samples import slow

Numbers = NDArray[np.float64]
PRICE = 0.02
SIZES = st.integers(0, 2**32 - 1)


def random_risk(dice: np.random.Generator, size: int) -> tuple[DeviationRisk, Numbers, float]:
    """A risk, its covariance and its factor; the last token is nearly stable."""
    spread = np.append(dice.uniform(0.2, 1.2, size - 1), dice.choice([0.001, 0.02]))
    related = 0.98 * np.corrcoef(dice.normal(size=(size, size + 2))) + 0.02 * np.eye(size)
    factor = float(10 ** dice.uniform(-4, -2))
    return build_deviation_risk(spread, related, factor), related * np.outer(spread, spread), factor


def capped_loss(sigma: Numbers, factor: float, off: Numbers) -> float:
    """The least of ½·a·(d − e)ᵀΣ(d − e) + P/2 · Σ|e| over all e that sum to zero: what is beyond the cap pays P per unit moved."""
    size = len(off)

    def loss(parts: Numbers) -> float:
        remainder = off - parts[:size] + parts[size:]
        return float(0.5 * factor * remainder @ sigma @ remainder + PRICE / 2 * parts.sum())

    begin = np.concatenate([np.maximum(off, 0), np.maximum(-off, 0)]) / 2
    balanced = {"type": "eq", "fun": lambda parts: parts[:size].sum() - parts[size:].sum()}
    optimum = minimize(
        loss, begin, bounds=[(0, None)] * (2 * size), constraints=[balanced], method="SLSQP", options={"maxiter": 500, "ftol": 1e-14}
    )
    return float(optimum.fun)


@given(SIZES, st.integers(2, 3))
@example(4582, 2)
def test_risk_cost_is_quadratic_and_linear_beyond_the_cap(seed: int, size: int) -> None:
    """Floats err by their own precision times the condition number of the covariance, here up to 10^8."""
    dice = np.random.default_rng(seed)
    risk, sigma, factor = random_risk(dice, size)
    off = dice.normal(size=size) * 20
    off -= off.mean()
    cost = risk.cost(off, PRICE / 2)
    free = 0.5 * factor * off @ sigma @ off
    slopes = factor * sigma @ off
    assert cost <= free * (1 + 10 * np.finfo(float).eps * np.linalg.cond(sigma)) + 1e-12
    if slopes.max() - slopes.min() <= PRICE:
        assert cost == pytest.approx(free, rel=1e-6, abs=1e-12), "no exchange would save more than the cap"
    assert cost == pytest.approx(capped_loss(sigma, factor, off), rel=1e-4, abs=1e-7)


@given(SIZES)
def test_exchange_is_worth_its_saved_risk_up_to_the_price(seed: int) -> None:
    dice = np.random.default_rng(seed)
    risk, sigma, factor = random_risk(dice, 3)
    shares = np.array([0.4, 0.3, 0.3])
    utility = PlanUtility(shares, shares, PRICE, 0.5, {}, risk)
    ends = dice.uniform(5, 60, 3)
    slopes = factor * sigma @ (ends - shares * ends.sum())
    unit = np.eye(3) * 1e-4
    for source, target in permutations(range(3), 2):
        gain = (utility.utility_of(ends + unit[target] - unit[source]) - utility.utility_of(ends - unit[target] + unit[source])) / 2e-4
        assert gain <= PRICE * (1 + 1e-6)
        if slopes.max() - slopes.min() <= PRICE * 0.999:
            assert gain == pytest.approx(slopes[source] - slopes[target], abs=1e-8)


@pytest.mark.parametrize("pinned", [{1: 30.0}, *slow([{}])])
@pytest.mark.parametrize("budget", [None, 1.0])
@pytest.mark.parametrize("cost_pips", [100, 3000])
def test_solve_is_as_good_as_a_search_over_all_amounts(pinned: dict[int, float], budget: float | None, cost_pips: int) -> None:
    """A token that stays where it is keeps its risk: what it moves together with is held less."""
    related = np.array([[1.0, 0.8, 0.1], [0.8, 1.0, 0.2], [0.1, 0.2, 1.0]])
    shares = np.array([0.4, 0.3, 0.3])
    held_values = np.array([42.0, 30.0, 18.0])
    risk = build_deviation_risk(np.array([0.9, 0.7, 0.01]), related, 0.004)
    free = np.full(3, np.inf)
    search = FlowOptimizer(PlanUtility(shares, shares, PRICE, 0.5, pinned, risk), held_values, held_values, -free, free, budget)
    pools = [both_ways(0, 1, 1e4, cost_pips), both_ways(0, 2, 1e4, cost_pips), both_ways(1, 2, 1e4, cost_pips)]
    stack = market(*pools)
    solution = search.solve(stack)
    ends = search.final_values(stack, solution)
    best = best_utility_by_grid(search, pools)
    assert search.utility.utility_of(ends) >= best - 1e-9
    assert search.utility.utility_of(ends) == pytest.approx(best, abs=2e-6)
    assert solution.bound == pytest.approx(search.utility.utility_of(ends), abs=1e-7)
    assert search.utility.utility_of(ends) > search.utility.utility_of(held_values)
    assert search.turnover(stack, solution) <= (budget or np.inf) * (1 + 1e-6)
    for token, value in pinned.items():
        assert ends[token] == pytest.approx(value, abs=1e-6)


def test_token_nearly_without_risk_is_not_sold_short() -> None:
    """Two stable tokens stand in for each other: the one of which there is none left costs next to no risk."""
    shares = np.array([0.4, 0.3, 0.3])
    held_values = np.array([25.0, 5.0, 70.0])
    risk = build_deviation_risk(np.array([0.8, 0.005, 0.005]), np.eye(3), 0.01)
    search = FlowOptimizer(
        PlanUtility(shares, shares, PRICE, 0.5, {}, risk), held_values, held_values, np.zeros(3), np.full(3, np.inf), None
    )
    stack = market(both_ways(0, 1, 1e4, 100), both_ways(0, 2, 1e4, 3000))
    ends = search.final_values(stack, search.solve(stack))
    assert ends[1] == pytest.approx(0, abs=1e-9)
    assert ends[0] > 29.9


def best_utility_by_grid(search: FlowOptimizer, pools: list[list[tuple[int, int, PoolCurve]]]) -> float:
    """The best worth over what the three pairs may trade, each either way: a grid that closes in on its best point.

    Where the token in the middle is pinned, the third pair trades on what the first brought it or took from it.
    """
    pinned = 1 in search.utility.end_value_by_token

    def traded(number: int, flow: float) -> Numbers:
        source, target, curve = pools[number][0] if flow > 0 else pools[number][1]
        return np.asarray(np.eye(3)[target] * curve.output_for(abs(flow)) - np.eye(3)[source] * abs(flow))

    def utility_of_flows(flows: Numbers) -> float:
        moved = traded(0, flows[0]) + traded(1, flows[1])
        moved = moved + traded(2, moved[1] if pinned and moved[1] > 0 else flows[2] * (not pinned))
        within = search.max_turnover is None or np.abs(moved).sum() / 2 <= search.max_turnover
        return search.utility.utility_of(search.held_values + moved) if within and (not pinned or abs(moved[1]) < 1e-9) else -np.inf

    middle = np.zeros(3)
    width = 8.0
    best = search.utility.utility_of(search.held_values)
    sides = [np.linspace(-1, 1, 5)] * (2 if pinned else 3)
    while width > 1e-4:
        tries = [middle + width * np.array([*steps, *[0.0] * pinned]) for steps in product(*sides)]
        best_flows = max(tries, key=utility_of_flows)
        if utility_of_flows(best_flows) > best:
            middle = best_flows
            best = utility_of_flows(best_flows)
        width *= 0.6
    return best
