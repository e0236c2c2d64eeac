#!/usr/bin/env python3
"""Write the locks: exact versions with hashes, for all systems and Python versions, without index
addresses. Pins that still satisfy the requirements stay.

`--upgrade NAME` (or `all`) takes the newest allowed version. All locks except that of fuzzing take the
versions of requirements.lock.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
PLAIN = ("--generate-hashes", "--no-emit-index-url", "--no-header", "--python-version", "3.11")
# uniswap-python 0.7.1 asks for web3 below 7 and runs on it (agent/chain/second_quote.py);
# hyperliquid-python-sdk 0.24.0 asks for eth-utils below 6 and runs on it
# (agent/venues/hyperliquid/client.py). A lock can say so, a package cannot.
OVERRIDES = ("web3>=7.16,<8", "eth-utils>=6,<7")
THIRD_QUOTE = ("uniswap-python==0.7.1", "lru-dict>=1.2,<2")
"""The third quote of swaps, and what its metadata lacks. No extra can name it: pip has no overrides."""


def compiled(out: str, *options: str, given: str = "") -> None:
    """Write one lock; `given` is the input if a source is "-"."""
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "compile",
        "--quiet",
        *PLAIN,
        *options,
        "--output-file",
        out,
    ]
    subprocess.run(command, cwd=REPO, input=given, text=True, check=True)


def extras(*names: str) -> list[str]:
    return [word for name in names for word in ("--extra", name)]


def write_all(upgrade: list[str]) -> None:
    known = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    newer = [
        word
        for name in upgrade
        for word in (["--upgrade"] if name == "all" else ["--upgrade-package", name])
    ]
    same = ("--universal", "--no-annotate", "--constraint", "requirements.lock")
    every = extras(
        "hyperliquid",
        "local",
        "analysis",
        "cluster",
        "dashboard",
        "mcp",
        "telegram",
        "build",
        "test",
        "dev",
    )
    with tempfile.TemporaryDirectory() as scratch:
        override = Path(scratch) / "override.txt"
        override.write_text("\n".join(OVERRIDES) + "\n")
        overridden = ("--override", str(override))
        third = Path(scratch) / "third-quote.txt"
        third.write_text("\n".join(THIRD_QUOTE) + "\n")
        both = ("pyproject.toml", str(third))
        compiled("requirements.lock", *both, *every, *overridden, "--universal", *newer)
        lock = REPO / "requirements.lock"
        lock.write_text(
            lock.read_text().replace(f"{scratch}/", "")
        )  # path of the override on this machine
        compiled("requirements-run.lock", "pyproject.toml", *same)
        compiled("requirements-demo.lock", *both, *extras("local"), *overridden, *same)
    tools = [*known["build"], *(item for item in known["dev"] if item.startswith("uv"))]
    compiled("requirements-build.lock", "-", *same, given="\n".join(tools))
    compiled("requirements-fuzz.lock", "-", "--no-annotate", given="\n".join(known["fuzz"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="append", default=[], metavar="NAME")
    write_all(parser.parse_args().upgrade)
