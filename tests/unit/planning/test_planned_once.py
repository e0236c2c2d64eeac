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
from tests.support.decisions.exits import MARKET, SOUND
from tests.support.decisions.exits import step_with_stops as fired
from tests.support.decisions.partial_plans import partial_purchase_step as halves_of
from tests.support.decisions.purchases import HALVES, MILLION
from tests.support.decisions.purchases import PassingEvidence as Seen
from tests.support.decisions.purchases import money_step as money
from tests.support.planning_worlds import USDC, WETH, two

SHALLOW = 600_000
ASKED = 3_000 * MILLION


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The inputs of every plan made in the test."""
    found: list[Any] = []

    def counted(plan: Callable[..., Plan]) -> Callable[..., Plan]:
        def planned(*given: Any, **named: Any) -> Plan:
            found.append((given, named))
            return plan(*given, **named)

        return planned

    for name in ("plan", "plan_swap"):
        monkeypatch.setattr(planner, name, counted(getattr(planner, name)))
    return found


def in_parts() -> StepInput:
    """Ten thousand dollars to halve, through a pool that takes a part of them within the limit of impact."""
    step = with_limits(step_input(HALVES, {"WETH": 0, "USDC": 10_000}, depth=SHALLOW), first_purchase_s=600, daily_loss_bps=500)
    return with_history(step, last_rebalance_s=None)


def approved(step: StepInput) -> StepInput:
    return replace(step, progress=replace(step.progress, spend_caps=((USDC.address, ASKED),)))


def require_once(asked: list[Any]) -> None:
    assert asked
    assert all(one not in asked[:number] for number, one in enumerate(asked))


STEPS = {
    "whole purchase": money(),
    "purchase in parts": in_parts(),
    "purchase beyond daily loss": halves_of(),
    "purchase of which nothing fits": halves_of(daily_loss_bps=1),
    "purchase approved in part": approved(in_parts()),
    "drift": two(8_000, 2_000),
    "drift beyond daily loss": with_limits(two(8_000, 2_000), daily_loss_bps=8),
    "drift approved in part": approved(two(8_000, 2_000)),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_look_plans_each_problem_once(asked: list[Any], name: str) -> None:
    evaluation.evaluate_input(STEPS[name], proposals.propose_rebalance, Seen())
    require_once(asked)


def test_a_whole_purchase_takes_one_plan(asked: list[Any]) -> None:
    evaluation.evaluate_input(money(), proposals.propose_rebalance, Seen())
    assert len(asked) == 1


@pytest.mark.parametrize("name", STEPS)
def test_status_plans_no_parts(asked: list[Any], name: str) -> None:
    decided = proposals.decision_after_plan(STEPS[name])
    assert len(asked) == 1
    assert decided.decision == decide(STEPS[name]).decision


def test_status_holds_what_is_not_worth_its_cost() -> None:
    dear = with_limits(money(), plan_cost_bps=1)
    assert proposals.decision_after_plan(dear).decision == proposals.propose_rebalance(dear).decision_result.decision
    assert isinstance(proposals.decision_after_plan(dear).decision, Hold)


def test_what_came_is_invested_by_plans_made_once(asked: list[Any]) -> None:
    step = with_history(in_parts(), last_rebalance_s=1)
    evaluation.evaluate_input(step, requests.invest_proposer({USDC.address: ASKED}), Seen())
    require_once(asked)


@pytest.mark.parametrize("price", [1, 10**9], ids=["filled", "waits"])
def test_an_order_at_a_price_is_planned_once(asked: list[Any], price: int) -> None:
    order = LimitOrder("one", USDC.address, WETH.address, ASKED, Fraction(price), NOW_S + 3_600, NOW_S)
    evaluation.evaluate_input(two(5_000, 5_000), proposals.single_order_proposer(order), Seen())
    assert len(asked) == 1


def test_an_exit_is_planned_once_beside_waiting_orders(asked: list[Any]) -> None:
    step = with_limits(fired("LINK", pools=(*MARKET, SOUND)), plan_cost_bps=200)
    order = LimitOrder("one", USDC.address, WETH.address, ASKED, Fraction(1), NOW_S + 3_600, NOW_S)
    found = proposals.orders_proposer((order,))(step)
    assert found.plan is not None
    assert found.plan.is_exit
    require_once(asked)
