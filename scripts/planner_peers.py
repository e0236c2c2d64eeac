"""Other solvers for the continuous problem of 8 tokens and 20 pools that bench_planner.py times:
SLSQP, and cvxpy with Clarabel.

All solve with the same pools, as ranges between marginal prices, the same bounds and the same
objective of the final holdings y: Y − P/2 · Σ |yᵢ − wᵢ·Y| with Y = Σ y. SLSQP runs in this process,
cvxpy in a temporary environment.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from scipy.optimize import minimize

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.planning.problem import PoolGraph, build_pool_graph, build_problem
from agent.planning.solver.utility import FlowOptimizer, objective_for_goal
from agent.reference import reference_prices
from scripts.quote_peers import Missing, install
from tests.support.builders import with_limits
from tests.support.planning_worlds import goal, random_step, without_gas

TOKENS, POOLS = 8, 20
CVXPY = ("cvxpy==1.7.5", "clarabel==0.11.1")
SLSQP = "SLSQP of SciPy"


@dataclass(frozen=True)
class Timed:
    """Processor time in milliseconds, and objective value of the flows, per unit of the amount to
    move.
    """

    ms: float
    worth: float


@dataclass(frozen=True)
class Continuous:
    """One continuous problem: the pools as curves, and the objective."""

    market: PoolGraph
    search: FlowOptimizer

    def as_json(self) -> dict[str, Any]:
        """Return holdings, target shares, price of a deviation, and for each direction of a pool its
        tokens, its fee, and square-root prices and depth of its ranges.
        """
        pool_edges = [
            [
                pool_edge.source,
                pool_edge.target,
                pool_edge.offer.real.keep,
                pool_edge.offer.real.roots.tolist(),
                pool_edge.offer.real.depths[:-1].tolist(),
            ]
            for pool_edge in self.market.pool_edges
        ]
        worth = self.search.worth
        return {
            "held": self.search.held.tolist(),
            "shares": worth.low.tolist(),
            "price": worth.price,
            "arcs": pool_edges,
        }


def continuous(seed: int) -> Continuous:
    """Return a problem of 8 tokens and 20 pools, V2 pairs and V3 pools of many ranges, with at most
    1 % of impact per pool.
    """
    depth = 10 ** random.Random(f"depth {seed}").uniform(5.5, 7.5)
    step = random_step(seed, TOKENS, POOLS, depth)
    step = without_gas(
        with_limits(
            step, pool_min_value=None, min_trade=None, turnover_bps=None, daily_turnover_bps=None
        )
    )
    problem = build_problem(step, reference_prices(step))
    aim = objective_for_goal(problem, goal(step).goal)
    market = build_pool_graph(problem, aim.off)
    return Continuous(market, aim.search(market.scale, np.zeros(TOKENS), {}, None))


def ours(problem: Continuous) -> Timed:
    """Solve by the planner's dual method; the worth is that of the final flows."""
    begin = process_time()
    found = problem.search.solve(problem.market.real)
    spent = process_time() - begin
    return Timed(
        spent * 1e3, problem.search.worth.of(problem.search.ends(problem.market.real, found))
    )


def slsqp(problem: Continuous) -> Timed:
    """Solve by SLSQP, with one variable per direction of a pool, one per token for its distance from
    the target, and exact derivatives.
    """
    curves = [pool_edge.offer.real for pool_edge in problem.market.pool_edges]
    ends = [(pool_edge.source, pool_edge.target) for pool_edge in problem.market.pool_edges]
    held, shares, price = problem.search.held, problem.search.worth.low, problem.search.worth.price
    size, count = len(held), len(curves)

    def y_of(x: np.ndarray) -> np.ndarray:
        y = held.copy()
        for (source, target), curve, taken in zip(ends, curves, x[:count], strict=True):
            y[source] -= taken
            y[target] += curve.pays(taken)
        return y

    def y_slope(x: np.ndarray) -> np.ndarray:
        slope = np.zeros((size, count + size))
        for k, ((source, target), curve) in enumerate(zip(ends, curves, strict=True)):
            slope[source, k] -= 1
            slope[target, k] += marginal(curve, x[k])
        return slope

    def off(x: np.ndarray) -> np.ndarray:
        y = y_of(x)
        return y - shares * y.sum()

    def off_slope(x: np.ndarray) -> np.ndarray:
        slope = y_slope(x)
        return slope - np.outer(shares, slope.sum(axis=0))

    distance = np.hstack((np.zeros((size, count)), np.eye(size)))
    begin = process_time()
    start = np.concatenate((np.zeros(count), np.abs(held - shares * held.sum())))
    found = minimize(
        lambda x: -y_of(x).sum() + price / 2 * x[count:].sum(),
        start,
        jac=lambda x: -y_slope(x).sum(axis=0) + price / 2 * distance.sum(axis=0),
        bounds=[(0.0, curve.capacity) for curve in curves] + [(0.0, None)] * size,
        constraints=[
            {
                "type": "ineq",
                "fun": lambda x: x[count:] - off(x),
                "jac": lambda x: distance - off_slope(x),
            },
            {
                "type": "ineq",
                "fun": lambda x: x[count:] + off(x),
                "jac": lambda x: distance + off_slope(x),
            },
        ],
        method="SLSQP",
        options={"maxiter": 300, "ftol": 1e-9},
    )
    spent = process_time() - begin
    x = np.clip(found.x, 0.0, [*(curve.capacity for curve in curves), *[np.inf] * size])
    return Timed(spent * 1e3, problem.search.worth.of(y_of(x)))


def marginal(curve: Any, taken: float) -> float:
    """Return the marginal output after `taken`."""
    net = taken * curve.keep
    k = int(np.searchsorted(curve.net_in, net, side="right")) - 1
    depth, root = float(curve.depths[k]), float(curve.roots[k])
    if depth <= 0:
        return 0.0
    return float(curve.keep * (root / (1 + root * (net - float(curve.net_in[k])) / depth)) ** 2)


def cvxpy_clarabel(problems: Sequence[Continuous], folder: Path) -> list[Timed]:
    """Solve by cvxpy with Clarabel. Raises Missing."""
    return [
        Timed(**found) for found in in_cvxpy([problem.as_json() for problem in problems], folder)
    ]


def in_cvxpy(problems: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Install cvxpy into `folder` and return the answers of planner_cvxpy.py. Raises Missing."""
    install([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], folder)
    python = str(folder / "venv" / "bin" / "python")
    install(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *CVXPY,
        ],
        folder,
    )
    lines = "\n".join(json.dumps(problem) for problem in problems)
    worker = Path(__file__).with_name("planner_cvxpy.py")
    done = subprocess.run(
        [python, str(worker)], input=lines, capture_output=True, text=True, cwd=folder, check=False
    )
    if done.returncode != 0:
        raise Missing(f"its process ended: {done.stderr.strip().splitlines()[-1:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]
