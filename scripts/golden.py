"""Golden masters: the output of every command, and the decisions of recorded steps. A refactoring
leaves all of them unchanged.

    .venv/bin/python scripts/golden.py            compares with tests/golden and lists the differences; exit code 1 if there are any
    .venv/bin/python scripts/golden.py --write    rewrites tests/golden

tests/golden/help has `--help` of every command. tests/golden/json has the documents of the commands
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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent import codec
from agent.cli.main import app
from agent.errors import Refused
from agent.localchain.nodes import free_port
from agent.planning.planner import plan
from tests.support.planning_worlds import any_problem, any_problem_with_gas, goal

ROOT = Path(__file__).resolve().parent.parent
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
PROBLEMS = 500
LEAST_BASE_FEE_WEI = 7
"""Lowest base fee: an eighth of it is below one wei, so EIP-1559 lowers it no further."""
WAITS_S = (0, 3, 7)
"""Delays of the runs of the scene, in seconds. Block numbers, and digits that depend on a block's
time, then differ between runs."""
WITHOUT_CONFIG = {"whatif", "templates", "backtest", "tune", "stress", "init", "nonsense"}


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command and group."""
    yield path
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, (*path, name))


def asked(words: tuple[str, ...], folder: Path) -> subprocess.CompletedProcess[str]:
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


def helps() -> dict[str, str]:
    """Return the texts of --help by file name."""
    every = list(commands(typer.main.get_command(app)))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(lambda words: asked((*words, "--help"), ROOT).stdout, every)
    return {
        f"{'-'.join(words) or 'trimtab'}.txt": re.sub(r" +$", "", text, flags=re.M)
        for words, text in zip(every, found, strict=True)
    }


@contextmanager
def chain(folder: Path) -> Iterator[None]:
    """Run `trimtab localchain`, with its config trimtab.toml in the folder."""
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
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def settle_base_fee(port: int) -> None:
    """Set the base fee to the value that empty blocks lead to. It falls by an eighth per block, so
    that otherwise the last digit of a cost depends on the number of blocks mined before.
    """
    steps = (("anvil_setNextBlockBaseFeePerGas", [hex(LEAST_BASE_FEE_WEI)]), ("evm_mine", []))
    calls = [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        for number, (method, params) in enumerate(steps)
    ]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}",
        json.dumps(calls).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        answers = json.load(answer)
    if any("error" in one for one in answers):
        raise RuntimeError(f"the base fee was not set: {answers}")


def scene(wait_s: int = 0) -> dict[str, Any]:
    """Return exit code and document of every command of the scene, by file name."""
    found, step = {}, ""
    with tempfile.TemporaryDirectory() as name, chain(Path(name)):
        time.sleep(wait_s)
        for number, line in enumerate((GOLDEN / "scene.txt").read_text().splitlines()):
            words = tuple(shlex.split(line.replace("STEP", step)))
            said = asked(
                (
                    *words,
                    *(() if words[0] in WITHOUT_CONFIG else ("--config", "trimtab.toml")),
                    "--json",
                ),
                Path(name),
            )
            text = said.stdout.replace(name, "FOLDER")
            document = json.loads(text) if text.startswith("{") else text
            step = document.get("step") or step if isinstance(document, dict) else step
            found[f"{number:02}-{words[0]}.json"] = {
                "command": line,
                "exit": said.returncode,
                "document": document,
            }
    return found


