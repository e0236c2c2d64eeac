"""Soak test: thousands of cycles of one agent in one process on a local anvil, some with trades.
Memory must not keep growing.

Exit code 1 if memory grows by more than MAX_BYTES_PER_CYCLE bytes per cycle after SETTLED_CYCLES.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.localchain import open_anvil
from tests.support.long_runs import soak, soak_config

MAX_BYTES_PER_CYCLE = 1_000
"""Maximum growth of heap or resident memory in bytes per cycle: 50 megabytes a year with a cycle every
ten minutes."""
SETTLED_CYCLES = 500
"""Cycles until caches are full; of a short run a fourth."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--looks", type=int, default=10_000, help="number of cycles")
    parser.add_argument(
        "--trade-every", type=int, default=100, help="number of cycles between two market moves"
    )
    parser.add_argument(
        "--traced", action="store_true", help="also trace Python's heap, which doubles the time"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON document: growth per cycle and the marks",
    )
    options = parser.parse_args()
    mark_interval = max(1, options.looks // 20)
    with tempfile.TemporaryDirectory() as folder, open_anvil() as chain:
        soak_result = soak(
            chain,
            soak_config(chain, Path(folder)),
            options.looks,
            every=mark_interval,
            trade_every=options.trade_every,
            traced=options.traced,
            on_mark=lambda mark: print(mark, file=sys.stderr),
        )
    settled_cycles = min(SETTLED_CYCLES, options.looks // 4)
    document = soak_result.document(settled_cycles)
    last_mark = document["marks"][-1]
    text_lines = [
        f"{options.looks} cycles: {document['outcomes']}",
        f"growth per cycle after {settled_cycles} cycles: {document['per_look']} (bytes, objects)",
    ]
    text_lines.append(
        f"at the end: heap {last_mark['heap'] / 1e6:.1f} MB, resident {last_mark['resident'] / 1e6:.0f} MB,"
        f" store {last_mark['store'] / 1e6:.1f} MB"
    )
    print(json.dumps(document) if options.json else "\n".join(text_lines))
    sys.exit(
        1
        if max(
            soak_result.growth("heap", settled_cycles),
            soak_result.growth("resident", settled_cycles),
        )
        > MAX_BYTES_PER_CYCLE
        else 0
    )


if __name__ == "__main__":
    main()
