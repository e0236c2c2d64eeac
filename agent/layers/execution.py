"""Layers in a running step: what they send, skip and end."""

from __future__ import annotations

from collections.abc import Callable

from agent.errors import Refused
from agent.execution.step_context import StepActors, StepOutcome
from agent.execution.step_run import StepRun
from agent.layers.futures.execution import send as futures
from agent.layers.futures.execution.resting_orders import end_resting_orders
from agent.layers.futures.execution.run import skip_refused_action
from agent.layers.liquidity.execution import send as liquidity
from agent.layers.liquidity.execution.run import skip_refused_withdrawal
from agent.model import Plan

BEFORE_PLAN: tuple[Callable[[StepRun, StepActors, StepOutcome], bool], ...] = (end_resting_orders,)
"""What a layer ends before the plan of an evaluation is carried out; true if it ended something, so
that the step is evaluated again.
"""
Sender = Callable[[StepRun, StepActors, StepOutcome, Plan], StepOutcome | None]
SENDERS: tuple[tuple[Callable[[Plan], bool], Sender], ...] = (
    (futures.sends, futures.send),
    (liquidity.sends, liquidity.send),
)
"""Senders of plans that act in a layer, each with the test of its plans; None if a new plan is
needed.
"""
SKIPS: tuple[Callable[[StepRun, StepOutcome, Refused], bool], ...] = (
    skip_refused_action,
    skip_refused_withdrawal,
)
"""What a layer leaves out for the rest of the step after a refusal just before sending; false for
a refusal of anything else.
"""
CONFIRMATIONS: tuple[Callable[[Plan, Plan], None], ...] = (liquidity.require_as_confirmed,)
"""Checks of the confirmed plan and the one that is sent, which raise Refused if the owner would not
expect it.
"""
