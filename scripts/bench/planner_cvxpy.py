"""Solve planning problems, one JSON object per line, by cvxpy with Clarabel, and write time and worth
of each.

Runs in a separate environment, for planner_peers.py and random_plans.py. A range with liquidity L,
from the square-root price s downwards, pays s²·x − (s³/L)·x² / (1 + x·s/L) for an input x net of fee.
The second term, the loss against infinite depth, is a cone of its own to keep its precision. Holdings
of `hubs` must end at zero, and `budget` bounds the turnover; both may be missing.
"""

import json
import sys
from time import process_time

import cvxpy as cp
import numpy as np

MAX_INPUT = 5.0
"""Bound on the input of a range, as a multiple of the holdings; more could flow only in a cycle, which
gains nothing."""


def solve(problem):
    """Return the milliseconds, including building the model, and the worth; None if the solver fails."""
    began_s = process_time()
    holdings = np.array(problem["held"])
    shares = np.array(problem["shares"])
    price = problem["price"]
    ranges = []
    for source, target, fee_factor, roots, depths in problem["arcs"]:
        for root_start, root_end, depth in zip(roots[:-1], roots[1:], depths, strict=True):
            if depth > 0 and root_end < root_start:
                ranges.append((source, target, fee_factor, root_start, root_end, depth))
    source, target, fee_factor, root_start, root_end, depth = (
        np.array(column) for column in zip(*ranges, strict=True)
    )
    source = source.astype(int)
    target = target.astype(int)
    token_count = len(holdings)
    range_count = len(ranges)
    net_input = cp.Variable(range_count, nonneg=True)
    loss = cp.Variable(range_count, nonneg=True)
    output = cp.multiply(root_start**2, net_input) - loss
    received_matrix = np.zeros((token_count, range_count))
    sold_matrix = np.zeros((token_count, range_count))
    received_matrix[target, np.arange(range_count)] = 1.0
    sold_matrix[source, np.arange(range_count)] = 1.0 / fee_factor
    final_holdings = holdings + received_matrix @ output - sold_matrix @ net_input
    scaled_input = cp.multiply(np.sqrt(root_start**3 / depth), net_input)
    depth_factor = 1 + cp.multiply(root_start / depth, net_input)
    constraints = [
        cp.SOC(
            loss + depth_factor, cp.vstack([2 * scaled_input, loss - depth_factor]), axis=0
        ),  # loss · longer ≥ bent²
        net_input
        <= np.minimum(depth * (1 / root_end - 1 / root_start), MAX_INPUT * holdings.sum()),
    ]
    if problem.get("hubs"):
        constraints.append(final_holdings[problem["hubs"]] == 0)
    if problem.get("budget") is not None:
        constraints.append(cp.norm1(final_holdings - holdings) / 2 <= problem["budget"])
    objective = cp.sum(final_holdings) - price / 2 * cp.norm1(
        final_holdings - shares * cp.sum(final_holdings)
    )
    model = cp.Problem(cp.Maximize(objective), constraints)
    try:
        model.solve(solver=cp.CLARABEL)
    except cp.error.SolverError:
        return {"ms": (process_time() - began_s) * 1e3, "worth": None}
    return {
        "ms": (process_time() - began_s) * 1e3,
        "worth": float(model.value) if model.status == cp.OPTIMAL else None,
    }


def main():
    problems = [json.loads(line) for line in sys.stdin]
    solve(problems[0])
    for problem in problems:
        print(json.dumps(solve(problem)))


if __name__ == "__main__":
    main()
