"""What a plan predicted of balances, against what the receipts say came of it."""

from __future__ import annotations

from typing import Any

from agent import wiring
from agent.books.plans import wallet_changes as planned_changes
from agent.execution.outcome import Outcome
from agent.execution.settle import native_delta
from agent.lp import own
from agent.model import Intent, IntentKind
from agent.units import NATIVE


def realised(desk: wiring.Desk, outcome: Outcome) -> list[dict[str, Any]]:
    """Planned against realised change of each balance by the receipts of the swap and of all actions with liquidity, base units."""
    planned: dict[str, int] = {}
    got: dict[str, int] = {}
    for intent in outcome.transactions:
        if intent.receipt is None or intent.kind not in (IntentKind.SWAP, IntentKind.LIQUIDITY, IntentKind.UNWRAP):
            continue
        owner = outcome.step_input.snapshot.owner
        net = {NATIVE: native_delta(intent, owner, desk.portfolio.wrapped_native)} | intent.receipt.net(owner)
        for token, raw in _planned(desk, intent).items():
            planned[token] = planned.get(token, 0) + raw
            got[token] = got.get(token, 0) + net.get(token, 0)
    return [
        {"symbol": desk.portfolio.token(token).label, "planned_raw": str(raw), "realised_raw": str(got[token])}
        for token, raw in planned.items()
    ]


def _planned(desk: wiring.Desk, intent: Intent) -> dict[str, int]:
    grant = desk.store.grant(intent.id)
    if grant.action is not None:
        return dict(zip((grant.action.token0, grant.action.token1), own.expected(grant.action), strict=True))
    return {} if grant.plan is None else planned_changes(grant.plan)
