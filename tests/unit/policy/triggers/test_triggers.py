"""Triggers: bands, intervals, cron times through both clock changes, and words that say why and when next."""

from datetime import datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest

from agent.errors import ConfigError
from agent.model import Asset, AssetDrift, Cron, Destination, Every, History, HybridTrigger, Policy, Threshold, Trigger
from agent.policy.drift import drifts_from_balances
from agent.policy.triggers.bands import TriggerResult
from agent.policy.triggers.rules import evaluate_trigger
from agent.policy.triggers.schedules import next_cron_time as next_time
from agent.policy.triggers.validation import validate_policy, validate_trigger
from agent.units import format_duration, format_time
from tests.support.builders import NOW_S, history, token
from tests.support.samples import slow
from tests.support.text import mentions, raises_field

TENTH = Threshold(None, 1_000)
DAY_S = 86_400


def _standing(shares: list[int], trigger: Trigger, targets_bps: list[int] | None = None) -> tuple[AssetDrift, ...]:
    wanted = targets_bps or [5_000, 5_000]
    assets = [Asset(token(symbol), bps, 0) for symbol, bps in zip(("WETH", "USDC", "DAI"), wanted, strict=False)]
    held = {asset.token.address: raw for asset, raw in zip(assets, shares, strict=True)}
    return drifts_from_balances(assets, held, {asset.token.address: Fraction(1) for asset in assets}, trigger)


def _ask(trigger: Trigger, shares: list[int], past: History, targets_bps: list[int] | None = None) -> TriggerResult:
    return evaluate_trigger(trigger, _standing(shares, trigger, targets_bps), NOW_S, past)


def _utc(text: str) -> int:
    return int(datetime.fromisoformat(text + "+00:00").timestamp())


def _times(expression: str, start: str, count: int, zone: str = "Europe/Berlin") -> list[str]:
    """The next times after a UTC start, as local wall clock with offset."""
    at_s, found = _utc(start), []
    for _ in range(count):
        following = next_time(Cron(expression, zone), at_s)
        assert following is not None
        at_s = following
        found.append(datetime.fromtimestamp(at_s, ZoneInfo(zone)).strftime("%a %d %b %H:%M %z"))
    return found


def test_a_threshold_fires_beyond_the_band_and_names_every_asset_outside_with_the_distance() -> None:
    answer = _ask(TENTH, [58, 27, 15], history(), [5_000, 3_000, 2_000])
    assert answer == TriggerResult(
        True,
        "WETH at 58 % is 3 points above its band 45-55 %; DAI at 15 % is 3 points below its band 18-22 %",
        None,
        is_review_due=False,
        signals=(("too little", token("DAI").address), ("too much", token("WETH").address)),
    )


def test_a_threshold_on_the_edge_does_not_fire() -> None:
    answer = _ask(TENTH, [55, 45], history())
    assert not answer.fired
    assert mentions(answer.reason, "WETH", "55 %", "0 points", "upper", "45-55 %", "0 %")


def test_holding_says_which_asset_is_closest_to_its_band_how_far_and_which_price_takes_it_there() -> None:
    answer = _ask(TENTH, [47, 53], history())
    assert not answer.fired
    assert mentions(answer.reason, "WETH", "47 %", "2 points", "lower", "45-55 %")
    assert "7.74 %" in answer.reason


def test_an_edge_that_no_price_reaches_is_not_given_one() -> None:
    answer = _ask(Threshold(500, None), [1, 99], history(), [300, 9_700])
    assert mentions(answer.reason, "WETH", "1 %", "1 point", "lower", "0-8 %")


def test_a_distance_too_small_to_show_is_not_shown_as_nothing() -> None:
    answer = _ask(TENTH, [5_500_001, 4_499_999], history())
    assert answer.fired
    assert mentions(answer.reason, "WETH", "55 %", "0.01 points")


def test_an_interval_that_never_ran_is_due_now() -> None:
    answer = _ask(Every(DAY_S), [60, 40], history())
    reason = "first review; furthest from target is WETH at 60 %, 10 points above 50 %"
    assert answer == TriggerResult(
        True, reason, NOW_S + DAY_S, is_review_due=True, due_schedules=("review every 86400",), fired_by_schedule=True
    )


