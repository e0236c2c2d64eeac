"""Plans against a search that knows nothing of duals: exact swaps of every size in every pool, on problems small enough for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import differential_evolution

from agent.model import Pool, Rebalance, StepInput
from agent.planning import planner
from agent.planning.problem import Problem, build_problem
from agent.planning.solver.utility import FlowOptimizer, objective_for_goal, turnover_left
from agent.reference import reference_prices
from agent.units import BPS
from tests.support.builders import Number, step_input, v2_pool, v3_pool, with_limits
from tests.support.planning_peers import objective
from tests.support.planning_worlds import DAI, PRICES, USDC, WETH, check_legs, rebalance_to_targets, without_gas
from tests.support.samples import slow

SEARCH_ERROR_BPS = 0.05
"""Basis points of turnover within which the search finds what is best."""
TARGETS = {"WETH": 4_000, "USDC": 3_500, "DAI": 2_500}
BANDS = {"WETH": ("0.38", "0.42"), "USDC": ("0.33", "0.37"), "DAI": ("0.235", "0.265")}
HALFWAY = {"WETH": ("0.475", "0.475"), "USDC": ("0.325", "0.325"), "DAI": ("0.2", "0.2")}


def three_token_step(skew: Number = 0, **limits: object) -> StepInput:
    """Three tokens, each pair with a pool and one with two; nothing is on target. `skew` puts WETH pools off the reference."""
    pools: list[Pool] = [
        v2_pool(WETH, USDC, 2_000 * (1 + Fraction(skew)), 3_000_000),
        v3_pool(WETH, USDC, 2_000 * (1 - Fraction(skew)), 4_000_000, 3_000),
        v3_pool(WETH, DAI, 2_000 * (1 + 2 * Fraction(skew)), 1_500_000, 500),
        v2_pool(DAI, USDC, 1, 800_000),
    ]
    step = step_input(TARGETS, {"WETH": 55_000, "USDC": 30_000, "DAI": 15_000}, PRICES, pools=pools)
    bounds = {"turnover_bps": None, "daily_turnover_bps": None, "min_trade": None, "pool_min_value": None, **limits}
    return without_gas(with_limits(step, **bounds))


@dataclass(frozen=True)
class TinyProblem:
    """A problem of few tokens and pools. A plan is a number in [−1, 1] per pool: the part of what it takes, and which way."""

    problem: Problem
    search: FlowOptimizer
    scale: float
    quotes: list[tuple]  # type: ignore[type-arg]  # per pool and way: tokens in and out, base units it takes, what they pay
    budget: float | None

    def ends(self, parts: np.ndarray) -> np.ndarray:
        """Value of each token, in units of the scale."""
        value = [float(node.value) for node in self.problem.nodes]
        for part, ways in zip(parts, self.quotes, strict=True):
            source, target, room, pays = ways[int(part < 0)]
            raw = int(abs(part) * room)
            if raw > 0:
                value[source] -= float(raw * self.problem.nodes[source].price)
                value[target] += float(pays(raw) * self.problem.nodes[target].price)
        return np.array(value) / self.scale

    def worth(self, parts: np.ndarray, acyclic: bool) -> float:
        """Worth of a plan; far below everything where it breaks a bound."""
        ends = self.ends(parts)
        held_values = self.search.held_values
        if (ends < 0).any() or (self.budget is not None and np.abs(ends - held_values).sum() / 2 > self.budget):
            return -10.0
        if acyclic and (self.circles(parts) or self.passes(ends)):
            return -10.0
        return self.search.utility.utility_of(ends)

    def circles(self, parts: np.ndarray) -> bool:
        """Whether tokens run in a circle: with three tokens, there and back, or through all."""
        edges = {ways[int(part < 0)][:2] for part, ways in zip(parts, self.quotes, strict=True) if part}
        return any((b, a) in edges for a, b in edges) or {(0, 1), (1, 2), (2, 0)} <= edges or {(1, 0), (2, 1), (0, 2)} <= edges

    def passes(self, ends: np.ndarray) -> bool:
        """Whether a token moves away from its goal or past it."""
        goals = self.search.utility.low_shares * ends.sum()
        held_values = self.search.held_values
        wrong = (ends - goals) * (held_values - self.search.utility.low_shares * held_values.sum()) < -1e-9
        return bool(wrong.any())

    def best(self, acyclic: bool = False, seed: int = 1) -> float:
        """The most that is found."""
        optimum = differential_evolution(
            lambda parts: -self.worth(np.where(np.abs(parts) < 0.002, 0.0, parts), acyclic),
            [(-1.0, 1.0)] * len(self.quotes),
            rng=seed, maxiter=160, popsize=10, tol=1e-12, polish=False,
        )  # fmt: skip
        return -float(optimum.fun)


def tiny_problem(step: StepInput, decision: Rebalance) -> TinyProblem:
    problem = build_problem(step, reference_prices(step))
    aim = objective_for_goal(problem, decision.goal)
    budget, _ = turnover_left(step, problem.total)
    scale = float(problem.total)
    search = aim.optimizer(scale, np.zeros(len(problem.nodes)), {}, None if budget is None else float(budget))
    quotes = []
    for pool in problem.pools.values():
        ways = []
        for token_in, token_out in ((pool.token0, pool.token1), (pool.token1, pool.token0)):
            room = min(pool.max_in(token_in, problem.impact_bps), int(problem.total / problem.price(token_in)))
            ways.append((problem.index_by_token[token_in], problem.index_by_token[token_out], room, pool.quoter(token_in)))
        quotes.append(tuple(ways))
    return TinyProblem(problem, search, scale, quotes, search.max_turnover)


def advantage_and_gap(
    step: StepInput, weights: Mapping[str, tuple[Number, Number]] | None = None, acyclic: bool = False
) -> tuple[float, float]:
    """(what the search finds better than the plan, the plan's gap), bps of the plan's turnover."""
    decision = rebalance_to_targets(step, weights)
    plan = planner.plan(step, decision)
    check_legs(step, plan)
    small = tiny_problem(step, decision)
    held_raw = {holding.token: holding.raw for holding in step.snapshot.holdings}
    ours = float(objective(step, decision, {at: raw - held_raw[at] for at, raw in plan.holdings_after})) / small.scale
    assert plan.gap_bps is not None
    per_bp = float(plan.turnover) / small.scale / BPS
    return (small.best(acyclic) - ours) / per_bp, float(plan.gap_bps)


@pytest.mark.parametrize("weights", [BANDS, *slow([None, HALFWAY])], ids=["band", "exact", "halfway"])
@pytest.mark.parametrize("plan_cost_bps", [50, *slow([100])])
def test_plan_is_as_good_as_a_search_for_any_destination(weights: Mapping[str, tuple[Number, Number]] | None, plan_cost_bps: int) -> None:
    advantage_bps, gap_bps = advantage_and_gap(three_token_step(plan_cost_bps=plan_cost_bps), weights)
    assert -SEARCH_ERROR_BPS <= advantage_bps <= gap_bps + 1e-6, "what is searched comes close, and never beyond the bound"


@pytest.mark.parametrize("turnover_bps", [300, *slow([700])])
def test_plan_under_turnover_is_as_good_as_a_search(turnover_bps: int) -> None:
    step = three_token_step(turnover_bps=turnover_bps)
    advantage_bps, gap_bps = advantage_and_gap(step)
    assert -SEARCH_ERROR_BPS <= advantage_bps <= gap_bps + 1e-6
    assert float(planner.plan(step, rebalance_to_targets(step)).turnover) == pytest.approx(turnover_bps / BPS * 100_000 * 10**6, rel=1e-6)


@pytest.mark.slow
def test_plan_in_skewed_pools_is_best_without_circles() -> None:
    step = three_token_step(skew=Fraction(8, 1_000))
    advantage_bps, gap_bps = advantage_and_gap(step, acyclic=True)
    assert -3 * SEARCH_ERROR_BPS <= advantage_bps <= gap_bps + 1e-6
    small = tiny_problem(step, rebalance_to_targets(step))
    assert small.best() - small.best(acyclic=True) > 1e-6, "with circles there is more to be had, which is not wanted"
