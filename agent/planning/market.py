"""The usable pools as arcs of the continuous core, with what one unit of gas is worth there."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from agent.planning.gas import again_units, leg_units
from agent.planning.problem import Problem
from agent.planning.responses import Offer, Stack, build_offer, build_stack

Positions = NDArray[np.intp]
FAR = 1.25
"""Value out per value in from which on a pool contradicts the reference so much that it is not traded: one of them is broken."""


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


def flow_gas(market: Market, flow: Flow) -> float:
    """Worth of the gas of one leg of such a flow, in units of the scale."""
    pool = market.problem.pools[flow.arc.pool]
    return leg_units(pool, flow.arc.offer.real.edges_passed(flow.taken), router=market.problem.gas.router) * market.gas_unit


def gas_again(market: Market, arc: Arc) -> float:
    """Worth of the gas of a further leg through an arc, in units of the scale: what the first one has touched is cheaper."""
    return again_units(market.problem.pools[arc.pool], market.problem.gas.router) * market.gas_unit