@pytest.mark.parametrize(("ago_s", "due"), [(DAY_S - 1, False), (DAY_S, True), (DAY_S + 1, True), (0, False)])
@pytest.mark.parametrize("field", ["last_rebalance_s", "last_review_s"])
def test_an_interval_is_due_once_it_has_wholly_passed(field: str, ago_s: int, due: bool) -> None:
    answer = _ask(Every(DAY_S), [60, 40], history(**{field: NOW_S - ago_s}))
    assert (answer.fired, answer.is_review_due) == (due, due)
    assert answer.next_s == (NOW_S + DAY_S if due else NOW_S - ago_s + DAY_S)


def test_the_later_of_rebalance_and_review_counts() -> None:
    past = history(last_rebalance_s=NOW_S - 2 * DAY_S, last_review_s=NOW_S - 3_600)
    assert past.reviews.last_evaluation_s == NOW_S - 3_600
    answer = _ask(Every(DAY_S), [60, 40], past)
    assert not answer.fired
    assert mentions(answer.reason, "2027-01-16 07:00:00 UTC", "23 h", "WETH")


def test_the_time_trigger_says_when_it_was_due_and_when_nothing_is_off_target() -> None:
    answer = _ask(Every(DAY_S), [50, 50], history(last_review_s=NOW_S - DAY_S - 60))
    assert mentions(answer.reason, "review", "2027-01-15 07:59:00 UTC", "2027-01-14 07:59:00 UTC")
    below = _ask(Every(DAY_S), [10, 45, 45], history(), [3_000, 3_000, 4_000])
    assert mentions(below.reason, "WETH", "10 %", "20 points", "30 %")


@pytest.mark.parametrize(("ago_s", "shares", "fires"), [(10, [70, 30], False), (DAY_S, [54, 46], False), (DAY_S, [56, 44], True)])
def test_a_hybrid_acts_only_when_a_review_is_due_and_a_band_is_left(ago_s: int, shares: list[int], fires: bool) -> None:
    answer = _ask(HybridTrigger(TENTH, Every(DAY_S)), shares, history(last_review_s=NOW_S - ago_s))
    assert answer.fired is fires
    assert answer.is_review_due is (ago_s == DAY_S)


def test_a_hybrid_between_reviews_says_what_is_outside_and_when_it_will_be_reviewed() -> None:
    answer = _ask(HybridTrigger(TENTH, Every(DAY_S)), [70, 30], history(last_review_s=NOW_S - 3_600))
    assert mentions(answer.reason, "2027-01-16 07:00:00 UTC", "23 h", "WETH", "70 %", "15 points", "45-55 %", "USDC", "30 %")
    assert answer.next_s == NOW_S + DAY_S - 3_600


def test_cron_is_due_when_one_of_its_times_has_come_since_the_last_look() -> None:
    noon = Cron("0 12 * * *", "UTC")
    drifts = _standing([60, 40], noon)
    looked = history(last_review_s=_utc("2026-11-20T12:00:00"))
    before = evaluate_trigger(noon, drifts, _utc("2026-11-21T11:59:59"), looked)
    assert (before.is_review_due, before.next_s) == (False, _utc("2026-11-21T12:00:00"))
    at = evaluate_trigger(noon, drifts, _utc("2026-11-21T12:00:00"), looked)
    assert (at.fired, at.next_s) == (True, _utc("2026-11-22T12:00:00"))
    days_later = evaluate_trigger(noon, drifts, _utc("2026-11-25T08:00:00"), looked)
    assert (days_later.fired, days_later.next_s) == (True, _utc("2026-11-25T12:00:00"))
    assert evaluate_trigger(noon, drifts, NOW_S, history()).fired


