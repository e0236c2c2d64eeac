"""Deciding again from a saved input: no chain, no store."""

from __future__ import annotations

from agent import codec, engine
from agent.engine import Outcome
from agent.errors import ConfigError
from agent.model import StepInput
from agent.planning import strategies


def input_text(step_input: StepInput) -> str:
    """A StepInput as the text that `plan --save-input` writes."""
    return codec.dumps(step_input) + "\n"


def plan_from_input(text: str) -> Outcome:
    """The plan that the same input gave; guards that need evidence of the moment do not judge it. Raises ConfigError."""
    step_input = codec.loads(StepInput, text)
    try:
        return engine.judge(step_input, strategies.rebalance, None)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # The file is well-formed, but its parts contradict each other, as no snapshot's do.
        raise ConfigError(f"the input does not hang together: {error!r}", "hand in a file as plan --save-input wrote it") from None
