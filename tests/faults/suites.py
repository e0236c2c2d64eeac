"""All faults suites by name, how many seeds the long run gives each, and a seeded sample for the quick one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from agent.localchain import LocalChain
from tests.faults import suite_chain, suite_chaos, suite_disk, suite_kill, suite_lies, suite_power, suite_store
from tests.faults.futures_scene import futures_scene
from tests.faults.suite import Folders, Only, Result, Suite

SPOT: dict[str, tuple[Suite, int]] = {
    suite_kill.NAME: (suite_kill.run, 25),
    suite_power.NAME: (suite_power.run, 10),
    suite_disk.NAME: (suite_disk.run, 8),
    suite_store.NAME: (suite_store.run, 12),
    suite_chain.NAME: (suite_chain.run, 10),
    suite_chaos.NAME: (suite_chaos.run, 4),
    suite_lies.NAME: (suite_lies.run, 1),
}
"""The suite and its seeds in `make faults`."""


def over_futures(run: Callable[..., Iterator[Result]]) -> Suite:
    """The same suite over wallets with futures; its cases have names of their own."""

    def cases(chain: LocalChain, folders: Folders, seed: int, only: Only) -> Iterator[Result]:
        for result in run(chain, folders, seed, only, futures_scene):
            yield replace(result, case=replace(result.case, suite=f"futures-{result.case.suite}"))

    return cases


SEEDS = {"kill": 11, "power": 11, "disk": 11, "store": 11, "chain": 11, "chaos": 4, "lies": 2}
FUTURES: dict[str, tuple[Suite, int]] = {f"futures-{name}": (over_futures(run), SEEDS[name]) for name, (run, _) in SPOT.items()}
"""The same over futures: `make faults-futures`."""
SUITES = SPOT | FUTURES


def sample(seed: int, one_of: int) -> Only:
    """Every n-th case or so, the same ones for the same seed."""

    def is_selected(fault: str, where: str) -> bool:
        return random.Random(f"{seed} {fault} {where}").randrange(one_of) == 0

    return is_selected
