"""Ctrl-C and output errors.

Offline commands end within a second with exit code 130, commands that may send within seconds with
12.
"""

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

# --- Limits of stdout and stderr: ASCII terminals, full disks, closed readers.


UNWRITABLE = {errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF, errno.EDQUOT, errno.EFBIG}
PLAIN = {
    "✓": "v",
    "…": ".",
    "–": "-",
    "—": "-",
    "→": ">",
    "↳": ">",
    "≤": "<",
    "≥": ">",
    "×": "x",
    "·": ".",
    "\u00a0": " ",
} | {
    **dict.fromkeys("━", "="),
    **dict.fromkeys("─╌", "-"),
    **dict.fromkeys("┃│", "|"),
    **dict.fromkeys("╭╮╰╯", "+"),
    **dict.fromkeys("“”", '"'),
}
"""One ASCII character for each symbol, so that tables stay aligned."""


def replace_unencodable() -> None:
    """Replace characters that an output cannot encode by simpler ones from now on."""
    codecs.register_error("trimtab-plain", _plainer)
    for stream in (sys.stdout, sys.stderr):
        encoding = getattr(stream, "encoding", None) or "utf-8"
        if not encoding.lower().replace("-", "").startswith("utf"):
            stream.reconfigure(errors="trimtab-plain")  # type: ignore[union-attr]  # text streams of the interpreter


def _plainer(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return (
        "".join(PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]),
        error.end,
    )


def is_output_error(error: OSError) -> bool:
    """Return whether the error concerns an output and not a named file."""
    return error.errno in UNWRITABLE and error.filename is None


def give_up(error: OSError) -> None:
    """Report the error on stderr if possible, and drop pending output, which would fail again at
    the interpreter's exit.
    """
    if error.errno != errno.EPIPE:
        with suppress(OSError):
            os.write(
                2,
                f"Operator needed: cannot write: {os.strerror(error.errno or 0)}\n  What to do:"
                " free space, or write elsewhere\n".encode(),
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
"""Seconds for cleanup such as removing temporary folders. Native code that still runs is not waited
for.
"""
PATIENCE_S = 3.0
"""Seconds from Ctrl-C until a sending command is killed. Sent transactions are in the journal."""
RUN_PATIENCE_S = 5.0
"""Seconds from the second Ctrl-C until a long run is killed. The first requests a graceful stop."""
MESSAGE = "interrupted; nothing was sent"
SETTLED_LATER = "interrupted. Sent transactions are in the journal; the next run settles them"
OFFLINE: set[str] = set()
"""Names of interruptible commands."""


class ProcessExit:
    """Ends this process once: reports the error and skips the interpreter's shutdown, which would
    wait for threads.
    """

    def __init__(self, error: TrimtabError, graceful: bool) -> None:
        """Set the error; `graceful` first ends child processes and removes temporary folders."""
        self.error = error
        self._tidy = graceful
        self._once, self._reporting = threading.Lock(), threading.Lock()
        self._by_command = False
        self.pressed = False
        """True from the first Ctrl-C on."""

    def now(self) -> None:
        """End the process. Returns at once for every caller but the first."""
        if not self._once.acquire(blocking=False):
            return
        if self._reporting.acquire(blocking=False):
            if "--json" in sys.argv:
                os.write(1, (json.dumps(error_document(self.error), indent=2) + "\n").encode())
            shown = "\r\x1b[2K\x1b[?25h" if os.isatty(2) else ""  # show the cursor after a spinner
            os.write(2, f"{shown}{HEADS[self.error.exit_code]}: {self.error.message}\n".encode())
        if self._tidy:
            for output in (1, 2):  # silence threads that report their lost processes
                os.dup2(os.open(os.devnull, os.O_WRONLY), output)
            if "multiprocessing" in sys.modules:
                for process in sys.modules["multiprocessing"].active_children():
                    process.terminate()
            atexit._run_exitfuncs()
        os._exit(self.error.exit_code)

    def claim_report(self) -> bool:
        """Return True if the command has to report its end itself. Blocks if this object already
        does.
        """
        if self._by_command:
            return False
        if not self._reporting.acquire(blocking=False):
            threading.Event().wait()
        self._by_command = True
        return True

    def wait_if_begun(self) -> None:
        """Block the main thread once the exit has begun, since its result no longer counts."""
        if self._once.locked():
            threading.Event().wait()


def interruptible(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command that moves no money and writes atomically, so that Ctrl-C ends it at once.

    No exception is raised inside the command, since libraries would report or swallow it.
    """
    OFFLINE.add(command.__name__)

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if threading.current_thread() is not threading.main_thread():
            return command(*args, **kwargs)
        ending = ProcessExit(Interrupted(MESSAGE), graceful=True)
        with _listening(ending, lambda _signal, _frame: ending.now(), lambda: (GRACE_S,)):
            return command(*args, **kwargs)

    return run


def sending_exit() -> ProcessExit:
    """Exit of a command that may send."""
    return ProcessExit(OperatorNeeded(SETTLED_LATER), graceful=False)


@contextmanager
def exit_in_time(ending: ProcessExit) -> Iterator[None]:
    """Let Ctrl-C interrupt a command that may send. After PATIENCE_S, or at the next Ctrl-C, the
    process ends, even while a lock is held or threads wait for an endpoint.

    A run handles signals itself: the second Ctrl-C interrupts, and the third ends the process at
    once.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if ending.pressed:
            ending.now()
        ending.pressed = True
        raise KeyboardInterrupt

    def patience() -> Sequence[float | None]:
        # `pressed` covers a command that ends before this thread gets here
        if ending.pressed or signal.getsignal(signal.SIGINT) is handle:
            return PATIENCE_S, GRACE_S
        return None, RUN_PATIENCE_S, GRACE_S

    with _listening(ending, handle, patience):
        yield


@contextmanager
def _listening(
    ending: ProcessExit, handler: Handler, patience: Callable[[], Sequence[float | None]]
) -> Iterator[None]:
    """Pass Ctrl-C to `handler` and to a thread that ends the process after a delay, even if the
    command has ended. `patience` returns the seconds for the first Ctrl-C, the second, and so on
    (None: do not end the process).
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    threading.Thread(target=_watch, args=(read_end, patience, ending.now), daemon=True).start()
    # the interpreter writes here even while the main thread is busy
    before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    replaced = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        ending.wait_if_begun()
        signal.signal(signal.SIGINT, replaced)
        signal.set_wakeup_fd(before)
        os.close(write_end)


def _watch(
    read_end: int, patience: Callable[[], Sequence[float | None]], end: Callable[[], None]
) -> None:
    presses, until_s = 0, float("inf")
    while True:
        left_s = None if until_s == float("inf") else max(0.0, until_s - time.monotonic())
        if not select.select([read_end], [], [], left_s)[0]:
            end()
            return
        data = os.read(read_end, 64)
        if not data:  # the command has ended, but the interpreter's exit may wait for threads
            os.close(read_end)
            if until_s < float("inf"):
                time.sleep(max(0.0, until_s - time.monotonic()))
                end()
            return
        for _ in range(data.count(signal.SIGINT)):
            presses += 1
            graces = patience()
            if (grace_s := graces[min(presses, len(graces)) - 1]) is not None:
                until_s = min(until_s, time.monotonic() + grace_s)
