"""The bench of the submitter's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.transactions import Bench, bench


@pytest.fixture
def setup(tmp_path: Path) -> Bench:
    """A new store, chain, signer and clock around an executor."""
    return bench(tmp_path)
