"""The usable pools as arcs of the continuous core, and which of them are worth their gas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from agent.planning.dual import Arc, Flow, Solution, Wish, solve
from agent.planning.gas import leg_units
from agent.planning.problem import Problem
from agent.planning.responses import build_curve


@dataclass(frozen=True, slots=True)
class Market:
    """Both directions of every usable pool, in units of `scale` numeraire base units, and what one unit of gas is worth in them."""

    problem: Problem
    scale: float
    arcs: tuple[Arc, ...]
    gas_unit: float


def open_market(problem: Problem, scale: float, no_gain: bool) -> Market:
    """Builds the curves once. `no_gain`: pools off the reference count as free, never as profit (see build_curve)."""
    arcs = []
    for pool in problem.pools.values():
        for token_in, token_out in ((pool.token0, pool.token1), (pool.token1, pool.token0)):
            curve = build_curve(pool, token_in, problem.price(token_in), problem.price(token_out), scale, problem.impact_bps, no_gain)
            if curve is not None:
                arcs.append(Arc(pool.address, problem.position[token_in], problem.position[token_out], curve))
    return Market(problem, scale, tuple(arcs), float(problem.gas_unit_value) / scale)


@dataclass(slots=True)
class Choice:
    """A solution, and the pools it does without, each with the reason."""

    solution: Solution
    dropped: dict[str, str] = field(default_factory=dict)


def choose(market: Market, arcs: Sequence[Arc], wishes: Sequence[Wish], least: float, start: Sequence[float] | None = None) -> Choice:
    """Solves, drops the pool whose removal costs less than its gas or that trades less than `least`, and repeats.

    Pools that stand beside a larger one of the same pair are tried together first: doing without them costs little.
    """
    best = solve(wishes, arcs, start)
    dropped: dict[str, str] = {}
    needed: set[str] = set()
    while True:
        dust = _dust(best.flows, least)
        dear = [flow for flow in best.flows if flow.arc.pool not in needed and flow.surplus < _gas(market, flow)]
        beside = {flow.arc.pool for flow in dear if _larger_beside(flow, best.flows)}
        weakest = min(dear, key=lambda flow: flow.surplus - _gas(market, flow), default=None)
        tries = [dust] if dust else [beside, {weakest.arc.pool}] if weakest else []
        for pools in (tried for tried in tries if tried):
            fewer = [arc for arc in arcs if arc.pool not in pools]
            trial = solve(wishes, fewer, best.prices)
            if dust or _net(market, trial, wishes) >= _net(market, best, wishes):
                why = "its part would be below limits.min_trade" if dust else "its gas exceeds what it brings"
                dropped |= dict.fromkeys(sorted(pools), why)
                best, arcs = trial, fewer
                break
            if len(pools) == 1:
                needed |= pools
        if not tries:
            return Choice(best, dropped)


def _dust(flows: Sequence[Flow], least: float) -> set[str]:
    """Pools to try without next because they trade less than `least`: those beside a larger one, else the smallest alone.

    What one of them gives up may lift the next above `least`: a small trade that was split is a trade all the same.
    """
    small = [flow for flow in flows if flow.taken < least]
    beside = {flow.arc.pool for flow in small if _larger_beside(flow, flows)}
    return beside or {min(small, key=lambda flow: flow.taken).arc.pool} if small else set()


def _larger_beside(flow: Flow, flows: Iterable[Flow]) -> bool:
    """True when another pool carries more between the same two tokens the same way."""
    pair = (flow.arc.source, flow.arc.target)
    return any((other.arc.source, other.arc.target) == pair and other.taken > flow.taken for other in flows)


def _gas(market: Market, flow: Flow) -> float:
    pool = market.problem.pools[flow.arc.pool]
    return leg_units(pool, max(0, flow.ranges - 1)) * market.gas_unit


def _net(market: Market, solution: Solution, wishes: Sequence[Wish]) -> float:
    """The objective less the gas of every pool used."""
    return solution.worth(wishes) - sum(_gas(market, flow) for flow in solution.flows)
