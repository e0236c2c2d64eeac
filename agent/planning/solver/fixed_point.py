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

MAX_ITERATIONS = 20
"""Maximum number of iterations, plus one for each pool dropped because of its floor; two are usual,
and each newly binding limit takes one more.
"""
SETTLED = 5e-8
"""Tolerance: the iteration ends once pool outputs beyond the counted curves change the utility by
less than this, per unit of scale.
"""
LEAST_PRICE = 1e-6
"""Least price of a unit, so that the iteration also ends with a limits.plan_cost of zero, at which
every move must be free.
"""
SHRINK_FACTOR = Fraction(10**7 - 1, 10**7)
"""Factor on a turnover that has to shrink, so that it does not exceed its limit again."""
MIN_ROUTE_FRACTION = 1e-6
"""Fraction of the scale above which a cut chain is worth another route."""
FULL_FRACTION = 1 - 1e-6
"""Fraction of a pool's capacity above which it counts as full."""
BINDING_FRACTION = 1 - 1e-4
"""Fraction of the turnover limit above which it counts as binding, because flows within bands end
slightly below it.
"""
BELOW_MIN_TRADE = "less than limits.min_trade"
DUST_PORTFOLIO_SHARE = Fraction(1, 100_000)
"""Fraction of the portfolio (a tenth of a basis point) below which value blocked by a pool's floor
is dust: only the route is dropped.
"""
DUST_TRADE_SHARE = Fraction(1, 2)
"""Limit on that dust as a fraction of the pool's other trade."""
UNIT_ERROR = Fraction(1, 10**4)
"""Float error of a path, in base units of a token with few units. An amount this close below a
whole number is rounded up to it.
"""
UNMOVED_FRACTION = 1e-8
"""Fraction of the scale below which a token counts as unmoved."""


