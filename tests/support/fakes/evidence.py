"""The evidence of tests: it passes every guard but for what a test changes."""

from __future__ import annotations

from collections.abc import Callable

from agent.model import Evidence, Plan, StepInput
from tests.support.plans import evidence


class FakeEvidenceSource:
    """Evidence that passes every guard, with these fields changed, then altered by `alter`; `plans` are those it was gathered for."""

    def __init__(self, alter: Callable[[Plan, Evidence], Evidence] = lambda plan, plain: plain, **changes: object) -> None:
        self.plans: list[Plan] = []
        self._alter = alter
        self._changes = changes

    def gather(self, step: StepInput, plan: Plan) -> Evidence:
        self.plans.append(plan)
        return self._alter(plan, evidence(step, plan, **self._changes))
