"""A seeded sample of every faults suite, and that the suites see what they look for: `make faults` runs them whole."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.localchain import LocalChain
from tests.faults.suite import Folders, Result, parsed
from tests.faults.suites import SUITES, sample

ONE_OF = {"kill": 16, "power": 5, "disk": 6, "chaos": 14}
"""Which share of one seed's cases the sample takes."""


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    numbers = itertools.count()

    def fresh() -> Path:
        made = tmp_path / str(next(numbers))
        made.mkdir()
        return made

    return fresh


@pytest.mark.parametrize("name", SUITES)
def test_after_every_fault_of_the_sample_the_rebalance_is_done_exactly_once(
    anvil_session: LocalChain, folders: Folders, name: str, record_property: Callable[[str, object], None]
) -> None:
    run, _ = SUITES[name]
    injected: Counter[str] = Counter()
    found: list[Result] = []
    for result in run(anvil_session, folders, 1, sample(1, ONE_OF[name])):
        assert not result.violations, f"{result.case}: {result.violations} after {result.ends}"
        injected.update(result.injected)
        found.append(result)
    record_property("injected", dict(injected))
    assert sum(injected.values()) >= 1
    assert all(parsed(str(result.case)) == result.case for result in found)
