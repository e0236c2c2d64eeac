"""Records of gradual executions: the draw, the start, each slice before it is sent, and the end."""

from __future__ import annotations

from dataclasses import replace

from agent.execution.step_context import OutcomeKind, StepOutcome, StepReaders
from agent.layers.gradual.policy import MILLION
from agent.layers.gradual.state import GradualResult, GradualState, SliceDraw
from agent.layers.gradual.store import GradualExecutionStore
from agent.model import ExecutionState, ExecutionStyle, StepInput
from agent.store.store import Store

RANDOM_SLICE_STYLES = (ExecutionStyle.ROUNDS, ExecutionStyle.TWAP)
"""Execution styles with slices of random size."""


def add_slice_draw(readers: StepReaders, store: Store, step: StepInput) -> StepInput:
    """Add the random draw for a first slice to the step. The draw is stored, so that a restart
    plans the same slice.
    """
    gradual_state = step.layer(GradualState)
    if (
        step.execution.pace.style not in RANDOM_SLICE_STYLES
        or gradual_state.progress is not None
        or gradual_state.draw is not None
    ):
        return step
    draw = _draw(readers)
    store.layer_repository(GradualExecutionStore).store_next_draw(draw)
    return step.with_layer(replace(gradual_state, draw=draw))


def record_executions(store: Store, outcome: StepOutcome) -> None:
    """Record gradual executions that ended in a cycle, and new ones that wait for their price."""
    gradual_result = outcome.decision_result.layer(GradualResult)
    step = outcome.step_input
    progress = step.layer(GradualState).progress
    execution_store = store.layer_repository(GradualExecutionStore)
    if gradual_result.end_reason and progress is not None:
        store.executions.end(
            progress.id,
            ExecutionState.ENDED,
            gradual_result.end_reason,
            step.snapshot.head.timestamp_s,
        )
    if gradual_result.new_execution is not None and outcome.kind is OutcomeKind.HOLD:
        execution_store.begin(gradual_result.new_execution)


def record_slice(readers: StepReaders, store: Store, outcome: StepOutcome) -> None:
    """Record the slice about to be sent, with the draw for the next one; a new execution is
    recorded before its first slice. Does nothing if the plan is not a slice.
    """
    gradual_result = outcome.decision_result.layer(GradualResult)
    step = outcome.step_input
    progress = step.layer(GradualState).progress
    execution_store = store.layer_repository(GradualExecutionStore)
    if gradual_result.due_slice is None:
        return
    if gradual_result.new_execution is not None:
        execution_id = execution_store.begin(gradual_result.new_execution)
    elif progress is not None:
        execution_id = progress.id
    else:
        return
    chain_now_s = step.snapshot.head.timestamp_s
    slice_number = gradual_result.due_slice.number
    draw = _draw(readers)
    execution_store.begin_slice(execution_id, slice_number, outcome.step_id, chain_now_s, draw)


def _draw(readers: StepReaders) -> SliceDraw:
    return SliceDraw(int(readers.chance() * MILLION), int(readers.chance() * MILLION))
