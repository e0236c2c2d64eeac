"""Layers in a step that may act: what they send, skip and end, and their part of a cycle's outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.errors import Refused
from agent.execution.sending import PlanSender
from agent.execution.step_context import StepOutcome
from agent.execution.step_result import StepPorts, StepResult
from agent.layers.futures.execution.cycle import completed_outcome, skip_refused_action
from agent.layers.futures.execution.order_sets import skip_unsendable_set
from agent.layers.futures.execution.resting_orders import end_resting_orders
from agent.layers.futures.execution.send import FUTURES_SENDER
from agent.layers.liquidity.execution.cycle import skip_refused_withdrawal
from agent.layers.liquidity.execution.send import LIQUIDITY_SENDER, require_as_confirmed
from agent.model import Confirmation, Cycle, Plan


@dataclass(frozen=True, slots=True)
class LayerExecution:
    """What a layer does in a step that may act."""

    sender: PlanSender
    """Sender of plans that act in the layer."""
    skip_refusal: Callable[[Cycle, StepOutcome, Refused], StepResult | None]
    """What the layer leaves out for the rest of the cycle after a refusal just before sending; None
    for a refusal of anything else.
    """
    before_confirmation: Callable[[StepPorts, Cycle, StepOutcome], StepResult | None] = (
        lambda ports, cycle, outcome: None
    )
    """Called after each evaluation, before a plan is confirmed. The layer may end something
    instead, such as a resting order, or leave out an order that would be refused; the next step
    then evaluates again. None if the plan may go on.
    """
    require_as_confirmed: Callable[[Confirmation, Plan], None] = lambda confirmation, plan: None
    """Check of the confirmation and the plan that is sent, which raises Refused if the owner would
    not expect it.
    """
    complete_outcome: Callable[[Cycle, StepOutcome, Callable[[str], StepOutcome]], StepOutcome] = (
        lambda cycle, outcome, outcome_of: outcome
    )
    """Outcome of a cycle with what it did and could not do in the layer; the last argument returns
    the outcome of a step by its id.
    """


LAYERS: tuple[LayerExecution, ...] = (
    LayerExecution(
        FUTURES_SENDER,
        skip_refused_action,
        before_confirmation=lambda ports, cycle, outcome: (
            end_resting_orders(ports, cycle, outcome) or skip_unsendable_set(ports, cycle, outcome)
        ),
        complete_outcome=completed_outcome,
    ),
    LayerExecution(
        LIQUIDITY_SENDER, skip_refused_withdrawal, require_as_confirmed=require_as_confirmed
    ),
)
"""Each layer that sends transactions."""
