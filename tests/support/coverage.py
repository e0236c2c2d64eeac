"""Lines and branches of the package that tests run: `python -m pytest -p tests.support.coverage --covered FILE -n 2` writes them as JSON.

Processes of pytest-xdist that run tests measure, by slipcover's library and [tool.slipcover] in pyproject.toml. slipcover's own plugin
also instruments the tests and the process that only distributes them, and leaves `threshold` at its default.

For branches slipcover rewrites each module's syntax tree. The code compiled from it is kept in build/branches for the next process.
"""

from __future__ import annotations

import ast
import hashlib
import json
import marshal
import os
import sys
import tomllib
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from slipcover import FileMatcher, ImportManager, Slipcover, branch, importer, merge_coverage, version

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "branches"


def branching(name: str, path: Path) -> CodeType:
    """Return a module's code with slipcover's marks of branches, compiled once for each state of its source."""
    source = path.read_bytes()
    state = hashlib.sha256(f"{sys.version} {version.__version__} {path}\n".encode() + source).digest()
    kept = KEPT / name
    try:
        known = kept.read_bytes()
        if known.startswith(state):
            return marshal.loads(known[len(state) :])  # type: ignore[no-any-return]
    except (OSError, EOFError, ValueError, TypeError):  # none yet, or one cut short
        pass
    code: CodeType = compile(branch.preinstrument(ast.parse(source)), str(path), "exec")
    KEPT.mkdir(parents=True, exist_ok=True)
    written = kept.with_name(f"{name}.{os.getpid()}")
    written.write_bytes(state + marshal.dumps(code))
    written.replace(kept)  # other processes read it meanwhile
    return code


class Loader(importer.SlipcoverLoader):  # type: ignore[misc]
    """slipcover's loader with code that is kept."""

    def exec_module(self, module: ModuleType) -> None:
        if not isinstance(self.orig_loader, SourceFileLoader):
            super().exec_module(module)
            return
        self.sci.register_module(module)
        exec(self.sci.instrument(branching(module.__name__, self.origin)), module.__dict__)


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
    importer.SlipcoverLoader = Loader
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
