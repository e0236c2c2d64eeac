"""Search around the continuous solve for the pools worth their gas, because every leg costs gas at
any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from agent.floats import IndexArray
from agent.planning.pool_curves import MIN_DIVISOR
from agent.planning.problem import (
    EdgeFlow,
    PoolGraph,
    first_leg_cost,
    repeat_leg_cost,
)
from agent.planning.routes import MergedLegs, PoolSide
from agent.planning.solver.charges import FlowSolver
from agent.planning.solver.drop_reasons import COARSE_UNIT_PHRASE, DropCause, DropReason
from agent.planning.solver.dual import DualSolution, PoolResponses

MANY_POOLS = 6
"""Number of used pools above which those that are not worth their cost are dropped in one solve."""
MAX_QUICK_GAP = 1e-4
"""Gap per unit traded, to the bound with charges, above which the quick search is not enough."""
MAX_READDED_POOLS = 3
"""Maximum number of dropped pools added again where many pools are in use."""
MANY_COSTLY_POOLS = 6
"""Number of pools that cost more than they save above which half of them are dropped at once."""
MAX_CHAIN_TRIALS = 4
"""Maximum number of pools tried to drop for the gas of the other legs of their chains."""
MAX_RETRIED_POOLS = 8
"""Maximum number of dropped pools to retry, most promising first."""
MIN_GAIN = 1e-12
"""Smallest relative gain that is not float noise."""


@dataclass(frozen=True, slots=True)
class PoolSelection:
    """A solution over some rows of the graph, its flows, and the dropped pools with their reasons.

    `leg_counts` counts the legs through each edge; `first_leg_gas` is the gas value of the first
    leg, in units of the scale, `repeat_leg_gas` of each further leg, `chain_gas` of the legs
    through other edges that only chains through an edge need.
    """

    solution: DualSolution
    rows: IndexArray
    flows: tuple[EdgeFlow, ...]
    leg_counts: Mapping[PoolSide, int] = field(default_factory=dict)
    first_leg_gas: Mapping[PoolSide, float] = field(default_factory=dict)
    repeat_leg_gas: Mapping[PoolSide, float] = field(default_factory=dict)
    chain_gas: Mapping[PoolSide, float] = field(default_factory=dict)
    dropped_pools: Mapping[str, DropReason] = field(default_factory=dict)

    @property
    def net_utility(self) -> float:
        """Utility less the gas of every leg."""
        return self.solution.bound - math.fsum(map(self._total_gas, self.first_leg_gas))

    def surplus_after_gas(self, flow: EdgeFlow, charges_one_leg: bool) -> float:
        """Return a flow's contribution after gas; with `charges_one_leg`, after the gas of one leg,
        as if the others were free.
        """
        pool_side = (flow.pool_edge.pool_address, flow.pool_edge.token_in_index)
        if pool_side not in self.first_leg_gas:
            return flow.surplus
        return flow.surplus - (
            self.first_leg_gas[pool_side] if charges_one_leg else self._total_gas(pool_side)
        )

    def surplus_after_chains(self, flow: EdgeFlow) -> float:
        """Return a flow's contribution after gas, that of the other legs of its chains included."""
        chain_gas = self.chain_gas.get(
            (flow.pool_edge.pool_address, flow.pool_edge.token_in_index), 0.0
        )
        return self.surplus_after_gas(flow, charges_one_leg=False) - chain_gas

    def _total_gas(self, pool_side: PoolSide) -> float:
        return self.first_leg_gas[pool_side] + self.repeat_leg_gas[pool_side] * (
            self.leg_counts.get(pool_side, 1) - 1
        )


LegCounter = Callable[[PoolSelection], MergedLegs]
"""Function that returns the legs through each edge."""


