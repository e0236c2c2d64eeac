#!/usr/bin/env python3
"""Installs locks into the Python that runs this, by its pip, with progress; then trimtab itself from this checkout.

Dependencies of the packages are not looked at: a lock names them all, and uniswap-python's wish for web3 6 is overridden in it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
PIP = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--no-compile", "--progress-bar", "off"]
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)
_STEP = re.compile(r"(?:Collecting|Requirement already satisfied:) ([A-Za-z0-9._-]+)")


def show(text: str) -> None:
    """One line that the next one replaces on a terminal; in a log every twentieth package has a line."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="", flush=True)
    elif not text.startswith("[") or re.match(r"\[\d*0/|\[1/", text):
        print(text, flush=True)


def install(locks: list[Path]) -> None:
    """Raises SystemExit with pip's own last words where it fails."""
    wanted = {name.lower() for lock in locks for name in _PIN.findall(lock.read_text())}
    files = [word for lock in locks for word in ("-r", str(lock))]
    said: list[str] = []
    seen = 0
    with subprocess.Popen([*PIP, "--require-hashes", *files], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            said = [*said[-20:], line]
            if (step := _STEP.match(line)) is not None:
                seen += 1
                show(f"[{seen}/{len(wanted)}] {step[1]}")
            elif line.startswith("Installing collected packages"):
                show("Unpacking")
    if process.returncode != 0:
        raise SystemExit("\n" + "".join(said))


if __name__ == "__main__":
    started = time.monotonic()
    install([REPO / name for name in sys.argv[1:]])
    show("trimtab")
    subprocess.run([*PIP, "--quiet", "--no-build-isolation", "--editable", str(REPO)], check=True)
    show("Compiling")
    subprocess.run([sys.executable, str(REPO / "scripts" / "compile_imports.py")], check=True)
    show(f"Packages installed in {time.monotonic() - started:.0f} s\n")
