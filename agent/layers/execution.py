"""Layers in a step that may act: what they send, skip and end, and their part of a cycle's outcome."""

from __future__ import annotations

from collections.abc import Callable

from agent.errors import Refused
from agent.execution.sending import PlanSender
from agent.execution.step_context import StepOutcome
from agent.execution.step_result import StepPorts, StepResult
from agent.layers.futures.execution.cycle import completed, skip_refused_action
from agent.layers.futures.execution.resting_orders import end_resting_orders
from agent.layers.futures.execution.send import FUTURES
from agent.layers.liquidity.execution.cycle import skip_refused_withdrawal
from agent.layers.liquidity.execution.send import LIQUIDITY, require_as_confirmed
from agent.model import Confirmation, Cycle, Plan

BEFORE_PLAN: tuple[Callable[[StepPorts, Cycle, StepOutcome], StepResult | None], ...] = (
    end_resting_orders,
)
"""What a layer ends in place of the plan of an evaluation, which the next step evaluates again; None
if it ends nothing.
"""
SENDERS: tuple[PlanSender, ...] = (FUTURES, LIQUIDITY)
"""Senders of plans that act in a layer."""
SKIPS: tuple[Callable[[Cycle, StepOutcome, Refused], StepResult | None], ...] = (
    skip_refused_action,
    skip_refused_withdrawal,
)
"""What a layer leaves out for the rest of the cycle after a refusal just before sending; None for
a refusal of anything else.
"""
COMPLETED: tuple[Callable[[Cycle, StepOutcome, Callable[[str], StepOutcome]], StepOutcome], ...] = (
    completed,
)
"""Outcome of a cycle with what it did and could not do in a layer; the last argument returns the
outcome of a step by its id.
"""
CONFIRMATIONS: tuple[Callable[[Confirmation, Plan], None], ...] = (require_as_confirmed,)
"""Checks of the confirmation and the plan that is sent, which raise Refused if the owner would not
expect it.
"""
