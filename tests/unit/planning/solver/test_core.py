"""The continuous core: quadratics in a box, the dual as a bound on whatever pools can do, turnover, hubs, risk."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from agent.planning.pool_curves import CurveStack, PoolCurve
from agent.planning.solver.box import box_minimum
from agent.planning.solver.dual import evaluate_dual, solve_dual
from agent.planning.solver.utility import FlowOptimizer, PlanUtility, build_deviation_risk, sell_program
from tests.support.decisions.solver import both_ways, market


def optimizer_for(
    held_values: list[float], shares: list[float], price: float = 0.01, band: float = 0.0, budget: float | None = None
) -> FlowOptimizer:
    """Goals of the final total, each `band` wide either way; tokens with no share must end empty."""
    goal_shares = np.array(shares)
    low = np.where(goal_shares > 0, goal_shares - band, 0.0)
    high = np.where(goal_shares > 0, goal_shares + band, 0.0)
    now = np.array(held_values)
    above = np.maximum(now - high * now.sum(), 0.0).sum()
    below = np.maximum(low * now.sum() - now, 0.0).sum()
    tie_break = 0.5 if not band or above + below == 0 else above / (above + below)
    hubs = {number: 0.0 for number, share in enumerate(shares) if share == 0}
    size = len(held_values)
    return FlowOptimizer(PlanUtility(low, high, price, tie_break, hubs), now, now, np.full(size, -np.inf), np.full(size, np.inf), budget)


# quadratics in a box


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_box_minimum_has_no_way_further_down(seed: int, size: int) -> None:
    dice = np.random.default_rng(seed)
    root = dice.normal(size=(dice.integers(1, size + 1), size)) * 10 ** dice.uniform(-2, 4)
    if dice.random() < 0.5:  # two multipliers of one token
        root[:, size // 2 : size // 2 * 2] = -root[:, : size // 2]
    matrix = root.T @ root
    slope = dice.normal(size=size)
    low = -dice.uniform(0, 1, size) * (dice.random(size) > 0.2)
    high = dice.uniform(0, 1, size) * (dice.random(size) > 0.2)
    minimum, sides = box_minimum(matrix, slope, low, high)
    for near in (sides, dice.integers(-1, 2, size).tolist()):
        again, _ = box_minimum(matrix, slope, low, high, near)
        assert np.array_equal(again, minimum), "where the search begins does not show in the minimum"
    pull = slope + matrix @ minimum
    assert ((low <= minimum) & (minimum <= high)).all()
    unmoved = np.abs(pull) <= 1e-6 * (1 + np.abs(matrix).max())
    assert (unmoved | ((pull > 0) & (minimum <= low)) | ((pull < 0) & (minimum >= high))).all()


# the dual


def shares_after(search: FlowOptimizer, stack: CurveStack) -> np.ndarray:
    """Return the shares of the final total that a solution leads to."""
    ends = search.final_values(stack, search.solve(stack))
    return ends / ends.sum()


def test_solve_meets_every_goal() -> None:
    search = optimizer_for([60.0, 30.0, 10.0], [0.5, 0.35, 0.15])
    stack = market(both_ways(0, 1), both_ways(0, 2), both_ways(1, 2))
    solution = search.solve(stack)
    ends = search.final_values(stack, solution)
    assert ends / ends.sum() == pytest.approx([0.5, 0.35, 0.15], abs=1e-9)
    assert solution.bound == pytest.approx(search.utility.utility_of(ends), abs=1e-9)
    live = solution.amount_in > 0
    assert (solution.prices[stack.source[live]] < solution.prices[stack.target[live]]).all(), "value runs up the prices, never in a circle"


@pytest.mark.parametrize(("fee_pips", "moves"), [(3_000, False), (1_000, True)])
def test_solve_skips_a_move_dearer_than_its_price(fee_pips: int, moves: bool) -> None:
    search = optimizer_for([60.0, 40.0], [0.5, 0.5], price=0.002)
    assert bool(search.solve(market(both_ways(0, 1, fee_pips=fee_pips))).amount_in.sum() > 0) is moves


def test_solve_splits_pools_so_that_last_units_pay_alike() -> None:
    search = optimizer_for([1.0, 0.0], [0.0001, 0.9999], price=0.1)
    stack = market(both_ways(0, 1, 500.0), both_ways(0, 1, 1_500.0))
    shallow, deep = sorted(search.solve(stack).amount_in[search.solve(stack).amount_in > 0])
    assert deep / shallow == pytest.approx(3.0, rel=1e-3)


def test_solve_ends_at_the_edge_of_an_interval() -> None:
    stack = market(both_ways(0, 1))
    assert shares_after(optimizer_for([60.0, 40.0], [0.5, 0.5], band=0.05), stack)[0] == pytest.approx(0.55, abs=1e-9)
    assert optimizer_for([52.0, 48.0], [0.5, 0.5], band=0.05).solve(stack).amount_in.sum() == 0


def test_solve_without_pools_keeps_everything() -> None:
    search = optimizer_for([60.0, 40.0], [0.5, 0.5])
    assert search.solve(market()).bound == pytest.approx(search.utility.utility_of(np.array([60.0, 40.0])))


def test_bound_holds_where_a_unit_costs_more_than_its_worth() -> None:
    """Ten units must go at a price of two each, and the pool takes a twentieth of one: the price is less than nothing."""
    program = sell_program(np.array([10.0, 0.0]), {0: 0.0}, 2.0)
    stack = market(both_ways(0, 1, 10.0))
    sold = stack.flat_cells[3].max() / stack.fee_factor[0]
    paid = stack.flat_cells[4].max()
    assert 0.02 < paid < sold < 0.1
    best = 10.0 - sold + paid - 2.0 * (10.0 - sold)
    solution = solve_dual(program, stack)
    assert solution.bound == pytest.approx(best, abs=1e-12)
    assert solution.prices[0] < 0
    assert evaluate_dual(program, stack, np.array([-2.0])).bound > best
    worthless = sell_program(np.array([10.0, 0.0, 1.0]), {0: 0.0, 1: 0.0}, 2.0)
    assert evaluate_dual(worthless, market(both_ways(0, 1, 10.0)), np.array([2.0, 2.0])).bound >= 1.0 - 2.0 * (10.0 - sold) - 2.0 * paid


def test_solve_leaves_a_hub_empty() -> None:
    search = optimizer_for([60.0, 40.0, 0.0], [0.5, 0.5, 0.0])
    stack = market(both_ways(0, 2), both_ways(2, 1))
    assert search.final_values(stack, search.solve(stack)) == pytest.approx([49.97, 49.97, 0.0], abs=0.01)


def test_solve_under_turnover_takes_the_cheapest_moves_first() -> None:
    pairs = both_ways(0, 1, fee_pips=500), both_ways(0, 2, fee_pips=3_000)
    search = optimizer_for([60.0, 20.0, 20.0], [0.4, 0.3, 0.3], budget=8.0)
    stack = market(*pairs)
    solution = search.solve(stack)
    ends = search.final_values(stack, solution)
    assert search.turnover(stack, solution) == pytest.approx(8.0, abs=1e-7)
    assert ends[2] == pytest.approx(20.0, abs=1e-7)
    assert ends[1] > 27.9, "0.05 % is cheaper than 0.3 %"
    assert solution.bound == pytest.approx(search.utility.utility_of(ends), abs=1e-8)


@given(seed=st.integers(0, 10**6), band=st.sampled_from([0.0, 0.03]), limited=st.booleans())
def test_bound_covers_everything_that_pools_can_do(seed: int, band: float, limited: bool) -> None:
    """Weak duality, the ground of the certificate: random flows, the found ones among them, stay below the bound."""
    dice = random.Random(seed)
    size = dice.randint(2, 6)
    ends = [tuple(dice.sample(range(size), 2)) for _ in range(dice.randint(1, 12))]
    stack = market(*(both_ways(a, b, 10 ** dice.uniform(1.5, 5), dice.choice([500, 3_000, 10_000]), dice.gauss(0, 0.002)) for a, b in ends))
    held_values = [dice.expovariate(1 / 20) for _ in range(size)]
    shares = [dice.expovariate(1) + 0.2 for _ in range(size)]
    search = optimizer_for(
        held_values, [share / sum(shares) for share in shares], 10 ** dice.uniform(-3, -1), band, 2.0 if limited else None
    )
    solution = search.solve(stack)
    best = search.utility.utility_of(search.final_values(stack, solution))
    assert solution.bound >= best - 1e-9
    assert solution.bound == pytest.approx(best, abs=1e-5 * search.utility.penalty * 100)
    for _ in range(20):
        part = np.array([dice.random() ** 3 for _ in range(len(stack))]) * dice.random()
        tried = random_changes(stack, solution.amount_in, part, dice, size)
        if search.max_turnover is not None and np.abs(tried).sum() / 2 > search.max_turnover:
            tried *= search.max_turnover / (np.abs(tried).sum() / 2)
        after = search.held_values + tried
        if (after >= 0).all():
            assert search.utility.utility_of(after) <= solution.bound + 1e-9


def random_changes(stack: CurveStack, best: np.ndarray, part: np.ndarray, dice: random.Random, size: int) -> np.ndarray:
    """Change of each token when every arc takes something: near the best flows, or anything up to its capacity."""
    rate, edge, depth, net, out, _ = stack.flat_cells
    width = stack.rates.shape[1] + 1
    change = np.zeros(size)
    for row in range(len(stack)):
        cells = slice(row * width + 1, (row + 1) * width)
        live = rate[cells] > -1
        keep = float(stack.fee_factor[row])
        curve = PoolCurve(keep, *(values[cells][live] for values in (rate, edge, depth, net, out, out)))
        taken = float(best[row]) * dice.uniform(0.5, 1.5) if dice.random() < 0.5 else float(part[row]) * curve.capacity
        taken = min(taken, curve.capacity)
        change[stack.source[row]] -= taken
        change[stack.target[row]] += curve.output_for(taken)
    return change


# risk


def zone(held_values: list[float], shares: list[float], volatility: list[float], correlation: float, aversion: float) -> FlowOptimizer:
    size = len(held_values)
    weights = np.array(shares)
    now = np.array(held_values)
    related = np.full((size, size), correlation) + np.eye(size) * (1 - correlation)
    risk = build_deviation_risk(np.array(volatility), related, aversion / now.sum())
    return FlowOptimizer(PlanUtility(weights, weights, 0.05, 0.5, {}, risk), now, now, np.full(size, -np.inf), np.full(size, np.inf), None)


def test_risk_is_the_quadratic_of_the_deviation() -> None:
    search = zone([60.0, 40.0], [0.5, 0.5], [0.8, 0.001], 0.3, 0.02)
    variance = 0.1**2 * (0.8**2 - 2 * 0.3 * 0.8 * 0.001 + 0.001**2)
    assert 100 - search.utility.utility_of(search.held_values) == pytest.approx(0.5 * 0.02 * 100 * variance)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.95])
def test_zone_trades_while_the_risk_saved_exceeds_the_cost(correlation: float) -> None:
    search = zone([45.0, 30.0, 25.0], [0.4, 0.3, 0.3], [0.9, 0.6, 0.001], correlation, 0.5)
    pools = [both_ways(0, 1, 1e4, 500), both_ways(0, 2, 1e4, 500), both_ways(1, 2, 1e4, 500)]
    stack = market(*pools)
    solution = search.solve(stack)
    ends = search.final_values(stack, solution)
    assert solution.bound == pytest.approx(search.utility.utility_of(ends), abs=1e-8)
    assert search.utility.utility_of(ends) > search.utility.utility_of(search.held_values)
    assert 0.4 < ends[0] / ends.sum() < 0.45, "costs keep it from going all the way"

    def loss(sold: np.ndarray) -> float:
        change = np.zeros(3)
        for (source, target, curve), amount in zip((pools[0][0], pools[1][0], pools[2][0]), sold, strict=True):
            change += np.eye(3)[target] * curve.output_for(float(amount)) - np.eye(3)[source] * amount
        return -search.utility.utility_of(search.held_values + change)

    peer = minimize(loss, np.full(3, 0.5), bounds=[(0, 20)] * 3, method="L-BFGS-B")
    assert solution.bound >= -peer.fun - 1e-6
    assert search.utility.utility_of(ends) >= -peer.fun - 1e-9


def test_zone_values_a_unit_at_its_price_at_most() -> None:
    """Far out the marginal risk exceeds P; from there on it counts as P does."""
    utility = zone([90.0, 10.0], [0.5, 0.5], [3.0, 0.001], 0.0, 20.0).utility
    near, far = (utility.utility_of(np.array(values)) for values in ([80.0, 20.0], [90.0, 10.0]))
    assert near - far == pytest.approx(0.05 * 10, rel=1e-6)
