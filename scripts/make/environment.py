#!/usr/bin/env python3
"""Make the virtual environment of a checkout with the running Python. One that another Python made, or
whose Python is gone, is named and made anew: ensurepip fails in a mixture of two.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

IDENTITY = "import sys; print(sys.base_prefix, sys.version.split()[0])"


def identity_of(python: str) -> str:
    """Return prefix and version of the Python behind an interpreter; empty if it does not start."""
    try:
        completed = subprocess.run(
            [python, "-c", IDENTITY], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return completed.stdout.strip()


def foreign_reason(environment: Path, own_identity: str) -> str:
    """Return why an environment has to be made anew; empty if it has not, or if there is none."""
    if not (environment / "pyvenv.cfg").is_file():
        return ""
    identity = identity_of(str(environment / "bin" / "python"))
    if identity == own_identity:
        return ""
    if not identity:
        return "its Python does not start"
    return f"it was made by the Python {identity}"


def main() -> None:
    environment = Path(sys.argv[1])
    own_identity = identity_of(sys.executable)
    if reason := foreign_reason(environment, own_identity):
        print(f"{environment} is made anew by the Python {own_identity}: {reason}.", flush=True)
        shutil.rmtree(environment)
    venv.main([str(environment), *sys.argv[2:]])


if __name__ == "__main__":
    main()
