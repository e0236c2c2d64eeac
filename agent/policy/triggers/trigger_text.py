"""Text of a policy's trigger and side: shown for confirmation and by status."""

from __future__ import annotations

from agent.model import (
    AnyOf,
    Portfolio,
    TradeSide,
    Trigger,
)
from agent.policy.triggers.rules import RULES

SIDE_TEXTS = {
    TradeSide.SELL: "sells assets above their targets and keeps the proceeds in the numeraire",
    TradeSide.BUY: "buys assets below their goals with the numeraire held in excess of its target",
    TradeSide.WINNERS: "sells only assets above their bands",
    TradeSide.LOSERS: "buys only assets below their bands",
}


def format_trigger(trigger: Trigger, portfolio: Portfolio) -> str:
    """Return the text of a trigger, such as "threshold: 10% of the target"."""
    if isinstance(trigger, AnyOf):
        return "any of: " + "; ".join(
            format_trigger(member, portfolio) for member in trigger.triggers
        )
    return RULES[type(trigger)].describe(trigger, portfolio)
