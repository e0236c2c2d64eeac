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

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.check.mistakes import Mutant, make_mutant, possible_mistakes
from scripts.check.pure import expand_patterns

ROOT = Path(__file__).resolve().parents[2]
IGNORED_PATTERNS = (
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


PRELOADED_MODULES = (
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
BATCH_STARTS = (0, 30, 300)
"""Index of the first test of each batch. The first batch notices most mutants, and collecting all
tests takes longer than running a few."""
FORKING_PROCESS = f"""
import contextlib, gc, importlib, json, os, sys
import pytest
for name in {PRELOADED_MODULES}:
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
            ["nice", sys.executable, "-c", FORKING_PROCESS],
            cwd=tree,
            env=environment(tree),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, arguments: Sequence[str], limit_s: float) -> tuple[int | None, str]:
        """Return exit code (None if the time limit was reached) and output."""
        with tempfile.NamedTemporaryFile("w+") as output_file:
            self._parent.stdin.write(json.dumps([output_file.name, *arguments]) + "\n")
            self._parent.stdin.flush()
            pid = int(self._parent.stdout.readline())
            timed_out = Event()

            def end() -> None:
                timed_out.set()
                os.killpg(pid, signal.SIGKILL)

            timer = Timer(limit_s, end)
            timer.start()
            code = int(self._parent.stdout.readline())
            timer.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # processes left by a test
            return None if timed_out.is_set() else code, Path(output_file.name).read_text()

    def run_tests(
        self, tests: Sequence[str], limit_s: float, hang_s: float
    ) -> tuple[int | None, str]:
        """Run the named tests, grouped by file, until one fails."""
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as names:
            names.write("\n".join(sorted(tests, key=lambda test: test.partition("::")[0])))
            names.flush()
            return self.run(["-x", "-rfE", f"--timeout={hang_s}", f"@{names.name}"], limit_s)

    def close(self) -> None:
        """End the process."""
        self._parent.communicate()


def copy_tree(root: Path, target: Path) -> Path:
    """Copy the tree for mutants. Its bytecode is validated by the hash of the source, since a mutant
    may have the size and time of the original.
    """
    shutil.copytree(root, target, ignore=shutil.ignore_patterns(*IGNORED_PATTERNS))
    if (root / "contracts" / "node_modules").exists():
        (target / "contracts" / "node_modules").symlink_to(
            (root / "contracts" / "node_modules").resolve()
        )
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "agent"],
        cwd=target,
        check=True,
    )
    return target


SourceLine = tuple[str, int]


class RunOnceNames:
    """Top-level names of a tree whose code runs at import or once in a process, and the lines that name
    them.
    """

    def __init__(self, root: Path) -> None:
        self.lines_by_name: dict[str, set[SourceLine]] = defaultdict(set)
        self.names_by_line: dict[SourceLine, tuple[str, ...]] = {}
        """Names defined by each line of such code."""
        for path in sorted((root / "agent").rglob("*.py")):
            self._add(str(path.relative_to(root)), ast.parse(path.read_text()))

    def _add(self, file: str, tree: ast.Module) -> None:
        for statement in tree.body:
            names = _names_defined_once(statement)
            for line in range(statement.lineno, (statement.end_lineno or statement.lineno) + 1):
                self.names_by_line[file, line] = names
        for node in ast.walk(tree):
            # A long statement is covered by its first line, too.
            nodes = (
                ast.walk(node)
                if isinstance(node, ast.stmt) and not hasattr(node, "body")
                else [node]
            )
            for child in nodes:
                if isinstance(child, ast.Name | ast.Attribute):
                    name = child.id if isinstance(child, ast.Name) else child.attr
                    self.lines_by_name[name] |= {(file, child.lineno), (file, node.lineno)}

    def using_lines(self, file: str, line: int) -> set[SourceLine]:
        """Return the lines that use a name defined on this line and, step by step, those that use a
        name defined there.
        """
        reached_lines = set[SourceLine]()
        waiting_lines = [(file, line)]
        while waiting_lines:
            reached_line = waiting_lines.pop()
            for name in self.names_by_line.get(reached_line, ()):
                for using_line in self.lines_by_name[name] - reached_lines:
                    if using_line[0] == reached_line[0] or not name.startswith("_"):
                        reached_lines.add(using_line)
                        waiting_lines.append(using_line)
        return reached_lines


def _names_defined_once(statement: ast.stmt) -> tuple[str, ...]:
    """Return the names that a top-level statement defines if its code runs at import, or once."""
    match statement:
        case ast.Assign(targets=targets):
            return tuple(node.id for node in targets if isinstance(node, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            return (name,)
        case ast.FunctionDef(name=name, decorator_list=decorators) if any(
            "cache" in ast.unparse(child_node) for child_node in decorators
        ):
            return (name,)
        case ast.ClassDef(name=name, body=body) if not any(
            isinstance(child_node, ast.FunctionDef) for child_node in body
        ):
            return (name,)
    return ()


@dataclass
class CoveringTests:
    """Tests by file and line that they cover, their durations, and the texts of the test files."""

    tests_by_line: dict[str, dict[int, set[str]]]
    seconds_by_test: dict[str, float]
    run_once_names: RunOnceNames
    test_sources: dict[str, str]

    def of(self, mutant: Mutant) -> list[str]:
        """Return the tests for a mutant. For a line that runs at import or once, add the tests of the
        test files that import its module. If no test is found, take all tests that cover its file,
        or else all tests.
        """
        tests_by_line = self.tests_by_line.get(mutant.file, {})
        tests = set(tests_by_line.get(mutant.line) or ())
        for file, line in self.run_once_names.using_lines(mutant.file, mutant.line):
            tests |= self.tests_by_line.get(file, {}).get(line) or set()
        package, _, module = mutant.file.removesuffix(".py").replace("/", ".").rpartition(".")
        import_pattern = re.compile(
            rf"\b{re.escape(package)}\.{module}\b|\b{re.escape(package)} import .*\b{module}\b"
        )
        importing_files = {
            name for name, text in self.test_sources.items() if import_pattern.search(text)
        }
        if not tests_by_line.get(mutant.line) or self.run_once_names.names_by_line.get(
            (mutant.file, mutant.line)
        ):
            tests |= {
                test for test in self.seconds_by_test if test.partition("::")[0] in importing_files
            }
        if not tests and mutant.line in tests_by_line:
            tests = set().union(*tests_by_line.values()) or set(self.seconds_by_test)

        def rank(test: str) -> tuple[object, ...]:
            file = test.partition("::")[0]
            is_near = package in self.test_sources.get(file, "")
            return (
                file not in importing_files,
                not is_near,
                self.seconds_by_test.get(test, 0.0),
                test,
            )

        return sorted(tests, key=rank)


def collect_coverage(
    tree: Path, cache: Path, tests: Sequence[str], patterns: str, jobs: int
) -> None:
    """Run the tests once, with one coverage context per test."""
    settings = cache / "settings.ini"  # not coverage.*, which would be erased as its data
    settings.write_text(
        f"[run]\ninclude = {patterns}\nparallel = true\nconcurrency = thread,multiprocessing\ndata_file"
        f" = {cache / 'coverage'}\n"
    )
    coverage_options = (
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
        *coverage_options,
        *tests,
    ]
    process = subprocess.run(
        command, check=False, cwd=tree, env=environment(tree), capture_output=True, text=True
    )
    if process.returncode not in (0, 1):
        sys.exit(
            f"pytest ended with {process.returncode}:\n{process.stdout[-2000:]}{process.stderr[-2000:]}"
        )
    (cache / "log").write_text(process.stdout)


def load_tests(tree: Path, cache: Path) -> CoveringTests:
    """Read the coverage and durations of `collect_coverage`, without tests that fail on the original."""
    log = (cache / "log").read_text()
    coverage_data = CoverageData(str(cache / "coverage"))
    seconds_by_test: dict[str, float] = defaultdict(float)
    for seconds_text, _, test in re.findall(
        r"^\s*([\d.]+)s (call|setup|teardown) +(\S.*)$", log, re.MULTILINE
    ):
        seconds_by_test[test] += float(seconds_text)
    failing_tests = set(re.findall(r"(?:FAILED|ERROR) (\S+::\S+)", log))
    for test in failing_tests & seconds_by_test.keys():
        del seconds_by_test[test]
    coverage_data.read()
    tests_by_module: dict[str, set[str]] = defaultdict(set)
    tests_by_file_and_line: dict[str, dict[int, set[str]]] = {}
    for file in coverage_data.measured_files():
        by_line: dict[int, set[str]] = defaultdict(set)
        for line, contexts in coverage_data.contexts_by_lineno(file).items():
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
                    tests_by_module[f"{test.partition('::')[0]}::*"].add(test)
        tests_by_file_and_line[file[file.rindex("/agent/") + 1 :]] = by_line
    for by_line in tests_by_file_and_line.values():
        for (
            line,
            covering_tests,
        ) in by_line.items():  # a module's fixture runs for all of its tests
            shared_fixtures = {test for test in covering_tests if test.endswith("::*")}
            by_line[line] = (covering_tests - shared_fixtures).union(
                *(tests_by_module[test] for test in shared_fixtures)
            ) - failing_tests
    test_sources = {
        str(path.relative_to(tree)): path.read_text() for path in (tree / "tests").rglob("*.py")
    }
    return CoveringTests(tests_by_file_and_line, seconds_by_test, RunOnceNames(tree), test_sources)


RETRY_FACTOR = 3
"""Factor of the limits of a second try, since a limit may only mean that the machine is busy."""


def judge_twice(
    runner: Runner, mutant: Mutant, tests: CoveringTests, limit_s: float
) -> tuple[str, str | None, float]:
    """Return the result of a mutant, tried again with longer limits if one of them was reached."""
    result, noticed_by, took_s = judge_mutant(runner, mutant, tests, limit_s)
    if result in ("unfinished", "timeout"):
        result, noticed_by, retry_s = judge_mutant(runner, mutant, tests, limit_s, RETRY_FACTOR)
        took_s = round(took_s + retry_s, 1)
    return result, noticed_by, took_s


def judge_mutant(
    runner: Runner, mutant: Mutant, tests: CoveringTests, limit_s: float, patience: int = 1
) -> tuple[str, str | None, float]:
    """Return the result of a mutant, the test that noticed it, and the seconds taken. `patience`
    multiplies the limits.
    """
    limit_s *= patience
    ordered_tests = tests.of(mutant)
    file = runner.tree / mutant.file
    began_s = monotonic()
    if not ordered_tests:
        return "uncovered", None, 0.0
    original = file.read_text()
    hang_s = patience * max(
        20.0, 5 * max(tests.seconds_by_test.get(test, 0.0) for test in ordered_tests)
    )
    code = 0
    output = ""
    try:
        file.write_text(mutant.source)
        for first, end in zip(BATCH_STARTS, [*BATCH_STARTS[1:], None], strict=True):
            if code == 0 and ordered_tests[first:end]:
                remaining_s = max(1.0, limit_s - (monotonic() - began_s))
                code, output = runner.run_tests(ordered_tests[first:end], remaining_s, hang_s)
                if (
                    "ERROR: not found" in output
                ):  # the mistake renames parameters, so run all of them
                    remaining_s = max(1.0, limit_s - (monotonic() - began_s))
                    code, output = runner.run_tests(
                        sorted({test.partition("[")[0] for test in ordered_tests[first:end]}),
                        remaining_s,
                        hang_s,
                    )
    finally:
        file.write_text(original)
    if "ERROR: not found" in output:
        raise SystemExit("tests have other names than those in --cache: remove it")
    failed_test = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    result = {0: "survived", None: "unfinished"}.get(
        code, "timeout" if "Timeout (>" in output else "killed"
    )
    return result, failed_test[1] if failed_test else None, round(monotonic() - began_s, 1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--files",
        required=True,
        help="comma-separated patterns of the files to break, or `pure`: MUTATED of the Makefile",
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
    options = parser.parse_args()
    cache = options.cache.resolve()
    patterns = expand_patterns(options.files)
    cache.mkdir(parents=True, exist_ok=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mutants") as folder:
        trees = [copy_tree(options.root, Path(folder) / str(i)) for i in range(options.jobs)]
        if not (cache / "log").exists():
            collect_coverage(trees[0], cache, options.tests, ",".join(patterns), options.jobs)
        tests = load_tests(trees[0], cache)
        root = options.root
        files = sorted(str(path.relative_to(root)) for path in (root / "agent").rglob("*.py"))
        mistakes = [
            mistake
            for file in files
            if any(fnmatch.fnmatch(file, pattern) for pattern in patterns)
            for mistake in possible_mistakes(root, file)
        ]
        mutants = [
            make_mutant(root, *mistake)
            for mistake in random.Random(options.seed).sample(
                mistakes, min(options.mutants, len(mistakes))
            )
        ]
        runners = [Runner(tree) for tree in trees]
        free_runners = SimpleQueue[Runner]()
        for runner in runners:
            free_runners.put(runner)

        def run_mutant(mutant: Mutant) -> dict[str, object]:
            runner = free_runners.get()
            try:
                result, noticed_by, took_s = judge_twice(runner, mutant, tests, options.seconds)
            finally:
                free_runners.put(runner)
            print(
                f"{result:10} {mutant.file}:{mutant.line} {mutant.change} {noticed_by or ''} {took_s}",
                file=sys.stderr,
                flush=True,
            )
            fields = {name: value for name, value in asdict(mutant).items() if name != "source"}
            return fields | {"result": result, "by": noticed_by, "seconds": took_s}

        with ThreadPoolExecutor(options.jobs) as executor:
            mutant_rows = list(executor.map(run_mutant, mutants))
        for runner in runners:
            runner.close()
    result_counts = Counter(str(mutant_row["result"]) for mutant_row in mutant_rows)
    by_file: dict[str, Counter[str]] = defaultdict(Counter)
    by_package: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant_row in mutant_rows:
        for counters, name in (
            (by_file, str(mutant_row["file"])),
            (by_package, str(Path(str(mutant_row["file"])).parts[1])),
        ):
            counters[name][str(mutant_row["result"])] += 1
    noticed = result_counts["killed"] + result_counts["timeout"]
    report = {
        "seed": options.seed,
        "places": len(mistakes),
        "mutants": len(mutant_rows),
        "noticed": noticed,
        **result_counts,
    }
    report |= {
        "score": round(noticed / max(1, len(mutant_rows) - result_counts["unfinished"]), 4),
        "packages": {
            name: dict(result_counter) for name, result_counter in sorted(by_package.items())
        },
        "files": {name: dict(result_counter) for name, result_counter in sorted(by_file.items())},
    }
    print(json.dumps(report, indent=1))
    options.out.write_text(json.dumps(report | {"each": mutant_rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
