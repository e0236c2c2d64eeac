"""Start processes whole, or not at all, whenever a signal comes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from types import FrameType

HAS_MASKS = hasattr(signal, "pthread_sigmask")
"""Not so on Windows."""
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


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
    with ExitStack() as cleanup:
        if threading.current_thread() is threading.main_thread():
            _defer_handlers(cleanup)
        previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
        cleanup.callback(signal.pthread_sigmask, signal.SIG_SETMASK, previous_mask)
        yield


def _defer_handlers(cleanup: ExitStack) -> None:
    """Let the handlers of this process wait for `cleanup`. A mask holds for one thread: the system
    gives a signal to another one, and the main thread then runs its handler.
    """
    deferred_signals: list[int] = []

    def defer(signal_number: int, _frame: FrameType | None) -> None:
        deferred_signals.append(signal_number)

    def handle(handler: Callable[[int, FrameType | None], object], signal_number: int) -> None:
        if signal_number in deferred_signals:
            handler(signal_number, None)

    for signal_number in INTERRUPTS:
        handler = signal.getsignal(signal_number)
        if callable(handler):
            cleanup.callback(handle, handler, signal_number)
        elif handler is signal.SIG_DFL:
            cleanup.callback(handle, lambda number, _: signal.raise_signal(number), signal_number)
        else:
            continue
        cleanup.callback(signal.signal, signal_number, handler)
        signal.signal(signal_number, defer)


def allow_termination() -> None:
    """End at SIGTERM again, in a process started inside `interrupts_blocked`."""
    if HAS_MASKS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
