"""A program whose clock of the day goes wrong by some seconds: python -m tests.postgresql.skewed OFFSET_S PROGRAM ARGUMENTS."""

from __future__ import annotations

import runpy
import sys
import time

if __name__ == "__main__":
    true_time = time.time
    offset_s = float(sys.argv[1])
    time.time = lambda: true_time() + offset_s
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
