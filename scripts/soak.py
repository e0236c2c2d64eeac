"""Thousands of looks of one agent on a local anvil, trades among them, in one process: memory and
store must stop growing.

Exit code 1 where memory grows by more per look than would matter in a year.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.localchain import open_anvil
from tests.support.long_runs import soak

MOST_PER_LOOK = 1_000
"""Bytes of heap or resident memory per look: at a look every ten minutes 50 megabytes a year."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--looks", type=int, default=10_000, help="how many looks")
    parser.add_argument(
        "--trade-every", type=int, default=100, help="the market moves every so many looks"
    )
    parser.add_argument(
        "--traced", action="store_true", help="trace Python's heap too, which takes twice the time"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON document: growth per look and the marks"
    )
    options = parser.parse_args()
    step = max(1, options.looks // 20)
    with tempfile.TemporaryDirectory() as folder, open_anvil() as chain:
        found = soak(
            chain,
            Path(folder),
            options.looks,
            every=step,
            trade_every=options.trade_every,
            traced=options.traced,
            told=lambda mark: print(mark, file=sys.stderr),
        )
    after = options.looks // 4
    document = found.document(after)
    last = document["marks"][-1]
    words = [
        f"{options.looks} looks: {document['outcomes']}",
        f"after {after} looks, per look: {document['per_look']} (bytes, objects)",
    ]
    words.append(
        f"at the end: heap {last['heap'] / 1e6:.1f} MB, resident {last['resident'] / 1e6:.0f} MB,"
        f" store {last['store'] / 1e6:.1f} MB"
    )
    print(json.dumps(document) if options.json else "\n".join(words))
    sys.exit(
        1
        if max(found.growth("heap", after), found.growth("resident", after)) > MOST_PER_LOOK
        else 0
    )


if __name__ == "__main__":
    main()
