"""The usable pools as arcs of the continuous core, and which of them are worth their gas."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from agent.planning.dual import Solution
from agent.planning.gas import leg_units
from agent.planning.problem import Problem
from agent.planning.responses import Offer, Stack, build_offer, build_stack

Positions = NDArray[np.intp]
FAR = 1.25
"""Value out per value in from which on a pool contradicts the reference so much that it is not traded: one of them is broken."""
Seek = Callable[[Stack, Solution | None], Solution]
"""Best flows over some of the arcs, from an earlier solution."""


@dataclass(frozen=True, slots=True)
class Arc:
    """One direction of one pool between two tokens, by their positions."""

    pool: str
    source: int
    target: int
    offer: Offer


@dataclass(frozen=True, slots=True)
class Flow:
    """What one arc trades at the dual prices; `surplus` bounds from below what the arc brings over doing without it."""

    arc: Arc
    taken: float
    paid: float
    surplus: float


@dataclass(frozen=True, slots=True)
class Market:
    """Both directions of every usable pool, in units of `scale` numeraire base units, and what one unit of gas is worth in them.

    `real` are the curves as they are, `counted` as they count where no unit is worth more than the reference; `gains` says that
    they differ. `poor` are directions (pool, source, target) whose first unit already pays less than the floor of a leg, or nothing;
    `far` are pools that pay too much to be believed.
    """

    problem: Problem
    scale: float
    arcs: tuple[Arc, ...]
    real: Stack
    counted: Stack
    gains: bool
    gas_unit: float
    poor: tuple[tuple[str, int, int], ...]
    far: tuple[str, ...]

    def rows(self, without: Iterable[str] = (), banned: Collection[tuple[str, int]] = ()) -> Positions:
        """Arcs of all pools but some, and without some directions (pool, source)."""
        left = set(without)
        kept = (number for number, arc in enumerate(self.arcs) if arc.pool not in left and (arc.pool, arc.source) not in banned)
        return np.array(list(kept), dtype=np.intp)


def open_market(problem: Problem, scale: float, dearest: Fraction | None = None) -> Market:
    """Builds the curves once. In no pool a unit is traded that costs more than `dearest` per unit of value."""
    arcs, poor, far = [], [], []
    for pool in problem.pools.values():
        least = problem.least_rate(pool) if dearest is None else max(problem.least_rate(pool), 1 - dearest)
        for token_in, token_out in ((pool.token0, pool.token1), (pool.token1, pool.token0)):
            prices, ends = (problem.price(token_in), problem.price(token_out)), (problem.position[token_in], problem.position[token_out])
            offer = build_offer(pool, token_in, *prices, scale, problem.impact_bps, least)
            if offer is None:
                poor.append((pool.address, *ends))
            elif offer.real.best_rate > FAR:
                far.append(pool.address)
            else:
                arcs.append(Arc(pool.address, *ends, offer))
    real = build_stack([(arc.source, arc.target, arc.offer.real) for arc in arcs])
    gains = any(arc.offer.counted is not arc.offer.real for arc in arcs)
    counted = build_stack([(arc.source, arc.target, arc.offer.counted) for arc in arcs]) if gains else real
    return Market(problem, scale, tuple(arcs), real, counted, gains, float(problem.gas_unit_value) / scale, tuple(poor), tuple(far))


@dataclass(frozen=True, slots=True)
class Choice:
    """A solution over some rows of the market, its flows, and the pools it does without, each with the reason."""

    solution: Solution
    rows: Positions
    flows: tuple[Flow, ...]
    dropped: Mapping[str, str] = field(default_factory=dict)


def choose(market: Market, rows: Positions, seek: Seek, least: float, near: Solution | None = None) -> Choice:
    """Solves over some rows, drops the pool whose removal costs less than its gas or that trades less than `least`, and repeats.

    Pools that stand beside a larger one of the same pair are tried together first: doing without them costs little.
    """
    best = _sought(market, rows, seek, near)
    dropped: dict[str, str] = {}
    needed: set[str] = set()
    while True:
        dust = _dust(best.flows, least)
        dear = [flow for flow in best.flows if flow.arc.pool not in needed and flow.surplus < _gas(market, flow)]
        beside = {flow.arc.pool for flow in dear if _larger_beside(flow, best.flows)}
        weakest = min(dear, key=lambda flow: flow.surplus - _gas(market, flow), default=None)
        tries = [dust] if dust else [beside, {weakest.arc.pool}] if weakest else []
        for pools in (tried for tried in tries if tried):
            fewer = best.rows[[market.arcs[row].pool not in pools for row in best.rows]]
            trial = _sought(market, fewer, seek, best.solution)
            if dust or _net(market, trial) >= _net(market, best):
                why = "its part would be below limits.min_trade" if dust else "its gas exceeds what it brings"
                dropped |= dict.fromkeys(sorted(pools), why)
                best = trial
                break
            if len(pools) == 1:
                needed |= pools
        if not tries:
            return Choice(best.solution, best.rows, best.flows, dropped)


def _sought(market: Market, rows: Positions, seek: Seek, near: Solution | None) -> Choice:
    found = seek(market.real.rows(rows), near)
    trading = np.flatnonzero(found.taken > 0)
    flows = tuple(
        Flow(market.arcs[rows[k]], float(found.taken[k]), float(found.paid[k]), float(found.surplus[k])) for k in trading.tolist()
    )
    return Choice(found, rows, flows)


def _dust(flows: Sequence[Flow], least: float) -> set[str]:
    """Pools to try without next because they trade less than `least`: those beside a larger one, else the smallest alone.

    What one of them gives up may lift the next above `least`: a small trade that was split is a trade all the same.
    """
    small = [flow for flow in flows if flow.taken < least]
    beside = {flow.arc.pool for flow in small if _larger_beside(flow, flows)}
    return beside or {min(small, key=lambda flow: flow.taken).arc.pool} if small else set()


def _larger_beside(flow: Flow, flows: Sequence[Flow]) -> bool:
    """True when another pool carries more between the same two tokens the same way."""
    pair = (flow.arc.source, flow.arc.target)
    return any((other.arc.source, other.arc.target) == pair and other.taken > flow.taken for other in flows)


def _gas(market: Market, flow: Flow) -> float:
    pool = market.problem.pools[flow.arc.pool]
    return leg_units(pool, flow.arc.offer.real.edges_passed(flow.taken), router=market.problem.gas.router) * market.gas_unit


def _net(market: Market, choice: Choice) -> float:
    """The worth less the gas of every pool used."""
    return choice.solution.bound - sum(_gas(market, flow) for flow in choice.flows)
