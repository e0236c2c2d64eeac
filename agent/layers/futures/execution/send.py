"""Sending of futures actions: one a plan, or its reductions together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.execution.sending import Draft, PlanSender
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.execution.cycle import (
    MAX_ACTIONS,
    sent_markets,
    skip_failed_market,
    skip_failed_orders,
)
from agent.layers.futures.planning.plans import OPEN_HEDGE
from agent.layers.futures.policy.needs import reduction_goals
from agent.layers.futures.requests import MarginAccountRequest
from agent.layers.futures.state import FuturesCycle, planned_futures
from agent.model import Cycle, CycleEnd, HedgeChoices, Intent, PerpOrder, Plan
from agent.ports import Composer


def _draft(composer: Composer, outcome: StepOutcome, plan: Plan) -> Draft:
    """Return the plan's first futures action."""
    prepared_tx = composer.layer_transaction(outcome.step_input, plan)
    sends_order = (layer_plan := planned_futures(plan)) is not None and layer_plan.orders
    failure_text = "no position was changed" if sends_order else "no margin was moved"
    return Draft(prepared_tx, f'"{prepared_tx.note}"', failure_text)


def _after_sent(cycle: Cycle, outcome: StepOutcome, plan: Plan, intent: Intent) -> Cycle:
    """Return the cycle after the plan's first futures action, or after all orders of an action that
    were sent together, successful or not.
    """
    if (layer_plan := planned_futures(plan)) is None:
        raise ValueError("a plan without futures actions is sent as swaps")
    futures_cycle = cycle.layer(FuturesCycle)
    action = layer_plan.actions[0]
    frees_margin = (
        action.is_reduce_only if isinstance(action, PerpOrder) else layer_plan.is_reducing
    )
    frees_margin = frees_margin and not layer_plan.resting_actions
    intents = outcome.transactions or (intent,)
    failed_intents = [sent for sent in intents if not sent.succeeded]
    has_failed = outcome.kind is OutcomeKind.FAILED
    futures_cycle = replace(
        futures_cycle,
        action_count=futures_cycle.action_count + len(intents),
        reverted_count=futures_cycle.reverted_count
        + max(has_failed, len(failed_intents) if len(intents) > 1 else 0),
        has_reduced=futures_cycle.has_reduced or frees_margin,
    )
    if isinstance(action, PerpOrder) and frees_margin:
        markets = sent_markets(outcome, intents) if len(intents) > 1 else [action.market]
        goal_sizes = reduction_goals(outcome.step_input.snapshot, layer_plan)
        futures_cycle = replace(
            futures_cycle,
            reduced_markets=(*futures_cycle.reduced_markets, *markets),
            reduction_goals=goal_sizes,
        )
    if len(intents) > 1:
        return _after_orders(cycle.with_layer(futures_cycle), outcome, failed_intents)
    if (
        has_failed
        and (skipping_cycle := skip_failed_market(futures_cycle, outcome, plan, intent)) is not None
    ):
        return cycle.with_layer(skipping_cycle).begin_plan()
    if layer_plan.trigger == OPEN_HEDGE and not has_failed:
        comparisons = plan.layer(HedgeChoices).comparisons
        hedged_comparisons = [comparison for comparison in comparisons if comparison.is_hedged]
        futures_cycle = replace(
            futures_cycle, hedge_comparisons=(*futures_cycle.hedge_comparisons, *hedged_comparisons)
        )
    cycle = cycle.with_layer(futures_cycle)
    if has_failed:
        return cycle.end(CycleEnd.FAILED)
    if futures_cycle.action_count >= MAX_ACTIONS:
        return cycle.end(CycleEnd.STEP_LIMIT)
    if isinstance(cycle.request, MarginAccountRequest):
        return cycle.end(CycleEnd.DONE)
    return cycle.begin_plan()


def _after_orders(cycle: Cycle, outcome: StepOutcome, failed_intents: Sequence[Intent]) -> Cycle:
    """Return the cycle after several orders of one action: the markets of those that failed are
    skipped for its rest.
    """
    futures_cycle = skip_failed_orders(cycle.layer(FuturesCycle), outcome, failed_intents)
    cycle = cycle.with_layer(futures_cycle)
    if futures_cycle.action_count >= MAX_ACTIONS:
        return cycle.end(CycleEnd.FAILED if failed_intents else CycleEnd.STEP_LIMIT)
    return cycle.begin_plan()


FUTURES_SENDER = PlanSender(lambda plan: planned_futures(plan) is not None, _draft, _after_sent)
