"""The check of a set of longs and shorts before the first of them is sent: a leg that the venue
would refuse is left out, and the set planned again.
"""

from __future__ import annotations

from dataclasses import replace

from agent.errors import Refused, TrimtabError
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_result import StepPorts, StepResult, close_step, end_step
from agent.layers.futures.execution.cycle import futures_plan_of, skip_refused_action
from agent.layers.futures.policy.books import is_two_sided
from agent.model import Cycle


def skip_unsendable_set(ports: StepPorts, cycle: Cycle, outcome: StepOutcome) -> StepResult | None:
    """Compose, and so simulate, the later openings of a set of longs and shorts; return the step
    without the first that is refused, None if the set may be sent. Only an order of its own shows
    whether it fills, and the earlier ones cannot be taken back.
    """
    layer_plan = futures_plan_of(outcome)
    if outcome.kind is not OutcomeKind.PLANNED or outcome.plan is None or layer_plan is None:
        return None
    if layer_plan.completes_set or not layer_plan.set_goals or not is_two_sided(layer_plan.orders):
        return None
    for order in layer_plan.orders[1:]:
        leg_plan = outcome.plan.with_layer(replace(layer_plan, orders=(order,)))
        try:
            ports.transactor.composer.layer_transaction(outcome.step_input, leg_plan)
        except Refused as refusal:
            skip_result = skip_refused_action(cycle, replace(outcome, plan=leg_plan), refusal)
            if skip_result is not None and skip_result.outcome is not None:
                close_step(ports.store, skip_result.outcome)
            return skip_result
        except TrimtabError as error:
            end_step(ports.store, outcome, str(error), "error")
            raise
    return None
