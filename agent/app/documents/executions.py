"""Documents of executions that take several steps: purchases in parts, and those of layers."""

from __future__ import annotations

from typing import Annotated, Any

from typing_extensions import TypedDict

from agent.app.documents import (
    ConvertedBy,
    FromAttributes,
    Money,
    RoundedRaw,
    TimeText,
    fill,
    one_of,
)
from agent.model import ExecutionState, Portfolio, PurchaseProgress, StepInput
from agent.policy.decision import DecisionResult
from agent.store.executions import StoredExecution
from agent.units import utc_text


class ExecutionPartsDocument(TypedDict):
    """Style, times and parts of an execution's progress."""

    id: str
    style: Annotated[str, one_of("rounds", "twap", "limit"), FromAttributes("terms.style")]
    began: Annotated[TimeText, FromAttributes("terms.began_s")]
    expires: Annotated[TimeText, FromAttributes("terms.expires_s")]
    parts_done: int
    parts_about: Annotated[int, FromAttributes("terms.part_count")]


class ProgressDocument(ExecutionPartsDocument):
    """Progress of an execution, at its initial prices, in whole coins."""

    purchase: str | None
    next: Annotated[TimeText, FromAttributes("next_s")]
    to_move: Annotated[Money, FromAttributes("terms.value_to_move")]
    moved: Annotated[Money, FromAttributes("moved_value")]
    spent: Annotated[Money, FromAttributes("lost_value")]
    budget: Annotated[Money | None, FromAttributes("terms.max_loss")]


class GradualExecutionDocument(ExecutionPartsDocument):
    """An execution, under way or ended; values in numeraire base units."""

    state: Annotated[str, one_of("open", "ended", "cancelled")]
    why: str
    next: str | None
    to_move_raw: Annotated[RoundedRaw, FromAttributes("terms.value_to_move")]
    moved_raw: Annotated[RoundedRaw, FromAttributes("moved_value")]
    spent_raw: Annotated[RoundedRaw, FromAttributes("lost_value")]
    budget_raw: Annotated[RoundedRaw | None, FromAttributes("terms.max_loss")]


def gradual_execution_document(stored_execution: StoredExecution[Any]) -> GradualExecutionDocument:
    """Return the document of an execution."""
    is_open = stored_execution.state is ExecutionState.OPEN
    next_time = utc_text(stored_execution.progress.next_s) if is_open else None
    return fill(
        GradualExecutionDocument,
        stored_execution.progress,
        state=str(stored_execution.state),
        why=stored_execution.why,
        next=next_time,
    )


def purchase_progress_document(
    purchase: PurchaseProgress, portfolio: Portfolio
) -> ProgressDocument:
    """Return the document of a purchase in parts."""
    purchase_kind = purchase.terms.kind.value
    return fill(ProgressDocument, purchase, portfolio, purchase=purchase_kind)


def _execution_progress_document(
    step_and_decision: tuple[StepInput, DecisionResult], portfolio: Portfolio
) -> ProgressDocument | None:
    step, decision_result = step_and_decision
    execution = step.history.execution
    if execution is None or decision_result.ends_execution:
        return None
    purchase = step.history.cash_flows.purchase
    purchase_kind = None if purchase is None else purchase.terms.kind.value
    return fill(ProgressDocument, execution, portfolio, purchase=purchase_kind)


OpenExecutionProgress = Annotated[
    ProgressDocument | None,
    ConvertedBy(_execution_progress_document),
    FromAttributes("step_input", "decision_result"),
]
"""Progress of the execution that the decision does not end."""
