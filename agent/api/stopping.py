"""How a long run ends when it is told to (SIGTERM, SIGINT): only where everything is written down, never in the middle."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

from agent import wiring
from agent.observe.watch import Watch
from agent.ports import Clock

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The run was told to stop and was at a place where it may. No `except Exception` on the way holds it up."""


class StoppableClock:
    """ports.Clock whose sleep ends with Stopped once the run was told to stop.

    The agent sleeps only between looks and while a transaction that is in the journal waits for a block, so that what it
    leaves is what the next run resumes. A second signal interrupts at once, and so does one while a question is asked.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        """`clock` is the machine's unless said."""
        self._clock = clock or wiring.SystemClock()
        self._told = threading.Event()
        self._asking = False
        self._watch: Watch | None = None

    def now_s(self) -> int:
        """Unix seconds."""
        return self._clock.now_s()

    def sleep(self, seconds: float) -> None:
        """Waits, or raises Stopped."""
        if self._watch is not None:
            self._watch.beat("waiting")
        if self._told.wait(seconds):
            raise Stopped

    def check(self) -> None:
        """Raises Stopped when it is time to."""
        self.sleep(0)

    def watched(self, watch: Watch) -> None:
        """From now on each sleep is a sign of life, and a question no silence."""
        self._watch = watch

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are heard inside. Call from the main thread."""
        before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """While inside, the first signal interrupts: nothing was done yet."""
        self._asking = True
        try:
            with self._watch.asking() if self._watch is not None else nullcontext():
                yield
        finally:
            self._asking = False

    def _hear(self, _signal: int, _frame: FrameType | None) -> None:
        second = self._told.is_set()
        self._told.set()
        if second or self._asking:
            raise Stopped
