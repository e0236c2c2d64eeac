"""Ctrl-C in commands without a chain: they end within a second with exit code 130, and so do the processes that they have begun."""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from agent.cli.output import error_document
from agent.errors import EXIT_INTERRUPTED, Interrupted

P = ParamSpec("P")
R = TypeVar("R")
GRACE_S = 0.25
"""For what is tidied up: temporary folders. Machine code that runs on is not waited for."""
MESSAGE = "ended by Ctrl-C; nothing was sent"


OFFLINE: set[str] = set()
"""Names of the commands that are interruptible."""


def interruptible(command: Callable[P, R]) -> Callable[P, R]:
    """The command, which Ctrl-C ends on the spot: it moves no money, and what it has written is whole after a kill.

    Nothing is raised where it happens to be: libraries would tell of that, or swallow it.
    """
    OFFLINE.add(command.__name__)

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if threading.current_thread() is not threading.main_thread():
            return command(*args, **kwargs)
        heard, told = os.pipe()
        os.set_blocking(told, False)
        over, ending = threading.Event(), threading.Lock()
        threading.Thread(target=_watch, args=(heard, over, ending), daemon=True).start()
        before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)  # the handler itself writes to it, whatever the main thread does
        handler = signal.signal(signal.SIGINT, lambda _signal, _frame: _end(ending))
        try:
            return command(*args, **kwargs)
        finally:
            if ending.locked():  # by the watch: what this has come to no longer counts
                threading.Event().wait()
            over.set()
            signal.signal(signal.SIGINT, handler)
            signal.set_wakeup_fd(before)
            os.close(told)

    return run


def _watch(heard: int, over: threading.Event, ending: threading.Lock) -> None:
    """Ends the process where its main thread does not come to it."""
    while data := os.read(heard, 64):
        if signal.SIGINT in data and not over.wait(GRACE_S):
            _end(ending)
            os._exit(EXIT_INTERRUPTED)
    os.close(heard)


def _end(ending: threading.Lock) -> None:
    """Without the interpreter's own end, which waits for threads. Whoever comes first tells of it."""
    if not ending.acquire(blocking=False):
        return
    if "--json" in sys.argv:
        os.write(1, (json.dumps(error_document(Interrupted(MESSAGE)), indent=2) + "\n").encode())
    shown = "\r\x1b[2K\x1b[?25h" if os.isatty(2) else ""  # a spinner has hidden the cursor
    os.write(2, f"{shown}Interrupted: {MESSAGE}\n".encode())
    for output in (1, 2):  # threads that lose their processes would tell of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    if "multiprocessing" in sys.modules:
        for process in sys.modules["multiprocessing"].active_children():
            process.terminate()
    atexit._run_exitfuncs()
    os._exit(EXIT_INTERRUPTED)
