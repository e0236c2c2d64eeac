"""Token order, which uses pools off the reference without cycles or arbitrage.

A pool that pays more than the reference may serve a swap that the goal needs, but is never a reason
to trade (T9). The first solve caps pool prices at the reference, so no cycle is profitable and no
token overshoots its goal. Each token is then bounded by its current value and either the result of
these flows or its goal, and a solve at real prices selects the best acyclic flows. They fix the
token order of the plan.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent.floats import FloatArray
from agent.planning.pool_curves import CurveStack
from agent.planning.problem import IndexArray, PoolGraph
from agent.planning.solver.dual import PoolResponses, Solution
from agent.planning.solver.utility import UNMOVED, FlowOptimizer

# --- Acyclic flows of highest utility: branch and bound over the exchanges to exclude. An
# unconstrained solve takes every arbitrage between pools, so a plan must exclude at least one
# exchange of each cycle. Each choice is a subproblem bounded by its dual; a subproblem bounded
# below the best known plan is discarded (Land, Doig, "An automatic method of solving discrete
# programming problems", 1960).


NODES = 20
"""Maximum number of subproblems; most searches need one to nine."""
ENOUGH = 1e-7
"""Utility per unit of scale within which two plans count as equal."""

TokenEdge = tuple[int, int]
"""Token in, token out."""


@dataclass(frozen=True, slots=True)
class AcyclicFlows:
    """Token pairs with flow in the best known acyclic flows.

    `proven` is true if no other acyclic flows have a higher utility. `cut` are the pairs after
    cycles are cut at their smallest flow: another starting point.
    """

    edges: frozenset[TokenEdge]
    cut: frozenset[TokenEdge]
    proven: bool


@dataclass(frozen=True, slots=True)
class _BranchNode:
    """Best flows without the token pairs in `without`.

    `bound` is an upper bound of the utility of all flows without these pairs.
    """

    without: frozenset[TokenEdge]
    solution: Solution
    edges: Mapping[TokenEdge, float]

    @property
    def bound(self) -> float:
        return self.solution.bound


def break_cycles(stack: CurveStack, search: FlowOptimizer) -> AcyclicFlows:
    """Return the best acyclic flows within NODES subproblems."""
    pairs = list(zip(stack.source.tolist(), stack.target.tolist(), strict=True))

    best: _BranchNode | None = None

    def node(without: frozenset[TokenEdge], near: Solution | None) -> _BranchNode:
        rows = np.array(
            [row for row, pair in enumerate(pairs) if pair not in without], dtype=np.intp
        )
        part = stack.rows(rows)
        solution = search.solve(part, near, -np.inf if best is None else best.bound + ENOUGH)
        return _BranchNode(without, solution, flows_by_token_pair(part, solution))

    begin = node(frozenset(), None)
    queue = [(-begin.bound, 0, begin)]
    solved = 1
    while queue and solved < NODES:
        # depth first until some acyclic flows are known, then best bound first
        _, _, here = queue.pop() if best is None else heapq.heappop(queue)
        if best is not None and here.bound <= best.bound + ENOUGH:
            queue = []
            break
        cycle = shortest_cycle(here.edges)
        if not cycle:
            best = here
            heapq.heapify(queue)
            continue
        after = []
        for pair in cycle:
            child = node(here.without | {pair}, here.solution)
            solved += 1
            if best is None or child.bound > best.bound + ENOUGH:
                after.append((-child.bound, solved, child))
        queue += sorted(after, reverse=True)
        if best is not None:
            heapq.heapify(queue)
    cut = frozenset(_without_cycles(begin.edges))
    if best is None:
        return AcyclicFlows(cut, cut, proven=False)
    return AcyclicFlows(
        frozenset(best.edges), cut, proven=not queue or -min(queue)[0] <= best.bound + ENOUGH
    )


def flows_by_token_pair(stack: CurveStack, found: Solution) -> dict[TokenEdge, float]:
    """Return the sum of flows between each pair of tokens."""
    sums: dict[TokenEdge, float] = {}
    for source, target, taken in zip(
        stack.source.tolist(), stack.target.tolist(), found.taken.tolist(), strict=True
    ):
        if taken > UNMOVED:
            sums[source, target] = sums.get((source, target), 0.0) + taken
    return sums


def shortest_cycle(edges: Mapping[TokenEdge, float]) -> list[TokenEdge]:
    """Return the cycle with the fewest exchanges, and among equals the one with the largest minimum
    flow. Empty without cycles.
    """
    onward: dict[int, list[int]] = {}
    for source, target in edges:
        onward.setdefault(source, []).append(target)
    found = [cycle for edge in edges if (cycle := _back(onward, edge))]
    return min(
        found, key=lambda cycle: (len(cycle), -min(edges[edge] for edge in cycle)), default=[]
    )


def _back(onward: Mapping[int, Sequence[int]], first: TokenEdge) -> list[TokenEdge]:
    """Return the shortest cycle that begins with this edge; `onward` are the ends of the edges from
    each token.
    """
    start, token = first
    came: dict[int, int] = {token: start}
    ring = [token]
    while ring and start not in came:
        ring = [
            b
            for a in ring
            for b in onward.get(a, ())
            if b not in came and came.setdefault(b, a) == a
        ]
    if start not in came:
        return []
    cycle, here = [], start
    while here != token:
        cycle.append((came[here], here))
        here = came[here]
    return [first, *reversed(cycle)]


def _without_cycles(edges: Mapping[TokenEdge, float]) -> dict[TokenEdge, float]:
    """Return the flows with each cycle reduced by its smallest flow."""
    left = dict(edges)
    while cycle := shortest_cycle(left):
        least = min(left[edge] for edge in cycle)
        left = {edge: carried - (least if edge in cycle else 0.0) for edge, carried in left.items()}
        left = {edge: carried for edge, carried in left.items() if carried > 0}
    return left


ALIKE = 1e-5
"""Smallest price difference that orders two tokens; below it, their sides and number of pools
decide.
"""
TRIES = 16
"""Maximum number of changes to the order."""
PAIRS = 12
"""Token pairs tried in reverse for each change."""
WORTH_A_TRY = 1e-7
"""Least surplus, per unit of scale, for which an order change is tried or kept."""


@dataclass(frozen=True, slots=True)
class TokenOrder:
    """Tokens by rank; swaps run from lower to higher ranks. Bounds on final values as in
    FlowOptimizer.
    """

    rank: NDArray[np.intp]
    least: FloatArray
    most: FloatArray
    ways: FloatArray
    has_hard_goals: bool

    @property
    def order(self) -> list[int]:
        """Tokens from first to last."""
        return [int(token) for token in np.argsort(self.rank, kind="stable")]

    def rows(self, stack: CurveStack, rows: IndexArray) -> IndexArray:
        """Return the rows that follow the order."""
        return rows[self.rank[stack.source[rows]] < self.rank[stack.target[rows]]]

    def search(self, search: FlowOptimizer) -> FlowOptimizer:
        """Return the optimizer restricted to this order's bounds."""
        least, most = np.maximum(search.least, self.least), np.minimum(search.most, self.most)
        return replace(
            search, least=least, most=most, ways=self.ways, has_hard_goals=self.has_hard_goals
        )


