"""Records of gradual executions: the draw, the start, each slice before it is sent, and the end."""

from __future__ import annotations

from dataclasses import replace

from agent.execution.step_context import OutcomeKind, StepOutcome, StepReaders
from agent.layers.gradual.policy import MILLION
from agent.layers.gradual.state import GradualResult, GradualState, SliceDraw
from agent.layers.gradual.store import GradualExecutionStore
from agent.model import ExecutionStyle, StepInput
from agent.store.store import Store

RANDOM_SLICE_STYLES = (ExecutionStyle.ROUNDS, ExecutionStyle.TWAP)
"""Execution styles with slices of random size."""


def before_decision(readers: StepReaders, store: Store, step: StepInput) -> StepInput:
    """Add the random draw for a first slice to the step. The draw is stored, so that a restart
    plans the same slice.
    """
    state = step.layer(GradualState)
    if (
        step.execution.pace.style not in RANDOM_SLICE_STYLES
        or state.progress is not None
        or state.draw is not None
    ):
        return step
    draw = _draw(readers)
    store.layer(GradualExecutionStore).store_next_draw(draw)
    return step.with_layer(replace(state, draw=draw))


def after_decision(store: Store, outcome: StepOutcome) -> None:
    """Record gradual executions that ended in a cycle, and new ones that wait for their price."""
    result, step = outcome.decision_result.layer(GradualResult), outcome.step_input
    progress, execution_store = (
        step.layer(GradualState).progress,
        store.layer(GradualExecutionStore),
    )
    if result.ended and progress is not None:
        store.executions.end(progress.id, "ended", result.ended, step.snapshot.head.timestamp_s)
    if result.begins is not None and outcome.kind is OutcomeKind.HOLD:
        execution_store.begin(result.begins)


def before_swap(readers: StepReaders, store: Store, outcome: StepOutcome) -> None:
    """Record the slice about to be sent, with the draw for the next one; a new execution is
    recorded before its first slice. Does nothing if the plan is not a slice.
    """
    result, step = outcome.decision_result.layer(GradualResult), outcome.step_input
    progress, execution_store = (
        step.layer(GradualState).progress,
        store.layer(GradualExecutionStore),
    )
    if result.due_slice is None:
        return
    if result.begins is not None:
        execution_id = execution_store.begin(result.begins)
    elif progress is not None:
        execution_id = progress.id
    else:
        return
    at_s = step.snapshot.head.timestamp_s
    number, draw = result.due_slice.number, _draw(readers)
    execution_store.begin_slice(execution_id, number, outcome.step_id, at_s, draw)


def _draw(readers: StepReaders) -> SliceDraw:
    return SliceDraw(int(readers.chance() * MILLION), int(readers.chance() * MILLION))
