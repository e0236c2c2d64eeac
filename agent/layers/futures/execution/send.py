"""Sending of futures actions, one a plan."""

from __future__ import annotations

from agent.execution.sending import execute
from agent.execution.step_context import OutcomeKind, StepActors, StepOutcome
from agent.execution.step_run import StepRun
from agent.layers.futures.execution.run import MAX_ORDERS, FuturesRun, leave_failed_market
from agent.layers.futures.planning.plans import HEDGE
from agent.layers.futures.policy.needs import reduction_goals
from agent.layers.futures.requests import MoveMargin
from agent.layers.futures.state import planned_futures
from agent.model import HedgeChoices, PerpOrder, Plan


def sends(plan: Plan) -> bool:
    """True if the plan acts on futures."""
    return planned_futures(plan) is not None


def send(run: StepRun, actors: StepActors, outcome: StepOutcome, plan: Plan) -> StepOutcome | None:
    """Send the first futures action. Return None if a new plan is needed."""
    own = run.layer(FuturesRun)
    if (futures := planned_futures(plan)) is None:
        raise ValueError("a plan without futures actions is sent as swaps")
    action = futures.actions[0]
    frees = action.is_reduce_only if isinstance(action, PerpOrder) else futures.is_reducing
    frees = frees and not futures.resting
    prepared = actors.composer.layer_action(outcome.step_input, plan)
    otherwise = "no position was changed" if futures.orders else "no margin was moved"
    name = f'"{prepared.note}"'
    outcome = run.close(execute(run, actors, outcome, prepared, name, otherwise))
    own.orders += 1
    own.reduced = own.reduced or frees
    if isinstance(action, PerpOrder) and frees:
        own.reduced_markets += (action.market,)
        own.reduction_goals = reduction_goals(outcome.step_input, futures)
    if outcome.kind is OutcomeKind.FAILED and leave_failed_market(run, outcome, plan):
        return None
    if futures.trigger == HEDGE:
        choices = plan.layer(HedgeChoices).comparisons
        own.hedged += [comparison for comparison in choices if comparison.is_hedged]
    if outcome.kind is OutcomeKind.FAILED or own.orders == MAX_ORDERS:
        return outcome
    if isinstance(run.asked, MoveMargin):
        return outcome
    run.begin_plan()
    return None
