"""Swaps at a limit price: whether a plan reaches it, and minimums that enforce it on the chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.amm.swap_errors import KnownTicksExceeded
from agent.errors import Refused
from agent.model import (
    NATIVE_VENUE,
    Leg,
    LegPlace,
    Plan,
    Portfolio,
    StepInput,
    Verdict,
)
from agent.planning import planner
from agent.planning.partial_plans import (
    swap_legs,
)
from agent.planning.rounding import plan_pools_out_of_ticks
from agent.units import (
    NATIVE,
    Price,
    Value,
    ceil_int,
    price_text,
)


def plan_limit_swap(
    step: StepInput, token_in: str, token_out: str, amount_in_raw: int, limit_price: Fraction
) -> tuple[Plan | None, str]:
    """Return a manual swap at `limit_price` or better, with minimums to match, else None and the
    reason to wait.

    `limit_price` is base units of `token_out` per base unit of `token_in`; the exact output, after
    fees and impact, has to reach it. Raises KnownTicksExceeded if more ticks of its pools might
    give it.
    """
    try:
        plan = planner.plan_swap(step, token_in, token_out, amount_in_raw)
    except KnownTicksExceeded as ticks_error:
        raise KnownTicksExceeded(
            f"it cannot be planned now: {ticks_error.message}",
            ticks_error.verdicts[0],
            ticks_error.remedy,
            ticks_error.pool_addresses,
        ) from None
    except Refused as refusal:
        return None, f"it cannot be planned now: {refusal.message}"
    unit_prices = {
        token_out: Fraction(1),
        **({NATIVE: Fraction(1)} if token_out == step.portfolio.wrapped_native else {}),
    }
    min_value = amount_in_raw * limit_price
    if limit_reached(plan, unit_prices, min_value):
        return with_raised_minimums(plan, unit_prices, min_value), ""
    wait_reason = (
        "its price is"
        f" {_limit_price_text(output_value(plan, unit_prices) / amount_in_raw, step.portfolio, token_in, token_out)} now"
    )
    if exhausted_pools := plan_pools_out_of_ticks(step, plan.legs):
        raise KnownTicksExceeded(
            wait_reason,
            Verdict("known_ticks", "all that were read", "more of them", False),
            "",
            exhausted_pools,
        )
    return None, wait_reason


def limit_reached(plan: Plan, prices: Mapping[str, Price], min_value: Value) -> bool:
    """True if the plan's exact outputs are worth at least `min_value` at these prices."""
    return output_value(plan, prices) >= min_value


def with_raised_minimums(plan: Plan, prices: Mapping[str, Price], min_value: Value) -> Plan:
    """Return the plan with minimums raised to a total of `min_value` at these prices, so that the
    chain enforces the limit price too.

    Each minimum rises to an equal fraction of its leg's predicted output, never above the output
    and never below its old value; that of a leg whose output is unwrapped to the wallet rises with
    the unwrapping.
    """
    total_output_value = output_value(plan, prices)
    if total_output_value <= 0:
        return plan

    def with_raised_minimum(leg: Leg) -> Leg:
        raised_raw = ceil_int(leg.amount_out_raw * min_value / total_output_value)
        return replace(leg, min_out_raw=max(leg.min_out_raw, min(leg.amount_out_raw, raised_raw)))

    paying_legs = {
        index
        for index, leg in enumerate(plan.legs)
        if leg.sink is LegPlace.WALLET and (leg.venue != NATIVE_VENUE or _unwraps_output(leg))
    }
    paying_legs |= {
        index - 1 for index, leg in enumerate(plan.legs) if index and _unwraps_output(leg)
    }
    legs = (
        with_raised_minimum(leg) if index in paying_legs else leg
        for index, leg in enumerate(plan.legs)
    )
    return replace(plan, legs=tuple(legs))


def _unwraps_output(leg: Leg) -> bool:
    """Return whether a leg unwraps the output of the leg before it to the wallet."""
    return leg.venue == NATIVE_VENUE and leg.source is LegPlace.ROUTER


def output_value(plan: Plan, prices: Mapping[str, Price]) -> Value:
    """Return the value of the plan's exact outputs at these prices."""
    return sum(
        (
            leg.amount_out_raw * prices.get(leg.token_out, Fraction(0))
            for leg in swap_legs(plan)
            if leg.sink is LegPlace.WALLET
        ),
        Fraction(0),
    )


def _limit_price_text(price: Fraction, portfolio: Portfolio, token_in: str, token_out: str) -> str:
    sold_token = portfolio.token(token_in)
    bought_token = portfolio.token(token_out)
    return f"{price_text(price, sold_token.decimals, bought_token.decimals)} {bought_token.label} per {sold_token.label}"
