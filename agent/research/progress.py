"""Progress of research in a notebook, on a terminal, and in a script that asks for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, TextIO

from agent.units import rough_duration

LEAST_PAUSE_S = 0.2
ESTIMATED_AFTER_S = 5.0
"""Time after which the first items tell how long the others take."""
LINE_WIDTH = 60
CLEARED_LINE = f"\r{'':<{LINE_WIDTH}}\r"


def notebook_progress() -> Callable[..., None] | None:
    """Return a function that shows finished and all, after the case of a stress test, in an output
    that updates and is empty at the end, so that a saved notebook keeps no progress; None outside a
    notebook.
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if not hasattr(shell, "kernel"):
        return None
    display = import_module("IPython.display").display
    handle: Any = None

    def write(line: str, is_last: bool) -> None:
        nonlocal handle
        content = {"text/plain": "" if is_last else line}
        if handle is None:
            handle = display(content, raw=True, display_id=True)
        else:
            handle.update(content, raw=True)

    return _progress(write)


def shown_progress(progress: Callable[..., None] | bool | None) -> Callable[..., None] | None:
    """Return the function that gets the progress: the one given, for True an output in a notebook or a
    line on standard error, for None in a notebook, or on a terminal a line that is empty at the end,
    for False none.
    """
    if progress is None or progress is True:
        has_line = progress or sys.stderr.isatty()
        return notebook_progress() or (
            progress_line(sys.stderr, "\n" if progress else CLEARED_LINE) if has_line else None
        )
    return progress or None


def progress_line(stream: TextIO, ending: str) -> Callable[..., None]:
    """Return a function that shows finished and all in a line of the stream that updates, and writes
    `ending` after the last.
    """

    def write(line: str, is_last: bool) -> None:
        stream.write(f"\r{line:<{LINE_WIDTH}}" + ending * is_last)
        stream.flush()

    return _progress(write)


def _progress(write: Callable[[str, bool], None]) -> Callable[..., None]:
    """Return a function that hands finished and all to `write` in words, with whether that is the
    last, at most five times a second; after some seconds with the time that is left.
    """
    next_s = 0.0
    last_line = ""
    start_s_by_case: dict[tuple[str, ...], float] = {}

    def show(*progress: Any) -> None:
        nonlocal last_line, next_s
        *case, finished, total = progress
        now_s = time.monotonic()
        elapsed_s = now_s - start_s_by_case.setdefault(tuple(case), now_s)
        line = ": ".join([*case, f"{finished:,} of {total:,}"])
        if 0 < finished < total and elapsed_s >= ESTIMATED_AFTER_S:
            left_s = max(1, round(elapsed_s * (total - finished) / finished))
            line += f", about {rough_duration(left_s)} left"
        if line != last_line and (finished == total or now_s >= next_s):
            write(line, finished == total)
            last_line = line
            next_s = now_s + LEAST_PAUSE_S

    return show
