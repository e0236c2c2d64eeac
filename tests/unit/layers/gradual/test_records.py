"""Tests of agent/layers/gradual/records.py: the draw, the start, each slice before it is sent, and the end."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from agent.execution.step_context import OutcomeKind, StepOutcome, StepReaders
from agent.layers.gradual.records import add_slice_draw, record_executions, record_slice
from agent.layers.gradual.state import ExecutionSlice, GradualResult, GradualState, SliceDraw
from agent.layers.gradual.store import GradualExecutionStore
from agent.model import ExecutionPace, ExecutionStyle, StepInput
from agent.policy.decide import decide
from agent.store import Store
from tests.support.builders import OWNER, step_input
from tests.support.gradual_execution import PACE, STORED_EXECUTION, paced, part_of_step
from tests.support.records.swaps import WETH
from tests.support.stores import store_fixture

store = store_fixture(wallet=OWNER, wrapped_native=WETH)


def readers_with(*chances: float) -> StepReaders:
    """Return readers whose chances are these, in order."""
    return cast(StepReaders, SimpleNamespace(chance=iter(chances).__next__))


def state_of(store: Store) -> GradualState:
    return store.budgets.history(2_000).layer(GradualState)


def outcome_of(result: GradualResult, kind: OutcomeKind = OutcomeKind.HOLD, step: StepInput | None = None) -> StepOutcome:
    step = step or step_input()
    return StepOutcome("s1", kind, "", step, decide(step_input()).with_layer(result), None)


# --- the first draw


@pytest.mark.parametrize(
    ("style", "is_drawn"),
    [
        pytest.param(ExecutionStyle.ROUNDS, True, id="rounds"),
        pytest.param(ExecutionStyle.TWAP, True, id="fixed duration"),
        pytest.param(ExecutionStyle.LIMIT, False, id="limit price"),
        pytest.param(ExecutionStyle.MARKET, False, id="market"),
    ],
)
def test_first_draw_is_made_for_random_slices_alone(store: Store, style: ExecutionStyle, is_drawn: bool) -> None:
    step = add_slice_draw(readers_with(0.25, 0.999_999_9), store, paced(step_input(), ExecutionPace(style)))

    draw = SliceDraw(250_000, 999_999) if is_drawn else None
    assert step.layer(GradualState).draw == draw
    assert state_of(store).draw == draw


def test_first_draw_is_made_once(store: Store) -> None:
    step = paced(step_input(), PACE).with_layer(GradualState(draw=SliceDraw(1, 2)))

    assert add_slice_draw(readers_with(), store, step) == step


def test_first_draw_is_not_made_under_an_execution(store: Store) -> None:
    store.layer_repository(GradualExecutionStore).begin(STORED_EXECUTION)
    step = paced(step_input(), PACE).with_layer(GradualState(progress=state_of(store).progress))

    assert add_slice_draw(readers_with(), store, step) == step


# --- starts and ends


@pytest.mark.parametrize(
    ("kind", "is_open"),
    [
        pytest.param(OutcomeKind.HOLD, True, id="waits for its price"),
        pytest.param(OutcomeKind.PLANNED, False, id="its first slice is planned"),
    ],
)
def test_execution_that_waits_is_recorded_at_once(store: Store, kind: OutcomeKind, is_open: bool) -> None:
    """One whose first slice is planned begins as that is sent."""
    record_executions(store, outcome_of(GradualResult(new_execution=STORED_EXECUTION), kind))

    assert (state_of(store).progress is not None) is is_open


def test_execution_that_ended_is_closed_with_its_reason(store: Store) -> None:
    store.layer_repository(GradualExecutionStore).begin(STORED_EXECUTION)
    step = step_input().with_layer(GradualState(progress=state_of(store).progress))

    record_executions(store, outcome_of(GradualResult(end_reason="prices reversed"), step=step))

    [stored] = store.layer_repository(GradualExecutionStore).newest_executions()
    assert (stored.state, stored.why) == ("ended", "prices reversed")


# --- slices


SLICE = GradualResult(ExecutionSlice(1, STORED_EXECUTION.value_to_move, STORED_EXECUTION.value_to_move))


def test_first_slice_is_recorded_with_its_execution(store: Store) -> None:
    record_slice(readers_with(0.5, 0.25), store, outcome_of(replace(SLICE, new_execution=STORED_EXECUTION)))

    progress = state_of(store).progress
    assert progress.execution == STORED_EXECUTION
    assert part_of_step(store, "s1") == (progress.id, 1)


def test_later_slice_is_recorded_under_its_execution(store: Store) -> None:
    execution_id = store.layer_repository(GradualExecutionStore).begin(STORED_EXECUTION)
    step = step_input().with_layer(GradualState(progress=state_of(store).progress))
    third = GradualResult(ExecutionSlice(3, STORED_EXECUTION.value_to_move, STORED_EXECUTION.value_to_move))

    record_slice(readers_with(0.5, 0.25), store, outcome_of(third, step=step))

    assert part_of_step(store, "s1") == (execution_id, 3)


@pytest.mark.parametrize(
    "result",
    [
        pytest.param(GradualResult(), id="no slice"),
        pytest.param(GradualResult(new_execution=STORED_EXECUTION), id="an execution that waits"),
        pytest.param(SLICE, id="no execution"),
    ],
)
def test_plan_that_is_no_slice_records_nothing(store: Store, result: GradualResult) -> None:
    record_slice(readers_with(), store, outcome_of(result))

    assert store.layer_repository(GradualExecutionStore).newest_executions() == ()
