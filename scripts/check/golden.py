"""Golden masters: the output of every command, and the decisions of recorded steps. A refactoring
leaves all of them unchanged.

    .venv/bin/python scripts/check/golden.py            compares with tests/golden and lists the differences; exit code 1 if there are any
    .venv/bin/python scripts/check/golden.py --write    rewrites tests/golden

tests/golden/help has `--help` of every command, and `help all`. tests/golden/json has the documents of the commands
in scene.txt, run in this order on a local chain, with ANY for values that differ between runs (times,
block hashes). tests/golden/steps.tar.xz has recorded steps for `trimtab replay`, tests/golden/plans.txt
the plans of 500 seeded problems. The store's tables are in agent/store/tables.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import click
import typer.main

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent import codec
from agent.cli.main import app
from agent.errors import Refused
from agent.localchain.nodes import free_port
from agent.planning.planner import plan
from tests.support.bands import with_bands
from tests.support.planning_worlds import any_problem, any_problem_with_gas, rebalance_to_targets

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
TRIMTAB = [sys.executable, "-c", "from agent.cli.main import main; main()"]
ENVIRONMENT = {
    "COLUMNS": "100",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "PYTHONPATH": str(ROOT),
    "PYTHONHASHSEED": "0",
}
ANY = "ANY"
PROBLEM_COUNT = 500
MIN_BASE_FEE_WEI = 7
"""Lowest base fee: an eighth of it is below one wei, so EIP-1559 lowers it no further."""
START_DELAYS_S = (0, 3, 7)
"""Delays of the runs of the scene, in seconds. Block numbers, and digits that depend on a block's
time, then differ between runs."""
WITHOUT_CONFIG = {"whatif", "templates", "backtest", "tune", "stress", "init", "nonsense"}


def iterate_commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command and group."""
    yield path
    if isinstance(command, click.Group):
        for name, subcommand in command.commands.items():
            yield from iterate_commands(subcommand, (*path, name))


