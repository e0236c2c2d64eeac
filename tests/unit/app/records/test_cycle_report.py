"""Tests for agent/app/records/cycle_report.py."""

from __future__ import annotations

import pytest

from agent.app.records.cycle_report import cycle_trouble
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import Decision, Halt, HaltCode, Hold
from agent.policy.decide import reported_result
from tests.support.builders import step_input

HALT = Halt("prices are stale", (HaltCode.REFERENCE_PRICE,))
HARD_PAUSE = Halt("hard pause: lunch", (HaltCode.HARD_PAUSE,))


@pytest.mark.parametrize(
    ("kind", "decision", "trouble"),
    [
        pytest.param(OutcomeKind.HALT, HALT, "halt: prices are stale", id="halt"),
        pytest.param(OutcomeKind.FAILED, HARD_PAUSE, "failed: hard pause: lunch", id="hard pause not complete"),
        pytest.param(OutcomeKind.HALT, HARD_PAUSE, "", id="hard pause"),
        pytest.param(OutcomeKind.HOLD, Hold("inside"), "", id="hold"),
    ],
)
def test_cycle__halted_or_failed__is_trouble(kind: OutcomeKind, decision: Decision, trouble: str) -> None:
    step = step_input()
    assert cycle_trouble(StepOutcome("s", kind, decision.reason, step, reported_result(step, decision), None)) == trouble
