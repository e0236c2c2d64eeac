"""Token order, which uses pools off the reference without cycles or arbitrage.

A pool that pays more than the reference may serve a swap that the goal needs, but is never a reason
to trade (T9). The first solve caps pool prices at the reference, so no cycle is profitable and no
token overshoots its goal. Each token is then bounded by its current value and either the result of
these flows or its goal, and a solve at real prices selects the best acyclic flows. They fix the
token order of the plan.

Acyclic flows of highest utility: branch and bound over the exchanges to exclude. An unconstrained
solve takes every arbitrage between pools, so a plan must exclude at least one exchange of each
cycle. Each choice is a subproblem bounded by its dual; a subproblem bounded below the best known
plan is discarded (Land, Doig, "An automatic method of solving discrete programming problems",
1960).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agent.floats import FloatArray, IndexArray
from agent.planning.pool_curves import CurveStack
from agent.planning.problem import PoolGraph
from agent.planning.solver.dual import DualSolution, PoolResponses
from agent.planning.solver.utility import UNMOVED_FRACTION, FlowOptimizer

MAX_SUBPROBLEMS = 20
"""Number of subproblems at which the search ends, after all children of a node. Most
searches need one to nine.
"""
EQUAL_UTILITY_TOLERANCE = 1e-7
"""Utility per unit of scale within which two plans count as equal."""

TokenEdge = tuple[int, int]
"""Token in, token out."""


@dataclass(frozen=True, slots=True)
class AcyclicFlows:
    """Token pairs with flow in the best known acyclic flows.

    `is_proven_best` is true if no other acyclic flows have a higher utility. `pairs_after_cuts` are
    the pairs after cycles are cut at their smallest flow: another starting point.
    """

    best_pairs: frozenset[TokenEdge]
    pairs_after_cuts: frozenset[TokenEdge]
    is_proven_best: bool


@dataclass(frozen=True, slots=True)
class _BranchNode:
    """Best flows without the token pairs in `excluded_pairs`.

    `bound` is an upper bound of the utility of all flows without these pairs.
    """

    excluded_pairs: frozenset[TokenEdge]
    solution: DualSolution
    flow_by_pair: Mapping[TokenEdge, float]

    @property
    def bound(self) -> float:
        return self.solution.bound


def break_cycles(
    stack: CurveStack, optimizer: FlowOptimizer, tie_break_keys: Sequence[tuple[float, ...]]
) -> AcyclicFlows:
    """Return the best acyclic flows, searched until MAX_SUBPROBLEMS subproblems. The first known
    ones follow the order of the unconstrained flows with their cycles cut; `tie_break_keys` are
    its ties.
    """
    token_pairs = list(zip(stack.source.tolist(), stack.target.tolist(), strict=True))

    def solve_node(
        excluded_pairs: frozenset[TokenEdge],
        earlier_solution: DualSolution | None,
        required_bound: float = -np.inf,
    ) -> _BranchNode:
        curve_rows = np.array(
            [row for row, token_pair in enumerate(token_pairs) if token_pair not in excluded_pairs],
            dtype=np.intp,
        )
        substack = stack.rows(curve_rows)
        solution = optimizer.solve(substack, earlier_solution, required_bound)
        return _BranchNode(excluded_pairs, solution, flows_by_token_pair(substack, solution))

    root_node = solve_node(frozenset(), None)
    pairs_after_cuts = frozenset(_without_cycles(root_node.flow_by_pair))
    if not shortest_cycle(root_node.flow_by_pair):
        return AcyclicFlows(pairs_after_cuts, pairs_after_cuts, is_proven_best=True)
    rank = _ranks(len(tie_break_keys), pairs_after_cuts, tie_break_keys)
    opposed_pairs = frozenset(
        (source, target) for source, target in token_pairs if rank[source] > rank[target]
    )
    best_node = solve_node(opposed_pairs, root_node.solution)
    enough_bound = best_node.bound + EQUAL_UTILITY_TOLERANCE
    open_nodes = [(-root_node.bound, 0, root_node)]
    solved_count = 2
    while open_nodes and -open_nodes[0][0] > enough_bound and solved_count < MAX_SUBPROBLEMS:
        _, _, current_node = heapq.heappop(open_nodes)
        cycle = shortest_cycle(current_node.flow_by_pair)
        if not cycle:
            best_node = current_node
            enough_bound = best_node.bound + EQUAL_UTILITY_TOLERANCE
        for token_pair in cycle:
            child_node = solve_node(
                current_node.excluded_pairs | {token_pair}, current_node.solution, enough_bound
            )
            solved_count += 1
            heapq.heappush(open_nodes, (-child_node.bound, solved_count, child_node))
    return AcyclicFlows(
        frozenset(best_node.flow_by_pair),
        pairs_after_cuts,
        is_proven_best=not open_nodes or -open_nodes[0][0] <= enough_bound,
    )


def flows_by_token_pair(stack: CurveStack, solution: DualSolution) -> dict[TokenEdge, float]:
    """Return the sum of flows between each pair of tokens."""
    flow_by_pair: dict[TokenEdge, float] = {}
    for source, target, amount_in in zip(
        stack.source.tolist(), stack.target.tolist(), solution.amount_in.tolist(), strict=True
    ):
        if amount_in > UNMOVED_FRACTION:
            flow_by_pair[source, target] = flow_by_pair.get((source, target), 0.0) + amount_in
    return flow_by_pair


def shortest_cycle(flow_by_edge: Mapping[TokenEdge, float]) -> list[TokenEdge]:
    """Return the cycle with the fewest exchanges, and among equals the one with the largest minimum
    flow. Empty without cycles.
    """
    successors: dict[int, list[int]] = {}
    for source, target in flow_by_edge:
        successors.setdefault(source, []).append(target)
    cycles = [cycle for edge in flow_by_edge if (cycle := _cycle_through(successors, edge))]
    return min(
        cycles,
        key=lambda cycle: (len(cycle), -min(flow_by_edge[edge] for edge in cycle)),
        default=[],
    )


def _cycle_through(
    successors: Mapping[int, Sequence[int]], first_edge: TokenEdge
) -> list[TokenEdge]:
    """Return the shortest cycle that begins with this edge; `successors` are the ends of the edges
    from each token.
    """
    start_token, token = first_edge
    predecessor: dict[int, int] = {token: start_token}
    frontier = [token]
    while frontier and start_token not in predecessor:
        next_frontier = []
        for from_token in frontier:
            for to_token in successors.get(from_token, ()):
                if to_token not in predecessor:
                    predecessor[to_token] = from_token
                    next_frontier.append(to_token)
        frontier = next_frontier
    if start_token not in predecessor:
        return []
    cycle = []
    cycle_token = start_token
    while cycle_token != token:
        cycle.append((predecessor[cycle_token], cycle_token))
        cycle_token = predecessor[cycle_token]
    return [first_edge, *reversed(cycle)]


def _without_cycles(flow_by_edge: Mapping[TokenEdge, float]) -> dict[TokenEdge, float]:
    """Return the flows with each cycle reduced by its smallest flow."""
    remaining_flows = dict(flow_by_edge)
    while cycle := shortest_cycle(remaining_flows):
        smallest_flow = min(remaining_flows[edge] for edge in cycle)
        remaining_flows = {
            edge: carried_flow - (smallest_flow if edge in cycle else 0.0)
            for edge, carried_flow in remaining_flows.items()
        }
        remaining_flows = {
            edge: carried_flow for edge, carried_flow in remaining_flows.items() if carried_flow > 0
        }
    return remaining_flows


MIN_PRICE_DIFFERENCE = 1e-5
"""Smallest price difference that orders two tokens; below it, their sides and number of pools
decide.
"""
MAX_ORDER_CHANGES = 16
"""Maximum number of changes to the order."""
MAX_REVERSED_PAIRS = 12
"""Maximum number of token pairs tried in reverse for each change."""
MIN_SURPLUS = 1e-7
"""Least surplus, per unit of scale, for which an order change is tried or kept."""


@dataclass(frozen=True, slots=True)
class TokenOrder:
    """Tokens by rank; swaps run from lower to higher ranks. Bounds on final values as in
    FlowOptimizer.
    """

    rank: IndexArray
    min_values: FloatArray
    max_values: FloatArray
    directions: FloatArray
    has_hard_goals: bool

    @property
    def tokens_in_order(self) -> list[int]:
        """Tokens from first to last."""
        return [int(token) for token in np.argsort(self.rank, kind="stable")]

    def rows(self, stack: CurveStack, curve_rows: IndexArray) -> IndexArray:
        """Return the rows that follow the order."""
        return curve_rows[self.rank[stack.source[curve_rows]] < self.rank[stack.target[curve_rows]]]

    def restrict(self, optimizer: FlowOptimizer) -> FlowOptimizer:
        """Return the optimizer restricted to this order's bounds."""
        min_values = np.maximum(optimizer.min_values, self.min_values)
        max_values = np.minimum(optimizer.max_values, self.max_values)
        return replace(
            optimizer,
            min_values=min_values,
            max_values=max_values,
            directions=self.directions,
            has_hard_goals=self.has_hard_goals,
        )


