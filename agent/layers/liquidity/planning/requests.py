"""Withdrawal of all liquidity, for the shutdown."""

from __future__ import annotations

from dataclasses import replace

from agent.errors import Refused
from agent.layers.liquidity.planning.actions import plan_liquidity
from agent.model import AdjustLiquidity, Halt, Plan, StepInput
from agent.policy.decide import decide


def plan_full_withdrawal(step: StepInput) -> Plan | Halt | Refused | None:
    """Return the plan that withdraws from the positions, the refusal of that plan, or the halt of
    the step; None without positions. Neither a stop nor unexplained increases block it.
    """
    if not step.portfolio.positions:
        return None
    history = step.history
    withdrawal_step = replace(
        step,
        limits=replace(step.limits, lp_max_weight_bps=0),
        portfolio=replace(
            step.portfolio, lp_targets=(), orders=replace(step.portfolio.orders, terms=())
        ),
        history=replace(
            history,
            stop_reason="",
            cash_flows=replace(history.cash_flows, unexplained_transfers=()),
        ),
        exclusions=replace(step.exclusions, exits_only_reason=""),
    )
    decision = decide(withdrawal_step).decision
    if isinstance(decision, AdjustLiquidity):
        try:
            return plan_liquidity(withdrawal_step, decision)
        except Refused as refusal:
            return refusal
    return decision if isinstance(decision, Halt) else None
