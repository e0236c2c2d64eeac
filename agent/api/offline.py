"""Deciding again from a saved input: no chain, no store."""

from __future__ import annotations

from agent import codec, engine
from agent.engine import Outcome
from agent.model import StepInput


def input_text(step_input: StepInput) -> str:
    """A StepInput as the text that `plan --save-input` writes."""
    return codec.dumps(step_input) + "\n"


def plan_from_input(text: str) -> Outcome:
    """The plan that the same input gave; guards that need evidence of the moment do not judge it."""
    return engine.judge(codec.loads(StepInput, text), engine.rebalance, None)
