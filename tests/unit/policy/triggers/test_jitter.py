"""When a schedule's review comes: at random within its window, never before it is due, and no better to foresee than by guessing (T15)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from secrets import SystemRandom
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.app import cycles
from agent.model import Cron, Every, HybridTrigger, Schedule, Threshold
from agent.policy.decide import decide
from agent.policy.triggers.rules import evaluate_trigger
from agent.policy.triggers.schedules import MAX_DELAY_S, MILLION, jitter_delay_s
from agent.units import BPS
from tests.support.builders import NOW_S, history, step_input
from tests.support.fakes.clock import FakeClock

HALF_HOUR_S = 1_800
CYCLE_S = 10
TENTH_BPS = 1_000
WINDOW_S = HALF_HOUR_S * TENTH_BPS // BPS
REVIEWS = 240


@given(st.integers(HALF_HOUR_S, 28 * 86_400), st.integers(0, MILLION - 1), st.integers(0, BPS // 2))
def test_review_is_late_by_its_drawn_delay_and_never_early(every_s: int, delay_ppm: int, jitter_bps: int) -> None:
    last_s = NOW_S - 10 * every_s
    past = history(last_review_s=last_s, delay_ppm=delay_ppm)
    drifts = decide(step_input()).drifts
    delay_s = jitter_delay_s(every_s, delay_ppm, jitter_bps)
    due_s = last_s + every_s + delay_s

    one_second_early = evaluate_trigger(Every(every_s), drifts, due_s - 1, past, jitter_bps)
    on_time = evaluate_trigger(Every(every_s), drifts, due_s, past, jitter_bps)

    assert 0 <= delay_s <= min(every_s * jitter_bps // BPS, MAX_DELAY_S)
    assert not one_second_early.is_review_due
    assert one_second_early.next_s == due_s
    assert on_time.is_review_due


@pytest.mark.parametrize("trigger", [Cron("0 9 * * *", "UTC"), HybridTrigger(Threshold(None, 1_000), Cron("0 9 * * *", "UTC"))])
@pytest.mark.parametrize(
    ("jitter_bps", "after_planned_s", "is_due"),
    [
        pytest.param(0, -1, False, id="no jitter, one second early"),
        pytest.param(0, 0, True, id="no jitter, on time"),
        pytest.param(TENTH_BPS, 0, False, id="at the planned time"),
        pytest.param(TENTH_BPS, 1_799, False, id="one second before half an hour"),
        pytest.param(TENTH_BPS, 1_800, True, id="half an hour late"),
    ],
)
def test_cron_review_is_at_most_an_hour_late(
    trigger: Schedule | HybridTrigger, jitter_bps: int, after_planned_s: int, is_due: bool
) -> None:
    """Half of the window is drawn; a tenth of the day between two mornings would be more than two hours."""
    planned_s = NOW_S // 86_400 * 86_400 + 9 * 3_600
    past = history(last_review_s=planned_s - 86_000, delay_ppm=500_000)

    result = evaluate_trigger(trigger, decide(step_input()).drifts, planned_s + after_planned_s, past, jitter_bps)

    assert result.is_review_due is is_due


@pytest.mark.parametrize(
    ("jitter_bps", "delay_ppm", "is_reviewed"),
    [
        pytest.param(0, 500_000, True, id="no jitter"),
        pytest.param(TENTH_BPS, 166_667, True, id="delay just over"),
        pytest.param(TENTH_BPS, 166_945, False, id="delay of a second more"),
    ],
)
def test_delay_is_part_of_the_step_input(jitter_bps: int, delay_ppm: int, is_reviewed: bool) -> None:
    """The review is 600 s past its planned time, the window an hour."""
    step = step_input(trigger=Every(86_400), past=history(last_review_s=NOW_S - 86_400 - 600, delay_ppm=delay_ppm))
    step = replace(step, policy=replace(step.policy, jitter_bps=jitter_bps))

    assert decide(step).is_reviewed is is_reviewed


def review_delays_s(jitter_bps: int, draw: Callable[[], float]) -> list[int]:
    """Return how late each review of a half-hourly schedule is in a run with a cycle every ten seconds."""
    clock = FakeClock(NOW_S)
    review_times_s = [NOW_S]
    past = history(last_review_s=NOW_S, delay_ppm=int(draw() * MILLION))
    drifts = decide(step_input()).drifts[:1]

    def run_cycle() -> bool:
        nonlocal past
        is_due = evaluate_trigger(Every(HALF_HOUR_S), drifts, clock.now_s(), past, jitter_bps).is_review_due
        if is_due:
            review_times_s.append(clock.now_s())
            past = history(last_review_s=clock.now_s(), delay_ppm=int(draw() * MILLION))
        return is_due

    cycle_results = cycles.run_periodically(run_cycle, CYCLE_S, clock, draw)
    while len(review_times_s) <= REVIEWS:
        next(cycle_results)
    return [after_s - before_s - HALF_HOUR_S for before_s, after_s in pairwise(review_times_s)]


def best_guess_share(delays_s: list[int], within_s: int) -> float:
    """Return the largest share of delays that an observer of all earlier ones foresees: as the last, the median, the most frequent, or
    the trend.
    """
    guesses: list[Callable[[list[int]], float]] = [
        lambda past_s: past_s[-1],
        median,
        lambda past_s: max((sum(abs(delay_s - other_s) <= within_s for other_s in past_s), delay_s) for delay_s in past_s[-60:])[1],
        lambda past_s: 2 * past_s[-1] - past_s[-2],
    ]
    guessed = range(20, len(delays_s))
    return max(sum(abs(guess(delays_s[:number]) - delays_s[number]) <= within_s for number in guessed) / len(guessed) for guess in guesses)


def test_observer_foresees_a_review_no_better_than_by_chance() -> None:
    delays_s = review_delays_s(TENTH_BPS, SystemRandom().random)

    longest_s = WINDOW_S + CYCLE_S * (1 + cycles.JITTER) + 1
    assert all(0 <= delay_s <= longest_s for delay_s in delays_s), "a review came before its interval had passed, or after its window"
    counts = [sum(part * WINDOW_S // 6 <= delay_s - CYCLE_S // 2 < (part + 1) * WINDOW_S // 6 for delay_s in delays_s) for part in range(6)]
    expected_count = REVIEWS / 6
    assert sum((count - expected_count) ** 2 / expected_count for count in counts) < 60, f"not uniform: {counts}"  # by chance: 10^-11
    by_chance = 2 * 15 / WINDOW_S
    assert best_guess_share(delays_s, within_s=15) < by_chance + 6 * (by_chance * (1 - by_chance) / (REVIEWS - 20)) ** 0.5


def test_observer_foresees_every_review_without_jitter() -> None:
    """The cycles alone, late by a tenth of their own interval, hide nothing."""
    assert best_guess_share(review_delays_s(0, SystemRandom().random), within_s=15) == 1
