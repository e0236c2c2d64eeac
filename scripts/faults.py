"""Full runs of the fault suites, on several anvil processes. Prints and writes the injected faults and
the violations.

Each case has a name, SUITE/SEED/FAULT/WHERE, and `--replay NAME` repeats it. Exit code 1 after any
violation.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.localchain import LocalChain, open_anvil
from tests.faults.suite import Case, Only, Result, every, parsed
from tests.faults.suites import FUTURES, SPOT, SUITES, sample

FORK = multiprocessing.get_context("fork")


CASES_PER_CHAIN = 150
"""Number of cases after which a new chain is started, since anvil drops old blocks and grows."""


def cases(chain: LocalChain, suite: str, seed: int, wanted: Only) -> Iterator[Result]:
    """Yield the results of one seed of one suite. An error of the suite itself is a violation too."""
    run, _ = SUITES[suite]
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as root:

        def folders() -> Path:
            made = Path(root) / str(next(numbers))
            made.mkdir()
            return made

        last = Case(suite, seed, "", "")
        try:
            for result in run(chain, folders, seed, wanted):
                last = result.case
                yield result
        except Exception:
            yield Result(
                last,
                {},
                [f"the suite itself broke after this case: {traceback.format_exc(limit=-4)}"],
            )


def work(tasks: Any, results: Any, one_of: int) -> None:
    """Run (suite, seed) tasks from the queue, as one worker, until it delivers None."""
    task = tasks.get()
    while task is not None:
        with open_anvil() as chain:
            done = 0
            while task is not None and done < CASES_PER_CHAIN:
                suite, seed = task
                for result in cases(
                    chain, suite, seed, every if one_of == 1 else sample(seed, one_of)
                ):
                    results.put(result)
                    done += 1
                results.put(task)
                task = tasks.get()


def spread(
    wanted: list[tuple[str, int]], jobs: int, one_of: int, minutes: float
) -> Iterator[Result]:
    """Yield all results of these seeds from `jobs` workers; after `minutes` no further seed is begun."""
    tasks, results = FORK.Queue(), FORK.Queue()
    workers = [FORK.Process(target=work, args=(tasks, results, one_of)) for _ in range(jobs)]
    left, under_way, until = list(wanted), 0, time.monotonic() + minutes * 60
    for worker in workers:
        worker.start()
        under_way += _hand_out(tasks, left)
    while under_way:
        found = results.get()
        if isinstance(found, Result):
            yield found
        else:
            under_way -= 1
            if time.monotonic() < until:
                under_way += _hand_out(tasks, left)
    for _ in workers:
        tasks.put(None)
    for worker in workers:
        worker.join()


def _hand_out(tasks: Any, left: list[tuple[str, int]]) -> int:
    if not left:
        return 0
    tasks.put(left.pop(0))
    return 1


def order(suites: list[str], seeds: int | None, first: int) -> list[tuple[str, int]]:
    """Return the seeds of all suites, alternating between suites, so that a run cut short covers all."""
    counts = {name: SUITES[name][1] if seeds is None else seeds for name in suites}
    return [
        (name, first + turn)
        for turn in range(max(counts.values()))
        for name in suites
        if turn < counts[name]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--suite",
        action="append",
        choices=sorted(SUITES),
        help="only this suite; may be given several times",
    )
    parser.add_argument(
        "--futures", action="store_true", help="the suites over futures orders instead of swaps"
    )
    parser.add_argument(
        "--seeds", type=int, help="number of seeds of each suite, instead of its own number"
    )
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--one-of", type=int, default=1, help="run a seeded sample: about one case in N"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument(
        "--minutes", type=float, default=60, help="minutes after which no further seed is begun"
    )
    parser.add_argument(
        "--least", type=int, default=0, help="fail if fewer faults than this were injected"
    )
    parser.add_argument("--out", type=Path, help="write the figures as JSON to this file")
    parser.add_argument("--replay", metavar="NAME", help="run one case again, by its name")
    options = parser.parse_args()
    began = time.monotonic()
    if options.replay:
        case = parsed(options.replay)
        with open_anvil() as chain:
            found = list(
                cases(
                    chain,
                    case.suite,
                    case.seed,
                    lambda fault, where: (fault, where) == (case.fault, case.where),
                )
            )
        for result in found:
            print(result)
    else:
        suites = options.suite or list(FUTURES if options.futures else SPOT)
        wanted = order(suites, options.seeds, options.first)
        found = []
        for result in spread(wanted, options.jobs, options.one_of, options.minutes):
            found.append(result)
            if result.violations:
                print(
                    f"VIOLATION {result.case}\n  {result.violations}\n  after {result.ends}",
                    file=sys.stderr,
                    flush=True,
                )
            elif len(found) % 25 == 0:
                print(
                    f"{len(found)} cases in {time.monotonic() - began:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
    document = figures(found, time.monotonic() - began)
    text = json.dumps(document, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    sys.exit(
        1
        if document["violations"] or not found or document["faults_injected"] < options.least
        else 0
    )


def figures(found: list[Result], seconds: float) -> dict[str, Any]:
    """Return the published figures: cases, faults by kind, and violations with the names for replay."""
    kinds: Counter[str] = Counter()
    for result in found:
        kinds.update(result.injected)
    struck = {result.case for result in found if any(result.injected.values())}
    return {
        "cases": len(found),
        "cases_struck": len(struck),
        "cases_by_suite": dict(Counter(result.case.suite for result in found)),
        "faults_injected": sum(kinds.values()),
        "faults_by_kind": dict(sorted(kinds.items())),
        "violations": [
            {"case": str(result.case), "what": result.violations}
            for result in found
            if result.violations
        ],
        "duration_s": round(seconds),
    }


if __name__ == "__main__":
    main()
