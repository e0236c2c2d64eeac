"""This processor made to answer like others: BLAS kernels and threads, NumPy's SIMD levels, variants of glibc's functions.

Run as a program in one of these environments it prints fingerprints of what is decided there from steps in a file, and of what is
known to differ from machine to machine; it runs the orders' tests there, and records steps or replays them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from agent import codec
from agent.app.research.offline import plan_from, replay
from agent.errors import Refused
from agent.model import StepInput
from agent.planning.planner import plan
from agent.policy.decide import decide
from agent.policy.step_input import apply_effective_targets
from tests.support.planning_worlds import goal

ROOT = Path(__file__).parents[2]
FOUND: Sequence[str] = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])  # type: ignore[index,call-overload]
"""What NumPy uses of this processor beyond what it asks of any."""
AVX512 = [name for name in FOUND if "512" in name or name == "X86_V4"]
MACHINES: Mapping[str, Mapping[str, str]] = {
    "AVX2": {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "4", "NPY_DISABLE_CPU_FEATURES": " ".join(AVX512)},
    "AVX-512": {"OPENBLAS_CORETYPE": "SkylakeX", "OPENBLAS_NUM_THREADS": "1"},
    "SSE": {
        "OPENBLAS_CORETYPE": "Prescott",
        "OPENBLAS_NUM_THREADS": "2",
        "NPY_DISABLE_CPU_FEATURES": " ".join(FOUND),
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX,-AVX512F",
    },
}
KERNEL = "import numpy, threadpoolctl; print(*(one.get('architecture') for one in threadpoolctl.threadpool_info()))"


@cache
def kernel(machine: str) -> str:
    """OpenBLAS's kernel on that machine, as it calls it."""
    return asked(machine, "-c", KERNEL)


@cache
def lacking(machine: str) -> str:
    """Why this processor cannot answer like that machine; empty where it can."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return "kernels of x86 alone are known here"
    if machine == "AVX-512" and not AVX512:
        return "this processor has no AVX-512"
    wanted, used = MACHINES[machine]["OPENBLAS_CORETYPE"], kernel(machine)
    # OpenBLAS calls the kernel of Prescott by the name of any old one.
    fits = wanted in used or (wanted == "Prescott" and not {"Haswell", "Zen", "SkylakeX"} & set(used.split()))
    return "" if fits else f"NumPy's OpenBLAS has no kernel {wanted}"


@cache
def suite_runs(machine: str) -> bool:
    """Whether this process already has that machine's BLAS kernel: then the suite itself runs the orders' tests under it."""
    return kernel(machine) == subprocess.run([sys.executable, "-c", KERNEL], capture_output=True, text=True, check=True).stdout


def begun(machine: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """A Python on that machine, under way; sets are in another order on each."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTEST_"))}
    env = kept | MACHINES[machine] | {"PYTHONHASHSEED": str(len(machine))}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> str:
    """What it printed, once it was told with a line that it may end. Fails where it failed."""
    out, err = process.communicate("\n")
    assert process.returncode == 0, f"{out[-4_000:]}\n{err[-4_000:]}"
    return out


def asked(machine: str, *arguments: str | Path) -> str:
    """What a Python prints on that machine."""
    return ended(begun(machine, *arguments))


def fingerprint(text: str) -> str:
    """A few digits that differ where the texts do."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def written(path: Path, steps: Iterable[StepInput]) -> Path:
    """The path, with these steps in it as they are: to build them again would be to calculate with floats."""
    path.write_bytes(pickle.dumps(list(steps)))
    return path


def canaries() -> dict[str, str]:
    """What is known to differ between machines: where it does not, no environment took."""
    dice = np.random.default_rng(1)
    matrix, points = dice.normal(size=(40, 40)), np.linspace(0.1, 50, 10_001)
    return {
        "LAPACK": fingerprint(repr(np.linalg.solve(matrix, matrix[0]).tolist())),
        "NumPy": fingerprint(repr(np.exp(points).tolist())),
        "glibc": fingerprint(repr([math.exp(x) for x in points.tolist()])),
    }


def planned(step: StepInput) -> str:
    """The plan to its targets, or why there is none; and what its own trigger decides."""
    try:
        found = codec.dumps(plan(step, goal(step)))
    except Refused as why:
        found = str(why)
    return f"{found} {codec.dumps(decide(step))}"


def whole(step: StepInput) -> str:
    """The targets of the step, what it decides, with all that it says of it, and its plan."""
    found = plan_from(step)
    return f"{codec.dumps(step.portfolio)} {found.reason} {codec.dumps(found.decided)} {found.plan and codec.dumps(found.plan)}"


def main(role: str, plans: Path, steps: Path, folder: Path, *orders: str) -> int:
    """Prints all fingerprints in its last line, once the orders' tests have passed; the exit code.

    The role "record" writes the whole steps into the folder; "replay" decides them again as soon as a line on stdin says that they
    are there. One process does it all, since imports take longer than most of it.
    """
    here = [apply_effective_targets(step) if step.portfolio.weights is not None else step for step in pickle.loads(steps.read_bytes())]
    if role == "record":
        from tests.support.stores import recorded  # with web3 and alembic, which the others do without

        recorded(folder, here)
    found: dict[str, Any] = {
        "differs": canaries(),
        "plans": [fingerprint(planned(step)) for step in pickle.loads(plans.read_bytes())],
        "steps": [fingerprint(whole(step)) for step in here],
    }
    if orders:
        import pytest

        if failed := pytest.main(["-x", "-n0", *orders]):
            return int(failed)
    if role == "replay":
        sys.stdin.readline()
        found["replayed"] = replay(folder / "steps")
    print(f"\n{json.dumps(found)}")
    return 0


if __name__ == "__main__":
    role, *paths = sys.argv[1:]
    plans, steps, folder = map(Path, paths[:3])
    sys.exit(main(role, plans, steps, folder, *paths[3:]))
