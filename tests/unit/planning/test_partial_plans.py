"""A plan whose worst case exceeds what is left of limits.daily_loss goes in parts, each of which fits; exits keep their own rule."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.errors import Refused
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.guards.case import build_guard_case
from agent.layers import sales
from agent.model import Hold, Plan, PurchaseKind, PurchaseProgress, Rebalance, StepInput
from agent.planning import partial_plans, proposals
from agent.units import BPS
from tests.support.builders import step_input, with_history, with_limits
from tests.support.decisions.partial_plans import partial_purchase_step
from tests.support.decisions.purchases import MILLION, PassingEvidence
from tests.support.planning_worlds import DEEP, any_problem_with_gas, rebalance_to_targets
from tests.support.plans import evidence
from tests.support.samples import examples

ROOMY = {"turnover_bps": None, "daily_turnover_bps": None}


def loss_left_by_guard(step: StepInput, plan: Plan) -> Fraction:
    """What the guard lets a plan lose at worst, by its own sums."""
    case = build_guard_case(step, plan, evidence(step, plan))
    return case.portfolio_value() * Fraction(step.limits.daily_loss_bps or 0, BPS) - step.history.budgets.loss_24h


def worst_loss_by_guard(step: StepInput, plan: Plan) -> Fraction:
    return max(Fraction(0), build_guard_case(step, plan, evidence(step, plan)).worst_cost())


@examples(5)
@given(st.integers(0, 10**6), st.integers(1, 200), st.fractions(0, 1))
def test_partial_plan_fits_the_rest_of_daily_loss(seed: int, limit_bps: int, lost: Fraction) -> None:
    step = with_limits(any_problem_with_gas(seed), daily_loss_bps=limit_bps)
    step = with_history(step, loss_24h=lost * limit_bps * 10 * MILLION)
    try:
        whole = sales.plan_sales(step, rebalance_to_targets(step))
    except Refused:
        assume(False)
    plan = partial_plans.plan_within_daily_loss(step, rebalance_to_targets(step), whole)
    if worst_loss_by_guard(step, whole) <= loss_left_by_guard(step, whole) and partial_plans.worst_case_loss(
        step, whole
    ) <= loss_left_by_guard(step, whole):
        assert plan == whole
    elif plan != whole:
        assert worst_loss_by_guard(step, plan) <= loss_left_by_guard(step, plan)
        assert plan.turnover < whole.turnover
        assert isinstance(plan.decision, Rebalance)
        assert "limits.daily_loss" in plan.decision.reason


@given(st.integers(2_000, 30_000), st.integers(0, 75), st.integers(4, 40))
def test_purchase_part_fits_the_rest_of_daily_loss(dollars: int, lost_percent: int, limit_bps: int) -> None:
    """Two assets are bought in the same part of what each lacks."""
    step = step_input({"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}, {"WETH": 0, "WBTC": 0, "USDC": dollars * 10}, depth=DEEP)
    step = with_limits(step, first_purchase_s=600, daily_loss_bps=limit_bps, plan_cost_bps=200)
    lost = Fraction(dollars * 10 * limit_bps * lost_percent * MILLION, BPS * 100)
    step = with_history(step, last_rebalance_s=None, loss_24h=lost)
    outcome = evaluation.evaluate_input(step, proposals.propose_rebalance, PassingEvidence())
    assume(outcome.plan is not None and outcome.kind is OutcomeKind.PLANNED)
    assert outcome.plan is not None
    assert worst_loss_by_guard(step, outcome.plan) <= loss_left_by_guard(step, outcome.plan)
    bought = {leg.token_out: leg.amount_in_raw for leg in outcome.plan.legs}
    if outcome.decision_result.purchase_result.new_purchase is not None:
        assert len(bought) == 2
        assert "limits.daily_loss" in outcome.reason


def outcome_of(step: StepInput) -> StepOutcome:
    return evaluation.evaluate_input(step, proposals.propose_rebalance, PassingEvidence())


def test_first_purchase_beyond_daily_loss_begins_in_parts() -> None:
    outcome = outcome_of(partial_purchase_step())
    assert outcome.kind is OutcomeKind.PLANNED
    assert outcome.plan is not None
    new_purchase = outcome.decision_result.purchase_result.new_purchase
    assert new_purchase is not None
    assert new_purchase.kind is PurchaseKind.FIRST
    assert new_purchase.part_count > 1
    assert f"part 1 of {new_purchase.part_count}" in outcome.reason
    assert 'limits.daily_loss = "' in outcome.reason
    wanted_bps = Fraction(outcome.reason.split('limits.daily_loss = "')[1].split("%")[0]) * 100
    at_once = outcome_of(partial_purchase_step(daily_loss_bps=int(wanted_bps)))
    assert at_once.decision_result.purchase_result.new_purchase is None
    assert at_once.plan is not None, "the setting that is named does it at once"


def test_purchase_part_waits_for_the_daily_loss() -> None:
    new_purchase = outcome_of(partial_purchase_step()).decision_result.purchase_result.new_purchase
    assert new_purchase is not None
    active = PurchaseProgress("1", new_purchase, 1, Fraction(0), Fraction(0), 0)
    step = partial_purchase_step(Fraction(12 * MILLION))
    step = with_history(step, last_rebalance_s=1, purchase=active)
    outcome = outcome_of(step)
    assert outcome.kind is OutcomeKind.HOLD, outcome.reason
    assert isinstance(outcome.decision, Hold)
    assert outcome.decision.limiting_rule == "limits.daily_loss"
    assert "12 of 14 USDC" in outcome.reason
    nearly = outcome_of(with_history(step, loss_24h=Fraction(9 * MILLION)))
    assert nearly.kind is OutcomeKind.PLANNED
    assert nearly.decision_result.purchase_result.due_part is not None
    assert nearly.decision_result.purchase_result.due_part.number == 2


def test_purchase_is_refused_with_no_daily_loss_left() -> None:
    outcome = outcome_of(partial_purchase_step(Fraction(14 * MILLION)))
    assert outcome.kind is OutcomeKind.REFUSED
    assert [verdict.guard for verdict in outcome.refusal_verdicts if not verdict.passed] == ["daily_loss"]
    assert outcome.decision_result.purchase_result.new_purchase is None


def test_correction_beyond_daily_loss_is_done_in_part() -> None:
    step = with_limits(step_input(values={"WETH": 9_000, "USDC": 1_000}, depth=DEEP), daily_loss_bps=10, **ROOMY)
    outcome = outcome_of(step)
    assert outcome.kind is OutcomeKind.PLANNED, outcome.reason
    assert outcome.plan is not None, outcome.reason
    assert "part 1" in outcome.reason
    assert 'limits.daily_loss = "' in outcome.reason
    assert any("limits.daily_loss" in item.why for item in outcome.plan.skipped)
    assert outcome.decision_result.decision == outcome.plan.decision


@pytest.mark.parametrize("is_exit", [True, False])
def test_exit_is_never_reduced_by_daily_loss(is_exit: bool) -> None:
    step = with_limits(step_input(values={"WETH": 9_000, "USDC": 1_000}, depth=DEEP), daily_loss_bps=10, **ROOMY)
    decision = replace(rebalance_to_targets(step), is_exit=is_exit)
    assert (partial_plans.plan_within_daily_loss(step, decision) == sales.plan_sales(step, decision)) == is_exit


@pytest.mark.parametrize(
    ("beside", "lost", "returned"),
    [(50, 80, 50), (50, 50, 50), (50, 30, 30), (50, 0, 0), (50, -20, 0), (0, 30, 0)],
    ids=["part", "whole", "trades gained", "all regained", "day gained", "trades alone"],
)
def test_exit_regains_no_more_than_the_day_lost(beside: int, lost: int, returned: int) -> None:
    """What trades gained is in the day's loss already; given back twice, it would be room beyond the limit."""
    step = with_limits(step_input(values={"WETH": 9_000, "USDC": 1_000}, depth=DEEP), daily_loss_bps=100, **ROOMY)
    step = with_history(step, loss_24h=Fraction(lost), decrease_24h=Fraction(beside))
    loss_left, for_exits = partial_plans.daily_loss_left(step), partial_plans.daily_loss_left_for_exits(step)
    assert loss_left is not None
    assert for_exits == loss_left + returned
    assert for_exits <= loss_left + max(lost, 0), "never more than the limit itself"