@dataclass(slots=True)
class FixedPoint:
    """Result of the iteration: legs, and every excluded item with its reason.

    `unmoved` has, by position, the reason why a token does not move. `dropped` pools are not used;
    `unfair_pools` are those dropped because of their floors, `banned` the edges (pool, source) used
    only by chains with too many legs. `budget_fraction` is the used fraction of the turnover limit,
    `turnover_binds` is true if that limit binds, and `approval_binds` if more would be sold than
    the step has approved. `token_order` is set if pools pay more than the reference.
    """

    draft: PlanDraft
    budget_fraction: Fraction = Fraction(1)
    turnover_binds: bool = False
    approval_binds: bool = False
    token_order: TokenOrder | None = None
    unmoved: dict[int, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    banned: set[tuple[str, int]] = field(default_factory=set)
    unfair_pools: set[str] = field(default_factory=set)


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
    iteration = _FixedPointIteration(
        market, objective, budget, min_trade, start, np.zeros(len(objective.held))
    )
    iterations = 0
    while (
        iterations < MAX_ITERATIONS + len(iteration.state.unfair_pools) and not iteration.iterate()
    ):
        iterations += 1
    if iteration.result is None:
        raise _no_fixed_point(budget, min_trade)
    return iteration.result


def _no_fixed_point(budget: Value | None, min_trade: Value | None) -> Refused:
    """Return the refusal of a failed iteration, with the active limits."""
    if budget is None:
        to_raise = []
    else:
        to_raise = ["raise limits.turnover or limits.daily_turnover"]
    to_lower = [] if min_trade is None else ["lower limits.min_trade"]
    limits = [
        *("its turnover limit" for _ in to_raise),
        *("limits.min_trade" for _ in to_lower),
    ] or ["the floors of its legs"]
    remedy = (
        " or ".join((*to_raise, *to_lower))
        or "wait for the next cycle, or remove tokens whose base unit has a high value"
    )
    return Refused(f"no plan within {' and '.join(limits)} was found", remedy=remedy)


@dataclass(slots=True)
class _FixedPointIteration:
    """State of the iteration. `extra_output` is the pools' output in the last iteration beyond the
    counted curves. `pruned` is true once every used pool is worth its gas. `last_solution` is the
    last solution; `result` is the result so far: the settled one if no token has few units, else
    the best draft within all limits.
    """

    market: PoolGraph
    objective: PlanObjective
    budget: Value | None
    min_trade: Value | None
    state: FixedPoint
    extra_output: FloatArray
    pruned: bool = False
    last_solution: Solution | None = None
    result: FixedPoint | None = None

    def iterate(self) -> bool:
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
            state.draft, state.turnover_binds, state.approval_binds = PlanDraft(), False, False
            self.result = state
            return True
        unmoved = {token: float(self.objective.held[token]) for token in state.unmoved}
        optimizer = self.objective.optimizer(
            self.market.scale,
            self.extra_output,
            unmoved,
            None if self.budget is None else float(self.budget * state.budget_fraction),
        )
        rows = self.market.rows(state.dropped, state.banned)
        if self.market.has_gains and not self.pruned:
            state.token_order, self.last_solution = order_tokens(self.market, rows, optimizer), None
        if state.token_order is not None:
            rows = state.token_order.rows(self.market.real, rows)
            optimizer = state.token_order.restrict(optimizer)
        choice = self._select_pools(optimizer, rows)
        routes = None if choice is None else self._routes_or_ban(choice)
        return choice is not None and routes is not None and self._run_and_check(choice, routes)

    def _select_pools(self, optimizer: FlowOptimizer, rows: IndexArray) -> PoolSelection | None:
        """Return the best flows through pools worth their gas; None if a token that moves too
        little was fixed instead.
        """
        market, state = self.market, self.state
        least_move = 0.0 if self.min_trade is None else float(self.min_trade) / market.scale
        if not self.pruned:
            stack = market.real.rows(rows)
            self.last_solution = optimizer.solve(stack, self.last_solution)
            state.turnover_binds = (
                optimizer.budget is not None
                and optimizer.turnover(stack, self.last_solution)
                > optimizer.budget * BINDING_FRACTION
            )
            if self._fix_smallest(self.last_solution.token_changes(stack), least_move):
                return None
        selector = PoolSelector(
            market, optimizer.solve, 0.0 if self.pruned else least_move, self._legs
        )
        if self.pruned:
            choice = selector.pruned(rows, self.last_solution)
        else:
            choice = selector.best(rows, self.last_solution)
        state.dropped |= choice.dropped
        stack = market.real.rows(choice.rows)
        self.pruned, self.last_solution = True, choice.solution
        state.approval_binds = any(
            market.problem.nodes[token].cap_raw is not None
            for token in optimizer.pressed(choice.solution)
        )
        if self._fix_smallest(choice.solution.token_changes(stack), least_move):
            self.pruned = False
            return None
        return choice

    def _fix_smallest(self, moves: FloatArray, least_move: float) -> bool:
        """Fix the token that moves least, if it moves less than the smallest trade; return True if
        one was fixed.
        """
        unmoved = self.state.unmoved
        below_least = [
            (abs(move), token)
            for token, move in enumerate(moves.tolist())
            if UNMOVED_FRACTION < abs(move) < least_move and token not in unmoved
        ]
        if below_least:
            unmoved[min(below_least)[1]] = BELOW_MIN_TRADE
        return bool(below_least)

    def _routes(self, choice: PoolSelection) -> FlowPaths:
        """Decompose flows into routes. Hubs, and tokens with a goal of zero, pass on everything
        they receive.
        """
        moves = choice.solution.token_changes(self.market.real.rows(choice.rows))
        sold_tokens = frozenset(
            np.flatnonzero((moves < -UNMOVED_FRACTION) & (self.objective.held > 0)).tolist()
        )
        bought_tokens = frozenset(
            np.flatnonzero((moves > UNMOVED_FRACTION) & (self.objective.high > 0)).tolist()
        )
        if self.state.token_order is None:
            order = np.argsort(choice.solution.prices, kind="stable").tolist()
        else:
            order = self.state.token_order.order
        return decompose_flows(choice.flows, order, sold_tokens, bought_tokens)

    def _legs(self, choice: PoolSelection) -> MergedLegs:
        """Return the legs through each edge after merging."""
        return legs_by_edge(self._routes(choice))

    def _routes_or_ban(self, choice: PoolSelection) -> FlowPaths | None:
        """Return flows as routes; None if a chain has too many legs, after banning one of its
        edges.
        """
        state, routes = self.state, self._routes(choice)
        cut_paths = [path for path in routes.cut_paths if path.taken > MIN_ROUTE_FRACTION]
        if not cut_paths:
            return routes
        state.banned |= {_narrowest(path) for path in cut_paths}
        state.dropped = {
            pool: why for pool, why in state.dropped.items() if pool not in choice.dropped
        }
        self.pruned = False
        return None

    def _net_utility(self, draft: PlanDraft) -> float:
        return net_utility(self.market, self.objective, draft)

    def _run_and_check(self, choice: PoolSelection, routes: FlowPaths) -> bool:
        """Run the routes in integers; return True if the result matches the counted flows, within
        all limits.
        """
        market, state = self.market, self.state
        state.draft = run_routes(market.problem, to_routes(market, routes), self._net_utility)
        state.draft.full_pools |= {
            flow.pool_edge.pool
            for flow in choice.flows
            if flow.taken >= FULL_FRACTION * flow.pool_edge.offer.real.capacity
        }
        extra_output = _extra_output(
            market, state.draft, choice.solution.token_changes(market.real.rows(choice.rows))
        )
        largest_unit = max(float(node.price) / market.scale for node in market.problem.nodes)
        is_settled = float(np.abs(extra_output - self.extra_output).max(initial=0.0)) <= max(
            SETTLED / max(self.objective.price, LEAST_PRICE), 2 * largest_unit
        )
        self.extra_output = extra_output
        if _breaks_limit(market, state, self.budget, self.min_trade, is_settled):
            return False
        nodes = range(len(market.problem.nodes))
        is_exact = is_settled and not any(market.problem.has_few_units(node) for node in nodes)
        if (
            is_exact
            or self.result is None
            or self._net_utility(state.draft) >= self._net_utility(self.result.draft)
        ):
            self.result = replace(state, unmoved=dict(state.unmoved), dropped=dict(state.dropped))
        return is_settled


def net_utility(market: PoolGraph, objective: PlanObjective, draft: PlanDraft) -> float:
    """Return the utility of a draft less its gas, in units of the scale."""
    problem, scale = market.problem, market.scale
    ends = objective.held + np.array(
        [float(draft.delta.get(node.address, 0) * node.price) for node in problem.nodes]
    )
    return objective.utility(scale, {}).of(ends / scale) - float(draft.cost(problem).gas) / scale


def legs_by_edge(routes: FlowPaths) -> MergedLegs:
    """Return the legs through each edge (pool, source) after merging, routes that are too long
    included.
    """
    return merged_legs(
        [
            [(flow.pool_edge.pool, flow.pool_edge.source) for flow in path.flows]
            for path in (*routes.paths, *routes.cut_paths)
        ]
    )


def _narrowest(path: FlowPath) -> tuple[str, int]:
    """Return the edge of a path with the smallest flow, whose removal costs least."""
    pool_edge = min(path.flows, key=lambda flow: flow.taken).pool_edge
    return pool_edge.pool, pool_edge.source


def to_routes(market: PoolGraph, routes: FlowPaths) -> list[Route]:
    """Return paths as integer routes, in their order."""
    nodes = market.problem.nodes
    integer_routes = []
    for path in routes.paths:
        unrounded_raw = Fraction(path.taken) * Fraction(market.scale) / nodes[path.source].price
        amount_raw = floor_int(unrounded_raw)
        if amount_raw < WHOLE_UNITS and market.problem.has_few_units(path.source):
            amount_raw = floor_int(unrounded_raw + UNIT_ERROR)
        hops = tuple(
            (flow.pool_edge.pool, nodes[flow.pool_edge.source].address) for flow in path.flows
        )
        integer_routes.append(Route(hops, amount_raw))
    return _with_remainders(market.problem, integer_routes)


def _with_remainders(problem: Problem, routes: list[Route]) -> list[Route]:
    """Add the base units lost to rounding to the last route of each leaving token."""
    last_by_token = {route.hops[0][1]: number for number, route in enumerate(routes)}
    for token in problem.leaving & last_by_token.keys():
        token_routes = [route for route in routes if route.hops[0][1] == token]
        remainder_raw = problem.nodes[problem.position[token]].spendable_raw - sum(
            route.amount_raw for route in token_routes
        )
        if 0 < remainder_raw <= len(token_routes):
            routes[last_by_token[token]] = replace(
                routes[last_by_token[token]],
                amount_raw=routes[last_by_token[token]].amount_raw + remainder_raw,
            )
    return routes


def _extra_output(market: PoolGraph, draft: PlanDraft, moves: FloatArray) -> FloatArray:
    """Return each token's exact change beyond the counted flows, in units of the scale."""
    exact_changes = [
        float(draft.delta.get(node.address, 0) * node.price) / market.scale
        for node in market.problem.nodes
    ]
    return np.array(exact_changes) - moves


def _breaks_limit(
    market: PoolGraph,
    state: FixedPoint,
    budget: Value | None,
    min_trade: Value | None,
    is_settled: bool,
) -> bool:
    """Return True if a draft breaks a limit, and record in `state` what to exclude.

    The limits are turnover (reduced only once the iteration has settled), a token that moves less
    than min_trade, and more than dust through a pool below its floor.
    """
    problem, draft, has_breach = market.problem, state.draft, False
    for pool, why in draft.barred.items():
        traded = sum(
            (
                leg.amount_in_raw * problem.price(leg.token_in)
                for leg in draft.legs
                if leg.pool == pool
            ),
            Fraction(0),
        )
        if pool not in state.dropped and draft.untraded_value[pool] > max(
            DUST_PORTFOLIO_SHARE * problem.total, DUST_TRADE_SHARE * traded
        ):
            state.dropped[pool], has_breach = why, True
            state.unfair_pools.add(pool)
    turnover = draft.turnover(problem)
    if budget is not None and turnover > budget:
        has_breach = True
        if is_settled:
            state.budget_fraction *= (budget / turnover * SHRINK_FACTOR).limit_denominator(10**12)
    if min_trade is not None:
        for token, raw in (*draft.sold.items(), *draft.bought.items()):
            position = problem.position[token]
            if raw * problem.price(token) < min_trade:
                state.unmoved[position], has_breach = BELOW_MIN_TRADE, True
    return has_breach


# An exit's whole amount is tried in exact integers before an unsold remainder is accepted. The
# solve weighs the cost of the last unit, but an exit is judged as a whole: a token that can be sold
# entirely within impact bounds, floors and plan_cost is sold, whatever its last unit costs.


PRICE_RANGE = 0.9
"""Range of the dual price of the sold token: any proceeds within impact bounds and floors are
accepted.
"""
SOLD_FRACTION = 1 - 1e-7
"""Fraction of a token from which a solve counts as selling all of it."""
MAX_TRIES = 4
"""Maximum number of retries without pools that pay less than their floor."""


def sell_exits_whole(
    market: PoolGraph, fixed_point: FixedPoint, into: int, min_trade: Value | None
) -> FixedPoint:
    """Replace the legs with legs that sell leaving tokens completely, if these keep all limits.
    Tokens worth less than `min_trade` stay, and so do tokens that are unmoved for a reason other
    than DUST.
    """
    problem = market.problem
    exiting = [
        i
        for i in range(len(problem.nodes))
        if i != into and _is_to_be_sold(problem, fixed_point, i, min_trade or Fraction(0))
    ]
    if all(_unsold_raw(problem, fixed_point.draft, i) == 0 for i in exiting):
        return fixed_point
    market_without_gains = replace(
        market, real=market.counted, after_gas=market.counted_after_gas
    )  # without pools above the reference there are no cycles
    dropped: dict[str, str] = {}
    for _ in range(MAX_TRIES):
        draft, sold = _draft_exits(market_without_gains, exiting, into, dropped)
        if not draft.barred.keys() - dropped.keys():
            break
        dropped |= draft.barred
    limit_bps = problem.plan_cost_bps
    sells_whole = bool(sold) and all(_unsold_raw(problem, draft, i) == 0 for i in sold)
    leaves_less = any(_unsold_raw(problem, fixed_point.draft, i) > 0 for i in sold)
    loses_no_sale = all(
        problem.nodes[i].address not in fixed_point.draft.sold for i in exiting if i not in sold
    )
    within_cost = limit_bps is None or draft.cost(
        problem
    ).total * BPS <= limit_bps * draft.turnover(problem)
    if sells_whole and leaves_less and loses_no_sale and within_cost:
        return replace(fixed_point, draft=draft, token_order=None, turnover_binds=False)
    return fixed_point


def _is_to_be_sold(problem: Problem, fixed_point: FixedPoint, token: int, min_trade: Value) -> bool:
    """True if all of a token is to be sold and it is worth a trade."""
    node = problem.nodes[token]
    leaves = (
        node.address in problem.leaving
        and fixed_point.unmoved.get(token, BELOW_MIN_TRADE) == BELOW_MIN_TRADE
    )
    return leaves and node.spendable_raw > 0 and node.spendable_raw * node.price >= min_trade


def _unsold_raw(problem: Problem, draft: PlanDraft, token: int) -> int:
    """Return the spendable base units of a token that a draft leaves unsold."""
    node = problem.nodes[token]
    return node.spendable_raw + draft.delta.get(node.address, 0)


def _draft_exits(
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
        program = sell_program(start, {i: 0.0 for i in range(len(nodes)) if i != into}, PRICE_RANGE)
        solution = solve_dual(program, stack)
        moves = solution.token_changes(stack)
        sold_whole = [i for i in sold if -moves[i] >= SOLD_FRACTION * start[i]]
        if sold_whole == sold:
            break
        sold = sold_whole
    if not sold:
        return PlanDraft(), []

    def solve_flows(substack: CurveStack, near: Solution | None) -> Solution:
        """Return the best flows, with bound −∞ if they leave a part unsold."""
        best_flows = solve_dual(program, substack, near)
        best_moves = best_flows.token_changes(substack)
        if all(-best_moves[i] >= SOLD_FRACTION * start[i] for i in sold):
            return best_flows
        return replace(best_flows, bound=-np.inf)

    def routes(choice: PoolSelection) -> FlowPaths:
        order = np.argsort(choice.solution.prices, kind="stable").tolist()
        return decompose_flows(choice.flows, order, frozenset(sold), frozenset({into}))

    selection = PoolSelector(
        market, solve_flows, 0.0, lambda choice: legs_by_edge(routes(choice))
    ).best(rows, solution)
    return (
        run_routes(
            market.problem,
            to_routes(market, routes(selection)),
            lambda draft: float(draft.turnover(market.problem)),
        ),
        sold,
    )
