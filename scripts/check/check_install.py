#!/usr/bin/env python3
"""Check that trimtab installs without a compiler, for each Python version. Prints JSON; exit code 1
if any installation fails.

For interpreters on this machine (on the path, or of pyenv), the whole lock is installed into a new
environment, with a compiler that always fails. For the others uv resolves the lock from wheels alone,
which queries the index and installs nothing. Packages with pure Python sources are excluded there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LOCKS = ("locks/requirements-run.lock", "locks/requirements-demo.lock", "locks/requirements.lock")
SOURCE_PACKAGES = ("peewee",)
"""Packages of the lock without any wheel that build without a compiler: `peewee` then omits its C
extension."""


def interpreter(version: str) -> str | None:
    """Return an interpreter of this version, checked by running it; None without one."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    programs = [
        *sorted(str(path) for path in pyenv.glob(f"{version}.*/bin/python")),
        shutil.which(f"python{version}"),
        sys.executable,
    ]
    for program in filter(None, programs):
        process = subprocess.run(
            [program, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if process.stdout.strip() == version:
            return program
    return None


def install_error(program: str, lock: str) -> str:
    """Install the lock and import the agent; return the end of the error, empty on success."""
    with tempfile.TemporaryDirectory() as environment_folder:
        python = f"{environment_folder}/bin/python"
        no_compiler = {**os.environ, "CC": "/bin/false", "CXX": "/bin/false"}
        uv_command = [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "install",
            "--quiet",
            "--python",
            python,
            "--no-deps",
            "--require-hashes",
        ]
        commands = [
            [program, "-m", "venv", "--without-pip", environment_folder],
            [*uv_command, "-r", str(REPO / lock)],
            [
                python,
                "-c",
                "import agent.wiring.context, web3, eth_account; assert web3.__version__ >= '7'",
            ],
        ]
        if lock == "locks/requirements-run.lock":  # the others have uniswap-python or pre-releases
            commands.append([*uv_command[:4], "check", "--python", python])
        for command in commands:
            process = subprocess.run(
                command, capture_output=True, text=True, check=False, cwd=REPO, env=no_compiler
            )
            if process.returncode != 0:
                return (
                    process.stderr.strip().splitlines()[-1][:300]
                    if process.stderr.strip()
                    else f"exit {process.returncode}"
                )
    return ""


def missing_wheels_error(version: str, lock: str) -> str:
    """Return uv's error; empty if every pin of the lock for this Python version has a wheel."""
    options = [
        "--only-binary",
        ":all:",
        "--python-version",
        version,
        "--no-deps",
        "--quiet",
        "--no-header",
    ]
    pins = re.sub(r" *\\\n +--hash=\S+", "", (REPO / lock).read_text())
    requirements = "\n".join(
        line for line in pins.splitlines() if not line.startswith(SOURCE_PACKAGES)
    )
    process = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", "-", *options],
        input=requirements,
        capture_output=True,
        text=True,
        check=False,
        cwd=REPO,
    )
    return "" if process.returncode == 0 else process.stderr.strip()[-300:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--python", action="append", choices=PYTHONS, help="this Python only; may be repeated"
    )
    parser.add_argument(
        "--lock", action="append", choices=LOCKS, help="this lock only; may be repeated"
    )
    options = parser.parse_args()
    results = []
    for version in options.python or PYTHONS:
        program = interpreter(version)
        for lock in options.lock or LOCKS:
            error = (
                missing_wheels_error(version, lock)
                if program is None
                else install_error(program, lock)
            )
            results.append(
                {
                    "python": version,
                    "lock": lock,
                    "by": "wheels" if program is None else "installing",
                    "ok": not error,
                    "why": error,
                }
            )
    print(json.dumps(results, indent=1))
    return 0 if all(result["ok"] for result in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
