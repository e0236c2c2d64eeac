"""What a sandwich around a plan's swaps could take at most: how far their outputs may fall short of what was predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from agent.model import Plan, StepInput
from agent.reference import reference_prices
from agent.units import BPS, Value


@dataclass(frozen=True, slots=True)
class Exposure:
    """Most that the limits let a sandwich take, in bps: of each swap, and of the portfolio per rebalance and per day.

    None where a limit that it depends on is off.
    """

    per_swap_bps: int | None
    per_rebalance_bps: int | None
    per_day_bps: int | None
    words: str


def by_limits(price_impact_bps: int | None, slippage_bps: int | None, turnover_bps: int | None, daily_turnover_bps: int | None) -> Exposure:
    """(slippage + price impact) × turnover.

    No swap pays less than (1 − fee − impact limit) × (1 − slippage) of the reference price (planning.floors.fair_floor), so
    it gives away at most their sum beyond the pool's fee, also where the pool was pushed before the snapshot was read.
    """
    if price_impact_bps is None or slippage_bps is None:
        off = " and ".join(name for name, value in (("price_impact", price_impact_bps), ("slippage", slippage_bps)) if value is None)
        return Exposure(None, None, None, f"a sandwich may take an unknown part of each swap: limits.{off} is off")
    swap_bps = min(price_impact_bps + slippage_bps, BPS)
    words = [f"a sandwich may take up to {_percent(swap_bps)} of each swap (price_impact + slippage)"]
    shares = []
    for limit_bps, name, when in ((turnover_bps, "turnover", "per rebalance"), (daily_turnover_bps, "daily_turnover", "per day")):
        share = None if limit_bps is None else math.ceil(Fraction(swap_bps * limit_bps, BPS))
        shares.append(share)
        words.append(f"without bound {when}, since {name} is off" if share is None else f"{_percent(share)} of the portfolio {when}")
    return Exposure(swap_bps, shares[0], shares[1], ", ".join(words))


def of_plan(step: StepInput, plan: Plan) -> Value | None:
    """The same for one plan, exactly: all swaps paying their minimum only, at reference prices; None where one has no price.

    Where swaps follow each other over a hub each of them counts, although the minimum of the last alone binds: at most this.
    """
    prices = reference_prices(step).prices
    if any(leg.token_out not in prices for leg in plan.legs):
        return None
    return sum(((leg.amount_out_raw - leg.min_out_raw) * prices[leg.token_out].price for leg in plan.legs), Fraction(0))


def _percent(bps: int) -> str:
    return f"{bps / 100:g}%"