def order_tokens(market: PoolGraph, rows: IndexArray, search: FlowOptimizer) -> TokenOrder:
    """Return the best order found for a search over some rows of the market."""
    counted, real = market.counted.rows(rows), market.real.rows(rows)
    first = search.solve(counted)
    order = _bounded(search, search.ends(counted, first))
    size, trades = len(first.prices), np.bincount(real.source, minlength=len(first.prices))
    side = search.side(np.arange(size))
    keys = [
        (round(float(first.prices[i]) / ALIKE), float(side[i]), float(side[i] * trades[i]), i)
        for i in range(size)
    ]
    within = order.search(search)
    flows = break_cycles(real, within)
    if flows.proven:
        return replace(order, rank=_ranks(size, flows.edges, keys))
    starts = dict.fromkeys((frozenset(flows_by_token_pair(counted, first)), flows.edges, flows.cut))
    tried = [
        _improved(market, rows, within, replace(order, rank=_ranks(size, edges, keys)))
        for edges in starts
    ]
    return max(tried, key=lambda pair: pair[1])[0]


def _ranks(
    size: int, edges: Iterable[TokenEdge], keys: Sequence[tuple[float, ...]]
) -> NDArray[np.intp]:
    """Return ranks in which every edge runs forward; ties are broken by `keys` (Kahn's
    algorithm).
    """
    left, rank = set(range(size)), np.zeros(size, dtype=np.intp)
    edges = list(edges)
    for number in range(size):
        open_now = left - {target for source, target in edges if source in left}
        token = min(open_now or left, key=lambda i: keys[i])
        rank[token] = number
        left.remove(token)
    return rank


