"""Stdout and stderr as they are: terminals that know ASCII alone, disks that are full, readers that are gone."""

from __future__ import annotations

import codecs
import errno
import os
import sys
from contextlib import suppress

UNWRITABLE = {errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF, errno.EDQUOT, errno.EFBIG}
PLAIN = {"✓": "v", "…": ".", "–": "-", "—": "-", "→": ">", "↳": ">", "≤": "<", "≥": ">", "×": "x", "·": ".", "\u00a0": " "} | {
    **dict.fromkeys("━", "="),
    **dict.fromkeys("─╌", "-"),
    **dict.fromkeys("┃│", "|"),
    **dict.fromkeys("╭╮╰╯", "+"),
    **dict.fromkeys("“”", '"'),
}
"""One sign for each, so that tables stay straight."""


def settle() -> None:
    """From now on a sign that an output does not know is written as a plainer one, never an error."""
    codecs.register_error("trimtab-plain", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if not (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf"):
            stream.reconfigure(errors="trimtab-plain")  # type: ignore[union-attr]  # text streams of the interpreter


def _plainer(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def failed(error: OSError) -> bool:
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
