"""Tests of agent/policy/triggers/validation.py: triggers that could never fire, and policies that contradict themselves."""

from __future__ import annotations

import pytest

from agent.errors import ConfigError
from agent.model import Cron, Destination, Every, HybridTrigger, Policy, StagedTrigger, Threshold, Trigger
from agent.policy.triggers.validation import validate_policy, validate_trigger
from tests.support.constants import DAY_S
from tests.support.text import raises_field

TENTH = Threshold(None, 1_000)
DAILY = Every(DAY_S)


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        (Threshold(None, None), "a threshold without a width"),
        (Threshold(0, None), "policy.trigger.absolute: 0 bps"),
        (Threshold(None, 10_001), "policy.trigger.relative: 10001 bps"),
        (Every(1_799), "policy.trigger.every: 1799s"),
        (Every(2_419_201), "policy.trigger.every: 2419201s"),
        (Cron("0 0 30 2 *", "UTC"), "never comes"),
        (Cron("0 0 31 4,6,9,11 *", "UTC"), "never comes"),
        (Cron("0 9 * *", "UTC"), "has 4 fields"),
        (Cron("daily", "UTC"), "has 1 field"),
        (Cron("61 * * * *", "UTC"), "61"),
        (Cron("*/90 * * * *", "UTC"), "'*/90' is not a minute"),
        (Cron("0 0 * * 8", "UTC"), "'8' is not a day of the week"),
        (Cron("0 0 * * foo", "UTC"), "'foo' is not a day of the week"),
        (Cron("0 0 * * 3-1", "UTC"), "'3-1' is not a day of the week"),
        (Cron("0 0 * * mon-foo", "UTC"), "'mon-foo' is not a day of the week"),
        (Cron("0 9 * * *", "Mars/Olympus"), "policy.trigger.timezone: 'Mars/Olympus'"),
        (Cron("0 9 * * *", "../etc/passwd"), "policy.trigger.timezone"),
        (Cron("0 9 * * *", "Europe"), "policy.trigger.timezone"),
        (HybridTrigger(Threshold(None, None), DAILY), "a threshold without a width"),
        (HybridTrigger(TENTH, Every(60)), "policy.trigger.every"),
        (StagedTrigger(DAILY, DAILY, Threshold(None, None)), "a threshold without a width"),
        (StagedTrigger(Every(60), DAILY), "policy.trigger.review_every"),
        (StagedTrigger(DAILY, Every(60)), "policy.trigger.execute_every: 1min"),
        (StagedTrigger(DAILY, Cron("0 0 30 2 *", "UTC")), "policy.trigger.execute_cron"),
        (StagedTrigger(DAILY, Every(DAY_S - 1)), "is less than review_every"),
    ],
)
def test_trigger_that_cannot_work_is_refused_with_a_remedy(trigger: Trigger, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validate_trigger(trigger)

    assert message in raised.value.message
    assert raised.value.remedy


@pytest.mark.parametrize(
    "trigger",
    [
        Threshold(1, None),
        Threshold(10_000, 10_000),
        Every(1_800),
        Every(2_419_200),
        Cron("0 0 29 2 *", "Europe/Berlin"),
        HybridTrigger(TENTH, Cron("*/30 8-18 * * mon-fri", "America/New_York")),
        StagedTrigger(DAILY, DAILY),
    ],
)
def test_trigger_at_the_edge_of_its_range_is_valid(trigger: Trigger) -> None:
    validate_policy(Policy(trigger, Destination.TARGET, cooldown_s=0))


@pytest.mark.parametrize("schedule", [DAILY, Cron("0 9 * * *", "UTC")])
def test_destination_band_needs_a_trigger_with_a_band(schedule: Every | Cron) -> None:
    validate_policy(Policy(HybridTrigger(TENTH, schedule), Destination.BAND, cooldown_s=0))

    with raises_field("policy.destination", "band"):
        validate_policy(Policy(schedule, Destination.BAND, cooldown_s=0))


def test_cooldown_is_not_negative() -> None:
    with raises_field("policy.cooldown", "-1 s"):
        validate_policy(Policy(TENTH, Destination.TARGET, cooldown_s=-1))
