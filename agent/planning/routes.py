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
    taken: float

    @property
    def source(self) -> int:
        """Position of the sold token."""
        return self.flows[0].pool_edge.source


@dataclass(frozen=True, slots=True)
class FlowPaths:
    """Paths in the order of execution. `cut` are paths of more than MAX_LEGS legs, which are not
    used.
    """

    paths: tuple[FlowPath, ...]
    cut: tuple[FlowPath, ...]


@dataclass(frozen=True, slots=True)
class _Parcel:
    """Value at a token with its history: its route, its amount at the start and here, and its turn
    in shared pools.

    `before` is the amount that each pool of the route took earlier. Turns are kept when parcels are
    split, so that all pools are passed in the same order.
    """

    route: tuple[EdgeFlow, ...]
    before: tuple[float, ...]
    begun: float
    here: float
    turn: tuple[int, ...]

    def divide(self, amount: float) -> tuple[_Parcel, _Parcel]:
        """Divide into a first part with `amount` at this token, and the remainder, which passes each
        pool after it.
        """
        need, passed = amount, []
        for flow, before in zip(reversed(self.route), reversed(self.before), strict=True):
            curve = flow.pool_edge.offer.real
            need = curve.takes(curve.pays(before) + need) - before
            passed.append(before + need)
        first = _Parcel(self.route, self.before, need, amount, (*self.turn, 0))
        return first, _Parcel(
            self.route,
            tuple(reversed(passed)),
            self.begun - need,
            self.here - amount,
            (*self.turn, 1),
        )


def decompose_flows(
    flows: Sequence[EdgeFlow],
    order: Sequence[int],
    sold_tokens: frozenset[int],
    bought_tokens: frozenset[int],
) -> FlowPaths:
    """Split acyclic flows into paths from `sold_tokens` to `bought_tokens`. `order` lists tokens so
    that every flow runs forward.

    The amount kept at a bought token is taken from the longest routes first, the amount passed on
    from the shortest, so that routes stay short; those longer than MAX_LEGS are cut. The first path
    through a pool gets a better rate than the last: each gets the output of its own part of the
    curve. Raises ValueError if a flow runs backward, which would be a cycle.
    """
    rank = {token: number for number, token in enumerate(order)}
    out: dict[int, list[EdgeFlow]] = {token: [] for token in order}
    inflow = dict.fromkeys(order, 0.0)
    for flow in flows:
        if flow.taken <= DUST_FLOW or flow.paid <= 0:
            continue
        if rank[flow.pool_edge.source] >= rank[flow.pool_edge.target]:
            raise ValueError("flows run in a cycle")
        out[flow.pool_edge.source].append(flow)
        inflow[flow.pool_edge.target] += flow.paid
    onward = {
        token: (
            math.fsum(flow.taken for flow in out[token]) / inflow[token]
            if inflow[token] > 0
            else 0.0
        )
        for token in order
    }
    lots: dict[int, list[_Parcel]] = {token: [] for token in order}
    ended: list[_Parcel] = []
    cut: list[_Parcel] = []
    for token in order:
        arrived = sorted(lots[token], key=lambda lot: (-len(lot.route), -lot.here))
        leaving = math.fsum(flow.taken for flow in out[token])
        present = math.fsum(lot.here for lot in arrived)
        if token in bought_tokens:
            kept, arrived = _take(arrived, max(0.0, present - leaving))
            ended += kept
        elif token in sold_tokens and present < leaving:
            arrived.append(_Parcel((), (), leaving - present, leaving - present, (rank[token],)))
        cut += [lot for lot in arrived if len(lot.route) >= MAX_LEGS]
        _send(
            sorted(out[token], key=lambda flow: onward[flow.pool_edge.target]),
            [lot for lot in arrived if len(lot.route) < MAX_LEGS],
            lots,
        )
    return FlowPaths(_paths(ended), _paths(cut))


def _take(lots: Sequence[_Parcel], amount: float) -> tuple[list[_Parcel], list[_Parcel]]:
    """Split lots, in order, into those that make up `amount` and the remainder."""
    taken, rest = [], []
    for lot in lots:
        if amount <= DUST_FLOW:
            rest.append(lot)
        elif lot.here <= amount + DUST_FLOW:
            taken.append(lot)
            amount -= lot.here
        else:
            first, second = lot.divide(amount)
            taken.append(first)
            rest.append(second)
            amount = 0.0
    return taken, rest


