"""Upper bound of utility less charges, by branch and bound over the pools to use. A charge is what
any use of a pool costs besides its price, such as gas.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agent.floats import IndexArray
from agent.planning.pool_curves import ChargedCurves, CurveStack
from agent.planning.solver.dual import Solution

UNPAID_TOLERANCE = 1e-3
"""Share of the largest charge up to which an unpaid charge counts as paid."""
FlowSolver = Callable[[CurveStack, Solution | None], Solution]
"""Solver for the best flows over some of the edges, from an earlier solution."""


@dataclass(frozen=True, slots=True)
class _ChargeNode:
    """Best flows where rows in `used` cost their charge, and `undecided` ones a share of it.

    `bound` is an upper bound of utility less charges of all flows over these rows.
    """

    used: IndexArray
    undecided: IndexArray
    solved_rows: IndexArray
    solution: Solution
    bound: float


def bound_with_charges(
    charged: ChargedCurves,
    rows: IndexArray,
    solve_flows: FlowSolver,
    max_branches: int,
    enough_bound: float,
) -> float:
    """Return an upper bound of utility less charges of all flows over these rows: branch and bound
    over the rows to use. Bounds up to `enough_bound` are of no interest.
    """

    def solve_node(used: IndexArray, undecided: IndexArray, start: Solution | None) -> _ChargeNode:
        stack, solved_rows = charged.rows(used, undecided)
        solution = solve_flows(stack, start)
        bound = solution.bound - math.fsum(charged.charges[used].tolist())
        return _ChargeNode(used, undecided, solved_rows, solution, bound)

    root = solve_node(np.array([], dtype=np.intp), rows, None)
    queue = [(-root.bound, 0, root)]
    closed_bound, largest_charge = -np.inf, float(charged.charges.max(initial=0.0))
    for number in range(1, max_branches + 1):
        if not queue:
            break
        best_node = heapq.heappop(queue)[2]
        best_flows = best_node.solution
        if best_node.bound <= max(enough_bound, closed_bound):
            return max(best_node.bound, closed_bound)
        unpaid = [
            charged.unpaid(row, *amounts)
            for row, *amounts in zip(
                best_node.solved_rows[len(best_node.used) :].tolist(),
                best_flows.amount_in[len(best_node.used) :].tolist(),
                best_flows.amount_out[len(best_node.used) :].tolist(),
                strict=True,
            )
        ]
        if max(unpaid, default=0.0) <= UNPAID_TOLERANCE * largest_charge:
            closed_bound = max(closed_bound, best_node.bound)
            continue
        row = best_node.solved_rows[len(best_node.used) :][unpaid.index(max(unpaid))]
        other_rows = best_node.undecided[best_node.undecided != row]
        for branch, used in enumerate((np.append(best_node.used, row), best_node.used)):
            child = solve_node(used, other_rows, best_flows)
            heapq.heappush(queue, (-min(child.bound, best_node.bound), 2 * number + branch, child))
    return max([closed_bound, *(-bound for bound, *_ in queue)])
