"""Sending of liquidity actions, one a plan."""

from __future__ import annotations

from agent.errors import Refused
from agent.execution.evaluation import REPLAN_REMEDY
from agent.execution.sending import execute
from agent.execution.step_context import OutcomeKind, StepActors, StepOutcome
from agent.execution.step_run import StepRun
from agent.layers.liquidity.execution.run import LiquidityRun, leave_pool, pool_to_leave
from agent.model import Plan


def sends(plan: Plan) -> bool:
    """True if the plan moves liquidity."""
    return bool(plan.actions)


def send(run: StepRun, actors: StepActors, outcome: StepOutcome, plan: Plan) -> StepOutcome | None:
    """Send the first liquidity action. Return None if a new plan is needed."""
    own = run.layer(LiquidityRun)
    own.history_before = own.history_before or outcome.step_input.history
    prepared = actors.composer.liquidity(outcome.step_input, plan)
    name, otherwise = f'"{prepared.note}"', "no liquidity was moved"
    outcome = run.close(execute(run, actors, outcome, prepared, name, otherwise))
    if outcome.kind is OutcomeKind.FAILED and (pool := pool_to_leave(run, plan)):
        leave_pool(run, pool, outcome)
        return None
    own.actions += 1
    if outcome.kind is OutcomeKind.FAILED or not own.follows_swaps:
        return outcome
    run.begin_plan()
    return None


def require_as_confirmed(confirmed: Plan, plan: Plan) -> None:
    """Raise Refused if liquidity comes first in place of the confirmed swaps."""
    if plan.actions and not confirmed.actions:
        raise Refused("liquidity must be moved before the confirmed swaps", remedy=REPLAN_REMEDY)
