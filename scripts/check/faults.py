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

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.localchain import LocalChain, open_anvil
from tests.faults.suite import Case, Only, Result, every, parsed
from tests.faults.suites import FUTURES, SPOT, SUITES, sample

FORK = multiprocessing.get_context("fork")


CASES_PER_CHAIN = 20
"""Number of cases after which the next seed has a new chain: anvil keeps the states of 512 blocks, undone
ones among them, and a wallet that looks for a stranger's transaction looks back to the first.
"""


def run_cases(chain: LocalChain, suite: str, seed: int, selection: Only) -> Iterator[Result]:
    """Yield the results of one seed of one suite. An error of the suite itself is a violation too."""
    run_suite, _ = SUITES[suite]
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as temporary_root:

        def folders() -> Path:
            folder = Path(temporary_root) / str(next(numbers))
            folder.mkdir()
            return folder

        last_case = Case(suite, seed, "", "")
        try:
            for result in run_suite(chain, folders, seed, selection):
                last_case = result.case
                yield result
        except Exception:
            yield Result(
                last_case,
                {},
                [f"the suite itself broke after this case: {traceback.format_exc(limit=-4)}"],
            )


def run_worker(tasks: Any, results: Any, sample_interval: int) -> None:
    """Run (suite, seed) tasks from the queue, as one worker, until it delivers None."""
    task = tasks.get()
    while task is not None:
        with open_anvil() as chain:
            case_count = 0
            while task is not None and case_count < CASES_PER_CHAIN:
                suite, seed = task
                for result in run_cases(
                    chain,
                    suite,
                    seed,
                    every if sample_interval == 1 else sample(seed, sample_interval),
                ):
                    results.put(result)
                    case_count += 1
                results.put(task)
                task = tasks.get()


def run_tasks(
    seeds: list[tuple[str, int]], jobs: int, sample_interval: int, minutes: float
) -> Iterator[Result]:
    """Yield all results of these seeds from `jobs` workers; after `minutes` no further seed is begun."""
    tasks = FORK.Queue()
    results = FORK.Queue()
    workers = [
        FORK.Process(target=run_worker, args=(tasks, results, sample_interval)) for _ in range(jobs)
    ]
    waiting_tasks = list(seeds)
    running_count = 0
    end_s = time.monotonic() + minutes * 60
    for worker in workers:
        worker.start()
        running_count += _hand_out_task(tasks, waiting_tasks)
    while running_count:
        message = results.get()
        if isinstance(message, Result):
            yield message
        else:
            running_count -= 1
            if time.monotonic() < end_s:
                running_count += _hand_out_task(tasks, waiting_tasks)
    for _ in workers:
        tasks.put(None)
    for worker in workers:
        worker.join()


def _hand_out_task(tasks: Any, waiting_tasks: list[tuple[str, int]]) -> int:
    if not waiting_tasks:
        return 0
    tasks.put(waiting_tasks.pop(0))
    return 1


def alternating_seeds(
    suites: list[str], seeds: int | None, first_seed: int
) -> list[tuple[str, int]]:
    """Return the seeds of all suites, alternating between suites, so that a run cut short covers all."""
    counts = {name: SUITES[name][1] if seeds is None else seeds for name in suites}
    return [
        (name, first_seed + offset)
        for offset in range(max(counts.values()))
        for name in suites
        if offset < counts[name]
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
    began_s = time.monotonic()
    if options.replay:
        case = parsed(options.replay)
        with open_anvil() as chain:
            results = list(
                run_cases(
                    chain,
                    case.suite,
                    case.seed,
                    lambda fault, where: (fault, where) == (case.fault, case.where),
                )
            )
        for result in results:
            print(result)
    else:
        suites = options.suite or list(FUTURES if options.futures else SPOT)
        seeds = alternating_seeds(suites, options.seeds, options.first)
        results = []
        for result in run_tasks(seeds, options.jobs, options.one_of, options.minutes):
            results.append(result)
            if result.violations:
                print(
                    f"VIOLATION {result.case}\n  {result.violations}\n  after {result.ends}",
                    file=sys.stderr,
                    flush=True,
                )
            elif len(results) % 25 == 0:
                print(
                    f"{len(results)} cases in {time.monotonic() - began_s:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
    document = summary_document(results, time.monotonic() - began_s)
    text = json.dumps(document, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    sys.exit(
        1
        if document["violations"] or not results or document["faults_injected"] < options.least
        else 0
    )


def summary_document(results: list[Result], seconds: float) -> dict[str, Any]:
    """Return the published figures: cases, faults by kind, and violations with the names for replay."""
    fault_counts: Counter[str] = Counter()
    for result in results:
        fault_counts.update(result.injected)
    struck_cases = {result.case for result in results if any(result.injected.values())}
    return {
        "cases": len(results),
        "cases_struck": len(struck_cases),
        "cases_by_suite": dict(Counter(result.case.suite for result in results)),
        "faults_injected": sum(fault_counts.values()),
        "faults_by_kind": dict(sorted(fault_counts.items())),
        "violations": [
            {"case": str(result.case), "what": result.violations}
            for result in results
            if result.violations
        ],
        "duration_s": round(seconds),
    }


if __name__ == "__main__":
    main()
