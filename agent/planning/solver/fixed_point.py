"""Fixed-point iteration between the continuous solve and exact integers, until both agree within
every limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from agent.errors import Refused, Verdict
from agent.floats import FloatArray, IndexArray
from agent.planning.pool_curves import MAX_WHOLE_UNITS, CurveStack
from agent.planning.problem import PoolGraph, Problem
from agent.planning.rounding import PlanDraft, run_routes
from agent.planning.routes import (
    FlowPath,
    FlowPaths,
    MergedLegs,
    Route,
    decompose_flows,
    merged_legs,
)
from agent.planning.solver.drop_reasons import DropCause, DropReason
from agent.planning.solver.dual import DualSolution, solve_dual
from agent.planning.solver.search import PoolSelection, PoolSelector
from agent.planning.solver.token_order import TokenOrder, order_tokens
from agent.planning.solver.utility import FlowOptimizer, PlanObjective, sell_program
from agent.units import BPS, Value, floor_int

MAX_ITERATIONS = 20
"""Maximum number of iterations, plus one for each pool dropped because of its floor; two are usual,
and each newly binding limit takes one more.
"""
SETTLED_TOLERANCE = 5e-8
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

    `unmoved_tokens` has, by index, the reason why a token does not move. `dropped_pools` are not
    used, by address with the reason; `below_floor_pools` are those dropped because of their floors,
    `banned_directions` the edges (pool, source) used only by chains with too many legs.
    `turnover_fraction` is the used fraction of the turnover limit, `turnover_binds` is true if that
    limit binds, and `approval_binds` if more would be sold than the step has approved.
    `token_order` is set if pools pay more than the reference.
    """

    draft: PlanDraft
    turnover_fraction: Fraction = Fraction(1)
    turnover_binds: bool = False
    approval_binds: bool = False
    token_order: TokenOrder | None = None
    unmoved_tokens: dict[int, str] = field(default_factory=dict)
    dropped_pools: dict[str, DropReason] = field(default_factory=dict)
    banned_directions: set[tuple[str, int]] = field(default_factory=set)
    below_floor_pools: set[str] = field(default_factory=set)


def find_fixed_point(
    graph: PoolGraph,
    objective: PlanObjective,
    max_turnover: Value | None,
    min_trade: Value | None,
    dropped_pools: Mapping[str, DropReason],
    unmoved_tokens: Mapping[int, str] | None = None,
) -> FixedPoint:
    """Return the result for `objective`. `max_turnover` bounds turnover; tokens that move less than
    `min_trade` or are in `unmoved_tokens` stay unmoved. `dropped_pools` are pools not to use, with
    the reason. Raises Refused if no iteration stays within the limits.
    """
    start_state = FixedPoint(
        PlanDraft(), dropped_pools=dict(dropped_pools), unmoved_tokens=dict(unmoved_tokens or {})
    )
    iteration = _FixedPointIteration(
        graph, objective, max_turnover, min_trade, start_state, np.zeros(len(objective.held_values))
    )
    iteration_count = 0
    while (
        iteration_count < MAX_ITERATIONS + len(iteration.state.below_floor_pools)
        and not iteration.iterate()
    ):
        iteration_count += 1
    if iteration.best_result is None:
        raise _no_plan_refusal(max_turnover, min_trade)
    return iteration.best_result


def _no_plan_refusal(max_turnover: Value | None, min_trade: Value | None) -> Refused:
    """Return the refusal of a failed iteration, with the active limits."""
    if max_turnover is None:
        turnover_remedies = []
    else:
        turnover_remedies = ["raise limits.turnover or limits.daily_turnover"]
    min_trade_remedies = [] if min_trade is None else ["lower limits.min_trade"]
    limit_names = [
        *("its turnover limit" for _ in turnover_remedies),
        *("limits.min_trade" for _ in min_trade_remedies),
    ] or ["the floors of its legs"]
    remedy = (
        " or ".join((*turnover_remedies, *min_trade_remedies))
        or "wait for the next cycle, or remove tokens whose base unit has a high value"
    )
    guard_names = [
        *("turnover" for _ in turnover_remedies),
        *("min_trade" for _ in min_trade_remedies),
    ] or ["fair_floor"]
    verdicts = [Verdict(name, "no plan", "a plan within the limits", False) for name in guard_names]
    return Refused(f"no plan within {' and '.join(limit_names)} was found", verdicts, remedy)


