"""The faults suites: what a case is, what came of it, and the list of all suites, each replayable case by case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.localchain import LocalChain


@dataclass(frozen=True, order=True)
class Case:
    """One fault at one place of one scenario; its name is all that a replay needs."""

    suite: str
    seed: int
    fault: str
    where: str

    def __str__(self) -> str:
        return f"{self.suite}/{self.seed}/{self.fault}/{self.where}"


def parsed(text: str) -> Case:
    """A case by its name. ValueError for what is none."""
    suite, seed, fault, where = text.split("/", 3)
    return Case(suite, int(seed), fault, where)


@dataclass(frozen=True)
class Result:
    """What came of a case: how many faults were injected of which kind, what was violated, how the faulty steps ended."""

    case: Case
    injected: dict[str, int]
    violations: list[str]
    ends: list[str] = field(default_factory=list)


Folders = Callable[[], Path]
"""A new empty folder at each call."""
Only = Callable[[str, str], bool]
"""Whether the case of this fault at this place is wanted."""
Suite = Callable[["LocalChain", Folders, int, Only], Iterator[Result]]
"""Runs the cases of one seed."""


def every(_fault: str, _where: str) -> bool:
    """All cases."""
    return True
