"""Random plans of every kind (tests/support/planning_worlds.py), simulated by the tests' own
arithmetic, some of them compared with cvxpy.

Hubs must end empty, all bounds and floors must hold, the plan's own figures must be right, and no plan
may be further from the optimum than its certificate states. The optimum is that of cvxpy with
Clarabel, in a temporary environment, over ranges computed here from the pools' states. It knows
neither gas nor base units, so problems with gas or with a coarse token are not compared; nor are
markets in which a pool pays more than the reference, since no plan trades for arbitrage. Exit code 1
after any error.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.amm.v2_pool import V2Pool
from agent.errors import Refused
from agent.model import Plan, Pool, StepInput
from agent.planning.planner import plan
from agent.reference import reference_prices
from agent.units import BPS, PIPS
from scripts.bench.planner_peers import PeerMissing, run_cvxpy
from tests.support.planning_peers import carry_out
from tests.support.planning_worlds import KINDS, any_problem, rebalance_to_targets

PROBLEMS_BY_KIND = {"usual": any_problem, **KINDS}
MAX_PRICE = 0.9
"""Upper bound of the cost per unit of value to move, if limits.plan_cost is off or higher."""
MAX_UNIT_SHARE = Fraction(1, 10**8)
"""Largest share of the portfolio that a base unit may be worth in a comparison with cvxpy."""
SOLVER_TOLERANCE = 1e-7
"""Tolerance of cvxpy's objective value, per unit of the portfolio."""


@dataclass
class Tally:
    """Results of the problems of one kind."""

    counts: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    gaps_bps: list[float] = field(default_factory=list)
    cvxpy_cases: list[tuple[str, dict[str, Any], float, float, float]] = field(default_factory=list)
    """Problem, its JSON, objective value and turnover per unit of the portfolio, and gap in bps."""


def curve_ranges(
    step: StepInput,
    pool: Pool,
    token_in: str,
    prices: dict[str, Fraction],
    portfolio_value: Fraction,
) -> list[Any] | None:
    """Return [keep, roots, depths] of one direction within impact bound and floor, per unit of the
    portfolio; None if it cannot trade.
    """
    limits = step.limits
    fee_factor = 1 - pool.fee_pips / PIPS
    token_out = pool.token1 if token_in == pool.token0 else pool.token0
    max_impact = (BPS - 1 if limits.price_impact_bps is None else limits.price_impact_bps) / BPS
    min_price_share = max(
        0.0, fee_factor - (1.0 if limits.price_impact_bps is None else max_impact)
    ) * (1 - (limits.slippage_bps or 0) / BPS)
    price_scale = math.sqrt(prices[token_out] / prices[token_in])
    depth_scale = (
        math.sqrt(prices[token_in]) * math.sqrt(prices[token_out]) / float(portfolio_value)
    )
    is_token0_in = token_in == pool.token0
    if isinstance(pool, V2Pool):
        reserve_in, reserve_out = (
            (pool.reserve0, pool.reserve1) if is_token0_in else (pool.reserve1, pool.reserve0)
        )
        max_input_share = (
            math.sqrt((1 + fee_factor) ** 2 + 4 * fee_factor * (1 / (1 - max_impact) - 1))
            - 1
            - fee_factor
        ) / (2 * fee_factor)
        start_root = math.sqrt(reserve_out / reserve_in)
        depth = math.sqrt(reserve_in) * math.sqrt(reserve_out)
        impact_root = start_root / (1 + fee_factor * max_input_share)
        roots = [start_root, impact_root]
        depths = [depth]
    else:
        sqrt_price = pool.sqrt_price_x96 / 2**96
        start_root = sqrt_price if is_token0_in else 1 / sqrt_price
        ticks = [
            t for t in pool.ticks if (t.index <= pool.tick if is_token0_in else t.index > pool.tick)
        ]
        roots = [start_root]
        depths = []
        depth = float(pool.liquidity)
        for tick in reversed(ticks) if is_token0_in else ticks:
            roots.append(1.0001 ** ((tick.index if is_token0_in else -tick.index) / 2))
            depths.append(depth)
            depth += -tick.liquidity_net if is_token0_in else tick.liquidity_net
        impact_root = start_root * math.sqrt(1 - max_impact)
    end_root = max(impact_root, math.sqrt(min_price_share / fee_factor) / price_scale)
    if start_root <= end_root or not depths:
        return None
    return [
        fee_factor,
        [max(root, end_root) * price_scale for root in roots],
        [depth * depth_scale for depth in depths],
    ]


