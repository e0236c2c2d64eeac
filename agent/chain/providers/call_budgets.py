"""How many calls a second an operator's endpoints get: each call takes a turn, 1 / rate seconds long,
and a request waits for the turns before it, less those of one second (the generic cell rate algorithm,
ITU-T I.371, annex A).

A budget delays and never prevents: after LONGEST_WAIT_S a request goes out, and a transaction at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

LONGEST_WAIT_S = 2.0
"""Longest time for which a request waits for its turn."""
BURST_S = 1.0
"""Length of the turns that may be taken at once after a pause."""


class CallBudget(Protocol):
    """The calls that an operator gets."""

    def take(self, call_count: int) -> float:
        """Take the turns of a request; return the length of those before it that are not over, s."""


class LocalCallBudget:
    """The calls of this process."""

    def __init__(
        self, calls_per_second: int, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._turn_s = 1 / calls_per_second
        self._clock_s = clock_s
        self._free_s = 0.0
        """When the last turn that was taken ends."""
        self._lock = threading.Lock()

    def take(self, call_count: int) -> float:
        """See CallBudget."""
        with self._lock:
            now_s = self._clock_s()
            began_s = max(now_s, self._free_s)
            self._free_s = began_s + call_count * self._turn_s
        return began_s - now_s


def waiting_time_s(turns_before_s: float) -> float:
    """Return how long a request waits, by the length of the turns before it."""
    return min(max(0.0, turns_before_s - BURST_S), LONGEST_WAIT_S)
