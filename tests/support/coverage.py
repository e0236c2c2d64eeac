"""Lines and branches of the package that tests run: `python -m pytest -p tests.support.coverage --covered FILE -n 2` writes them as JSON.

Processes of pytest-xdist that run tests measure, by slipcover's library and [tool.slipcover] in pyproject.toml. slipcover's own plugin
also instruments the tests and the process that only distributes them, and leaves `threshold` at its default.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from slipcover import FileMatcher, ImportManager, Slipcover, merge_coverage

ROOT = Path(__file__).parents[2]


def _begun() -> Slipcover | None:
    """The meter of this process if tests run in it. It counts what is imported from here on: no conftest has been read yet."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return None
    how = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["slipcover"]
    meter = Slipcover(
        branch=how["branch"],
        d_miss_threshold=how["threshold"],
        source=how["source"],
        omit=how["omit"],
        exclude_also=how["exclude-also"],
    )
    ImportManager(meter, FileMatcher(how["source"], how["omit"])).__enter__()
    return meter


METER = _begun()
FOUND: list[dict[str, Any]] = []
"""What the processes that have ended measured, merged into one."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--covered", type=Path, help="file for what was measured")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if measured := getattr(node, "workeroutput", {}).get("measured"):
        FOUND.append(json.loads(measured))
        FOUND[:] = [merge_coverage(*FOUND) if len(FOUND) > 1 else FOUND[0]]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if METER:
        session.config.workeroutput["measured"] = json.dumps(METER.get_coverage())  # type: ignore[attr-defined]


def pytest_unconfigure(config: pytest.Config) -> None:
    if FOUND:
        config.option.covered.write_text(json.dumps(FOUND[0]), encoding="utf-8")