def test_a_schedule_without_a_future_never_fires() -> None:
    never = Cron("0 0 30 2 *", "UTC")
    answer = evaluate_trigger(never, _standing([60, 40], never), NOW_S, history(last_review_s=NOW_S - 60))
    assert (answer.fired, answer.is_review_due, answer.next_s) == (False, False, None)
    assert "no time" in answer.reason


def test_cron_keeps_its_wall_clock_time_over_both_clock_changes() -> None:
    spring = _times("0 9 * * *", "2026-03-28T06:00:00", 3)
    assert spring == ["Sat 28 Mar 09:00 +0100", "Sun 29 Mar 09:00 +0200", "Mon 30 Mar 09:00 +0200"]
    autumn = _times("0 9 * * *", "2026-10-24T06:00:00", 3)
    assert autumn == ["Sat 24 Oct 09:00 +0200", "Sun 25 Oct 09:00 +0100", "Mon 26 Oct 09:00 +0100"]


def test_a_time_that_the_clock_skips_fires_once_after_the_gap() -> None:
    assert _times("30 2 * * *", "2026-03-28T06:00:00", 2) == ["Sun 29 Mar 03:30 +0200", "Mon 30 Mar 02:30 +0200"]


def test_a_time_that_the_clock_repeats_fires_once_for_a_fixed_hour_and_each_time_for_every_hour() -> None:
    assert _times("30 2 * * *", "2026-10-24T06:00:00", 2) == ["Sun 25 Oct 02:30 +0200", "Mon 26 Oct 02:30 +0100"]
    hourly = _times("30 * * * *", "2026-10-24T23:45:00", 3)
    assert hourly == ["Sun 25 Oct 02:30 +0200", "Sun 25 Oct 02:30 +0100", "Sun 25 Oct 03:30 +0100"]


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
        ("sat-sun", "Sat Sun"),
        ("*/3", "Wed Sat Sun"),
        ("1-5/2", "Mon Wed Fri"),
        ("1/2", "Mon Wed Fri Sun"),
        ("2,4", "Tue Thu"),
        ("0-6", "Mon Tue Wed Thu Fri Sat Sun"),
    ],
)
def test_days_of_the_week_count_as_in_cron_with_sunday_as_0_and_7(weekday: str, days: str) -> None:
    found = _times(f"0 0 * * {weekday}", "2026-11-15T23:30:00", len(days.split()), "UTC")
    assert [text[:3] for text in found] == days.split()


def test_with_both_days_restricted_either_one_suffices_as_in_cron() -> None:
    assert _times("0 0 13 * 1", "2026-11-08T12:00:00", 3, "UTC") == [
        "Mon 09 Nov 00:00 +0000",
        "Fri 13 Nov 00:00 +0000",
        "Mon 16 Nov 00:00 +0000",
    ]


@pytest.mark.parametrize(("day", "found"), [("last", ["Mon 30 Nov", "Thu 31 Dec"]), ("LW", ["Mon 30 Nov", "Thu 31 Dec"])])
def test_the_last_day_of_the_month_has_a_name(day: str, found: list[str]) -> None:
    assert _times(f"0 9 {day} * *", "2026-11-08T12:00:00", 2, "UTC") == [f"{at} 09:00 +0000" for at in found]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Africa/Casablanca", "America/Havana"])
