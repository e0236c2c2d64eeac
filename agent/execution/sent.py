"""What a step has sent so far: its gas money, and who may still take what because of it."""

from __future__ import annotations

from collections.abc import Sequence

from agent.model import Intent
from agent.ports import Approval


def gas_wei(sent: Sequence[Intent]) -> int:
    """Gas money of all that was mined, wei."""
    return sum(intent.receipt.gas_cost_wei for intent in sent if intent.receipt is not None)


def may_take(allowed: Sequence[Approval]) -> str:
    """Who may still take what, in words."""
    labels: dict[str, list[str]] = {}
    for approval in allowed:
        labels.setdefault(approval.holder, []).append(approval.label)
    return " and ".join(f"the {holder} may still take {', '.join(tokens)}" for holder, tokens in labels.items())
