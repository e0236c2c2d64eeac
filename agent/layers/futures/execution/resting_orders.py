"""The end of limit orders that rest at a venue: before a step acts, it cancels those that its
newest evaluation no longer wants.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from agent.execution.step_context import OutcomeKind, StepActors, StepOutcome
from agent.execution.step_run import StepRun
from agent.layers.futures.execution.run import FuturesRun, futures_plan
from agent.layers.futures.policy.limit_orders import ended_orders
from agent.layers.futures.policy.targets import DRIFT_REASONS


def end_resting_orders(run: StepRun, actors: StepActors, outcome: StepOutcome) -> bool:
    """Cancel the resting orders that this evaluation ends; True if any was cancelled, so that the
    step is evaluated again. Each is tried once in a step: a cancel that fails delays nothing else.
    """
    own = run.layer(FuturesRun)
    open_intents = run.store.journal.open_intents()
    resting = {str(intent.tx_hash): intent.note for intent in open_intents if intent.rests}
    reasons = end_reasons(outcome, resting.keys() - own.ended_orders.keys())
    if not reasons:
        return False
    ended = {cloid: f"order ended ({resting[cloid]}): {why}" for cloid, why in reasons.items()}
    own.ended_orders |= ended
    noted = "; ".join(ended.values())
    run.close(replace(outcome, kind=OutcomeKind.HOLD, plan=None, reason=noted))
    actors.executor.cancel_resting(reasons, outcome.step_id)
    return True


def end_reasons(outcome: StepOutcome, cloids: Collection[str]) -> dict[str, str]:
    """Return why an evaluation ends resting orders: a halt, an exit, and reductions that do more
    than follow the targets end all of them.
    """
    if not cloids:
        return {}
    futures, why = futures_plan(outcome), ""
    if outcome.kind is OutcomeKind.HALT:
        why = outcome.reason
    elif outcome.decided.exit_token:
        why = "an exit is due"
    elif futures is not None and futures.orders and futures.is_reducing:
        drifts = {trigger.value for trigger in DRIFT_REASONS}
        why = "" if futures.trigger in drifts else "positions are reduced"
    return dict.fromkeys(cloids, why) if why else ended_orders(outcome.step_input, cloids)
