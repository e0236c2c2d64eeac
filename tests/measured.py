"""How long a test is measured: coverage looks at the beginning of each part of it, and at some folders not at all.

The tracer makes Python take twice its time. What a test covers it mostly covers at its beginning: further examples, bars and looks run
the same lines. What is covered later is not counted, so that the figures may be too low and are never too high.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

try:
    from coverage import Coverage
except ImportError:  # then nothing is ever measured
    Coverage = None  # type: ignore[assignment,misc]

MEASURED_S = {"unit": 0.3, "browser": 0, "cases": 0, "faults": 0}
"""By folder, processor time for which setting up, calling and tearing down are measured, each, in seconds.

Examples follow one another in `unit`. What whole steps, faults and pages run, others cover."""
OTHERS_S = 1.0
"""The same for the folders that are not named: a command or a look from its beginning to its end."""

_TESTS = Path(__file__).parent


def running() -> Any:
    """What measures this process now, or None."""
    return Coverage.current() if Coverage else None


@contextlib.contextmanager
def measured_for(seconds: float) -> Iterator[None]:
    """Measures no longer than for `seconds` of processor time; afterwards anew, if it was measured before."""
    meter = running()
    if meter is None:
        yield
        return
    if seconds:
        before = signal.signal(signal.SIGVTALRM, lambda *_: meter.stop())
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    else:
        meter.stop()
    try:
        yield
    finally:
        if seconds:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)
        if running() is None:
            meter.start()


def untraced(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same call while coverage looks away: measuring py-evm, none of which is ours, takes longer than running it."""

    @functools.wraps(call)
    def run(*arguments: Any, **named: Any) -> Any:
        tracer = sys.gettrace()
        if type(tracer).__name__ != "CTracer":  # coverage's own; no debugger's is touched
            return call(*arguments, **named)
        sys.settrace(None)
        try:
            return call(*arguments, **named)
        finally:
            if running() is not None:  # else its time ended meanwhile
                tracer.start()  # type: ignore[union-attr]  # see above

    return run


def _part(item: pytest.Item) -> Generator[None, None, None]:
    with measured_for(MEASURED_S.get(item.path.relative_to(_TESTS).parts[0], OTHERS_S)):
        yield


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    yield from _part(item)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    yield from _part(item)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    yield from _part(item)
