"""SIGKILL at random moments of live rebalances on anvil: each rebalance must be carried out exactly
once. Prints the figures, also as JSON.

A process rebalances as `trimtab rebalance` does, while blocks are mined at intervals or with each
transaction. It is killed after a random time, and sometimes so are its restarts. The times are drawn
from a seed, so a case can be repeated with the same times, though not at the same machine
instruction; `scripts/check/faults.py --suite kill` kills at exact points. Exit code 1 if a rebalance was not
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

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.localchain import LocalChain, open_anvil
from agent.localchain.nodes import AnvilNode, LocalNode
from tests.faults.invariants import violations
from tests.faults.probe import finished, process, started
from tests.faults.scene import Scene, scene

FORK = multiprocessing.get_context("fork")
REBALANCES_PER_CHAIN = 60
MAX_KILLS = 4
"""Maximum number of kills of one rebalance, including those of restarts."""
AFTER_INTENT_SHARE = 0.5
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
class KilledRebalance:
    """One rebalance: kills that hit a live process, the newest journal entry at each, and violations
    at the end.
    """

    seed: int
    kills: int = 0
    states_at_kill: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


def mine_blocks(url: str) -> None:
    """Mine blocks until this process is ended."""
    node = AnvilNode(url)  # opens new connections after the fork
    while True:
        node.mine(1)
        time.sleep(BLOCK_S)


def rebalance(chain: LocalChain, folder: Path, seed: int) -> KilledRebalance:
    """Kill the processes of one rebalance at drawn times, then run a last one to its end."""
    outcome = KilledRebalance(seed)
    generator = random.Random(f"kills {seed}")
    with scene(chain, folder, seed) as scenario:
        miner = (
            None
            if scenario.drawn.automine
            else FORK.Process(target=mine_blocks, args=(chain.url,), daemon=True)
        )
        if miner is not None:
            miner.start()
        try:
            for _ in range(generator.choice((1, 1, 1, 1, 1, 1, 2, 2, 3, MAX_KILLS))):
                usual_duration_s = statistics.median(_DURATIONS_S[-5:])
                after_intent = generator.random() < AFTER_INTENT_SHARE
                run_and_kill(
                    scenario,
                    generator.uniform(0, usual_duration_s * (0.5 if after_intent else 1.5)),
                    outcome,
                    after_intent,
                )
            last_run = process(scenario, clock=LiveClock)
            outcome.violations += (
                [] if last_run.end else [f"the last process ended with {last_run.code}"]
            )
        finally:
            if miner is not None:
                miner.kill()
                miner.join()
        outcome.violations += scenario.recovered() + violations(scenario)
    return outcome


_DURATIONS_S: list[float] = []
"""Durations of processes that were not killed, in seconds. Kills are drawn from up to 1.5 times their
median, or from half of it after the first intent; a kill after the end does not count."""


def measure_undisturbed(chain: LocalChain, folder: Path, seed: int) -> None:
    """Measure a rebalance without a kill."""
    folder.mkdir()
    with scene(chain, folder, seed) as scenario:
        scenario.rpc("evm_setAutomine", True)
        began_s = time.monotonic()
        process(scenario, clock=LiveClock)
        _DURATIONS_S.append(time.monotonic() - began_s)


def run_and_kill(
    scenario: Scene, delay_s: float, outcome: KilledRebalance, after_intent: bool
) -> None:
    """Start a process and kill it after `delay_s` seconds, unless it has ended. With `after_intent` the time
    counts from its first intent.
    """
    began_s = time.monotonic()
    has_intent = FORK.Event()

    def on_moment(moment: str) -> None:
        if moment.startswith("before:write the transaction down"):
            has_intent.set()

    child, report = started(scenario, on_moment, clock=LiveClock)
    while after_intent and child.is_alive() and not has_intent.wait(0.005):
        pass
    child.join(delay_s)
    if child.exitcode is None:
        child.kill()
    finished_run = finished(child, report)
    if finished_run.killed:
        outcome.kills += 1
        outcome.states_at_kill.append(newest_transaction(scenario))
        return
    if outcome.kills == 0:  # a whole rebalance, not a recovery
        _DURATIONS_S.append(time.monotonic() - began_s)
    outcome.violations += finished_run.wrong


def newest_transaction(scenario: Scene) -> str:
    """Return kind and state of the newest transaction in the journal."""
    from agent.store import open_store

    store = open_store(
        scenario.loaded.store_url, scenario.chain.chain_id, scenario.chain.wallet.address
    )
    try:
        newest = store.journal.intents(limit=1)
        return (
            f"{newest[0].kind.value} {newest[0].state.value}" if newest else "nothing written down"
        )
    finally:
        store.close()


def run_worker(tasks: Any, results: Any) -> None:
    """Run rebalances as one worker, with a new chain after REBALANCES_PER_CHAIN of them."""
    seed = tasks.get()
    while seed is not None:
        with open_anvil() as chain, tempfile.TemporaryDirectory() as root:
            measure_undisturbed(chain, Path(root) / "first", seed)
            for number in range(REBALANCES_PER_CHAIN):
                folder = Path(root) / str(number)
                folder.mkdir()
                try:
                    results.put(rebalance(chain, folder, seed))
                except Exception as error:
                    results.put(
                        KilledRebalance(seed, violations=[f"the rig itself broke: {error!r}"])
                    )
                    seed = tasks.get()
                    break
                seed = tasks.get()
                if seed is None:
                    break
    results.put(None)


def run_rebalances(kills: int, jobs: int, first_seed: int) -> Iterator[KilledRebalance]:
    """Yield rebalances until `kills` kills have hit a live process."""
    tasks = FORK.Queue()
    results = FORK.Queue()
    workers = [FORK.Process(target=run_worker, args=(tasks, results)) for _ in range(jobs)]
    for number, worker in enumerate(workers):
        tasks.put(first_seed + number)
        worker.start()
    seed = first_seed + jobs
    kill_count = 0
    running_workers = jobs
    while running_workers:
        outcome = results.get()
        if outcome is None:
            running_workers -= 1
            continue
        yield outcome
        kill_count += outcome.kills
        tasks.put(seed if kill_count < kills else None)
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
    began_s = time.monotonic()
    outcomes = []
    for outcome in run_rebalances(options.kills, options.jobs, options.first):
        outcomes.append(outcome)
        if outcome.violations:
            print(
                f"VIOLATION seed {outcome.seed}: {outcome.violations} after {outcome.states_at_kill}",
                file=sys.stderr,
                flush=True,
            )
    document = {
        "rebalances": len(outcomes),
        "kills": sum(outcome.kills for outcome in outcomes),
        "rebalances_killed": sum(outcome.kills > 0 for outcome in outcomes),
        "killed_when_the_newest_transaction_was": dict(
            Counter(
                state_text for outcome in outcomes for state_text in outcome.states_at_kill
            ).most_common()
        ),
        "violations": [
            {"seed": outcome.seed, "what": outcome.violations}
            for outcome in outcomes
            if outcome.violations
        ],
        "duration_s": round(time.monotonic() - began_s),
    }
    text = json.dumps(document, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    sys.exit(1 if document["violations"] or document["kills"] < options.kills else 0)


if __name__ == "__main__":
    main()
