"""First purchases of a portfolio that holds money alone."""

from __future__ import annotations

from agent.model import StepInput
from tests.support.builders import step_input, with_history, with_limits
from tests.support.planning_worlds import DEEP

MILLION = 10**6
HALVES = {"WETH": 5_000, "USDC": 5_000}


def money_step(**history: object) -> StepInput:
    """Ten thousand dollars and nothing else."""
    step = step_input(HALVES, {"WETH": 0, "USDC": 10_000}, depth=DEEP)
    step = with_limits(step, first_purchase_s=600)
    return with_history(step, **({"last_rebalance_s": None} | history))
