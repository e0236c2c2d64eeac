"""Writes tests/scenes.txt: the tests that `make test` leaves to `make scenes`, by how long each took in a run of all.

    pytest -n 3 -m "not slow" --junitxml=build/tests.xml -o junit_duration_report=total
    scripts/make/scene_tests.py build/tests.xml

A test is left if it takes longer than the limit. Of each file one test at least stays, the shortest.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

LIST = Path("tests/scenes.txt")
LIMIT_S = 1.2
HEADING = (
    f"# Tests that took longer than {LIMIT_S} s, by make scenes. Written by scripts/make/scene_tests.py;"
    " a test without a line is part of make test.\n"
)


def main() -> None:
    """Write the list, and print how many tests and seconds it takes out of make test."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("junit_xml", type=Path, help="durations of all tests but the slow ones")
    parser.add_argument(
        "--limit", type=float, default=LIMIT_S, help="longest test that stays, in seconds"
    )
    options = parser.parse_args()
    durations_by_file = read_durations(options.junit_xml)
    scenes = sorted(
        f"{file}::{name}"
        for file, durations in durations_by_file.items()
        for name in longest_tests(durations, options.limit)
    )
    LIST.write_text(HEADING + "".join(f"{scene}\n" for scene in scenes), encoding="utf-8")
    total_s = sum(sum(durations.values()) for durations in durations_by_file.values())
    scenes_s = sum(
        durations_by_file[file][name]
        for file, _, name in (scene.partition("::") for scene in scenes)
    )
    print(
        json.dumps(
            {"tests": len(scenes), "seconds": round(scenes_s), "seconds_of_all": round(total_s)}
        )
    )


def read_durations(junit_xml: Path) -> dict[str, dict[str, float]]:
    """Return the seconds of each test by its file and name."""
    durations_by_file: dict[str, dict[str, float]] = defaultdict(dict)
    for case in ElementTree.parse(junit_xml).iter("testcase"):  # noqa: S314  a file that pytest has written here
        file = str(case.get("classname")).replace(".", "/") + ".py"
        durations_by_file[file][str(case.get("name"))] = float(case.get("time", 0))
    return durations_by_file


def longest_tests(durations: dict[str, float], limit_s: float) -> list[str]:
    """Return the tests beyond the limit, but the shortest of all."""
    names = sorted(durations, key=lambda name: durations[name])
    return [name for name in names[1:] if durations[name] > limit_s]


if __name__ == "__main__":
    main()
