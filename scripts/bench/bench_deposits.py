"""What to do when money comes or goes under the tracking rule, as JSON: nothing but the rule, a plan
at each arrival if it saves more than it costs (as `trimtab invest` does), the edges, or the targets.
Then payouts of more cash than there is: a sale of what lacks alone (as `trimtab withdraw` does, with
the rule after it), or one that goes on to the edges if that pays, or always, or to the targets.
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


PAYOUTS = ((30, 0.4), (91, 0.4), (365, 0.4), (365, 0.6))
"""Days between two payouts, share of the portfolio; its cash has 30 % as target."""


class Flow(NamedTuple):
    """Each `every` bars the cash changes by `share`: up, in turn up and down if it `alternates`, or
    only down. Then the answer acts if the cash is less than the payout.
    """

    every: int
    share: float
    alternates: bool
    only_down: bool = False


@njit(cache=True)
def raise_cash(held, weights, legs, amounts):  # type: ignore[no-untyped-def]
    """Add to `amounts` the sales that cover the cash that lacks, from the asset furthest above its
    target to the next.
    """
    cash = weights.size - 1
    missing = -held[cash] - amounts.sum()
    while missing > SMALLEST_LEG:
        best = -1
        surplus = 0.0
        for leg in range(legs.source.size):
            coin = legs.source[leg]
            excess = held[coin] - amounts[leg] - weights[coin]
            if best < 0 or excess > surplus:
                best = leg
                surplus = excess
        amount = min(missing, max(surplus, SMALLEST_LEG * 2))
        amounts[best] += amount
        missing -= amount


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
            is_payout = flow.only_down or (flow.alternates and (bar + 1) // flow.every % 2 == 1)
            held[size - 1] += -flow.share if is_payout else flow.share
            held /= held.sum()
        is_short = flow.only_down and held[size - 1] < 0
        has_flow = has_flow and (is_short or not flow.only_down)
        deviation = held - weights
        amounts[:] = 0.0
        if has_flow and answer == TO_TARGETS:
            amounts[:] = deviation[legs.source]
        elif has_flow and answer == TO_EDGES:
            solve_legs(deviation, risk, legs, is_active, amounts)
        elif not (is_short and answer == BY_RULE) and (
            ((has_flow and answer == IF_IT_PAYS) or is_beyond(deviation, risk, widths))
            and not plan_legs(deviation, risk, legs, amounts)
        ):
            amounts[:] = 0.0
        if is_short:
            raise_cash(held, weights, legs, amounts)
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


def ratios_and_rows(flows: list[tuple[int, float, str]]) -> dict[str, object]:
    """Return the losses by cell and flow, and each answer's ratios to the rule."""
    rows = []
    ratios: dict[str, list[float]] = {name: [] for name in ANSWERS}
    for fee_bps, gas, value in CELLS:
        world = three_coins(fee_bps)
        legs = Cell(world, gas, value, 1.0).legs()
        market = world.market()
        risk, widths, _ = rule_of(market.covariance, world.weights, legs, 1.0)
        for days, share, way in flows:
            flow = Flow(days * HOURS_PER_YEAR // 365, share, way == "in turn", way == "out")
            losses = {
                name: BPS * simulate_flows(market, world.weights, legs, risk, widths, flow, answer)
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
                    "way": way,
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
    return {"rows": rows, "ratio to the rule": summary}


def main() -> None:
    """Print the losses, and the least and the largest ratio of each answer to the rule."""
    flows = [(days, share, way) for days, share in FLOWS for way in ("in", "in turn")]
    payouts = [(days, share, "out") for days, share in PAYOUTS]
    print(
        json.dumps({"flows": ratios_and_rows(flows), "payouts": ratios_and_rows(payouts)}, indent=1)
    )


if __name__ == "__main__":
    main()
