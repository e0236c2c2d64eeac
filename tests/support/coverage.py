"""Lines and branches of the package that tests run: `python -m pytest -p tests.support.coverage --covered FILE -n 2` writes them as JSON.

The pytest-xdist processes that run tests measure, with slipcover's library and [tool.slipcover] in pyproject.toml. slipcover's own plugin
would also instrument the tests and the process that only distributes them.

Before Python 3.12 slipcover inserts a call before each line and branch; a line calls again each time it runs, until its module is
rewritten. Here the first call overwrites itself in memory with a jump, so that a line is counted once and then costs nothing. The code
with its calls is kept in build/branches for the next process. From Python 3.12 on the interpreter does both, and slipcover uses it.
"""

from __future__ import annotations

import ast
import ctypes
import dis
import hashlib
import json
import marshal
import os
import sys
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any

import pytest
from slipcover import FileMatcher, ImportManager, Slipcover, branch, importer, merge_coverage, slipcover, version

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "branches"
Place = int | tuple[int, int]
"""A line, or a branch from one line to another."""
CALL = "slipcover's call"
PLACE = "slipcover's place"
"""Placeholders in kept code: for the called function, and, in a pair with a place, for its argument."""
JUMP = dis.opmap["JUMP_FORWARD"]
OVERWRITES = sys.version_info < (3, 12)


@dataclass(eq=False, slots=True)
class Probe:
    """The calls before one place. It keeps a reference to the code whose memory it changes."""

    place: Place
    seen: set[Place]
    code: CodeType | None = None
    calls: tuple[int, ...] = ()
    """Addresses of the calls; each begins with a no-op whose argument is the length of a jump over the call."""


def reached(probe: Probe) -> None:
    """Count a place at its first run, and turn its calls into jumps."""
    probe.seen.add(probe.place)
    for call in probe.calls:
        ctypes.memset(call, JUMP, 1)


class Marking(Slipcover):  # type: ignore[misc]
    """slipcover with constants in place of its probes. The last constant has the offset of each place's call."""

    def instrument(self, co: CodeType, parent: CodeType | None = None) -> CodeType:
        marked: CodeType = super().instrument(co, parent)
        return marked.replace(co_consts=(*marked.co_consts, tuple(self.code2index.pop(marked))))


def marked(name: str, path: Path) -> tuple[set[int], set[tuple[int, int]], CodeType]:
    """Return lines, branches and marked code of a module, computed once for each state of its source."""
    source = path.read_bytes()
    state = hashlib.sha256(f"{sys.version} {version.__version__} {path}\n".encode() + Path(__file__).read_bytes() + source).digest()
    kept_file = KEPT / name
    try:
        known = kept_file.read_bytes()
        if known.startswith(state):
            return marshal.loads(known[len(state) :])  # type: ignore[no-any-return]
    except (OSError, EOFError, ValueError, TypeError):  # not kept yet, or truncated
        pass
    meter = Marking(branch=True)
    code = meter.instrument(compile(branch.preinstrument(ast.parse(source)), str(path), "exec"))
    coverage = meter.code_lines[str(path)], meter.code_branches[str(path)], code
    KEPT.mkdir(parents=True, exist_ok=True)
    written = kept_file.with_name(f"{name}.{os.getpid()}")
    written.write_bytes(state + marshal.dumps(coverage))
    written.replace(kept_file)  # other processes may read it meanwhile
    return coverage


def armed(code: CodeType, places: set[Place]) -> CodeType:
    """Return marked code with probes in place of its constants; they add reached places to `places`."""
    *consts, calls = code.co_consts
    probes = []
    for at, const in enumerate(consts):
        match const:
            case CodeType():
                consts[at] = armed(const, places)
            case (str(mark), place) if mark == PLACE:
                probes.append(Probe(place, places))
                consts[at] = probes[-1]
            case str() if const == CALL:
                consts[at] = reached
    armed_code = code.replace(co_consts=tuple(consts))
    addresses = defaultdict(list)
    for offset, place in calls:
        addresses[place].append(id(armed_code) + CodeType.__basicsize__ + offset)
    for probe in probes:
        probe.code, probe.calls = armed_code, tuple(addresses[probe.place])
    return armed_code


class Loader(importer.SlipcoverLoader):  # type: ignore[misc]
    """slipcover's loader with kept code, in which each place counts once."""

    def exec_module(self, module: ModuleType) -> None:
        if not OVERWRITES or not isinstance(self.orig_loader, SourceFileLoader):
            super().exec_module(module)
            return
        lines, branches, code = marked(module.__name__, self.origin)
        name = code.co_filename
        self.sci.code_lines[name] |= lines
        self.sci.code_branches[name] |= branches
        exec(armed(code, self.sci.all_seen[name]), module.__dict__)


def _begun() -> Slipcover | None:
    """Return the meter of this process if it runs tests. It counts modules imported from now on; no conftest has been read yet."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return None
    how = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["slipcover"]
    if OVERWRITES:
        slipcover.probe = SimpleNamespace(signal=CALL, new=lambda _meter, _file, place, _threshold: (PLACE, place))
        process = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
        processes = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        for path in sorted((ROOT / "agent").rglob("*.py"))[process::processes]:  # each process marks its share before it needs the others'
            marked(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path)
    meter = Slipcover(branch=how["branch"], source=how["source"], omit=how["omit"], exclude_also=how["exclude-also"])
    importer.SlipcoverLoader = Loader
    ImportManager(meter, FileMatcher(how["source"], how["omit"])).__enter__()
    return meter


METER = _begun()
FOUND: list[dict[str, Any]] = []
"""Measurements of the processes that have ended, merged into one."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--covered", type=Path, help="file for the measurements")


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
