"""The rhythm of a run: rests of the interval and a little more, slept in pieces, ended early by whoever calls."""

from __future__ import annotations

from itertools import count, islice

import pytest

from agent.app.cycles import JITTER, LONGEST_RETRY_S, MAX_SLEEP_S, interruptible_sleep, retry_pause_s, run_periodically


class Sleeps:
    """ports.Clock that writes down how long it slept."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now_s(self) -> int:
        return round(sum(self.slept))

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_a_rest_is_the_interval_and_a_random_part_of_it(chance: float) -> None:
    clock, looks = Sleeps(), count()
    assert list(islice(run_periodically(lambda: next(looks), 600, clock, lambda: chance), 4)) == [0, 1, 2, 3]
    assert sum(clock.slept) == pytest.approx(3 * 600 * (1 + chance * JITTER))
    assert max(clock.slept) <= MAX_SLEEP_S


def test_who_calls_is_heard_after_one_piece_at_most() -> None:
    clock = Sleeps()
    interruptible_sleep(3_600, clock, lambda: len(clock.slept) >= 3)
    assert clock.slept == [MAX_SLEEP_S] * 3


def test_a_look_that_raises_ends_the_run_without_a_rest() -> None:
    clock = Sleeps()

    def look() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        next(run_periodically(look, 600, clock, lambda: 0.0))
    assert clock.slept == []


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