def _bounded(search: FlowOptimizer, ends: FloatArray) -> TokenOrder:
    """Return bounds that hold for any token order. If all goals are points, no token overshoots its
    goal; otherwise no token moves further than in the first flows, except a bought token whose goal
    allows the whole portfolio.
    """
    worth, held = search.worth, search.held
    rank = np.arange(len(held), dtype=np.intp)
    if worth.risk is None and bool((worth.low == worth.high).all()):
        ways = np.where(search.side(rank) > 0, 1.0, -1.0)
        return TokenOrder(
            rank,
            np.where(ways > 0, held, -np.inf),
            np.where(ways < 0, held, np.inf),
            ways,
            has_hard_goals=True,
        )
    most = np.where((ends > held) & (worth.high >= 1), np.inf, np.maximum(held, ends))
    return TokenOrder(
        rank, np.minimum(held, ends), most, np.where(ends > held, 1.0, -1.0), has_hard_goals=False
    )


def _improved(
    market: PoolGraph, rows: IndexArray, within: FlowOptimizer, order: TokenOrder
) -> tuple[TokenOrder, float]:
    """Reorder tokens while an edge against the order would raise the utility; return order and
    utility.
    """
    stack = market.real.rows(order.rows(market.real, rows))
    best = within.solve(stack)
    for _ in range(TRIES):
        against = market.real.rows(
            rows[order.rank[market.real.source[rows]] > order.rank[market.real.target[rows]]]
        )
        surplus = PoolResponses(against, best.prices - 1).surplus
        pairs = {
            (int(against.source[k]), int(against.target[k])): None
            for k in np.argsort(-surplus, kind="stable")
            if surplus[k] > WORTH_A_TRY
        }
        for source, target in list(pairs)[:PAIRS]:
            trials = []
            for rank in (
                _moved(order.rank, source, target, -0.5),
                _moved(order.rank, target, source, 0.5),
            ):
                turned = replace(order, rank=rank)
                wider = market.real.rows(turned.rows(market.real, rows))
                trials.append((within.solve(wider, best, best.bound + WORTH_A_TRY), turned, wider))
            trial, turned, wider = max(trials, key=lambda found: found[0].bound)
            if trial.bound > best.bound + WORTH_A_TRY:
                best, order, stack = trial, turned, wider
                break
        else:
            break
    return order, best.bound


def _moved(rank: NDArray[np.intp], token: int, beside: int, step: float) -> NDArray[np.intp]:
    """Return the ranks with a token moved just before or after another."""
    keys = rank.astype(np.float64)
    keys[token] = keys[beside] + step
    return np.asarray(np.argsort(np.argsort(keys, kind="stable"), kind="stable"), dtype=np.intp)
