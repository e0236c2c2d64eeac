"""Sample sizes of `make test`, which `make slow` increases: random searches, and cases that repeat one another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings

USUAL = 50
"""Default number of examples of a property, unless `make slow` asks for more (tests/conftest.py)."""


def examples(number: int, **more: Any) -> settings:
    """Return settings with this number of examples, scaled like the default number."""
    return settings(max_examples=max(1, number * settings.default.max_examples // USUAL), **more)


def slow(cases: Iterable[Any]) -> list[Any]:
    """Mark cases of a parameter that repeat what others show, to run by `make slow` only."""
    return [
        pytest.param(*case, marks=pytest.mark.slow) if isinstance(case, tuple) else pytest.param(case, marks=pytest.mark.slow)
        for case in cases
    ]
