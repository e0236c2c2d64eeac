"""Tests of agent/layers/liquidity/state.py: the progress of a cycle, as its next step sees it."""

from __future__ import annotations

import pytest

from agent.layers.liquidity.state import MAX_ACTIONS, LiquidityCycle, LiquidityState, liquidity_progress
from agent.model import StepEnd
from tests.support.builders import history, step_input

LATE_S = 900


@pytest.mark.parametrize(
    ("cycle", "has_moved", "times_s"),
    [
        pytest.param(LiquidityCycle(), False, (LATE_S, LATE_S), id="nothing sent"),
        pytest.param(LiquidityCycle(1, True, 5, 6), True, (5, 6), id="an action"),
        pytest.param(LiquidityCycle(0, True, 5, 6, ("P",)), False, (5, 6), id="a reverted withdrawal"),
    ],
)
def test_step_of_a_cycle_counts_cooldowns_from_before_it(cycle: LiquidityCycle, has_moved: bool, times_s: tuple[int, int]) -> None:
    step = cycle.with_progress(step_input(past=history(last_rebalance_s=LATE_S, last_liquidity_s=LATE_S)))

    assert (step.history.reviews.last_rebalance_s, step.layer(LiquidityState).last_action_s) == times_s
    assert liquidity_progress(step).has_moved is has_moved
    assert liquidity_progress(step).failed_withdrawal_pools == cycle.failed_withdrawal_pools


@pytest.mark.parametrize(
    ("action_count", "may_act_again"),
    [
        pytest.param(0, False, id="none"),
        pytest.param(1, True, id="first"),
        pytest.param(MAX_ACTIONS - 1, True, id="one less than the most"),
        pytest.param(MAX_ACTIONS, False, id="the most"),
    ],
)
def test_cycle_acts_again_after_an_action_up_to_the_most(action_count: int, may_act_again: bool) -> None:
    assert LiquidityCycle(action_count).may_act_again is may_act_again


@pytest.mark.parametrize(
    ("action_count", "notes"),
    [
        pytest.param(0, [], id="none"),
        pytest.param(1, ["1 liquidity action done"], id="first"),
        pytest.param(2, ["2 liquidity actions done"], id="two"),
    ],
)
def test_cycle_notes_the_actions_done(action_count: int, notes: list[str]) -> None:
    assert LiquidityCycle(action_count).notes() == notes


def test_cycle_counts_failed_withdrawals_as_failed_exits() -> None:
    notes = (StepEnd("s", "reverted"),)

    assert LiquidityCycle(failed_withdrawals=notes).failed_exits == notes