@dataclass(slots=True)
class PoolSelector:
    """Selects flows through pools that are worth their gas and trade at least `min_trade`, in units
    of the scale.

    Solutions are cached by rows, since dropping pools in another order leaves the same rows.
    """

    graph: PoolGraph
    solve_flows: FlowSolver
    min_trade: float
    merged_legs_of: LegCounter
    selections: dict[bytes, PoolSelection] = field(default_factory=dict)

    def best_selection(
        self, curve_rows: IndexArray, earlier_solution: DualSolution | None = None
    ) -> PoolSelection:
        """Return the best flows found over these rows.

        With few pools they are dropped one after another. With many, first those that a solve with
        charges does not use, all at once; one after another only where the result stays more than
        MAX_QUICK_GAP below the bound of that solve. Finally retry the dropped pools.
        """
        full_selection = self._select(curve_rows, earlier_solution)
        charged_curves = self.graph.real_after_charges
        if not charged_curves.charges.any():
            return self._prune(full_selection, charges_one_leg=False)
        if len(full_selection.flows) <= MANY_POOLS:
            return self._with_more_pools(curve_rows, self._best_after_drops(full_selection))
        charged_curve_stack, charged_rows = charged_curves.rows(
            np.array([], dtype=np.intp), curve_rows
        )
        charged_solution = self.solve_flows(charged_curve_stack, full_selection.solution)
        quick_selection = self._prune(
            self._select(charged_rows[charged_solution.amount_in > 0], charged_solution), False
        )
        best_found = self._with_more_pools(curve_rows, quick_selection, MAX_READDED_POOLS)
        traded = math.fsum(flow.amount_in for flow in best_found.flows)
        if charged_solution.bound - best_found.net_utility > MAX_QUICK_GAP * traded:
            best_found = _better_selection(
                best_found,
                self._with_more_pools(curve_rows, self._best_after_drops(full_selection)),
            )
        return self._with_idle_rows(curve_rows, best_found)

    def _best_after_drops(self, full_selection: PoolSelection) -> PoolSelection:
        """Drop the pool whose removal costs less than its gas, and repeat. Then keep dropping the
        weakest pool while the contribution of the remaining pools, before gas, could still beat the
        best: two pools that are not worth their gas together may each be worth it alone. If legs
        share an edge, the weakest pool depends on whether its other legs would be dropped too; both
        ways are tried. Where swaps lose whole units, a third way first drops the pools that add
        legs to another, which would itself be dropped for them.
        """
        best_found = self._drop_weakest(full_selection, charges_one_leg=False)
        if any(count > 1 for count in full_selection.leg_counts.values()):
            best_found = _better_selection(
                best_found, self._drop_weakest(full_selection, charges_one_leg=True)
            )
            if any(edge.curves.rounding_loss for edge in self.graph.pool_edges):
                reduced_selection = self._without_costly_chains(full_selection)
                best_found = _better_selection(
                    best_found, self._drop_weakest(reduced_selection, charges_one_leg=False)
                )
        return best_found

    def _with_more_pools(
        self, curve_rows: IndexArray, selection: PoolSelection, max_added: int | None = None
    ) -> PoolSelection:
        """Return the selection with dropped pools added again, one by one while that improves it."""
        added_count = 0
        while added_count != max_added:
            improved_selection = self._with_one_more(curve_rows, selection)
            if improved_selection is None:
                break
            selection = improved_selection
            added_count += 1
        return selection

    def pruned_selection(
        self, curve_rows: IndexArray, earlier_solution: DualSolution | None = None
    ) -> PoolSelection:
        """Return flows over previously selected rows; only drop pools that are no longer worth
        their gas.
        """
        return self._prune(self._select(curve_rows, earlier_solution), charges_one_leg=False)

    def _drop_weakest(self, full_selection: PoolSelection, charges_one_leg: bool) -> PoolSelection:
        best_selection = current_selection = self._prune(full_selection, charges_one_leg)
        while (
            current_selection.first_leg_gas
            and current_selection.solution.bound > best_selection.net_utility
        ):
            weakest_flow = min(
                current_selection.flows,
                key=lambda flow: current_selection.surplus_after_gas(flow, charges_one_leg),
            )
            current_selection = self._prune(
                self._without(
                    current_selection, {weakest_flow.pool_edge.pool_address}, DropCause.GAS
                ),
                charges_one_leg,
            )
            best_selection = _better_selection(best_selection, current_selection)
        return best_selection

    def _prune(self, selection: PoolSelection, charges_one_leg: bool) -> PoolSelection:
        """Drop pools while that improves the result: those whose part is too small, then those that
        cost more than they save, last those that are not worth the gas of their chains.
        """
        kept_pools: set[str] = set()
        while True:
            if small_pools := _pools_too_small(selection.flows, self.min_trade):
                selection = self._without_small_pools(selection, small_pools)
            elif costly_flows := _costly_flows(selection, kept_pools, charges_one_leg):
                selection = self._without_costly_pool(selection, costly_flows, kept_pools)
            else:
                improved_selection = self._without_pool_of_costly_chain(selection, kept_pools)
                if improved_selection is None:
                    return selection
                selection = improved_selection

    def _without_small_pools(
        self, selection: PoolSelection, small_pools: set[str]
    ) -> PoolSelection:
        has_dropped_for_gas = any(
            reason.cause is DropCause.GAS for reason in selection.dropped_pools.values()
        )
        cause = DropCause.REST_TOO_SMALL if has_dropped_for_gas else DropCause.PART_TOO_SMALL
        return self._without(selection, small_pools, cause)

    def _without_costly_pool(
        self, selection: PoolSelection, costly_flows: Sequence[EdgeFlow], kept_pools: set[str]
    ) -> PoolSelection:
        """Return the selection, no worse, without the pools beside a larger one of the same pair,
        else without the costliest half if there are many, else without the costliest; itself if
        each of these is worse. `kept_pools` gets the single pools without which it is worse.
        """
        pools_beside_larger = {
            flow.pool_edge.pool_address
            for flow in costly_flows
            if _has_larger_beside(flow, selection.flows)
        }
        half_count = len(costly_flows) // 2 if len(costly_flows) > MANY_COSTLY_POOLS else 0
        costliest_half = {flow.pool_edge.pool_address for flow in costly_flows[:half_count]}
        for pools in (
            pools_beside_larger,
            costliest_half,
            {costly_flows[0].pool_edge.pool_address},
        ):
            if not pools:
                continue
            trial_selection = self._without(selection, pools, DropCause.GAS)
            if trial_selection.net_utility >= selection.net_utility:
                return trial_selection
            if len(pools) == 1:
                kept_pools |= pools
        return selection

    def _without_costly_chains(self, current_selection: PoolSelection) -> PoolSelection:
        """Return a selection without the pools that are worth their own gas, but not that of the
        other legs of their chains.
        """
        kept_pools = {
            flow.pool_edge.pool_address
            for flow in current_selection.flows
            if current_selection.surplus_after_gas(flow, charges_one_leg=False) < 0
        }
        while (
            improved_selection := self._without_pool_of_costly_chain(current_selection, kept_pools)
        ) is not None:
            current_selection = improved_selection
        return current_selection

    def _without_pool_of_costly_chain(
        self, best_selection: PoolSelection, kept_pools: set[str]
    ) -> PoolSelection | None:
        """Return the best selection without a pool that is not worth the gas of its chains; None if
        none is better. `kept_pools` gets the pools without which the selection is no better.
        """
        costly_flows = [
            flow
            for flow in best_selection.flows
            if flow.pool_edge.pool_address not in kept_pools
            and best_selection.surplus_after_chains(flow) < 0
        ]
        start_selection = best_selection
        for flow in sorted(costly_flows, key=start_selection.surplus_after_chains)[
            :MAX_CHAIN_TRIALS
        ]:
            trial_selection = self._without(
                start_selection, {flow.pool_edge.pool_address}, DropCause.GAS
            )
            if trial_selection.net_utility <= start_selection.net_utility:
                kept_pools.add(flow.pool_edge.pool_address)
            best_selection = _better_selection(best_selection, trial_selection)
        return None if best_selection is start_selection else best_selection

    def _with_one_more(
        self, curve_rows: IndexArray, best_selection: PoolSelection
    ) -> PoolSelection | None:
        """Return a better selection with one dropped pool added, and perhaps without others; None
        if there is none. Adding an edge gains at most its surplus at the current prices (weak
        duality), so only edges with a surplus above their gas are tried: first with all pools not
        dropped, then with only the pools in use, because pruning one pool at a time may keep
        several pools for the next leg of the new routes.
        """
        graph = self.graph
        kept_rows = set(best_selection.rows.tolist())
        dropped_rows = np.array(
            [row for row in curve_rows.tolist() if row not in kept_rows], dtype=np.intp
        )
        responses = PoolResponses(
            graph.real_curves.rows(dropped_rows), best_selection.solution.prices - 1
        )
        amounts_by_row = zip(
            dropped_rows.tolist(),
            responses.amount_in.tolist(),
            responses.amount_out.tolist(),
            responses.surplus.tolist(),
            strict=True,
        )
        flows = [EdgeFlow(graph.pool_edges[row], *amounts) for row, *amounts in amounts_by_row]
        candidate_flows = [
            flow
            for flow in flows
            if flow.amount_in >= max(self.min_trade, MIN_DIVISOR)
            and flow.surplus > first_leg_cost(graph, flow)
        ]
        used_pools = {flow.pool_edge.pool_address for flow in best_selection.flows}
        min_net_utility = best_selection.net_utility + MIN_GAIN * abs(
            best_selection.net_utility
        )  # a net below zero too must rise, or this never ends
        for candidate_flow in sorted(candidate_flows, key=lambda flow: -flow.surplus)[
            :MAX_RETRIED_POOLS
        ]:
            candidate_pool = candidate_flow.pool_edge.pool_address
            rows_with_pool = np.array(
                [
                    row
                    for row in curve_rows.tolist()
                    if row in kept_rows or graph.pool_edges[row].pool_address == candidate_pool
                ],
                dtype=np.intp,
            )
            wider_selection = self._select(rows_with_pool, best_selection.solution)
            improved_selection = self._prune(wider_selection, charges_one_leg=False)
            if improved_selection.net_utility <= min_net_utility:
                improved_selection = self._prune(
                    self._only_pools(wider_selection, used_pools | {candidate_pool}),
                    charges_one_leg=False,
                )
            if improved_selection.net_utility > min_net_utility:
                return replace(
                    improved_selection,
                    dropped_pools={
                        dropped_pool: why
                        for dropped_pool, why in best_selection.dropped_pools.items()
                        if dropped_pool != candidate_pool
                    }
                    | dict(improved_selection.dropped_pools),
                )
        return None

    def _with_idle_rows(
        self, curve_rows: IndexArray, best_selection: PoolSelection
    ) -> PoolSelection:
        """Return a selection with all rows that take nothing at its prices, the others dropped."""
        selected_rows = set(best_selection.rows.tolist())
        dropped_rows = np.array(
            [row for row in curve_rows.tolist() if row not in selected_rows], dtype=np.intp
        )
        responses = PoolResponses(
            self.graph.real_curves.rows(dropped_rows), best_selection.solution.prices - 1
        )
        tempting_pools = {
            self.graph.pool_edges[row].pool_address
            for row in dropped_rows[responses.amount_in > 0].tolist()
        }
        rows_without_tempting_pools = [
            row
            for row in curve_rows.tolist()
            if self.graph.pool_edges[row].pool_address not in tempting_pools
        ]
        dropped_pools = {
            pool: self._drop_reason(pool, DropCause.GAS) for pool in sorted(tempting_pools)
        } | dict(best_selection.dropped_pools)
        return replace(
            self._select(
                np.array(rows_without_tempting_pools, dtype=np.intp), best_selection.solution
            ),
            dropped_pools=dropped_pools,
        )

    def _only_pools(self, selection: PoolSelection, allowed_pools: set[str]) -> PoolSelection:
        """Return the flows through the pools in `allowed_pools` only; pools that replace dropped
        ones are dropped too.
        """
        while (
            other_pools := {flow.pool_edge.pool_address for flow in selection.flows} - allowed_pools
        ):
            selection = self._without(selection, other_pools, DropCause.GAS)
        return selection

    def _without(
        self, current_selection: PoolSelection, pools: set[str], cause: DropCause
    ) -> PoolSelection:
        """Return the flows without some pools."""
        remaining_rows = current_selection.rows[
            [self.graph.pool_edges[row].pool_address not in pools for row in current_selection.rows]
        ]
        selection = self._select(remaining_rows, current_selection.solution)
        reason_by_pool = {pool: self._drop_reason(pool, cause) for pool in sorted(pools)}
        return replace(
            selection, dropped_pools={**current_selection.dropped_pools, **reason_by_pool}
        )

    def _drop_reason(self, pool: str, cause: DropCause) -> DropReason:
        """Return why a pool is dropped: `cause`, or a coarse token if it costs more than gas, or
        without any cost that it saves nothing.
        """
        if cause is not DropCause.GAS:
            return DropReason(cause, cause.value)
        graph = self.graph
        edges = [edge for edge in graph.pool_edges if edge.pool_address == pool]
        coarsest_edge = max(edges, key=lambda edge: edge.curves.rounding_loss)
        rounding_loss = coarsest_edge.curves.rounding_loss
        gas_cost = repeat_leg_cost(graph, coarsest_edge) - rounding_loss
        if gas_cost == rounding_loss == 0:
            return DropReason(DropCause.SAVES_NOTHING, DropCause.SAVES_NOTHING.value)
        if rounding_loss <= gas_cost:
            return DropReason(cause, cause.value)
        label = graph.problem.nodes[coarsest_edge.token_in_index].label
        return DropReason(
            DropCause.COARSE_UNIT,
            f"{COARSE_UNIT_PHRASE} {label}, which each swap may lose, is worth more than it saves",
        )

    def _select(
        self, curve_rows: IndexArray, earlier_solution: DualSolution | None
    ) -> PoolSelection:
        key = curve_rows.tobytes()
        if key not in self.selections:
            self.selections[key] = self._solve(curve_rows, earlier_solution)
        return self.selections[key]

    def _solve(
        self, curve_rows: IndexArray, earlier_solution: DualSolution | None
    ) -> PoolSelection:
        graph = self.graph
        solution = self.solve_flows(graph.real_curves.rows(curve_rows), earlier_solution)
        flows = tuple(
            EdgeFlow(
                graph.pool_edges[curve_rows[k]],
                float(solution.amount_in[k]),
                float(solution.amount_out[k]),
                float(solution.surplus[k]),
            )
            for k in np.flatnonzero(solution.amount_in > 0).tolist()
        )
        selection = PoolSelection(solution, curve_rows, flows)
        if not graph.real_after_charges.charges.any():
            return selection
        first_leg_gas = {
            (flow.pool_edge.pool_address, flow.pool_edge.token_in_index): first_leg_cost(
                graph, flow
            )
            for flow in flows
        }
        repeat_leg_gas = {
            (flow.pool_edge.pool_address, flow.pool_edge.token_in_index): repeat_leg_cost(
                graph, flow.pool_edge
            )
            for flow in flows
        }
        merged_legs = self.merged_legs_of(selection)
        chain_gas = {
            pool_side: math.fsum(
                count * repeat_leg_gas[dependent_side]
                for dependent_side, count in dependent_counts.items()
            )
            for pool_side, dependent_counts in merged_legs.dependents.items()
        }
        return replace(
            selection,
            first_leg_gas=first_leg_gas,
            repeat_leg_gas=repeat_leg_gas,
            chain_gas=chain_gas,
            leg_counts=merged_legs.counts,
        )


