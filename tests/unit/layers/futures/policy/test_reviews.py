"""Futures by a schedule beside their bands: config, when a review is due, what it orders, and when it is done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.layers.futures.policy.reviews import complete_review, mark_due_review
from agent.layers.futures.state import FuturesState, futures_policy, hold_futures, planned_futures
from agent.model import AdjustFutures, Cron, Every, Hold, Schedule, StepInput
from agent.model.futures import MarginAccount
from agent.planning.proposals import propose_rebalance
from agent.policy.decide import decide
from agent.policy.triggers.schedules import FUTURES_REVIEW, schedule_name
from tests.support.builders import NOW_S
from tests.support.constants import DAY_S
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.steps import FUTURES_POLICY, LIMITS, book, step_of

WEEKLY = Every(7 * DAY_S)
DAILY = Cron("0 0 * * *", "UTC")
OFF_TARGET = book(10_000, 98 * E18 // 10)
"""1.96x where 2x is the target: 2 % below it, inside every band."""
ON_TARGET = book(10_000, 10 * E18)


def scheduled(account: MarginAccount | None, schedule: Schedule = WEEKLY, reviewed_s: int | None = None, **policy: object) -> StepInput:
    """A step of futures with a schedule, reviewed at that time."""
    with_schedule = replace(FUTURES_POLICY, schedule=schedule, **policy)  # type: ignore[arg-type]
    reviews = () if reviewed_s is None else ((schedule_name(schedule, FUTURES_REVIEW), reviewed_s),)
    return mark_due_review(step_of(account, with_schedule, by_schedule=reviews))


@pytest.mark.parametrize(
    ("schedule", "reviewed_s", "policy", "orders"),
    [
        pytest.param(WEEKLY, None, {}, True, id="never reviewed"),
        pytest.param(WEEKLY, NOW_S - 7 * DAY_S, {}, True, id="a week ago"),
        pytest.param(WEEKLY, NOW_S - 7 * DAY_S + 1, {}, False, id="a second less than a week ago"),
        pytest.param(DAILY, NOW_S - DAY_S, {}, True, id="a day ago"),
        pytest.param(DAILY, NOW_S - 1, {}, False, id="a second ago"),
        pytest.param(WEEKLY, NOW_S - 7 * DAY_S, {"band_bps": 0}, True, id="no band"),
        pytest.param(WEEKLY, NOW_S - 7 * DAY_S, {"leverage_band_bps": 1_000}, True, id="other leverage band"),
        pytest.param(WEEKLY, NOW_S - 7 * DAY_S, {"manual_triggers": ("schedule",)}, False, id="waits for a person"),
    ],
)
def test_review__brings_positions_in_their_bands_to_target(
    schedule: Schedule, reviewed_s: int | None, policy: dict[str, object], orders: bool
) -> None:
    decision = decide(scheduled(OFF_TARGET, schedule, reviewed_s, **policy)).decision
    assert isinstance(decision, AdjustFutures) is orders
    if orders:
        assert decision.reason.startswith("futures: a scheduled review is due")


def test_review__without_a_schedule_is_never_due() -> None:
    assert isinstance(decide(mark_due_review(step_of(OFF_TARGET))).decision, Hold)


@pytest.mark.parametrize("band_bps", [500, 300, 0])
def test_review__leaves_what_is_below_a_tenth_of_the_band(band_bps: int) -> None:
    """0.2 % of the target notional is missing; the tenths are 0.5 %, 0.3 % and, without a band, 0.5 %."""
    step = scheduled(book(10_000, 998 * E18 // 100), band_bps=band_bps)
    decided = decide(step)
    assert isinstance(decided.decision, Hold)
    assert decided.due_schedules == ("futures review every 604800",)


@pytest.mark.parametrize(("eth", "missing"), [(8, 2), (5, 5), (9, 1)])
def test_review__order_of_a_plan_ends_at_the_target(eth: int, missing: int) -> None:
    plan = propose_rebalance(scheduled(book(10_000, eth * E18))).plan
    layer_plan = planned_futures(plan)
    assert layer_plan is not None
    (order,) = layer_plan.orders
    assert (order.size_raw, layer_plan.trigger) == (missing * E18, "schedule")


def test_review__whose_order_costs_too_much_is_done_and_says_so() -> None:
    """0.2 ETH of 2,000 for the gas of an order: 70 basis points, where plan_cost is 50."""
    result = propose_rebalance(scheduled(OFF_TARGET)).decision_result
    assert isinstance(result.decision, Hold)
    assert "a scheduled review is due, but its orders cost" in result.decision.reason
    assert result.due_schedules == ("futures review every 604800",)


@pytest.mark.parametrize(
    ("step", "is_done"),
    [
        (scheduled(ON_TARGET), True),
        (scheduled(OFF_TARGET), False),
        (hold_futures(scheduled(OFF_TARGET), "futures: a scheduled review is due, but its cost is above plan_cost"), True),
        (scheduled(None), False),
        (scheduled(book(10_000, 10 * E18, index_s=NOW_S - 90_000)), False),
        (scheduled(OFF_TARGET, manual_triggers=("schedule",)), False),
        (scheduled(ON_TARGET, reviewed_s=NOW_S - 1), False),
        (scheduled(book(10_000, 20 * E18)), False),
    ],
    ids=[
        "on target",
        "order due",
        "not worth its cost",
        "unknown account",
        "stale index",
        "waits for the owner",
        "not due",
        "a limit first",
    ],
)
def test_review__counts_as_done_only_when_nothing_is_left_to_do(step: StepInput, is_done: bool) -> None:
    decided = decide(step)
    assert decided.due_schedules == (("futures review every 604800",) if is_done else ())
    assert decided.is_reviewed is is_done


def test_review__after_an_emergency_waits_for_the_cooldown() -> None:
    limits = replace(LIMITS, emergency_cooldown_s=DAY_S)
    step = scheduled(ON_TARGET, limits=limits).with_layer(FuturesState(last_emergency_s=NOW_S - 60))
    assert complete_review(step, decide(step)).due_schedules == ()


def test_review__by_an_edited_schedule_counts_from_the_last_one() -> None:
    policy = replace(FUTURES_POLICY, schedule=Every(3 * DAY_S))
    for reviewed_s, is_due in ((NOW_S - 2 * DAY_S, False), (NOW_S - 3 * DAY_S, True)):
        step = step_of(OFF_TARGET, policy, by_schedule=(("futures review every 604800", reviewed_s), ("review every 60", NOW_S)))
        assert futures_policy(mark_due_review(step)).is_review_due is is_due  # type: ignore[union-attr]
