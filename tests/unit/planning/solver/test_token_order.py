"""Which way value runs where pools are off the reference: no circle, no token past its goal, and of all orders of tokens the best."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from agent.model import StepInput
from agent.planning.problem import PoolGraph, build_pool_graph, build_problem
from agent.planning.solver import token_order
from agent.planning.solver.token_order import break_cycles, flows_by_token_pair, order_tokens, shortest_cycle
from agent.planning.solver.utility import FlowOptimizer, objective_for_goal, turnover_left
from agent.reference import reference_prices
from agent.units import BPS
from tests.support.builders import with_limits
from tests.support.planning_worlds import random_step, rebalance_to_targets, without_gas
from tests.support.samples import slow

WORTH = 1e-6
"""A hundredth of a basis point of what has to move."""


def skewed_market(seed: int, tokens: int, pools: int, turnover_bps: int | None = None) -> tuple[PoolGraph, FlowOptimizer]:
    """A market off the reference by half a percent (standard deviation of each pool), and what is looked for in it."""
    step: StepInput = random_step(seed, tokens, pools, 2_000_000, skew=0.005)
    step = without_gas(with_limits(step, pool_min_value=None, min_trade=None, turnover_bps=turnover_bps, daily_turnover_bps=None))
    problem = build_problem(step, reference_prices(step))
    objective = objective_for_goal(problem, rebalance_to_targets(step).goal)
    market = build_pool_graph(problem, max(objective.value_off_goal, float(problem.total) / BPS))
    budget, _ = turnover_left(step, problem.total)
    return market, objective.optimizer(market.scale, np.zeros(tokens), {}, None if budget is None else float(budget))


def ties_by_number(token_count: int) -> list[tuple[float, ...]]:
    """Keys by which tokens that no flow orders come in the order of their numbers."""
    return [(float(token),) for token in range(token_count)]


@pytest.mark.parametrize("turnover_bps", [None, *slow([500])])
def test_order_tokens_is_the_best_of_all_orders(turnover_bps: int | None) -> None:
    gain_count = 0
    for seed in range(8):
        market, search = skewed_market(seed, 4, 9, turnover_bps)
        order = order_tokens(market, market.rows(), search)
        within = order.restrict(search)
        worth = {
            rank: within.solve(market.real_curves.rows(replace(order, rank=np.array(rank)).rows(market.real_curves, market.rows()))).bound
            for rank in permutations(range(4))
        }
        assert worth[tuple(order.rank.tolist())] >= max(worth.values()) - WORTH, seed
        gain_count += max(worth.values()) > within.solve(market.counted_curves).bound + WORTH
    assert gain_count >= 4, "pools off the reference are worth an order"


def test_break_cycles_proves_only_the_best_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_order, "MAX_SUBPROBLEMS", 10**3)
    for seed in range(6):
        market, search = skewed_market(seed, 4, 12)
        order = order_tokens(market, market.rows(), search)
        within = order.restrict(search)
        assert break_cycles(market.real_curves.rows(market.rows()), within, ties_by_number(4)).is_proven_best
        chosen_value = within.solve(market.real_curves.rows(order.rows(market.real_curves, market.rows()))).bound
        for rank in permutations(range(4)):
            rows = replace(order, rank=np.array(rank)).rows(market.real_curves, market.rows())
            assert within.solve(market.real_curves.rows(rows)).bound <= chosen_value + WORTH, (seed, rank)


def test_break_cycles_that_gives_up_says_so_and_has_no_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    unproven = 0
    monkeypatch.setattr(token_order, "MAX_SUBPROBLEMS", 3)
    for seed in range(6):
        market, search = skewed_market(seed, 6, 30)
        restricted_optimizer = order_tokens(market, market.rows(), search).restrict(search)
        acyclic_flows = break_cycles(market.real_curves.rows(market.rows()), restricted_optimizer, ties_by_number(6))
        unproven += not acyclic_flows.is_proven_best
        assert shortest_cycle(dict.fromkeys(acyclic_flows.best_pairs, 1.0)) == []
        assert shortest_cycle(dict.fromkeys(acyclic_flows.pairs_after_cuts, 1.0)) == []
    assert unproven >= 3


def test_flows_at_the_reference_have_no_circle() -> None:
    step = without_gas(with_limits(random_step(1, 6, 30, skew=0.0), pool_min_value=None, min_trade=None))
    problem = build_problem(step, reference_prices(step))
    objective = objective_for_goal(problem, rebalance_to_targets(step).goal)
    market = build_pool_graph(problem, objective.value_off_goal)
    search = objective.optimizer(market.scale, np.zeros(6), {}, None)
    assert shortest_cycle(flows_by_token_pair(market.real_curves, search.solve(market.real_curves))) == []
    assert break_cycles(market.real_curves, search, ties_by_number(6)).is_proven_best


def test_shortest_cycle_prefers_the_widest_of_the_shortest() -> None:
    edges = {(0, 1): 5.0, (1, 2): 4.0, (2, 0): 4.0, (2, 3): 1.0, (3, 2): 2.0, (1, 4): 3.0, (4, 1): 2.0}
    assert set(shortest_cycle(edges)) == {(1, 4), (4, 1)}
    assert set(shortest_cycle({(0, 1): 5.0, (1, 2): 4.0, (2, 0): 4.0, (3, 0): 9.0})) == {(0, 1), (1, 2), (2, 0)}
    assert shortest_cycle({(0, 1): 5.0, (1, 2): 4.0, (0, 2): 4.0}) == []
