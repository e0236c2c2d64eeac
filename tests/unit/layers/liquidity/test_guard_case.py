"""Tests of agent/layers/liquidity/guard_case.py: what guards ask about a plan of liquidity actions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import pytest

from agent.errors import Refused
from agent.guards.case import build_guard_case
from agent.layers.liquidity import guard_case
from agent.layers.liquidity.guard_case import LiquidityCase, build_liquidity_case
from agent.layers.liquidity.policy.replay import worst_overpayment_share
from tests.support.builders import with_limits, with_snapshot
from tests.support.decisions.liquidity_plans import COLLECT, PROVIDE, WITHDRAW, liquidity_answers, passing_plan_starting_with
from tests.support.lp_worlds import USD, paired, planned, roomy, world
from tests.support.plans import evidence, sell_weth


def test_case_is_that_of_liquidity_actions_alone() -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)

    assert build_liquidity_case(step, plan) == LiquidityCase(step, plan)
    assert build_liquidity_case(step, sell_weth(step)) is None


@pytest.mark.parametrize(
    ("kinds", "has_leg", "only_withdraws"),
    [
        pytest.param([WITHDRAW], False, True, id="a withdrawal"),
        pytest.param([PROVIDE], False, False, id="a provision"),
        pytest.param([WITHDRAW, PROVIDE], False, False, id="a withdrawal before a provision"),
        pytest.param([WITHDRAW], True, False, id="a withdrawal and a swap"),
    ],
)
def test_withdrawal_is_required_alone_and_above_a_limit(kinds: list[str], has_leg: bool, only_withdraws: bool) -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)
    actions = tuple(action for kind in kinds for action in passing_plan_starting_with(kind)[1].layer_actions[:1])
    plan = replace(plan, layer_actions=actions, legs=sell_weth(step).legs if has_leg else ())
    tight_step = with_limits(step, lp_max_weight_bps=100, min_trade=Fraction(5_000 * USD))

    assert LiquidityCase(step, plan).only_withdraws() is only_withdraws
    assert not LiquidityCase(step, plan).is_required()
    assert LiquidityCase(tight_step, plan).is_required() is only_withdraws
    assert not only_withdraws or build_guard_case(tight_step, plan, evidence(tight_step, plan)).is_risk_reducing()


@pytest.mark.parametrize("kinds", [[PROVIDE], [WITHDRAW, PROVIDE]], ids=["alone", "after a withdrawal"])
def test_provision_above_a_limit_reduces_no_risk(kinds: list[str]) -> None:
    step, plan = passing_plan_starting_with(PROVIDE)
    plan = replace(plan, layer_actions=tuple(passing_plan_starting_with(kind)[1].layer_actions[0] for kind in kinds))
    tight_step = with_limits(step, lp_max_weight_bps=100)
    case = build_guard_case(tight_step, plan, evidence(tight_step, plan))

    assert not case.is_required_by_layer()
    assert not case.is_risk_reducing()


# --- cost


def test_cost_of_a_provision_is_at_worst_what_its_minimums_allow() -> None:
    step, plan = passing_plan_starting_with(PROVIDE)
    answers = liquidity_answers(step, plan)
    [simulation] = answers.simulated_actions()

    assert answers.worst_cost() == simulation.value * worst_overpayment_share(simulation, step.limits) > answers.cost()


def test_cost_of_a_withdrawal_is_zero() -> None:
    answers = liquidity_answers(*passing_plan_starting_with(WITHDRAW))

    assert (answers.worst_cost(), answers.cost()) == (0, 0)


def test_worst_cost_counts_each_provision_s_worse_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first costs 5 as simulated and nothing by its minimums, the second the reverse: together 10."""

    def provision(overpayment: int, worst: int) -> SimpleNamespace:
        book_before = SimpleNamespace(overpayment=lambda *_: Fraction(overpayment))
        return SimpleNamespace(action=None, amounts=(0, 0), book_after=None, value=worst, book_before=book_before)

    monkeypatch.setattr(guard_case, "worst_overpayment_share", lambda *_: Fraction(1))
    monkeypatch.setattr(LiquidityCase, "_provisions", lambda _: [provision(5, 0), provision(0, 5)])
    case = LiquidityCase(*passing_plan_starting_with(PROVIDE))

    assert (case.cost(), case.worst_cost()) == (5, 10)


# --- pools


def test_pool_deviations_name_the_pool_of_each_action() -> None:
    step, plan = passing_plan_starting_with(COLLECT)

    deviations = liquidity_answers(step, plan).pool_deviations()

    assert [name for _, name in deviations] == [f"pool {action.pool}" for action in plan.layer_actions]
    assert all(deviation < Fraction(1, 1_000) for deviation, _ in deviations)


def test_pool_deviations_need_the_price_of_each_pool() -> None:
    position = paired(2_000)
    step = world([position], bounds=roomy(lp_max_weight_bps=1_500))
    plan = planned(step)
    emptied_step = with_snapshot(step, positions=(replace(position, reserves=(0, position.reserves[1])),))

    assert len(liquidity_answers(step, plan).pool_deviations()) == 1
    with pytest.raises(Refused, match="has no price"):
        liquidity_answers(emptied_step, plan).pool_deviations()
