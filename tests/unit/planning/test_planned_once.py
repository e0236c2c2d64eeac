"""No problem is planned twice: what one stage has planned goes to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent.execution import evaluation
from agent.model import Hold, LimitOrder, Plan, StepInput
from agent.planning import planner, proposals, requests
from agent.policy.decide import decide
from tests.support.builders import NOW_S, step_input, with_history, with_limits
from tests.support.decisions.exits import MARKET, SOUND, step_with_stops
from tests.support.decisions.partial_plans import partial_purchase_step
from tests.support.decisions.purchases import HALVES, MILLION, money_step
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.planning_worlds import USDC, WETH, two

SHALLOW = 600_000
APPROVED_RAW = 3_000 * MILLION


@pytest.fixture
def plan_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The inputs of every plan made in the test."""
    calls: list[Any] = []

    def with_recorded_calls(plan: Callable[..., Plan]) -> Callable[..., Plan]:
        def recorded_plan(*args: Any, **kwargs: Any) -> Plan:
            calls.append((args, kwargs))
            return plan(*args, **kwargs)

        return recorded_plan

    for name in ("plan", "plan_swap"):
        monkeypatch.setattr(planner, name, with_recorded_calls(getattr(planner, name)))
    return calls


def step_bought_in_parts() -> StepInput:
    """Ten thousand dollars to halve, through a pool that takes a part of them within the limit of impact."""
    step = with_limits(step_input(HALVES, {"WETH": 0, "USDC": 10_000}, depth=SHALLOW), first_purchase_s=600, daily_loss_bps=500)
    return with_history(step, last_rebalance_s=None)


def with_spend_cap(step: StepInput) -> StepInput:
    return replace(step, progress=replace(step.progress, spend_caps=((USDC.address, APPROVED_RAW),)))


def assert_each_call_is_new(plan_calls: list[Any]) -> None:
    assert plan_calls
    assert all(call not in plan_calls[:number] for number, call in enumerate(plan_calls))


STEPS = {
    "whole purchase": money_step(),
    "purchase in parts": step_bought_in_parts(),
    "purchase beyond daily loss": partial_purchase_step(),
    "purchase of which nothing fits": partial_purchase_step(daily_loss_bps=1),
    "purchase approved in part": with_spend_cap(step_bought_in_parts()),
    "drift": two(8_000, 2_000),
    "drift beyond daily loss": with_limits(two(8_000, 2_000), daily_loss_bps=8),
    "drift approved in part": with_spend_cap(two(8_000, 2_000)),
}


@pytest.mark.parametrize("name", STEPS)
def test_evaluation_plans_each_problem_once(plan_calls: list[Any], name: str) -> None:
    evaluation.evaluate_input(STEPS[name], proposals.propose_rebalance, FakeEvidenceSource())
    assert_each_call_is_new(plan_calls)


def test_whole_purchase_takes_a_single_plan(plan_calls: list[Any]) -> None:
    evaluation.evaluate_input(money_step(), proposals.propose_rebalance, FakeEvidenceSource())
    assert len(plan_calls) == 1


@pytest.mark.parametrize("name", STEPS)
def test_status_plans_no_parts(plan_calls: list[Any], name: str) -> None:
    decision_result = proposals.decision_after_plan(STEPS[name])
    assert len(plan_calls) == 1
    assert decision_result.decision == decide(STEPS[name]).decision


def test_status_holds_what_is_not_worth_its_cost() -> None:
    costly_step = with_limits(money_step(), plan_cost_bps=1)
    assert proposals.decision_after_plan(costly_step).decision == proposals.propose_rebalance(costly_step).decision_result.decision
    assert isinstance(proposals.decision_after_plan(costly_step).decision, Hold)


def test_invest_plans_each_problem_once(plan_calls: list[Any]) -> None:
    step = with_history(step_bought_in_parts(), last_rebalance_s=1)
    evaluation.evaluate_input(step, requests.invest_proposer({USDC.address: APPROVED_RAW}), FakeEvidenceSource())
    assert_each_call_is_new(plan_calls)


@pytest.mark.parametrize("price", [1, 10**9], ids=["filled", "waits"])
def test_limit_order_is_planned_once(plan_calls: list[Any], price: int) -> None:
    order = LimitOrder("one", USDC.address, WETH.address, APPROVED_RAW, Fraction(price), NOW_S + 3_600, NOW_S)
    evaluation.evaluate_input(two(5_000, 5_000), proposals.single_order_proposer(order), FakeEvidenceSource())
    assert len(plan_calls) == 1


def test_exit_beside_waiting_orders_is_planned_once(plan_calls: list[Any]) -> None:
    step = with_limits(step_with_stops("LINK", pools=(*MARKET, SOUND)), plan_cost_bps=200)
    order = LimitOrder("one", USDC.address, WETH.address, APPROVED_RAW, Fraction(1), NOW_S + 3_600, NOW_S)
    assert proposals.orders_proposer((order,))(step).plan.is_exit
    assert_each_call_is_new(plan_calls)
