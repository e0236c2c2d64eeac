"""Progress of research in a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

LEAST_PAUSE_S = 0.2


def notebook_progress() -> Callable[..., None] | None:
    """Return a function that shows finished and all, after the case of a stress test, in a line that
    updates; None outside a notebook.
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if not hasattr(shell, "kernel"):
        return None
    next_s = 0.0
    last_line = ""

    def show(*progress: str | int) -> None:
        nonlocal last_line, next_s
        *case, finished, total = progress
        line = ": ".join([*map(str, case), f"{finished:,} of {total:,}"])
        if line != last_line and (finished == total or time.monotonic() >= next_s):
            sys.stdout.write(f"\r{line:<60}" + "\n" * (finished == total))
            sys.stdout.flush()
            last_line = line
            next_s = time.monotonic() + LEAST_PAUSE_S

    return show
