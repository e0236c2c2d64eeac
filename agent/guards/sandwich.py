"""Sandwich exposure: the largest shortfall of swaps against their predicted outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from agent.model import (
    LegFunding,
    Plan,
    StepInput,
)
from agent.planning.gas import balance_deltas
from agent.planning.partial_plans import worst_case_gas
from agent.reference import (
    ReferencePrices,
    deviation_loss,
    reference_prices,
)
from agent.units import BPS, Value


@dataclass(frozen=True, slots=True)
class SandwichExposure:
    """Largest sandwich loss that the limits allow, in bps: of turnover, and of the portfolio per
    rebalance and per day. None if a limit is off.
    """

    exchanged_bps: int | None
    per_rebalance_bps: int | None
    per_day_bps: int | None
    words: str


def sandwich_exposure(
    plan_cost_bps: int | None,
    slippage_bps: int | None,
    turnover_bps: int | None,
    daily_turnover_bps: int | None,
    deviation_bps: int | None,
    priced: int = 1,
) -> SandwichExposure:
    """Return the worst-case sandwich loss by the limits: (slippage + plan cost + deviation) ×
    turnover.

    plan_cost bounds the cost of pools manipulated before the snapshot, at reference prices.
    Later manipulation lowers the output by at most the slippage, even across hubs, because the
    minimum of the last swap applies. The reference price of each token but the numeraire may be
    off by `deviation_bps`; `priced` is 2 if a swap may exchange two such tokens.
    """
    if plan_cost_bps is None or slippage_bps is None or deviation_bps is None:
        off = " and ".join(
            f"limits.{name}"
            for name, value in (
                ("plan_cost", plan_cost_bps),
                ("slippage", slippage_bps),
                ("oracle_deviation", deviation_bps),
            )
            if value is None
        )
        return SandwichExposure(
            None,
            None,
            None,
            f"a sandwich may take an unknown part of the exchanged value, because {off} is off",
        )
    most_bps = min(plan_cost_bps + slippage_bps + priced * deviation_bps, BPS)
    times = "" if priced == 1 else f"{priced} × "
    words = [
        f"a sandwich may take up to {_percent(most_bps)} of the exchanged value (slippage +"
        f" plan_cost + {times}oracle_deviation)"
    ]
    shares: list[int | None] = []
    for limit_bps, name, when in (
        (turnover_bps, "turnover", "per rebalance"),
        (daily_turnover_bps, "daily_turnover", "per day"),
    ):
        if limit_bps is None:
            shares.append(None)
            words.append(f"unbounded {when}, because {name} is off")
        else:
            share = math.ceil(Fraction(most_bps * limit_bps, BPS))
            shares.append(share)
            words.append(f"{_percent(share)} of the portfolio {when}")
    return SandwichExposure(most_bps, shares[0], shares[1], ", ".join(words))


def plan_sandwich_loss(references: ReferencePrices, plan: Plan) -> Value | None:
    """Return the largest sandwich loss of a plan at reference prices: the predicted outputs less
    their minimums.

    None if a received token has no reference price. Skew before the snapshot is part of the plan's
    cost.
    """
    prices = references.prices
    ends = [leg for leg in plan.legs if leg.sink is LegFunding.WALLET]
    if any(leg.token_out not in prices for leg in ends):
        return None
    return sum(
        (
            max(0, leg.amount_out_raw - leg.min_out_raw) * prices[leg.token_out].price
            for leg in ends
        ),
        Fraction(0),
    )


def plan_worst_case(step: StepInput, plan: Plan) -> Value | None:
    """Return the largest cost of a plan: every swap at its minimum, all gas burned at its highest
    price, and all prices off by limits.oracle_deviation; None if a received token, or the native
    coin that pays gas, has no reference price.
    """
    if (short := plan_sandwich_loss(reference_prices(step), plan)) is None:
        return None
    if plan.gas_units and step.portfolio.wrapped_native not in reference_prices(step).prices:
        return None
    traded = plan.cost.total - plan.cost.gas - plan.cost.approvals
    off = deviation_loss(step, balance_deltas(plan.legs))
    return traded + worst_case_gas(step, plan) + short + off


def max_extractable_profit(step: StepInput, plan: Plan, short: Value | None) -> Value | None:
    """Return the largest profit of third parties from a plan, which is its largest loss.

    It is the sum of predicted fees, impact and skew, the sandwich loss `short` (see
    plan_sandwich_loss), and the loss by prices that are limits.oracle_deviation off.
    """
    if short is None:
        return None
    traded = max(plan.cost.total - plan.cost.gas - plan.cost.approvals, Fraction(0))
    return short + traded + deviation_loss(step, balance_deltas(plan.legs))


def _percent(bps: int) -> str:
    return f"{bps / 100:g}%"
