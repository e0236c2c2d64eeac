"""What to do when money comes or goes under the tracking rule, as JSON: nothing but the rule, a plan
at each arrival if it saves more than it costs (as `trimtab invest` does), the edges, or the targets.
Loss is costs + ½·λ·TE², bps of the portfolio a year; three coins and cash, λ = 1.

    .venv/bin/python scripts/bench/bench_deposits.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.bench.bench_tracking import Cell, rule_of, three_coins
from scripts.tracking.tracking_market import (
    BPS,
    HOURS_PER_YEAR,
    SMALLEST_LEG,
    is_beyond,
    plan_legs,
    solve_legs,
)

BY_RULE, IF_IT_PAYS, TO_EDGES, TO_TARGETS = range(4)
ANSWERS = {
    "rule": BY_RULE,
    "if it pays": IF_IT_PAYS,
    "edges": TO_EDGES,
    "targets": TO_TARGETS,
}
CELLS = (
    (5, 0.03, 5e3),
    (5, 0.03, 5e4),
    (30, 0.03, 5e3),
    (5, 0.6, 5e3),
    (30, 0.6, 5e3),
    (30, 0.03, 500),
)
"""Cost of the pools in bps, gas of a swap and portfolio in dollars."""
FLOWS = ((7, 0.01), (30, 0.05), (91, 0.2))
"""Days between two flows, share of the portfolio."""


class Flow(NamedTuple):
    """Each `every` bars the cash changes by `share`, in turn up and down if it `alternates`."""

    every: int
    share: float
    alternates: bool


@njit(cache=True)
def simulate_flows(market, weights, legs, risk, widths, flow, answer):  # type: ignore[no-untyped-def]
    """Return the loss a year."""
    returns = market.returns
    size = weights.size
    held = weights.copy()
    amounts = np.zeros(legs.source.size)
    is_active = np.ones(legs.source.size, dtype=np.bool_)
    loss = 0.0
    for bar in range(len(returns)):
        held *= 1 + returns[bar]
        held /= held.sum()
        has_flow = (bar + 1) % flow.every == 0
        if has_flow:
            is_payout = flow.alternates and (bar + 1) // flow.every % 2 == 1
            held[size - 1] += -flow.share if is_payout else flow.share
            held /= held.sum()
        deviation = held - weights
        amounts[:] = 0.0
        if has_flow and answer == TO_TARGETS:
            amounts[:] = deviation[legs.source]
        elif has_flow and answer == TO_EDGES:
            solve_legs(deviation, risk, legs, is_active, amounts)
        elif ((has_flow and answer == IF_IT_PAYS) or is_beyond(deviation, risk, widths)) and (
            not plan_legs(deviation, risk, legs, amounts)
        ):
            amounts[:] = 0.0
        for leg in range(legs.source.size):
            amount = abs(amounts[leg])
            if amount > SMALLEST_LEG:
                held[legs.source[leg]] -= amounts[leg]
                held[legs.target[leg]] += amounts[leg]
                loss += (
                    legs.unit_cost[leg] * amount
                    + legs.impact[leg] * amount * amount
                    + legs.gas[leg]
                )
        deviation = held - weights
        loss += deviation @ market.covariance @ deviation / 2 * market.bar_years
    return loss / (len(returns) * market.bar_years)


def main() -> None:
    """Print the losses, and the least and the largest ratio of each answer to the rule."""
    rows = []
    ratios: dict[str, list[float]] = {name: [] for name in ANSWERS}
    for fee_bps, gas, value in CELLS:
        world = three_coins(fee_bps)
        legs = Cell(world, gas, value, 1.0).legs()
        market = world.market()
        risk, widths = rule_of(market.covariance, world.weights, legs, 1.0)
        for days, share in FLOWS:
            for alternates in (False, True):
                losses = {
                    name: BPS
                    * simulate_flows(
                        market,
                        world.weights,
                        legs,
                        risk,
                        widths,
                        Flow(days * HOURS_PER_YEAR // 365, share, alternates),
                        answer,
                    )
                    for name, answer in ANSWERS.items()
                }
                for name, loss in losses.items():
                    ratios[name].append(loss / losses["rule"])
                rows.append(
                    {
                        "cost_bps": fee_bps,
                        "gas": gas,
                        "value": value,
                        "days": days,
                        "flow": share,
                        "in_turn": alternates,
                    }
                    | {name: round(loss, 2) for name, loss in losses.items()}
                )
    summary = {
        name: {
            "least": round(min(answer_ratios), 3),
            "mean": round(sum(answer_ratios) / len(answer_ratios), 3),
            "largest": round(max(answer_ratios), 3),
        }
        for name, answer_ratios in ratios.items()
    }
    print(json.dumps({"rows": rows, "ratio to the rule": summary}, indent=1))


if __name__ == "__main__":
    main()
