"""Examples in docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted(ROOT.joinpath("agent").rglob("*.py"))
    if "    >>> " in path.read_text()
]


@pytest.mark.parametrize("module", MODULES)
def test_examples_of_a_module_run(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted > 0
    assert results.failed == 0


def test_classes_that_a_reader_meets_first_have_an_example() -> None:
    assert {"agent.errors", "agent.model.plan", "agent.model.portfolio", "agent.units"} <= set(MODULES)
