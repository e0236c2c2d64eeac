"""Tests of agent/layers/futures/state.py: what a cycle has done, and what it postpones."""

from __future__ import annotations

import pytest

from agent.layers.futures.state import FuturesCycle
from agent.model.futures import FuturesPlan
from tests.support.perpetuals.steps import EMPTY, step_of
from tests.support.plans import proposed_plan


@pytest.mark.parametrize(
    ("action_count", "reverted_count", "notes"),
    [
        pytest.param(5, 2, ["3 futures actions done"], id="three"),
        pytest.param(2, 1, ["1 futures action done"], id="one"),
        pytest.param(1, 1, [], id="all reverted"),
        pytest.param(0, 0, [], id="none"),
    ],
)
def test_cycle_counts_no_action_that_reverted(action_count: int, reverted_count: int, notes: list[str]) -> None:
    assert FuturesCycle(action_count=action_count, reverted_count=reverted_count).notes() == notes


@pytest.mark.parametrize(
    ("has_reduced", "is_reducing", "is_postponed"),
    [
        pytest.param(True, False, True, id="opening after a reduction"),
        pytest.param(True, True, False, id="reduction after a reduction"),
        pytest.param(False, False, False, id="opening alone"),
    ],
)
def test_cycle_postpones_openings_after_a_reduction(has_reduced: bool, is_reducing: bool, is_postponed: bool) -> None:
    plan = proposed_plan(step_of(EMPTY))
    plan = plan.with_layer(FuturesPlan((), "drift", "", is_reducing=is_reducing))

    assert FuturesCycle(has_reduced=has_reduced).postpones(plan) is is_postponed