@dataclass(slots=True)
class _FixedPointIteration:
    """State of the iteration. `extra_output` is the pools' output in the last iteration beyond the
    counted curves. `is_pruned` is true once every used pool is worth its gas. `last_solution` is
    the last solution; `best_result` is the result so far: the settled one if no token has few
    units, else the best draft within all limits.
    """

    graph: PoolGraph
    objective: PlanObjective
    max_turnover: Value | None
    min_trade: Value | None
    state: FixedPoint
    extra_output: FloatArray
    is_pruned: bool = False
    last_solution: DualSolution | None = None
    best_result: FixedPoint | None = None

    def iterate(self) -> bool:
        """Run one iteration; return True once nothing changes. A single movable token has no
        counterpart, so it needs no solve; its dual has no unique solution.
        """
        state = self.state
        if (
            len(
                {
                    self.graph.problem.index_by_token[node.address]
                    for node in self.graph.problem.assets
                }
                - state.unmoved_tokens.keys()
            )
            < 2
        ):
            state.draft = PlanDraft()
            state.turnover_binds = False
            state.approval_binds = False
            self.best_result = state
            return True
        unmoved_values = {
            token: float(self.objective.held_values[token]) for token in state.unmoved_tokens
        }
        optimizer = self.objective.optimizer(
            self.graph.scale,
            self.extra_output,
            unmoved_values,
            None
            if self.max_turnover is None
            else float(self.max_turnover * state.turnover_fraction),
        )
        curve_rows = self.graph.rows(state.dropped_pools, state.banned_directions)
        if self.graph.pays_above_reference and not self.is_pruned:
            state.token_order = order_tokens(self.graph, curve_rows, optimizer)
            self.last_solution = None
        if state.token_order is not None:
            curve_rows = state.token_order.rows(self.graph.real_curves, curve_rows)
            optimizer = state.token_order.restrict(optimizer)
        selection = self._select_pools(optimizer, curve_rows)
        flow_paths = None if selection is None else self._paths_or_ban(selection)
        return (
            selection is not None
            and flow_paths is not None
            and self._run_and_check(selection, flow_paths)
        )

    def _select_pools(
        self, optimizer: FlowOptimizer, curve_rows: IndexArray
    ) -> PoolSelection | None:
        """Return the best flows through pools worth their gas; None if a token that moves too
        little was fixed instead.
        """
        graph = self.graph
        state = self.state
        least_move_value = 0.0 if self.min_trade is None else float(self.min_trade) / graph.scale
        if not self.is_pruned:
            stack = graph.real_curves.rows(curve_rows)
            self.last_solution = optimizer.solve(stack, self.last_solution)
            state.turnover_binds = (
                optimizer.max_turnover is not None
                and optimizer.turnover(stack, self.last_solution)
                > optimizer.max_turnover * BINDING_FRACTION
            )
            if self._pin_smallest_move(self.last_solution.token_changes(stack), least_move_value):
                return None
        selector = PoolSelector(
            graph, optimizer.solve, 0.0 if self.is_pruned else least_move_value, self._merged_legs
        )
        if self.is_pruned:
            selection = selector.pruned_selection(curve_rows, self.last_solution)
        else:
            selection = selector.best_selection(curve_rows, self.last_solution)
        state.dropped_pools |= selection.dropped_pools
        stack = graph.real_curves.rows(selection.rows)
        self.is_pruned = True
        self.last_solution = selection.solution
        state.approval_binds = any(
            graph.problem.nodes[token].cap_raw is not None
            for token in optimizer.oversold_tokens(selection.solution)
        )
        if self._pin_smallest_move(selection.solution.token_changes(stack), least_move_value):
            self.is_pruned = False
            return None
        return selection

    def _pin_smallest_move(self, token_changes: FloatArray, least_move_value: float) -> bool:
        """Fix the token that moves least, if it moves less than the smallest trade; return True if
        one was fixed.
        """
        unmoved_tokens = self.state.unmoved_tokens
        moves_too_small = [
            (abs(move), token)
            for token, move in enumerate(token_changes.tolist())
            if UNMOVED_FRACTION < abs(move) < least_move_value and token not in unmoved_tokens
        ]
        if moves_too_small:
            unmoved_tokens[min(moves_too_small)[1]] = BELOW_MIN_TRADE
        return bool(moves_too_small)

    def _flow_paths(self, selection: PoolSelection) -> FlowPaths:
        """Decompose flows into paths. Hubs, and tokens with a goal of zero, pass on everything
        they receive.
        """
        token_changes = selection.solution.token_changes(
            self.graph.real_curves.rows(selection.rows)
        )
        sold_tokens = frozenset(
            np.flatnonzero(
                (token_changes < -UNMOVED_FRACTION) & (self.objective.held_values > 0)
            ).tolist()
        )
        bought_tokens = frozenset(
            np.flatnonzero(
                (token_changes > UNMOVED_FRACTION) & (self.objective.high_shares > 0)
            ).tolist()
        )
        if self.state.token_order is None:
            token_order = np.argsort(selection.solution.prices, kind="stable").tolist()
        else:
            token_order = self.state.token_order.tokens_in_order
        return decompose_flows(selection.flows, token_order, sold_tokens, bought_tokens)

    def _merged_legs(self, selection: PoolSelection) -> MergedLegs:
        """Return the legs through each edge after merging."""
        return legs_by_edge(self._flow_paths(selection))

    def _paths_or_ban(self, selection: PoolSelection) -> FlowPaths | None:
        """Return flows as paths; None if a chain has too many legs, after banning one of its
        edges.
        """
        state = self.state
        flow_paths = self._flow_paths(selection)
        large_overlong_paths = [
            path for path in flow_paths.overlong_paths if path.amount_in > MIN_ROUTE_FRACTION
        ]
        if not large_overlong_paths:
            return flow_paths
        state.banned_directions |= {_narrowest_edge(path) for path in large_overlong_paths}
        state.dropped_pools = {
            pool: reason
            for pool, reason in state.dropped_pools.items()
            if pool not in selection.dropped_pools
        }
        self.is_pruned = False
        return None

    def _net_utility(self, draft: PlanDraft) -> float:
        return net_utility(self.graph, self.objective, draft)

    def _run_and_check(self, selection: PoolSelection, flow_paths: FlowPaths) -> bool:
        """Run the paths in integers; return True if the result matches the counted flows, within
        all limits.
        """
        graph = self.graph
        state = self.state
        state.draft = run_routes(graph.problem, to_routes(graph, flow_paths), self._net_utility)
        state.draft.full_pools |= {
            flow.pool_edge.pool_address
            for flow in selection.flows
            if flow.amount_in >= FULL_FRACTION * flow.pool_edge.curves.real_curve.capacity
        }
        extra_output = _extra_output(
            graph,
            state.draft,
            selection.solution.token_changes(graph.real_curves.rows(selection.rows)),
        )
        largest_unit = max(float(node.price) / graph.scale for node in graph.problem.nodes)
        is_settled = float(np.abs(extra_output - self.extra_output).max(initial=0.0)) <= max(
            SETTLED_TOLERANCE / max(self.objective.penalty, LEAST_PRICE), 2 * largest_unit
        )
        self.extra_output = extra_output
        if _exclude_limit_breaches(graph, state, self.max_turnover, self.min_trade, is_settled):
            return False
        token_indices = range(len(graph.problem.nodes))
        is_exact = is_settled and not any(
            graph.problem.has_few_units(index) for index in token_indices
        )
        if (
            is_exact
            or self.best_result is None
            or self._net_utility(state.draft) >= self._net_utility(self.best_result.draft)
        ):
            self.best_result = replace(
                state,
                unmoved_tokens=dict(state.unmoved_tokens),
                dropped_pools=dict(state.dropped_pools),
            )
        return is_settled


