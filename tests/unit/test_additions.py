"""What an addition costs: each example is added to a copy of the package, in two files at most, and works there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import pytest

from tests.support import additions

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("addition", "check"),
    [
        (additions.TRIGGER, additions.check_trigger),
        (additions.ALLOCATOR, additions.check_allocator),
        (additions.SECTION, additions.check_section),
        (additions.COMMAND, additions.check_command),
        (additions.ALERT_KIND, additions.check_alert_kind),
    ],
    ids=["trigger", "allocator", "section", "command", "alert kind"],
)
def test_an_example_addition_of_two_files_works(addition: additions.Addition, check: Callable[[], None], tmp_path: Path) -> None:
    assert len(addition) <= 2
    # With its bytecode, which fits since sources keep their times; other processes may be writing some of it.
    shutil.copytree(ROOT / "agent", tmp_path / "agent", ignore=shutil.ignore_patterns("*.pyc.*"))
    for name, texts in addition.items():
        path = tmp_path / "agent" / name
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(reduce(additions.add, texts, before), encoding="utf-8")
    command = f"from tests.support.additions import {check.__name__} as check; check()"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
