"""Guard of the holding time, which does not trust the planner."""

from __future__ import annotations

from agent.guards.case import GuardCase, GuardMeasurement
from agent.guards.guard import Guard
from agent.layers.holding.policy import hold_ends_s_by_token, tokens_sold_early
from agent.layers.holding.state import HoldingConfig
from agent.model import Rebalance, StepInput
from agent.units import format_time


def _measure_sales(case: GuardCase, hold_end_s_by_token: dict[str, int]) -> GuardMeasurement:
    """Return the held tokens that the plan sells. Exits and manual swaps pass."""
    del hold_end_s_by_token
    sold_tokens = tokens_sold_early(case.step, case.plan)
    decision = case.plan.decision
    if not sold_tokens:
        return GuardMeasurement("sells none of them", True)
    sales_text = (
        f"sells {', '.join(case.step.portfolio.token(token).label for token in sold_tokens)}"
    )
    if (isinstance(decision, Rebalance) and decision.by_hand) or case.is_sell_only():
        return GuardMeasurement(f"{sales_text} (not applied)", True)
    return GuardMeasurement(sales_text, False)


def _read_limit(step: StepInput) -> dict[str, int] | None:
    return hold_ends_s_by_token(step) if step.config(HoldingConfig).tokens else None


def _limit_text(hold_end_s_by_token: dict[str, int], step: StepInput) -> str:
    texts = [
        f"no {step.portfolio.token(token).label} before {format_time(end_s)}"
        for token, end_s in hold_end_s_by_token.items()
    ]
    return ", ".join(texts) or "nothing was bought lately"


HOLDING_GUARD = Guard(
    "holding",
    _read_limit,
    _limit_text,
    _measure_sales,
    "wait until then, or lower holding.hours",
)
