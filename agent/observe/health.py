"""How the run does, as others may ask: healthy or why not, ready or why not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

Document = dict[str, Any]
LOOKS_MISSED = 3
"""Intervals without a good look after which health is red."""


@dataclass(frozen=True, slots=True)
class State:
    """What is known of the run. Times are of a clock that only goes forward, in seconds.

    `trouble` is why the last look was no good, empty where it was; `hung` what the watch says. `good_at` is None before the
    first good look.
    """

    started_at: float
    good_at: float | None = None
    looks: int = 0
    trouble: str = ""
    hung: str = ""
    paused: str = ""
    stopping: bool = False


class Health:
    """Written by the run, read by whoever asks."""

    def __init__(self, interval_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._now = now
        self._lock = threading.Lock()
        self._state = State(now())

    @property
    def state(self) -> State:
        """As it stands."""
        with self._lock:
            return self._state

    def looked(self, trouble: str, paused: str) -> None:
        """One look is over: good where `trouble` is empty; `paused` is the kill switch's reason, empty where it is off."""
        with self._lock:
            good_at = self._state.good_at if trouble else self._now()
            self._state = replace(self._state, good_at=good_at, looks=self._state.looks + 1, trouble=trouble, paused=paused)

    def hangs(self, why: str) -> None:
        """A look hangs."""
        with self._lock:
            self._state = replace(self._state, hung=why)

    def stops(self) -> None:
        """The run ends in order."""
        with self._lock:
            self._state = replace(self._state, stopping=True)

    def red(self) -> list[str]:
        """Why the run is not healthy; empty where it is. A pause is the owner's wish and no illness."""
        state = self.state
        found = [f"it hangs: {state.hung}"] if state.hung else []
        if state.trouble:
            found.append(state.trouble)
        return [*found, silence] if (silence := self.silence()) else found

    def silence(self) -> str:
        """For how long no look was good, where that is too long; empty where it is not."""
        state = self.state
        since_s = self._now() - (state.started_at if state.good_at is None else state.good_at)
        late_s = LOOKS_MISSED * self._interval_s + 60
        return f"no good look for {since_s:.0f} s, longer than {late_s:.0f} s" if since_s > late_s else ""

    def unready(self) -> list[str]:
        """Why nothing would be traded now, as far as that is known before a plan: red, paused, stopping, or no look yet."""
        state = self.state
        found = self.red()
        if state.good_at is None:
            found.append("no good look yet")
        if state.paused:
            found.append(f"paused: {state.paused}")
        if state.stopping:
            found.append("stopping")
        return found

    def document(self, reasons: list[str]) -> Document:
        """What an endpoint answers."""
        state = self.state
        age_s = None if state.good_at is None else round(self._now() - state.good_at, 1)
        return {"ok": not reasons, "reasons": reasons, "looks": state.looks, "last_good_look_s": age_s, "paused": bool(state.paused)}
