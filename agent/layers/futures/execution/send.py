"""Sending of futures actions, one a plan."""

from __future__ import annotations

from dataclasses import replace

from agent.execution.sending import Draft, PlanSender
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.execution.cycle import MAX_ORDERS, skip_failed_market
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
    failure_text = "no position was changed" if is_order else "no margin was moved"
    return Draft(prepared, f'"{prepared.note}"', failure_text)


def _after_sent(cycle: Cycle, outcome: StepOutcome, plan: Plan, intent: Intent) -> Cycle:
    """Return the cycle after the plan's first futures action, successful or not."""
    if (futures := planned_futures(plan)) is None:
        raise ValueError("a plan without futures actions is sent as swaps")
    futures_cycle, action = cycle.layer(FuturesCycle), futures.actions[0]
    frees_margin = action.is_reduce_only if isinstance(action, PerpOrder) else futures.is_reducing
    frees_margin = frees_margin and not futures.resting
    is_failed = outcome.kind is OutcomeKind.FAILED
    futures_cycle = replace(
        futures_cycle,
        orders=futures_cycle.orders + 1,
        reverted=futures_cycle.reverted + is_failed,
        reduced=futures_cycle.reduced or frees_margin,
    )
    if isinstance(action, PerpOrder) and frees_margin:
        markets = (*futures_cycle.reduced_markets, action.market)
        goals = reduction_goals(outcome.step_input.snapshot, futures)
        futures_cycle = replace(futures_cycle, reduced_markets=markets, reduction_goals=goals)
    if (
        is_failed
        and (after_failure := skip_failed_market(futures_cycle, outcome, plan, intent)) is not None
    ):
        return cycle.with_layer(after_failure).begin_plan()
    if futures.trigger == HEDGE:
        choices = plan.layer(HedgeChoices).comparisons
        hedged = [comparison for comparison in choices if comparison.is_hedged]
        futures_cycle = replace(futures_cycle, hedged=(*futures_cycle.hedged, *hedged))
    cycle = cycle.with_layer(futures_cycle)
    if is_failed:
        return cycle.end(CycleEnd.FAILED)
    if futures_cycle.orders == MAX_ORDERS:
        return cycle.end(CycleEnd.STEP_LIMIT)
    if isinstance(cycle.request, MoveMargin):
        return cycle.end(CycleEnd.DONE)
    return cycle.begin_plan()


FUTURES_SENDER = PlanSender(lambda plan: planned_futures(plan) is not None, _draft, _after_sent)
