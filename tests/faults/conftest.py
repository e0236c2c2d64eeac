"""Fixtures of the faults."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.faults.suite import Folders


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Makes an empty folder at each call."""
    numbers = itertools.count()

    def fresh() -> Path:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return folder

    return fresh
