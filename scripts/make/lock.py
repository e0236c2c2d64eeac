#!/usr/bin/env python3
"""Write the locks: exact versions with hashes, for all systems and Python versions, without index
addresses. Pins that still satisfy the requirements stay.

`--upgrade NAME` (or `all`) takes the newest allowed version. All locks except that of fuzzing take the
versions of locks/requirements.lock.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
BASE_OPTIONS = (
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-header",
    "--python-version",
    "3.11",
)
THIRD_QUOTE_OPTIONS = ("--group", "third-quote")
"""The dependency group of pyproject.toml; uv reads the overrides beside it by itself."""


def write_lock(name: str, *options: str, input_text: str = "") -> None:
    """Write a lock of locks/; `input_text` is the input if a source is "-"."""
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "compile",
        "--quiet",
        *BASE_OPTIONS,
        *options,
        "--output-file",
        f"locks/{name}",
    ]
    subprocess.run(command, cwd=REPO, input=input_text, text=True, check=True)


def extra_options(*names: str) -> list[str]:
    return [word for name in names for word in ("--extra", name)]


def write_all(upgrade: list[str]) -> None:
    extra_packages = tomllib.loads((REPO / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    upgrade_options = [
        word
        for name in upgrade
        for word in (["--upgrade"] if name == "all" else ["--upgrade-package", name])
    ]
    common_options = ("--universal", "--no-annotate", "--constraint", "locks/requirements.lock")
    all_extras = extra_options(
        "hyperliquid",
        "local",
        "analysis",
        "cluster",
        "fleet",
        "dashboard",
        "mcp",
        "telegram",
        "build",
        "test",
        "dev",
    )
    write_lock(
        "requirements.lock",
        "pyproject.toml",
        *THIRD_QUOTE_OPTIONS,
        *all_extras,
        "--universal",
        *upgrade_options,
    )
    write_lock("requirements-run.lock", "pyproject.toml", *common_options)
    write_lock(
        "requirements-serve.lock",
        "pyproject.toml",
        *extra_options("dashboard", "fleet", "telegram"),
        *common_options,
    )
    write_lock(
        "requirements-demo.lock",
        "pyproject.toml",
        *THIRD_QUOTE_OPTIONS,
        *extra_options("local"),
        *common_options,
    )
    build_tools = [
        *extra_packages["build"],
        *(requirement for requirement in extra_packages["dev"] if requirement.startswith("uv")),
    ]
    write_lock("requirements-build.lock", "-", *common_options, input_text="\n".join(build_tools))
    write_lock(
        "requirements-figures.lock",
        "-",
        *common_options,
        "--no-emit-package",
        "cvxpy",  # of cvxportfolio; its files are those of cvxpy-base, which skfolio needs
        input_text="\n".join(extra_packages["figures"]),
    )
    write_lock(
        "requirements-fuzz.lock", "-", "--no-annotate", input_text="\n".join(extra_packages["fuzz"])
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="append", default=[], metavar="NAME")
    write_all(parser.parse_args().upgrade)
