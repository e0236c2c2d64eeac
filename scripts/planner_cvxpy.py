"""The problem of planner_peers.py by cvxpy with Clarabel: reads one problem as JSON per line, writes time and worth of each.

Runs in an environment of its own. A range of liquidity L below the root s of its price pays L·s − L/(x/L + 1/s) for x net of fee.
"""

import json
import sys
from time import process_time

import cvxpy as cp
import numpy as np


def solve(problem):
    """(ms, worth) with the model's building counted, the first import not."""
    begin = process_time()
    held, shares, price = np.array(problem["held"]), np.array(problem["shares"]), problem["price"]
    ranges = []
    for source, target, keep, roots, depths in problem["arcs"]:
        for top, end, depth in zip(roots[:-1], roots[1:], depths, strict=True):
            if depth > 0 and end < top:
                ranges.append((source, target, keep, top, end, depth))
    source, target, keep, top, end, depth = (np.array(column) for column in zip(*ranges, strict=True))
    source, target = source.astype(int), target.astype(int)
    size, count = len(held), len(ranges)
    net, paid = cp.Variable(count, nonneg=True), cp.Variable(count)
    into, out_of = np.zeros((size, count)), np.zeros((size, count))
    into[target, np.arange(count)] = 1.0
    out_of[source, np.arange(count)] = 1.0 / keep
    y = held + into @ paid - out_of @ net
    rules = [
        paid <= cp.multiply(depth, top - cp.inv_pos(cp.multiply(1 / depth, net) + 1 / top)),
        net <= depth * (1 / end - 1 / top),
    ]
    worth = cp.sum(y) - price / 2 * cp.norm1(y - shares * cp.sum(y))
    found = cp.Problem(cp.Maximize(worth), rules)
    found.solve(solver=cp.CLARABEL)
    return {"ms": (process_time() - begin) * 1e3, "worth": float(found.value)}


def main():
    problems = [json.loads(line) for line in sys.stdin]
    solve(problems[0])
    for problem in problems:
        print(json.dumps(solve(problem)))


if __name__ == "__main__":
    main()
