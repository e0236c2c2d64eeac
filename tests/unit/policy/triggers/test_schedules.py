"""Tests of agent/policy/triggers/schedules.py: cron times through clock changes, and when a schedule is due."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from agent.model import Cron, Every, History, Schedule
from agent.policy.triggers.schedules import (
    EXECUTION,
    FUTURES_REVIEW,
    REVIEW,
    next_cron_time,
    schedule_interval_start_s,
    schedule_name,
    schedule_status,
)
from tests.support.builders import NOW_S, history
from tests.support.constants import DAY_S, HOUR_S
from tests.support.samples import slow

BERLIN = "Europe/Berlin"
DAILY = Every(DAY_S)
DAILY_NAME = "review every 86400"


def utc_s(text: str) -> int:
    return int(datetime.fromisoformat(text + "+00:00").timestamp())


def cron_times(expression: str, start: str, count: int, timezone: str = BERLIN) -> list[str]:
    """Return the first times after a UTC start, as local wall clock with offset."""
    at_s = utc_s(start)
    local_times = []
    for _ in range(count):
        next_s = next_cron_time(Cron(expression, timezone), at_s)
        assert next_s is not None
        at_s = next_s
        local_times.append(datetime.fromtimestamp(at_s, ZoneInfo(timezone)).strftime("%a %d %b %H:%M %z"))
    return local_times


@pytest.mark.parametrize(
    ("expression", "start", "local_times"),
    [
        pytest.param(
            "30 */2 * * *", "2026-03-28T23:00:00", ["Sun 29 Mar 00:30 +0100", "Sun 29 Mar 03:30 +0200", "Sun 29 Mar 04:30 +0200"],
            id="skipped hour of a step",
        ),
        pytest.param(
            "0 9 * * *", "2026-03-28T06:00:00", ["Sat 28 Mar 09:00 +0100", "Sun 29 Mar 09:00 +0200", "Mon 30 Mar 09:00 +0200"],
            id="daily into summer time",
        ),
        pytest.param(
            "0 9 * * *", "2026-10-24T06:00:00", ["Sat 24 Oct 09:00 +0200", "Sun 25 Oct 09:00 +0100", "Mon 26 Oct 09:00 +0100"],
            id="daily into winter time",
        ),
        pytest.param("30 2 * * *", "2026-03-28T06:00:00", ["Sun 29 Mar 03:30 +0200", "Mon 30 Mar 02:30 +0200"], id="skipped hour"),
        pytest.param("30 2 * * *", "2026-10-24T06:00:00", ["Sun 25 Oct 02:30 +0200", "Mon 26 Oct 02:30 +0100"], id="repeated fixed hour"),
        pytest.param(
            "30 * * * *", "2026-10-24T23:45:00", ["Sun 25 Oct 02:30 +0200", "Sun 25 Oct 02:30 +0100", "Sun 25 Oct 03:30 +0100"],
            id="repeated every hour",
        ),
        pytest.param(
            "30 */2 * * *", "2026-10-24T23:45:00", ["Sun 25 Oct 02:30 +0200", "Sun 25 Oct 02:30 +0100", "Sun 25 Oct 04:30 +0100"],
            id="repeated hour of a step",
        ),
    ],
)  # fmt: skip
def test_cron_keeps_wall_clock_time_through_clock_changes(expression: str, start: str, local_times: list[str]) -> None:
    assert cron_times(expression, start, len(local_times)) == local_times


def test_cron_keeps_order_in_a_gap_of_half_an_hour() -> None:
    local_times = ["Sun 04 Oct 02:30 +1100", "Sun 04 Oct 02:40 +1100", "Sun 04 Oct 02:50 +1100"]

    assert cron_times("*/20 2 * * *", "2026-10-03T15:00:00", 3, "Australia/Lord_Howe") == local_times


@pytest.mark.parametrize(
    ("weekday", "days"),
    [
        ("0", "Sun"),
        ("7", "Sun"),
        ("1", "Mon"),
        ("sun", "Sun"),
        ("MON-FRI", "Mon Tue Wed Thu Fri"),
        ("1-5", "Mon Tue Wed Thu Fri"),
        ("5-7", "Fri Sat Sun"),
        ("5-0", "Fri Sat Sun"),
        ("sat-sun", "Sat Sun"),
        ("*/3", "Wed Sat Sun"),
        ("1-5/2", "Mon Wed Fri"),
        ("1/2", "Mon Wed Fri Sun"),
        ("2,4", "Tue Thu"),
        ("0-6", "Mon Tue Wed Thu Fri Sat Sun"),
    ],
)
def test_cron_counts_sunday_as_0_and_7(weekday: str, days: str) -> None:
    local_times = cron_times(f"0 0 * * {weekday}", "2026-11-15T23:30:00", len(days.split()), "UTC")

    assert [local_time[:3] for local_time in local_times] == days.split()


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        pytest.param("0 9 13 * 1", ["Mon 09 Nov", "Fri 13 Nov", "Mon 16 Nov"], id="either day suffices"),
        pytest.param("0 9 last * *", ["Mon 30 Nov", "Thu 31 Dec"], id="last day of the month"),
        pytest.param("0 9 LW * *", ["Mon 30 Nov", "Thu 31 Dec"], id="last weekday of the month"),
    ],
)
def test_cron_restricts_days_of_the_month(expression: str, days: list[str]) -> None:
    assert cron_times(expression, "2026-11-08T12:00:00", len(days), "UTC") == [f"{day} 09:00 +0000" for day in days]


@pytest.mark.parametrize("timezone", [BERLIN, "America/St_Johns", "Australia/Lord_Howe", "Africa/Casablanca", "America/Havana"])
@pytest.mark.parametrize("hour", [0, 2])
@pytest.mark.parametrize("years", [1, *slow([5])])
def test_cron_fires_once_on_each_day_of_years(timezone: str, hour: int, years: int) -> None:
    daily = Cron(f"30 {hour} * * *", timezone)
    at_s = utc_s("2024-01-01T12:00:00")
    days = []
    while at_s < utc_s(f"{2024 + years}-01-01T00:00:00"):
        next_s = next_cron_time(daily, at_s)
        assert next_s is not None
        assert next_cron_time(daily, next_s - 1) == next_s
        assert next_cron_time(daily, (at_s + next_s) // 2) == next_s
        at_s = next_s
        days.append(datetime.fromtimestamp(at_s, ZoneInfo(timezone)).date().toordinal())

    assert days == list(range(days[0], days[0] + len(days)))


def test_cron_fires_every_hour_through_both_clock_changes() -> None:
    start_s = utc_s("2026-01-01T00:30:00")

    for at_s in range(start_s, start_s + 366 * DAY_S, HOUR_S):
        assert next_cron_time(Cron("30 * * * *", BERLIN), at_s) == at_s + HOUR_S


def test_cron_waits_for_a_leap_day() -> None:
    assert next_cron_time(Cron("0 0 29 2 *", "UTC"), utc_s("2096-03-01T00:00:00")) == utc_s("2104-02-29T00:00:00")


@pytest.mark.parametrize(
    ("schedule", "purpose", "name"),
    [
        pytest.param(Cron("0  9 1 * *", BERLIN), REVIEW, "review 0 9 1 * * Europe/Berlin", id="cron of Berlin"),
        pytest.param(Cron("0 9 1 * *", "UTC"), REVIEW, "review 0 9 1 * * UTC", id="cron of UTC"),
        pytest.param(Cron("0 9 1 * *", BERLIN), EXECUTION, "execution 0 9 1 * * Europe/Berlin", id="execution"),
        pytest.param(DAILY, REVIEW, DAILY_NAME, id="daily review"),
        pytest.param(Every(HOUR_S), EXECUTION, "execution every 3600", id="interval"),
    ],
)
def test_name_tells_schedules_and_purposes_apart(schedule: Schedule, purpose: str, name: str) -> None:
    assert schedule_name(schedule, purpose) == name


@pytest.mark.parametrize(
    ("past", "is_due", "next_s"),
    [
        pytest.param(history(), True, NOW_S + DAY_S, id="never ran"),
        pytest.param(history(last_review_s=NOW_S), False, NOW_S + DAY_S, id="just reviewed"),
        pytest.param(history(last_review_s=NOW_S - DAY_S + 1), False, NOW_S + 1, id="one second early"),
        pytest.param(history(last_review_s=NOW_S - DAY_S), True, NOW_S + DAY_S, id="exactly due"),
        pytest.param(history(last_review_s=NOW_S - 3 * DAY_S), True, NOW_S + DAY_S, id="days late"),
        pytest.param(history(last_rebalance_s=NOW_S - DAY_S + 1), False, NOW_S + 1, id="rebalance is a review"),
        pytest.param(history(last_rebalance_s=NOW_S - DAY_S), True, NOW_S + DAY_S, id="rebalance a day ago"),
        pytest.param(
            history(last_rebalance_s=NOW_S - 2 * DAY_S, last_review_s=NOW_S - HOUR_S), False, NOW_S + DAY_S - HOUR_S, id="later one counts",
        ),
        pytest.param(
            history(last_rebalance_s=NOW_S - HOUR_S, by_schedule=((DAILY_NAME, NOW_S - DAY_S),)), False, NOW_S + DAY_S - HOUR_S,
            id="rebalance after its own review",
        ),
        pytest.param(
            history(last_rebalance_s=NOW_S - DAY_S, last_review_s=NOW_S, by_schedule=(("review every 7", NOW_S),)), True, NOW_S + DAY_S,
            id="review of another schedule",
        ),
    ],
)  # fmt: skip
def test_interval_is_due_once_wholly_past_review_or_rebalance(past: History, is_due: bool, next_s: int) -> None:
    status = schedule_status(DAILY, NOW_S, past, jitter_bps=0)

    assert (status.is_due, status.next_s, status.name) == (is_due, next_s, DAILY_NAME)


@pytest.mark.parametrize(
    ("purpose", "by_schedule", "last_rebalance_s", "start_s"),
    [
        pytest.param(REVIEW, {DAILY_NAME: 100}, 200, 200, id="review: rebalance counts"),
        pytest.param(REVIEW, {"review every 7": 300}, 200, 200, id="review: not that of another schedule"),
        pytest.param(EXECUTION, {f"execution every {DAY_S}": 100}, 200, 100, id="execution: rebalance does not count"),
        pytest.param(EXECUTION, {DAILY_NAME: 100}, None, None, id="execution: review does not count"),
        pytest.param(FUTURES_REVIEW, {"futures review every 7": 100, DAILY_NAME: 300}, 200, 100, id="futures: any review of futures"),
        pytest.param(FUTURES_REVIEW, {"futures review every 7": 100, "futures review every 8": 150}, 200, 150, id="futures: the last"),
    ],
)
def test_interval_starts_at_the_last_run_of_its_purpose(
    purpose: str, by_schedule: dict[str, int], last_rebalance_s: int | None, start_s: int | None
) -> None:
    past = history(last_rebalance_s=last_rebalance_s, last_review_s=None, by_schedule=tuple(by_schedule.items()))

    assert schedule_interval_start_s(DAILY, past, purpose) == start_s


@pytest.mark.parametrize(
    ("every_s", "delay_ppm", "delay_s"),
    [
        pytest.param(DAY_S, 0, 0, id="none drawn"),
        pytest.param(10_000, 500_000, 500, id="half of a tenth"),
        pytest.param(DAY_S, 1_000_000, HOUR_S, id="an hour at most"),
    ],
)
def test_jitter_postpones_a_review(every_s: int, delay_ppm: int, delay_s: int) -> None:
    past = history(last_review_s=NOW_S - every_s, delay_ppm=delay_ppm)

    status = schedule_status(Every(every_s), NOW_S, past, jitter_bps=1_000)

    assert status.is_due is (delay_s == 0)
    assert status.next_s == (NOW_S + every_s if status.is_due else NOW_S + delay_s)


@pytest.mark.parametrize(
    ("now", "is_due", "next_time"),
    [
        pytest.param("2026-11-21T11:59:59", False, "2026-11-21T12:00:00", id="a second before"),
        pytest.param("2026-11-21T12:00:00", True, "2026-11-22T12:00:00", id="on time"),
        pytest.param("2026-11-25T08:00:00", True, "2026-11-25T12:00:00", id="days later"),
    ],
)
def test_cron_is_due_once_one_of_its_times_has_come(now: str, is_due: bool, next_time: str) -> None:
    past = history(last_review_s=utc_s("2026-11-20T12:00:00"))

    status = schedule_status(Cron("0 12 * * *", "UTC"), utc_s(now), past, jitter_bps=0)

    assert (status.is_due, status.next_s) == (is_due, utc_s(next_time))


def test_schedule_without_a_future_is_never_due() -> None:
    status = schedule_status(Cron("0 0 30 2 *", "UTC"), NOW_S, history(last_review_s=NOW_S - 60), jitter_bps=0)

    assert (status.is_due, status.next_s) == (False, None)
    assert "no time after" in status.description
