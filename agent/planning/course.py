"""Which way value may run through the tokens, so that pools off the reference are used for what they pay and nothing runs in a circle.

A pool that pays more than the reference is welcome on a way that has to be gone anyhow, and no reason to go one (T9). So first
the flows are found for which nothing counts as worth more than the reference; no cycle can pay then, and no token is moved past
its goal. With every token kept between where it is and where those flows or its goal take it, the pools' real prices then decide
which way is best, circles left out (agent/planning/circles.py). The flows found put the tokens in an order, along which the plan
runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent.floats import Numbers
from agent.planning.circles import Edge, break_circles, edges_of
from agent.planning.dual import Answers
from agent.planning.market import Market, Positions
from agent.planning.responses import Stack
from agent.planning.worth import Search

ALIKE = 1e-5
"""Prices that differ less put tokens in no order: their sides do, and how many pools trade them."""
TRIES = 16
"""Most changes of the order."""
PAIRS = 12
"""Pairs of tokens that are tried the other way round for each."""
WORTH_A_TRY = 1e-7
"""Least surplus, per unit of scale, for which a change of the order is tried or kept."""


@dataclass(frozen=True, slots=True)
class Course:
    """Tokens by rank: swaps run from lower to higher ones. Bounds on where each token may end, as in Search."""

    rank: NDArray[np.intp]
    least: Numbers
    most: Numbers
    ways: Numbers
    firm: bool

    @property
    def order(self) -> list[int]:
        """Tokens from first to last."""
        return [int(token) for token in np.argsort(self.rank, kind="stable")]

    def rows(self, stack: Stack, rows: Positions) -> Positions:
        """Those rows that run along the course."""
        return rows[self.rank[stack.source[rows]] < self.rank[stack.target[rows]]]

    def search(self, search: Search) -> Search:
        """The same search within the course's bounds."""
        least, most = np.maximum(search.least, self.least), np.minimum(search.most, self.most)
        return replace(search, least=least, most=most, ways=self.ways, firm=self.firm)


def chart(market: Market, rows: Positions, search: Search) -> Course:
    """The best course found for a search over some rows of the market."""
    counted, real = market.counted.rows(rows), market.real.rows(rows)
    first = search.solve(counted)
    course = _bounded(search, search.ends(counted, first))
    size, trades = len(first.prices), np.bincount(real.source, minlength=len(first.prices))
    side = search.side(np.arange(size))
    keys = [(round(float(first.prices[i]) / ALIKE), float(side[i]), float(side[i] * trades[i]), i) for i in range(size)]
    within = course.search(search)
    found = break_circles(real, within)
    if found.proven:
        return replace(course, rank=_ranks(size, found.edges, keys))
    starts = dict.fromkeys((frozenset(edges_of(counted, first)), found.edges, found.cut))
    tried = [_improved(market, rows, within, replace(course, rank=_ranks(size, edges, keys))) for edges in starts]
    return max(tried, key=lambda pair: pair[1])[0]


def _ranks(size: int, edges: Iterable[Edge], keys: Sequence[tuple[float, ...]]) -> NDArray[np.intp]:
    """Ranks in which every edge runs forward, by `keys` where edges leave a choice (Kahn's algorithm)."""
    left, rank = set(range(size)), np.zeros(size, dtype=np.intp)
    edges = list(edges)
    for number in range(size):
        open_now = left - {target for source, target in edges if source in left}
        token = min(open_now or left, key=lambda i: keys[i])
        rank[token] = number
        left.remove(token)
    return rank


def _bounded(search: Search, ends: Numbers) -> Course:
    """Point goals are not passed; tokens of other goals go no further than the first flows took them, but one that may be all there is."""
    worth, held = search.worth, search.held
    rank = np.arange(len(held), dtype=np.intp)
    if worth.risk is None and bool((worth.low == worth.high).all()):
        ways = np.where(search.side(rank) > 0, 1.0, -1.0)
        return Course(rank, np.where(ways > 0, held, -np.inf), np.where(ways < 0, held, np.inf), ways, firm=True)
    most = np.where((ends > held) & (worth.high >= 1), np.inf, np.maximum(held, ends))
    return Course(rank, np.minimum(held, ends), most, np.where(ends > held, 1.0, -1.0), firm=False)


def _improved(market: Market, rows: Positions, within: Search, course: Course) -> tuple[Course, float]:
    """Puts a token elsewhere in the order where an arc against it would bring something, as long as that pays; and the worth."""
    stack = market.real.rows(course.rows(market.real, rows))
    best = within.solve(stack)
    for _ in range(TRIES):
        against = market.real.rows(rows[course.rank[market.real.source[rows]] > course.rank[market.real.target[rows]]])
        surplus = Answers(against, best.prices - 1).surplus
        pairs = {
            (int(against.source[k]), int(against.target[k])): None for k in np.argsort(-surplus, kind="stable") if surplus[k] > WORTH_A_TRY
        }
        for source, target in list(pairs)[:PAIRS]:
            trials = []
            for rank in (_moved(course.rank, source, target, -0.5), _moved(course.rank, target, source, 0.5)):
                turned = replace(course, rank=rank)
                wider = market.real.rows(turned.rows(market.real, rows))
                trials.append((within.solve(wider, best, best.bound + WORTH_A_TRY), turned, wider))
            trial, turned, wider = max(trials, key=lambda found: found[0].bound)
            if trial.bound > best.bound + WORTH_A_TRY:
                best, course, stack = trial, turned, wider
                break
        else:
            break
    return course, best.bound


def _moved(rank: NDArray[np.intp], token: int, beside: int, step: float) -> NDArray[np.intp]:
    """Ranks with a token put just before or after another."""
    keys = rank.astype(np.float64)
    keys[token] = keys[beside] + step
    return np.asarray(np.argsort(np.argsort(keys, kind="stable"), kind="stable"), dtype=np.intp)