def cvxpy_problem(step: StepInput, prices: dict[str, Fraction]) -> dict[str, Any] | None:
    """Return the problem for cvxpy, per unit of the portfolio; None if a pool pays more than the
    reference, or if no pool can trade.
    """
    tokens = [asset.token.address for asset in step.portfolio.assets]
    targets = [asset.target_bps / BPS for asset in step.portfolio.assets]
    hubs = [
        hub.address
        for hub in step.portfolio.hubs
        if hub.address in prices and hub.address not in tokens
    ]
    index_by_token = {token: index for index, token in enumerate((*tokens, *hubs))}
    balances = {holding.token: holding.raw for holding in step.snapshot.holdings}
    total = sum((balances[token] * prices[token] for token in tokens), Fraction(0))
    pool_edges = []
    for pool in step.snapshot.pools:
        if not {pool.token0, pool.token1} <= set(index_by_token):
            continue
        for token_in, token_out in ((pool.token0, pool.token1), (pool.token1, pool.token0)):
            curve = curve_ranges(step, pool, token_in, prices, total)
            if curve is not None:
                if curve[0] * curve[1][0] ** 2 >= 1 - 1e-6:
                    return None
                pool_edges.append([index_by_token[token_in], index_by_token[token_out], *curve])
    if not pool_edges:
        return None
    limits = step.limits
    return {
        "held": [float(balances[token] * prices[token] / total) for token in tokens]
        + [0.0] * len(hubs),
        "shares": targets + [0.0] * len(hubs),
        "price": (
            MAX_PRICE
            if limits.plan_cost_bps is None
            else min(limits.plan_cost_bps / BPS, MAX_PRICE)
        ),
        "hubs": list(range(len(tokens), len(index_by_token))),
        "budget": None if limits.turnover_bps is None else limits.turnover_bps / BPS,
        "arcs": pool_edges,
    }


def objective_value(
    step: StepInput, traded_plan: Plan, prices: dict[str, Fraction], price: float
) -> float:
    """Return the objective value of a plan per unit of the portfolio: final value less the price of
    its deviation from the targets.
    """
    balances = {holding.token: holding.raw for holding in step.snapshot.holdings}
    total = sum((raw * prices[token] for token, raw in balances.items()), Fraction(0))
    final_values = {token: raw * prices[token] for token, raw in traded_plan.holdings_after}
    final_total = sum(final_values.values(), Fraction(0))
    deviation = sum(
        (
            abs(final_values[asset.token.address] - final_total * asset.target_bps / BPS)
            for asset in step.portfolio.assets
        ),
        Fraction(0),
    )
    return float((final_total - Fraction(price) * deviation / 2) / total)


def plan_problems(kind: str, seeds: Sequence[int], max_questions: int) -> Tally:
    """Plan the problems with these seeds, and keep up to `max_questions` of them for cvxpy."""
    tally = Tally()
    for seed in seeds:
        step = PROBLEMS_BY_KIND[kind](seed)
        prices = reference_prices(step).price_by_token
        name = f"{kind} {seed}"
        try:
            best_plan = plan(step, rebalance_to_targets(step))
        except Refused as refusal:
            is_nothing_to_trade = "nothing to trade" in refusal.message
            tally.counts["nothing to trade" if is_nothing_to_trade else "refused"] += 1
            tally.errors += [] if is_nothing_to_trade else [f"{name}: {refusal.message}"]
            continue
        except Exception as error:  # errors are counted
            tally.counts["errors"] += 1
            tally.errors.append(f"{name}: {error!r}")
            continue
        tally.counts["planned"] += 1
        faults = carry_out(step, best_plan, prices.__getitem__).wrong
        tally.counts["leftovers"] += bool({"hub", "left in the router"} & set(faults))
        tally.counts["violations"] += bool(faults)
        tally.errors += [f"{name}: {fault}" for fault in faults]
        tally.gaps_bps.append(float(best_plan.gap_bps or 0))
        total = sum(holding.raw * prices[holding.token] for holding in step.snapshot.holdings)
        is_smooth = (
            best_plan.cost.gas + best_plan.cost.approval_gas == 0
            and max(prices.values()) < MAX_UNIT_SHARE * total
        )
        problem = (
            cvxpy_problem(step, prices)
            if is_smooth and len(tally.cvxpy_cases) < max_questions
            else None
        )
        if problem is not None:
            turnover_share = max(float(best_plan.turnover / total), 1 / BPS)
            tally.cvxpy_cases.append(
                (
                    name,
                    problem,
                    objective_value(step, best_plan, prices, problem["price"]),
                    turnover_share,
                    float(best_plan.gap_bps or 0),
                )
            )
    return tally


