"""The end of limit orders that rest at a venue: before a step acts, it cancels those that its
newest evaluation no longer wants.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_result import StepPorts, StepResult, close_step
from agent.layers.futures.execution.cycle import futures_plan_of
from agent.layers.futures.policy.limit_orders import order_end_reasons
from agent.layers.futures.policy.targets import DRIFT_REASONS
from agent.layers.futures.state import FuturesConfig, FuturesCycle, futures_policy, futures_state
from agent.model import Cycle


def end_resting_orders(ports: StepPorts, cycle: Cycle, outcome: StepOutcome) -> StepResult | None:
    """Cancel the resting orders that this evaluation ends; None if there are none. Each is tried
    once in a cycle: a cancel that fails delays nothing else.
    """
    if outcome.step_input.config(FuturesConfig).policy is None:
        return None
    futures_cycle = cycle.layer(FuturesCycle)
    open_intents = ports.store.journal.open_intents()
    note_by_cloid = {
        str(intent.tx_hash): intent.note for intent in open_intents if intent.is_resting
    }
    earlier_note_by_cloid = dict(futures_cycle.ended_order_notes)
    reason_by_cloid = end_reasons(outcome, note_by_cloid.keys() - earlier_note_by_cloid.keys())
    if not reason_by_cloid:
        return None
    end_note_by_cloid = {
        cloid: f"order ended ({note_by_cloid[cloid]}): {why}"
        for cloid, why in reason_by_cloid.items()
    }
    outcome_reason = "; ".join(end_note_by_cloid.values())
    cycle = cycle.with_layer(
        replace(
            futures_cycle,
            ended_order_notes=tuple((earlier_note_by_cloid | end_note_by_cloid).items()),
        )
    )
    ports.store.cycles.write(cycle)
    ended_outcome = replace(outcome, kind=OutcomeKind.HOLD, plan=None, reason=outcome_reason)
    close_step(ports.store, ended_outcome)
    ports.transactor.executor.cancel_resting_orders(reason_by_cloid, outcome.step_id)
    return StepResult(cycle, ended_outcome)


def end_reasons(outcome: StepOutcome, cloids: Collection[str]) -> dict[str, str]:
    """Return why an evaluation ends resting orders: a halt, an exit, and reductions that do more
    than follow the targets end all of them.
    """
    if not cloids:
        return {}
    layer_plan = futures_plan_of(outcome)
    end_reason = ""
    if outcome.kind is OutcomeKind.HALT:
        end_reason = outcome.reason
    elif outcome.decision_result.exit_token:
        end_reason = "an exit is due"
    elif layer_plan is not None and layer_plan.orders and layer_plan.is_reducing:
        drift_triggers = {trigger.value for trigger in DRIFT_REASONS}
        end_reason = "" if layer_plan.trigger in drift_triggers else "positions are reduced"
    if end_reason:
        return dict.fromkeys(cloids, end_reason)
    step = outcome.step_input
    return order_end_reasons(step.snapshot, futures_policy(step), futures_state(step), cloids)
