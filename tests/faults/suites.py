"""All faults suites by name, how many seeds the long run gives each, and a seeded sample for the quick one."""

from __future__ import annotations

import random

from tests.faults import suite_chain, suite_chaos, suite_disk, suite_kill, suite_lies, suite_power, suite_store
from tests.faults.suite import Only, Suite

SUITES: dict[str, tuple[Suite, int]] = {
    suite_kill.NAME: (suite_kill.run, 25),
    suite_power.NAME: (suite_power.run, 10),
    suite_disk.NAME: (suite_disk.run, 8),
    suite_store.NAME: (suite_store.run, 12),
    suite_chain.NAME: (suite_chain.run, 10),
    suite_chaos.NAME: (suite_chaos.run, 4),
    suite_lies.NAME: (suite_lies.run, 1),
}
"""The suite and its seeds in `make faults`."""


def sample(seed: int, one_of: int) -> Only:
    """Every n-th case or so, the same ones for the same seed."""

    def wanted(fault: str, where: str) -> bool:
        return random.Random(f"{seed} {fault} {where}").randrange(one_of) == 0

    return wanted
