"""How a step ended, what it did, and what it acts with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from agent.model import Decision, Intent, Plan, StepInput, Verdict
from agent.policy.decide import Decided
from agent.ports import Composer, Executor


class OutcomeKind(Enum):
    """How a step ended."""

    HOLD = "hold"
    HALT = "halt"
    PLANNED = "planned"
    REFUSED = "refused"
    DECLINED = "declined"
    DONE = "done"
    FAILED = "failed"


REVIEWED = (OutcomeKind.HOLD, OutcomeKind.DECLINED, OutcomeKind.DONE)
"""Ends after which a schedule's review is done. What was refused or failed is looked at again at the next tick."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything a step saw, decided and did. `after` is the snapshot read once the swap was mined.

    `verdicts` are those of a refusal that came before or after the guards of a plan: its own are in the plan. `around` are tokens
    whose exits were refused in this step when they were about to be sent: what was confirmed before is not what this does.
    """

    step_id: str
    kind: OutcomeKind
    reason: str
    step_input: StepInput
    decided: Decided
    plan: Plan | None
    transactions: tuple[Intent, ...] = ()
    after: StepInput | None = None
    verdicts: tuple[Verdict, ...] = ()
    around: tuple[str, ...] = ()

    @property
    def decision(self) -> Decision:
        """What was decided."""
        return self.decided.decision


@dataclass(frozen=True, slots=True)
class Hands:
    """What a step acts with; without hands it only looks. `confirm` is asked before anything is sent, and once more
    for each plan that takes the place of one that was refused after it was confirmed.
    """

    executor: Executor
    composer: Composer
    confirm: Callable[[Outcome], bool]
