"""Coverage of the package by a run of tests, lines and branches together. Exit code 1 if it is below
the required share.

python scripts/check/covered.py build/coverage.json --least 95 --only 'agent/amm/*,agent/units.py'

`--only pure` stands for all pure files (scripts/check/pure.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from fnmatch import fnmatch
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.check.pure import expand_patterns

MAX_SHOWN_FILES = 20
"""Maximum number of files listed, those with most missing lines first."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "measured", type=Path, help="file written by pytest -p tests.support.coverage"
    )
    parser.add_argument("--least", type=float, required=True, help="percent that must be covered")
    parser.add_argument("--only", default="*", help="comma-separated file patterns, or `pure`")
    options = parser.parse_args()
    counts = [
        (
            summary["missing_lines"] + summary["missing_branches"],
            summary["covered_lines"] + summary["covered_branches"],
            name,
        )
        for name, summary in (
            (name, coverage["summary"])
            for name, coverage in json.loads(options.measured.read_text())["files"].items()
        )
        if any(fnmatch(name, pattern) for pattern in expand_patterns(options.only))
    ]
    covered_total, missing_total = (
        sum(count_row[column] for count_row in counts) for column in (1, 0)
    )
    if not covered_total:
        sys.exit(f"no file of {options.only} was measured")
    for missing_count, covered_count, name in sorted(counts, reverse=True)[:MAX_SHOWN_FILES]:
        print(
            f"{missing_count:>5} missing  {100 * covered_count / (covered_count + missing_count or 1):5.1f} %  {name}"
        )
    share = 100 * covered_total / (covered_total + missing_total)
    print(f"{share:.2f} % of {len(counts)} files covered, at least {options.least:g} % wanted")
    sys.exit(share < options.least)


if __name__ == "__main__":
    main()
