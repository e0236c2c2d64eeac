"""Futures by a schedule beside their bands: config, when a review is due, what it orders, and when it is done."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.config.futures import build_futures
from agent.config.load import parse_config
from agent.layers.futures.policy.reviews import complete_review, mark_due_review
from agent.layers.futures.state import FuturesState, futures_policy, hold_futures, planned_futures
from agent.model import AdjustFutures, Cron, Every, Hold, Schedule, StepInput
from agent.model.futures import FuturesPolicy, FuturesTarget, MarginAccount
from agent.planning.proposals import propose_rebalance
from agent.policy.decide import decide
from agent.policy.triggers.schedules import FUTURES_REVIEW, schedule_name
from tests.support.builders import NOW_S, token
from tests.support.configs.futures import futures_error, with_futures
from tests.support.constants import DAY_S
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.runs import LONG, book_of, run
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


@pytest.mark.parametrize(
    ("keys", "schedule"),
    [
        ('every = "7d"', WEEKLY),
        ('every = "30m"', Every(1_800)),
        ('cron = "0 0 * * *"\ntimezone = "UTC"', DAILY),
        ('cron = "30 9 * * mon"\ntimezone = "Europe/Berlin"', Cron("30 9 * * mon", "Europe/Berlin")),
    ],
)
def test_config__names_the_schedule(keys: str, schedule: Schedule) -> None:
    config = parse_config(with_futures(('band = "5%"', f'band = "5%"\n{keys}')))
    policy = build_futures(config, {asset.symbol: token(asset.symbol) for asset in config.portfolio.assets})
    assert policy is not None
    assert policy.schedule == schedule
    assert codec.loads(FuturesPolicy, codec.dumps(policy)) == policy


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('every = "7d"\ncron = "0 0 * * *"\ntimezone = "UTC"', "futures: give exactly one of every and cron"),
        ('timezone = "UTC"', "futures: give exactly one of every and cron"),
        ('cron = "0 0 * * *"', "futures.timezone: missing"),
        ('cron = "0 0 * *"\ntimezone = "UTC"', "futures.cron: '0 0 * *' has 4 fields"),
        ('cron = "0 25 * * *"\ntimezone = "UTC"', "futures.cron: '0 25 * * *': '25' is not a hour"),
        ('cron = "0 0 30 2 *"\ntimezone = "UTC"', "futures.cron: '0 0 30 2 *' in UTC never comes"),
        ('cron = "0 0 * * *"\ntimezone = "Mars"', "futures.timezone: 'Mars' is unknown"),
        ('every = "29m"', "futures.every: 1740 s"),
        ('every = "29d"', "futures.every: 2505600 s"),
        ('every = "often"', "futures"),
    ],
)
def test_config__refuses_a_schedule_that_is_none(keys: str, message: str) -> None:
    assert message in futures_error(('band = "5%"', f'band = "5%"\n{keys}'))


@pytest.mark.parametrize(("band_bps", "leverage_band_bps"), [(0, 0), (500, 0), (0, 5_000)])
def test_backtest__trades_at_the_times_of_the_schedule(band_bps: int, leverage_band_bps: int) -> None:
    """BTC rises by 1 % every six hours: the account gains twice that, so it is below its leverage at each daily review."""
    policy = replace(LONG, schedule=Every(DAY_S), band_bps=band_bps, leverage_band_bps=leverage_band_bps)
    fills = book_of(run([100 * 1.01**bar for bar in range(17)], policy, hours=6)).agent_book.fills
    assert [fill.bar for fill in fills] == [0, 4, 8, 12, 16]
    assert {fill.trigger for fill in fills[1:]} == {"schedule"}
    assert all(fill.size_raw > 0 for fill in fills)


def test_backtest__bands_act_between_the_reviews() -> None:
    """A fall of 20 % leaves the band of the leverage at bar 2; the review at bar 4 finds nothing more to do."""
    policy = replace(LONG, schedule=Every(DAY_S), leverage_band_bps=1_000)
    fills = book_of(run([100.0, 100, 80, 80, 80, 80], policy, hours=6)).agent_book.fills
    assert [(fill.bar, fill.trigger) for fill in fills] == [(0, "drift"), (2, "leverage_drift")]


def test_backtest__held_book_opens_at_the_first_review() -> None:
    policy = replace(LONG, schedule=Every(DAY_S), band_bps=0, leverage_band_bps=0, targets=(FuturesTarget("BTC", 10_000),))
    held_book = book_of(run([100.0, 101, 102, 103], policy, hours=6)).held_book
    assert Fraction(held_book.sizes[0][1], E18) > 0
