"""What to do when money comes or goes under the tracking rule, as JSON: nothing but the rule, a plan
at each arrival if it saves more than it costs (as `trimtab invest` does), the edges, or the targets.
Loss is costs + ½·λ·TE², bps of the portfolio a year; three coins and cash, λ = 1.

    .venv/bin/python scripts/bench_deposits.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numba import njit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.bench_tracking import Cell, rule_of, three_coins
from scripts.tracking_market import (
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


@njit(cache=True)
def simulate_flows(  # type: ignore[no-untyped-def]
    returns,
    weights,
    source,
    target,
    unit_cost,
    gas,
    impact,
    risk,
    widths,
    every,
    flow,
    alternates,
    answer,
    covariance,
    bar_years,
):
    """Return the loss a year. Each `every` bars the cash changes by `flow`, in turn up and down if
    it `alternates`.
    """
    size = weights.size
    held = weights.copy()
    amounts = np.zeros(source.size)
    is_active = np.ones(source.size, dtype=np.bool_)
    loss = 0.0
    for bar in range(len(returns)):
        held *= 1 + returns[bar]
        held /= held.sum()
        has_flow = (bar + 1) % every == 0
        if has_flow:
            is_payout = alternates and (bar + 1) // every % 2 == 1
            held[size - 1] += -flow if is_payout else flow
            held /= held.sum()
        deviation = held - weights
        amounts[:] = 0.0
        if has_flow and answer == TO_TARGETS:
            amounts[:] = deviation[source]
        elif has_flow and answer == TO_EDGES:
            solve_legs(deviation, risk, source, target, unit_cost, impact, is_active, amounts)
        elif ((has_flow and answer == IF_IT_PAYS) or is_beyond(deviation, risk, widths)) and (
            not plan_legs(deviation, risk, source, target, unit_cost, gas, impact, amounts)
        ):
            amounts[:] = 0.0
        for leg in range(source.size):
            amount = abs(amounts[leg])
            if amount > SMALLEST_LEG:
                held[source[leg]] -= amounts[leg]
                held[target[leg]] += amounts[leg]
                loss += unit_cost[leg] * amount + impact[leg] * amount * amount + gas[leg]
        deviation = held - weights
        loss += deviation @ covariance @ deviation / 2 * bar_years
    return loss / (len(returns) * bar_years)


def main() -> None:
    """Print the losses, and the least and the largest ratio of each answer to the rule."""
    rows = []
    ratios: dict[str, list[float]] = {name: [] for name in ANSWERS}
    for fee_bps, gas, value in CELLS:
        world = three_coins(fee_bps)
        legs = Cell(world, gas, value, 1.0).legs()
        market = world.market()
        risk, widths = rule_of(market.covariance, world.weights, legs, 1.0)
        for days, flow in FLOWS:
            for alternates in (False, True):
                losses = {
                    name: BPS
                    * simulate_flows(
                        market.returns,
                        world.weights,
                        legs.source,
                        legs.target,
                        legs.unit_cost,
                        legs.gas,
                        legs.impact,
                        risk,
                        widths,
                        days * HOURS_PER_YEAR // 365,
                        flow,
                        alternates,
                        answer,
                        market.covariance,
                        market.bar_years,
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
                        "flow": flow,
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
