"""Bound of utility less what any use of a pool costs beside its price: branch and bound over the
pools to use.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agent.planning.pool_curves import ChargedCurves, CurveStack
from agent.planning.problem import IndexArray
from agent.planning.solver.dual import Solution

PAID = 1e-3
"""Share of the largest charge up to which an unpaid charge counts as paid."""
FlowSolver = Callable[[CurveStack, Solution | None], Solution]
"""Solver for the best flows over some of the edges, from an earlier solution."""


@dataclass(frozen=True, slots=True)
class _ChargeNode:
    """Best flows where rows in `used` cost their charge, and `free` ones a share of it.

    `bound` is an upper bound of utility less charges of all flows over these rows.
    """

    used: IndexArray
    free: IndexArray
    rows: IndexArray
    solution: Solution
    bound: float


def bound_with_charges(
    charged: ChargedCurves,
    rows: IndexArray,
    solve_flows: FlowSolver,
    branches: int,
    enough: float,
) -> float:
    """Return an upper bound of utility less charges of all flows over these rows: branch and bound
    over the rows to use. Bounds up to `enough` are of no interest.
    """

    def node(used: IndexArray, free: IndexArray, start: Solution | None) -> _ChargeNode:
        stack, numbers = charged.rows(used, free)
        solution = solve_flows(stack, start)
        bound = solution.bound - math.fsum(charged.charges[used].tolist())
        return _ChargeNode(used, free, numbers, solution, bound)

    begin = node(np.array([], dtype=np.intp), rows, None)
    queue = [(-begin.bound, 0, begin)]
    closed, largest = -np.inf, float(charged.charges.max(initial=0.0))
    for number in range(1, branches + 1):
        if not queue:
            break
        here = heapq.heappop(queue)[2]
        found = here.solution
        if here.bound <= max(enough, closed):
            return max(here.bound, closed)
        unpaid = [
            charged.unpaid(row, *amounts)
            for row, *amounts in zip(
                here.rows[len(here.used) :].tolist(),
                found.taken[len(here.used) :].tolist(),
                found.paid[len(here.used) :].tolist(),
                strict=True,
            )
        ]
        if max(unpaid, default=0.0) <= PAID * largest:
            closed = max(closed, here.bound)
            continue
        row = here.rows[len(here.used) :][unpaid.index(max(unpaid))]
        rest = here.free[here.free != row]
        for side, used in enumerate((np.append(here.used, row), here.used)):
            child = node(used, rest, found)
            heapq.heappush(queue, (-min(child.bound, here.bound), 2 * number + side, child))
    return max([closed, *(-bound for bound, *_ in queue)])
