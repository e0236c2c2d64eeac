"""Tests of agent/layers/futures/policy/reviews.py: futures by a schedule beside their bands, when a review is due and when it is done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.layers.futures.policy.reviews import complete_review, mark_due_review, review_status
from agent.layers.futures.state import futures_policy, hold_futures, planned_futures, with_policy
from agent.model import AdjustFutures, Cron, Every, ExitFailures, Hold, Schedule, StepInput
from agent.model.futures import MarginAccount, RestingOrder
from agent.planning.proposals import propose_rebalance
from agent.policy import failures
from agent.policy.decide import current_drifts, decide
from agent.policy.decision import DecisionResult
from agent.policy.triggers.schedules import FUTURES_REVIEW, schedule_name
from agent.reference import reference_prices
from tests.support.builders import NOW_S, with_history, with_snapshot
from tests.support.constants import DAY_S
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import with_market
from tests.support.perpetuals.steps import FUTURES_POLICY, LIMITS, book, step_of

WEEKLY = Every(7 * DAY_S)
DAILY = Cron("0 0 * * *", "UTC")
WEEKLY_NAME = "futures review every 604800"
OFF_TARGET = book(10_000, 98 * E18 // 10)
"""1.96x where 2x is the target: 2 % below it, inside every band."""
ON_TARGET = book(10_000, 10 * E18)


def scheduled(account: MarginAccount | None, schedule: Schedule = WEEKLY, reviewed_s: int | None = None, **policy_fields: Any) -> StepInput:
    """Return a step of futures with a schedule, reviewed at that time."""
    policy = replace(FUTURES_POLICY, schedule=schedule, **policy_fields)
    reviews = () if reviewed_s is None else ((schedule_name(schedule, FUTURES_REVIEW), reviewed_s),)
    return mark_due_review(step_of(account, policy, by_schedule=reviews))


# --- When a review is due


@pytest.mark.parametrize(
    ("step", "is_ordered"),
    [
        pytest.param(scheduled(OFF_TARGET), True, id="never reviewed"),
        pytest.param(scheduled(OFF_TARGET, WEEKLY, NOW_S - 7 * DAY_S), True, id="a week ago"),
        pytest.param(scheduled(OFF_TARGET, WEEKLY, NOW_S - 7 * DAY_S + 1), False, id="a second less than a week ago"),
        pytest.param(scheduled(OFF_TARGET, DAILY, NOW_S - DAY_S), True, id="a day ago"),
        pytest.param(scheduled(OFF_TARGET, DAILY, NOW_S - 1), False, id="a second ago"),
        pytest.param(scheduled(OFF_TARGET, band_bps=0), True, id="no band"),
        pytest.param(scheduled(OFF_TARGET, leverage_band_bps=1_000), True, id="other leverage band"),
        pytest.param(scheduled(OFF_TARGET, manual_triggers=("schedule",)), False, id="waits for a person"),
        pytest.param(mark_due_review(step_of(OFF_TARGET)), False, id="no schedule"),
    ],
)
def test_review__brings_positions_in_their_bands_to_target(step: StepInput, is_ordered: bool) -> None:
    decision = decide(step).decision

    assert isinstance(decision, AdjustFutures) is is_ordered
    assert decision.reason.startswith("futures: a scheduled review is due") is is_ordered


@pytest.mark.parametrize(("reviewed_s", "is_due"), [(NOW_S - 2 * DAY_S, False), (NOW_S - 3 * DAY_S, True)], ids=["2 days", "3 days"])
def test_review_by_an_edited_schedule_counts_from_the_last_one(reviewed_s: int, is_due: bool) -> None:
    policy = replace(FUTURES_POLICY, schedule=Every(3 * DAY_S))
    step = mark_due_review(step_of(OFF_TARGET, policy, by_schedule=((WEEKLY_NAME, reviewed_s), ("review every 60", NOW_S))))

    assert futures_policy(step).is_review_due is is_due


def test_review_has_no_status_without_a_schedule() -> None:
    assert review_status(step_of(OFF_TARGET)) is None
    assert review_status(step_of(OFF_TARGET, None)) is None


@pytest.mark.parametrize(("eth", "missing"), [(8, 2), (5, 5), (9, 1)])
def test_review_orders_end_at_the_target(eth: int, missing: int) -> None:
    layer_plan = planned_futures(propose_rebalance(scheduled(book(10_000, eth * E18))).plan)

    [order] = layer_plan.orders
    assert (order.size_raw, layer_plan.trigger) == (missing * E18, "schedule")


# --- When it is done


BY_HAND = {"manual_triggers": ("leverage_drift",), "leverage_band_bps": 100}
COOLING = replace(LIMITS, emergency_cooldown_s=DAY_S)
RESTING = RestingOrder("ETH", E18 // 5, E18 // 5, ON_TARGET.market("ETH").mark, NOW_S, "0x01")
"""The order from 1.96x to the target."""
FAILED = (ExitFailures("ETH", failures.MAX_REVERTS_IN_ROW, 0, NOW_S),)
TOO_COSTLY = hold_futures(scheduled(OFF_TARGET), "futures: a scheduled review is due, but its cost is above plan_cost")


@pytest.mark.parametrize(
    ("step", "is_done"),
    [
        pytest.param(scheduled(ON_TARGET), True, id="at the target"),
        pytest.param(scheduled(book(10_000, 998 * E18 // 100)), True, id="less than a tenth of the band off"),
        pytest.param(scheduled(book(10_000, 998 * E18 // 100), band_bps=300), True, id="less than a tenth of a narrow band"),
        pytest.param(scheduled(book(10_000, 998 * E18 // 100), band_bps=0), True, id="less than a tenth of the template's band"),
        pytest.param(scheduled(replace(OFF_TARGET, is_on_chain=False, resting_orders=(RESTING,))), True, id="order rests"),
        pytest.param(scheduled(OFF_TARGET), False, id="order due"),
        pytest.param(TOO_COSTLY, True, id="not worth its cost"),
        pytest.param(with_history(TOO_COSTLY, failed_exits=FAILED), False, id="its orders failed"),
        pytest.param(scheduled(None), False, id="unknown account"),
        pytest.param(scheduled(with_market(ON_TARGET, "ETH", index_s=NOW_S - 90_000)), False, id="stale index"),
        pytest.param(with_snapshot(scheduled(ON_TARGET), futures_blocked="no agent"), False, id="orders blocked"),
        pytest.param(scheduled(OFF_TARGET, manual_triggers=("schedule",)), False, id="waits for the owner"),
        pytest.param(scheduled(OFF_TARGET, **BY_HAND), False, id="another trigger waits for the owner"),
        pytest.param(hold_futures(scheduled(OFF_TARGET, **BY_HAND), "futures: a guard refused"), False, id="waits for the owner on hold"),
        pytest.param(scheduled(ON_TARGET, reviewed_s=NOW_S - 1), False, id="not due"),
        pytest.param(scheduled(book(10_000, 20 * E18)), False, id="a limit first"),
        pytest.param(with_history(scheduled(ON_TARGET, limits=COOLING), last_emergency_s=NOW_S - 60), False, id="cooldown"),
        pytest.param(with_policy(scheduled(ON_TARGET), None), False, id="no futures"),
    ],
)
def test_review_is_done_when_nothing_is_left_to_do(step: StepInput, is_done: bool) -> None:
    decision_result = complete_review(step, DecisionResult(Hold("calm"), current_drifts(step), reference_prices(step)))

    assert decision_result.due_schedules == ((WEEKLY_NAME,) if is_done else ())
    assert decision_result.is_reviewed is is_done


@pytest.mark.parametrize("step", [scheduled(ON_TARGET), TOO_COSTLY], ids=["at the target", "not worth its cost"])
def test_review_that_is_done_is_in_the_decision(step: StepInput) -> None:
    decision_result = decide(step)

    assert isinstance(decision_result.decision, Hold)
    assert decision_result.due_schedules == (WEEKLY_NAME,)


def test_done_review_of_futures__ends_no_postponed_one_of_the_portfolio() -> None:
    step = scheduled(ON_TARGET)
    due = DecisionResult(Hold("calm"), current_drifts(step), reference_prices(step), is_reviewed=True, due_schedules=("every 86400",))

    assert complete_review(step, due).due_schedules == ("every 86400", WEEKLY_NAME)
    for postponed in (due.unreviewed(), due.postponed_for(Hold("calm"))):
        assert complete_review(step, postponed).due_schedules == (WEEKLY_NAME,)


def test_review_is_not_done_beside_orders_or_without_prices() -> None:
    step = scheduled(ON_TARGET)
    ordered = DecisionResult(AdjustFutures("", is_reducing=False), current_drifts(step), reference_prices(step))

    assert complete_review(step, ordered) == ordered
    without_prices = replace(ordered, decision=Hold("calm"), drifts=())
    assert complete_review(step, without_prices) == without_prices


def test_review_whose_order_costs_too_much_is_done_and_says_so() -> None:
    """0.2 ETH of 2,000 for the gas of an order: 70 basis points, where plan_cost is 50."""
    decision_result = propose_rebalance(scheduled(OFF_TARGET)).decision_result

    assert isinstance(decision_result.decision, Hold)
    assert "a scheduled review is due, but its orders cost" in decision_result.decision.reason
    assert decision_result.due_schedules == (WEEKLY_NAME,)
