"""A run of CI on a machine without Chromium ends with one line, not with a failure of each test in the browser."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.chromium import REMEDY

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("named", "ends"),
    [
        ("tests/browser", True),
        ("tests/browser/test_report_page.py", True),
        ("tests/unit/test_floats.py", False),
    ],
)
def test_without_chromium_ci_ends_before_its_first_test(tmp_path: Path, named: str, ends: bool) -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", named]
    environment = {**os.environ, "CI": "true", "PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    text = (done.stdout + done.stderr).strip()
    assert done.returncode == (1 if ends else 0), text
    assert (REMEDY in text) is ends
    if ends:
        assert len(done.stderr.splitlines()) == 1, text
        assert len(text.splitlines()) <= 2, text