def _send(
    flows: Sequence[EdgeFlow], lots: Sequence[_Parcel], arrivals: dict[int, list[_Parcel]]
) -> None:
    """Assign lots to flows, both in the given order: the longest routes go to the targets that pass
    on the smallest share.
    """
    present, leaving = math.fsum(lot.here for lot in lots), math.fsum(flow.taken for flow in flows)
    if leaving <= 0 or present <= 0:
        return
    rest = list(lots)
    for number, flow in enumerate(flows):
        share = flow.taken * present / leaving
        sent, rest = (rest, []) if number == len(flows) - 1 else _take(rest, share)
        sent = sorted((lot for lot in sent if lot.here > DUST_FLOW), key=lambda lot: lot.turn)
        whole = math.fsum(lot.here for lot in sent)
        curve, entered = flow.pool_edge.offer.real, 0.0
        for lot in sent:
            before, entered = entered, entered + flow.taken * lot.here / whole
            paid = curve.pays(entered) - curve.pays(before)
            arrivals[flow.pool_edge.target].append(
                _Parcel((*lot.route, flow), (*lot.before, before), lot.begun, paid, lot.turn)
            )


def _paths(lots: Sequence[_Parcel]) -> tuple[FlowPath, ...]:
    return tuple(
        FlowPath(lot.route, lot.begun)
        for lot in sorted(lots, key=lambda lot: lot.turn)
        if lot.route
    )


# --- Merging of routes with the same last pools: their outputs collect in the router, and one leg
# carries them on.


Hop = tuple[str, str]
"""A pool, and the token that enters it."""


@dataclass(frozen=True, slots=True)
class Route:
    """Pools of a route, first to last, with the token that enters each. The first pool takes
    `amount_raw` base units from the wallet, or else all that `feeds` pay, one after another.
    """

    hops: tuple[Hop, ...]
    amount_raw: int = 0
    feeds: tuple[Route, ...] = ()

    @property
    def sources(self) -> tuple[Route, ...]:
        """Return the routes that begin at the wallet, in execution order."""
        if self.feeds:
            return tuple(source for feed in self.feeds for source in feed.sources)
        return (self,)


def merge_routes(routes: Sequence[Route]) -> list[Route]:
    """Merge single routes, in order, into fewer legs: routes with common last hops share them.

    A leg is paid by the wallet or by the router's whole balance, never by both: a route that begins
    at a hub stays separate.
    """
    groups: dict[Hop, list[Route]] = {}
    for route in routes:
        groups.setdefault(route.hops[-1], []).append(route)
    return [made for last, group in groups.items() for made in _joined(last, group)]


def _joined(last: Hop, group: Sequence[Route]) -> Iterable[Route]:
    whole = [route.amount_raw for route in group if len(route.hops) == 1]
    if whole:
        yield Route((last,), sum(whole, 0))
    feeds = merge_routes(
        [Route(route.hops[:-1], route.amount_raw) for route in group if len(route.hops) > 1]
    )
    if len(feeds) == 1:
        yield replace(feeds[0], hops=(*feeds[0].hops, last))
    elif feeds:
        yield Route((last,), 0, tuple(feeds))


PoolSide = tuple[str, int]
"""A pool, and the position of the token that enters it."""


@dataclass(frozen=True, slots=True)
class MergedLegs:
    """Legs of merged chains: their number through each edge, and for each edge the number through
    the other edges that only chains through it use.
    """

    counts: Mapping[PoolSide, int]
    alone: Mapping[PoolSide, Mapping[PoolSide, int]]


def merged_legs(chains: Iterable[Sequence[PoolSide]]) -> MergedLegs:
    """Return the legs of merged chains of edges: through an edge one per continuation, plus one for
    chains that begin there.
    """
    common: dict[tuple[tuple[PoolSide, ...], bool], set[PoolSide]] = {}
    for chain in chains:
        for at in range(len(chain)):
            common.setdefault((tuple(chain[at:]), at == 0), set(chain)).intersection_update(chain)
    alone: dict[PoolSide, Counter[PoolSide]] = {}
    for (rest, _), edges in common.items():
        for edge in edges - {rest[0]}:
            alone.setdefault(edge, Counter())[rest[0]] += 1
    return MergedLegs(Counter(rest[0] for rest, _ in common), alone)
