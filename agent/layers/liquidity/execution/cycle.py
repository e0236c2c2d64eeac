"""What a cycle leaves out of liquidity after a refusal: a pool whose withdrawal was refused or
failed, while other pools are still withdrawn from.
"""

from __future__ import annotations

from dataclasses import replace

from agent.errors import Refused
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_result import StepResult, note_of
from agent.layers.liquidity.state import LiquidityCycle
from agent.model import Cycle, Plan, StepEnd
from agent.policy import failures


def pool_to_skip(cycle: Cycle, plan: Plan | None) -> str:
    """Return the pool of a plan that only withdraws liquidity; empty for other plans and after a
    swap.
    """
    if plan is None or not plan.layer_actions or cycle.swap_step_id:
        return ""
    pool = failures.exit_name(plan)
    return "" if pool in cycle.layer(LiquidityCycle).failed_withdrawal_pools else pool


def skip_pool(cycle: Cycle, pool: str, note: StepEnd) -> Cycle:
    """Return the cycle after a failed withdrawal. The rest of it skips the pool."""
    liquidity_cycle = cycle.layer(LiquidityCycle)
    liquidity_cycle = replace(
        liquidity_cycle,
        failed_withdrawal_pools=(*liquidity_cycle.failed_withdrawal_pools, pool),
        failed_withdrawals=(*liquidity_cycle.failed_withdrawals, note),
    )
    return cycle.after_exit().with_layer(liquidity_cycle)


def skip_refused_withdrawal(
    cycle: Cycle, outcome: StepOutcome, refusal: Refused
) -> StepResult | None:
    """For the rest of the cycle, skip a pool whose withdrawal was refused by simulation or signer,
    or for its gas. Return None for any other refusal.
    """
    concerns_withdrawal = evaluation.concerns_trade(refusal) or evaluation.is_wallet_limit_refusal(
        refusal
    )
    if not concerns_withdrawal or not (pool := pool_to_skip(cycle, outcome.plan)):
        return None
    refused_outcome = replace(
        outcome, kind=OutcomeKind.REFUSED, reason=str(refusal), refusal_verdicts=refusal.verdicts
    )
    return StepResult(skip_pool(cycle, pool, note_of(refused_outcome)), refused_outcome)
