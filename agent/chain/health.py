"""How well an endpoint does: a decaying score of what it answered and how fast, and when it is left to rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

HALF_LIFE_S = 60.0
"""After so long a success, a failure or a measured time counts half."""
FAILURES = 3
"""Failures in a row after which an endpoint rests."""
FIRST_REST_S, LONGEST_REST_S = 5.0, 300.0
"""A rest after failures; twice as long each time the trial after it fails too. Nor is a Retry-After believed beyond the longest."""
SLOW_S = 1.0
"""An endpoint that takes so long counts half as much as one that answers at once."""


class Circuit(Enum):
    """Whether an endpoint is asked."""

    CLOSED = "in service"
    TRIAL = "on trial"
    OPEN = "resting"
    LAGGING = "lagging"
    WAIT = "asked us to wait"


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one endpoint now; `why` is its last failure, or what it said otherwise than the others."""

    circuit: Circuit
    score: float
    latency_s: float | None
    rest_s: float
    why: str


class Health:
    """One endpoint's record. `now` is a clock that only goes forward, in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._at = now()
        self._good = self._bad = self._took = 0.0
        self._in_a_row = 0
        self._rests = 0
        self._until = self._wait_until = self._at
        self._why = ""
        self.lagging = False

    def success(self, took_s: float) -> None:
        """It answered, refusals of single calls included; whatever it said counts elsewhere."""
        self._decay()
        self._good += 1
        self._took += took_s
        self._in_a_row = self._rests = 0

    def failure(self, why: str, wait_s: float | None = None) -> None:
        """It did not answer, or with what no node says. With `wait_s` it asked to be left alone for so long."""
        self._decay()
        self._bad += 1
        self._in_a_row += 1
        self._why = why
        if wait_s is not None:
            self._wait_until = max(self._wait_until, self._at + min(max(wait_s, 0.0), LONGEST_REST_S))
        if self._in_a_row >= FAILURES or self._rests:
            self._until = self._at + min(FIRST_REST_S * 2**self._rests, LONGEST_REST_S)
            self._rests = min(self._rests + 1, 16)
            self._in_a_row = 0

    def blame(self, why: str) -> None:
        """Others outvoted it. It is asked all the same, but after the others: it may be the honest one."""
        self._decay()
        self._bad += 1
        self._why = why

    def lags(self, why: str) -> None:
        """Its newest block is too old. What it says of blocks counts no more, but it is asked for its height, until it has caught up."""
        self.blame(why)
        self.lagging = True

    def caught_up(self) -> None:
        """Its newest block is as new as that of the others."""
        self.lagging = False

    @property
    def circuit(self) -> Circuit:
        """On trial after a rest: one more failure and it rests twice as long, one success and it is in service."""
        now = self._now()
        if now < self._wait_until:
            return Circuit.WAIT
        if now < self._until:
            return Circuit.OPEN
        if self.lagging:
            return Circuit.LAGGING
        return Circuit.TRIAL if self._rests else Circuit.CLOSED

    @property
    def score(self) -> float:
        """From 0 to 1: the share of good answers by decayed weight, less for slowness; one of which nothing is known has 1."""
        self._decay()
        latency_s = self._latency_s
        return (self._good + 1) / (self._good + self._bad + 1) / (1 + (latency_s or 0.0) / SLOW_S)

    @property
    def standing(self) -> Standing:
        """All of it at once."""
        score, now = self.score, self._now()
        return Standing(self.circuit, score, self._latency_s, max(0.0, self._wait_until - now, self._until - now), self._why)

    @property
    def _latency_s(self) -> float | None:
        return self._took / self._good if self._good > 0 else None

    def _decay(self) -> None:
        now = self._now()
        kept = 0.5 ** ((now - self._at) / HALF_LIFE_S)
        self._good, self._bad, self._took, self._at = self._good * kept, self._bad * kept, self._took * kept, now
