"""SIGKILL at random moments of live rebalances on anvil: each rebalance ends done exactly once.
Prints the figures, also as JSON.

A process rebalances as `trimtab rebalance` does while blocks come by themselves; after a random
time it is killed, sometimes the restarts too. Times are drawn from a seed, so that a case is
replayed with the same times, if not to the same machine instruction; the exact moments are those of
`scripts/faults.py --suite kill`. Exit code 1 where a rebalance was not done exactly once.
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
"""Of one rebalance: its first process, and restarts."""
ACTING = 0.5
"""Share of the kills whose time counts from the first intent on: most of a step is reading and
planning, where a kill proves little."""
BLOCK_S = 0.05
"""Blocks that do not come with each transaction come so often."""


class LiveClock:
    """Chain time; sleeping is real and short, and mines nothing."""

    def __init__(self, node: LocalNode) -> None:
        self._node = node

    def now_s(self) -> int:
        """Timestamp of the newest block."""
        return self._node.now_s()

    def sleep(self, seconds: float) -> None:
        """A fiftieth of it."""
        time.sleep(seconds / 50)


@dataclass
class Rebalance:
    """One of them: kills that struck, the last durable step before each, and what is wrong with how
    it ended.
    """

    seed: int
    kills: int = 0
    reached: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


def mining(url: str) -> None:
    """Mines block after block, until this process is ended."""
    node = AnvilNode(
        url
    )  # with connections of its own: those of the process that was forked stay there
    while True:
        node.mine(1)
        time.sleep(BLOCK_S)


def rebalance(chain: LocalChain, folder: Path, seed: int) -> Rebalance:
    """One rebalance, killed again and again, then left in peace."""
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
"""How long processes took that were not killed, seconds: kills are spread over that and half as
much; one that comes too late is none."""


def calibrate(chain: LocalChain, folder: Path, seed: int) -> None:
    """Measures a rebalance that nobody kills."""
    folder.mkdir()
    with scene(chain, folder, seed) as made:
        made.rpc("evm_setAutomine", True)
        began = time.monotonic()
        process(made, clock=LiveClock)
        _TOOK.append(time.monotonic() - began)


def strike(made: Scene, after_s: float, done: Rebalance, acts: bool) -> None:
    """Starts a process and kills it after that time, unless it is through by then; where it `acts`
    first, from its first intent on.
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
    if done.kills == 0:  # a whole rebalance, no recovery
        _TOOK.append(time.monotonic() - began)
    done.violations += run.wrong


def reached(made: Scene) -> str:
    """What the journal says of the newest transaction."""
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
    """One worker: rebalance after rebalance, a fresh chain now and then."""
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
    """Rebalances until so many kills have struck."""
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
    parser.add_argument("--kills", type=int, default=500, help="how many kills have to strike")
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
