"""Looks of a run that may send."""

from __future__ import annotations

from agent.app.agent import Agent
from agent.execution.step_context import StepOutcome
from tests.support.agents import yes


def look(agent: Agent) -> StepOutcome:
    """One look of a run that may send."""
    outcome = next(agent.run(send=True, confirm=yes, once=True))
    assert isinstance(outcome, StepOutcome), outcome
    return outcome
