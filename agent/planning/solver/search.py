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

MANY_POOLS = 24
"""Number of used pools above which those that are not worth their cost are dropped in one solve."""
MAX_READDED = 3
"""Maximum number of dropped pools added again where many pools are in use."""
MANY_DEAR = 6
"""Number of pools that cost more than they save above which half of them are dropped at once."""
MAX_CHAIN_TRIALS = 4
"""Maximum number of pools tried to drop for the gas of the other legs of their chains."""
MAX_RETRIED = 8
"""Maximum number of dropped pools to retry, most promising first."""
MIN_GAIN = 1e-12
"""Smallest relative gain that is not float noise."""
GAS_EXCEEDS_SAVING = "gas costs more than it saves"
OVER_COST = "with its gas the plan would exceed limits.plan_cost"
PART_TOO_SMALL = "its part would be below limits.min_trade"
REST_TOO_SMALL = (
    "its share is below limits.min_trade without the pools that cost more gas than they save"
)
COARSE_UNIT = "one base unit of"
COSTLY_REASONS = (GAS_EXCEEDS_SAVING, OVER_COST, PART_TOO_SMALL, REST_TOO_SMALL, COARSE_UNIT)
"""Prefixes of the reasons for dropping a usable pool that costs more than it saves."""


@dataclass(frozen=True, slots=True)
class PoolSelection:
    """A solution over some rows of the market, its flows, and the dropped pools with their reasons.

    `legs` counts the legs through each edge; `gas` is the gas value of the first leg, in units of
    the scale, `repeat_gas` of each further leg, `chain_gas` of the legs through other edges that
    only chains through an edge need.
    """

    solution: Solution
    rows: IndexArray
    flows: tuple[EdgeFlow, ...]
    legs: Mapping[PoolSide, int] = field(default_factory=dict)
    gas: Mapping[PoolSide, float] = field(default_factory=dict)
    repeat_gas: Mapping[PoolSide, float] = field(default_factory=dict)
    chain_gas: Mapping[PoolSide, float] = field(default_factory=dict)
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
        chain_gas = self.chain_gas.get((flow.pool_edge.pool, flow.pool_edge.source), 0.0)
        return self.surplus_after_gas(flow, shared=False) - chain_gas

    def _gas(self, pool_edge: PoolSide) -> float:
        return self.gas[pool_edge] + self.repeat_gas[pool_edge] * (self.legs.get(pool_edge, 1) - 1)


LegCounter = Callable[[PoolSelection], MergedLegs]
"""Function that returns the legs through each edge."""


