"""Searches around the continuous solve: the pools worth their gas, because every leg costs gas at
any size, and a token order, which uses pools off the reference without cycles or arbitrage.

A pool that pays more than the reference may serve a swap that the goal needs, but is never a reason
to trade (T9). The first solve caps pool prices at the reference, so no cycle is profitable and no
token overshoots its goal. Each token is then bounded by its current value and either the result of
these flows or its goal, and a solve at real prices selects the best acyclic flows. They fix the
token order of the plan.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from agent.floats import FloatArray
from agent.planning.pool_curves import TINY, CurveStack
from agent.planning.problem import (
    EdgeFlow,
    IndexArray,
    PoolGraph,
    first_leg_cost,
    repeat_leg_cost,
)
from agent.planning.solver.charges import FlowSolver
from agent.planning.solver.dual import PoolResponses, Solution
from agent.planning.solver.utility import UNMOVED, FlowOptimizer

MANY = 24
"""Number of used pools above which those that are not worth their cost are dropped in one solve."""
TURNS = 3
"""Maximum number of dropped pools added again where many pools are in use."""
SEVERAL = 6
"""Number of pools that cost more than they save above which half of them are dropped at once."""
HOPES = 8
"""Maximum number of dropped pools to retry, most promising first."""
SURE = 1e-12
"""Smallest relative gain that is not float noise."""
DEAR = "gas costs more than it saves"
OVER_COST = "with its gas the plan would exceed limits.plan_cost"
DUST = "its part would be below limits.min_trade"
REST = "its share is below limits.min_trade without the pools that cost more gas than they save"
COARSE = "one base unit of"
COSTLY = (DEAR, OVER_COST, DUST, REST, COARSE)
"""Prefixes of the reasons for dropping a usable pool that costs more than it saves."""
EdgeKey = tuple[str, int]
"""A pool, and the position of the token that enters it."""


@dataclass(frozen=True, slots=True)
class PoolSelection:
    """A solution over some rows of the market, its flows, and the dropped pools with their reasons.

    `legs` counts the legs through each edge; `gas` is the gas value of the first leg, in units of
    the scale, `again` of each further leg.
    """

    solution: Solution
    rows: IndexArray
    flows: tuple[EdgeFlow, ...]
    legs: Mapping[EdgeKey, int] = field(default_factory=dict)
    gas: Mapping[EdgeKey, float] = field(default_factory=dict)
    again: Mapping[EdgeKey, float] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)

    @property
    def net(self) -> float:
        """Utility less the gas of every leg."""
        return self.solution.bound - math.fsum(map(self._gas, self.gas))

    def surplus_after_gas(self, flow: EdgeFlow, shared: bool) -> float:
        """Return a flow's contribution after gas; with `shared`, after the gas of one leg, as if
        the others were free.
        """
        pool_edge = (flow.pool_edge.pool, flow.pool_edge.source)
        if pool_edge not in self.gas:
            return flow.surplus
        return flow.surplus - (self.gas[pool_edge] if shared else self._gas(pool_edge))

    def _gas(self, pool_edge: EdgeKey) -> float:
        return self.gas[pool_edge] + self.again[pool_edge] * (self.legs.get(pool_edge, 1) - 1)


LegCounter = Callable[[PoolSelection], Mapping[EdgeKey, int]]
"""Function that returns the number of legs through each edge."""


@dataclass(slots=True)
class PoolSelector:
    """Selects flows through pools that are worth their gas and trade at least `least`, in units of
    the scale.

    Solutions are cached by rows, since dropping pools in another order leaves the same rows.
    """

    market: PoolGraph
    solve_flows: FlowSolver
    least: float
    legs: LegCounter
    known: dict[bytes, PoolSelection] = field(default_factory=dict)

    def best(self, rows: IndexArray, near: Solution | None = None) -> PoolSelection:
        """Return the best flows found over these rows. Drop the pool whose removal costs less than
        its gas, and repeat. Then keep dropping the weakest pool while the contribution of the
        remaining pools, before gas, could still beat the best: two pools that are not worth their
        gas together may each be worth it alone. If legs share an edge, the weakest pool depends on
        whether its other legs would be dropped too; both ways are tried. Finally retry the dropped
        pools.
        """
        first = self._sought(rows, near)
        charged = self.market.after_gas
        if not charged.charges.any():
            return self._pruned(first, shared=False)
        if len(first.flows) > MANY:
            stack, numbers = charged.rows(np.array([], dtype=np.intp), rows)
            shared = self.solve_flows(stack, first.solution)
            best = self._pruned(self._sought(numbers[shared.taken > 0], shared), False)
        else:
            best = self._descended(first, shared=False)
            if any(count > 1 for count in first.legs.values()):
                best = _better(best, self._descended(first, shared=True))
        more: PoolSelection | None = best
        many, turns = len(first.flows) > MANY, 0
        while more is not None and not (many and turns == TURNS):
            best, more, turns = more, self._with_one_more(rows, more), turns + 1
        best = more or best
        return self._complete(rows, best) if many else best

    def pruned(self, rows: IndexArray, near: Solution | None = None) -> PoolSelection:
        """Return flows over previously selected rows; only drop pools that are no longer worth
        their gas.
        """
        return self._pruned(self._sought(rows, near), shared=False)

    def _descended(self, first: PoolSelection, shared: bool) -> PoolSelection:
        best = here = self._pruned(first, shared)
        while here.gas and here.solution.bound > best.net:
            weakest = min(here.flows, key=lambda flow: here.surplus_after_gas(flow, shared))
            here = self._pruned(self._without(here, {weakest.pool_edge.pool}, DEAR), shared)
            best = _better(best, here)
        return best

    def _pruned(self, best: PoolSelection, shared: bool) -> PoolSelection:
        """Drop pools while that improves the result; first, all at once, those beside a larger pool
        of the same pair, which costs little.
        """
        needed: set[str] = set()
        while True:
            dust = _dust(best.flows, self.least)
            dear = [
                flow
                for flow in best.flows
                if flow.pool_edge.pool not in needed and best.surplus_after_gas(flow, shared) < 0
            ]
            beside = {flow.pool_edge.pool for flow in dear if _larger_beside(flow, best.flows)}
            dear = sorted(dear, key=lambda flow: best.surplus_after_gas(flow, shared))
            half = {flow.pool_edge.pool for flow in dear[: len(dear) // 2]}
            weakest = dear[0] if dear else None
            reason = DEAR
            if dust:
                tries = [dust]
                reason = REST if DEAR in best.dropped.values() else DUST
            else:
                several = half if len(dear) > SEVERAL else set[str]()
                tries = [beside, several, {weakest.pool_edge.pool}] if weakest else []
            for pools in (tried for tried in tries if tried):
                trial = self._without(best, pools, reason)
                if dust or trial.net >= best.net:
                    best = trial
                    break
                if len(pools) == 1:
                    needed |= pools
            if not tries:
                return best

    def _with_one_more(self, rows: IndexArray, best: PoolSelection) -> PoolSelection | None:
        """Return a better selection with one dropped pool added, and perhaps without others; None
        if there is none. Adding an edge gains at most its surplus at the current prices (weak
        duality), so only edges with a surplus above their gas are tried: first with all pools not
        dropped, then with only the pools in use, because pruning one pool at a time may keep
        several pools for the next leg of the new routes.
        """
        market, used = self.market, set(best.rows.tolist())
        away = np.array([row for row in rows.tolist() if row not in used], dtype=np.intp)
        answers = PoolResponses(market.real.rows(away), best.solution.prices - 1)
        found = zip(
            away.tolist(),
            answers.taken.tolist(),
            answers.paid.tolist(),
            answers.surplus.tolist(),
            strict=True,
        )
        flows = [EdgeFlow(market.pool_edges[row], *numbers) for row, *numbers in found]
        hopes = [
            flow
            for flow in flows
            if flow.taken >= max(self.least, TINY) and flow.surplus > first_leg_cost(market, flow)
        ]
        in_use = {flow.pool_edge.pool for flow in best.flows}
        for hope in sorted(hopes, key=lambda flow: -flow.surplus)[:HOPES]:
            pool = hope.pool_edge.pool
            fitting = np.array(
                [
                    row
                    for row in rows.tolist()
                    if row in used or market.pool_edges[row].pool == pool
                ],
                dtype=np.intp,
            )
            wider = self._sought(fitting, best.solution)
            more = self._pruned(wider, shared=False)
            if more.net <= best.net * (1 + SURE):
                more = self._pruned(self._beside(wider, in_use | {pool}), shared=False)
            if more.net > best.net * (1 + SURE):
                return replace(
                    more,
                    dropped={name: why for name, why in best.dropped.items() if name != pool}
                    | dict(more.dropped),
                )
        return None

    def _complete(self, rows: IndexArray, best: PoolSelection) -> PoolSelection:
        """Return a selection with all rows that take nothing at its prices, the others dropped."""
        used = set(best.rows.tolist())
        away = np.array([row for row in rows.tolist() if row not in used], dtype=np.intp)
        answers = PoolResponses(self.market.real.rows(away), best.solution.prices - 1)
        takes = {self.market.pool_edges[row].pool for row in away[answers.taken > 0].tolist()}
        kept = [row for row in rows.tolist() if self.market.pool_edges[row].pool not in takes]
        dropped = {pool: self._why(pool, DEAR) for pool in sorted(takes)} | dict(best.dropped)
        return replace(self._sought(np.array(kept, dtype=np.intp), best.solution), dropped=dropped)

    def _beside(self, choice: PoolSelection, kept: set[str]) -> PoolSelection:
        """Return the flows through the pools in `kept` only; pools that replace dropped ones are
        dropped too.
        """
        while others := {flow.pool_edge.pool for flow in choice.flows} - kept:
            choice = self._without(choice, others, DEAR)
        return choice

    def _without(self, choice: PoolSelection, pools: set[str], why: str) -> PoolSelection:
        """Return the flows without some pools."""
        fewer = choice.rows[[self.market.pool_edges[row].pool not in pools for row in choice.rows]]
        found = self._sought(fewer, choice.solution)
        reasons = {pool: self._why(pool, why) for pool in sorted(pools)}
        return replace(found, dropped={**choice.dropped, **reasons})

    def _why(self, pool: str, why: str) -> str:
        """Return why a pool is dropped: `why`, or a coarse token if it costs more than gas."""
        market = self.market
        edges = [edge for edge in market.pool_edges if edge.pool == pool]
        worst = max(edges, key=lambda edge: edge.offer.lost)
        if why != DEAR or worst.offer.lost <= repeat_leg_cost(market, worst) - worst.offer.lost:
            return why
        label = market.problem.nodes[worst.source].label
        return f"{COARSE} {label}, which each swap may lose, is worth more than it saves"

    def _sought(self, rows: IndexArray, near: Solution | None) -> PoolSelection:
        key = rows.tobytes()
        if key not in self.known:
            self.known[key] = self._solved(rows, near)
        return self.known[key]

    def _solved(self, rows: IndexArray, near: Solution | None) -> PoolSelection:
        market = self.market
        found = self.solve_flows(market.real.rows(rows), near)
        flows = tuple(
            EdgeFlow(
                market.pool_edges[rows[k]],
                float(found.taken[k]),
                float(found.paid[k]),
                float(found.surplus[k]),
            )
            for k in np.flatnonzero(found.taken > 0).tolist()
        )
        choice = PoolSelection(found, rows, flows)
        if not market.after_gas.charges.any():
            return choice
        gas = {
            (flow.pool_edge.pool, flow.pool_edge.source): first_leg_cost(market, flow)
            for flow in flows
        }
        again = {
            (flow.pool_edge.pool, flow.pool_edge.source): repeat_leg_cost(market, flow.pool_edge)
            for flow in flows
        }
        return replace(choice, gas=gas, again=again, legs=self.legs(choice))


def _better(one: PoolSelection, other: PoolSelection) -> PoolSelection:
    return other if other.net > one.net else one


def _dust(flows: Sequence[EdgeFlow], least: float) -> set[str]:
    """Return the pools to remove next because they trade less than `least`: those beside a larger
    one, else the smallest.

    The flow of a removed pool may lift the next above `least`, since a small trade that was split
    is still one trade.
    """
    small = [flow for flow in flows if flow.taken < least]
    beside = {flow.pool_edge.pool for flow in small if _larger_beside(flow, flows)}
    if small:
        return beside or {min(small, key=lambda flow: flow.taken).pool_edge.pool}
    return set()


def _larger_beside(flow: EdgeFlow, flows: Sequence[EdgeFlow]) -> bool:
    """True if another pool carries more between the same two tokens in the same direction."""
    pair = (flow.pool_edge.source, flow.pool_edge.target)
    return any(
        (other.pool_edge.source, other.pool_edge.target) == pair and other.taken > flow.taken
        for other in flows
    )


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
        found = search.solve(part, near, -np.inf if best is None else best.bound + ENOUGH)
        return _BranchNode(without, found, flows_by_token_pair(part, found))

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
    found = break_cycles(real, within)
    if found.proven:
        return replace(order, rank=_ranks(size, found.edges, keys))
    starts = dict.fromkeys((frozenset(flows_by_token_pair(counted, first)), found.edges, found.cut))
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