def order_tokens(graph: PoolGraph, curve_rows: IndexArray, optimizer: FlowOptimizer) -> TokenOrder:
    """Return the best order found for a search over some rows of the graph."""
    capped_curves = graph.counted_curves.rows(curve_rows)
    real_curves = graph.real_curves.rows(curve_rows)
    capped_solution = optimizer.solve(capped_curves)
    order_bounds = _order_bounds(optimizer, optimizer.final_values(capped_curves, capped_solution))
    token_count = len(capped_solution.prices)
    pool_counts = np.bincount(real_curves.source, minlength=len(capped_solution.prices))
    sides = optimizer.side(np.arange(token_count))
    tie_break_keys = [
        (
            round(float(capped_solution.prices[i]) / MIN_PRICE_DIFFERENCE),
            float(sides[i]),
            float(sides[i] * pool_counts[i]),
            i,
        )
        for i in range(token_count)
    ]
    restricted_optimizer = order_bounds.restrict(optimizer)
    acyclic_flows = break_cycles(real_curves, restricted_optimizer, tie_break_keys)
    if acyclic_flows.is_proven_best:
        return replace(
            order_bounds, rank=_ranks(token_count, acyclic_flows.best_pairs, tie_break_keys)
        )
    start_edge_sets = dict.fromkeys(
        (
            frozenset(flows_by_token_pair(capped_curves, capped_solution)),
            acyclic_flows.best_pairs,
            acyclic_flows.pairs_after_cuts,
        )
    )
    improved_orders = [
        _improved_order(
            graph,
            curve_rows,
            restricted_optimizer,
            replace(order_bounds, rank=_ranks(token_count, edges, tie_break_keys)),
        )
        for edges in start_edge_sets
    ]
    return max(improved_orders, key=lambda order_and_bound: order_and_bound[1])[0]


