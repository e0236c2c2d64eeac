"""Upper bound of utility less charges, by branch and bound over the pools to use. A charge is what
any use of a pool costs besides its price, such as gas.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agent.floats import FloatArray, IndexArray
from agent.planning.pool_curves import ChargedCurves, CurveStack
from agent.planning.solver.dual import DualSolution, PoolResponses

UNPAID_TOLERANCE = 1e-3
"""Share of the largest charge up to which an unpaid charge counts as paid."""
FlowSolver = Callable[[CurveStack, DualSolution | None], DualSolution]
"""Solver for the best flows over some of the edges, from an earlier solution."""


@dataclass(frozen=True, slots=True)
class _ChargeNode:
    """Best flows where rows in `used_rows` cost their charge, and `undecided_rows` ones a share of
    it.

    `bound` is an upper bound of utility less charges of all flows over these rows, at most that of
    the node that this one is a part of; `gains` what each
    undecided one of `solved_rows` adds to it.
    """

    used_rows: IndexArray
    undecided_rows: IndexArray
    solved_rows: IndexArray
    solution: DualSolution
    bound: float
    gains: FloatArray


def _dual_with_charges(
    charged_curves: ChargedCurves,
    used_rows: IndexArray,
    undecided_rows: IndexArray,
    solution: DualSolution,
) -> tuple[float, FloatArray]:
    """Return the dual at the prices of a solution, of utility less charges, and the part of each
    undecided row.

    Gas is value, a rounding loss is units of the output, at their price. A curve less its charge
    loses all of the charge in units of the output, so that its surplus is no bound where those are
    worth more than their reference; here each undecided row adds what its use gains beyond its
    charge, each used row all of it. Any prices bound all flows (weak duality).
    """
    if not charged_curves.charges.any():
        return solution.bound, solution.surplus[len(used_rows) :]
    row_numbers = np.concatenate((used_rows, undecided_rows))
    responses = PoolResponses(charged_curves.curve_stack.rows(row_numbers), solution.prices - 1)
    rounding_losses = charged_curves.rounding_losses[row_numbers]
    gains = (
        responses.surplus
        - (charged_curves.charges[row_numbers] - rounding_losses)
        - rounding_losses * responses.target_price
    )
    gains[len(used_rows) :] = np.maximum(gains[len(used_rows) :], 0.0)
    bound = solution.bound + math.fsum([*gains.tolist(), *(-solution.surplus).tolist()])
    return bound, gains[len(used_rows) :]


def bound_with_charges(
    charged_curves: ChargedCurves,
    curve_rows: IndexArray,
    solve_flows: FlowSolver,
    max_branches: int,
    enough_bound: float,
) -> float:
    """Return an upper bound of utility less charges of all flows over these rows: branch and bound
    over the rows to use. Bounds up to `enough_bound` are of no interest.
    """

    def solve_node(
        used_rows: IndexArray, undecided_rows: IndexArray, parent_node: _ChargeNode | None
    ) -> _ChargeNode:
        stack, solved_rows = charged_curves.rows(used_rows, undecided_rows)
        solution = solve_flows(stack, None if parent_node is None else parent_node.solution)
        bound, gains = _dual_with_charges(charged_curves, used_rows, undecided_rows, solution)
        worth_gains = gains[charged_curves.worth_charge[undecided_rows]]
        if parent_node is not None:
            bound = min(bound, parent_node.bound)
        return _ChargeNode(used_rows, undecided_rows, solved_rows, solution, bound, worth_gains)

    root_node = solve_node(np.array([], dtype=np.intp), curve_rows, None)
    open_nodes = [(-root_node.bound, 0, root_node)]
    closed_bound = -np.inf
    largest_charge = float(charged_curves.charges.max(initial=0.0))
    for branch_number in range(1, max_branches + 1):
        if not open_nodes:
            break
        best_node = heapq.heappop(open_nodes)[2]
        best_solution = best_node.solution
        if best_node.bound <= max(enough_bound, closed_bound):
            return max(best_node.bound, closed_bound)
        unpaid_charges = [
            charged_curves.unpaid_charge(branch_row, *amounts) if amounts[0] > 0 else gain
            for branch_row, gain, *amounts in zip(
                best_node.solved_rows[len(best_node.used_rows) :].tolist(),
                best_node.gains.tolist(),
                best_solution.amount_in[len(best_node.used_rows) :].tolist(),
                best_solution.amount_out[len(best_node.used_rows) :].tolist(),
                strict=True,
            )
        ]
        if max(unpaid_charges, default=0.0) <= UNPAID_TOLERANCE * largest_charge:
            closed_bound = max(closed_bound, best_node.bound)
            continue
        branch_row = best_node.solved_rows[len(best_node.used_rows) :][
            unpaid_charges.index(max(unpaid_charges))
        ]
        other_rows = best_node.undecided_rows[best_node.undecided_rows != branch_row]
        for branch, used_rows in enumerate(
            (np.append(best_node.used_rows, branch_row), best_node.used_rows)
        ):
            child_node = solve_node(used_rows, other_rows, best_node)
            heapq.heappush(open_nodes, (-child_node.bound, 2 * branch_number + branch, child_node))
    return max([closed_bound, *(-bound for bound, *_ in open_nodes)])
