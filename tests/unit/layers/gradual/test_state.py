"""Tests of agent/layers/gradual/state.py: what remains of a decision whose trades are dropped, and what changes with time."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest

from agent import codec
from agent.layers.gradual.state import BudgetCarryover, ExecutionProgress, ExecutionSlice, GradualExecution, GradualResult, GradualState
from agent.model import StepInput
from tests.support.builders import step_input
from tests.support.gradual_execution import STORED_EXECUTION

SLICE = ExecutionSlice(1, Fraction(1), Fraction(10))
PROGRESS = ExecutionProgress("e", STORED_EXECUTION, 0, Fraction(0), Fraction(0), 0, STORED_EXECUTION.first_draw)
CARRYOVER = BudgetCarryover(9, Fraction(1), Fraction(1))


@pytest.mark.parametrize(
    ("result", "reason", "end_reason"),
    [
        pytest.param(GradualResult(SLICE), "not worth its gas", "its next slice is not worth its gas", id="a slice not worth it"),
        pytest.param(GradualResult(SLICE), "", "", id="a slice that waits"),
        pytest.param(GradualResult(SLICE, new_execution=STORED_EXECUTION), "not worth its gas", "", id="a first slice"),
        pytest.param(GradualResult(end_reason="done"), "", "done", id="the end"),
        pytest.param(GradualResult(), "not worth its gas", "", id="no slice"),
    ],
)
def test_result_without_trades_keeps_only_an_end(result: GradualResult, reason: str, end_reason: str) -> None:
    assert result.without_trades(reason) == GradualResult(end_reason=end_reason)


@pytest.mark.parametrize(
    ("state", "changes"),
    [
        pytest.param(GradualState(), False, id="nothing"),
        pytest.param(GradualState(ended_s=5), False, id="an end"),
        pytest.param(GradualState(progress=PROGRESS), True, id="an execution"),
        pytest.param(GradualState(carryover=CARRYOVER), True, id="a shared budget"),
    ],
)
def test_state_changes_with_time_under_executions_and_budgets(state: GradualState, changes: bool) -> None:
    assert state.changes_with_time is changes


def test_record_from_before_paces_is_read() -> None:
    record = json.loads(codec.dumps(step_input()))
    del record["execution"]["pace"]

    assert codec.from_jsonable(StepInput, record) == step_input()


def test_record_of_an_execution_from_before_shared_budgets_is_read() -> None:
    record = codec.to_jsonable(STORED_EXECUTION)
    del record["carryover"]

    assert codec.from_jsonable(GradualExecution, record) == STORED_EXECUTION


def test_recorded_state_is_read_back() -> None:
    step = step_input().with_layer(GradualState(PROGRESS, 5, STORED_EXECUTION.first_draw, CARRYOVER))

    assert codec.loads(StepInput, codec.dumps(step)) == step
