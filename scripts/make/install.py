#!/usr/bin/env python3
"""Install locks into the running Python, then trimtab from this checkout; with --npm also the locked
npm packages, at the same time.

uv downloads packages in parallel, in seconds instead of most of a minute with pip. It is installed
from locks/requirements-build.lock into a temporary folder. If uv cannot reach the index, pip
installs the locks. Dependencies of the packages are not resolved: a lock names them all, and overrides
uniswap-python's requirement of web3 6.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PIP_INSTALL = [
    sys.executable,
    "-m",
    "pip",
    "install",
    "--disable-pip-version-check",
    "--no-deps",
    "--no-compile",
]
HASHES_OPTION = "--require-hashes"


def say(text: str) -> None:
    print(text, flush=True)


def run_command(command: list[str], **environment: str) -> bool:
    """Run a command, showing its output; return whether it succeeded."""
    return (
        subprocess.run(command, cwd=REPO, env={**os.environ, **environment}, check=False).returncode
        == 0
    )


def install(locks: list[str]) -> bool:
    """Install the locks and trimtab into this Python; return whether that succeeded."""
    lock_options = [word for lock in locks for word in ("-r", lock)]
    with tempfile.TemporaryDirectory() as tools_folder:
        if not run_command(
            [
                *PIP_INSTALL,
                "--quiet",
                HASHES_OPTION,
                "--target",
                tools_folder,
                "-r",
                "locks/requirements-build.lock",
            ]
        ):
            return False
        uv_command = [
            f"{tools_folder}/bin/uv",
            "pip",
            "install",
            "--python",
            sys.executable,
            "--no-deps",
            HASHES_OPTION,
            *lock_options,
        ]
        index_variables = {"UV_HTTP_RETRIES": "1"}  # fail early if the index is unreachable
        if "PIP_INDEX_URL" in os.environ:
            index_variables["UV_DEFAULT_INDEX"] = os.environ["PIP_INDEX_URL"]
        if not run_command(uv_command, **index_variables):
            say("uv failed; continuing with pip")
            if not run_command([*PIP_INSTALL, HASHES_OPTION, *lock_options]):
                return False
        return run_command(
            [*PIP_INSTALL, "--quiet", "--no-build-isolation", "--editable", "."],
            PYTHONPATH=tools_folder,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("locks", nargs="+", metavar="LOCK")
    parser.add_argument(
        "--npm",
        choices=("users", "developers"),
        help="npm packages of users or of developers; without this, none",
    )
    options = parser.parse_args()
    began_s = time.monotonic()
    npm_command = [
        sys.executable,
        "scripts/make/npm_install.py",
        *(["--dev"] if options.npm == "developers" else []),
    ]
    early_npm = None
    if options.npm and shutil.which("npm"):  # else after the packages, which include node
        early_npm = subprocess.Popen(
            npm_command, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)}
        )
    say("1/3 Python packages" + (", npm packages in parallel" if early_npm else ""))
    succeeded = install(options.locks)
    if succeeded:
        say("2/3 bytecode of imported modules")
        succeeded = run_command([sys.executable, "scripts/make/compile_imports.py"])
    if succeeded and options.npm:
        say("3/3 npm packages")
        succeeded = run_command(npm_command) if early_npm is None else early_npm.wait() == 0
    elif early_npm is not None:
        early_npm.terminate()
        early_npm.wait()
    say(f"{'set up' if succeeded else 'failed'} after {time.monotonic() - began_s:.0f} s")
    return 0 if succeeded else 1


if __name__ == "__main__":
    raise SystemExit(main())
