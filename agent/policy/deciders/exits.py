"""Sales of triggered exits, and trades that wait for one."""

from __future__ import annotations

from dataclasses import replace

from agent.model import (
    Hold,
    Rebalance,
    StepInput,
)
from agent.policy import native_coin
from agent.policy import rebalance as rebalances
from agent.policy.decision import DecisionContext, DecisionResult
from agent.policy.orders import exits


def sell_triggered_exits(context: DecisionContext) -> DecisionResult | None:
    """Sell the assets of triggered exit orders, one at a time; None if the wallet has none left."""
    if context.stop_fault:
        return None
    step = context.step
    drifts = context.drifts
    if (sale := exits.triggered_exit(step, drifts)) is None:
        return None
    if refill := native_coin.top_up(step, sale):
        return context.result(refill)
    return replace(context.result(sale), exit_token=exits.exit_tokens(step, drifts)[0])


def hold_beside_exit(step: StepInput, decision_result: DecisionResult) -> DecisionResult:
    """Hold in place of a rebalance if guards refused its plan, or if an exit awaits its confirming
    blocks: the rebalance might buy what the exit sells in the next cycle. Exits themselves are not
    held.
    """
    decision = decision_result.decision
    if not isinstance(decision, Rebalance) or decision.is_exit:
        return decision_result
    if step.progress.spot_hold_reason:
        hold = Hold(f"{decision.reason}; {step.progress.spot_hold_reason}")
    elif step.history.orders.states and (notes := exits.unconfirmed_notes(step, exits_only=True)):
        hold = rebalances.unconfirmed_hold(decision.reason, "; ".join(notes))
    else:
        return decision_result
    return decision_result.without_trades(hold).unreviewed()
