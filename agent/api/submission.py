"""Who sees a transaction before it is mined, and what a sandwich around it could take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from agent.config.schema import Config
from agent.execution.outcome import Outcome
from agent.guards.exposure import Exposure, by_limits, of_plan, profit_of
from agent.units import BPS, Value

PRIVATE, PUBLIC, EITHER = "private endpoint", "public mempool", "private endpoint, public mempool where it fails"

ANNOUNCED = "an approval in public tells which token is sold, and how much of it, before the swap is sent"
"""Part of the warning before public submission (T15)."""


__all__ = ["Sandwich", "exposure", "of_plan", "sandwich", "submission", "submission_text"]


@dataclass(frozen=True, slots=True)
class Sandwich:
    """`public` says whether others may see the transaction in time; on a local chain there are none.

    `at_most` of the plan's swaps, in numeraire base units, is exact for the plan (None: no plan, or a price is missing).
    `at_most_bps` is that of the plan's turnover, rounded up. `by_limits` is what the limits let any plan lose. `profit_at_most`
    is what anybody can earn with the plan, who also takes what it pays as fees, impact and skew whoever looks on.
    """

    submission: str
    public: bool
    at_most: Value | None
    at_most_bps: int | None
    by_limits: Exposure
    profit_at_most: Value | None = None


def submission(config: Config) -> str:
    """Who gets the signed bytes."""
    if not config.execution.submit_url.get_secret_value():
        return PUBLIC
    return EITHER if config.execution.submit_public_fallback else PRIVATE


def exposure(config: Config) -> Exposure:
    """What the limits let a sandwich take of public transactions."""
    limits = config.limits
    return by_limits(limits.plan_cost, limits.slippage, limits.turnover, limits.daily_turnover)


def sandwich(config: Config, outcome: Outcome) -> Sandwich:
    """What could be taken of the plan of a step."""
    plan = outcome.plan
    at_most = None if plan is None else of_plan(outcome.step_input, plan)
    bps = None if plan is None or at_most is None or plan.turnover <= 0 else math.ceil(at_most / plan.turnover * BPS)
    how = submission(config)
    profit = None if plan is None else profit_of(plan, at_most)
    return Sandwich(how, how != PRIVATE and not config.chain.local, at_most, bps, exposure(config), profit)


def submission_text(config: Config) -> str:
    """For the owner to confirm: who gets the bytes, and on a live chain what that could cost."""
    how = submission(config)
    return how if how == PRIVATE or config.chain.local else f"{how}: {exposure(config).words}; {ANNOUNCED}"
