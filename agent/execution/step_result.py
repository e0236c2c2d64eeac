"""Ports of a step that may act, and its result."""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import TrimtabError
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.step_context import StepOutcome, StepReaders, StepTransactor
from agent.model import Cycle, Plan, StepEnd, decision_name
from agent.store.store import Store


@dataclass(frozen=True, slots=True)
class StepPorts:
    """Sources, store and transactor of a step."""

    readers: StepReaders
    store: Store
    transactor: StepTransactor


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step leaves: the cycle after it, and its outcome; None if an endpoint failed, so that
    the exit is planned again or skipped. `plan` is due in this step and not sent yet.
    """

    cycle: Cycle
    outcome: StepOutcome | None
    plan: Plan | None = None


WAITING_OUTCOME = "waiting"
"""Recorded outcome of a step whose plan waits for a confirmation by a control, or whose transaction is
proposed and waits for its signer.
"""


def close_step(store: Store, outcome: StepOutcome) -> StepOutcome:
    """Record the outcome of a step in the journal, and return it."""
    end_step(store, outcome, outcome.reason, outcome.kind.value)
    return outcome


def end_step(store: Store, outcome: StepOutcome, reason: str, outcome_kind: str) -> None:
    """Record the end of a step in the journal, with a reason and a kind of its own."""
    store.steps.end(
        outcome.step_id, decision_name(type(outcome.decision)), reason, outcome.plan, outcome_kind
    )


def interruption_outcome(error: TrimtabError) -> str:
    """Return the recorded outcome of a step that an error ended which is no refusal."""
    return WAITING_OUTCOME if isinstance(error, AwaitingExternalSignature) else "error"


def note_of(outcome: StepOutcome, *, failed: bool = False) -> StepEnd:
    """Return the note on a step's end that its cycle keeps."""
    return StepEnd(outcome.step_id, outcome.reason, outcome.decision_result.exit_token, failed)
