"""Fault suites whose stores lie on PostgreSQL instead of in files: `make faults-postgresql`, or
.venv/bin/python -m tests.faults.on_postgresql --suite kill --seeds 2, with the options of scripts/check/faults.py. The suites
power, disk and store, and those of futures, break or copy the file itself; tests/postgresql has what corresponds to them on a server.
"""

from __future__ import annotations

import runpy
from pathlib import Path

from tests.support import stores_on_postgresql  # first: modules that are imported later open their stores through it

SCRIPT = Path(__file__).parents[2] / "scripts" / "check" / "faults.py"

if __name__ == "__main__":
    with stores_on_postgresql.server_of_stores():
        runpy.run_path(str(SCRIPT), run_name="__main__")
