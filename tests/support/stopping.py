"""A program that stands still once, at a moment of tests/faults/probe.py: python -m tests.support.stopping MOMENT PROGRAM ARGUMENTS."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path

from tests.faults.probe import Hear, heard


def stopping(at: str) -> Hear:
    """Stop this process with all its threads at a moment, until somebody lets it go on."""

    def hear(moment: str) -> None:
        if moment == at:
            os.kill(os.getpid(), signal.SIGSTOP)

    return hear


def is_stopped(process_id: int) -> bool:
    """Return whether a process stands still."""
    return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "T"


if __name__ == "__main__":
    moment, program = sys.argv[1:3]
    sys.argv = sys.argv[2:]
    with heard(stopping(moment)):
        runpy.run_path(program, run_name="__main__")
