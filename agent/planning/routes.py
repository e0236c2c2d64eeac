"""Routes from flows: each unit is followed from the sold token, through few hubs, to the bought
token.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.planning.problem import EdgeFlow

MAX_LEGS = 8
"""Maximum number of legs of a chain through the router: up to seven hubs, used only where no
shorter route is cheaper after gas.
"""
DUST_FLOW = 1e-9
"""Fraction of the scale below which a flow is rounding noise."""


@dataclass(frozen=True, slots=True)
class FlowPath:
    """Consecutive flows, and the value that enters the first, in units of the scale."""

    flows: tuple[EdgeFlow, ...]
    amount_in: float

    @property
    def sold_token_index(self) -> int:
        """Index of the sold token."""
        return self.flows[0].pool_edge.token_in_index


@dataclass(frozen=True, slots=True)
class FlowPaths:
    """Paths in the order of execution. `overlong_paths` are the first MAX_LEGS legs of longer
    paths, which are not used.
    """

    paths: tuple[FlowPath, ...]
    overlong_paths: tuple[FlowPath, ...]


@dataclass(frozen=True, slots=True)
class _Parcel:
    """Value at a token with its history: its route, its amount at the start and here, and its turn
    in shared pools.

    `taken_before` is the amount that each pool of the route took earlier. Turns are kept when
    parcels are split, so that all pools are passed in the same order.
    """

    route: tuple[EdgeFlow, ...]
    taken_before: tuple[float, ...]
    start_amount: float
    amount: float
    turn_order: tuple[int, ...]

    def divide(self, amount: float) -> tuple[_Parcel, _Parcel]:
        """Divide into a first part with `amount` at this token, and the remainder, which passes
        each pool after it.
        """
        amount_in = amount
        taken_after = []
        for flow, taken_before in zip(
            reversed(self.route), reversed(self.taken_before), strict=True
        ):
            curve = flow.pool_edge.curves.real_curve
            amount_in = curve.input_for(curve.output_for(taken_before) + amount_in) - taken_before
            taken_after.append(taken_before + amount_in)
        first_parcel = _Parcel(
            self.route, self.taken_before, amount_in, amount, (*self.turn_order, 0)
        )
        return first_parcel, _Parcel(
            self.route,
            tuple(reversed(taken_after)),
            self.start_amount - amount_in,
            self.amount - amount,
            (*self.turn_order, 1),
        )


def decompose_flows(
    flows: Sequence[EdgeFlow],
    token_order: Sequence[int],
    sold_tokens: frozenset[int],
    bought_tokens: frozenset[int],
) -> FlowPaths:
    """Split acyclic flows into paths from `sold_tokens` to `bought_tokens`. `token_order` lists
    tokens so that every flow runs forward.

    The amount kept at a bought token is taken from the longest routes first, the amount passed on
    from the shortest, so that routes stay short; those longer than MAX_LEGS are cut. The first path
    through a pool gets a better rate than the last: each gets the output of its own part of the
    curve. Raises ValueError if a flow runs backward, which would be a cycle.
    """
    rank_by_token = {token: index for index, token in enumerate(token_order)}
    outflows: dict[int, list[EdgeFlow]] = {token: [] for token in token_order}
    inflow_by_token = dict.fromkeys(token_order, 0.0)
    for flow in flows:
        if flow.amount_in <= DUST_FLOW or flow.amount_out <= 0:
            continue
        if (
            rank_by_token[flow.pool_edge.token_in_index]
            >= rank_by_token[flow.pool_edge.token_out_index]
        ):
            raise ValueError("flows run in a cycle")
        outflows[flow.pool_edge.token_in_index].append(flow)
        inflow_by_token[flow.pool_edge.token_out_index] += flow.amount_out
    passed_on_share = {
        token: (
            math.fsum(flow.amount_in for flow in outflows[token]) / inflow_by_token[token]
            if inflow_by_token[token] > 0
            else 0.0
        )
        for token in token_order
    }
    parcels: dict[int, list[_Parcel]] = {token: [] for token in token_order}
    ended_parcels: list[_Parcel] = []
    cut_parcels: list[_Parcel] = []
    for token in token_order:
        arrived_parcels = sorted(
            parcels[token], key=lambda parcel: (-len(parcel.route), -parcel.amount)
        )
        outgoing_value = math.fsum(flow.amount_in for flow in outflows[token])
        available_value = math.fsum(parcel.amount for parcel in arrived_parcels)
        if token in bought_tokens:
            staying_parcels, arrived_parcels = _take_parcels(
                arrived_parcels, max(0.0, available_value - outgoing_value)
            )
            ended_parcels += staying_parcels
        elif token in sold_tokens and available_value < outgoing_value:
            arrived_parcels.append(
                _Parcel(
                    (),
                    (),
                    outgoing_value - available_value,
                    outgoing_value - available_value,
                    (rank_by_token[token],),
                )
            )
        cut_parcels += [parcel for parcel in arrived_parcels if len(parcel.route) >= MAX_LEGS]
        _assign_parcels(
            sorted(
                outflows[token], key=lambda flow: passed_on_share[flow.pool_edge.token_out_index]
            ),
            [parcel for parcel in arrived_parcels if len(parcel.route) < MAX_LEGS],
            parcels,
        )
    return FlowPaths(_flow_paths(ended_parcels), _flow_paths(cut_parcels))


def _take_parcels(parcels: Sequence[_Parcel], amount: float) -> tuple[list[_Parcel], list[_Parcel]]:
    """Split parcels, in order, into those that make up `amount` and the remainder."""
    first_parcels = []
    remaining_parcels = []
    for parcel in parcels:
        if amount <= DUST_FLOW:
            remaining_parcels.append(parcel)
        elif parcel.amount <= amount + DUST_FLOW:
            first_parcels.append(parcel)
            amount -= parcel.amount
        else:
            first_parcel, second_parcel = parcel.divide(amount)
            first_parcels.append(first_parcel)
            remaining_parcels.append(second_parcel)
            amount = 0.0
    return first_parcels, remaining_parcels


def _assign_parcels(
    flows: Sequence[EdgeFlow], parcels: Sequence[_Parcel], arrivals: dict[int, list[_Parcel]]
) -> None:
    """Assign parcels to flows, both in the given order: the longest routes go to the targets that
    pass on the smallest share.
    """
    available_value = math.fsum(parcel.amount for parcel in parcels)
    outgoing_value = math.fsum(flow.amount_in for flow in flows)
    if outgoing_value <= 0 or available_value <= 0:
        return
    remaining_parcels = list(parcels)
    for flow_index, flow in enumerate(flows):
        flow_value = flow.amount_in * available_value / outgoing_value
        assigned_parcels, remaining_parcels = (
            (remaining_parcels, [])
            if flow_index == len(flows) - 1
            else _take_parcels(remaining_parcels, flow_value)
        )
        assigned_parcels = sorted(
            (parcel for parcel in assigned_parcels if parcel.amount > DUST_FLOW),
            key=lambda parcel: parcel.turn_order,
        )
        assigned_amount = math.fsum(parcel.amount for parcel in assigned_parcels)
        curve = flow.pool_edge.curves.real_curve
        entered_value = 0.0
        for parcel in assigned_parcels:
            entered_value_before = entered_value
            entered_value += flow.amount_in * parcel.amount / assigned_amount
            amount_out = curve.output_for(entered_value) - curve.output_for(entered_value_before)
            arrivals[flow.pool_edge.token_out_index].append(
                _Parcel(
                    (*parcel.route, flow),
                    (*parcel.taken_before, entered_value_before),
                    parcel.start_amount,
                    amount_out,
                    parcel.turn_order,
                )
            )


def _flow_paths(parcels: Sequence[_Parcel]) -> tuple[FlowPath, ...]:
    return tuple(
        FlowPath(parcel.route, parcel.start_amount)
        for parcel in sorted(parcels, key=lambda parcel: parcel.turn_order)
        if parcel.route
    )


# --- Merging of routes with the same last pools: their outputs collect in the router, and one leg
# carries them on.


Hop = tuple[str, str]
"""A pool, and the token that enters it."""


@dataclass(frozen=True, slots=True)
class Route:
    """Pools of a route, first to last, with the token that enters each. The first pool takes
    `amount_raw` base units from the wallet, or else all that `feeding_routes` pay, one after
    another.
    """

    hops: tuple[Hop, ...]
    amount_raw: int = 0
    feeding_routes: tuple[Route, ...] = ()

    @property
    def sources(self) -> tuple[Route, ...]:
        """Return the routes that begin at the wallet, in execution order."""
        if self.feeding_routes:
            return tuple(
                source for feeding_route in self.feeding_routes for source in feeding_route.sources
            )
        return (self,)


def merge_routes(routes: Sequence[Route]) -> list[Route]:
    """Merge single routes, in order, into fewer legs: routes with common last hops share them.

    A leg is paid by the wallet or by the router's whole balance, never by both: a route that begins
    at a hub stays separate.
    """
    routes_by_last_hop: dict[Hop, list[Route]] = {}
    for route in routes:
        routes_by_last_hop.setdefault(route.hops[-1], []).append(route)
    return [
        merged_route
        for last_hop, same_end_routes in routes_by_last_hop.items()
        for merged_route in _merged_same_end(last_hop, same_end_routes)
    ]


def _merged_same_end(last_hop: Hop, same_end_routes: Sequence[Route]) -> Iterable[Route]:
    direct_amounts = [route.amount_raw for route in same_end_routes if len(route.hops) == 1]
    if direct_amounts:
        yield Route((last_hop,), sum(direct_amounts, 0))
    feeding_routes = merge_routes(
        [
            Route(route.hops[:-1], route.amount_raw)
            for route in same_end_routes
            if len(route.hops) > 1
        ]
    )
    if len(feeding_routes) == 1:
        yield replace(feeding_routes[0], hops=(*feeding_routes[0].hops, last_hop))
    elif feeding_routes:
        yield Route((last_hop,), 0, tuple(feeding_routes))


PoolSide = tuple[str, int]
"""A pool, and the index of the token that enters it."""


@dataclass(frozen=True, slots=True)
class MergedLegs:
    """Legs of merged chains: their number through each edge, and for each edge the number through
    the other edges that only chains through it use (`dependents`).
    """

    counts: Mapping[PoolSide, int]
    dependents: Mapping[PoolSide, Mapping[PoolSide, int]]


def merged_legs(edge_chains: Iterable[Sequence[PoolSide]]) -> MergedLegs:
    """Return the legs of merged chains of edges: through an edge one per continuation, plus one for
    chains that begin there.
    """
    common_edges: dict[tuple[tuple[PoolSide, ...], bool], set[PoolSide]] = {}
    for edge_chain in edge_chains:
        for start_index in range(len(edge_chain)):
            suffix_and_start = (tuple(edge_chain[start_index:]), start_index == 0)
            edges = set(edge_chain)
            common_edges[suffix_and_start] = common_edges.get(suffix_and_start, edges) & edges
    dependents: dict[PoolSide, Counter[PoolSide]] = {}
    for (suffix, _), edges in common_edges.items():
        for edge in edges - {suffix[0]}:
            dependents.setdefault(edge, Counter())[suffix[0]] += 1
    return MergedLegs(Counter(suffix[0] for suffix, _ in common_edges), dependents)
