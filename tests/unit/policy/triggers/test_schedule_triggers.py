"""Tests of agent/policy/triggers/schedule_triggers.py: decisions over days and months, each row a restart of the agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import pytest

from agent import codec
from agent.model import AnyOf, Cron, Every, History, Hold, HybridTrigger, Rebalance, StagedTrigger, StepInput, Threshold, Trigger
from agent.policy.decide import decide
from agent.policy.decision import DecisionResult
from agent.policy.drift import compute_drifts
from agent.policy.triggers import price_confirmation
from agent.policy.triggers.bands import TriggerResult
from agent.policy.triggers.rules import evaluate_trigger
from agent.reference import reference_prices
from tests.support.builders import NOW_S, history, step_input
from tests.support.constants import DAY_S
from tests.support.text import mentions

BAND = Threshold(500, None)
BERLIN = "Europe/Berlin"
MONTHLY = Cron("0 9 1 * *", BERLIN)
QUARTERLY = Cron("0 9 1 1,4,7,10 *", BERLIN)
MONDAYS = Cron("0 9 * * mon", BERLIN)
WEEKLY = Every(7 * DAY_S)
TWO_BANDS = AnyOf((Threshold(1_000, None), HybridTrigger(Threshold(200, None), Every(DAY_S))))
Row = tuple[str, int, type[Hold] | type[Rebalance], str]
"""UTC time, percent of WETH (target 50), decision, and a part of its reason."""


def utc_s(text: str) -> int:
    return int(datetime.fromisoformat(text + "+00:00").timestamp())


@dataclass
class Agent:
    """An agent that decides from what the store would remember."""

    trigger: Trigger
    past: History
    cooldown_s: int = 0

    def decide_at(self, utc: str, weth_percent: int) -> DecisionResult:
        step = step_input(
            values={"WETH": weth_percent * 100, "USDC": 10_000 - weth_percent * 100},
            trigger=self.trigger,
            past=self.past,
            now_s=utc_s(utc),
            cooldown_s=self.cooldown_s,
        )
        result = decide(codec.loads(StepInput, codec.dumps(step)))
        if result.is_reviewed:
            review_times = dict(self.past.reviews.by_schedule) | dict.fromkeys(result.due_schedules, utc_s(utc))
            self.past = history(self.past, last_review_s=utc_s(utc), by_schedule=tuple(review_times.items()))
        if isinstance(result.decision, Rebalance):
            self.past = history(self.past, last_rebalance_s=utc_s(utc))
        return result


@pytest.mark.parametrize(
    ("trigger", "rows"),
    [
        pytest.param(
            HybridTrigger(BAND, MONTHLY),
            [
                ("2026-01-01T08:00:00", 52, Hold, "first review; all within their bands; closest is WETH at 52 %, 3 points"),
                ("2026-01-15T12:00:00", 60, Hold, "next review 2026-02-01 08:00:00 UTC, in 16 days 20 h; WETH at 60 % is 5 points above"),
                ("2026-02-01T07:59:59", 60, Hold, "next review 2026-02-01 08:00:00 UTC, in 1 s"),
                ("2026-02-01T08:00:00", 60, Rebalance, "review due since 2026-02-01 08:00:00 UTC, last one 2026-01-01 08:00:00 UTC"),
                ("2026-03-01T08:00:00", 50, Hold, "review due since 2026-03-01 08:00:00 UTC"),
                ("2026-04-01T06:59:59", 60, Hold, "next review 2026-04-01 07:00:00 UTC, in 1 s"),
                ("2026-04-01T07:00:00", 60, Rebalance, "WETH at 60 % is 5 points above its band 45-55 %"),
            ],
            id="hybrid: monthly in its time zone, beyond its band",
        ),
        pytest.param(
            StagedTrigger(MONTHLY, QUARTERLY),
            [
                ("2025-12-10T12:00:00", 60, Rebalance, "first execution; furthest from target is WETH at 60 %"),
                ("2025-12-31T12:00:00", 60, Hold, "next review 2026-01-01 08:00:00 UTC, in 20 h; next execution 2026-01-01 08:00:00 UTC"),
                ("2026-01-01T08:00:00", 53, Rebalance, "execution due since 2026-01-01 08:00:00 UTC, last one 2025-12-10 12:00:00 UTC"),
                ("2026-02-01T07:59:59", 60, Hold, "next review 2026-02-01 08:00:00 UTC, in 1 s; next execution 2026-04-01 07:00:00 UTC"),
                ("2026-02-01T08:00:00", 60, Hold, "would sell 1000 USDC of WETH; executed from 2026-04-01 07:00:00 UTC on"),
                ("2026-02-01T08:10:00", 60, Hold, "next review 2026-03-01 08:00:00 UTC"),
                ("2026-03-01T08:00:00", 50, Hold, "nothing large enough for a trade; executed from 2026-04-01 07:00:00 UTC on"),
                ("2026-04-01T06:59:59", 70, Hold, "next execution 2026-04-01 07:00:00 UTC, in 1 s"),
                ("2026-04-01T07:00:00", 70, Rebalance, "execution due since 2026-04-01 07:00:00 UTC, last one 2026-01-01 08:00:00 UTC"),
                ("2026-10-01T07:00:00", 55, Rebalance, "execution due since 2026-07-01 07:00:00 UTC, last one 2026-04-01 07:00:00 UTC"),
                ("2026-11-01T07:59:59", 60, Hold, "next review 2026-11-01 08:00:00 UTC, in 1 s"),
                ("2026-11-01T08:00:00", 60, Hold, "executed from 2027-01-01 08:00:00 UTC on"),
            ],
            id="staged: reviewed monthly, executed quarterly",
        ),
        pytest.param(
            StagedTrigger(WEEKLY, Every(28 * DAY_S), BAND),
            [
                ("2026-01-01T00:00:00", 52, Hold, "first execution; all within their bands"),
                ("2026-01-02T00:00:00", 60, Hold, "next execution 2026-01-29 00:00:00 UTC"),
                ("2026-01-08T00:00:00", 60, Hold, "would sell 1000 USDC of WETH; executed from 2026-01-29 00:00:00 UTC on"),
                ("2026-01-15T00:00:00", 53, Hold, "closest is WETH at 53 %"),
                ("2026-01-28T23:59:59", 60, Hold, "next execution 2026-01-29 00:00:00 UTC, in 1 s"),
                ("2026-01-29T00:00:00", 60, Rebalance, "WETH at 60 % is 5 points above its band 45-55 %"),
            ],
            id="staged with a band: an execution within it waits for the next",
        ),
        pytest.param(
            AnyOf((BAND, MONDAYS)),
            [
                ("2026-03-23T08:00:00", 51, Rebalance, "first review; furthest from target is WETH at 51 %"),
                ("2026-03-25T12:00:00", 52, Hold, "closest is WETH at 52 %"),
                ("2026-03-26T12:00:00", 56, Rebalance, "WETH at 56 % is 1 point above its band 45-55 %"),
                ("2026-03-30T06:59:59", 51, Hold, "next review 2026-03-30 07:00:00 UTC, in 1 s"),
                ("2026-03-30T07:00:00", 51, Rebalance, "review due since 2026-03-30 07:00:00 UTC, last one 2026-03-26 12:00:00 UTC"),
                ("2026-03-30T08:00:00", 51, Hold, "checked again in the next cycle"),
            ],
            id="either: into summer time",
        ),
        pytest.param(
            AnyOf((BAND, MONDAYS)),
            [
                ("2026-10-19T07:00:00", 51, Rebalance, "first review"),
                ("2026-10-26T07:00:00", 51, Hold, "next review 2026-10-26 08:00:00 UTC, in 1 h"),
                ("2026-10-26T08:00:00", 51, Rebalance, "review due since 2026-10-26 08:00:00 UTC"),
            ],
            id="either: into winter time",
        ),
        pytest.param(
            AnyOf((HybridTrigger(BAND, Every(DAY_S)), WEEKLY)),
            [
                ("2026-01-01T00:00:00", 51, Rebalance, "first review"),
                *((f"2026-01-{day:02d}T00:00:00", 51, Hold, "next review 2026-01-08 00:00:00 UTC") for day in range(2, 8)),
                ("2026-01-08T00:00:00", 51, Rebalance, "review due since 2026-01-08 00:00:00 UTC"),
            ],
            id="either: a daily review does not delay the weekly one",
        ),
        pytest.param(
            TWO_BANDS,
            [
                ("2026-01-01T00:00:00", 51, Hold, "first review; all within their bands; closest is WETH at 51 %, 1 point"),
                ("2026-01-01T01:00:00", 57, Hold, "3 points from the upper edge of 40-60 %"),
                ("2026-01-01T02:00:00", 61, Rebalance, "WETH at 61 % is 1 point above its band 40-60 %"),
                ("2026-01-01T03:00:00", 57, Hold, "WETH at 57 % is 5 points above its band 48-52 %"),
                ("2026-01-02T02:00:00", 53, Rebalance, "WETH at 53 % is 1 point above its band 48-52 %"),
            ],
            id="either: each member has its own band",
        ),
    ],
)
def test_decisions_follow_the_calendar(trigger: Trigger, rows: Sequence[Row]) -> None:
    agent = Agent(trigger, history())
    for utc, weth_percent, decision_type, reason in rows:
        decision = agent.decide_at(utc, weth_percent).decision
        assert isinstance(decision, decision_type), (utc, decision)
        assert reason in decision.reason, utc


@pytest.mark.parametrize(
    ("now", "share", "is_announced"),
    [
        pytest.param("2026-01-08T00:00:00", 56, True, id="review beyond the band"),
        pytest.param("2026-01-08T00:00:00", 55, False, id="review at the edge of the band"),
        pytest.param("2026-01-08T00:00:00", 53, False, id="review that finds nothing"),
        pytest.param("2026-01-07T23:59:59", 60, False, id="one second before the review"),
        pytest.param("2026-01-29T00:00:00", 60, False, id="execution itself"),
    ],
)
def test_review_announces_an_execution_only_if_it_would_trade(now: str, share: int, is_announced: bool) -> None:
    agent = Agent(StagedTrigger(WEEKLY, Every(28 * DAY_S), BAND), history())
    agent.decide_at("2026-01-01T00:00:00", 52)

    reason = agent.decide_at(now, share).decision.reason

    assert ("executed from 2026-01-29 00:00:00 UTC on" in reason) is is_announced


def test_staged_execution_delayed_by_the_cooldown_stays_due() -> None:
    agent = Agent(StagedTrigger(WEEKLY, Every(28 * DAY_S)), history(), cooldown_s=2 * DAY_S)
    assert isinstance(agent.decide_at("2026-01-01T00:00:00", 60).decision, Rebalance)
    agent.past = history(agent.past, last_rebalance_s=utc_s("2026-01-28T00:00:00"))  # a manual swap

    delayed = agent.decide_at("2026-01-29T00:00:00", 60)

    assert mentions(delayed.decision.reason, "cooldown", "2026-01-30 00:00:00 UTC")
    assert not delayed.is_reviewed
    assert mentions(agent.decide_at("2026-01-30T00:00:00", 60).decision.reason, "execution", "2026-01-29 00:00:00 UTC")


def test_schedule_counts_from_the_last_rebalance_after_an_edit() -> None:
    agent = Agent(Every(DAY_S), history())
    agent.decide_at("2026-01-01T00:00:00", 51)
    assert agent.past.reviews.by_schedule == (("review every 86400", utc_s("2026-01-01T00:00:00")),)

    agent.trigger = StagedTrigger(Every(2 * DAY_S), Every(4 * DAY_S))
    assert "2026-01-03 00:00:00 UTC" in agent.decide_at("2026-01-02T00:00:00", 60).decision.reason
    assert "2026-01-05 00:00:00 UTC" in agent.decide_at("2026-01-03T00:00:00", 60).decision.reason
    assert isinstance(agent.decide_at("2026-01-05T00:00:00", 60).decision, Rebalance)

    agent.trigger = AnyOf((HybridTrigger(BAND, Every(DAY_S)), WEEKLY))
    for day in range(6, 12):
        assert isinstance(agent.decide_at(f"2026-01-{day:02d}T00:00:00", 51).decision, Hold)
    assert isinstance(agent.decide_at("2026-01-12T00:00:00", 51).decision, Rebalance)


@pytest.mark.parametrize(("utc", "decision_type"), [("2026-01-01T23:59:59", Hold), ("2026-01-02T00:00:00", Rebalance)])
def test_store_from_before_named_schedules_keeps_its_last_review(utc: str, decision_type: type) -> None:
    past = history(last_review_s=utc_s("2026-01-01T00:00:00"), last_rebalance_s=utc_s("2025-12-01T00:00:00"))

    assert isinstance(Agent(Every(DAY_S), past).decide_at(utc, 60).decision, decision_type)


STAGED = StagedTrigger(WEEKLY, Every(5 * DAY_S), BAND)
STAGED_NO_BAND = StagedTrigger(WEEKLY, Every(5 * DAY_S))


def trigger_result(trigger: Trigger, weth_percent: int, reviewed_ago_s: int, executed_ago_s: int) -> TriggerResult:
    """Return the result of a trigger that is reviewed every seven days and executed every five."""
    step = step_input(values={"WETH": weth_percent, "USDC": 100 - weth_percent}, trigger=trigger)
    drifts = compute_drifts(step, reference_prices(step).price_by_token)
    by_schedule = ((f"review every {7 * DAY_S}", NOW_S - reviewed_ago_s), (f"execution every {5 * DAY_S}", NOW_S - executed_ago_s))
    return evaluate_trigger(trigger, drifts, NOW_S, history(by_schedule=by_schedule))


@pytest.mark.parametrize(
    ("trigger", "reviewed_ago_s", "weth_percent", "next_s", "executes_at_s"),
    [
        pytest.param(STAGED, 0, 60, NOW_S + 4 * DAY_S, None, id="staged: execution comes first"),
        pytest.param(STAGED, 6 * DAY_S, 60, NOW_S + DAY_S, None, id="staged: review comes first"),
        pytest.param(STAGED, 7 * DAY_S, 60, NOW_S + 4 * DAY_S, NOW_S + 4 * DAY_S, id="staged: review finds a trade"),
        pytest.param(STAGED, 7 * DAY_S, 55, NOW_S + 4 * DAY_S, None, id="staged: review finds none"),
        pytest.param(HybridTrigger(BAND, WEEKLY), DAY_S, 60, NOW_S + 6 * DAY_S, None, id="hybrid: review not due"),
    ],
)
def test_result_says_when_to_look_again(
    trigger: Trigger, reviewed_ago_s: int, weth_percent: int, next_s: int, executes_at_s: int | None
) -> None:
    result = trigger_result(trigger, weth_percent, reviewed_ago_s, executed_ago_s=DAY_S)

    assert not result.fired
    assert result.next_s == next_s
    assert result.executes_at_s == executes_at_s
    assert result.signals == ()


@pytest.mark.parametrize(
    ("trigger", "weth_percent", "fires", "signal_count", "needs_no_confirmation"),
    [
        pytest.param(STAGED_NO_BAND, 51, True, 0, True, id="no band"),
        pytest.param(STAGED, 55, False, 0, False, id="at the edge of its band"),
        pytest.param(STAGED, 56, True, 2, False, id="beyond its band"),
    ],
)
def test_staged_execution_fires_by_schedule_or_band(
    trigger: Trigger, weth_percent: int, fires: bool, signal_count: int, needs_no_confirmation: bool
) -> None:
    result = trigger_result(trigger, weth_percent, reviewed_ago_s=DAY_S, executed_ago_s=5 * DAY_S)

    assert result.fired is fires
    assert len(result.signals) == signal_count
    assert result.needs_no_confirmation is needs_no_confirmation
    assert result.due_schedules == (f"execution every {5 * DAY_S}", f"review every {7 * DAY_S}")
    assert result.next_s == NOW_S + 5 * DAY_S


@pytest.mark.parametrize(
    ("past", "decision_type", "reason"),
    [
        pytest.param(history(), Rebalance, "first review", id="schedule"),
        pytest.param(history(last_review_s=NOW_S - DAY_S), Hold, "policy.confirm_blocks", id="band"),
    ],
)
def test_only_bands_wait_for_blocks_that_confirm_them(past: History, decision_type: type, reason: str) -> None:
    step = step_input(values={"WETH": 6_000, "USDC": 4_000}, trigger=AnyOf((BAND, WEEKLY)), past=past)

    decision = decide(replace(step, policy=replace(step.policy, confirm_blocks=3))).decision

    assert isinstance(decision, decision_type)
    assert reason in decision.reason


@pytest.mark.parametrize(("review_ago_s", "signal_count"), [(60, 0), (DAY_S, 2)])
def test_hybrid_confirms_its_band_only_at_a_review(review_ago_s: int, signal_count: int) -> None:
    step = step_input(values={"WETH": 5_500, "USDC": 4_500}, trigger=TWO_BANDS, past=history(last_review_s=NOW_S - review_ago_s))

    assert len(price_confirmation.trigger_signals(step, reference_prices(step).price_by_token)) == signal_count
