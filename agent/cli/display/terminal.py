"""Ctrl-C ends every command in time: offline ones within a second with exit code 130, those that may send within seconds with 12."""

from __future__ import annotations

import atexit
import codecs
import errno
import functools
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import ParamSpec, TypeVar

from agent.cli.display.output import HEADS, error_document
from agent.errors import Interrupted, OperatorNeeded, TrimtabError

# --- Stdout and stderr as they are: terminals that know ASCII alone, disks that are full, readers that are gone.


UNWRITABLE = {errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF, errno.EDQUOT, errno.EFBIG}
PLAIN = {"✓": "v", "…": ".", "–": "-", "—": "-", "→": ">", "↳": ">", "≤": "<", "≥": ">", "×": "x", "·": ".", "\u00a0": " "} | {
    **dict.fromkeys("━", "="),
    **dict.fromkeys("─╌", "-"),
    **dict.fromkeys("┃│", "|"),
    **dict.fromkeys("╭╮╰╯", "+"),
    **dict.fromkeys("“”", '"'),
}
"""One sign for each, so that tables stay straight."""


def replace_unencodable() -> None:
    """From now on a sign that an output does not know is written as a plainer one, never an error."""
    codecs.register_error("trimtab-plain", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if not (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf"):
            stream.reconfigure(errors="trimtab-plain")  # type: ignore[union-attr]  # text streams of the interpreter


def _plainer(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def is_output_error(error: OSError) -> bool:
    """Whether it is an output that takes no more, and no file that somebody named."""
    return error.errno in UNWRITABLE and error.filename is None


def give_up(error: OSError) -> None:
    """Says so where stderr still takes it, and drops what is left, so that the interpreter does not stumble over it at its end."""
    if error.errno != errno.EPIPE:
        with suppress(OSError):
            os.write(
                2,
                f"Operator needed: cannot write: {os.strerror(error.errno or 0)}\n  What to do: free space, or write elsewhere\n".encode(),
            )
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(nowhere, stream.fileno())


P = ParamSpec("P")
R = TypeVar("R")
Handler = Callable[[int, FrameType | None], None]
GRACE_S = 0.25
"""For what is tidied up: temporary folders. Machine code that runs on is not waited for."""
PATIENCE_S = 3.0
"""From Ctrl-C until a command that may send ends, whatever it waits for: no kill loses what the journal has."""
RUN_PATIENCE_S = 5.0
"""The same from the second Ctrl-C in a long run; the first ends it where it may end."""
MESSAGE = "ended by Ctrl-C; nothing was sent"
SETTLED_LATER = "interrupted. Sent transactions are in the journal; the next run settles them"
OFFLINE: set[str] = set()
"""Names of the commands that are interruptible."""


class ProcessExit:
    """The end of this process, once: it tells the error and leaves without the interpreter's own end, which waits for threads."""

    def __init__(self, error: TrimtabError, tidy: bool) -> None:
        """`tidy` ends child processes and removes temporary folders first."""
        self.error = error
        self._tidy = tidy
        self._once, self._telling = threading.Lock(), threading.Lock()
        self._by_command = False

    def now(self) -> None:
        """Whoever comes first ends it; returns for all others."""
        if not self._once.acquire(blocking=False):
            return
        if self._telling.acquire(blocking=False):
            if "--json" in sys.argv:
                os.write(1, (json.dumps(error_document(self.error), indent=2) + "\n").encode())
            shown = "\r\x1b[2K\x1b[?25h" if os.isatty(2) else ""  # a spinner has hidden the cursor
            os.write(2, f"{shown}{HEADS[self.error.exit_code]}: {self.error.message}\n".encode())
        if self._tidy:
            for output in (1, 2):  # threads that lose their processes would tell of it
                os.dup2(os.open(os.devnull, os.O_WRONLY), output)
            if "multiprocessing" in sys.modules:
                for process in sys.modules["multiprocessing"].active_children():
                    process.terminate()
            atexit._run_exitfuncs()
        os._exit(self.error.exit_code)

    def told(self) -> bool:
        """Whether the command itself has still to tell of its end, and does so from here on; does not return once this tells it."""
        if self._by_command:
            return False
        if not self._telling.acquire(blocking=False):
            threading.Event().wait()
        self._by_command = True
        return True

    def wait_if_begun(self) -> None:
        """What the main thread has come to no longer counts."""
        if self._once.locked():
            threading.Event().wait()


def interruptible(command: Callable[P, R]) -> Callable[P, R]:
    """The command, which Ctrl-C ends on the spot: it moves no money, and what it has written is whole after a kill.

    Nothing is raised where it happens to be: libraries would tell of that, or swallow it.
    """
    OFFLINE.add(command.__name__)

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if threading.current_thread() is not threading.main_thread():
            return command(*args, **kwargs)
        ending = ProcessExit(Interrupted(MESSAGE), tidy=True)
        with _listening(ending, lambda _signal, _frame: ending.now(), lambda: (GRACE_S,)):
            return command(*args, **kwargs)

    return run


def sending_exit() -> ProcessExit:
    """The end of a command that may send."""
    return ProcessExit(OperatorNeeded(SETTLED_LATER), tidy=False)


@contextmanager
def exit_in_time(ending: ProcessExit) -> Iterator[None]:
    """Inside, Ctrl-C interrupts a command that may send, as ever; PATIENCE_S later, or at the next one, it ends on the spot.

    A lock that the interruption left taken, or threads that wait for an endpoint, hold its end back no longer. A run hears signals
    in its own way: there the second Ctrl-C is the first to count, and the third ends it on the spot.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    presses = 0

    def hear(_signal: int, _frame: FrameType | None) -> None:
        nonlocal presses
        presses += 1
        if presses > 1:
            ending.now()
        raise KeyboardInterrupt

    def patience() -> Sequence[float | None]:
        ours = presses or signal.getsignal(signal.SIGINT) is hear  # the command may be over before this thread comes to it
        return (PATIENCE_S, GRACE_S) if ours else (None, RUN_PATIENCE_S, GRACE_S)

    with _listening(ending, hear, patience):
        yield


@contextmanager
def _listening(ending: ProcessExit, handler: Handler, patience: Callable[[], Sequence[float | None]]) -> Iterator[None]:
    """Ctrl-C goes to `handler`, and to a thread that ends the process after so many seconds as `patience` says for the first Ctrl-C,
    the second, and so on (None: it does not), even where the command is over by then.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)
    threading.Thread(target=_watch, args=(heard, patience, ending.now), daemon=True).start()
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)  # the interpreter writes to it, whatever the main thread does
    replaced = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        ending.wait_if_begun()
        signal.signal(signal.SIGINT, replaced)
        signal.set_wakeup_fd(before)
        os.close(told)


def _watch(heard: int, patience: Callable[[], Sequence[float | None]], end: Callable[[], None]) -> None:
    presses, until_s = 0, float("inf")
    while True:
        left_s = None if until_s == float("inf") else max(0.0, until_s - time.monotonic())
        if not select.select([heard], [], [], left_s)[0]:
            end()
            return
        data = os.read(heard, 64)
        if not data:  # the command is over, and may be followed by an end of the interpreter that waits for threads
            os.close(heard)
            if until_s < float("inf"):
                time.sleep(max(0.0, until_s - time.monotonic()))
                end()
            return
        for _ in range(data.count(signal.SIGINT)):
            presses += 1
            graces = patience()
            if (grace_s := graces[min(presses, len(graces)) - 1]) is not None:
                until_s = min(until_s, time.monotonic() + grace_s)
