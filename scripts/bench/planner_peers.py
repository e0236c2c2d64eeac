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

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.planning.problem import PoolGraph, build_pool_graph, build_problem
from agent.planning.solver.utility import FlowOptimizer, objective_for_goal
from agent.reference import reference_prices
from scripts.bench.quote_peers import PeerMissing, install
from tests.support.builders import with_limits
from tests.support.planning_worlds import random_step, rebalance_to_targets, without_gas

TOKENS = 8
POOLS = 20
CVXPY = ("cvxpy==1.7.5", "clarabel==0.11.1")
SLSQP = "SLSQP of SciPy"


@dataclass(frozen=True)
class TimedSolution:
    """Processor time in milliseconds, and objective value of the flows, per unit of the amount to
    move.
    """

    ms: float
    worth: float


@dataclass(frozen=True)
class ContinuousProblem:
    """One continuous problem: the pools as curves, and the objective."""

    pool_graph: PoolGraph
    optimizer: FlowOptimizer

    def as_json(self) -> dict[str, Any]:
        """Return holdings, target shares, price of a deviation, and for each direction of a pool its
        tokens, its fee, and square-root prices and depth of its ranges.
        """
        pool_edges = [
            [
                pool_edge.token_in_index,
                pool_edge.token_out_index,
                pool_edge.curves.real_curve.fee_factor,
                pool_edge.curves.real_curve.roots.tolist(),
                pool_edge.curves.real_curve.liquidities[:-1].tolist(),
            ]
            for pool_edge in self.pool_graph.pool_edges
        ]
        utility = self.optimizer.utility
        return {
            "held": self.optimizer.held_values.tolist(),
            "shares": utility.low_shares.tolist(),
            "price": utility.penalty,
            "arcs": pool_edges,
        }


def continuous_problem(seed: int) -> ContinuousProblem:
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
    objective = objective_for_goal(problem, rebalance_to_targets(step).goal)
    market = build_pool_graph(problem, objective.value_off_goal)
    return ContinuousProblem(market, objective.optimizer(market.scale, np.zeros(TOKENS), {}, None))


def solve_ours(problem: ContinuousProblem) -> TimedSolution:
    """Solve by the planner's dual method; the worth is that of the final flows."""
    began_s = process_time()
    solution = problem.optimizer.solve(problem.pool_graph.real_curves)
    duration_s = process_time() - began_s
    return TimedSolution(
        duration_s * 1e3,
        problem.optimizer.utility.utility_of(
            problem.optimizer.final_values(problem.pool_graph.real_curves, solution)
        ),
    )


def solve_by_slsqp(problem: ContinuousProblem) -> TimedSolution:
    """Solve by SLSQP, with one variable per direction of a pool, one per token for its distance from
    the target, and exact derivatives.
    """
    curves = [pool_edge.curves.real_curve for pool_edge in problem.pool_graph.pool_edges]
    token_pairs = [
        (pool_edge.token_in_index, pool_edge.token_out_index)
        for pool_edge in problem.pool_graph.pool_edges
    ]
    holdings_before = problem.optimizer.held_values
    shares = problem.optimizer.utility.low_shares
    price = problem.optimizer.utility.penalty
    token_count = len(holdings_before)
    curve_count = len(curves)

    def final_holdings(x: np.ndarray) -> np.ndarray:
        holdings = holdings_before.copy()
        for (source, target), curve, amount_in in zip(
            token_pairs, curves, x[:curve_count], strict=True
        ):
            holdings[source] -= amount_in
            holdings[target] += curve.output_for(amount_in)
        return holdings

    def holdings_slope(x: np.ndarray) -> np.ndarray:
        slope = np.zeros((token_count, curve_count + token_count))
        for curve_index, ((source, target), curve) in enumerate(
            zip(token_pairs, curves, strict=True)
        ):
            slope[source, curve_index] -= 1
            slope[target, curve_index] += marginal_output(curve, x[curve_index])
        return slope

    def deviation(x: np.ndarray) -> np.ndarray:
        holdings = final_holdings(x)
        return holdings - shares * holdings.sum()

    def deviation_slope(x: np.ndarray) -> np.ndarray:
        slope = holdings_slope(x)
        return slope - np.outer(shares, slope.sum(axis=0))

    distance_slope = np.hstack((np.zeros((token_count, curve_count)), np.eye(token_count)))
    began_s = process_time()
    start = np.concatenate(
        (np.zeros(curve_count), np.abs(holdings_before - shares * holdings_before.sum()))
    )
    optimum = minimize(
        lambda x: -final_holdings(x).sum() + price / 2 * x[curve_count:].sum(),
        start,
        jac=lambda x: -holdings_slope(x).sum(axis=0) + price / 2 * distance_slope.sum(axis=0),
        bounds=[(0.0, curve.capacity) for curve in curves] + [(0.0, None)] * token_count,
        constraints=[
            {
                "type": "ineq",
                "fun": lambda x: x[curve_count:] - deviation(x),
                "jac": lambda x: distance_slope - deviation_slope(x),
            },
            {
                "type": "ineq",
                "fun": lambda x: x[curve_count:] + deviation(x),
                "jac": lambda x: distance_slope + deviation_slope(x),
            },
        ],
        method="SLSQP",
        options={"maxiter": 300, "ftol": 1e-9},
    )
    duration_s = process_time() - began_s
    x = np.clip(optimum.x, 0.0, [*(curve.capacity for curve in curves), *[np.inf] * token_count])
    return TimedSolution(duration_s * 1e3, problem.optimizer.utility.utility_of(final_holdings(x)))


def marginal_output(curve: Any, amount_in: float) -> float:
    """Return the marginal output after `amount_in`."""
    net = amount_in * curve.fee_factor
    range_index = int(np.searchsorted(curve.net_inputs, net, side="right")) - 1
    depth = float(curve.liquidities[range_index])
    root = float(curve.roots[range_index])
    if depth <= 0:
        return 0.0
    return float(
        curve.fee_factor
        * (root / (1 + root * (net - float(curve.net_inputs[range_index])) / depth)) ** 2
    )


def solve_by_cvxpy(problems: Sequence[ContinuousProblem], folder: Path) -> list[TimedSolution]:
    """Solve by cvxpy with Clarabel. Raises PeerMissing."""
    return [
        TimedSolution(**answer)
        for answer in run_cvxpy([problem.as_json() for problem in problems], folder)
    ]


def run_cvxpy(problems: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Install cvxpy into `folder` and return the answers of planner_cvxpy.py. Raises PeerMissing."""
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
    input_lines = "\n".join(json.dumps(problem) for problem in problems)
    worker = Path(__file__).with_name("planner_cvxpy.py")
    process = subprocess.run(
        [python, str(worker)],
        input=input_lines,
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    if process.returncode != 0:
        raise PeerMissing(f"its process ended: {process.stderr.strip().splitlines()[-1:]}")
    return [json.loads(line) for line in process.stdout.splitlines()]
