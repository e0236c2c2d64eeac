"""Benchmark of plans: optimality gaps, times, and comparison with other methods on the same problems.

Seeded random problems of 2 to 12 tokens and 3 to 50 pools (tests/support/planning_worlds.py) are
planned to exact legs. Two usual methods solve them under the same bounds: swaps one after another,
and a router's grid of 5 % slices. Every problem is solved without gas, and with gas at 0.1 to 50
gwei as a cost; further problems have tokens whose base unit is worth basis points of the portfolio.
Timed are one continuous solve and one whole plan, at a usual gas price, of 8 tokens and 20 pools,
whole plans of 8 tokens and 40 pools of every kind, and of 20 and 40 tokens with 160 pools; with 8 tokens
and 40 pools also the decision before the plan, under the tracking rule and under a band, and the rule
itself. `--peers` gives
the continuous problem to SLSQP, and to cvxpy with Clarabel, which pip installs into a temporary folder.
Times are processor times, which other programs on the machine affect little.
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
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.amm import POOL_KINDS
from agent.amm.v3.pool import V3Pool
from agent.errors import Refused
from agent.model import Destination, NoTradeZone, Plan, Rebalance, StepInput, Threshold, Trigger
from agent.planning.planner import plan
from agent.planning.problem import build_problem
from agent.planning.rounding import PlanDraft
from agent.policy.decide import decide
from agent.policy.drift import compute_drifts
from agent.policy.risk_estimates import complete_risk
from agent.policy.triggers.exchange_costs import PricedMarket
from agent.policy.triggers.no_trade_zone import build_tracking, evaluate_zone
from agent.reference import reference_prices
from agent.units import BPS
from scripts.bench import planner_peers
from scripts.bench.planner_peers import POOLS, SLSQP, TOKENS, ContinuousProblem, TimedSolution
from scripts.bench.quote_peers import PeerMissing
from tests.support.builders import with_limits, with_snapshot
from tests.support.planning_peers import grid, objective, sequential
from tests.support.planning_worlds import (
    any_problem,
    any_problem_with_gas,
    coarse_units,
    large_step,
    random_step,
    rebalance_to_targets,
)

OTHER_METHODS: dict[str, Callable[[StepInput, Rebalance], PlanDraft]] = {
    "sequential swaps": sequential,
    "grid of 5 %": grid,
}
MAX_TIMED = 300
LARGE_SIZES = ((20, 160), (40, 160))
"""Tokens and pools of large problems."""
MAX_LARGE = 20
MIXED_POOLS = 40
LOOKS = 100
"""Decisions of one portfolio that are timed together."""
RANGED_KINDS = [kind for kind in POOL_KINDS.values() if issubclass(kind, V3Pool)]
WIDE_GAP_BPS = 3
"""Gap above which plans are counted."""
CVXPY = " and ".join(planner_peers.CVXPY).replace("==", " ")


@dataclass
class PlanQuality:
    """Quality of plans: gaps in bps, the number of problems without a worthwhile trade, and by peer
    the extra value of our plans in bps of their turnover, with the number of worse plans.
    """

    gaps_bps: list[float] = field(default_factory=list)
    refused_count: int = 0
    advantages_bps: dict[str, list[float]] = field(
        default_factory=lambda: {name: [] for name in OTHER_METHODS}
    )
    worse_counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OTHER_METHODS, 0))


def measure_quality(problems: Iterable[StepInput]) -> PlanQuality:
    """Compare plans of random problems with those of other methods. A plan is worse if its value is
    lower by more than one base unit per leg.
    """
    plan_quality = PlanQuality()
    for step in problems:
        decision = rebalance_to_targets(step)
        delta_raw = {}
        turnover = Fraction(0)
        leg_count = 1
        gas = Fraction(0)
        if (best_plan := _plan_or_none(step, decision)) is None:
            plan_quality.refused_count += 1
        else:
            balances = {holding.token: holding.raw for holding in step.snapshot.holdings}
            delta_raw = {token: raw - balances[token] for token, raw in best_plan.holdings_after}
            turnover = best_plan.turnover
            leg_count = len(best_plan.legs)
            gas = best_plan.cost.gas
            plan_quality.gaps_bps.append(float(best_plan.gap_bps or 0))
        our_value = objective(step, decision, delta_raw) - gas
        problem = build_problem(step, reference_prices(step))
        for name, method in OTHER_METHODS.items():
            draft = method(step, decision)
            advantage = (
                our_value - objective(step, decision, draft.delta_raw) + draft.cost(problem).gas
            )
            plan_quality.advantages_bps[name].append(
                float(advantage / max(turnover, Fraction(1)) * BPS) if turnover else 0.0
            )
            plan_quality.worse_counts[name] += advantage < -leg_count
    return plan_quality


def comparison_with(plan_quality: PlanQuality, name: str) -> dict[str, Any]:
    """Return the comparison with one other method."""
    return {
        "ours_is_worth_more_bps": summarise(plan_quality.advantages_bps[name]),
        "ours_is_worse": plan_quality.worse_counts[name],
    }


def _plan_or_none(step: StepInput, decision: Rebalance) -> Plan | None:
    try:
        return plan(step, decision)
    except Refused:
        return None


def typical_problem(seed: int) -> StepInput:
    """Return a problem of 8 tokens and 20 pools at a usual gas price."""
    return with_limits(
        random_step(seed, TOKENS, POOLS),
        turnover_bps=None,
        daily_turnover_bps=None,
        pool_min_value=None,
    )


def mixed_problem(seed: int) -> StepInput:
    """Return a problem of 8 tokens and 40 pools of every kind in turn, for the Rebalancer."""
    step = random_step(seed, TOKENS, MIXED_POOLS)
    pools = list(step.snapshot.pools)
    ranged_pools = [number for number, pool in enumerate(pools) if isinstance(pool, V3Pool)]
    for count, number in enumerate(ranged_pools):
        kind = RANGED_KINDS[count % len(RANGED_KINDS)]
        state = {
            pool_field.name: getattr(pools[number], pool_field.name)
            for pool_field in fields(V3Pool)
        }
        pools[number] = kind(**state | {"venue": kind.kind})
    step = with_limits(step, turnover_bps=None, daily_turnover_bps=None, pool_min_value=None)
    execution = replace(step.execution, router_kind="rebalancer")
    return replace(with_snapshot(step, pools=tuple(pools)), execution=execution)


def measure_plans_ms(make_problem: Callable[[int], StepInput], count: int) -> list[float]:
    """Return the milliseconds of each plan, including gas, floors and integers, but not the certificate,
    which is reckoned when it is shown or recorded.
    """
    times_ms = []
    for seed in range(count + 1):
        step = make_problem(seed)
        decision = rebalance_to_targets(step)
        began_s = process_time()
        _plan_or_none(step, decision)
        times_ms.append((process_time() - began_s) * 1e3)
    return times_ms[1:]


def measure_looks_ms(trigger: Trigger, destination: Destination, count: int) -> list[float]:
    """Return the mean milliseconds of a decision under a trigger, for each of some portfolios of 8
    tokens and 40 pools, before any plan. A first decision is not counted.
    """
    times_ms = []
    for seed in range(count):
        step = mixed_problem(seed)
        policy = replace(step.policy, trigger=trigger, destination=destination)
        step = complete_risk(replace(step, policy=policy))
        decide(step)
        began_s = process_time()
        for _ in range(LOOKS):
            decide(step)
        times_ms.append((process_time() - began_s) * 1e3 / LOOKS)
    return times_ms


def measure_rule_ms(count: int) -> list[float]:
    """Return the mean milliseconds of the tracking rule itself, with the costs of all routes, for each
    of some portfolios of 8 tokens and 40 pools. A first evaluation is not counted.
    """
    times_ms = []
    for seed in range(count):
        step = mixed_problem(seed)
        trigger = build_tracking("normal")
        step = complete_risk(replace(step, policy=replace(step.policy, trigger=trigger)))
        completed_trigger = cast(NoTradeZone, step.policy.trigger)
        prices = reference_prices(step).price_by_token
        evaluate = partial(
            evaluate_zone,
            PricedMarket.of_step(step, prices),
            completed_trigger.risk,
            compute_drifts(step, prices),
            counts_pairs=True,
        )
        evaluate()
        began_s = process_time()
        for _ in range(LOOKS):
            evaluate()
        times_ms.append((process_time() - began_s) * 1e3 / LOOKS)
    return times_ms


def time_solves(problems: Sequence[ContinuousProblem]) -> list[TimedSolution]:
    """Time our continuous solves; a first one is not counted."""
    planner_peers.solve_ours(problems[0])
    return [planner_peers.solve_ours(problem) for problem in problems]


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Return median, percentiles and maximum. A percentile is the smallest value that this share of
    the values does not exceed.
    """
    ascending = sorted(values)

    def percentile(share: float) -> float:
        return ascending[min(len(ascending) - 1, max(0, -int(-share * len(ascending) // 1) - 1))]

    return {
        "median": round(statistics.median(ascending), 6),
        "p90": round(percentile(0.9), 6),
        "p99": round(percentile(0.99), 6),
        "p99.9": round(percentile(0.999), 6),
        "max": round(ascending[-1], 6),
    }


def summarise_gaps(gaps: Sequence[float]) -> dict[str, float]:
    """Return the spread of gaps, and the number of those above WIDE_BPS."""
    return summarise(gaps or [0.0]) | {
        f"above_{WIDE_GAP_BPS}_bps": sum(gap > WIDE_GAP_BPS for gap in gaps)
    }


def compare_solvers(
    problems: Sequence[ContinuousProblem], our_solves: Sequence[TimedSolution]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the results of SLSQP and cvxpy for the continuous problems, and their times as multiples
    of ours.
    """
    solves_by_peer: dict[str, list[TimedSolution]] = {
        SLSQP: [planner_peers.solve_by_slsqp(problem) for problem in problems]
    }
    missing: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as folder:
        try:
            solves_by_peer[CVXPY] = planner_peers.solve_by_cvxpy(problems, Path(folder))
        except PeerMissing as error:
            missing[CVXPY] = {"missing": str(error)}
    peers = {
        name: {
            "continuous_ms": summarise([peer_solve.ms for peer_solve in peer_solves]),
            "ours_is_worth_more_bps": summarise(
                [
                    (our_solve.worth - b.worth) * BPS
                    for our_solve, b in zip(our_solves, peer_solves, strict=True)
                ]
            ),
        }
        for name, peer_solves in solves_by_peer.items()
    }
    ratios = {
        name: round(
            statistics.median(
                b.ms / our_solve.ms for our_solve, b in zip(our_solves, peer_solves, strict=True)
            ),
            1,
        )
        for name, peer_solves in solves_by_peer.items()
    }
    return peers | missing, ratios


def measure(count: int, with_solvers: bool) -> dict[str, Any]:
    """Measure everything and return one document."""
    timed_count = min(count, MAX_TIMED)
    problems = [planner_peers.continuous_problem(seed) for seed in range(timed_count)]
    our_solves = time_solves(problems)
    plan_times_ms = measure_plans_ms(typical_problem, timed_count)
    mixed_plan_times_ms = measure_plans_ms(mixed_problem, timed_count)
    looks_count = min(timed_count, MAX_LARGE)
    rule_looks_ms = measure_looks_ms(build_tracking("normal"), Destination.ZONE, looks_count)
    band_looks_ms = measure_looks_ms(Threshold(None, 1_000), Destination.TARGET, looks_count)
    large_plan_times = {
        f"{tokens} tokens, {pools} pools": summarise(
            measure_plans_ms(partial(large_step, tokens=tokens, pools=pools), min(count, MAX_LARGE))
        )
        for tokens, pools in LARGE_SIZES
    }
    coarse_unit_gaps = [
        float(best_plan.gap_bps or 0)
        for step in map(coarse_units, range(count))
        if (best_plan := _plan_or_none(step, rebalance_to_targets(step)))
    ]
    without_gas = measure_quality(map(any_problem, range(count)))
    with_gas = measure_quality(map(any_problem_with_gas, range(count)))
    peers: dict[str, Any] = {
        name: comparison_with(without_gas, name) | {"with_gas": comparison_with(with_gas, name)}
        for name in OTHER_METHODS
    }
    ratios: dict[str, float] = {}
    if with_solvers:
        solver_results, ratios = compare_solvers(problems[:50], our_solves[:50])
        peers |= solver_results
    ours = {
        "problems": count,
        "not_worth_a_trade": without_gas.refused_count,
        "gap_bps": summarise_gaps(without_gas.gaps_bps),
        "gap_with_gas_bps": summarise_gaps(with_gas.gaps_bps),
        "gap_coarse_units_bps": summarise_gaps(coarse_unit_gaps),
        "continuous_ms": summarise([solve.ms for solve in our_solves]),
        "plan_ms": summarise(plan_times_ms),
        "mixed_plan_ms": summarise(mixed_plan_times_ms),
        "rule_look_ms": summarise(rule_looks_ms),
        "band_look_ms": summarise(band_looks_ms),
        "rule_ms": summarise(measure_rule_ms(looks_count)),
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


def document_lines(document: dict[str, Any]) -> list[str]:
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
        statements = [
            f"ours is worth more by {advantage['median']:.4g} bps (median), {advantage['max']:.4g} at most"
        ]
        statements += (
            [f"worse in {peer['ours_is_worse']}, with gas in {peer['with_gas']['ours_is_worse']}"]
            if "with_gas" in peer
            else []
        )
        statements += (
            [f"{peer['continuous_ms']['median']:.4g} ms, {document['ratios'][name]}x"]
            if "continuous_ms" in peer
            else []
        )
        text_lines.append(f"{name}: {', '.join(statements)}")
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
    print(json.dumps(document) if options.json else "\n".join(document_lines(document)))


if __name__ == "__main__":
    main()