def compare_with_cvxpy(tallies: Sequence[Tally]) -> Iterator[str]:
    """Compare with cvxpy, record wrong certificates, and yield a summary line. Raises PeerMissing."""
    cvxpy_cases = [question for tally in tallies for question in tally.cvxpy_cases]
    with tempfile.TemporaryDirectory() as folder:
        answers = run_cvxpy([problem for _, problem, *_ in cvxpy_cases], Path(folder))
    solved_count = 0
    largest_gap_bps = 0.0
    largest_excess = -math.inf
    for (name, _, our_value, turnover_share, gap_bps), answer in zip(
        cvxpy_cases, answers, strict=True
    ):
        if answer["worth"] is None:
            continue
        solved_count += 1
        advantage = answer["worth"] - our_value
        largest_gap_bps = max(largest_gap_bps, advantage / turnover_share * BPS)
        largest_excess = max(largest_excess, advantage - gap_bps * turnover_share / BPS)
        if advantage - gap_bps * turnover_share / BPS > SOLVER_TOLERANCE:
            tallies[0].errors.append(
                f"{name}: the certificate says {gap_bps:.4f} bps, cvxpy finds"
                f" {advantage / turnover_share * BPS:.4f} bps more"
            )
    yield (
        f"cvxpy     {solved_count} of {len(cvxpy_cases)} solved; best plan {largest_gap_bps:.4f} bps better at"
        f" most; {largest_excess:.1e} beyond a certificate"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--problems", type=int, default=1_500, help="number of problems of each kind"
    )
    parser.add_argument("--first", type=int, default=0, help="seed of the first problem")
    parser.add_argument(
        "--kind", choices=sorted(PROBLEMS_BY_KIND), action="append", help="only these kinds"
    )
    parser.add_argument(
        "--cvxpy",
        type=int,
        default=0,
        help="number of each kind that cvxpy also solves (needs network access to install it)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    kinds = options.kind or list(PROBLEMS_BY_KIND)
    tallies = [
        plan_problems(kind, range(options.first, options.first + options.problems), options.cvxpy)
        for kind in kinds
    ]
    lines = []
    if options.cvxpy:
        try:
            lines += compare_with_cvxpy(tallies)
        except PeerMissing as error:
            tallies[0].errors.append(f"cvxpy could not be run: {error}")
    errors = [fault for tally in tallies for fault in tally.errors]
    document = {
        kind: {**tally.counts, "gap_bps": summarise(tally.gaps_bps)}
        for kind, tally in zip(kinds, tallies, strict=True)
    }
    if options.json:
        print(json.dumps({"kinds": document, "cvxpy": lines, "wrong": errors}))
    else:
        print(
            "\n".join(
                [*(f"{kind:<10}{figures}" for kind, figures in document.items()), *lines, *errors]
            )
        )
    sys.exit(1 if errors else 0)


def summarise(gaps: Sequence[float]) -> dict[str, float]:
    """Return median, 90th and 99th percentile, and maximum."""
    ascending = sorted(gaps) or [0.0]
    return {
        name: round(ascending[int((len(ascending) - 1) * share)], 4)
        for name, share in (("median", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1))
    }


if __name__ == "__main__":
    main()
