"""What a sandwich around a plan's swaps could take at most: how far their outputs may fall short of what was predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from agent.model import Funding, Plan, StepInput
from agent.reference import reference_prices
from agent.units import BPS, Value


@dataclass(frozen=True, slots=True)
class Exposure:
    """Most that the limits let a sandwich take, in bps: of what is exchanged, and of the portfolio per rebalance and per day.

    None where a limit that it depends on is off.
    """

    exchanged_bps: int | None
    per_rebalance_bps: int | None
    per_day_bps: int | None
    words: str


def by_limits(plan_cost_bps: int | None, slippage_bps: int | None, turnover_bps: int | None, daily_turnover_bps: int | None) -> Exposure:
    """(slippage + plan cost) × turnover.

    Where pools were pushed before the snapshot the skew is a cost, which plan_cost bounds at reference prices. Whatever
    happens afterwards, what reaches the wallet is at most slippage below the prediction, over hubs too: the last swap's
    minimum binds.
    """
    if plan_cost_bps is None or slippage_bps is None:
        off = " and ".join(f"limits.{name}" for name, value in (("plan_cost", plan_cost_bps), ("slippage", slippage_bps)) if value is None)
        return Exposure(None, None, None, f"a sandwich may take an unknown part of what is exchanged, since {off} is off")
    most_bps = min(plan_cost_bps + slippage_bps, BPS)
    words = [f"a sandwich may take up to {_percent(most_bps)} of what is exchanged (slippage + plan_cost)"]
    shares = []
    for limit_bps, name, when in ((turnover_bps, "turnover", "per rebalance"), (daily_turnover_bps, "daily_turnover", "per day")):
        share = None if limit_bps is None else math.ceil(Fraction(most_bps * limit_bps, BPS))
        shares.append(share)
        words.append(f"without bound {when}, since {name} is off" if share is None else f"{_percent(share)} of the portfolio {when}")
    return Exposure(most_bps, shares[0], shares[1], ", ".join(words))


def of_plan(step: StepInput, plan: Plan) -> Value | None:
    """What a sandwich around one plan could take of its prediction: each swap to the wallet pays its minimum only.

    At reference prices; None where a token received has none. What skew has cost before stands in the plan's cost.
    """
    prices = reference_prices(step).prices
    ends = [leg for leg in plan.legs if leg.sink is Funding.WALLET]
    if any(leg.token_out not in prices for leg in ends):
        return None
    return sum((max(0, leg.amount_out_raw - leg.min_out_raw) * prices[leg.token_out].price for leg in ends), Fraction(0))


def profit_of(plan: Plan, short: Value | None) -> Value | None:
    """The most that anybody earns with one plan, sandwiched or not: nobody gains more of it than it loses at reference prices.

    That is what it predicts of fees, impact and skew, and what its outputs may fall short of that (`short`, by of_plan).
    """
    return None if short is None else short + max(plan.cost.total - plan.cost.gas - plan.cost.approvals, Fraction(0))


def _percent(bps: int) -> str:
    return f"{bps / 100:g}%"