def masked(one: Any, other: Any) -> Any:
    """Return the common values of two runs, and ANY where they differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return {key: masked(value, other[key]) for key, value in one.items()}
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [masked(value, its) for value, its in zip(one, other, strict=True)]
    return one if one == other and type(one) is type(other) else ANY


def differences(golden: Any, found: Any, at: str = "") -> Iterator[str]:
    """Yield each difference from the golden master, with its path."""
    if golden == ANY:
        return
    if isinstance(golden, dict) and isinstance(found, dict):
        for key in golden.keys() | found.keys():
            if key not in golden or key not in found:
                yield f"{at}.{key} is {'new' if key in found else 'gone'}"
            else:
                yield from differences(golden[key], found[key], f"{at}.{key}")
    elif isinstance(golden, list) and isinstance(found, list) and len(golden) == len(found):
        for number, (one, other) in enumerate(zip(golden, found, strict=True)):
            yield from differences(one, other, f"{at}[{number}]")
    elif golden != found:
        yield f"{at}: {json.dumps(golden)[:200]} is now {json.dumps(found)[:200]}"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def planned(seed: int) -> str:
    """Return one line: the problem's number, a digest of the problem, a digest of its plan. Problems
    are drawn with floats, which may differ between machines.
    """
    step = (any_problem, any_problem_with_gas)[seed % 2](seed)
    try:
        found = codec.dumps(plan(step, goal(step)))
    except Refused as why:
        found = f"{why}"
    drawn = codec.dumps(step.snapshot) + codec.dumps(step.portfolio)
    return f"{seed} {digest(drawn)} {digest(found)}"


def plans() -> list[str]:
    with ProcessPoolExecutor() as processes:
        return list(processes.map(planned, range(PROBLEMS), chunksize=10))


def unequal_plans(golden: list[str], found: list[str]) -> Iterator[str]:
    """Yield the plans that differ although their problem is the same."""
    same = 0
    for was, now in zip(golden, found, strict=True):
        number, problem, answer = was.split()
        if now.split()[1] == problem:
            same += 1
            if now.split()[2] != answer:
                yield f"plan {number}"
    if same < PROBLEMS // 2:
        yield (
            f"only {same} of {PROBLEMS} problems are drawn as they were: compare on the machine"
            " that wrote them"
        )


def replayed() -> Iterator[str]:
    """Yield the recorded steps that are now decided differently; a reason may be worded anew."""
    with tempfile.TemporaryDirectory() as name:
        with tarfile.open(GOLDEN / "steps.tar.xz") as archive:
            for member in archive.getmembers():
                if (file := archive.extractfile(member)) is not None:
                    (Path(name) / Path(member.name).name).write_bytes(file.read())
        found = json.loads(asked(("replay", name, "--json"), Path(name)).stdout)
        yield from (
            f"step {one['file']}: {one}"
            for one in found["steps"]
            if one["result"] not in ("same", "reworded")
        )
        if found["same"] + found["reworded"] < 200:
            yield f"only {found['same'] + found['reworded']} steps were decided again"


def write() -> None:
    """Rewrite help, scene and plans. Recorded steps stay, since old records must keep their decisions."""
    for name in ("help", "json"):
        shutil.rmtree(GOLDEN / name, ignore_errors=True)
        (GOLDEN / name).mkdir(parents=True)
    for name, text in helps().items():
        (GOLDEN / "help" / name).write_text(text)
    runs = [scene(wait_s) for wait_s in WAITS_S]
    for name in runs[0]:
        both = reduce(masked, (run[name] for run in runs))
        (GOLDEN / "json" / name).write_text(json.dumps(both, indent=1, sort_keys=True) + "\n")
    (GOLDEN / "plans.txt").write_text("\n".join(plans()) + "\n")


def compare() -> list[str]:
    """Return all differences."""
    found: list[str] = []
    for folder, now in (("help", helps()), ("json", scene())):
        golden = {path.name: path.read_text() for path in (GOLDEN / folder).iterdir()}
        found += [
            f"{folder}/{name} is {'new' if name in now else 'gone'}"
            for name in sorted(golden.keys() ^ now.keys())
        ]
        for name in sorted(golden.keys() & now.keys()):
            was = json.loads(golden[name]) if folder == "json" else golden[name].splitlines()
            its = now[name] if folder == "json" else now[name].splitlines()
            found += [f"{folder}/{name}{where}" for where in differences(was, its)]
    found += unequal_plans((GOLDEN / "plans.txt").read_text().splitlines(), plans())
    return [*found, *replayed()]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write tests/golden anew")
    if parser.parse_args().write:
        write()
        return 0
    found = compare()
    print("\n".join(found) or "equal to the golden masters")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
