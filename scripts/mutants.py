"""Mutation testing: the share of small mistakes that the tests near the code notice.

Mutants are drawn by a seed from all nodes of the syntax trees. Each changes a comparison, sign,
rounding, constant, condition or returned value, or removes a statement. It runs in a copy of the tree
against the tests that cover its line (coverage's contexts, collected once and kept in --cache), until
one fails: first those of files that import its module, then its package, each group from the fastest
on. What runs at import, or once in a process (`cache`), is covered by the tests of the lines that name
it. A test that hangs twice, the second time with three times its limit, has noticed the mistake too
(`timeout`). `unfinished` mutants ran out of --seconds with every test passed so far, also when run again
with three times as much: they are reported apart and are not part of the score. `uncovered` ones are on
a line that no test runs, and count as not noticed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fnmatch
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Timer
from time import monotonic

from coverage import CoverageData

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.mistakes import Mutant, made, places_in

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = (
    ".git",
    ".venv*",
    "node_modules",
    "build",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    ".coverage*",
)


def environment(tree: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(tree),
        "HYPOTHESIS_PROFILE": "ci",
        "OPENBLAS_NUM_THREADS": "1",
    }


LOADED = (
    "numpy",
    "hypothesis.strategies",
    "web3",
    "eth_account",
    "pydantic",
    "sqlalchemy.orm",
    "alembic",
    "tomlkit",
    "typer",
    "eth_tester",
)
BATCHES = (0, 30, 300)
"""Index of the first test of each batch. The first batch notices most mutants, and collecting all
tests takes longer than running a few."""
FORKING = f"""
import contextlib, gc, importlib, json, os, sys
import pytest
for name in {LOADED}:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
gc.freeze()
for line in sys.stdin:
    out, *arguments = json.loads(line)
    if not (pid := os.fork()):
        os.setsid()
        for number in (1, 2):
            os.dup2(os.open(out, os.O_WRONLY | os.O_APPEND), number)
        code = int(pytest.main(arguments))
        sys.stdout.flush()
        os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Runner:
    """Runs pytest over one tree, in forks of a process that has imported the libraries but no module
    of the tree.
    """

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self._parent = subprocess.Popen(
            ["nice", sys.executable, "-c", FORKING],
            cwd=tree,
            env=environment(tree),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, arguments: Sequence[str], limit: float) -> tuple[int | None, str]:
        """Return exit code (None if the time limit was reached) and output."""
        with tempfile.NamedTemporaryFile("w+") as out:
            self._parent.stdin.write(json.dumps([out.name, *arguments]) + "\n")
            self._parent.stdin.flush()
            pid, late = int(self._parent.stdout.readline()), Event()

            def end() -> None:
                late.set()
                os.killpg(pid, signal.SIGKILL)

            timer = Timer(limit, end)
            timer.start()
            code = int(self._parent.stdout.readline())
            timer.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # processes left by a test
            return None if late.is_set() else code, Path(out.name).read_text()

    def run_tests(self, tests: Sequence[str], limit: float, hang: float) -> tuple[int | None, str]:
        """Run the named tests, grouped by file, until one fails."""
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as names:
            names.write("\n".join(sorted(tests, key=lambda test: test.partition("::")[0])))
            names.flush()
            return self.run(["-x", "-rfE", f"--timeout={hang}", f"@{names.name}"], limit)

    def close(self) -> None:
        """End the process."""
        self._parent.communicate()


def copied(root: Path, into: Path) -> Path:
    """Copy the tree for mutants. Its bytecode is validated by the hash of the source, since a mutant
    may have the size and time of the original.
    """
    shutil.copytree(root, into, ignore=shutil.ignore_patterns(*LEFT_OUT))
    if (root / "contracts" / "node_modules").exists():
        (into / "contracts" / "node_modules").symlink_to(
            (root / "contracts" / "node_modules").resolve()
        )
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "agent"],
        cwd=into,
        check=True,
    )
    return into


Place = tuple[str, int]


class Names:
    """Top-level names of a tree whose code runs at import or once in a process, and the lines that name
    them.
    """

    def __init__(self, root: Path) -> None:
        self.uses: dict[str, set[Place]] = defaultdict(set)
        self.once: dict[Place, tuple[str, ...]] = {}
        """Names defined by each line of such code."""
        for path in sorted((root / "agent").rglob("*.py")):
            self._add(str(path.relative_to(root)), ast.parse(path.read_text()))

    def _add(self, file: str, tree: ast.Module) -> None:
        for part in tree.body:
            names = _run_once(part)
            for line in range(part.lineno, (part.end_lineno or part.lineno) + 1):
                self.once[file, line] = names
        for node in ast.walk(tree):
            # A long statement is covered by its first line, too.
            inner = (
                ast.walk(node)
                if isinstance(node, ast.stmt) and not hasattr(node, "body")
                else [node]
            )
            for part in inner:
                if isinstance(part, ast.Name | ast.Attribute):
                    name = part.id if isinstance(part, ast.Name) else part.attr
                    self.uses[name] |= {(file, part.lineno), (file, node.lineno)}

    def places(self, file: str, line: int) -> set[Place]:
        """Return the lines that name what is defined on a line, or what is defined by those."""
        reached, due = set[Place](), [(file, line)]
        while due:
            place = due.pop()
            for name in self.once.get(place, ()):
                for other in self.uses[name] - reached:
                    if other[0] == place[0] or not name.startswith("_"):
                        reached.add(other)
                        due.append(other)
        return reached


