"""How much `make test` looks at of what `make slow` looks at longer: random searches, and cases that repeat one another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings

USUAL = 50
"""Examples of a property that names no number, unless `make slow` asks for more (tests/conftest.py)."""


def examples(number: int, **more: Any) -> settings:
    """So many examples where others have the usual number; more or fewer where they have."""
    return settings(max_examples=max(1, number * settings.default.max_examples // USUAL), **more)


def slow(cases: Iterable[Any]) -> list[Any]:
    """Cases of a parameter that repeat what the others show, for `make slow` alone."""
    return [
        pytest.param(*case, marks=pytest.mark.slow) if isinstance(case, tuple) else pytest.param(case, marks=pytest.mark.slow)
        for case in cases
    ]
