"""Examples in docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import agent
from agent import app, research

ROOT = Path(__file__).parents[3]
ON_A_CHAIN = {"agent.app.agent", "agent.library"}
"""Run by tests/cases/test_documented_python.py."""
MODULES = [
    module
    for path in sorted(ROOT.joinpath("agent").rglob("*.py"))
    if "    >>> " in path.read_text() and (module := ".".join(path.relative_to(ROOT).with_suffix("").parts)) not in ON_A_CHAIN
]
TARGETS = {"BTC": 0.5, "USD": 0.5}


def backtested() -> object:
    prices = pl.DataFrame({"time": ["2024-01-01", "2024-01-02", "2024-01-03"], "BTC": [100.0, 130.0, 125.0]})
    return research.backtest(prices, TARGETS, research.band(0.1))


def long_prices() -> pl.DataFrame:
    return pl.DataFrame({"time": [1_700_000_000 + 86_400 * day for day in range(200)], "BTC": [100.0 + day % 7 for day in range(200)]})


RESULTS: dict[str, Callable[[], object]] = {
    "agent.research.reported": backtested,
    "agent.research.results": backtested,
    "agent.research.stress": lambda: research.stress(long_prices(), TARGETS, research.band(0.1), paths=10, scenarios=["crash"]),
    "agent.research.tuning": lambda: research.tune(long_prices(), TARGETS, [research.band(0.05), research.every("7d")]),
}
"""What `result` is in the examples of methods."""


@pytest.mark.parametrize("module", MODULES)
def test_examples_of_a_module_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"result": RESULTS[module]()} if module in RESULTS else {}
    results = doctest.testmod(importlib.import_module(module), extraglobs=names)
    assert results.attempted > 0
    assert results.failed == 0


def test_classes_that_a_reader_meets_first_have_an_example() -> None:
    assert {"agent.errors", "agent.model.plan", "agent.model.portfolio", "agent.units"} <= set(MODULES)


def test_all_of_research_has_an_example() -> None:
    """The enums are those of the config."""
    public: list[Any] = [getattr(research, name) for name in research.__all__]
    of_research = [item for item in public if item.__module__.startswith("agent.research")]
    methods = [
        getattr(item, name) for item in of_research if inspect.isclass(item) for name in ("frame", "plot", "report") if hasattr(item, name)
    ]
    assert len(methods) == 12
    assert [item.__qualname__ for item in (*of_research, *methods, app.Agent, agent.open_agent) if ">>> " not in (item.__doc__ or "")] == []
    properties = [
        f"{item.__name__}.{name}"
        for item in of_research
        if inspect.isclass(item)
        for name, attribute in inspect.getmembers_static(item)
        if not name.startswith("_") and isinstance(attribute, property | cached_property) and ">>> " not in (attribute.__doc__ or "")
    ]
    assert properties == []


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (agent, {"load_config", "open_agent", "plan", "quote", "snapshot", "step"}),
        (app, {"open_agent", "load_config", "Agent", "list_proposals", "backtest"}),
        (research, set(research.__all__)),
    ],
    ids=["agent", "app", "research"],
)
def test_names_that_load_on_first_use_are_completed(module: Any, names: set[str]) -> None:
    assert names <= set(dir(module))
    assert all(getattr(module, name) is not None for name in names)
