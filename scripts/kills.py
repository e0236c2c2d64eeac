"""SIGKILL at random moments of live rebalances on anvil: each rebalance must be carried out exactly
once. Prints the figures, also as JSON.

A process rebalances as `trimtab rebalance` does, while blocks are mined at intervals or with each
transaction. It is killed after a random time, and sometimes so are its restarts. The times are drawn
from a seed, so a case can be repeated with the same times, though not at the same machine
instruction; `scripts/faults.py --suite kill` kills at exact points. Exit code 1 if a rebalance was not
carried out exactly once.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.localchain import LocalChain, open_anvil
from agent.localchain.nodes import AnvilNode, LocalNode
from tests.faults.invariants import violations
from tests.faults.probe import finished, process, started
from tests.faults.scene import Scene, scene

FORK = multiprocessing.get_context("fork")
PER_CHAIN = 60
MOST_KILLS = 4
"""Maximum number of kills of one rebalance, including those of restarts."""
ACTING = 0.5
"""Share of the kills whose time counts from the first intent. Most of a step is reading and planning,
where a kill shows little."""
BLOCK_S = 0.05
"""Interval of blocks, in seconds, if they are not mined with each transaction."""


class LiveClock:
    """Clock of chain time. Sleeping takes real time, a fiftieth of the request, and mines nothing."""

    def __init__(self, node: LocalNode) -> None:
        self._node = node

    def now_s(self) -> int:
        """Return the timestamp of the newest block."""
        return self._node.now_s()

    def sleep(self, seconds: float) -> None:
        """Sleep for a fiftieth of `seconds`."""
        time.sleep(seconds / 50)


@dataclass
class Rebalance:
    """One rebalance: kills that hit a live process, the newest journal entry at each, and violations
    at the end.
    """

    seed: int
    kills: int = 0
    reached: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


def mining(url: str) -> None:
    """Mine blocks until this process is ended."""
    node = AnvilNode(url)  # opens new connections after the fork
    while True:
        node.mine(1)
        time.sleep(BLOCK_S)


def rebalance(chain: LocalChain, folder: Path, seed: int) -> Rebalance:
    """Kill the processes of one rebalance at drawn times, then run a last one to its end."""
    done, draw = Rebalance(seed), random.Random(f"kills {seed}")
    with scene(chain, folder, seed) as made:
        miner = (
            None
            if made.drawn.automine
            else FORK.Process(target=mining, args=(chain.url,), daemon=True)
        )
        if miner is not None:
            miner.start()
        try:
            for _ in range(draw.choice((1, 1, 1, 1, 1, 1, 2, 2, 3, MOST_KILLS))):
                most_s, acts = statistics.median(_TOOK[-5:]), draw.random() < ACTING
                strike(made, draw.uniform(0, most_s * (0.5 if acts else 1.5)), done, acts)
            last = process(made, clock=LiveClock)
            done.violations += [] if last.end else [f"the last process ended with {last.code}"]
        finally:
            if miner is not None:
                miner.kill()
                miner.join()
        done.violations += made.recovered() + violations(made)
    return done


_TOOK: list[float] = []
"""Durations of processes that were not killed, in seconds. Kills are drawn from up to 1.5 times their
median, or from half of it after the first intent; a kill after the end does not count."""


def calibrate(chain: LocalChain, folder: Path, seed: int) -> None:
    """Measure a rebalance without a kill."""
    folder.mkdir()
    with scene(chain, folder, seed) as made:
        made.rpc("evm_setAutomine", True)
        began = time.monotonic()
        process(made, clock=LiveClock)
        _TOOK.append(time.monotonic() - began)


def strike(made: Scene, after_s: float, done: Rebalance, acts: bool) -> None:
    """Start a process and kill it after `after_s` seconds, unless it has ended. With `acts` the time
    counts from its first intent.
    """
    began, acting = time.monotonic(), FORK.Event()

    def hear(moment: str) -> None:
        if moment.startswith("before:write the transaction down"):
            acting.set()

    child, report = started(made, hear, clock=LiveClock)
    while acts and child.is_alive() and not acting.wait(0.005):
        pass
    child.join(after_s)
    if child.exitcode is None:
        child.kill()
    run = finished(child, report)
    if run.killed:
        done.kills += 1
        done.reached.append(reached(made))
        return
    if done.kills == 0:  # a whole rebalance, not a recovery
        _TOOK.append(time.monotonic() - began)
    done.violations += run.wrong


def reached(made: Scene) -> str:
    """Return kind and state of the newest transaction in the journal."""
    from agent.store import open_store

    store = open_store(made.loaded.store_url, made.chain.chain_id, made.chain.wallet.address)
    try:
        newest = store.journal.intents(limit=1)
        return (
            f"{newest[0].kind.value} {newest[0].state.value}" if newest else "nothing written down"
        )
    finally:
        store.close()


def work(tasks: Any, results: Any) -> None:
    """Run rebalances as one worker, with a new chain after PER_CHAIN of them."""
    seed = tasks.get()
    while seed is not None:
        with open_anvil() as chain, tempfile.TemporaryDirectory() as root:
            calibrate(chain, Path(root) / "first", seed)
            for number in range(PER_CHAIN):
                folder = Path(root) / str(number)
                folder.mkdir()
                try:
                    results.put(rebalance(chain, folder, seed))
                except Exception as error:
                    results.put(Rebalance(seed, violations=[f"the rig itself broke: {error!r}"]))
                    seed = tasks.get()
                    break
                seed = tasks.get()
                if seed is None:
                    break
    results.put(None)


def spread(kills: int, jobs: int, first: int) -> Iterator[Rebalance]:
    """Yield rebalances until `kills` kills have hit a live process."""
    tasks, results = FORK.Queue(), FORK.Queue()
    workers = [FORK.Process(target=work, args=(tasks, results)) for _ in range(jobs)]
    for number, worker in enumerate(workers):
        tasks.put(first + number)
        worker.start()
    seed, struck, at_work = first + jobs, 0, jobs
    while at_work:
        found = results.get()
        if found is None:
            at_work -= 1
            continue
        yield found
        struck += found.kills
        tasks.put(seed if struck < kills else None)
        seed += 1
    for worker in workers:
        worker.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kills", type=int, default=500, help="number of kills that must hit a live process"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--out", type=Path, help="write the figures as JSON to this file")
    options = parser.parse_args()
    began, found = time.monotonic(), []
    for one in spread(options.kills, options.jobs, options.first):
        found.append(one)
        if one.violations:
            print(
                f"VIOLATION seed {one.seed}: {one.violations} after {one.reached}",
                file=sys.stderr,
                flush=True,
            )
    document = {
        "rebalances": len(found),
        "kills": sum(one.kills for one in found),
        "rebalances_killed": sum(one.kills > 0 for one in found),
        "killed_when_the_newest_transaction_was": dict(
            Counter(where for one in found for where in one.reached).most_common()
        ),
        "violations": [
            {"seed": one.seed, "what": one.violations} for one in found if one.violations
        ],
        "duration_s": round(time.monotonic() - began),
    }
    text = json.dumps(document, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    sys.exit(1 if document["violations"] or document["kills"] < options.kills else 0)


if __name__ == "__main__":
    main()