@pytest.mark.parametrize("hour", [0, 2])
@pytest.mark.parametrize("years", [1, *slow([5])])
def test_a_daily_time_fires_once_each_day_for_years(zone: str, hour: int, years: int) -> None:
    daily, at_s, days = Cron(f"30 {hour} * * *", zone), _utc("2024-01-01T12:00:00"), []
    while at_s < _utc(f"{2024 + years}-01-01T00:00:00"):
        following = next_time(daily, at_s)
        assert following is not None
        assert next_time(daily, following - 1) == following
        assert next_time(daily, (at_s + following) // 2) == following
        days.append(datetime.fromtimestamp(at_s := following, ZoneInfo(zone)).date().toordinal())
    assert days == list(range(days[0], days[0] + len(days)))


def test_an_hourly_time_fires_every_hour_through_both_clock_changes() -> None:
    hourly, start_s = Cron("30 * * * *", "Europe/Berlin"), _utc("2026-01-01T00:30:00")
    for at_s in range(start_s, start_s + 366 * DAY_S, 3_600):
        assert next_time(hourly, at_s) == at_s + 3_600


def test_a_leap_day_is_waited_for() -> None:
    assert next_time(Cron("0 0 29 2 *", "UTC"), _utc("2096-03-01T00:00:00")) == _utc("2104-02-29T00:00:00")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Threshold(None, None), "a threshold without a width"),
        (Threshold(0, None), "policy.trigger.absolute: 0 bps"),
        (Threshold(None, 10_001), "policy.trigger.relative: 10001 bps"),
        (Every(1_799), "policy.trigger.every: 1799 s"),
        (Every(2_419_201), "policy.trigger.every: 2419201 s"),
        (Cron("0 0 30 2 *", "UTC"), "never comes"),
        (Cron("0 0 31 4,6,9,11 *", "UTC"), "never comes"),
        (Cron("0 9 * *", "UTC"), "has 4 fields"),
        (Cron("daily", "UTC"), "has 1 fields"),
        (Cron("61 * * * *", "UTC"), "61"),
        (Cron("0 0 * * 8", "UTC"), "'8' is not a day of the week"),
        (Cron("0 0 * * foo", "UTC"), "'foo' is not a day of the week"),
        (Cron("0 0 * * 3-1", "UTC"), "'3-1' is not a day of the week"),
        (Cron("*/90 * * * *", "UTC"), "'*/90' is not a minute"),
        (Cron("0 0 * * mon-foo", "UTC"), "'mon-foo' is not a day of the week"),
        (Cron("0 9 * * *", "Mars/Olympus"), "policy.trigger.timezone: 'Mars/Olympus'"),
        (Cron("0 9 * * *", "../etc/passwd"), "policy.trigger.timezone"),
        (Cron("0 9 * * *", "Europe"), "policy.trigger.timezone"),
        (HybridTrigger(Threshold(None, None), Every(DAY_S)), "a threshold without a width"),
        (HybridTrigger(TENTH, Every(60)), "policy.trigger.every"),
    ],
)
def test_a_trigger_that_cannot_work_is_a_config_error_with_a_remedy(wrong: Trigger, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_trigger(wrong)
    assert said in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    "right",
    [
        Threshold(1, None),
        Threshold(10_000, 10_000),
        Every(1_800),
        Every(2_419_200),
        Cron("0 0 29 2 *", "Europe/Berlin"),
        HybridTrigger(TENTH, Cron("*/30 8-18 * * mon-fri", "America/New_York")),
    ],
)
def test_a_trigger_within_its_range_is_fine(right: Trigger) -> None:
    validate_trigger(right)
    validate_policy(Policy(right, Destination.TARGET, 0))


@pytest.mark.parametrize("trigger", [Every(DAY_S), Cron("0 9 * * *", "UTC")])
def test_the_bands_edge_is_no_destination_for_a_trigger_without_a_band(trigger: Every | Cron) -> None:
    with raises_field("policy.destination", "band"):
        validate_policy(Policy(trigger, Destination.BAND, 0))
    validate_policy(Policy(HybridTrigger(TENTH, trigger), Destination.BAND, 0))


def test_a_negative_cooldown_is_a_config_error() -> None:
    with raises_field("policy.cooldown", "-1 s"):
        validate_policy(Policy(TENTH, Destination.TARGET, -1))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59, "59 s"), (93_784, "1 d 2 h"), (3_600, "1 h"), (86_460, "1 d 1 min"), (3_661, "1 h 1 min")]
)
def test_spans_read_in_at_most_two_units(seconds: int, text: str) -> None:
    assert format_duration(seconds) == text


def test_moments_beyond_any_calendar_are_shown_as_the_number_they_are() -> None:
    assert format_time(0) == "1970-01-01 00:00:00 UTC"
    assert format_time(253_402_300_799) == "9999-12-31 23:59:59 UTC"
    assert format_time(253_402_300_800) == "second 253402300800"
    assert format_time(-1) == "second -1"