def _better_selection(
    first_selection: PoolSelection, second_selection: PoolSelection
) -> PoolSelection:
    return (
        second_selection
        if second_selection.net_utility > first_selection.net_utility
        else first_selection
    )


def _pools_too_small(flows: Sequence[EdgeFlow], min_trade: float) -> set[str]:
    """Return the pools to remove next because they trade less than `min_trade`: those beside a
    larger one, else the smallest.

    The flow of a removed pool may lift the next above `min_trade`, since a small trade that was
    split is still one trade.
    """
    flows_too_small = [flow for flow in flows if flow.amount_in < min_trade]
    pools_beside_larger = {
        flow.pool_edge.pool_address for flow in flows_too_small if _has_larger_beside(flow, flows)
    }
    if flows_too_small:
        return pools_beside_larger or {
            min(flows_too_small, key=lambda flow: flow.amount_in).pool_edge.pool_address
        }
    return set()


def _costly_flows(
    selection: PoolSelection, kept_pools: Collection[str], charges_one_leg: bool
) -> list[EdgeFlow]:
    """Return the flows that cost more gas than they contribute, the costliest first, without those
    through `kept_pools`.
    """
    return sorted(
        (
            flow
            for flow in selection.flows
            if flow.pool_edge.pool_address not in kept_pools
            and selection.surplus_after_gas(flow, charges_one_leg) < 0
        ),
        key=lambda flow: selection.surplus_after_gas(flow, charges_one_leg),
    )


def _has_larger_beside(flow: EdgeFlow, flows: Sequence[EdgeFlow]) -> bool:
    """True if another pool carries more between the same two tokens in the same direction."""
    token_pair = (flow.pool_edge.token_in_index, flow.pool_edge.token_out_index)
    return any(
        (other_flow.pool_edge.token_in_index, other_flow.pool_edge.token_out_index) == token_pair
        and other_flow.amount_in > flow.amount_in
        for other_flow in flows
    )
