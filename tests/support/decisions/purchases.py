"""First purchases of a portfolio that holds money alone."""

from __future__ import annotations

from agent.model import Evidence, Plan, StepInput
from tests.support.builders import step_input, with_history, with_limits
from tests.support.planning_worlds import DEEP
from tests.support.plans import evidence

MILLION = 10**6
HALVES = {"WETH": 5_000, "USDC": 5_000}


class PassingEvidence:
    """Evidence that has nothing against any plan."""

    def gather(self, step: StepInput, plan: Plan) -> Evidence:
        return evidence(step, plan)


def money_step(**history: object) -> StepInput:
    """Ten thousand dollars and nothing else."""
    step = step_input(HALVES, {"WETH": 0, "USDC": 10_000}, depth=DEEP)
    step = with_limits(step, first_purchase_s=600)
    return with_history(step, **({"last_rebalance_s": None} | history))