def run_trimtab(words: tuple[str, ...], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a process in a folder."""
    return subprocess.run(
        [*TRIMTAB, *words],
        check=False,
        cwd=folder,
        env=os.environ | ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def help_texts() -> dict[str, str]:
    """Return the texts of --help by file name."""
    command_words = [*iterate_commands(typer.main.get_command(app)), ("help", "all")]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        outputs = threads.map(
            lambda words: run_trimtab((*words, "--help"), ROOT).stdout, command_words
        )
    return {
        f"{'-'.join(words) or 'trimtab'}.txt": re.sub(r" +$", "", text, flags=re.M)
        for words, text in zip(command_words, outputs, strict=True)
    }


@contextmanager
def running_localchain(folder: Path) -> Iterator[None]:
    """Run `trimtab localchain`, with its config trimtab.toml in the folder, with bands."""
    port = free_port()
    arguments = [
        "localchain",
        "--port",
        str(port),
        "--write-config",
        "trimtab.toml",
        "--json",
    ]
    process = subprocess.Popen(
        [*TRIMTAB, *arguments],
        cwd=folder,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        while process.stdout is not None and process.stdout.readline() not in ("}\n", ""):
            pass
        settle_base_fee(port)
        config_path = folder / "trimtab.toml"
        config_path.write_text(with_bands(config_path.read_text()))
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def settle_base_fee(port: int) -> None:
    """Set the base fee to the value that empty blocks lead to. It falls by an eighth per block, so
    that otherwise the last digit of a cost depends on the number of blocks mined before.
    """
    steps = (("anvil_setNextBlockBaseFeePerGas", [hex(MIN_BASE_FEE_WEI)]), ("evm_mine", []))
    calls = [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        for number, (method, params) in enumerate(steps)
    ]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}",
        json.dumps(calls).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        results = json.load(response)
    if any("error" in result for result in results):
        raise RuntimeError(f"the base fee was not set: {results}")


def run_scene(wait_s: int = 0) -> dict[str, Any]:
    """Return exit code and document of every command of the scene, by file name."""
    documents = {}
    step = ""
    with tempfile.TemporaryDirectory() as folder, running_localchain(Path(folder)):
        time.sleep(wait_s)
        for number, line in enumerate((GOLDEN / "scene.txt").read_text().splitlines()):
            words = tuple(shlex.split(line.replace("STEP", step)))
            process = run_trimtab(
                (
                    *words,
                    *(() if words[0] in WITHOUT_CONFIG else ("--config", "trimtab.toml")),
                    "--json",
                ),
                Path(folder),
            )
            output = process.stdout.replace(folder, "FOLDER")
            document = json.loads(output) if output.startswith("{") else output
            step = document.get("step") or step if isinstance(document, dict) else step
            documents[f"{number:02}-{words[0]}.json"] = {
                "command": line,
                "exit": process.returncode,
                "document": document,
            }
    return documents


def common_values(first: Any, second: Any) -> Any:
    """Return the common values of two runs, and ANY where they differ."""
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return {key: common_values(value, second[key]) for key, value in first.items()}
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [
            common_values(value, second_value)
            for value, second_value in zip(first, second, strict=True)
        ]
    return first if first == second and type(first) is type(second) else ANY


def differences(golden: Any, current: Any, path: str = "") -> Iterator[str]:
    """Yield each difference from the golden master, with its path."""
    if golden == ANY:
        return
    if isinstance(golden, dict) and isinstance(current, dict):
        for key in golden.keys() | current.keys():
            if key not in golden or key not in current:
                yield f"{path}.{key} is {'new' if key in current else 'gone'}"
            else:
                yield from differences(golden[key], current[key], f"{path}.{key}")
    elif isinstance(golden, list) and isinstance(current, list) and len(golden) == len(current):
        for index, (golden_item, current_item) in enumerate(zip(golden, current, strict=True)):
            yield from differences(golden_item, current_item, f"{path}[{index}]")
    elif golden != current:
        yield f"{path}: {json.dumps(golden)[:200]} is now {json.dumps(current)[:200]}"


def short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe_plan(seed: int) -> str:
    """Return one line: the problem's number, a digest of the problem, a digest of its plan. Problems
    are drawn with floats, which may differ between machines.
    """
    step = (any_problem, any_problem_with_gas)[seed % 2](seed)
    try:
        plan_text = codec.dumps(plan(step, rebalance_to_targets(step)))
    except Refused as refusal:
        plan_text = f"{refusal}"
    problem_text = codec.dumps(step.snapshot) + codec.dumps(step.portfolio)
    return f"{seed} {short_digest(problem_text)} {short_digest(plan_text)}"


def describe_plans() -> list[str]:
    with ProcessPoolExecutor() as processes:
        return list(processes.map(describe_plan, range(PROBLEM_COUNT), chunksize=10))


def unequal_plans(golden: list[str], current: list[str]) -> Iterator[str]:
    """Yield the plans that differ although their problem is the same."""
    same_problems = 0
    for golden_line, current_line in zip(golden, current, strict=True):
        seed, problem_digest, plan_digest = golden_line.split()
        if current_line.split()[1] == problem_digest:
            same_problems += 1
            if current_line.split()[2] != plan_digest:
                yield f"plan {seed}"
    if same_problems < PROBLEM_COUNT // 2:
        yield (
            f"only {same_problems} of {PROBLEM_COUNT} problems are drawn as they were: compare on the machine"
            " that wrote them"
        )


def changed_steps() -> Iterator[str]:
    """Yield the recorded steps that are now decided differently; a reason may be worded anew."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(GOLDEN / "steps.tar.xz") as archive:
            for member in archive.getmembers():
                if (file := archive.extractfile(member)) is not None:
                    (Path(folder) / Path(member.name).name).write_bytes(file.read())
        document = json.loads(run_trimtab(("replay", folder, "--json"), Path(folder)).stdout)
        yield from (
            f"step {step['file']}: {step}"
            for step in document["steps"]
            if step["result"] not in ("same", "reworded")
        )
        if document["same"] + document["reworded"] < 200:
            yield f"only {document['same'] + document['reworded']} steps were decided again"


def write_masters() -> None:
    """Rewrite help, scene and plans. Recorded steps stay, since old records must keep their decisions.

    The files are replaced at the end: a run that is stopped changes none.
    """
    with tempfile.TemporaryDirectory() as temporary_folder:
        written = Path(temporary_folder)
        for name in ("help", "json"):
            (written / name).mkdir()
        for name, text in help_texts().items():
            (written / "help" / name).write_text(text)
        runs = [run_scene(wait_s) for wait_s in START_DELAYS_S]
        for name in runs[0]:
            common_document = reduce(common_values, (run[name] for run in runs))
            (written / "json" / name).write_text(
                json.dumps(common_document, indent=1, sort_keys=True) + "\n"
            )
        plans_text = "\n".join(describe_plans()) + "\n"
        for name in ("help", "json"):
            shutil.rmtree(GOLDEN / name, ignore_errors=True)
            shutil.copytree(written / name, GOLDEN / name)
    (GOLDEN / "plans.txt").write_text(plans_text)


def compare_with_masters() -> list[str]:
    """Return all differences."""
    all_differences: list[str] = []
    for folder, current in (("help", help_texts()), ("json", run_scene())):
        golden = {path.name: path.read_text() for path in (GOLDEN / folder).iterdir()}
        all_differences += [
            f"{folder}/{name} is {'new' if name in current else 'gone'}"
            for name in sorted(golden.keys() ^ current.keys())
        ]
        for name in sorted(golden.keys() & current.keys()):
            golden_value = (
                json.loads(golden[name]) if folder == "json" else golden[name].splitlines()
            )
            current_value = current[name] if folder == "json" else current[name].splitlines()
            all_differences += [
                f"{folder}/{name}{where}" for where in differences(golden_value, current_value)
            ]
    all_differences += unequal_plans(
        (GOLDEN / "plans.txt").read_text().splitlines(), describe_plans()
    )
    return [*all_differences, *changed_steps()]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write tests/golden anew")
    if parser.parse_args().write:
        write_masters()
        return 0
    all_differences = compare_with_masters()
    print("\n".join(all_differences) or "equal to the golden masters")
    return int(bool(all_differences))


if __name__ == "__main__":
    sys.exit(main())
