"""Progress of research in a notebook, and in a script that asks for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

LEAST_PAUSE_S = 0.2


def notebook_progress() -> Callable[..., None] | None:
    """Return a function that shows finished and all, after the case of a stress test, in a line that
    updates; None outside a notebook.
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return progress_line(sys.stdout) if hasattr(shell, "kernel") else None


def shown_progress(progress: Callable[..., None] | bool | None) -> Callable[..., None] | None:
    """Return the function that gets the progress: the one given, for True a line in a notebook or on
    standard error, for None in a notebook only, for False none.
    """
    if progress is None or progress is True:
        return notebook_progress() or (progress_line(sys.stderr) if progress else None)
    return progress or None


def progress_line(stream: TextIO) -> Callable[..., None]:
    """Return a function that shows finished and all in a line of the stream that updates."""
    next_s = 0.0
    last_line = ""

    def show(*progress: str | int) -> None:
        nonlocal last_line, next_s
        *case, finished, total = progress
        line = ": ".join([*map(str, case), f"{finished:,} of {total:,}"])
        if line != last_line and (finished == total or time.monotonic() >= next_s):
            stream.write(f"\r{line:<60}" + "\n" * (finished == total))
            stream.flush()
            last_line = line
            next_s = time.monotonic() + LEAST_PAUSE_S

    return show
