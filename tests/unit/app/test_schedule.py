"""The rhythm of a run: rests of the interval and a little more, slept in pieces, ended early by whoever calls."""

from __future__ import annotations

from itertools import count, islice

import pytest

from agent.app.cycles import JITTER, LONGEST_RETRY_S, MAX_SLEEP_S, interruptible_sleep, retry_pause_s, run_periodically
from tests.support.fakes.clock import FakeClock


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_a_rest_is_the_interval_and_a_random_part_of_it(chance: float) -> None:
    clock = FakeClock(0)
    looks = count()
    assert list(islice(run_periodically(lambda: next(looks), 600, clock, lambda: chance), 4)) == [0, 1, 2, 3]
    assert sum(clock.sleeps) == pytest.approx(3 * 600 * (1 + chance * JITTER))
    assert max(clock.sleeps) <= MAX_SLEEP_S


def test_who_calls_is_heard_after_one_piece_at_most() -> None:
    clock = FakeClock(0)
    interruptible_sleep(3_600, clock, lambda: len(clock.sleeps) >= 3)
    assert clock.sleeps == [MAX_SLEEP_S] * 3


def test_a_look_that_raises_ends_the_run_without_a_rest() -> None:
    clock = FakeClock(0)

    def look() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        next(run_periodically(look, 600, clock, lambda: 0.0))
    assert clock.sleeps == []


@pytest.mark.parametrize(
    ("interval_s", "pauses_s"),
    [
        (1, [1, 2, 4, 8, 16, 32, 60, 60]),
        (4, [4, 8, 16, 32, 60, 60]),
        (30, [5, 10, 20, 40, 60, 60]),
        (86_400, [5, 10, 20, 40, 60]),
    ],
)
def test_failed_cycles_are_repeated_soon_and_less_and_less_often(interval_s: int, pauses_s: list[int]) -> None:
    assert [retry_pause_s(interval_s, failures) for failures, _ in enumerate(pauses_s, start=1)] == pauses_s
    assert retry_pause_s(interval_s, 10_000) == 60


def test_failures__of_days__are_still_repeated_each_minute() -> None:
    assert retry_pause_s(600, 5_000) == LONGEST_RETRY_S
