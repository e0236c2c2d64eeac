"""Search around the continuous solve for the pools worth their gas, because every leg costs gas at
any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from agent.planning.pool_curves import TINY
from agent.planning.problem import (
    EdgeFlow,
    IndexArray,
    PoolGraph,
    first_leg_cost,
    repeat_leg_cost,
)
from agent.planning.routes import MergedLegs, PoolSide
from agent.planning.solver.charges import FlowSolver
from agent.planning.solver.dual import PoolResponses, Solution

MANY = 24
"""Number of used pools above which those that are not worth their cost are dropped in one solve."""
TURNS = 3
"""Maximum number of dropped pools added again where many pools are in use."""
SEVERAL = 6
"""Number of pools that cost more than they save above which half of them are dropped at once."""
CHAINS = 4
"""Maximum number of pools tried to drop for the gas of the other legs of their chains."""
HOPES = 8
"""Maximum number of dropped pools to retry, most promising first."""
SURE = 1e-12
"""Smallest relative gain that is not float noise."""
DEAR = "gas costs more than it saves"
OVER_COST = "with its gas the plan would exceed limits.plan_cost"
DUST = "its part would be below limits.min_trade"
REST = "its share is below limits.min_trade without the pools that cost more gas than they save"
COARSE = "one base unit of"
COSTLY = (DEAR, OVER_COST, DUST, REST, COARSE)
"""Prefixes of the reasons for dropping a usable pool that costs more than it saves."""


@dataclass(frozen=True, slots=True)
class PoolSelection:
    """A solution over some rows of the market, its flows, and the dropped pools with their reasons.

    `legs` counts the legs through each edge; `gas` is the gas value of the first leg, in units of
    the scale, `again` of each further leg, `beside` of the legs through other edges that only
    chains through an edge need.
    """

    solution: Solution
    rows: IndexArray
    flows: tuple[EdgeFlow, ...]
    legs: Mapping[PoolSide, int] = field(default_factory=dict)
    gas: Mapping[PoolSide, float] = field(default_factory=dict)
    again: Mapping[PoolSide, float] = field(default_factory=dict)
    beside: Mapping[PoolSide, float] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)

    @property
    def net(self) -> float:
        """Utility less the gas of every leg."""
        return self.solution.bound - math.fsum(map(self._gas, self.gas))

    def surplus_after_gas(self, flow: EdgeFlow, shared: bool) -> float:
        """Return a flow's contribution after gas; with `shared`, after the gas of one leg, as if
        the others were free.
        """
        pool_edge = (flow.pool_edge.pool, flow.pool_edge.source)
        if pool_edge not in self.gas:
            return flow.surplus
        return flow.surplus - (self.gas[pool_edge] if shared else self._gas(pool_edge))

    def surplus_after_chains(self, flow: EdgeFlow) -> float:
        """Return a flow's contribution after gas, that of the other legs of its chains included."""
        beside = self.beside.get((flow.pool_edge.pool, flow.pool_edge.source), 0.0)
        return self.surplus_after_gas(flow, shared=False) - beside

    def _gas(self, pool_edge: PoolSide) -> float:
        return self.gas[pool_edge] + self.again[pool_edge] * (self.legs.get(pool_edge, 1) - 1)


LegCounter = Callable[[PoolSelection], MergedLegs]
"""Function that returns the legs through each edge."""


