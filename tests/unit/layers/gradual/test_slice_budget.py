"""Tests of agent/layers/gradual over several executions: who moves the targets gets no second budget in its time (T15)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.layers.gradual.policy import TARGETS_CHANGED_REASON, carried_budget, slice_wait_s
from agent.layers.gradual.state import BudgetCarryover, ExecutionProgress, GradualExecution, GradualResult, GradualState, SliceDraw
from agent.model import ExecutionPace, ExecutionStyle, StepInput
from agent.planning.proposals import propose_rebalance
from agent.units import Value
from tests.support.builders import step_input
from tests.support.gradual_execution import PACE, later, market, paced, roomy, step_after_plan
from tests.support.tokens import WETH

TWAP = replace(PACE, style=ExecutionStyle.TWAP, max_rounds=8, twap_duration_s=14_400, max_loss_bps=60)
Moves = Callable[[StepInput, int], StepInput]


def drifted_step(pace: ExecutionPace = TWAP) -> StepInput:
    """Return a step that has to sell 200,000 of 1,000,000 through a pair of 20 million on each side; no cooldown."""
    step = roomy(step_input(None, {"WETH": 700_000, "USDC": 300_000}, depth=20_000_000, cooldown_s=0), max_live_value=None)
    return paced(step, pace)


def with_weth_target(step: StepInput, weth_bps: int) -> StepInput:
    """Return the step with other targets, as an allocator or a trailing order leaves them."""
    assets = tuple(replace(asset, target_bps=bps) for asset, bps in zip(step.portfolio.assets, (weth_bps, 10_000 - weth_bps), strict=True))
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


@dataclass
class SharedBudgetRun:
    """Executions that began in the time of the first, what their slices lost at the prices they count from, and all reasons."""

    executions: list[GradualExecution] = field(default_factory=list)
    lost_value: Value = Fraction(0)
    slice_count: int = 0
    reasons: list[str] = field(default_factory=list)

    @property
    def largest_budget(self) -> Value:
        """Budget of the largest execution."""
        return max(execution.value_to_move for execution in self.executions) * Fraction(TWAP.max_loss_bps or 0, 10_000)


def run_within_a_budget(step: StepInput, dice: random.Random, moves: Moves, step_count: int = 60) -> SharedBudgetRun:
    """Plan and execute every ten minutes, as the store would report it, until the time of the first execution is over; `moves` changes
    targets and market before each step.
    """
    budget_run = SharedBudgetRun()
    progress: ExecutionProgress | None = None
    carryover: BudgetCarryover | None = None
    for number in range(step_count):
        step = moves(step, number)
        now_s = step.snapshot.head.timestamp_s
        if budget_run.executions and now_s >= budget_run.executions[0].expires_s:
            break
        draw = SliceDraw(int(dice.random() * 1_000_000), int(dice.random() * 1_000_000))
        step = step.with_layer(GradualState(progress=progress, carryover=carryover if progress is None else None, draw=draw))
        proposal = propose_rebalance(step)
        gradual_result = proposal.decision_result.layer(GradualResult)
        budget_run.reasons.append(proposal.decision_result.decision.reason)
        if gradual_result.end_reason and progress is not None:
            carryover = carried_budget(progress, gradual_result.end_reason)
            progress = None
        if proposal.plan is None:
            step = later(step, 600)
            continue
        assert gradual_result.due_slice is not None, "nothing goes around the budget"
        if (execution := gradual_result.new_execution) is not None:
            budget_run.executions.append(execution)
            progress = ExecutionProgress(f"e{number}", execution, 0, Fraction(0), Fraction(0), execution.began_s, execution.first_draw)
        prices = dict(progress.execution.arrival_prices)
        lost_value = lost_by_holdings(step, proposal.plan.holdings_after, prices) + proposal.plan.cost.gas
        budget_run.lost_value += lost_value
        budget_run.slice_count += 1
        progress = replace(
            progress,
            parts_done=progress.parts_done + 1,
            moved_value=progress.moved_value + proposal.plan.turnover,
            lost_value=progress.lost_value + lost_value,
            next_s=now_s + slice_wait_s(progress.execution, draw),
            draw=draw,
        )
        step = step_after_plan(step, proposal.plan, 600)
    return budget_run


def lost_by_holdings(step: StepInput, holdings_after: tuple[tuple[str, int], ...], prices: dict[str, Fraction]) -> Value:
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    return -sum(((raw - raw_by_token[token]) * prices[token] for token, raw in holdings_after), Fraction(0))


@given(seed=st.integers(0, 10**6), spread_bps=st.integers(30, 900), fall_bps=st.integers(0, 30))
@settings(max_examples=5, deadline=None)
def test_wandering_targets_spend_no_more_than_one_budget(seed: int, spread_bps: int, fall_bps: int) -> None:
    """The market falls a little with every step, and every step has other targets."""
    dice = random.Random(seed)

    def moves(step: StepInput, number: int) -> StepInput:
        falling_step = market(step, Fraction(2_000) * (1 - Fraction(fall_bps * number, 10_000)))
        return with_weth_target(falling_step, 5_000 + dice.randint(-spread_bps, spread_bps))

    budget_run = run_within_a_budget(drifted_step(), dice, moves)

    assert budget_run.executions
    assert budget_run.lost_value <= budget_run.largest_budget


def test_falling_market_stops_executions_with_new_targets_too() -> None:
    def moves(step: StepInput, number: int) -> StepInput:
        return with_weth_target(market(step, Fraction(2_000) * (1 - Fraction(number, 400))), 5_000 - 40 * (number % 2))

    budget_run = run_within_a_budget(drifted_step(), random.Random(3), moves)
    first, *others = budget_run.executions
    carryovers = [execution.carryover for execution in others]
    re_aimed = [execution for execution in others if execution.carryover is not None and execution.carryover.arrival_prices]

    assert first.carryover is None
    assert others
    assert None not in carryovers
    assert re_aimed[0].arrival_prices == first.arrival_prices, "it goes on counting from the first prices"
    assert all(execution.arrival_prices == execution.carryover.arrival_prices for execution in re_aimed if execution.carryover)
    assert 0 < budget_run.lost_value <= budget_run.largest_budget
    assert any("shared until" in reason for reason in budget_run.reasons)


def test_targets_to_and_fro_spend_one_budget_and_stop() -> None:
    """An allocator that cannot decide would turn the portfolio around for ever."""
    budget_run = run_within_a_budget(
        drifted_step(), random.Random(5), lambda step, number: with_weth_target(step, 5_000 if number % 4 < 2 else 9_000)
    )

    assert budget_run.lost_value <= budget_run.largest_budget


def re_aimed_step(step: StepInput, lost_share: Fraction, approved_raw: int) -> StepInput:
    """Return the step under the execution that it begins, which lost this share of its budget, with new targets after an approval."""
    execution = propose_rebalance(step).decision_result.layer(GradualResult).new_execution
    lost_value = (execution.max_loss or Fraction(0)) * lost_share
    progress = ExecutionProgress("e", execution, 1, Fraction(0), lost_value, execution.began_s, execution.first_draw)
    step = with_weth_target(step, 4_900).with_layer(GradualState(progress=progress))
    return replace(step, progress=replace(step.progress, spend_caps=((WETH.address, approved_raw),)))


@pytest.mark.parametrize("style", [ExecutionStyle.ROUNDS, ExecutionStyle.TWAP])
def test_new_targets_after_an_approval_keep_the_budget(style: ExecutionStyle) -> None:
    step = drifted_step(replace(PACE, style=style, twap_duration_s=3_600, max_loss_bps=60))

    proposal = propose_rebalance(re_aimed_step(step, Fraction(11, 10), 10**18))

    assert proposal.decision_result.layer(GradualResult).end_reason == TARGETS_CHANGED_REASON
    assert proposal.plan is None
    assert "shared until" in proposal.decision_result.decision.reason


def test_new_targets_after_an_approval_keep_the_limit_price() -> None:
    step = drifted_step(ExecutionPace(ExecutionStyle.LIMIT, limit_bps=-100, patience_s=14_400))

    proposal = propose_rebalance(re_aimed_step(step, Fraction(0), 10**20))

    assert propose_rebalance(step).plan is None
    assert proposal.plan is None
    assert "its price" in proposal.decision_result.decision.reason
