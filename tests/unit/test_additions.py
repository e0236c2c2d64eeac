"""What an addition costs: each example is added to a copy of the package, in two files at most, and works there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import additions

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("addition", "check"), [(additions.TRIGGER, additions.check_trigger)], ids=["trigger"])
def test_an_example_addition_of_two_files_works(addition: additions.Addition, check: object, tmp_path: Path) -> None:
    assert len(addition) <= 2
    shutil.copytree(ROOT / "agent", tmp_path / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in addition.items():
        with (tmp_path / "agent" / path).open("a", encoding="utf-8") as file:
            file.write(text)
    name = check.__name__  # type: ignore[attr-defined]  # of a function
    command = f"from tests.support.additions import {name}; {name}()"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
