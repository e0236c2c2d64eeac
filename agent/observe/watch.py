"""Watches the run from a thread of its own: a look that hangs is named and the process ends, never in the middle of a broadcast."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SENDING = "before:send"
"""What the executor tells just before bytes leave; whatever it tells next, they have left."""
LONGEST_PERIOD_S = 5.0


class Watch:
    """Hears signs of life. `now` is a clock that only goes forward, in seconds; `bound_s` how long a silence may last.

    Every event of a step is a sign of life, each piece of a rest too.
    """

    def __init__(self, bound_s: float, now: Callable[[], float] = time.monotonic, period_s: float | None = None) -> None:
        """`period_s` is how often the thread looks at least."""
        self._bound_s = bound_s
        self._now = now
        self._period_s = min(LONGEST_PERIOD_S, bound_s / 4, period_s or LONGEST_PERIOD_S)
        self._ended = threading.Event()
        self._watched = threading.current_thread().ident
        self._asking = False
        self._stage, self._at = "starting", now()

    def beat(self, stage: str) -> None:
        """A sign of life, and what comes next."""
        self._stage, self._at = stage, self._now()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """While inside a person is waited for, as long as he likes."""
        self._asking = True
        try:
            yield
        finally:
            self._asking = False
            self.beat("answered")

    def hangs(self) -> str | None:
        """What hangs since when, in words; None while all is well, a person is asked, or bytes are on their way to a node."""
        stage, silent_s = self._stage, self._now() - self._at
        if self._asking or stage == SENDING or silent_s <= self._bound_s:
            return None
        return f"no sign of life for {silent_s:.0f} s, longer than {self._bound_s:g} s, since «{stage}»"

    @contextmanager
    def watching(self, hung: Callable[[str], None], alive: Callable[[], None] = lambda: None) -> Iterator[None]:
        """The thread runs while inside. It calls `alive` at each turn, and `hung` once, with the words for what hangs."""
        self._watched = threading.current_thread().ident
        thread = threading.Thread(target=self._run, args=(hung, alive), name="trimtab watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join(LONGEST_PERIOD_S)

    def _run(self, hung: Callable[[str], None], alive: Callable[[], None]) -> None:
        while not self._ended.wait(self._period_s):
            found = self.hangs()
            if found is not None:
                hung(f"{found}; it stands at {self._place()}")
                return
            alive()

    def _place(self) -> str:
        """Where the watched thread stands: functions and lines, no values."""
        frame = sys._current_frames().get(self._watched or 0)
        if frame is None:
            return "no place that can be told"
        lines = traceback.extract_stack(frame)
        ours = [line for line in lines if "/agent/" in line.filename]
        return " > ".join(
            f"{line.filename.rpartition('/agent/')[2] or line.filename}:{line.lineno} {line.name}" for line in (ours or lines)[-4:]
        )
