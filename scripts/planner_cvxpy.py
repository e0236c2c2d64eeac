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

MOST = 5.0
"""Bound on the input of a range, as a multiple of the holdings; more could flow only in a cycle, which
gains nothing."""


def solve(problem):
    """Return the milliseconds, including building the model, and the worth; None if the solver fails."""
    begin = process_time()
    held, shares, price = np.array(problem["held"]), np.array(problem["shares"]), problem["price"]
    ranges = []
    for source, target, keep, roots, depths in problem["arcs"]:
        for top, end, depth in zip(roots[:-1], roots[1:], depths, strict=True):
            if depth > 0 and end < top:
                ranges.append((source, target, keep, top, end, depth))
    source, target, keep, top, end, depth = (
        np.array(column) for column in zip(*ranges, strict=True)
    )
    source, target = source.astype(int), target.astype(int)
    size, count = len(held), len(ranges)
    net, loss = cp.Variable(count, nonneg=True), cp.Variable(count, nonneg=True)
    paid = cp.multiply(top**2, net) - loss
    into, out_of = np.zeros((size, count)), np.zeros((size, count))
    into[target, np.arange(count)] = 1.0
    out_of[source, np.arange(count)] = 1.0 / keep
    y = held + into @ paid - out_of @ net
    bent, longer = cp.multiply(np.sqrt(top**3 / depth), net), 1 + cp.multiply(top / depth, net)
    rules = [
        cp.SOC(
            loss + longer, cp.vstack([2 * bent, loss - longer]), axis=0
        ),  # loss · longer ≥ bent²
        net <= np.minimum(depth * (1 / end - 1 / top), MOST * held.sum()),
    ]
    if problem.get("hubs"):
        rules.append(y[problem["hubs"]] == 0)
    if problem.get("budget") is not None:
        rules.append(cp.norm1(y - held) / 2 <= problem["budget"])
    worth = cp.sum(y) - price / 2 * cp.norm1(y - shares * cp.sum(y))
    found = cp.Problem(cp.Maximize(worth), rules)
    try:
        found.solve(solver=cp.CLARABEL)
    except cp.error.SolverError:
        return {"ms": (process_time() - begin) * 1e3, "worth": None}
    return {
        "ms": (process_time() - begin) * 1e3,
        "worth": float(found.value) if found.status == cp.OPTIMAL else None,
    }


def main():
    problems = [json.loads(line) for line in sys.stdin]
    solve(problems[0])
    for problem in problems:
        print(json.dumps(solve(problem)))


if __name__ == "__main__":
    main()
