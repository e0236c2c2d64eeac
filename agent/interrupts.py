"""Start processes whole, or not at all, whenever a signal comes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

HAS_MASKS = hasattr(signal, "pthread_sigmask")
"""Not so on Windows."""


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Start processes inside. SIGINT and SIGTERM wait until the block ends: a start that they cut
    in half leaves a process without its work, which says so in a traceback.

    The new process begins with both blocked. Its parent ends it at Ctrl-C, which a terminal sends
    to both; at SIGTERM it ends once it has called `allow_termination`.
    """
    if not HAS_MASKS:
        yield
        return
    resource_tracker.ensure_running()  # its start unblocks both signals
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)


def allow_termination() -> None:
    """End at SIGTERM again, in a process started inside `interrupts_blocked`."""
    if HAS_MASKS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