def net_utility(graph: PoolGraph, objective: PlanObjective, draft: PlanDraft) -> float:
    """Return the utility of a draft less its gas, in units of the scale."""
    problem = graph.problem
    scale = graph.scale
    final_values = objective.held_values + np.array(
        [float(draft.delta_raw.get(node.address, 0) * node.price) for node in problem.nodes]
    )
    return (
        objective.utility(scale, {}).utility_of(final_values / scale)
        - float(draft.cost(problem).gas) / scale
    )


def legs_by_edge(flow_paths: FlowPaths) -> MergedLegs:
    """Return the legs through each edge (pool, source) after merging, paths that are too long
    included.
    """
    return merged_legs(
        [
            [(flow.pool_edge.pool_address, flow.pool_edge.token_in_index) for flow in path.flows]
            for path in (*flow_paths.paths, *flow_paths.overlong_paths)
        ]
    )


def _narrowest_edge(path: FlowPath) -> tuple[str, int]:
    """Return the edge of a path with the smallest flow, whose removal costs least."""
    pool_edge = min(path.flows, key=lambda flow: flow.amount_in).pool_edge
    return pool_edge.pool_address, pool_edge.token_in_index


def to_routes(graph: PoolGraph, flow_paths: FlowPaths) -> list[Route]:
    """Return paths as integer routes, in their order."""
    nodes = graph.problem.nodes
    integer_routes = []
    for path in flow_paths.paths:
        unrounded_raw = (
            Fraction(path.amount_in) * Fraction(graph.scale) / nodes[path.sold_token_index].price
        )
        amount_raw = floor_int(unrounded_raw)
        if amount_raw < MAX_WHOLE_UNITS and graph.problem.has_few_units(path.sold_token_index):
            amount_raw = floor_int(unrounded_raw + UNIT_ERROR)
        hops = tuple(
            (flow.pool_edge.pool_address, nodes[flow.pool_edge.token_in_index].address)
            for flow in path.flows
        )
        integer_routes.append(Route(hops, amount_raw))
    return _with_remainders(graph.problem, integer_routes)


