"""Emulation of other processors on this one: BLAS kernels and threads, NumPy's SIMD levels, variants of glibc's functions.

Run as a program in one of these environments, it prints fingerprints of decisions on steps from a file, and of results known to differ
between machines; it also runs the orders' tests, and records or replays steps.
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
from agent.app.research.offline import plan_step_input, replay
from agent.errors import Refused
from agent.layers.inputs import apply_effective_targets
from agent.model import StepInput
from agent.planning.planner import plan
from agent.policy.decide import decide
from tests.support.planning_worlds import rebalance_to_targets

ROOT = Path(__file__).parents[2]
FOUND: Sequence[str] = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])  # type: ignore[index,call-overload]
"""SIMD extensions that NumPy uses here beyond its baseline."""
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
    """Return the name of OpenBLAS's kernel on that machine."""
    return output_on(machine, "-c", KERNEL)


@cache
def lacking(machine: str) -> str:
    """Return the reason why this processor cannot emulate that machine; empty if it can."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return "kernels of x86 alone are known here"
    if machine == "AVX-512" and not AVX512:
        return "this processor has no AVX-512"
    core_type = MACHINES[machine]["OPENBLAS_CORETYPE"]
    used = kernel(machine)
    # OpenBLAS reports one name for Prescott and all older kernels
    fits = core_type in used or (core_type == "Prescott" and not {"Haswell", "Zen", "SkylakeX"} & set(used.split()))
    return "" if fits else f"NumPy's OpenBLAS has no kernel {core_type}"


@cache
def suite_runs(machine: str) -> bool:
    """Return whether this process already has that machine's BLAS kernel; the suite itself then covers the orders' tests."""
    return kernel(machine) == subprocess.run([sys.executable, "-c", KERNEL], capture_output=True, text=True, check=True).stdout


def start_on(machine: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start Python on that machine; sets have a different order on each."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTEST_"))}
    env = variables | MACHINES[machine] | {"PYTHONHASHSEED": str(len(machine))}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def end_output(process: subprocess.Popen[str]) -> str:
    """Let a process end by sending it a line, and return its output. Fails if it failed."""
    out, err = process.communicate("\n")
    assert process.returncode == 0, f"{out[-4_000:]}\n{err[-4_000:]}"
    return out


def output_on(machine: str, *arguments: str | Path) -> str:
    """Return the output of Python on that machine."""
    return end_output(start_on(machine, *arguments))


def fingerprint(text: str) -> str:
    """Return a short hash of the text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_steps(path: Path, steps: Iterable[StepInput]) -> Path:
    """Write these steps to the path by pickle, since building them again would compute with floats."""
    path.write_bytes(pickle.dumps(list(steps)))
    return path


def canaries() -> dict[str, str]:
    """Return results known to differ between machines; if they are equal, the environment had no effect."""
    matrix = np.random.default_rng(1).normal(size=(40, 40))
    points = np.linspace(0.1, 50, 10_001)
    return {
        "LAPACK": fingerprint(repr(np.linalg.solve(matrix, matrix[0]).tolist())),
        "NumPy": fingerprint(repr(np.exp(points).tolist())),
        "glibc": fingerprint(repr([math.exp(x) for x in points.tolist()])),
    }


def plan_text_of(step: StepInput) -> str:
    """Return the plan to the step's targets, or the reason for none; and the decision of its own trigger."""
    try:
        plan_text = codec.dumps(plan(step, rebalance_to_targets(step)))
    except Refused as why:
        plan_text = str(why)
    return f"{plan_text} {codec.dumps(decide(step))}"


def step_text(step: StepInput) -> str:
    """Return the step's targets, decision with all details, and plan as text."""
    outcome = plan_step_input(step)
    plan_text = outcome.plan and codec.dumps(outcome.plan)
    return f"{codec.dumps(step.portfolio)} {outcome.reason} {codec.dumps(outcome.decision_result)} {plan_text}"


def main(role: str, plans: Path, steps: Path, folder: Path, *orders: str) -> int:
    """Run the orders' tests and print all fingerprints in the last line; return the exit code.

    The role "record" writes the whole steps into the folder; "replay" decides them again once a line on stdin reports that they are
    there. One process does everything, since imports take most of the time.
    """
    here = [apply_effective_targets(step) if step.portfolio.allocator is not None else step for step in pickle.loads(steps.read_bytes())]
    if role == "record":
        from tests.support.stores import recorded_steps  # imports web3 and alembic, which the other roles do not need

        recorded_steps(folder, here)
    document: dict[str, Any] = {
        "differs": canaries(),
        "plans": [fingerprint(plan_text_of(step)) for step in pickle.loads(plans.read_bytes())],
        "steps": [fingerprint(step_text(step)) for step in here],
    }
    if orders:
        import pytest

        if failed := pytest.main(["-x", "-n0", *orders]):
            return int(failed)
    if role == "replay":
        sys.stdin.readline()
        document["replayed"] = replay(folder / "steps")
    print(f"\n{json.dumps(document)}")
    return 0


if __name__ == "__main__":
    role, *paths = sys.argv[1:]
    plans, steps, folder = map(Path, paths[:3])
    sys.exit(main(role, plans, steps, folder, *paths[3:]))
