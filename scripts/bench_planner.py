"""Benchmark of plans: optimality gaps, times, and comparison with other methods on the same problems.

Seeded random problems of 2 to 12 tokens and 3 to 50 pools (tests/support/planning_worlds.py) are
planned to exact legs. Two usual methods solve them under the same bounds: swaps one after another,
and a router's grid of 5 % slices. Every problem is solved without gas, and with gas at 0.1 to 50
gwei as a cost; further problems have tokens whose base unit is worth basis points of the portfolio.
Timed are one continuous solve and one whole plan, at a usual gas price, of 8 tokens and 20 pools,
and whole plans of 20 and 40 tokens with 160 pools. `--peers` gives the continuous problem to SLSQP,
and to cvxpy with Clarabel, which pip installs into a temporary folder. Times are processor times,
which other programs on the machine affect little.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.errors import Refused
from agent.model import Plan, Rebalance, StepInput
from agent.planning.planner import plan
from agent.planning.problem import build_problem
from agent.planning.rounding import PlanDraft
from agent.reference import reference_prices
from agent.units import BPS
from scripts import planner_peers
from scripts.planner_peers import POOLS, SLSQP, TOKENS, Continuous, Timed
from scripts.quote_peers import Missing
from tests.support.builders import with_limits
from tests.support.planning_peers import grid, objective, sequential
from tests.support.planning_worlds import (
    any_problem,
    any_problem_with_gas,
    coarse_units,
    large_step,
    random_step,
    rebalance_to_targets,
)

OTHERS: dict[str, Callable[[StepInput, Rebalance], PlanDraft]] = {
    "sequential swaps": sequential,
    "grid of 5 %": grid,
}
TIMED_AT_MOST = 300
LARGE = ((20, 160), (40, 160))
"""Tokens and pools of large problems."""
LARGE_AT_MOST = 20
WIDE_BPS = 3
"""Gap above which plans are counted."""
CVXPY = " and ".join(planner_peers.CVXPY).replace("==", " ")


@dataclass
class Quality:
    """Quality of plans: gaps in bps, the number of problems without a worthwhile trade, and by peer
    the extra value of our plans in bps of their turnover, with the number of worse plans.
    """

    gaps: list[float] = field(default_factory=list)
    refused: int = 0
    better: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in OTHERS})
    worse: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OTHERS, 0))


def quality(problems: Iterable[StepInput]) -> Quality:
    """Compare plans of random problems with those of other methods. A plan is worse if its value is
    lower by more than one base unit per leg.
    """
    result = Quality()
    for step in problems:
        decision = rebalance_to_targets(step)
        delta, turnover, legs, gas = {}, Fraction(0), 1, Fraction(0)
        if (best_plan := _plan_or_none(step, decision)) is None:
            result.refused += 1
        else:
            balances = {holding.token: holding.raw for holding in step.snapshot.holdings}
            delta, turnover, legs = (
                {token: raw - balances[token] for token, raw in best_plan.holdings_after},
                best_plan.turnover,
                len(best_plan.legs),
            )
            gas = best_plan.cost.gas
            result.gaps.append(float(best_plan.gap_bps or 0))
        our_value, problem = (
            objective(step, decision, delta) - gas,
            build_problem(step, reference_prices(step)),
        )
        for name, method in OTHERS.items():
            draft = method(step, decision)
            advantage = (
                our_value - objective(step, decision, draft.delta_raw) + draft.cost(problem).gas
            )
            result.better[name].append(
                float(advantage / max(turnover, Fraction(1)) * BPS) if turnover else 0.0
            )
            result.worse[name] += advantage < -legs
    return result


def comparison(result: Quality, name: str) -> dict[str, Any]:
    """Return the comparison with one other method."""
    return {
        "ours_is_worth_more_bps": spread(result.better[name]),
        "ours_is_worse": result.worse[name],
    }


def _plan_or_none(step: StepInput, decision: Rebalance) -> Plan | None:
    try:
        return plan(step, decision)
    except Refused:
        return None


def typical(seed: int) -> StepInput:
    """Return a problem of 8 tokens and 20 pools at a usual gas price."""
    return with_limits(
        random_step(seed, TOKENS, POOLS),
        turnover_bps=None,
        daily_turnover_bps=None,
        pool_min_value=None,
    )


def whole_plans(problem: Callable[[int], StepInput], count: int) -> list[float]:
    """Return the milliseconds of each plan, including gas, floors, integers and certificate."""
    times_ms = []
    for seed in range(count + 1):
        step = problem(seed)
        decision = rebalance_to_targets(step)
        began_s = process_time()
        _plan_or_none(step, decision)
        times_ms.append((process_time() - began_s) * 1e3)
    return times_ms[1:]


def solves(problems: Sequence[Continuous]) -> list[Timed]:
    """Time our continuous solves; a first one is not counted."""
    planner_peers.ours(problems[0])
    return [planner_peers.ours(problem) for problem in problems]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, percentiles and maximum. A percentile is the smallest value that this share of
    the values does not exceed.
    """
    ordered = sorted(values)

    def percentile(share: float) -> float:
        return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]

    return {
        "median": round(statistics.median(ordered), 6),
        "p90": round(percentile(0.9), 6),
        "p99": round(percentile(0.99), 6),
        "p99.9": round(percentile(0.999), 6),
        "max": round(ordered[-1], 6),
    }