def _with_remainders(problem: Problem, routes: list[Route]) -> list[Route]:
    """Add the base units lost to rounding to the last route of each leaving token."""
    last_route_by_token = {route.hops[0][1]: index for index, route in enumerate(routes)}
    for token in problem.leaving_tokens & last_route_by_token.keys():
        token_routes = [route for route in routes if route.hops[0][1] == token]
        remainder_raw = problem.nodes[problem.index_by_token[token]].spendable_raw - sum(
            route.amount_raw for route in token_routes
        )
        if 0 < remainder_raw <= len(token_routes):
            routes[last_route_by_token[token]] = replace(
                routes[last_route_by_token[token]],
                amount_raw=routes[last_route_by_token[token]].amount_raw + remainder_raw,
            )
    return routes


def _extra_output(graph: PoolGraph, draft: PlanDraft, token_changes: FloatArray) -> FloatArray:
    """Return each token's exact change beyond the counted flows, in units of the scale."""
    exact_changes = [
        float(draft.delta_raw.get(node.address, 0) * node.price) / graph.scale
        for node in graph.problem.nodes
    ]
    return np.array(exact_changes) - token_changes


def _exclude_limit_breaches(
    graph: PoolGraph,
    state: FixedPoint,
    max_turnover: Value | None,
    min_trade: Value | None,
    is_settled: bool,
) -> bool:
    """Return True if a draft breaks a limit, and record in `state` what to exclude.

    The limits are turnover (reduced only once the iteration has settled), a token that moves less
    than min_trade, and more than dust through a pool below its floor.
    """
    problem = graph.problem
    draft = state.draft
    has_breach = False
    for pool, why in draft.below_floor_pools.items():
        traded_value = sum(
            (
                leg.amount_in_raw * problem.price(leg.token_in)
                for leg in draft.legs
                if leg.pool == pool
            ),
            Fraction(0),
        )
        if pool not in state.dropped_pools and draft.untraded_values[pool] > max(
            DUST_PORTFOLIO_SHARE * problem.total, DUST_TRADE_SHARE * traded_value
        ):
            state.dropped_pools[pool] = DropReason(DropCause.BELOW_FLOOR, why)
            has_breach = True
            state.below_floor_pools.add(pool)
    turnover = draft.turnover(problem)
    if max_turnover is not None and turnover > max_turnover:
        has_breach = True
        if is_settled:
            state.turnover_fraction *= (max_turnover / turnover * SHRINK_FACTOR).limit_denominator(
                10**12
            )
    if min_trade is not None:
        for token, raw in (*draft.sold_raw.items(), *draft.bought_raw.items()):
            token_index = problem.index_by_token[token]
            if raw * problem.price(token) < min_trade:
                state.unmoved_tokens[token_index] = BELOW_MIN_TRADE
                has_breach = True
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
    graph: PoolGraph, fixed_point: FixedPoint, bought_token: int, min_trade: Value | None
) -> FixedPoint:
    """Replace the legs with legs that sell leaving tokens completely, if these keep all limits.
    Tokens worth less than `min_trade` stay, and so do tokens that are unmoved for a reason other
    than BELOW_MIN_TRADE.
    """
    problem = graph.problem
    exiting_tokens = [
        i
        for i in range(len(problem.nodes))
        if i != bought_token and _is_to_be_sold(problem, fixed_point, i, min_trade or Fraction(0))
    ]
    if all(_unsold_raw(problem, fixed_point.draft, i) == 0 for i in exiting_tokens):
        return fixed_point
    graph_without_gains = replace(
        graph, real_curves=graph.counted_curves, real_after_charges=graph.counted_after_charges
    )  # without pools above the reference there are no cycles
    dropped_pools: dict[str, str] = {}
    for _ in range(MAX_TRIES):
        draft, sold_tokens = _draft_exits(
            graph_without_gains, exiting_tokens, bought_token, dropped_pools
        )
        if not draft.below_floor_pools.keys() - dropped_pools.keys():
            break
        dropped_pools |= draft.below_floor_pools
    plan_cost_bps = problem.plan_cost_bps
    sells_whole = bool(sold_tokens) and all(
        _unsold_raw(problem, draft, i) == 0 for i in sold_tokens
    )
    sells_more = any(_unsold_raw(problem, fixed_point.draft, i) > 0 for i in sold_tokens)
    loses_no_sale = all(
        draft.delta_raw.get(token, 0) <= change_raw
        for token, change_raw in fixed_point.draft.delta_raw.items()
        if change_raw < 0
    )
    is_within_cost = plan_cost_bps is None or draft.cost(
        problem
    ).total * BPS <= plan_cost_bps * draft.turnover(problem)
    if sells_whole and sells_more and loses_no_sale and is_within_cost:
        return replace(fixed_point, draft=draft, token_order=None, turnover_binds=False)
    return fixed_point


