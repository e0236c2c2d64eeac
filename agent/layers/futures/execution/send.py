"""Sending of futures actions, one a plan."""

from __future__ import annotations

from dataclasses import replace

from agent.execution.sending import Draft, PlanSender
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.execution.cycle import MAX_ORDERS, leave_failed_market
from agent.layers.futures.planning.plans import HEDGE
from agent.layers.futures.policy.needs import reduction_goals
from agent.layers.futures.requests import MoveMargin
from agent.layers.futures.state import FuturesCycle, planned_futures
from agent.model import Cycle, CycleEnd, HedgeChoices, Intent, PerpOrder, Plan
from agent.ports import Composer


def _draft(composer: Composer, outcome: StepOutcome, plan: Plan) -> Draft:
    """Return the plan's first futures action."""
    prepared = composer.layer_action(outcome.step_input, plan)
    is_order = (futures := planned_futures(plan)) is not None and futures.orders
    otherwise = "no position was changed" if is_order else "no margin was moved"
    return Draft(prepared, f'"{prepared.note}"', otherwise)


def _after_sent(cycle: Cycle, outcome: StepOutcome, plan: Plan, intent: Intent) -> Cycle:
    """Return the cycle after the plan's first futures action, successful or not."""
    if (futures := planned_futures(plan)) is None:
        raise ValueError("a plan without futures actions is sent as swaps")
    own, action = cycle.layer(FuturesCycle), futures.actions[0]
    frees = action.is_reduce_only if isinstance(action, PerpOrder) else futures.is_reducing
    frees = frees and not futures.resting
    failed = outcome.kind is OutcomeKind.FAILED
    own = replace(
        own,
        orders=own.orders + 1,
        reverted=own.reverted + failed,
        reduced=own.reduced or frees,
    )
    if isinstance(action, PerpOrder) and frees:
        markets = (*own.reduced_markets, action.market)
        goals = reduction_goals(outcome.step_input.snapshot, futures)
        own = replace(own, reduced_markets=markets, reduction_goals=goals)
    if failed and (left := leave_failed_market(own, outcome, plan, intent)) is not None:
        return cycle.with_layer(left).begin_plan()
    if futures.trigger == HEDGE:
        choices = plan.layer(HedgeChoices).comparisons
        hedged = [comparison for comparison in choices if comparison.is_hedged]
        own = replace(own, hedged=(*own.hedged, *hedged))
    cycle = cycle.with_layer(own)
    if failed:
        return cycle.end(CycleEnd.FAILED)
    if own.orders == MAX_ORDERS:
        return cycle.end(CycleEnd.BOUND)
    if isinstance(cycle.request, MoveMargin):
        return cycle.end(CycleEnd.DONE)
    return cycle.begin_plan()


FUTURES = PlanSender(lambda plan: planned_futures(plan) is not None, _draft, _after_sent)
