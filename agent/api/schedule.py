"""When a long run looks again: clock, chance and work are handed in, so that a test runs a year in a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from agent.ports import Clock

T = TypeVar("T")
JITTER = 0.1
"""Share of the interval by which each look is delayed at random, so that a schedule does not announce trades (T15)."""
SLICE_S = 5.0
"""A rest is slept in pieces of so many seconds: how long it takes at most until somebody who calls is heard."""


def repeat(
    look: Callable[[], T],
    interval_s: float,
    clock: Clock,
    chance: Callable[[], float],
    called: Callable[[], bool] = lambda: False,
) -> Iterator[T]:
    """Looks, rests, looks again, without end. `chance` gives numbers in [0, 1); `called` ends a rest early."""
    while True:
        yield look()
        rest(interval_s * (1 + chance() * JITTER), clock, called)


def rest(seconds: float, clock: Clock, called: Callable[[], bool]) -> None:
    """Sleeps so long, or until `called` says yes."""
    left_s = seconds
    while left_s > 0 and not called():
        clock.sleep(min(left_s, SLICE_S))
        left_s -= SLICE_S