def _is_to_be_sold(problem: Problem, fixed_point: FixedPoint, token: int, min_trade: Value) -> bool:
    """True if all of a token is to be sold and it is worth a trade."""
    node = problem.nodes[token]
    is_leaving = (
        node.address in problem.leaving_tokens
        and fixed_point.unmoved_tokens.get(token, BELOW_MIN_TRADE) == BELOW_MIN_TRADE
    )
    return is_leaving and node.spendable_raw > 0 and node.spendable_raw * node.price >= min_trade


def _unsold_raw(problem: Problem, draft: PlanDraft, token: int) -> int:
    """Return the spendable base units of a token that a draft leaves unsold."""
    node = problem.nodes[token]
    return node.spendable_raw + draft.delta_raw.get(node.address, 0)


def _draft_exits(
    graph: PoolGraph, exiting_tokens: list[int], bought_token: int, dropped_pools: dict[str, str]
) -> tuple[PlanDraft, list[int]]:
    """Return the best legs, net of gas, that completely sell as many of these tokens as the pools
    take, and the sold tokens.
    """
    nodes = graph.problem.nodes
    curve_rows = graph.rows(dropped_pools)
    stack = graph.real_curves.rows(curve_rows)
    sold_tokens = list(exiting_tokens)
    while sold_tokens:
        start_values = np.array(
            [
                float(node.spendable_raw * node.price) / graph.scale if i in sold_tokens else 0.0
                for i, node in enumerate(nodes)
            ]
        )
        program = sell_program(
            start_values, {i: 0.0 for i in range(len(nodes)) if i != bought_token}, PRICE_RANGE
        )
        solution = solve_dual(program, stack)
        token_changes = solution.token_changes(stack)
        wholly_sold_tokens = [
            i for i in sold_tokens if -token_changes[i] >= SOLD_FRACTION * start_values[i]
        ]
        if wholly_sold_tokens == sold_tokens:
            break
        sold_tokens = wholly_sold_tokens
    if not sold_tokens:
        return PlanDraft(), []

    def solve_flows(substack: CurveStack, earlier_solution: DualSolution | None) -> DualSolution:
        """Return the best flows, with bound −∞ if they leave a part unsold."""
        best_solution = solve_dual(program, substack, earlier_solution)
        best_changes = best_solution.token_changes(substack)
        if all(-best_changes[i] >= SOLD_FRACTION * start_values[i] for i in sold_tokens):
            return best_solution
        return replace(best_solution, bound=-np.inf)

    def paths_of(candidate_selection: PoolSelection) -> FlowPaths:
        token_order = np.argsort(candidate_selection.solution.prices, kind="stable").tolist()
        return decompose_flows(
            candidate_selection.flows,
            token_order,
            frozenset(sold_tokens),
            frozenset({bought_token}),
        )

    selection = PoolSelector(
        graph,
        solve_flows,
        0.0,
        lambda candidate_selection: legs_by_edge(paths_of(candidate_selection)),
    ).best_selection(curve_rows, solution)
    return (
        run_routes(
            graph.problem,
            to_routes(graph, paths_of(selection)),
            lambda draft: float(draft.turnover(graph.problem)),
        ),
        sold_tokens,
    )