@dataclass(slots=True)
class PoolSelector:
    """Selects flows through pools that are worth their gas and trade at least `least`, in units of
    the scale.

    Solutions are cached by rows, since dropping pools in another order leaves the same rows.
    """

    market: PoolGraph
    solve_flows: FlowSolver
    least: float
    legs: LegCounter
    known: dict[bytes, PoolSelection] = field(default_factory=dict)

    def best(self, rows: IndexArray, near: Solution | None = None) -> PoolSelection:
        """Return the best flows found over these rows. Drop the pool whose removal costs less than
        its gas, and repeat. Then keep dropping the weakest pool while the contribution of the
        remaining pools, before gas, could still beat the best: two pools that are not worth their
        gas together may each be worth it alone. If legs share an edge, the weakest pool depends on
        whether its other legs would be dropped too; both ways are tried. Where swaps lose whole
        units, a third way first drops the pools that add legs to another, which would itself be
        dropped for them. Finally retry the dropped pools.
        """
        first = self._sought(rows, near)
        charged = self.market.after_gas
        if not charged.charges.any():
            return self._pruned(first, shared=False)
        if len(first.flows) > MANY:
            stack, numbers = charged.rows(np.array([], dtype=np.intp), rows)
            shared = self.solve_flows(stack, first.solution)
            best = self._pruned(self._sought(numbers[shared.taken > 0], shared), False)
        else:
            best = self._descended(first, shared=False)
            if any(count > 1 for count in first.legs.values()):
                best = _better(best, self._descended(first, shared=True))
                if any(edge.offer.lost for edge in self.market.pool_edges):
                    fewer = self._without_dear_chains(first)
                    best = _better(best, self._descended(fewer, shared=False))
        more: PoolSelection | None = best
        many, turns = len(first.flows) > MANY, 0
        while more is not None and not (many and turns == TURNS):
            best, more, turns = more, self._with_one_more(rows, more), turns + 1
        best = more or best
        return self._complete(rows, best) if many else best

    def pruned(self, rows: IndexArray, near: Solution | None = None) -> PoolSelection:
        """Return flows over previously selected rows; only drop pools that are no longer worth
        their gas.
        """
        return self._pruned(self._sought(rows, near), shared=False)

    def _descended(self, first: PoolSelection, shared: bool) -> PoolSelection:
        best = here = self._pruned(first, shared)
        while here.gas and here.solution.bound > best.net:
            weakest = min(here.flows, key=lambda flow: here.surplus_after_gas(flow, shared))
            here = self._pruned(self._without(here, {weakest.pool_edge.pool}, DEAR), shared)
            best = _better(best, here)
        return best

    def _pruned(self, best: PoolSelection, shared: bool) -> PoolSelection:
        """Drop pools while that improves the result; first, all at once, those beside a larger pool
        of the same pair, which costs little.
        """
        needed: set[str] = set()
        while True:
            dust = _dust(best.flows, self.least)
            dear = [
                flow
                for flow in best.flows
                if flow.pool_edge.pool not in needed and best.surplus_after_gas(flow, shared) < 0
            ]
            beside = {flow.pool_edge.pool for flow in dear if _larger_beside(flow, best.flows)}
            dear = sorted(dear, key=lambda flow: best.surplus_after_gas(flow, shared))
            half = {flow.pool_edge.pool for flow in dear[: len(dear) // 2]}
            weakest = dear[0] if dear else None
            reason = DEAR
            if dust:
                tries = [dust]
                reason = REST if DEAR in best.dropped.values() else DUST
            else:
                several = half if len(dear) > SEVERAL else set[str]()
                tries = [beside, several, {weakest.pool_edge.pool}] if weakest else []
            for pools in (tried for tried in tries if tried):
                trial = self._without(best, pools, reason)
                if dust or trial.net >= best.net:
                    best = trial
                    break
                if len(pools) == 1:
                    needed |= pools
            if not tries:
                better = self._without_chain(best, needed)
                if better is None:
                    return best
                best = better

    def _without_dear_chains(self, here: PoolSelection) -> PoolSelection:
        """Return a selection without the pools that are worth their own gas, but not that of the
        other legs of their chains.
        """
        needed = {
            flow.pool_edge.pool
            for flow in here.flows
            if here.surplus_after_gas(flow, shared=False) < 0
        }
        while (better := self._without_chain(here, needed)) is not None:
            here = better
        return here

    def _without_chain(self, best: PoolSelection, needed: set[str]) -> PoolSelection | None:
        """Return the best selection without a pool that is not worth the gas of its chains; None if
        none is better. `needed` gets the pools without which the selection is no better.
        """
        dear = [
            flow
            for flow in best.flows
            if flow.pool_edge.pool not in needed and best.surplus_after_chains(flow) < 0
        ]
        start = best
        for flow in sorted(dear, key=start.surplus_after_chains)[:CHAINS]:
            trial = self._without(start, {flow.pool_edge.pool}, DEAR)
            if trial.net <= start.net:
                needed.add(flow.pool_edge.pool)
            best = _better(best, trial)
        return None if best is start else best

    def _with_one_more(self, rows: IndexArray, best: PoolSelection) -> PoolSelection | None:
        """Return a better selection with one dropped pool added, and perhaps without others; None
        if there is none. Adding an edge gains at most its surplus at the current prices (weak
        duality), so only edges with a surplus above their gas are tried: first with all pools not
        dropped, then with only the pools in use, because pruning one pool at a time may keep
        several pools for the next leg of the new routes.
        """
        market, used = self.market, set(best.rows.tolist())
        away = np.array([row for row in rows.tolist() if row not in used], dtype=np.intp)
        answers = PoolResponses(market.real.rows(away), best.solution.prices - 1)
        found = zip(
            away.tolist(),
            answers.taken.tolist(),
            answers.paid.tolist(),
            answers.surplus.tolist(),
            strict=True,
        )
        flows = [EdgeFlow(market.pool_edges[row], *numbers) for row, *numbers in found]
        hopes = [
            flow
            for flow in flows
            if flow.taken >= max(self.least, TINY) and flow.surplus > first_leg_cost(market, flow)
        ]
        in_use = {flow.pool_edge.pool for flow in best.flows}
        least = best.net + SURE * abs(
            best.net
        )  # a net below zero too must rise, or this never ends
        for hope in sorted(hopes, key=lambda flow: -flow.surplus)[:HOPES]:
            pool = hope.pool_edge.pool
            fitting = np.array(
                [
                    row
                    for row in rows.tolist()
                    if row in used or market.pool_edges[row].pool == pool
                ],
                dtype=np.intp,
            )
            wider = self._sought(fitting, best.solution)
            more = self._pruned(wider, shared=False)
            if more.net <= least:
                more = self._pruned(self._beside(wider, in_use | {pool}), shared=False)
            if more.net > least:
                return replace(
                    more,
                    dropped={name: why for name, why in best.dropped.items() if name != pool}
                    | dict(more.dropped),
                )
        return None

    def _complete(self, rows: IndexArray, best: PoolSelection) -> PoolSelection:
        """Return a selection with all rows that take nothing at its prices, the others dropped."""
        used = set(best.rows.tolist())
        away = np.array([row for row in rows.tolist() if row not in used], dtype=np.intp)
        answers = PoolResponses(self.market.real.rows(away), best.solution.prices - 1)
        takes = {self.market.pool_edges[row].pool for row in away[answers.taken > 0].tolist()}
        kept = [row for row in rows.tolist() if self.market.pool_edges[row].pool not in takes]
        dropped = {pool: self._why(pool, DEAR) for pool in sorted(takes)} | dict(best.dropped)
        return replace(self._sought(np.array(kept, dtype=np.intp), best.solution), dropped=dropped)

    def _beside(self, choice: PoolSelection, kept: set[str]) -> PoolSelection:
        """Return the flows through the pools in `kept` only; pools that replace dropped ones are
        dropped too.
        """
        while others := {flow.pool_edge.pool for flow in choice.flows} - kept:
            choice = self._without(choice, others, DEAR)
        return choice

    def _without(self, choice: PoolSelection, pools: set[str], why: str) -> PoolSelection:
        """Return the flows without some pools."""
        fewer = choice.rows[[self.market.pool_edges[row].pool not in pools for row in choice.rows]]
        selection = self._sought(fewer, choice.solution)
        reasons = {pool: self._why(pool, why) for pool in sorted(pools)}
        return replace(selection, dropped={**choice.dropped, **reasons})

    def _why(self, pool: str, why: str) -> str:
        """Return why a pool is dropped: `why`, or a coarse token if it costs more than gas."""
        market = self.market
        edges = [edge for edge in market.pool_edges if edge.pool == pool]
        worst = max(edges, key=lambda edge: edge.offer.lost)
        if why != DEAR or worst.offer.lost <= repeat_leg_cost(market, worst) - worst.offer.lost:
            return why
        label = market.problem.nodes[worst.source].label
        return f"{COARSE} {label}, which each swap may lose, is worth more than it saves"

    def _sought(self, rows: IndexArray, near: Solution | None) -> PoolSelection:
        key = rows.tobytes()
        if key not in self.known:
            self.known[key] = self._solved(rows, near)
        return self.known[key]

    def _solved(self, rows: IndexArray, near: Solution | None) -> PoolSelection:
        market = self.market
        solution = self.solve_flows(market.real.rows(rows), near)
        flows = tuple(
            EdgeFlow(
                market.pool_edges[rows[k]],
                float(solution.taken[k]),
                float(solution.paid[k]),
                float(solution.surplus[k]),
            )
            for k in np.flatnonzero(solution.taken > 0).tolist()
        )
        choice = PoolSelection(solution, rows, flows)
        if not market.after_gas.charges.any():
            return choice
        gas = {
            (flow.pool_edge.pool, flow.pool_edge.source): first_leg_cost(market, flow)
            for flow in flows
        }
        again = {
            (flow.pool_edge.pool, flow.pool_edge.source): repeat_leg_cost(market, flow.pool_edge)
            for flow in flows
        }
        legs = self.legs(choice)
        beside = {
            pool_edge: math.fsum(count * again[other] for other, count in others.items())
            for pool_edge, others in legs.alone.items()
        }
        return replace(choice, gas=gas, again=again, beside=beside, legs=legs.counts)


def _better(one: PoolSelection, other: PoolSelection) -> PoolSelection:
    return other if other.net > one.net else one


def _dust(flows: Sequence[EdgeFlow], least: float) -> set[str]:
    """Return the pools to remove next because they trade less than `least`: those beside a larger
    one, else the smallest.

    The flow of a removed pool may lift the next above `least`, since a small trade that was split
    is still one trade.
    """
    small = [flow for flow in flows if flow.taken < least]
    beside = {flow.pool_edge.pool for flow in small if _larger_beside(flow, flows)}
    if small:
        return beside or {min(small, key=lambda flow: flow.taken).pool_edge.pool}
    return set()


def _larger_beside(flow: EdgeFlow, flows: Sequence[EdgeFlow]) -> bool:
    """True if another pool carries more between the same two tokens in the same direction."""
    pair = (flow.pool_edge.source, flow.pool_edge.target)
    return any(
        (other.pool_edge.source, other.pool_edge.target) == pair and other.taken > flow.taken
        for other in flows
    )
