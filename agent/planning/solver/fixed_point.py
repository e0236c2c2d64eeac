"""Fixed-point iteration between the continuous solve and exact integers, until both agree within
every limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from agent.errors import Refused
from agent.floats import FloatArray
from agent.planning.pool_curves import WHOLE_UNITS, CurveStack
from agent.planning.problem import IndexArray, PoolGraph, Problem
from agent.planning.rounding import PlanDraft, run_routes
from agent.planning.routes import (
    FlowPath,
    FlowPaths,
    MergedLegs,
    Route,
    decompose_flows,
    merged_legs,
)
from agent.planning.solver.dual import Solution, solve_dual
from agent.planning.solver.search import PoolSelection, PoolSelector
from agent.planning.solver.token_order import TokenOrder, order_tokens
from agent.planning.solver.utility import FlowOptimizer, PlanObjective, sell_program
from agent.units import BPS, Value, floor_int

ROUNDS = 20
"""Maximum number of iterations; two are usual, and each newly binding limit takes one more."""
SETTLED = 5e-8
"""Tolerance: the iteration ends once pool outputs beyond the counted curves change the utility by
less than this, per unit of scale.
"""
LEAST_PRICE = 1e-6
"""Least price of a unit, so that the iteration also ends with a limits.plan_cost of zero, at which
every move must be free.
"""
SLACK = Fraction(10**7 - 1, 10**7)
"""Factor on a turnover that has to shrink, so that it does not exceed its limit again."""
WORTH_A_ROUTE = 1e-6
"""Fraction of the scale above which a cut chain is worth another route."""
FULL = 1 - 1e-6
"""Fraction of a pool's capacity above which it counts as full."""
USED_UP = 1 - 1e-4
"""Fraction of the turnover limit above which it counts as binding, because flows within bands end
slightly below it.
"""
DUST = "less than limits.min_trade"
HAIR = Fraction(1, 100_000)
"""Fraction of the portfolio (a tenth of a basis point) below which value blocked by a pool's floor
is dust: only the route is dropped.
"""
UNFAIR = Fraction(1, 2)
"""Limit on that dust as a fraction of the pool's other trade."""
UNIT_ERROR = Fraction(1, 10**4)
"""Float error of a path of a coarse token, in base units: almost a whole number of units is that
number.
"""
UNMOVED = 1e-8
"""Fraction of the scale below which a token counts as unmoved."""


