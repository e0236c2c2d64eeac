"""Steps whose wallet several strategies share."""

from __future__ import annotations

from agent.layers.strategies.state import Strategy, StrategyLedger
from agent.model import StepInput
from tests.support.builders import brought_up, split, step_input

HALF = {"WETH": 5_000, "USDC": 5_000}
UP = {"WETH": 8_000, "USDC": 2_000}
DOWN = {"WETH": 2_000, "USDC": 8_000}


def shared_step(*strategies: Strategy, ledger: StrategyLedger | None = None, **changes: object) -> StepInput:
    """Return a step of 5,000 USDC and 2.5 WETH at 2,000 that these strategies share, with its books and targets."""
    step = step_input(**changes)  # type: ignore[arg-type]  # keywords of the builder
    return brought_up(step.with_config(split(*strategies)), ledger)