@dataclass(slots=True)
class PoolSelector:
    """Selects flows through pools that are worth their gas and trade at least `min_trade`, in units
    of the scale.

    Solutions are cached by rows, since dropping pools in another order leaves the same rows.
    """

    market: PoolGraph
    solve_flows: FlowSolver
    min_trade: float
    legs_of: LegCounter
    selections: dict[bytes, PoolSelection] = field(default_factory=dict)

    def best(self, rows: IndexArray, near: Solution | None = None) -> PoolSelection:
        """Return the best flows found over these rows. Drop the pool whose removal costs less than
        its gas, and repeat. Then keep dropping the weakest pool while the contribution of the
        remaining pools, before gas, could still beat the best: two pools that are not worth their
        gas together may each be worth it alone. If legs share an edge, the weakest pool depends on
        whether its other legs would be dropped too; both ways are tried. Where swaps lose whole
        units, a third way first drops the pools that add legs to another, which would itself be
        dropped for them. Finally retry the dropped pools.
        """
        first = self._select(rows, near)
        charged = self.market.after_gas
        if not charged.charges.any():
            return self._prune(first, shared=False)
        if len(first.flows) > MANY_POOLS:
            stack, numbers = charged.rows(np.array([], dtype=np.intp), rows)
            after_charges = self.solve_flows(stack, first.solution)
            best = self._prune(self._select(numbers[after_charges.taken > 0], after_charges), False)
        else:
            best = self._drop_weakest(first, shared=False)
            if any(count > 1 for count in first.legs.values()):
                best = _better(best, self._drop_weakest(first, shared=True))
                if any(edge.offer.lost for edge in self.market.pool_edges):
                    fewer = self._without_dear_chains(first)
                    best = _better(best, self._drop_weakest(fewer, shared=False))
        improved: PoolSelection | None = best
        has_many, added = len(first.flows) > MANY_POOLS, 0
        while improved is not None and not (has_many and added == MAX_READDED):
            best, improved, added = improved, self._with_one_more(rows, improved), added + 1
        best = improved or best
        return self._with_idle_rows(rows, best) if has_many else best

    def pruned(self, rows: IndexArray, near: Solution | None = None) -> PoolSelection:
        """Return flows over previously selected rows; only drop pools that are no longer worth
        their gas.
        """
        return self._prune(self._select(rows, near), shared=False)

    def _drop_weakest(self, first: PoolSelection, shared: bool) -> PoolSelection:
        best = current = self._prune(first, shared)
        while current.gas and current.solution.bound > best.net:
            weakest = min(current.flows, key=lambda flow: current.surplus_after_gas(flow, shared))
            current = self._prune(
                self._without(current, {weakest.pool_edge.pool}, GAS_EXCEEDS_SAVING), shared
            )
            best = _better(best, current)
        return best

    def _prune(self, best: PoolSelection, shared: bool) -> PoolSelection:
        """Drop pools while that improves the result; first, all at once, those beside a larger pool
        of the same pair, which costs little.
        """
        needed: set[str] = set()
        while True:
            too_small = _pools_too_small(best.flows, self.min_trade)
            dear = [
                flow
                for flow in best.flows
                if flow.pool_edge.pool not in needed and best.surplus_after_gas(flow, shared) < 0
            ]
            beside_larger = {
                flow.pool_edge.pool for flow in dear if _larger_beside(flow, best.flows)
            }
            dear = sorted(dear, key=lambda flow: best.surplus_after_gas(flow, shared))
            weaker_half = {flow.pool_edge.pool for flow in dear[: len(dear) // 2]}
            weakest = dear[0] if dear else None
            reason = GAS_EXCEEDS_SAVING
            if too_small:
                candidates = [too_small]
                reason = (
                    REST_TOO_SMALL
                    if GAS_EXCEEDS_SAVING in best.dropped.values()
                    else PART_TOO_SMALL
                )
            else:
                several_dear = weaker_half if len(dear) > MANY_DEAR else set[str]()
                candidates = (
                    [beside_larger, several_dear, {weakest.pool_edge.pool}] if weakest else []
                )
            for pools in (pools for pools in candidates if pools):
                trial = self._without(best, pools, reason)
                if too_small or trial.net >= best.net:
                    best = trial
                    break
                if len(pools) == 1:
                    needed |= pools
            if not candidates:
                better = self._without_chain(best, needed)
                if better is None:
                    return best
                best = better

    def _without_dear_chains(self, current: PoolSelection) -> PoolSelection:
        """Return a selection without the pools that are worth their own gas, but not that of the
        other legs of their chains.
        """
        needed = {
            flow.pool_edge.pool
            for flow in current.flows
            if current.surplus_after_gas(flow, shared=False) < 0
        }
        while (better := self._without_chain(current, needed)) is not None:
            current = better
        return current

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
        for flow in sorted(dear, key=start.surplus_after_chains)[:MAX_CHAIN_TRIALS]:
            trial = self._without(start, {flow.pool_edge.pool}, GAS_EXCEEDS_SAVING)
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
        unused_rows = np.array([row for row in rows.tolist() if row not in used], dtype=np.intp)
        responses = PoolResponses(market.real.rows(unused_rows), best.solution.prices - 1)
        amounts_by_row = zip(
            unused_rows.tolist(),
            responses.taken.tolist(),
            responses.paid.tolist(),
            responses.surplus.tolist(),
            strict=True,
        )
        flows = [EdgeFlow(market.pool_edges[row], *numbers) for row, *numbers in amounts_by_row]
        candidates = [
            flow
            for flow in flows
            if flow.taken >= max(self.min_trade, TINY)
            and flow.surplus > first_leg_cost(market, flow)
        ]
        in_use = {flow.pool_edge.pool for flow in best.flows}
        min_net = best.net + MIN_GAIN * abs(
            best.net
        )  # a net below zero too must rise, or this never ends
        for candidate in sorted(candidates, key=lambda flow: -flow.surplus)[:MAX_RETRIED]:
            pool = candidate.pool_edge.pool
            rows_with_pool = np.array(
                [
                    row
                    for row in rows.tolist()
                    if row in used or market.pool_edges[row].pool == pool
                ],
                dtype=np.intp,
            )
            wider = self._select(rows_with_pool, best.solution)
            improved = self._prune(wider, shared=False)
            if improved.net <= min_net:
                improved = self._prune(self._only_pools(wider, in_use | {pool}), shared=False)
            if improved.net > min_net:
                return replace(
                    improved,
                    dropped={name: why for name, why in best.dropped.items() if name != pool}
                    | dict(improved.dropped),
                )
        return None

    def _with_idle_rows(self, rows: IndexArray, best: PoolSelection) -> PoolSelection:
        """Return a selection with all rows that take nothing at its prices, the others dropped."""
        used = set(best.rows.tolist())
        unused_rows = np.array([row for row in rows.tolist() if row not in used], dtype=np.intp)
        responses = PoolResponses(self.market.real.rows(unused_rows), best.solution.prices - 1)
        active_pools = {
            self.market.pool_edges[row].pool for row in unused_rows[responses.taken > 0].tolist()
        }
        idle_rows = [
            row for row in rows.tolist() if self.market.pool_edges[row].pool not in active_pools
        ]
        dropped = {
            pool: self._drop_reason(pool, GAS_EXCEEDS_SAVING) for pool in sorted(active_pools)
        } | dict(best.dropped)
        return replace(
            self._select(np.array(idle_rows, dtype=np.intp), best.solution), dropped=dropped
        )

    def _only_pools(self, choice: PoolSelection, allowed: set[str]) -> PoolSelection:
        """Return the flows through the pools in `allowed` only; pools that replace dropped ones are
        dropped too.
        """
        while others := {flow.pool_edge.pool for flow in choice.flows} - allowed:
            choice = self._without(choice, others, GAS_EXCEEDS_SAVING)
        return choice

    def _without(self, choice: PoolSelection, pools: set[str], why: str) -> PoolSelection:
        """Return the flows without some pools."""
        fewer = choice.rows[[self.market.pool_edges[row].pool not in pools for row in choice.rows]]
        selection = self._select(fewer, choice.solution)
        reasons = {pool: self._drop_reason(pool, why) for pool in sorted(pools)}
        return replace(selection, dropped={**choice.dropped, **reasons})

    def _drop_reason(self, pool: str, why: str) -> str:
        """Return why a pool is dropped: `why`, or a coarse token if it costs more than gas."""
        market = self.market
        edges = [edge for edge in market.pool_edges if edge.pool == pool]
        coarsest = max(edges, key=lambda edge: edge.offer.lost)
        if (
            why != GAS_EXCEEDS_SAVING
            or coarsest.offer.lost <= repeat_leg_cost(market, coarsest) - coarsest.offer.lost
        ):
            return why
        label = market.problem.nodes[coarsest.source].label
        return f"{COARSE_UNIT} {label}, which each swap may lose, is worth more than it saves"

    def _select(self, rows: IndexArray, near: Solution | None) -> PoolSelection:
        key = rows.tobytes()
        if key not in self.selections:
            self.selections[key] = self._solve(rows, near)
        return self.selections[key]

    def _solve(self, rows: IndexArray, near: Solution | None) -> PoolSelection:
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
        repeat_gas = {
            (flow.pool_edge.pool, flow.pool_edge.source): repeat_leg_cost(market, flow.pool_edge)
            for flow in flows
        }
        legs = self.legs_of(choice)
        chain_gas = {
            pool_edge: math.fsum(count * repeat_gas[other] for other, count in others.items())
            for pool_edge, others in legs.alone.items()
        }
        return replace(
            choice, gas=gas, repeat_gas=repeat_gas, chain_gas=chain_gas, legs=legs.counts
        )


def _better(first: PoolSelection, second: PoolSelection) -> PoolSelection:
    return second if second.net > first.net else first


def _pools_too_small(flows: Sequence[EdgeFlow], min_trade: float) -> set[str]:
    """Return the pools to remove next because they trade less than `min_trade`: those beside a
    larger one, else the smallest.

    The flow of a removed pool may lift the next above `min_trade`, since a small trade that was
    split is still one trade.
    """
    below_least = [flow for flow in flows if flow.taken < min_trade]
    beside_larger = {flow.pool_edge.pool for flow in below_least if _larger_beside(flow, flows)}
    if below_least:
        return beside_larger or {min(below_least, key=lambda flow: flow.taken).pool_edge.pool}
    return set()


def _larger_beside(flow: EdgeFlow, flows: Sequence[EdgeFlow]) -> bool:
    """True if another pool carries more between the same two tokens in the same direction."""
    pair = (flow.pool_edge.source, flow.pool_edge.target)
    return any(
        (other.pool_edge.source, other.pool_edge.target) == pair and other.taken > flow.taken
        for other in flows
    )