@dataclass(slots=True)
class FixedPoint:
    """Result of the iteration: legs, and every excluded item with its reason.

    `unmoved` has, by position, the reason why a token does not move. `dropped` pools are not used;
    `unfair` are the pools dropped because of their floors, `banned` the edges (pool, source) used
    only by chains with too many legs. `part` is the used fraction of the turnover limit, `bounded`
    is true if that limit binds, and `held_back` if more would be sold than the step has approved.
    `token_order` is set if pools pay more than the reference.
    """

    draft: PlanDraft
    part: Fraction = Fraction(1)
    bounded: bool = False
    held_back: bool = False
    token_order: TokenOrder | None = None
    unmoved: dict[int, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    banned: set[tuple[str, int]] = field(default_factory=set)
    unfair: set[str] = field(default_factory=set)


def find_fixed_point(
    market: PoolGraph,
    objective: PlanObjective,
    budget: Value | None,
    min_trade: Value | None,
    dropped: Mapping[str, str],
    unmoved: Mapping[int, str] | None = None,
) -> FixedPoint:
    """Return the result for `objective`. `budget` bounds turnover; tokens that move less than
    `min_trade` or are in `unmoved` stay unmoved. `dropped` are pools not to use, with the reason.
    Raises Refused if no iteration stays within the limits.
    """
    start = FixedPoint(PlanDraft(), dropped=dict(dropped), unmoved=dict(unmoved or {}))
    rounds = _FixedPointIteration(
        market, objective, budget, min_trade, start, np.zeros(len(objective.held))
    )
    spent = 0
    while spent < ROUNDS + len(rounds.state.unfair) and not rounds.go():
        spent += 1
    if rounds.kept is None:
        raise _no_fixed_point(budget, min_trade)
    return rounds.kept


def _no_fixed_point(budget: Value | None, min_trade: Value | None) -> Refused:
    """Return the refusal of a failed iteration, with the active limits."""
    if budget is None:
        raised = []
    else:
        raised = ["raise limits.turnover or limits.daily_turnover"]
    lowered = [] if min_trade is None else ["lower limits.min_trade"]
    limits = [
        *("its turnover limit" for _ in raised),
        *("limits.min_trade" for _ in lowered),
    ] or ["the floors of its legs"]
    remedy = (
        " or ".join((*raised, *lowered))
        or "wait for the next cycle, or remove tokens whose base unit has a high value"
    )
    return Refused(f"no plan within {' and '.join(limits)} was found", remedy=remedy)


@dataclass(slots=True)
class _FixedPointIteration:
    """State of the iteration. `extra` is the pools' output in the last iteration beyond the counted
    curves. `pruned` is true once every used pool is worth its gas. `near` is the last solution;
    `kept` is the settled result within all limits, or the best one so far, also where the last one
    settles only to within whole units.
    """

    market: PoolGraph
    objective: PlanObjective
    budget: Value | None
    min_trade: Value | None
    state: FixedPoint
    extra: FloatArray
    pruned: bool = False
    near: Solution | None = None
    kept: FixedPoint | None = None

    def go(self) -> bool:
        """Run one iteration; return True once nothing changes. A single movable token has no
        counterpart, so it needs no solve; its dual has no unique solution.
        """
        state = self.state
        if (
            len(
                {self.market.problem.position[node.address] for node in self.market.problem.assets}
                - state.unmoved.keys()
            )
            < 2
        ):
            state.draft, state.bounded, state.held_back = PlanDraft(), False, False
            self.kept = state
            return True
        unmoved = {token: float(self.objective.held[token]) for token in state.unmoved}
        search = self.objective.search(
            self.market.scale,
            self.extra,
            unmoved,
            None if self.budget is None else float(self.budget * state.part),
        )
        rows = self.market.rows(state.dropped, state.banned)
        if self.market.has_gains and not self.pruned:
            state.token_order, self.near = order_tokens(self.market, rows, search), None
        if state.token_order is not None:
            rows = state.token_order.rows(self.market.real, rows)
            search = state.token_order.search(search)
        choice = self._chosen(search, rows)
        routes = None if choice is None else self._routed(choice)
        return choice is not None and routes is not None and self._drafted(choice, routes)

    def _chosen(self, search: FlowOptimizer, rows: IndexArray) -> PoolSelection | None:
        """Return the best flows through pools worth their gas; None if a token that moves too
        little was fixed instead.
        """
        market, state = self.market, self.state
        least = 0.0 if self.min_trade is None else float(self.min_trade) / market.scale
        if not self.pruned:
            stack = market.real.rows(rows)
            self.near = search.solve(stack, self.near)
            state.bounded = (
                search.budget is not None
                and search.turnover(stack, self.near) > search.budget * USED_UP
            )
            if self._set_still(self.near.moved(stack), least):
                return None
        chooser = PoolSelector(market, search.solve, 0.0 if self.pruned else least, self._legs)
        if self.pruned:
            choice = chooser.pruned(rows, self.near)
        else:
            choice = chooser.best(rows, self.near)
        state.dropped |= choice.dropped
        stack = market.real.rows(choice.rows)
        self.pruned, self.near = True, choice.solution
        state.held_back = any(
            market.problem.nodes[token].cap_raw is not None
            for token in search.pressed(choice.solution)
        )
        if self._set_still(choice.solution.moved(stack), least):
            self.pruned = False
            return None
        return choice

    def _set_still(self, moves: FloatArray, least: float) -> bool:
        """Fix the token that moves least, if it moves less than the smallest trade; return True if
        one was fixed.
        """
        unmoved = self.state.unmoved
        small = [
            (abs(move), token)
            for token, move in enumerate(moves.tolist())
            if UNMOVED < abs(move) < least and token not in unmoved
        ]
        if small:
            unmoved[min(small)[1]] = DUST
        return bool(small)

    def _routes(self, choice: PoolSelection) -> FlowPaths:
        """Decompose flows into routes. Hubs, and tokens with a goal of zero, pass on everything
        they receive.
        """
        moves = choice.solution.moved(self.market.real.rows(choice.rows))
        sold_tokens = frozenset(
            np.flatnonzero((moves < -UNMOVED) & (self.objective.held > 0)).tolist()
        )
        bought_tokens = frozenset(
            np.flatnonzero((moves > UNMOVED) & (self.objective.high > 0)).tolist()
        )
        if self.state.token_order is None:
            order = np.argsort(choice.solution.prices, kind="stable").tolist()
        else:
            order = self.state.token_order.order
        return decompose_flows(choice.flows, order, sold_tokens, bought_tokens)

    def _legs(self, choice: PoolSelection) -> MergedLegs:
        """Return the legs through each edge after merging."""
        return legs_by_edge(self._routes(choice))

    def _routed(self, choice: PoolSelection) -> FlowPaths | None:
        """Return flows as routes; None if a chain has too many legs, after banning one of its
        edges.
        """
        state, routes = self.state, self._routes(choice)
        long = [path for path in routes.cut if path.taken > WORTH_A_ROUTE]
        if not long:
            return routes
        state.banned |= {_narrowest(path) for path in long}
        state.dropped = {
            pool: why for pool, why in state.dropped.items() if pool not in choice.dropped
        }
        self.pruned = False
        return None

    def _worth(self, draft: PlanDraft) -> float:
        return worth_of(self.market, self.objective, draft)

    def _drafted(self, choice: PoolSelection, routes: FlowPaths) -> bool:
        """Run the routes in integers; return True if the result matches the counted flows, within
        all limits.
        """
        market, state = self.market, self.state
        state.draft = run_routes(market.problem, to_routes(market, routes), self._worth)
        state.draft.full |= {
            flow.pool_edge.pool
            for flow in choice.flows
            if flow.taken >= FULL * flow.pool_edge.offer.real.capacity
        }
        given = _given(market, state.draft, choice.solution.moved(market.real.rows(choice.rows)))
        coarse = max(float(node.price) / market.scale for node in market.problem.nodes)
        settled = float(np.abs(given - self.extra).max(initial=0.0)) <= max(
            SETTLED / max(self.objective.price, LEAST_PRICE), 2 * coarse
        )
        self.extra = given
        if _broken(market, state, self.budget, self.min_trade, settled):
            return False
        nodes = range(len(market.problem.nodes))
        exact = settled and not any(market.problem.has_few_units(node) for node in nodes)
        if exact or self.kept is None or self._worth(state.draft) >= self._worth(self.kept.draft):
            self.kept = replace(state, unmoved=dict(state.unmoved), dropped=dict(state.dropped))
        return settled


def worth_of(market: PoolGraph, objective: PlanObjective, draft: PlanDraft) -> float:
    """Return the utility of a draft less its gas, in units of the scale."""
    problem, scale = market.problem, market.scale
    ends = objective.held + np.array(
        [float(draft.delta.get(node.address, 0) * node.price) for node in problem.nodes]
    )
    return objective.worth(scale, {}).of(ends / scale) - float(draft.cost(problem).gas) / scale


def legs_by_edge(routes: FlowPaths) -> MergedLegs:
    """Return the legs through each edge (pool, source) after merging, routes that are too long
    included.
    """
    return merged_legs(
        [
            [(flow.pool_edge.pool, flow.pool_edge.source) for flow in path.flows]
            for path in (*routes.paths, *routes.cut)
        ]
    )


def _narrowest(path: FlowPath) -> tuple[str, int]:
    """Return the edge of a path with the smallest flow, whose removal costs least."""
    pool_edge = min(path.flows, key=lambda flow: flow.taken).pool_edge
    return pool_edge.pool, pool_edge.source


def to_routes(market: PoolGraph, routes: FlowPaths) -> list[Route]:
    """Return paths as integer routes, in their order."""
    nodes = market.problem.nodes
    result = []
    for path in routes.paths:
        exact = Fraction(path.taken) * Fraction(market.scale) / nodes[path.source].price
        amount_raw = floor_int(exact)
        if amount_raw < WHOLE_UNITS and market.problem.has_few_units(path.source):
            amount_raw = floor_int(exact + UNIT_ERROR)
        hops = tuple(
            (flow.pool_edge.pool, nodes[flow.pool_edge.source].address) for flow in path.flows
        )
        result.append(Route(hops, amount_raw))
    return _to_the_last(market.problem, result)


def _to_the_last(problem: Problem, routes: list[Route]) -> list[Route]:
    """Add the base units lost to rounding to the last route of each leaving token."""
    last = {route.hops[0][1]: number for number, route in enumerate(routes)}
    for token in problem.leaving & last.keys():
        own = [route for route in routes if route.hops[0][1] == token]
        rest = problem.nodes[problem.position[token]].spendable_raw - sum(
            route.amount_raw for route in own
        )
        if 0 < rest <= len(own):
            routes[last[token]] = replace(
                routes[last[token]], amount_raw=routes[last[token]].amount_raw + rest
            )
    return routes


def _given(market: PoolGraph, draft: PlanDraft, moves: FloatArray) -> FloatArray:
    """Return each token's exact change beyond the counted flows, in units of the scale."""
    found = [
        float(draft.delta.get(node.address, 0) * node.price) / market.scale
        for node in market.problem.nodes
    ]
    return np.array(found) - moves


def _broken(
    market: PoolGraph,
    state: FixedPoint,
    budget: Value | None,
    min_trade: Value | None,
    settled: bool,
) -> bool:
    """Return True if a draft breaks a limit, and record in `state` what to exclude.

    The limits are turnover (reduced only once the iteration has settled), a token that moves less
    than min_trade, and more than dust through a pool below its floor.
    """
    problem, draft, broken = market.problem, state.draft, False
    for pool, why in draft.barred.items():
        traded = sum(
            (
                leg.amount_in_raw * problem.price(leg.token_in)
                for leg in draft.legs
                if leg.pool == pool
            ),
            Fraction(0),
        )
        if pool not in state.dropped and draft.unfair[pool] > max(
            HAIR * problem.total, UNFAIR * traded
        ):
            state.dropped[pool], broken = why, True
            state.unfair.add(pool)
    turnover = draft.turnover(problem)
    if budget is not None and turnover > budget:
        broken = True
        if settled:
            state.part *= (budget / turnover * SLACK).limit_denominator(10**12)
    if min_trade is not None:
        for token, raw in (*draft.sold.items(), *draft.bought.items()):
            position = problem.position[token]
            if raw * problem.price(token) < min_trade:
                state.unmoved[position], broken = DUST, True
    return broken


# --- An exit's whole amount is tried in exact integers before an unsold remainder is accepted. The
# solve weighs the cost of the last unit, but an exit is judged as a whole: a token that can be sold
# entirely within impact bounds, floors and plan_cost is sold, whatever its last unit costs.


ANY_PRICE = 0.9
"""Range of the dual price of the sold token: any proceeds within impact bounds and floors are
accepted.
"""
SOLD = 1 - 1e-7
"""Fraction of a token from which a solve counts as selling all of it."""
TRIES = 4
"""Maximum number of retries without pools that pay less than their floor."""


def sell_exits_whole(
    market: PoolGraph, settled: FixedPoint, into: int, min_trade: Value | None
) -> FixedPoint:
    """Replace the legs with legs that sell leaving tokens completely, if these keep all limits.
    Tokens worth less than `min_trade` stay, and so do tokens that are unmoved for a reason other
    than DUST.
    """
    problem = market.problem
    exiting = [
        i
        for i in range(len(problem.nodes))
        if i != into and _may_go(problem, settled, i, min_trade or Fraction(0))
    ]
    if all(_left(problem, settled.draft, i) == 0 for i in exiting):
        return settled
    free = replace(
        market, real=market.counted, after_gas=market.counted_after_gas
    )  # without pools above the reference there are no cycles
    dropped: dict[str, str] = {}
    for _ in range(TRIES):
        draft, sold = _drafted(free, exiting, into, dropped)
        if not draft.barred.keys() - dropped.keys():
            break
        dropped |= draft.barred
    limit_bps = problem.plan_cost_bps
    whole = bool(sold) and all(_left(problem, draft, i) == 0 for i in sold)
    less = any(_left(problem, settled.draft, i) > 0 for i in sold)
    none = all(problem.nodes[i].address not in settled.draft.sold for i in exiting if i not in sold)
    cheap = limit_bps is None or draft.cost(problem).total * BPS <= limit_bps * draft.turnover(
        problem
    )
    if whole and less and none and cheap:
        return replace(settled, draft=draft, token_order=None, bounded=False)
    return settled


def _may_go(problem: Problem, settled: FixedPoint, token: int, least: Value) -> bool:
    """True if all of a token is to be sold and it is worth a trade."""
    node = problem.nodes[token]
    known = node.address in problem.leaving and settled.unmoved.get(token, DUST) == DUST
    return known and node.spendable_raw > 0 and node.spendable_raw * node.price >= least


def _left(problem: Problem, draft: PlanDraft, token: int) -> int:
    """Return the spendable base units of a token that a draft leaves unsold."""
    node = problem.nodes[token]
    return node.spendable_raw + draft.delta.get(node.address, 0)


def _drafted(
    market: PoolGraph, exiting: list[int], into: int, dropped: dict[str, str]
) -> tuple[PlanDraft, list[int]]:
    """Return the best legs, net of gas, that completely sell as many of these tokens as the pools
    take, and the sold tokens.
    """
    nodes, rows = market.problem.nodes, market.rows(dropped)
    stack, sold = market.real.rows(rows), list(exiting)
    while sold:
        start = np.array(
            [
                float(node.spendable_raw * node.price) / market.scale if i in sold else 0.0
                for i, node in enumerate(nodes)
            ]
        )
        program = sell_program(start, {i: 0.0 for i in range(len(nodes)) if i != into}, ANY_PRICE)
        full = solve_dual(program, stack)
        moved = full.moved(stack)
        taken = [i for i in sold if -moved[i] >= SOLD * start[i]]
        if taken == sold:
            break
        sold = taken
    if not sold:
        return PlanDraft(), []

    def solve_flows(part: CurveStack, near: Solution | None) -> Solution:
        """Return the best flows, with bound −∞ if they leave a part unsold."""
        solution = solve_dual(program, part, near)
        gone = solution.moved(part)
        if all(-gone[i] >= SOLD * start[i] for i in sold):
            return solution
        return replace(solution, bound=-np.inf)

    def routes(choice: PoolSelection) -> FlowPaths:
        order = np.argsort(choice.solution.prices, kind="stable").tolist()
        return decompose_flows(choice.flows, order, frozenset(sold), frozenset({into}))

    chosen = PoolSelector(
        market, solve_flows, 0.0, lambda choice: legs_by_edge(routes(choice))
    ).best(rows, full)
    return (
        run_routes(
            market.problem,
            to_routes(market, routes(chosen)),
            lambda made: float(made.turnover(market.problem)),
        ),
        sold,
    )
