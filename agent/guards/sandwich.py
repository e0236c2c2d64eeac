"""Sandwich exposure: the largest shortfall of swaps against their predicted outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from agent.model import (
    LegPlace,
    Plan,
    StepInput,
)
from agent.planning.partial_plans import worst_case_gas
from agent.policy.cash_flows import transfers
from agent.reference import (
    deviation_loss,
    reference_prices,
)
from agent.units import BPS, Value, format_bps


@dataclass(frozen=True, slots=True)
class SandwichExposure:
    """Largest sandwich loss that the limits allow, in bps: of turnover, and of the portfolio per
    rebalance and per day. None if a limit is off.
    """

    exchanged_loss_bps: int | None
    per_rebalance_bps: int | None
    per_day_bps: int | None
    description: str


def sandwich_exposure(
    plan_cost_bps: int | None,
    slippage_bps: int | None,
    turnover_bps: int | None,
    daily_turnover_bps: int | None,
    deviation_bps: int | None,
    priced_tokens_per_swap: int = 1,
) -> SandwichExposure:
    """Return the worst-case sandwich loss by the limits: (slippage + plan cost + deviation) ×
    turnover.

    plan_cost bounds the cost of pools manipulated before the snapshot, at reference prices.
    Later manipulation lowers the output by at most the slippage, even across hubs, because the
    minimum of the last swap applies. The reference price of each token but the numeraire may be
    off by `deviation_bps`; `priced_tokens_per_swap` is 2 if a swap may exchange two such tokens.
    """
    if plan_cost_bps is None or slippage_bps is None or deviation_bps is None:
        off_limits = [
            f"limits.{limit_name}"
            for limit_name, limit_value_bps in (
                ("plan_cost", plan_cost_bps),
                ("slippage", slippage_bps),
                ("oracle_deviation", deviation_bps),
            )
            if limit_value_bps is None
        ]
        are_off_text = f"{' and '.join(off_limits)} {'is' if len(off_limits) == 1 else 'are'} off"
        return SandwichExposure(
            None,
            None,
            None,
            f"a sandwich may take an unknown part of the exchanged value, because {are_off_text}",
        )
    max_loss_bps = min(plan_cost_bps + slippage_bps + priced_tokens_per_swap * deviation_bps, BPS)
    factor_text = "" if priced_tokens_per_swap == 1 else f"{priced_tokens_per_swap} × "
    sentence_parts = [
        f"a sandwich may take up to {format_bps(max_loss_bps)} of the exchanged value (slippage +"
        f" plan_cost + {factor_text}oracle_deviation)"
    ]
    period_losses_bps: list[int | None] = []
    for limit_bps, limit_name, period in (
        (turnover_bps, "turnover", "per rebalance"),
        (daily_turnover_bps, "daily_turnover", "per day"),
    ):
        if limit_bps is None:
            period_losses_bps.append(None)
            sentence_parts.append(f"unbounded {period}, because {limit_name} is off")
        else:
            loss_bps = math.ceil(Fraction(max_loss_bps * limit_bps, BPS))
            period_losses_bps.append(loss_bps)
            sentence_parts.append(f"{format_bps(loss_bps)} of the portfolio {period}")
    return SandwichExposure(
        max_loss_bps, period_losses_bps[0], period_losses_bps[1], ", ".join(sentence_parts)
    )


def plan_sandwich_loss(step: StepInput, plan: Plan) -> Value | None:
    """Return the largest sandwich loss of a plan at reference prices: the predicted outputs less
    their minimums. Native coin has the price of its wrapped token.

    None if a received token has no reference price. Skew before the snapshot is part of the plan's
    cost.
    """
    references = reference_prices(step)
    loss = Fraction(0)
    for leg in plan.legs:
        if leg.sink is LegPlace.WALLET:
            price = transfers.token_price(step.portfolio, references, leg.token_out)
            if price is None:
                return None
            loss += max(0, leg.amount_out_raw - leg.min_out_raw) * price
    return loss


def plan_worst_case(step: StepInput, plan: Plan) -> Value | None:
    """Return the largest cost of a plan: every swap at its minimum, all gas burned at its highest
    price, and all prices off by limits.oracle_deviation; None if a received token, or the native
    coin that pays gas, has no reference price.
    """
    if (sandwich_loss := plan_sandwich_loss(step, plan)) is None:
        return None
    if (
        plan.gas_units
        and step.portfolio.wrapped_native not in reference_prices(step).reference_by_token
    ):
        return None
    deviation_value = deviation_loss(step, plan.wallet_changes())
    return plan.cost.without_gas + worst_case_gas(step, plan) + sandwich_loss + deviation_value


def max_extractable_profit(
    step: StepInput, plan: Plan, sandwich_loss: Value | None
) -> Value | None:
    """Return the largest profit of third parties from a plan, which is its largest loss.

    It is the sum of predicted fees, impact and skew, the sandwich loss `sandwich_loss` (see
    plan_sandwich_loss), and the loss by prices that are limits.oracle_deviation off.
    """
    if sandwich_loss is None:
        return None
    swap_cost = max(plan.cost.without_gas, Fraction(0))
    return sandwich_loss + swap_cost + deviation_loss(step, plan.wallet_changes())
