#!/usr/bin/env python3
"""Install locks into the running Python, then trimtab from this checkout; with --npm also the locked
npm packages, at the same time.

uv downloads packages in parallel, in seconds instead of most of a minute with pip. It is installed
from requirements-build.lock into a temporary folder. If uv cannot reach the index, pip installs the
locks. Dependencies of the packages are not resolved: a lock names them all, and overrides
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

REPO = Path(__file__).resolve().parent.parent
PIP = [
    sys.executable,
    "-m",
    "pip",
    "install",
    "--disable-pip-version-check",
    "--no-deps",
    "--no-compile",
]
HASHED = "--require-hashes"


def say(text: str) -> None:
    print(text, flush=True)


def done(command: list[str], **environment: str) -> bool:
    """Run a command, showing its output; return whether it succeeded."""
    return (
        subprocess.run(command, cwd=REPO, env={**os.environ, **environment}, check=False).returncode
        == 0
    )


def install(locks: list[str]) -> bool:
    """Install the locks and trimtab into this Python; return whether that succeeded."""
    files = [word for lock in locks for word in ("-r", lock)]
    with tempfile.TemporaryDirectory() as tools:
        if not done([*PIP, "--quiet", HASHED, "--target", tools, "-r", "requirements-build.lock"]):
            return False
        uv = [
            f"{tools}/bin/uv",
            "pip",
            "install",
            "--python",
            sys.executable,
            "--no-deps",
            HASHED,
            *files,
        ]
        index = {"UV_HTTP_RETRIES": "1"}  # fail early if the index is unreachable
        if "PIP_INDEX_URL" in os.environ:
            index["UV_DEFAULT_INDEX"] = os.environ["PIP_INDEX_URL"]
        if not done(uv, **index):
            say("uv failed; continuing with pip")
            if not done([*PIP, HASHED, *files]):
                return False
        return done([*PIP, "--quiet", "--no-build-isolation", "--editable", "."], PYTHONPATH=tools)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("locks", nargs="+", metavar="LOCK")
    parser.add_argument(
        "--npm",
        choices=("users", "developers"),
        help="npm packages of users or of developers; without this, none",
    )
    wanted = parser.parse_args()
    started = time.monotonic()
    npm = [
        sys.executable,
        "scripts/npm_install.py",
        *(["--dev"] if wanted.npm == "developers" else []),
    ]
    early = None
    if wanted.npm and shutil.which("npm"):  # else after the packages, which include node
        early = subprocess.Popen(npm, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)})
    say("1/3 Python packages" + (", npm packages in parallel" if early else ""))
    well = install(wanted.locks)
    if well:
        say("2/3 bytecode of imported modules")
        well = done([sys.executable, "scripts/compile_imports.py"])
    if well and wanted.npm:
        say("3/3 npm packages")
        well = done(npm) if early is None else early.wait() == 0
    elif early is not None:
        early.terminate()
        early.wait()
    say(f"{'set up' if well else 'failed'} after {time.monotonic() - started:.0f} s")
    return 0 if well else 1


if __name__ == "__main__":
    raise SystemExit(main())
