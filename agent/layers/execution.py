"""Layers in a step that may act: what they send, skip and end, and their part of a cycle's outcome."""

from __future__ import annotations

from collections.abc import Callable

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

PRE_CONFIRMATION_ACTIONS: tuple[
    Callable[[StepPorts, Cycle, StepOutcome], StepResult | None], ...
] = (end_resting_orders, skip_unsendable_set)
"""Called after each evaluation, before a plan is confirmed. A layer may end something instead, such as a
resting order, or leave out an order that would be refused; the next step then evaluates again. None
if the plan may go on.
"""
SENDERS: tuple[PlanSender, ...] = (FUTURES_SENDER, LIQUIDITY_SENDER)
"""Senders of plans that act in a layer."""
REFUSAL_SKIPS: tuple[Callable[[Cycle, StepOutcome, Refused], StepResult | None], ...] = (
    skip_refused_action,
    skip_refused_withdrawal,
)
"""What a layer leaves out for the rest of the cycle after a refusal just before sending; None for
a refusal of anything else.
"""
OUTCOME_COMPLETERS: tuple[
    Callable[[Cycle, StepOutcome, Callable[[str], StepOutcome]], StepOutcome], ...
] = (completed_outcome,)
"""Outcome of a cycle with what it did and could not do in a layer; the last argument returns the
outcome of a step by its id.
"""
CONFIRMATION_CHECKS: tuple[Callable[[Confirmation, Plan], None], ...] = (require_as_confirmed,)
"""Checks of the confirmation and the plan that is sent, which raise Refused if the owner would not
expect it.
"""
