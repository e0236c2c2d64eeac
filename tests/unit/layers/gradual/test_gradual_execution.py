"""Tests of agent/layers/gradual over whole executions: sizes, sum and times of their slices, and the budget."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import codec
from agent.layers.gradual.policy import mean_interval_s, mean_slice_value, slice_wait_s
from agent.layers.gradual.state import ExecutionProgress, GradualExecution, GradualResult, GradualState, SliceDraw
from agent.model import ExecutionStyle, Plan, StepInput
from agent.planning import proposals
from tests.support.builders import step_input
from tests.support.gradual_execution import PACE, later, market, paced, roomy, step_after_plan
from tests.support.text import mentions


@dataclass
class Run:
    """A whole gradual execution without a chain: the value moved by each slice, and the total loss at arrival prices."""

    execution: GradualExecution
    steps: list[StepInput]
    plans: list[Plan]
    sizes: list[Fraction]
    times_s: list[int]
    spent: Fraction
    ended: str


def run(step: StepInput, dice: random.Random, moves: Callable[[StepInput, int], StepInput] = lambda step, _: step) -> Run:
    """Plan, execute as planned, and plan again, with progress as the store would report it, until the execution ends.

    `moves` changes the step after each slice, by its number. Fills are exactly as planned, at the fees of the snapshot.
    """

    def draw() -> SliceDraw:
        return SliceDraw(int(dice.random() * 1_000_000), int(dice.random() * 1_000_000))

    step = step.with_layer(replace(step.layer(GradualState), draw=draw()))
    first = proposals.propose_rebalance(step)
    assert first.plan is not None, first.decision_result.decision.reason
    assert first.decision_result.layer(GradualResult).new_execution is not None, first.decision_result.decision.reason
    campaign = first.decision_result.layer(GradualResult).new_execution
    under = ExecutionProgress("test", campaign, 0, Fraction(0), Fraction(0), campaign.began_s, campaign.first_draw)
    done = Run(campaign, [], [], [], [], Fraction(0), "")
    prices = dict(campaign.arrival_prices)
    for _ in range(100):
        now = step.with_layer(replace(step.layer(GradualState), progress=under))
        outcome = proposals.propose_rebalance(now)
        if outcome.decision_result.layer(GradualResult).end_reason:
            done.ended = outcome.decision_result.layer(GradualResult).end_reason
            return done
        if outcome.plan is None:
            step = later(step, under.next_s - step.snapshot.head.timestamp_s)
            continue
        plan = outcome.plan
        raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
        changes = {token: raw - raw_by_token[token] for token, raw in plan.holdings_after}
        gas = plan.cost.gas
        lost = -sum((raw * prices[token] for token, raw in changes.items()), Fraction(0)) + gas
        sold = sum((-raw * prices[token] for token, raw in changes.items() if raw < 0), Fraction(0))
        done.steps.append(now)
        done.plans.append(plan)
        done.sizes.append(sold)
        done.times_s.append(step.snapshot.head.timestamp_s)
        done.spent += lost
        following = draw()
        next_s = step.snapshot.head.timestamp_s + slice_wait_s(campaign, following)
        under = ExecutionProgress("test", campaign, under.parts_done + 1, under.moved_value + plan.turnover, done.spent, next_s, following)
        step = moves(step_after_plan(step, plan, 1), under.parts_done)
    raise AssertionError("a campaign that does not end")


TWAP = replace(PACE, style=ExecutionStyle.TWAP, max_rounds=8, twap_duration_s=14_400)


def drifted_step(**pace: object) -> StepInput:
    """Return a step that has to sell 200,000 of 1,000,000 through a pair of 20 million on each side."""
    step = roomy(step_input(None, {"WETH": 700_000, "USDC": 300_000}, depth=20_000_000), max_live_value=None)
    return paced(step, **{"recovery_s": 1} | pace)


def assert_moved(execution_run: Run, tolerance: Fraction, is_last_free: bool) -> None:
    """Assert that all slices but the last are within their bounds, and that together they move the value."""
    execution = execution_run.execution
    jitter = Fraction(execution.pace.size_jitter_bps, 10_000)
    mean_value = mean_slice_value(execution)
    cost = sum((plan.cost.total for plan in execution_run.plans), Fraction(0))
    slice_count = len(execution_run.sizes)

    for size in execution_run.sizes[:-1]:
        assert mean_value * (1 - jitter) * Fraction(98, 100) <= size <= mean_value * (1 + jitter) * Fraction(102, 100)
    assert is_last_free or execution_run.sizes[-1] <= mean_value * (1 + jitter) * Fraction(103, 100)
    assert execution.value_to_move - tolerance - 1 <= sum(execution_run.sizes) <= execution.value_to_move + cost + tolerance
    assert mentions(execution_run.ended, f"done in {slice_count} slice")


@given(seed=st.integers(0, 10**6), jitter_bps=st.integers(0, 5_000), is_twap=st.booleans())
@settings(max_examples=8, derandomize=True)
def test_slices_are_of_random_size_and_move_the_value_together(seed: int, jitter_bps: int, is_twap: bool) -> None:
    """One fixed duration in a thousand leaves more than its last slice takes, so that the seeds are fixed."""
    step = drifted_step(size_jitter_bps=jitter_bps, max_rounds=5)
    step = paced(step, replace(TWAP, size_jitter_bps=jitter_bps)) if is_twap else step

    execution_run = run(step, random.Random(seed))
    execution = execution_run.execution
    mean_s = mean_interval_s(execution.pace, execution.rounds)

    assert_moved(execution_run, step.limits.min_trade or Fraction(0), is_last_free=is_twap)
    assert execution.rounds > 1
    assert all(mean_s // 2 <= after_s - before_s <= mean_s * 3 // 2 + 2 for before_s, after_s in pairwise(execution_run.times_s))
    assert not is_twap or execution_run.times_s[-1] <= execution.expires_s


@given(seed=st.integers(0, 10**6), budget_bps=st.integers(20, 120), drop_bps=st.integers(-60, 60))
@settings(max_examples=8)
def test_loss_of_an_execution_is_never_above_its_budget(seed: int, budget_bps: int, drop_bps: int) -> None:
    """The market moves after each slice, pools and feeds alike."""

    def moves(step: StepInput, number: int) -> StepInput:
        return market(step, Fraction(2_000) * (1 + Fraction(drop_bps * number, 10_000)))

    step = paced(drifted_step(), replace(TWAP, max_loss_bps=budget_bps, max_rounds=6))
    if proposals.propose_rebalance(step).decision_result.layer(GradualResult).new_execution is None:
        return

    execution_run = run(step, random.Random(seed), moves)

    assert execution_run.execution.max_loss is not None
    assert execution_run.spent <= execution_run.execution.max_loss
    assert execution_run.ended


def test_falling_price_ends_an_execution_by_its_budget() -> None:
    execution_run = run(
        drifted_step(max_loss_bps=60), random.Random(1), lambda step, number: market(step, Fraction(2_000) * (1 - Fraction(number, 400)))
    )

    assert "budget" in execution_run.ended
    assert 0 < sum(execution_run.sizes) < execution_run.execution.value_to_move
    assert execution_run.execution.max_loss is not None
    assert execution_run.spent <= execution_run.execution.max_loss


def test_execution_of_a_fixed_duration_ends_by_its_expiry() -> None:
    for seed in range(3):
        execution_run = run(paced(drifted_step(), TWAP), random.Random(seed))
        execution = execution_run.execution
        assert (execution.rounds, execution.ends_s) == (8, execution.began_s + 14_400)
        assert execution_run.times_s[-1] <= execution.expires_s
        assert len(execution_run.sizes) >= 4


@pytest.mark.parametrize("awake_s", [14_340, 14_460, 16_140], ids=["before its end", "after its end", "before its expiry"])
def test_execution_after_a_pause_trades_no_more_than_slices(awake_s: int) -> None:
    """The agent was down for all of the four hours in eight slices."""
    step = paced(drifted_step(), replace(TWAP, max_loss_bps=500))
    execution = proposals.propose_rebalance(step).decision_result.layer(GradualResult).new_execution
    assert execution is not None
    progress = ExecutionProgress("e", execution, 0, Fraction(0), Fraction(0), execution.began_s, SliceDraw(999_999, 0))

    proposal = proposals.propose_rebalance(later(step.with_layer(GradualState(progress=progress)), awake_s))

    assert proposal.plan is not None
    assert proposal.plan.turnover <= mean_slice_value(execution) * Fraction(131, 100)


def test_recorded_step_under_an_execution_repeats_its_plan() -> None:
    step = drifted_step()
    execution = proposals.propose_rebalance(step).decision_result.layer(GradualResult).new_execution
    progress = ExecutionProgress("e", execution, 2, Fraction(0), Fraction(0), execution.began_s, SliceDraw(500_000, 0))
    step = later(step.with_layer(GradualState(progress=progress)), 1_000)

    step_read = codec.loads(StepInput, codec.dumps(step))

    assert step_read == step
    assert proposals.propose_rebalance(step_read).plan == proposals.propose_rebalance(step).plan