def _ranks(
    token_count: int, edges: Iterable[TokenEdge], tie_break_keys: Sequence[tuple[float, ...]]
) -> IndexArray:
    """Return ranks in which every edge runs forward; ties are broken by `tie_break_keys` (Kahn's
    algorithm).
    """
    unranked_tokens = set(range(token_count))
    ranks = np.zeros(token_count, dtype=np.intp)
    edges = list(edges)
    for next_rank in range(token_count):
        tokens_without_source = unranked_tokens - {
            target for source, target in edges if source in unranked_tokens
        }
        token = min(tokens_without_source or unranked_tokens, key=lambda i: tie_break_keys[i])
        ranks[token] = next_rank
        unranked_tokens.remove(token)
    return ranks


def _order_bounds(optimizer: FlowOptimizer, final_values: FloatArray) -> TokenOrder:
    """Return bounds that hold for any token order. If all goals are points, no token overshoots its
    goal; otherwise no token moves further than in the first flows, except a bought token whose goal
    allows the whole portfolio.
    """
    utility = optimizer.utility
    held_values = optimizer.held_values
    rank = np.arange(len(held_values), dtype=np.intp)
    if utility.risk is None and bool((utility.low_shares == utility.high_shares).all()):
        directions = np.where(optimizer.side(rank) > 0, 1.0, -1.0)
        return TokenOrder(
            rank,
            np.where(directions > 0, held_values, -np.inf),
            np.where(directions < 0, held_values, np.inf),
            directions,
            has_hard_goals=True,
        )
    max_values = np.where(
        (final_values > held_values) & (utility.high_shares >= 1),
        np.inf,
        np.maximum(held_values, final_values),
    )
    return TokenOrder(
        rank,
        np.minimum(held_values, final_values),
        max_values,
        np.where(final_values > held_values, 1.0, -1.0),
        has_hard_goals=False,
    )


def _improved_order(
    graph: PoolGraph,
    curve_rows: IndexArray,
    restricted_optimizer: FlowOptimizer,
    token_order: TokenOrder,
) -> tuple[TokenOrder, float]:
    """Reorder tokens while an edge against the order would raise the utility; return order and
    utility.
    """
    stack = graph.real_curves.rows(token_order.rows(graph.real_curves, curve_rows))
    best_solution = restricted_optimizer.solve(stack)
    for _ in range(MAX_ORDER_CHANGES):
        opposed_stack = graph.real_curves.rows(
            curve_rows[
                token_order.rank[graph.real_curves.source[curve_rows]]
                > token_order.rank[graph.real_curves.target[curve_rows]]
            ]
        )
        surplus = PoolResponses(opposed_stack, best_solution.prices - 1).surplus
        opposed_pairs = {
            (int(opposed_stack.source[k]), int(opposed_stack.target[k])): None
            for k in np.argsort(-surplus, kind="stable")
            if surplus[k] > MIN_SURPLUS
        }
        for source, target in list(opposed_pairs)[:MAX_REVERSED_PAIRS]:
            trials = []
            for rank in (
                _move_beside(token_order.rank, source, target, -0.5),
                _move_beside(token_order.rank, target, source, 0.5),
            ):
                new_order = replace(token_order, rank=rank)
                new_stack = graph.real_curves.rows(new_order.rows(graph.real_curves, curve_rows))
                trials.append(
                    (
                        restricted_optimizer.solve(
                            new_stack, best_solution, best_solution.bound + MIN_SURPLUS
                        ),
                        new_order,
                    )
                )
            trial_solution, new_order = max(trials, key=lambda trial: trial[0].bound)
            if trial_solution.bound > best_solution.bound + MIN_SURPLUS:
                best_solution = trial_solution
                token_order = new_order
                break
        else:
            break
    return token_order, best_solution.bound


def _move_beside(rank: IndexArray, token: int, neighbour: int, offset: float) -> IndexArray:
    """Return the ranks with a token moved just before or after another."""
    sort_keys = rank.astype(np.float64)
    sort_keys[token] = sort_keys[neighbour] + offset
    return np.asarray(
        np.argsort(np.argsort(sort_keys, kind="stable"), kind="stable"), dtype=np.intp
    )
