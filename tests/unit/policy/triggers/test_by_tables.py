"""Each trigger by a table of dates and values with the decision that is expected, clock changes included.

What a step remembers goes through the JSON of the store between two rows, so that every row is a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction

import pytest

from agent import codec
from agent.model import (
    AnyOf,
    Cron,
    Destination,
    Every,
    History,
    Hold,
    HybridTrigger,
    Rebalance,
    StagedTrigger,
    StepInput,
    Threshold,
    Trigger,
)
from agent.policy.decide import decide
from agent.policy.decision import DecisionResult
from agent.policy.triggers import price_confirmation
from agent.policy.triggers.schedules import EXECUTION, schedule_name
from agent.reference import reference_prices
from tests.support.builders import NOW_S, history, step_input
from tests.support.text import mentions

DAY_S = 86_400
BERLIN = "Europe/Berlin"
MONTHLY = Cron("0 9 1 * *", BERLIN)
QUARTERLY = Cron("0 9 1 1,4,7,10 *", BERLIN)
MONDAYS = Cron("0 9 * * mon", BERLIN)
FIVE = Threshold(500, None)
Row = tuple[str, int, type, str]
"""UTC time, share of WETH in percent (of 10,000), what is decided, words of its reason."""


def at(text: str) -> int:
    return int(datetime.fromisoformat(text + "+00:00").timestamp())


@dataclass
class Agent:
    """Remembers what the store would."""

    trigger: Trigger
    past: History
    destination: Destination = Destination.TARGET
    cooldown_s: int = 0

    def look(self, now: str, share: int) -> DecisionResult:
        step = step_input(
            values={"WETH": share * 100, "USDC": 10_000 - share * 100},
            trigger=self.trigger,
            past=self.past,
            now_s=at(now),
            destination=self.destination,
            cooldown_s=self.cooldown_s,
        )
        decided = decide(codec.loads(StepInput, codec.dumps(step)))
        reviews = dict(self.past.reviews.by_schedule) | dict.fromkeys(decided.due_schedules, at(now))
        if decided.is_reviewed:
            self.past = history(self.past, last_review_s=at(now), by_schedule=tuple(reviews.items()))
        if isinstance(decided.decision, Rebalance):
            self.past = history(self.past, last_rebalance_s=at(now))
        return decided


def walk(trigger: Trigger, rows: Sequence[Row], **changes: object) -> None:
    agent = Agent(trigger, history(), **changes)  # type: ignore[arg-type]  # keywords of Agent
    for now, share, kind, words in rows:
        decision = agent.look(now, share).decision
        assert isinstance(decision, kind), (now, decision)
        assert words in decision.reason, (now, decision.reason)


@pytest.mark.parametrize(
    ("width", "share_bps", "acts"),
    [
        *((Threshold(points, None), 5_000 + points + beyond, beyond > 0) for points in (100, 200, 300, 500) for beyond in (0, 1)),
        *((Threshold(points, None), 5_000 - points - beyond, beyond > 0) for points in (100, 300, 500) for beyond in (0, 1)),
        (Threshold(None, 1_000), 5_500, False),
        (Threshold(None, 1_000), 5_501, True),
        (Threshold(None, 1_000), 4_499, True),
        (Threshold(300, 1_000), 5_301, True),
        (Threshold(700, 1_000), 5_501, True),
    ],
)
def test_bands_of_one_to_five_points_and_of_the_target_act_strictly_beyond(width: Threshold, share_bps: int, acts: bool) -> None:
    decision = decide(step_input(values={"WETH": share_bps, "USDC": 10_000 - share_bps}, trigger=width)).decision
    assert isinstance(decision, Rebalance) is acts


def own_bands(values: dict[str, int], trigger: Trigger, **bands: Threshold) -> StepInput:
    step = step_input({"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}, values, trigger=trigger)
    assets = tuple(replace(asset, band=bands.get(asset.token.symbol)) for asset in step.portfolio.assets)
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


@pytest.mark.parametrize(
    ("values", "outside"),
    [
        ({"WETH": 5_900, "WBTC": 2_300, "USDC": 1_800}, []),
        ({"WETH": 6_001, "WBTC": 2_250, "USDC": 1_749}, ["WETH"]),
        ({"WETH": 5_300, "WBTC": 3_100, "USDC": 1_600}, []),
        ({"WETH": 5_300, "WBTC": 3_101, "USDC": 1_599}, []),
        ({"WETH": 4_800, "WBTC": 3_751, "USDC": 1_449}, ["WBTC", "USDC"]),
    ],
)
def test_an_asset_with_its_own_band_goes_by_it_and_the_others_by_the_triggers(values: dict[str, int], outside: list[str]) -> None:
    step = own_bands(values, FIVE, WETH=Threshold(None, 2_000), WBTC=Threshold(None, 2_500))
    decided = decide(codec.loads(StepInput, codec.dumps(step)))
    assert [one.symbol for one in decided.drifts if one.is_outside_band] == outside
    assert isinstance(decided.decision, Rebalance) is bool(outside)
    assert [(one.band_low_bps, one.band_high_bps) for one in decided.drifts] == [(4_000, 6_000), (2_250, 3_750), (1_500, 2_500)]


def test_own_bands_are_the_edge_that_a_rebalance_goes_to_and_count_under_every_trigger_with_a_band() -> None:
    values = {"WETH": 6_500, "WBTC": 2_000, "USDC": 1_500}
    for trigger in (
        FIVE,
        HybridTrigger(FIVE, Every(DAY_S)),
        StagedTrigger(Every(DAY_S), Every(2 * DAY_S), FIVE),
        AnyOf((FIVE, Every(DAY_S))),
    ):
        step = own_bands(values, trigger, WETH=Threshold(1_000, None))
        decision = decide(replace(step, policy=replace(step.policy, destination=Destination.BAND))).decision
        assert isinstance(decision, Rebalance)
        assert decision.goal.weights[0].high == Fraction(6, 10)


def test_a_hybrid_reviews_monthly_in_its_time_zone_and_acts_beyond_its_band() -> None:
    walk(
        HybridTrigger(FIVE, MONTHLY),
        [
            ("2026-01-01T08:00:00", 52, Hold, "first review; all within their bands; closest is WETH at 52 %, 3 points"),
            ("2026-01-15T12:00:00", 60, Hold, "next review 2026-02-01 08:00:00 UTC, in 16 d 20 h; WETH at 60 % is 5 points above"),
            ("2026-02-01T07:59:59", 60, Hold, "next review 2026-02-01 08:00:00 UTC, in 1 s"),
            ("2026-02-01T08:00:00", 60, Rebalance, "review due since 2026-02-01 08:00:00 UTC, last one 2026-01-01 08:00:00 UTC"),
            ("2026-03-01T08:00:00", 50, Hold, "review due since 2026-03-01 08:00:00 UTC"),
            ("2026-04-01T06:59:59", 60, Hold, "next review 2026-04-01 07:00:00 UTC, in 1 s"),
            ("2026-04-01T07:00:00", 60, Rebalance, "WETH at 60 % is 5 points above its band 45-55 %"),
        ],
    )


def test_review_monthly_execute_quarterly() -> None:
    would = "a rebalance would sell 1000 USDC of WETH; executed from 2026-04-01 07:00:00 UTC on"
    walk(
        StagedTrigger(MONTHLY, QUARTERLY),
        [
            ("2025-12-10T12:00:00", 60, Rebalance, "first execution; furthest from target is WETH at 60 %"),
            ("2025-12-31T12:00:00", 60, Hold, "next review 2026-01-01 08:00:00 UTC, in 20 h; next execution 2026-01-01 08:00:00 UTC"),
            ("2026-01-01T08:00:00", 53, Rebalance, "execution due since 2026-01-01 08:00:00 UTC, last one 2025-12-10 12:00:00 UTC"),
            ("2026-02-01T07:59:59", 60, Hold, "next review 2026-02-01 08:00:00 UTC, in 1 s; next execution 2026-04-01 07:00:00 UTC"),
            ("2026-02-01T08:00:00", 60, Hold, would),
            ("2026-02-01T08:10:00", 60, Hold, "next review 2026-03-01 08:00:00 UTC"),
            ("2026-03-01T08:00:00", 50, Hold, "nothing large enough for a trade; executed from 2026-04-01 07:00:00 UTC on"),
            ("2026-04-01T06:59:59", 70, Hold, "next execution 2026-04-01 07:00:00 UTC, in 1 s"),
            ("2026-04-01T07:00:00", 70, Rebalance, "execution due since 2026-04-01 07:00:00 UTC, last one 2026-01-01 08:00:00 UTC"),
            ("2026-10-01T07:00:00", 55, Rebalance, "execution due since 2026-07-01 07:00:00 UTC, last one 2026-04-01 07:00:00 UTC"),
            ("2026-11-01T07:59:59", 60, Hold, "next review 2026-11-01 08:00:00 UTC, in 1 s"),
            ("2026-11-01T08:00:00", 60, Hold, "executed from 2027-01-01 08:00:00 UTC on"),
        ],
    )


def test_an_execution_within_the_band_is_over_and_waits_for_the_next() -> None:
    walk(
        StagedTrigger(Every(7 * DAY_S), Every(28 * DAY_S), FIVE),
        [
            ("2026-01-01T00:00:00", 52, Hold, "first execution; all within their bands"),
            ("2026-01-02T00:00:00", 60, Hold, "next execution 2026-01-29 00:00:00 UTC"),
            ("2026-01-08T00:00:00", 60, Hold, "a rebalance would sell 1000 USDC of WETH; executed from 2026-01-29 00:00:00 UTC on"),
            ("2026-01-15T00:00:00", 53, Hold, "closest is WETH at 53 %"),
            ("2026-01-28T23:59:59", 60, Hold, "next execution 2026-01-29 00:00:00 UTC, in 1 s"),
            ("2026-01-29T00:00:00", 60, Rebalance, "WETH at 60 % is 5 points above its band 45-55 %"),
        ],
    )


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
    agent = Agent(StagedTrigger(Every(7 * DAY_S), Every(28 * DAY_S), FIVE), history())
    agent.look("2026-01-01T00:00:00", 52)

    reason = agent.look(now, share).decision.reason

    assert ("executed from 2026-01-29 00:00:00 UTC on" in reason) is is_announced


def test_an_execution_that_is_held_up_stays_due() -> None:
    agent = Agent(StagedTrigger(Every(7 * DAY_S), Every(28 * DAY_S)), history(), cooldown_s=2 * DAY_S)
    assert isinstance(agent.look("2026-01-01T00:00:00", 60).decision, Rebalance)
    agent.past = history(agent.past, last_rebalance_s=at("2026-01-28T00:00:00"))  # a swap by hand
    held = agent.look("2026-01-29T00:00:00", 60)
    assert mentions(held.decision.reason, "cooldown", "2026-01-30 00:00:00 UTC")
    assert not held.is_reviewed
    assert mentions(agent.look("2026-01-30T00:00:00", 60).decision.reason, "execution", "2026-01-29 00:00:00 UTC")


def test_whichever_comes_first_a_schedule_or_a_band_over_the_change_to_summer_time() -> None:
    walk(
        AnyOf((FIVE, MONDAYS)),
        [
            ("2026-03-23T08:00:00", 51, Rebalance, "first review; furthest from target is WETH at 51 %"),
            ("2026-03-25T12:00:00", 52, Hold, "closest is WETH at 52 %"),
            ("2026-03-26T12:00:00", 56, Rebalance, "WETH at 56 % is 1 point above its band 45-55 %"),
            ("2026-03-30T06:59:59", 51, Hold, "next review 2026-03-30 07:00:00 UTC, in 1 s"),
            ("2026-03-30T07:00:00", 51, Rebalance, "review due since 2026-03-30 07:00:00 UTC, last one 2026-03-26 12:00:00 UTC"),
            ("2026-03-30T08:00:00", 51, Hold, "checked again in the next cycle"),
        ],
    )


def test_whichever_comes_first_over_the_change_to_winter_time() -> None:
    walk(
        AnyOf((FIVE, MONDAYS)),
        [
            ("2026-10-19T07:00:00", 51, Rebalance, "first review"),
            ("2026-10-26T07:00:00", 51, Hold, "next review 2026-10-26 08:00:00 UTC, in 1 h"),
            ("2026-10-26T08:00:00", 51, Rebalance, "review due since 2026-10-26 08:00:00 UTC"),
        ],
    )


def test_several_schedules_each_keep_their_own_time() -> None:
    """Were there one time of the last review for all, the daily look would put the weekly one off for ever."""
    days = [f"2026-01-{day:02d}T00:00:00" for day in range(1, 9)]
    walk(
        AnyOf((HybridTrigger(FIVE, Every(DAY_S)), Every(7 * DAY_S))),
        [
            (days[0], 51, Rebalance, "first review"),
            *((day, 51, Hold, "next review 2026-01-08 00:00:00 UTC") for day in days[1:7]),
            (days[7], 51, Rebalance, "review due since 2026-01-08 00:00:00 UTC"),
        ],
    )


def test_each_of_several_triggers_goes_by_its_own_band() -> None:
    both = AnyOf((Threshold(1_000, None), HybridTrigger(Threshold(200, None), Every(DAY_S))))
    walk(
        both,
        [
            ("2026-01-01T00:00:00", 51, Hold, "first review; all within their bands; closest is WETH at 51 %, 1 point"),
            ("2026-01-01T01:00:00", 57, Hold, "3 points from the upper edge of 40-60 %"),
            ("2026-01-01T02:00:00", 61, Rebalance, "WETH at 61 % is 1 point above its band 40-60 %"),
            ("2026-01-01T03:00:00", 57, Hold, "WETH at 57 % is 5 points above its band 48-52 %"),
            ("2026-01-02T02:00:00", 53, Rebalance, "WETH at 53 % is 1 point above its band 48-52 %"),
        ],
    )


def test_after_an_edit_a_schedule_counts_from_the_last_rebalance_and_no_other_puts_it_off() -> None:
    agent = Agent(Every(DAY_S), history())
    agent.look("2026-01-01T00:00:00", 51)
    assert dict(agent.past.reviews.by_schedule) == {"review every 86400": at("2026-01-01T00:00:00")}
    agent.trigger = StagedTrigger(Every(2 * DAY_S), Every(4 * DAY_S))
    assert "2026-01-03 00:00:00 UTC" in agent.look("2026-01-02T00:00:00", 60).decision.reason
    assert "2026-01-05 00:00:00 UTC" in agent.look("2026-01-03T00:00:00", 60).decision.reason
    assert isinstance(agent.look("2026-01-05T00:00:00", 60).decision, Rebalance)
    agent.trigger = AnyOf((HybridTrigger(FIVE, Every(DAY_S)), Every(7 * DAY_S)))
    for day in range(6, 12):
        assert isinstance(agent.look(f"2026-01-{day:02d}T00:00:00", 51).decision, Hold)
    assert isinstance(agent.look("2026-01-12T00:00:00", 51).decision, Rebalance)


def test_a_store_from_before_schedules_had_names_puts_no_review_forward() -> None:
    agent = Agent(Every(DAY_S), history(last_review_s=at("2026-01-01T00:00:00"), last_rebalance_s=at("2025-12-01T00:00:00")))
    assert isinstance(agent.look("2026-01-01T23:59:59", 60).decision, Hold)
    assert isinstance(agent.look("2026-01-02T00:00:00", 60).decision, Rebalance)


def test_of_several_triggers_a_schedule_needs_no_block_to_confirm_it_and_a_band_does() -> None:
    both = AnyOf((FIVE, Every(7 * DAY_S)))
    for past, kind, words in (
        (history(), Rebalance, "first review"),
        (history(last_review_s=NOW_S - DAY_S), Hold, "policy.confirm_blocks"),
    ):
        step = step_input(values={"WETH": 6_000, "USDC": 4_000}, trigger=both, past=past)
        decision = decide(replace(step, policy=replace(step.policy, confirm_blocks=3))).decision
        assert isinstance(decision, kind)
        assert words in decision.reason


def test_bands_of_a_hybrid_whose_review_is_not_due_confirm_nothing() -> None:
    """Else a wide band that prices left just now would be confirmed by the narrow one of a review that nobody asks for."""
    both = AnyOf((Threshold(1_000, None), HybridTrigger(Threshold(200, None), Every(DAY_S))))
    for last_s, found in ((NOW_S - 60, 0), (NOW_S - DAY_S, 2)):
        step = step_input(values={"WETH": 5_500, "USDC": 4_500}, trigger=both, past=history(last_review_s=last_s))
        prices = reference_prices(step).price_by_token
        assert len(price_confirmation.trigger_signals(step, prices)) == found


def test_a_schedule_is_remembered_by_what_it_says_and_what_it_is_for() -> None:
    assert schedule_name(Cron("0  9 1 * *", BERLIN)) == "review 0 9 1 * * Europe/Berlin"
    assert schedule_name(Every(3_600), EXECUTION) == "execution every 3600"
    assert (
        len({schedule_name(MONTHLY), schedule_name(QUARTERLY), schedule_name(MONTHLY, EXECUTION), schedule_name(Cron("0 9 1 * *", "UTC"))})
        == 4
    )
