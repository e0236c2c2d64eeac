"""Whether an order that waited is too late: it is never sent so that it could still be mined after its time (T14)."""

from __future__ import annotations

from agent.model import LimitOrder, StepInput
from agent.policy import words


def late(step: StepInput, order: LimitOrder) -> str:
    """Why nothing of the order may be sent any more at this block; empty while it may. A transaction counts until its deadline."""
    now_s, deadline_s = step.snapshot.head.timestamp_s, step.execution.deadline_s
    if now_s >= order.until_s:
        return f"expired {words.moment(order.until_s)}"
    if now_s + deadline_s > order.until_s:
        return f"expires {words.moment(order.until_s)}, sooner than a transaction of now would (execution.deadline {deadline_s} s)"
    return ""
