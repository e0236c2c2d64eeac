"""The best flows between tokens that do not run in a circle: branch and bound over which exchange to do without.

Solved without further ado, flows take every arbitrage that pools off each other offer. Of any circle they hold at least one pair of
tokens has to be left out, whichever way a plan goes: each choice is a problem of its own, bounded by its dual, and what is bounded
below the best plan known is done with (Land, Doig, "An automatic method of solving discrete programming problems", 1960).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from agent.planning.dual import Solution
from agent.planning.responses import Stack
from agent.planning.worth import UNMOVED, Search

NODES = 20
"""Most problems solved before other ways are tried; one to nine are usual."""
ENOUGH = 1e-7
"""Worth per unit of scale below which one plan counts as good as another."""

Edge = tuple[int, int]
"""Token in, token out."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Pairs of tokens between which the best acyclic flows known run. `proven`: no other acyclic flows are worth more.

    `cut` are those of the flows with circles, cut where they carry least: another way to begin.
    """

    edges: frozenset[Edge]
    cut: frozenset[Edge]
    proven: bool


@dataclass(frozen=True, slots=True)
class _Node:
    """Flows found without some exchanges. What `bound` says no flows that leave these out exceed."""

    without: frozenset[Edge]
    solution: Solution
    edges: Mapping[Edge, float]

    @property
    def bound(self) -> float:
        return self.solution.bound


def break_circles(stack: Stack, search: Search) -> Broken:
    """The best flows over a stack that do not run in a circle, as far as NODES problems find them."""
    pairs = list(zip(stack.source.tolist(), stack.target.tolist(), strict=True))

    best: _Node | None = None

    def node(without: frozenset[Edge], near: Solution | None) -> _Node:
        rows = np.array([row for row, pair in enumerate(pairs) if pair not in without], dtype=np.intp)
        part = stack.rows(rows)
        found = search.solve(part, near, -np.inf if best is None else best.bound + ENOUGH)
        return _Node(without, found, edges_of(part, found))

    begin = node(frozenset(), None)
    queue = [(-begin.bound, 0, begin)]
    solved = 1
    while queue and solved < NODES:
        # Until some flows without a circle are known, on from the last; then always the most promising ones.
        _, _, here = queue.pop() if best is None else heapq.heappop(queue)
        if best is not None and here.bound <= best.bound + ENOUGH:
            queue = []
            break
        circle = shortest_circle(here.edges)
        if not circle:
            best = here
            heapq.heapify(queue)
            continue
        after = []
        for pair in circle:
            child = node(here.without | {pair}, here.solution)
            solved += 1
            if best is None or child.bound > best.bound + ENOUGH:
                after.append((-child.bound, solved, child))
        queue += sorted(after, reverse=True)
        if best is not None:
            heapq.heapify(queue)
    cut = frozenset(_cut_open(begin.edges))
    if best is None:
        return Broken(cut, cut, proven=False)
    return Broken(frozenset(best.edges), cut, proven=not queue or -min(queue)[0] <= best.bound + ENOUGH)


def edges_of(stack: Stack, found: Solution) -> dict[Edge, float]:
    """What flows between pairs of tokens."""
    sums: dict[Edge, float] = {}
    for source, target, taken in zip(stack.source.tolist(), stack.target.tolist(), found.taken.tolist(), strict=True):
        if taken > UNMOVED:
            sums[source, target] = sums.get((source, target), 0.0) + taken
    return sums


def shortest_circle(edges: Mapping[Edge, float]) -> list[Edge]:
    """The circle of fewest exchanges, of these the one whose narrowest part carries most; none where nothing runs in a circle."""
    found = [circle for edge in edges if (circle := _back(edges, edge))]
    return min(found, key=lambda circle: (len(circle), -min(edges[edge] for edge in circle)), default=[])


def _back(edges: Iterable[Edge], first: Edge) -> list[Edge]:
    """The shortest circle that begins with an edge."""
    start, token = first
    came: dict[int, int] = {token: start}
    ring = [token]
    while ring and start not in came:
        ring = [b for a in ring for source, b in edges if source == a and b not in came and came.setdefault(b, a) == a]
    if start not in came:
        return []
    circle, here = [], start
    while here != token:
        circle.append((came[here], here))
        here = came[here]
    return [first, *reversed(circle)]


def _cut_open(edges: Mapping[Edge, float]) -> dict[Edge, float]:
    """Flows less all that runs in circles: each circle loses what its narrowest part carries."""
    left = dict(edges)
    while circle := shortest_circle(left):
        least = min(left[edge] for edge in circle)
        left = {edge: carried - (least if edge in circle else 0.0) for edge, carried in left.items()}
        left = {edge: carried for edge, carried in left.items() if carried > 0}
    return left
