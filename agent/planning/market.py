"""The usable pools as arcs of the continuous core, and which of them are worth their gas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
    """Solves, drops the pool whose removal costs less than its gas or that trades less than `least`, and repeats."""
    best = solve(wishes, arcs, start)
    dropped: dict[str, str] = {}
    needed: set[str] = set()
    while True:
        candidate = _weakest(market, best, needed, least)
        if candidate is None:
            return Choice(best, dropped)
        pool = candidate.arc.pool
        fewer = [arc for arc in arcs if arc.pool != pool]
        trial = solve(wishes, fewer, best.prices)
        is_dust = candidate.taken < least
        if is_dust or _net(market, trial, wishes) >= _net(market, best, wishes):
            dropped[pool] = "its part would be below limits.min_trade" if is_dust else "its gas exceeds what it brings"
            best, arcs = trial, fewer
        else:
            needed.add(pool)


def _gas(market: Market, flow: Flow) -> float:
    pool = market.problem.pools[flow.arc.pool]
    return leg_units(pool, max(0, flow.ranges - 1)) * market.gas_unit


def _net(market: Market, solution: Solution, wishes: Sequence[Wish]) -> float:
    """The objective less the gas of every pool used."""
    return solution.worth(wishes) - sum(_gas(market, flow) for flow in solution.flows)


def _weakest(market: Market, solution: Solution, needed: Iterable[str], least: float) -> Flow | None:
    """The flow that most deserves to be tried without; a surplus bounds from below what leaving a pool out would cost."""
    worth: Callable[[Flow], float] = lambda flow: flow.surplus - _gas(market, flow)  # noqa: E731  # a key function
    dust = [flow for flow in solution.flows if flow.taken < least]
    if dust:
        return min(dust, key=lambda flow: flow.taken)
    dear = [flow for flow in solution.flows if flow.arc.pool not in needed and worth(flow) < 0]
    return min(dear, key=worth, default=None)
