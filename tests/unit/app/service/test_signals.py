"""A signal ends a run's sleep, whatever line the sleep is at."""

from __future__ import annotations

import itertools
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest

from agent.app.service import StoppableClock, StopRequested

SLEEP_S = 0.2


class StoppedAtLine:
    """A sleep in a thread of its own, with a signal before its n-th line, in whatever function that stands."""

    def __init__(self, line: int) -> None:
        self.clock, self.left, self.stopped, self.signalled = StoppableClock(), line, False, False
        thread = threading.Thread(target=self.sleep, daemon=True)
        thread.start()
        thread.join(10)
        self.hangs = thread.is_alive()

    def sleep(self) -> None:
        sys.settrace(self.trace)
        try:
            self.clock.sleep(SLEEP_S)
        except StopRequested:
            self.stopped = True
        finally:
            sys.settrace(None)

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" and not self.signalled:
            self.left -= 1
            if self.left < 0:
                self.signalled = True
                self.clock._on_signal(signal.SIGTERM, frame)
        return self.trace


def test_signal_before_any_line_of_a_sleep_ends_it() -> None:
    for line in itertools.count():
        stopped_line = StoppedAtLine(line)
        assert not stopped_line.hangs, f"line {line}"
        if not stopped_line.signalled:
            break
        if not stopped_line.stopped:  # the sleep was over by then: the next one ends
            with pytest.raises(StopRequested):
                stopped_line.clock.sleep(SLEEP_S)
    assert line > 2


def test_signal_ends_a_long_sleep_at_once() -> None:
    clock = StoppableClock()
    main = threading.main_thread().ident
    began_s = time.monotonic()
    assert main is not None
    with clock.listening():
        threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGTERM)).start()
        with pytest.raises(StopRequested):
            clock.sleep(60)
    assert time.monotonic() - began_s < 50
    with pytest.raises(StopRequested):
        clock.raise_if_stopping()


def test_a_stop_that_another_thread_requests_ends_a_sleep() -> None:
    clock = StoppableClock()
    threading.Timer(0.05, clock.request_stop).start()
    with pytest.raises(StopRequested):
        clock.sleep(60)
