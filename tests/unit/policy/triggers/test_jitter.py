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
from tests.support.builders import NOW_S, history, step_input, with_history

HALF_HOUR_S = 1_800
LOOK_S = 10
TENTH_BPS = 1_000
WINDOW_S = HALF_HOUR_S * TENTH_BPS // BPS
REVIEWS = 240


@given(st.integers(HALF_HOUR_S, 28 * 86_400), st.integers(0, MILLION - 1), st.integers(0, BPS // 2))
def test_a_review_is_late_by_the_drawn_part_of_its_window_and_never_early(every_s: int, ppm: int, jitter_bps: int) -> None:
    last_s = NOW_S - 10 * every_s
    past = history(last_review_s=last_s, delay_ppm=ppm)
    late = jitter_delay_s(every_s, ppm, jitter_bps)
    assert 0 <= late <= min(every_s * jitter_bps // BPS, MAX_DELAY_S)
    due_s = last_s + every_s + late
    before, at = (evaluate_trigger(Every(every_s), decide(step_input()).drifts, now_s, past, jitter_bps) for now_s in (due_s - 1, due_s))
    assert not before.is_review_due
    assert before.next_s == due_s
    assert at.is_review_due


@pytest.mark.parametrize("trigger", [Cron("0 9 * * *", "UTC"), HybridTrigger(Threshold(None, 1_000), Cron("0 9 * * *", "UTC"))])
def test_a_cron_time_is_late_too_and_its_window_an_hour_at_most(trigger: Schedule | HybridTrigger) -> None:
    """Between two mornings a tenth would be more than two hours."""
    morning_s = NOW_S // 86_400 * 86_400 + 9 * 3_600
    past = history(last_review_s=morning_s - 86_000, delay_ppm=500_000)
    drifts = decide(step_input()).drifts
    for now_s, due in ((morning_s, False), (morning_s + 1_799, False), (morning_s + 1_800, True)):
        assert evaluate_trigger(trigger, drifts, now_s, past, TENTH_BPS).is_review_due is due
    assert evaluate_trigger(trigger, drifts, morning_s, past, 0).is_review_due


def test_the_lateness_is_part_of_the_input_so_that_the_same_input_decides_alike() -> None:
    step = step_input(trigger=Every(86_400), past=history(last_review_s=NOW_S - 86_400 - 600, delay_ppm=100_000))
    early = replace(step, policy=replace(step.policy, jitter_bps=TENTH_BPS))
    assert decide(step).is_reviewed
    assert decide(early).is_reviewed  # a tenth of an hour, which is over
    later = with_history(early, delay_ppm=500_000)
    assert not decide(later).is_reviewed


class Simulated:
    """A clock whose sleep takes no time."""

    def __init__(self) -> None:
        self.at = float(NOW_S)

    def now_s(self) -> int:
        return int(self.at)

    def sleep(self, seconds: float) -> None:
        self.at += seconds


def reviews(jitter_bps: int, chance: Callable[[], float]) -> list[int]:
    """How late each review of a half-hourly schedule comes in a run that looks every ten seconds."""
    clock, times = Simulated(), [NOW_S]
    past = history(last_review_s=NOW_S, delay_ppm=int(chance() * MILLION))
    drifts = decide(step_input()).drifts[:1]

    def look() -> bool:
        nonlocal past
        due = evaluate_trigger(Every(HALF_HOUR_S), drifts, clock.now_s(), past, jitter_bps).is_review_due
        if due:
            times.append(clock.now_s())
            past = history(last_review_s=clock.now_s(), delay_ppm=int(chance() * MILLION))
        return due

    looks = cycles.run_periodically(look, LOOK_S, clock, chance)
    while len(times) <= REVIEWS:
        next(looks)
    return [after - before - HALF_HOUR_S for before, after in pairwise(times)]


def guessed(late: list[int], within_s: int) -> float:
    """The best share of reviews that somebody who saw all earlier ones foresees: as the last one, as their middle, as their most."""
    ways: list[Callable[[list[int]], float]] = [
        lambda seen: seen[-1],
        median,
        lambda seen: max((sum(abs(one - other) <= within_s for other in seen), one) for one in seen[-60:])[1],
        lambda seen: 2 * seen[-1] - seen[-2],
    ]
    tried = range(20, len(late))
    return max(sum(abs(way(late[:number]) - late[number]) <= within_s for number in tried) / len(tried) for way in ways)


def test_nobody_who_watched_every_review_foresees_the_next_better_than_by_chance() -> None:
    late = reviews(TENTH_BPS, SystemRandom().random)
    longest_s = WINDOW_S + LOOK_S * (1 + cycles.JITTER) + 1
    assert all(0 <= one <= longest_s for one in late), "a review came before its interval had passed, or after its window"
    parts = [sum(part * WINDOW_S // 6 <= one - LOOK_S // 2 < (part + 1) * WINDOW_S // 6 for one in late) for part in range(6)]
    expected = REVIEWS / 6
    assert sum((count - expected) ** 2 / expected for count in parts) < 60, f"not uniform: {parts}"  # by chance once in 10^11
    by_chance = 2 * 15 / WINDOW_S
    assert guessed(late, within_s=15) < by_chance + 6 * (by_chance * (1 - by_chance) / (REVIEWS - 20)) ** 0.5


def test_without_lateness_everybody_foresees_it() -> None:
    """The looks alone, late by a tenth of their own interval, hide nothing."""
    assert guessed(reviews(0, SystemRandom().random), within_s=15) == 1
