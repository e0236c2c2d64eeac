"""Documents of gradual executions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from agent.app.documents import FromAttributes, Money, fill
from agent.layers.gradual.state import ExecutionProgress, GradualState
from agent.layers.gradual.store import GradualExecutionStore
from agent.model import Plan, Portfolio, StepInput
from agent.store.executions import StoredExecution
from agent.store.store import Store
from agent.units import utc_text


class SliceDocument(TypedDict):
    """Cost of a rebalance in `rounds` slices, in the numeraire; `skew` is the cost of
    pool prices that differ from the reference, `rest` that of the value that is never moved.
    """

    rounds: Annotated[int, FromAttributes("slice_count")]
    moved: Annotated[Money, FromAttributes("turnover")]
    fees: Money
    impact: Money
    skew: Money
    gas: Money
    waiting: Annotated[Money, FromAttributes("delay_cost")]
    rest: Annotated[Money, FromAttributes("unmoved_cost")]
    total: Money


class SlicingDocument(TypedDict):
    """Numbers of slices compared, and the choice."""

    chosen: Annotated[int, FromAttributes("chosen_count")]
    why: str
    options: list[SliceDocument]


class PlanKeys(TypedDict):
    """Keys of this layer in the document of a plan."""

    pacing: NotRequired[SlicingDocument | None]


def plan_keys(plan: Plan, portfolio: Portfolio) -> PlanKeys:
    """Return the keys that this layer adds to the document of a plan."""
    comparison = plan.slicing_comparison
    return {"pacing": None if comparison is None else fill(SlicingDocument, comparison, portfolio)}


def newest_executions(store: Store, limit: int) -> Sequence[StoredExecution[ExecutionProgress]]:
    """Return the newest gradual executions, newest first."""
    return store.layer_repository(GradualExecutionStore).newest_executions(limit)


def sentences(step: StepInput, plan: Plan | None) -> list[str]:
    """Describe a past step's gradual execution, and the comparison of slices with a single trade;
    empty without either.
    """
    money_text = step.portfolio.numeraire.money_text
    lines = []
    if (progress := step.layer(GradualState).progress) is not None:
        execution = progress.execution
        budget_text = "without a budget"
        if execution.max_loss is not None:
            budget_text = f"of a budget of {money_text(execution.max_loss)}"
        lines.append(
            f"A gradual execution has run since {utc_text(execution.began_s)}: {progress.parts_done} of about"
            f" {execution.rounds} slices done, {money_text(progress.moved_value)} of {money_text(execution.value_to_move)}"
            f" moved, {money_text(progress.lost_value)} lost {budget_text}."
        )
    if plan is not None and plan.slicing_comparison is not None:
        lines.append(f"Slices compared with one trade: {plan.slicing_comparison.why}.")
        lines += [
            f"  {option.slice_count}: {money_text(option.total)} in total: fees {money_text(option.fees)}, impact"
            f" {money_text(option.impact + option.skew)}, gas {money_text(option.gas)}, waiting"
            f" {money_text(option.delay_cost)}, not executed {money_text(option.unmoved_cost)}."
            for option in plan.slicing_comparison.options
        ]
    return lines