def gap_spread(gaps: Sequence[float]) -> dict[str, float]:
    """Return the spread of gaps, and the number of those above WIDE_BPS."""
    return spread(gaps or [0.0]) | {f"above_{WIDE_BPS}_bps": sum(gap > WIDE_BPS for gap in gaps)}


def solvers(
    problems: Sequence[Continuous], ours: Sequence[Timed]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the results of SLSQP and cvxpy for the continuous problems, and their times as multiples
    of ours.
    """
    solves_by_peer: dict[str, list[Timed]] = {
        SLSQP: [planner_peers.slsqp(problem) for problem in problems]
    }
    missing: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as folder:
        try:
            solves_by_peer[CVXPY] = planner_peers.cvxpy_clarabel(problems, Path(folder))
        except Missing as why:
            missing[CVXPY] = {"missing": str(why)}
    peers = {
        name: {
            "continuous_ms": spread([solve.ms for solve in peer_solves]),
            "ours_is_worth_more_bps": spread(
                [(a.worth - b.worth) * BPS for a, b in zip(ours, peer_solves, strict=True)]
            ),
        }
        for name, peer_solves in solves_by_peer.items()
    }
    ratios = {
        name: round(
            statistics.median(b.ms / a.ms for a, b in zip(ours, peer_solves, strict=True)), 1
        )
        for name, peer_solves in solves_by_peer.items()
    }
    return peers | missing, ratios


def measure(count: int, with_solvers: bool) -> dict[str, Any]:
    """Measure everything and return one document."""
    timed_count = min(count, TIMED_AT_MOST)
    problems = [planner_peers.continuous(seed) for seed in range(timed_count)]
    our_solves = solves(problems)
    plan_times_ms = whole_plans(typical, timed_count)
    large_plan_times = {
        f"{tokens} tokens, {pools} pools": spread(
            whole_plans(partial(large_step, tokens=tokens, pools=pools), min(count, LARGE_AT_MOST))
        )
        for tokens, pools in LARGE
    }
    coarse_unit_gaps = [
        float(best_plan.gap_bps or 0)
        for step in map(coarse_units, range(count))
        if (best_plan := _plan_or_none(step, rebalance_to_targets(step)))
    ]
    without_gas, with_gas = (
        quality(map(any_problem, range(count))),
        quality(map(any_problem_with_gas, range(count))),
    )
    peers: dict[str, Any] = {
        name: comparison(without_gas, name) | {"with_gas": comparison(with_gas, name)}
        for name in OTHERS
    }
    ratios: dict[str, float] = {}
    if with_solvers:
        solver_results, ratios = solvers(problems[:50], our_solves[:50])
        peers |= solver_results
    ours = {
        "problems": count,
        "not_worth_a_trade": without_gas.refused,
        "gap_bps": gap_spread(without_gas.gaps),
        "gap_with_gas_bps": gap_spread(with_gas.gaps),
        "gap_coarse_units_bps": gap_spread(coarse_unit_gaps),
        "continuous_ms": spread([solve.ms for solve in our_solves]),
        "plan_ms": spread(plan_times_ms),
        "large_plan_ms": large_plan_times,
    }
    return {"machine": machine(), "ours": ours, "peers": peers, "ratios": ratios}


def machine() -> dict[str, str | int | None]:
    """Return the machine that the figures were measured on."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
    }


def lines(document: dict[str, Any]) -> list[str]:
    """Return the document as lines of text."""
    ours = document["ours"]
    text_lines = [f"{ours['problems']} problems, {ours['not_worth_a_trade']} not worth a trade"]
    figures = {name: ours[name] for name in ours if name.endswith(("_bps", "_ms"))}
    figures |= figures.pop("large_plan_ms")
    for name, values in figures.items():
        unit = "bps" if name.endswith("_bps") else "ms"
        text_lines.append(
            f"{name:<24}"
            + "   ".join(f"{statistic} {value:.4g} {unit}" for statistic, value in values.items())
        )
    for name, peer in document["peers"].items():
        if "missing" in peer:
            text_lines.append(f"{name} is missing: {peer['missing']}")
            continue
        advantage = peer["ours_is_worth_more_bps"]
        words = [
            f"ours is worth more by {advantage['median']:.4g} bps (median), {advantage['max']:.4g} at most"
        ]
        words += (
            [f"worse in {peer['ours_is_worse']}, with gas in {peer['with_gas']['ours_is_worse']}"]
            if "with_gas" in peer
            else []
        )
        words += (
            [f"{peer['continuous_ms']['median']:.4g} ms, {document['ratios'][name]}x"]
            if "continuous_ms" in peer
            else []
        )
        text_lines.append(f"{name}: {', '.join(words)}")
    return text_lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON document: machine, ours, peers with figures or why they are missing",
    )
    parser.add_argument(
        "--peers",
        action="store_true",
        help="measure other solvers too; cvxpy needs network access, and is reported as missing without it",
    )
    parser.add_argument(
        "--problems",
        type=int,
        default=100,
        help="number of random problems; the figures in docs/ are for 1,000",
    )
    options = parser.parse_args()
    document = measure(max(1, options.problems), options.peers)
    print(json.dumps(document) if options.json else "\n".join(lines(document)))


if __name__ == "__main__":
    main()
