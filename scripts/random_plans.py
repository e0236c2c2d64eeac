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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.amm.v2_pool import V2Pool
from agent.errors import Refused
from agent.model import Plan, Pool, StepInput
from agent.planning.planner import plan
from agent.reference import reference_prices
from agent.units import BPS, PIPS
from scripts.planner_peers import Missing, in_cvxpy
from tests.support.planning_peers import carry_out
from tests.support.planning_worlds import KINDS, any_problem, goal

ALL = {"usual": any_problem, **KINDS}
MOST_PRICE = 0.9
"""Upper bound of the cost per unit of value to move, if limits.plan_cost is off or higher."""
UNIT = Fraction(1, 10**8)
"""Largest share of the portfolio that a base unit may be worth in a comparison with cvxpy."""
SOLVED = 1e-7
"""Tolerance of cvxpy's objective value, per unit of the portfolio."""


@dataclass
class Tally:
    """Results of the problems of one kind."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    questions: list[tuple[str, dict[str, Any], float, float, float]] = field(default_factory=list)
    """Problem, its JSON, objective value and turnover per unit of the portfolio, and gap in bps."""


def ranges(
    step: StepInput, pool: Pool, token_in: str, prices: dict[str, Fraction], total: Fraction
) -> list[Any] | None:
    """Return [keep, roots, depths] of one direction within impact bound and floor, per unit of the
    portfolio; None if it cannot trade.
    """
    limits, keep = step.limits, 1 - pool.fee_pips / PIPS
    token_out = pool.token1 if token_in == pool.token0 else pool.token0
    impact = (BPS - 1 if limits.price_impact_bps is None else limits.price_impact_bps) / BPS
    least = max(0.0, keep - (1.0 if limits.price_impact_bps is None else impact)) * (
        1 - (limits.slippage_bps or 0) / BPS
    )
    stretch = math.sqrt(prices[token_out] / prices[token_in])
    weight = math.sqrt(prices[token_in]) * math.sqrt(prices[token_out]) / float(total)
    forward = token_in == pool.token0
    if isinstance(pool, V2Pool):
        inside, outside = (
            (pool.reserve0, pool.reserve1) if forward else (pool.reserve1, pool.reserve0)
        )
        most = (math.sqrt((1 + keep) ** 2 + 4 * keep * (1 / (1 - impact) - 1)) - 1 - keep) / (
            2 * keep
        )
        start, depth = math.sqrt(outside / inside), math.sqrt(inside) * math.sqrt(outside)
        bound = start / (1 + keep * most)
        edges, depths = [start, bound], [depth]
    else:
        here = pool.sqrt_price_x96 / 2**96
        start = here if forward else 1 / here
        ticks = [
            t for t in pool.ticks if (t.index <= pool.tick if forward else t.index > pool.tick)
        ]
        edges, depths, depth = [start], [], float(pool.liquidity)
        for tick in reversed(ticks) if forward else ticks:
            edges.append(1.0001 ** ((tick.index if forward else -tick.index) / 2))
            depths.append(depth)
            depth += -tick.liquidity_net if forward else tick.liquidity_net
        bound = start * math.sqrt(1 - impact)
    end = max(bound, math.sqrt(least / keep) / stretch)
    if start <= end or not depths:
        return None
    return [
        keep,
        [max(edge, end) * stretch for edge in edges],
        [depth * weight for depth in depths],
    ]


def question(step: StepInput, prices: dict[str, Fraction]) -> dict[str, Any] | None:
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
    position = {at: number for number, at in enumerate((*tokens, *hubs))}
    held = {holding.token: holding.raw for holding in step.snapshot.holdings}
    total = sum((held[at] * prices[at] for at in tokens), Fraction(0))
    pool_edges = []
    for pool in step.snapshot.pools:
        if not {pool.token0, pool.token1} <= set(position):
            continue
        for token_in, token_out in ((pool.token0, pool.token1), (pool.token1, pool.token0)):
            found = ranges(step, pool, token_in, prices, total)
            if found is not None:
                if found[0] * found[1][0] ** 2 >= 1 - 1e-6:
                    return None
                pool_edges.append([position[token_in], position[token_out], *found])
    if not pool_edges:
        return None
    limits = step.limits
    return {
        "held": [float(held[at] * prices[at] / total) for at in tokens] + [0.0] * len(hubs),
        "shares": targets + [0.0] * len(hubs),
        "price": (
            MOST_PRICE
            if limits.plan_cost_bps is None
            else min(limits.plan_cost_bps / BPS, MOST_PRICE)
        ),
        "hubs": list(range(len(tokens), len(position))),
        "budget": None if limits.turnover_bps is None else limits.turnover_bps / BPS,
        "arcs": pool_edges,
    }


def achieved(step: StepInput, found: Plan, prices: dict[str, Fraction], price: float) -> float:
    """Return the objective value of a plan per unit of the portfolio: final value less the price of
    its deviation from the targets.
    """
    held = {holding.token: holding.raw for holding in step.snapshot.holdings}
    total = sum((raw * prices[at] for at, raw in held.items()), Fraction(0))
    ends = {at: raw * prices[at] for at, raw in found.holdings_after}
    after = sum(ends.values(), Fraction(0))
    off = sum(
        (
            abs(ends[asset.token.address] - after * asset.target_bps / BPS)
            for asset in step.portfolio.assets
        ),
        Fraction(0),
    )
    return float((after - Fraction(price) * off / 2) / total)


def tried(kind: str, seeds: Sequence[int], asked: int) -> Tally:
    """Plan the problems with these seeds, and keep up to `asked` of them for cvxpy."""
    tally = Tally()
    for seed in seeds:
        step = ALL[kind](seed)
        prices = reference_prices(step).by_token
        name = f"{kind} {seed}"
        try:
            found = plan(step, goal(step))
        except Refused as refusal:
            plain = "nothing to trade" in refusal.message
            tally.counts["nothing to trade" if plain else "refused"] += 1
            tally.wrong += [] if plain else [f"{name}: {refusal.message}"]
            continue
        except Exception as error:  # errors are counted
            tally.counts["errors"] += 1
            tally.wrong.append(f"{name}: {error!r}")
            continue
        tally.counts["planned"] += 1
        faults = carry_out(step, found, prices.__getitem__).wrong
        tally.counts["leftovers"] += bool({"hub", "left in the router"} & set(faults))
        tally.counts["violations"] += bool(faults)
        tally.wrong += [f"{name}: {fault}" for fault in faults]
        tally.gaps.append(float(found.gap_bps or 0))
        held = sum(holding.raw * prices[holding.token] for holding in step.snapshot.holdings)
        is_smooth = (
            found.cost.gas + found.cost.approvals == 0 and max(prices.values()) < UNIT * held
        )
        posed = question(step, prices) if is_smooth and len(tally.questions) < asked else None
        if posed is not None:
            basis = max(float(found.turnover / held), 1 / BPS)
            tally.questions.append(
                (
                    name,
                    posed,
                    achieved(step, found, prices, posed["price"]),
                    basis,
                    float(found.gap_bps or 0),
                )
            )
    return tally


def against_cvxpy(tallies: Sequence[Tally]) -> Iterator[str]:
    """Compare with cvxpy, record wrong certificates, and yield a summary line. Raises Missing."""
    questions = [asked for tally in tallies for asked in tally.questions]
    with tempfile.TemporaryDirectory() as folder:
        answers = in_cvxpy([posed for _, posed, *_ in questions], Path(folder))
    compared, largest, beyond = 0, 0.0, -math.inf
    for (name, _, ours, basis, gap), answer in zip(questions, answers, strict=True):
        if answer["worth"] is None:
            continue
        compared += 1
        better = answer["worth"] - ours
        largest, beyond = (
            max(largest, better / basis * BPS),
            max(beyond, better - gap * basis / BPS),
        )
        if better - gap * basis / BPS > SOLVED:
            tallies[0].wrong.append(
                f"{name}: the certificate says {gap:.4f} bps, cvxpy finds"
                f" {better / basis * BPS:.4f} bps more"
            )
    yield (
        f"cvxpy     {compared} of {len(questions)} solved; best plan {largest:.4f} bps better at"
        f" most; {beyond:.1e} beyond a certificate"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--problems", type=int, default=1_500, help="number of problems of each kind"
    )
    parser.add_argument("--first", type=int, default=0, help="seed of the first problem")
    parser.add_argument("--kind", choices=sorted(ALL), action="append", help="only these kinds")
    parser.add_argument(
        "--cvxpy",
        type=int,
        default=0,
        help="number of each kind that cvxpy also solves (needs network access to install it)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    kinds = options.kind or list(ALL)
    tallies = [
        tried(kind, range(options.first, options.first + options.problems), options.cvxpy)
        for kind in kinds
    ]
    lines = []
    if options.cvxpy:
        try:
            lines += against_cvxpy(tallies)
        except Missing as missing:
            tallies[0].wrong.append(f"cvxpy could not be run: {missing}")
    wrong = [fault for tally in tallies for fault in tally.wrong]
    document = {
        kind: {**tally.counts, "gap_bps": spread(tally.gaps)}
        for kind, tally in zip(kinds, tallies, strict=True)
    }
    if options.json:
        print(json.dumps({"kinds": document, "cvxpy": lines, "wrong": wrong}))
    else:
        print(
            "\n".join(
                [*(f"{kind:<10}{figures}" for kind, figures in document.items()), *lines, *wrong]
            )
        )
    sys.exit(1 if wrong else 0)


def spread(gaps: Sequence[float]) -> dict[str, float]:
    """Return median, 90th and 99th percentile, and maximum."""
    ordered = sorted(gaps) or [0.0]
    return {
        name: round(ordered[int((len(ordered) - 1) * part)], 4)
        for name, part in (("median", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1))
    }


if __name__ == "__main__":
    main()