def _run_once(part: ast.stmt) -> tuple[str, ...]:
    """Return the names of a top-level statement whose code runs at import, or once."""
    match part:
        case ast.Assign(targets=targets):
            return tuple(node.id for node in targets if isinstance(node, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            return (name,)
        case ast.FunctionDef(name=name, decorator_list=decorators) if any(
            "cache" in ast.unparse(each) for each in decorators
        ):
            return (name,)
        case ast.ClassDef(name=name, body=body) if not any(
            isinstance(each, ast.FunctionDef) for each in body
        ):
            return (name,)
    return ()


@dataclass
class Tests:
    """Tests by file and line that they cover, and their durations."""

    lines: dict[str, dict[int, set[str]]]
    seconds: dict[str, float]
    names: Names
    sources: dict[str, str]

    def of(self, mutant: Mutant) -> list[str]:
        """Return the tests for a mutant. A line that runs at import or once counts as covered also by
        the tests of files that import its module, or else by those of its file, or by all.
        """
        lines = self.lines.get(mutant.file, {})
        found = set(lines.get(mutant.line) or ())
        for file, line in self.names.places(mutant.file, mutant.line):
            found |= self.lines.get(file, {}).get(line) or set()
        package, _, module = mutant.file.removesuffix(".py").replace("/", ".").rpartition(".")
        near = re.compile(
            rf"\b{re.escape(package)}\.{module}\b|\b{re.escape(package)} import .*\b{module}\b"
        )
        files = {name for name, text in self.sources.items() if near.search(text)}
        if not lines.get(mutant.line) or self.names.once.get((mutant.file, mutant.line)):
            found |= {test for test in self.seconds if test.partition("::")[0] in files}
        if not found and mutant.line in lines:
            found = set().union(*lines.values()) or set(self.seconds)

        def rank(test: str) -> tuple[object, ...]:
            file = test.partition("::")[0]
            is_near = package in self.sources.get(file, "")
            return file not in files, not is_near, self.seconds.get(test, 0.0), test

        return sorted(found, key=rank)


def collect(tree: Path, cache: Path, tests: Sequence[str], patterns: str, jobs: int) -> None:
    """Run the tests once, with one coverage context per test."""
    settings = cache / "settings.ini"  # not coverage.*, which would be erased as its data
    settings.write_text(
        f"[run]\ninclude = {patterns}\nparallel = true\nconcurrency = thread,multiprocessing\ndata_file"
        f" = {cache / 'coverage'}\n"
    )
    measured = (
        "--cov",
        f"--cov-config={settings}",
        "--cov-report=",
        "--cov-context=test",
        "--durations=0",
        "--durations-min=0.0005",
    )
    command = [
        "nice",
        sys.executable,
        "-m",
        "pytest",
        "-n",
        str(jobs),
        "--dist",
        "worksteal",
        "-rfE",
        *measured,
        *tests,
    ]
    done = subprocess.run(
        command, check=False, cwd=tree, env=environment(tree), capture_output=True, text=True
    )
    if done.returncode not in (0, 1):
        sys.exit(
            f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    (cache / "log").write_text(done.stdout)


def known(tree: Path, cache: Path) -> Tests:
    """Read the coverage and durations of `collect`, without tests that fail on the original."""
    said, data = (cache / "log").read_text(), CoverageData(str(cache / "coverage"))
    seconds: dict[str, float] = defaultdict(float)
    for took, _, test in re.findall(
        r"^\s*([\d.]+)s (call|setup|teardown) +(\S.*)$", said, re.MULTILINE
    ):
        seconds[test] += float(took)
    failing = set(re.findall(r"(?:FAILED|ERROR) (\S+::\S+)", said))
    for test in failing & seconds.keys():
        del seconds[test]
    data.read()
    modules: dict[str, set[str]] = defaultdict(set)
    lines: dict[str, dict[int, set[str]]] = {}
    for file in data.measured_files():
        by_line: dict[int, set[str]] = defaultdict(set)
        for line, contexts in data.contexts_by_lineno(file).items():
            for context in contexts:
                test, _, phase = context.rpartition("|")
                by_line[line] |= (
                    {test, f"{test.partition('::')[0]}::*"}
                    if phase == "setup"
                    else {test}
                    if test
                    else set()
                )
                if test:
                    modules[f"{test.partition('::')[0]}::*"].add(test)
        lines[file[file.rindex("/agent/") + 1 :]] = by_line
    for by_line in lines.values():
        for (
            line,
            found,
        ) in by_line.items():  # a module's fixture runs for all of its tests
            shared = {each for each in found if each.endswith("::*")}
            by_line[line] = (found - shared).union(*(modules[each] for each in shared)) - failing
    sources = {
        str(path.relative_to(tree)): path.read_text() for path in (tree / "tests").rglob("*.py")
    }
    return Tests(lines, seconds, Names(tree), sources)


AGAIN = 3
"""Factor of the limits of a second try, since a limit may only mean that the machine is busy."""


def judged_twice(
    runner: Runner, mutant: Mutant, tests: Tests, limit: float
) -> tuple[str, str | None, float]:
    """Return the result of a mutant, tried again with longer limits if one of them was reached."""
    what, by, took = judged(runner, mutant, tests, limit)
    if what in ("unfinished", "timeout"):
        what, by, more = judged(runner, mutant, tests, limit, AGAIN)
        took = round(took + more, 1)
    return what, by, took


def judged(
    runner: Runner, mutant: Mutant, tests: Tests, limit: float, patience: int = 1
) -> tuple[str, str | None, float]:
    """Return the result of a mutant, the test that noticed it, and the seconds taken. `patience`
    multiplies the limits.
    """
    limit *= patience
    found, file, begin = tests.of(mutant), runner.tree / mutant.file, monotonic()
    if not found:
        return "uncovered", None, 0.0
    right = file.read_text()
    hang = patience * max(20.0, 5 * max(tests.seconds.get(test, 0.0) for test in found))
    code, said = 0, ""
    try:
        file.write_text(mutant.source)
        for first, end in zip(BATCHES, [*BATCHES[1:], None], strict=True):
            if code == 0 and found[first:end]:
                left = max(1.0, limit - (monotonic() - begin))
                code, said = runner.run_tests(found[first:end], left, hang)
                if "ERROR: not found" in said:  # the mistake renames parameters, so run all of them
                    left = max(1.0, limit - (monotonic() - begin))
                    code, said = runner.run_tests(
                        sorted({test.partition("[")[0] for test in found[first:end]}), left, hang
                    )
    finally:
        file.write_text(right)
    if "ERROR: not found" in said:
        raise SystemExit("tests have other names than those in --cache: remove it")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
    what = {0: "survived", None: "unfinished"}.get(
        code, "timeout" if "Timeout (>" in said else "killed"
    )
    return what, failed[1] if failed else None, round(monotonic() - begin, 1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--files",
        required=True,
        help="comma-separated patterns of the files to break: MUTATED of the Makefile",
    )
    parser.add_argument("--tests", nargs="+", default=["tests/unit"])
    parser.add_argument("--root", type=Path, default=ROOT, help="tree to copy; it is not changed")
    parser.add_argument("--mutants", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="time limit for the tests of one mutant"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=ROOT / "build" / "mutants",
        help="folder with the coverage of one run; created if missing",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants.json")
    asked = parser.parse_args()
    cache, patterns = asked.cache.resolve(), asked.files.split(",")
    cache.mkdir(parents=True, exist_ok=True)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mutants") as folder:
        trees = [copied(asked.root, Path(folder) / str(i)) for i in range(asked.jobs)]
        if not (cache / "log").exists():
            collect(trees[0], cache, asked.tests, asked.files, asked.jobs)
        tests, root = known(trees[0], cache), asked.root
        files = sorted(str(path.relative_to(root)) for path in (root / "agent").rglob("*.py"))
        every = [
            each
            for file in files
            if any(fnmatch.fnmatch(file, p) for p in patterns)
            for each in places_in(root, file)
        ]
        drawn = [
            made(root, *each)
            for each in random.Random(asked.seed).sample(every, min(asked.mutants, len(every)))
        ]
        runners, free = [Runner(tree) for tree in trees], SimpleQueue[Runner]()
        for runner in runners:
            free.put(runner)

        def one(mutant: Mutant) -> dict[str, object]:
            runner = free.get()
            try:
                what, by, took = judged_twice(runner, mutant, tests, asked.seconds)
            finally:
                free.put(runner)
            print(
                f"{what:10} {mutant.file}:{mutant.line} {mutant.change} {by or ''} {took}",
                file=sys.stderr,
                flush=True,
            )
            said = {name: value for name, value in asdict(mutant).items() if name != "source"}
            return said | {"result": what, "by": by, "seconds": took}

        with ThreadPoolExecutor(asked.jobs) as pool:
            results = list(pool.map(one, drawn))
        for runner in runners:
            runner.close()
    counted = Counter(str(each["result"]) for each in results)
    by_file: dict[str, Counter[str]] = defaultdict(Counter)
    by_package: dict[str, Counter[str]] = defaultdict(Counter)
    for each in results:
        for group, name in (
            (by_file, str(each["file"])),
            (by_package, str(Path(str(each["file"])).parts[1])),
        ):
            group[name][str(each["result"])] += 1
    noticed = counted["killed"] + counted["timeout"]
    report = {
        "seed": asked.seed,
        "places": len(every),
        "mutants": len(results),
        "noticed": noticed,
        **counted,
    }
    report |= {
        "score": round(noticed / max(1, len(results) - counted["unfinished"]), 4),
        "packages": {name: dict(c) for name, c in sorted(by_package.items())},
        "files": {name: dict(c) for name, c in sorted(by_file.items())},
    }
    print(json.dumps(report, indent=1))
    asked.out.write_text(json.dumps(report | {"each": results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
